//! TLS 1.2 and 1.3 on both ends, by rustls with aws-lc-rs (feature `tls`).
//!
//! [`Acceptor`] is the server's side: certificates chosen by the name that the client asks for, exchanged while the
//! server runs, clients that must show one of their own. [`Connector`] is the client's: verification that is on, against
//! the name that the caller typed. Both make a [`Stream`](crate::Stream) of a `Stream`. Certificates and keys are given as bytes; no file is
//! read here, but for the platform's root certificates if they are asked for.
//!
//! The defaults are those of rustls: no version below 1.2, no cipher without forward secrecy, no renegotiation, no
//! compression, no early data; X25519MLKEM768 is preferred for the key exchange. The cryptography is passed to rustls
//! explicitly, and no provider is installed for the process.

mod acceptor;
mod connector;
mod error;
mod fingerprint;
mod identity;
mod key_log;
mod stream;
mod verifier;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;

pub use acceptor::{Acceptor, AcceptorOptions};
pub use connector::{Connector, ConnectorOptions};
pub use error::{ConfigError, HandshakeError, RejectedCertificate};
pub use fingerprint::{Fingerprint, NoFingerprint};
pub use identity::{Certificates, Identity, RevocationLists};
pub use key_log::KeyLog;
pub use stream::{Session, TlsStream};
pub use verifier::Trust;

/// A version of TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// RFC 5246. With the ciphers of rustls it is held to be safe, and many devices have no other.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// The name in events: `TLSv1.2`, `TLSv1.3`, as openssl has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    /// This one and those above it.
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] =
            [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls12 => &ALL,
            Self::Tls13 => &ALL[..1],
        }
    }
}

/// Application protocols, if TLS has room for them: what they become on the wire is not looked at again.
fn alpn(protocols: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ConfigError> {
    let fits = |protocol: &Vec<u8>| (1..=255).contains(&protocol.len());
    if protocols.len() > MAX_PROTOCOLS || !protocols.iter().all(fits) {
        return Err(ConfigError::Alpn);
    }
    Ok(protocols.to_vec())
}

/// Far more than anybody speaks, and a ClientHello still has room for everything else.
const MAX_PROTOCOLS: usize = 64;

/// The cryptography, for whoever needs it: never the default of the process, which a library has no business to set.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}
