//! What was agreed before the talk, by TLS and by a PROXY header, for people and as JSON.

use std::fmt::Write;

use serde::Serialize;
use sockeye::proxy_protocol::{Addresses, Command, Header, Version};
use sockeye::tls::Session;

use crate::certificate::Certificate;
use crate::exit::escaped;

/// A TLS session. The names of the fields are those of docs/events.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tls {
    version: &'static str,
    cipher: Option<String>,
    group: Option<&'static str>,
    alpn: Option<String>,
    /// What a client has asked for: absent on the client's side, which knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
    resumed: bool,
    /// Absent on the server's side, which sends them.
    #[serde(skip_serializing_if = "Option::is_none")]
    tickets: Option<u32>,
    /// The peer's, its own first.
    pub(crate) certificates: Vec<Certificate>,
}

impl From<&Session> for Tls {
    fn from(session: &Session) -> Self {
        let der = session.peer_certificates.iter();
        Self {
            version: session
                .version
                .map_or("unknown", |version| version.as_str()),
            cipher: session.cipher.clone(),
            group: session.group,
            alpn: session.alpn.as_deref().map(shown),
            server_name: session.server_name.as_deref().map(escaped),
            resumed: session.resumed,
            tickets: session.tickets,
            certificates: der.map(|der| Certificate::of(der)).collect(),
        }
    }
}

impl Tls {
    /// `TLSv1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768, for localhost, ALPN h2, resumed`.
    pub(crate) fn line(&self) -> String {
        let mut line = self.version.to_owned();
        let texts = [
            (", ", self.cipher.as_deref()),
            (", ", self.group),
            (", for ", self.server_name.as_deref()),
            (", ALPN ", self.alpn.as_deref()),
            (", ", self.resumed.then_some("resumed")),
        ];
        for (before, text) in texts {
            if let Some(text) = text {
                // Writing to a string cannot fail.
                let _ = write!(line, "{before}{text}");
            }
        }
        line
    }

    /// Whether the session could be gone on with.
    pub(crate) fn resumption(&self) -> String {
        match (self.resumed, self.tickets) {
            (true, _) => "resumed from a session before".to_owned(),
            (false, None | Some(0)) => {
                "a full handshake; no ticket to resume it with has come".to_owned()
            }
            (false, Some(tickets)) => {
                format!("a full handshake; {tickets} tickets to resume it with have come")
            }
        }
    }
}

/// A PROXY header. The names of the fields are those of docs/events.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProxyHeader {
    version: u8,
    command: &'static str,
    source: Option<String>,
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    /// What the proxy says of the client's own TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<ClientTls>,
}

#[derive(Clone, Debug, Serialize)]
struct ClientTls {
    version: Option<String>,
    cipher: Option<String>,
    common_name: Option<String>,
    verified: bool,
}

impl From<&Header> for ProxyHeader {
    fn from(header: &Header) -> Self {
        let (source, destination) = match &header.addresses {
            Addresses::Ip {
                source,
                destination,
            } => (Some(source.to_string()), Some(destination.to_string())),
            Addresses::Unix {
                source,
                destination,
            } => (Some(shown(source)), Some(shown(destination))),
            _ => (None, None),
        };
        Self {
            version: match header.version {
                Version::V1 => 1,
                Version::V2 => 2,
            },
            command: match header.command {
                Command::Local => "local",
                Command::Proxy => "proxy",
            },
            source,
            destination,
            authority: header.authority().map(escaped),
            alpn: header.alpn().map(shown),
            unique_id: header.unique_id().map(shown),
            tls: header.ssl().map(|ssl| ClientTls {
                version: ssl.version().map(escaped),
                cipher: ssl.cipher().map(escaped),
                common_name: ssl.common_name().map(escaped),
                verified: ssl.verified(),
            }),
        }
    }
}

impl ProxyHeader {
    /// `PROXY v2: 192.0.2.1:1 to 192.0.2.2:2`.
    pub(crate) fn line(&self) -> String {
        let ends = match (&self.source, &self.destination) {
            (Some(source), Some(destination)) => format!("{source} to {destination}"),
            _ if self.command == "local" => "local".to_owned(),
            _ => "unknown".to_owned(),
        };
        format!("PROXY v{}: {ends}", self.version)
    }
}

/// Bytes of the peer's choosing, as text that can be shown.
fn shown(bytes: &[u8]) -> String {
    escaped(&String::from_utf8_lossy(bytes))
}
