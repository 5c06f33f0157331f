//! The PROXY header to send, on the command line.

use std::net::SocketAddr;
use std::str::FromStr;

use sockeye::proxy_protocol::{Header, RawTlv, Tlv, Version};

use crate::connect::escape::Text;

/// `v1`, `v2`, and what was given after it.
#[derive(Clone, Debug)]
pub(crate) struct SendProxy {
    version: Version,
    local: bool,
    from: Option<SocketAddr>,
    to: Option<SocketAddr>,
    tlvs: Vec<Tlv>,
}

impl SendProxy {
    /// The header for a connection with these ends, which are `None` for a Unix socket.
    pub(crate) fn header(&self, ours: Option<SocketAddr>, servers: Option<SocketAddr>) -> Header {
        let ends = self.from.or(ours).zip(self.to.or(servers));
        let header = match ends {
            _ if self.local => Header::local(),
            Some((source, destination)) => Header::proxied(self.version, source, destination),
            None => Header::unspecified(self.version),
        };
        let tlvs = self.tlvs.iter().cloned();
        tlvs.fold(header, Header::with_tlv)
    }

    /// Whether an end was given that the header will not have, for the other one is missing.
    pub(crate) fn lacks_an_end(
        &self,
        ours: Option<SocketAddr>,
        servers: Option<SocketAddr>,
    ) -> bool {
        let given = self.from.or(self.to).is_some();
        given && self.from.or(ours).zip(self.to.or(servers)).is_none()
    }
}

impl FromStr for SendProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let version = match parts.next() {
            Some("v1") => Version::V1,
            Some("v2") => Version::V2,
            _ => return Err("write v1 or v2 first".to_owned()),
        };
        let mut send = Self {
            version,
            local: false,
            from: None,
            to: None,
            tlvs: Vec::new(),
        };
        for part in parts {
            send.take(part)?;
        }
        send.check()?;
        Ok(send)
    }
}

impl SendProxy {
    fn take(&mut self, part: &str) -> Result<(), String> {
        let end = |text: &str| -> Result<SocketAddr, String> {
            text.parse()
                .map_err(|_| format!("'{text}' is not IP:PORT or [IPv6]:PORT"))
        };
        let bytes = |text: &str| text.parse::<Text>().map(|text| text.0);
        match part.split_once('=') {
            None if part == "local" => self.local = true,
            None if part == "crc32c" => self.tlvs.push(Tlv::Crc32c),
            Some(("from", text)) => self.from = Some(end(text)?),
            Some(("to", text)) => self.to = Some(end(text)?),
            Some(("authority", text)) => self.tlvs.push(Tlv::Authority(bytes(text)?)),
            Some(("alpn", text)) => self.tlvs.push(Tlv::Alpn(bytes(text)?)),
            Some(("unique-id", text)) => self.tlvs.push(Tlv::UniqueId(bytes(text)?)),
            Some((kind, text)) if kind.starts_with("0x") => {
                let kind = u8::from_str_radix(&kind[2..], 16)
                    .map_err(|_| format!("'{kind}' is not a type from 0x00 to 0xff"))?;
                let value = bytes(text)?;
                self.tlvs.push(Tlv::Other(RawTlv { kind, value }));
            }
            _ => {
                return Err(format!(
                    "'{part}' is none of from=IP:PORT, to=IP:PORT, local, authority=, alpn=, unique-id=, crc32c and 0xHH="
                ));
            }
        }
        Ok(())
    }

    /// Whether it can be written: tried with ends that fit, for those of the connection are not known yet.
    fn check(&self) -> Result<(), String> {
        if self.local && self.version == Version::V1 {
            return Err("only v2 can say local".to_owned());
        }
        if self.local && self.from.or(self.to).is_some() {
            return Err("local is without from= and to=".to_owned());
        }
        let any = self.from.or(self.to);
        let any = any.unwrap_or_else(|| ([127, 0, 0, 1], 1).into());
        let header = self.header(Some(any), Some(any)).encode();
        header.map(drop).map_err(|error| error.to_string())
    }
}
