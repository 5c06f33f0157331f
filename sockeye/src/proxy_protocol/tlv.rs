//! What version 2 says beside the addresses: types, lengths and values (sections 2.2.1 to 2.2.8 of the specification).

use super::{EncodeError, Invalid};

/// The most TLVs of a header, those within `SSL` and padding counted: one for each type there can be. An empty TLV has
/// 3 bytes and costs far more when it is parsed; without a limit 21,845 of them fit into a header.
pub const MAX_TLVS: usize = 256;

/// The longest unique ID (section 2.2.5).
pub const MAX_UNIQUE_ID_BYTES: usize = 128;

/// One thing that a proxy says of a connection. What the specification calls a string is kept as its bytes, which need
/// not be one; the accessors of [`Header`](super::Header) ask.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tlv {
    /// Type 0x01: the protocol agreed on (RFC 7301).
    Alpn(Vec<u8>),
    /// Type 0x02: the host name that the client asked for.
    Authority(Vec<u8>),
    /// Type 0x03: the header has a CRC32C of itself (RFC 4960, appendix B). Of a parsed header it was right; of one to
    /// be sent it is computed. So it has no value here.
    Crc32c,
    /// Type 0x05: what the proxy calls the connection, at most [`MAX_UNIQUE_ID_BYTES`].
    UniqueId(Vec<u8>),
    /// Type 0x20: the client's TLS.
    Ssl(Ssl),
    /// Type 0x30: the name of the network namespace.
    Netns(Vec<u8>),
    /// Any other type, as it came.
    Other(RawTlv),
}

/// A type and its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawTlv {
    /// The type.
    pub kind: u8,
    /// The value, at most 65,535 bytes.
    pub value: Vec<u8>,
}

/// What a proxy knows of the client's TLS (section 2.2.6).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ssl {
    /// The bits [`TLS`](Self::TLS), [`CERTIFICATE_CONNECTION`](Self::CERTIFICATE_CONNECTION) and
    /// [`CERTIFICATE_SESSION`](Self::CERTIFICATE_SESSION).
    pub client: u8,
    /// Zero if the client's certificate was verified. Some proxies also say zero where there was none, so ask
    /// [`verified`](Self::verified).
    pub verify: u32,
    /// The details, in their order.
    pub details: Vec<RawTlv>,
}

impl Ssl {
    /// The client connected over TLS.
    pub const TLS: u8 = 0x01;
    /// The client gave a certificate on this connection.
    pub const CERTIFICATE_CONNECTION: u8 = 0x02;
    /// The client gave a certificate at least once in the TLS session that this connection belongs to.
    pub const CERTIFICATE_SESSION: u8 = 0x04;

    /// The type of [`version`](Self::version).
    pub const VERSION: u8 = 0x21;
    /// The type of [`common_name`](Self::common_name).
    pub const COMMON_NAME: u8 = 0x22;
    /// The type of [`cipher`](Self::cipher).
    pub const CIPHER: u8 = 0x23;
    /// The type of [`signature_algorithm`](Self::signature_algorithm).
    pub const SIGNATURE_ALGORITHM: u8 = 0x24;
    /// The type of [`key_algorithm`](Self::key_algorithm).
    pub const KEY_ALGORITHM: u8 = 0x25;

    /// Whether the client connected over TLS.
    pub fn is_tls(&self) -> bool {
        self.client & Self::TLS != 0
    }

    /// Whether the client gave a certificate, on this connection or earlier in its session, and the proxy verified it.
    pub fn verified(&self) -> bool {
        let given = Self::CERTIFICATE_CONNECTION | Self::CERTIFICATE_SESSION;
        self.client & given != 0 && self.verify == 0
    }

    /// The version of TLS, such as `TLSv1.3`. `None` also if it is not UTF-8, as with all that follow.
    pub fn version(&self) -> Option<&str> {
        self.text(Self::VERSION)
    }

    /// The common name of the client certificate's subject.
    pub fn common_name(&self) -> Option<&str> {
        self.text(Self::COMMON_NAME)
    }

    /// The cipher, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    pub fn cipher(&self) -> Option<&str> {
        self.text(Self::CIPHER)
    }

    /// How the proxy's certificate is signed, such as `RSA-SHA256`.
    pub fn signature_algorithm(&self) -> Option<&str> {
        self.text(Self::SIGNATURE_ALGORITHM)
    }

    /// The key of the proxy's certificate, such as `RSA2048`.
    pub fn key_algorithm(&self) -> Option<&str> {
        self.text(Self::KEY_ALGORITHM)
    }

    fn text(&self, kind: u8) -> Option<&str> {
        let detail = self.details.iter().find(|detail| detail.kind == kind)?;
        std::str::from_utf8(&detail.value).ok()
    }
}

/// The TLVs from `start` to the end of a whole header.
pub(super) fn parse(header: &[u8], start: usize) -> Result<Vec<Tlv>, Invalid> {
    let mut tlvs = Vec::new();
    let mut allowed = MAX_TLVS;
    let mut has_checksum = false;
    let mut at = start;
    while let Some(found) = Found::at(header, at, &mut allowed)? {
        at = found.end();
        let value = || found.value.to_vec();
        tlvs.push(match found.kind {
            ALPN => Tlv::Alpn(value()),
            AUTHORITY => Tlv::Authority(value()),
            CRC32C => {
                if has_checksum {
                    return Err(Invalid::ChecksumTwice { at: found.at });
                }
                has_checksum = true;
                check_checksum(header, &found)?;
                Tlv::Crc32c
            }
            NOOP => continue,
            UNIQUE_ID if found.value.len() > MAX_UNIQUE_ID_BYTES => {
                return Err(found.wrong_length());
            }
            UNIQUE_ID => Tlv::UniqueId(value()),
            SSL => Tlv::Ssl(parse_ssl(header, &found, &mut allowed)?),
            NETNS => Tlv::Netns(value()),
            kind => Tlv::Other(RawTlv {
                kind,
                value: value(),
            }),
        });
    }
    Ok(tlvs)
}

fn parse_ssl(header: &[u8], ssl: &Found<'_>, allowed: &mut usize) -> Result<Ssl, Invalid> {
    let Some((&[client, ref verify @ ..], _)) = ssl.value.split_first_chunk::<SSL_BYTES>() else {
        return Err(ssl.wrong_length());
    };
    let mut details = Vec::new();
    // What is within ends where the whole ends, so offsets are those of the header.
    let whole = header.get(..ssl.end()).unwrap_or_default();
    let mut at = ssl.at + PREFIX_BYTES + SSL_BYTES;
    while let Some(found) = Found::at(whole, at, allowed)? {
        at = found.end();
        details.push(RawTlv {
            kind: found.kind,
            value: found.value.to_vec(),
        });
    }
    Ok(Ssl {
        client,
        verify: u32::from_be_bytes(*verify),
        details,
    })
}

fn check_checksum(header: &[u8], found: &Found<'_>) -> Result<(), Invalid> {
    let Some(stored) = found.value.first_chunk().copied() else {
        return Err(found.wrong_length());
    };
    if found.value.len() != CHECKSUM_BYTES {
        return Err(found.wrong_length());
    }
    // Over the whole header, with zeros in the place of the sum itself.
    let before = header.get(..found.at + PREFIX_BYTES).unwrap_or_default();
    let after = header.get(found.end()..).unwrap_or_default();
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; CHECKSUM_BYTES]);
    if crc32c::crc32c_append(sum, after) != u32::from_be_bytes(stored) {
        return Err(Invalid::Checksum { at: found.at });
    }
    Ok(())
}

/// A TLV in its header.
struct Found<'a> {
    at: usize,
    kind: u8,
    value: &'a [u8],
}

impl<'a> Found<'a> {
    /// The TLV at `at`, or `None` at the end of `whole`.
    fn at(whole: &'a [u8], at: usize, allowed: &mut usize) -> Result<Option<Self>, Invalid> {
        let rest = whole.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let past_end = Invalid::TlvPastEnd { at };
        let Some((&[kind, high, low], rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(past_end);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..length).ok_or(past_end)?;
        *allowed = allowed.checked_sub(1).ok_or(Invalid::TooManyTlvs)?;
        Ok(Some(Self { at, kind, value }))
    }

    fn end(&self) -> usize {
        self.at + PREFIX_BYTES + self.value.len()
    }

    fn wrong_length(&self) -> Invalid {
        Invalid::TlvLength {
            at: self.at,
            kind: self.kind,
            bytes: self.value.len(),
        }
    }
}

/// Appends the TLVs. Gives the place of the checksum, which has zeros for now.
pub(super) fn put(bytes: &mut Vec<u8>, tlvs: &[Tlv]) -> Result<Option<usize>, EncodeError> {
    let within = tlvs.iter().map(|tlv| match tlv {
        Tlv::Ssl(ssl) => ssl.details.len(),
        _ => 0,
    });
    if tlvs.len() + within.sum::<usize>() > MAX_TLVS {
        return Err(EncodeError::TooManyTlvs);
    }
    let mut checksum = None;
    for tlv in tlvs {
        match tlv {
            Tlv::Alpn(value) => put_raw(bytes, ALPN, value)?,
            Tlv::Authority(value) => put_raw(bytes, AUTHORITY, value)?,
            Tlv::Crc32c if checksum.is_some() => return Err(EncodeError::ChecksumTwice),
            Tlv::Crc32c => {
                checksum = Some(bytes.len() + PREFIX_BYTES);
                put_raw(bytes, CRC32C, &[0; CHECKSUM_BYTES])?;
            }
            Tlv::UniqueId(value) if value.len() > MAX_UNIQUE_ID_BYTES => {
                return Err(EncodeError::UniqueIdTooLong { bytes: value.len() });
            }
            Tlv::UniqueId(value) => put_raw(bytes, UNIQUE_ID, value)?,
            Tlv::Ssl(ssl) => put_raw(bytes, SSL, &ssl_value(ssl)?)?,
            Tlv::Netns(value) => put_raw(bytes, NETNS, value)?,
            Tlv::Other(raw) => match raw.kind {
                kind @ (ALPN | AUTHORITY | CRC32C | NOOP | UNIQUE_ID | SSL | NETNS) => {
                    return Err(EncodeError::KnownKind { kind });
                }
                kind => put_raw(bytes, kind, &raw.value)?,
            },
        }
    }
    Ok(checksum)
}

fn ssl_value(ssl: &Ssl) -> Result<Vec<u8>, EncodeError> {
    let mut value = vec![ssl.client];
    value.extend(ssl.verify.to_be_bytes());
    for detail in &ssl.details {
        put_raw(&mut value, detail.kind, &detail.value)?;
    }
    Ok(value)
}

fn put_raw(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), EncodeError> {
    let length = u16::try_from(value.len()).map_err(|_| EncodeError::TooLong)?;
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    Ok(())
}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const NETNS: u8 = 0x30;

/// Type and length.
const PREFIX_BYTES: usize = 3;

const CHECKSUM_BYTES: usize = 4;

/// The client's bits and the result of verification.
const SSL_BYTES: usize = 5;
