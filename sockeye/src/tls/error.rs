//! What can go wrong with TLS: with what it is given, and in a handshake.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::client::VerifierBuilderError;
use rustls::pki_types::{CertificateDer, UnixTime, pem};

use crate::tls::fingerprint::Fingerprint;
use crate::tls_peek::Guess;

/// Certificates, keys or options cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no certificate in the text.
    #[error(
        "no certificate in it (PEM, -----BEGIN CERTIFICATE-----; of DER and PKCS#12 openssl makes PEM)"
    )]
    NoCertificate,
    /// There is no private key in the text.
    #[error("no private key in it (PEM, -----BEGIN PRIVATE KEY----- or alike)")]
    NoKey,
    /// The private key is encrypted, and there is nobody to ask for the passphrase.
    #[error(
        "the private key is encrypted: 'openssl pkey -in KEY -out PLAIN' writes one that is not"
    )]
    EncryptedKey,
    /// There is no revocation list in the text.
    #[error("no revocation list in it (PEM, -----BEGIN X509 CRL-----)")]
    NoRevocationList,
    /// It begins like PEM, and is not: half a file, perhaps.
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// The key is of a kind or of a size that is not supported.
    #[error(
        "the private key is damaged, or not RSA of 2,048 bits or more, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    UnsupportedKey,
    /// The key is that of another certificate.
    #[error("the key does not belong to the certificate, which must come first in its file")]
    KeyMismatch,
    /// It is a certificate, a key or a list that rustls does not take.
    #[error("{0}")]
    Unusable(String),
    /// A certificate for these names cannot be made.
    #[error("cannot make a certificate for these names: {0}")]
    SelfSigned(String),
    /// A server without a certificate.
    #[error("no certificate to show to clients")]
    NoIdentity,
    /// Revocation lists, and authorities that they could not be of.
    #[error("revocation lists need the authorities that they are of")]
    RevocationsAlone,
    /// Only pins are trusted, and there is none.
    #[error("no pin to trust by")]
    NoPin,
    /// The text is neither a name of a host nor an IP address.
    #[error("not the name of a host, nor an IP address")]
    Name,
    /// There are more than 64 application protocols, or one is empty or has more than 255 bytes (RFC 7301).
    #[error("an application protocol has 1 to 255 bytes, and there are 64 at most")]
    Alpn,
    /// The platform has no root certificates, or they cannot be read.
    #[error("the platform's root certificates cannot be had: {0}")]
    PlatformRoots(String),
}

impl From<rustls::Error> for ConfigError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::KeyMismatch,
            // The only general error there is for a key.
            rustls::Error::General(text) if text.contains("private key") => Self::UnsupportedKey,
            rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
                Self::Unusable("a certificate in it is no X.509 certificate".to_owned())
            }
            error => Self::Unusable(error.to_string()),
        }
    }
}

impl ConfigError {
    pub(super) fn of_pem(error: &pem::Error) -> Self {
        let why = match error {
            // What rustls adds are the bytes, as a list of numbers.
            pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
            pem::Error::IllegalSectionStart { .. } => {
                "a line that begins a section is not whole".to_owned()
            }
            pem::Error::Base64Decode(_) => "what is in a section is not base64".to_owned(),
            other => other.to_string(),
        };
        Self::Pem(why)
    }

    /// What is wrong with authorities and their lists.
    pub(super) fn of_verifier(error: &VerifierBuilderError) -> Self {
        Self::Unusable(match error {
            VerifierBuilderError::InvalidCrl(_) => {
                "a revocation list cannot be read (X.509, RFC 5280)".to_owned()
            }
            other => other.to_string(),
        })
    }
}

/// A handshake did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's certificate is not to be trusted, or it showed none and had to.
    #[error("{0}")]
    Certificate(Box<RejectedCertificate>),
    /// The peer's certificate cannot be trusted, for a revocation list that was given is not one of its authority.
    #[error("the certificate is not to be trusted: the revocation list cannot be used ({0})")]
    Revocation(String),
    /// A client had to show a certificate, and showed none.
    #[error("the client shows no certificate")]
    NoCertificate,
    /// The peer refused, by this alert (RFC 8446, section 6.2).
    #[error("the peer refused: {0}")]
    Refused(String),
    /// What the peer sends is not TLS.
    #[error("the peer does not speak TLS: what it sent looks like {0}")]
    NotTls(Guess),
    /// The two cannot agree, or the peer broke the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The peer closed before the handshake was done.
    #[error("the peer closed in the middle of the TLS handshake")]
    EndOfStream {
        /// Bytes that it had sent until then, 0 if it never began.
        after: u64,
    },
    /// The name of the server cannot be one.
    #[error("the server's name: {0}")]
    Name(ConfigError),
    /// The connection failed.
    #[error("the connection failed in the TLS handshake")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// Sorts what a handshake came to. `received` is how much the peer had sent, and `first` its first bytes; `chain` are
    /// the certificates of a server that was rejected.
    pub(super) fn of(
        error: io::Error,
        received: u64,
        first: &[u8],
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::EndOfStream { after: received };
        }
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(inner) = inner else {
            return Self::Io(error);
        };
        match inner {
            rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
                match Guess::of(first) {
                    Guess::Tls | Guess::TlsAlert => Self::Protocol(inner.to_string()),
                    guess => Self::NotTls(guess),
                }
            }
            rustls::Error::InvalidCertificate(problem) => {
                Self::Certificate(Box::new(RejectedCertificate {
                    chain,
                    problem: problem.clone(),
                }))
            }
            rustls::Error::InvalidCertRevocationList(why) => Self::Revocation(format!("{why:?}")),
            rustls::Error::InappropriateHandshakeMessage {
                got_type: rustls::HandshakeType::ClientHello,
                ..
            } => Self::Protocol("the peer answers with a ClientHello: an echo, perhaps".to_owned()),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::Refused(alert_in_words(*alert)),
            rustls::Error::NoApplicationProtocol => {
                Self::Protocol("no application protocol in common (ALPN)".to_owned())
            }
            rustls::Error::PeerIncompatible(why) => Self::Protocol(incompatible_in_words(why)),
            other => Self::Protocol(other.to_string()),
        }
    }

    /// Whether an error of reading is the peer's refusal of our certificate: in TLS 1.3 a server can say so only after
    /// the handshake. `None` for every other alert, which is an error of the stream.
    pub fn refusal(error: &io::Error) -> Option<Self> {
        use rustls::AlertDescription as Alert;
        match error.get_ref()?.downcast_ref()? {
            rustls::Error::AlertReceived(
                alert @ (Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied),
            ) => Some(Self::Refused(alert_in_words(*alert))),
            _ => None,
        }
    }
}

/// A certificate that was shown and is not trusted, with its chain.
#[derive(Clone, Debug)]
pub struct RejectedCertificate {
    chain: Vec<CertificateDer<'static>>,
    problem: CertificateError,
}

impl RejectedCertificate {
    /// The certificates that were shown, DER, the rejected one first. Empty where a client was rejected.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// Of the rejected certificate.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.chain().next().map(Fingerprint::of)
    }

    /// Whether another certificate was pinned: it was renewed, or somebody else answers.
    pub fn is_not_pinned(&self) -> bool {
        self.problem == CertificateError::ApplicationVerificationFailure
    }

    /// Whether nobody who is trusted has signed it: then a pin or another authority can help.
    pub fn is_unknown_issuer(&self) -> bool {
        matches!(
            self.problem,
            CertificateError::UnknownIssuer
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        ) || is_authority_as_server(&self.problem)
    }
}

impl fmt::Display for RejectedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is not to be trusted: ")?;
        match &self.problem {
            CertificateError::ExpiredContext { not_after, .. } => {
                write!(f, "it expired on {}", date(*not_after))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                write!(f, "it is not valid before {}", date(*not_before))
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => {
                let expected = expected.to_str();
                let names: Vec<String> = presented.iter().filter_map(|name| host(name)).collect();
                if names.is_empty() {
                    return write!(f, "it is for no name at all, so not for {expected}");
                }
                let shown = names.len().min(MAX_NAMES_SHOWN);
                write!(f, "it is for {}", names[..shown].join(", "))?;
                if shown < names.len() {
                    write!(f, " and {} more", names.len() - shown)?;
                }
                write!(f, ", not for {expected}")
            }
            CertificateError::UnknownIssuer => f.write_str(
                "it is signed by nobody who is trusted here: by itself, by an authority that is not known, or an \
                 intermediate certificate is missing",
            ),
            CertificateError::Revoked => {
                f.write_str("it, or one of its chain, was revoked by its authority")
            }
            CertificateError::UnknownRevocationStatus => {
                f.write_str("no revocation list speaks for one of its chain")
            }
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                write!(f, "the revocation list is out of date since {}", date(*next_update))
            }
            CertificateError::ApplicationVerificationFailure => {
                f.write_str("it is not the pinned one")
            }
            CertificateError::BadEncoding => f.write_str("it is no X.509 certificate"),
            CertificateError::BadSignature => f.write_str("a signature in its chain is wrong"),
            CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
                f.write_str("a signature in its chain is of a kind that is not supported")
            }
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                f.write_str("an authority of its issuer's name is trusted here, but has another kind of key")
            }
            problem if is_authority_as_server(problem) => f.write_str(
                "it is marked as the certificate of an authority (CA:TRUE), as 'openssl req -x509' makes them, and \
                 not as one of a server",
            ),
            other => fmt::Display::fmt(other, f),
        }
    }
}

/// rustls has no word of its own for it.
pub(super) fn is_authority_as_server(problem: &CertificateError) -> bool {
    let CertificateError::Other(other) = problem else {
        return false;
    };
    matches!(
        other.0.downcast_ref(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

impl std::error::Error for RejectedCertificate {}

fn date(time: UnixTime) -> String {
    let time = Duration::from_secs(time.as_secs());
    // The format ends with the year 9999.
    if time > Duration::from_secs(253_402_300_799) {
        return "a day in the far future".to_owned();
    }
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + time)
}

/// The name of a host or its address, out of what rustls shows of a name: `DnsName("example.com")`,
/// `IpAddress(127.0.0.1)`, and others for what no server is asked for.
fn host(name: &str) -> Option<String> {
    let bare = name
        .strip_prefix("DnsName(\"")
        .and_then(|name| name.strip_suffix("\")"))
        .or_else(|| name.strip_prefix("IpAddress(")?.strip_suffix(')'))?;
    // It is of the peer's choosing: what could be no name is shown escaped, and not at any length.
    let bare = bare.chars().take(MAX_NAME_CHARACTERS);
    Some(bare.flat_map(char::escape_default).collect())
}

/// A certificate can have thousands of names, and a message is to be read.
const MAX_NAMES_SHOWN: usize = 10;

/// RFC 1035, section 2.3.4, less the length bytes of the wire.
const MAX_NAME_CHARACTERS: usize = 253;

fn alert_in_words(alert: rustls::AlertDescription) -> String {
    use rustls::AlertDescription as Alert;
    let words = match alert {
        Alert::CertificateRequired => "it wants a certificate of ours",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => "it does not take our certificate",
        Alert::HandshakeFailure => "nothing that we offer suits it",
        Alert::ProtocolVersion => "it does not speak our versions of TLS",
        Alert::NoApplicationProtocol => "it speaks none of our application protocols (ALPN)",
        Alert::UnrecognisedName => "it has no certificate for this name (SNI)",
        _ => return format!("alert {alert:?}"),
    };
    format!("{words} (alert {alert:?})")
}

fn incompatible_in_words(why: &rustls::PeerIncompatible) -> String {
    use rustls::PeerIncompatible as Why;
    let words = match why {
        Why::NoCipherSuitesInCommon => "no cipher in common",
        Why::NoKxGroupsInCommon => "no key exchange group in common",
        Why::NoSignatureSchemesInCommon => "no signature algorithm in common",
        Why::ServerDoesNotSupportTls12Or13
        | Why::ServerTlsVersionIsDisabledByOurConfig
        | Why::Tls12NotOffered
        | Why::Tls12NotOfferedOrEnabled
        | Why::Tls13RequiredForQuic
        | Why::SupportedVersionsExtensionRequired => "no version of TLS in common",
        Why::SignatureAlgorithmsExtensionRequired => {
            "no version of TLS in common (the client names no signature algorithms, as before TLS 1.2)"
        }
        other => return format!("the two cannot agree: {other:?}"),
    };
    format!("the two cannot agree: {words}")
}
