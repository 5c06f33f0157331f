//! The client's side.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsConnector;

use crate::stream::Stream;
use crate::tls::error::{ConfigError, HandshakeError};
use crate::tls::fingerprint::Fingerprint;
use crate::tls::identity::{Identity, RevocationLists};
use crate::tls::key_log::KeyLog;
use crate::tls::stream::{Noted, TlsStream};
use crate::tls::verifier::{Trust, Verifier, take_rejected};
use crate::tls::{Version, alpn, provider};

/// What a client asks of its servers, and what it shows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectorOptions {
    /// Default [`Trust::Platform`].
    pub trust: Trust,
    /// If there are any, the server's certificate must be one of these, besides. Default: none.
    pub pins: Vec<Fingerprint>,
    /// Certificates that are not valid any more, only with [`Trust::Authorities`]. If there are any, each authority in the
    /// server's chain must have one. Default: none.
    pub revocations: RevocationLists,
    /// Shown to servers that ask for a certificate. Default `None`.
    pub identity: Option<Identity>,
    /// The name that is sent (SNI), where it is not that of the server. The certificate is looked at for the server's name
    /// all the same. Default `None`.
    pub sni: Option<String>,
    /// Application protocols, the preferred one first (ALPN, RFC 7301): at most 64, of 1 to 255 bytes. Default: none.
    pub alpn: Vec<Vec<u8>>,
    /// The lowest version that is agreed to. Default [`Version::Tls12`].
    pub min_version: Version,
    /// Default `None`: secrets are not written anywhere.
    pub key_log: Option<KeyLog>,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            trust: Trust::Platform,
            pins: Vec::new(),
            revocations: RevocationLists::default(),
            identity: None,
            sni: None,
            alpn: Vec::new(),
            min_version: Version::Tls12,
            key_log: None,
        }
    }
}

/// Makes TLS of connections to servers. Cheap to clone; clones share the sessions that can be resumed.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sockeye::{client, tls};
///
/// let connector = tls::Connector::new(tls::ConnectorOptions::default())?;
/// let connected = client::connect(("example.com", 443)).await?;
/// let stream = connector.connect(connected.stream, "example.com").await?;
/// println!("{:?}", stream.tls());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    verifier: Verifier,
    sni: Option<ServerName<'static>>,
}

impl Connector {
    /// # Errors
    ///
    /// If an option cannot be used, or the platform's root certificates are asked for and cannot be had. That reads them
    /// from disk, a few milliseconds: make one connector and keep it.
    pub fn new(options: ConnectorOptions) -> Result<Self, ConfigError> {
        let verifier = Verifier::new(&options.trust, &options.pins, &options.revocations)?;
        let sni = options.sni.as_deref().map(server_name).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(options.min_version.and_later())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.clone()));
        let mut config = match options.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let shown = SingleCertAndKey::from(identity.certified);
                let shown: Arc<dyn ResolvesClientCert> = Arc::new(shown);
                builder.with_client_cert_resolver(shown)
            }
        };
        config.alpn_protocols = alpn(&options.alpn)?;
        if let Some(key_log) = options.key_log {
            config.key_log = Arc::new(key_log);
        }
        Ok(Self {
            config: Arc::new(config),
            verifier,
            sni,
        })
    }

    /// The client's side of a handshake on a connected stream, with the server of this name or IP address: the one that
    /// the user typed, not one that was looked up. It has no deadline of its own: a peer that stalls stalls it. Cancelled,
    /// it closes the stream.
    ///
    /// # Errors
    ///
    /// The error; the stream is closed, and the server has been told by an alert, if there is one for the error. In TLS 1.3 a
    /// server may refuse the client's certificate only after the handshake: then reading fails, and
    /// [`HandshakeError::refusal`] says so.
    pub async fn connect(&self, stream: Stream, name: &str) -> Result<Stream, HandshakeError> {
        let name = server_name(name).map_err(HandshakeError::Name)?;
        let (config, sent) = match &self.sni {
            None => (Arc::clone(&self.config), name),
            Some(sni) => {
                let mut config = ClientConfig::clone(&self.config);
                let verifier = self.verifier.for_name(name);
                config
                    .dangerous()
                    .set_certificate_verifier(Arc::new(verifier));
                (Arc::new(config), sni.clone())
            }
        };
        let connecting = TlsConnector::from(config).connect(sent, Noted::new(stream));
        match connecting.into_fallible().await {
            Ok(stream) => Ok(TlsStream::new(stream.into()).into()),
            Err((error, noted)) => Err(noted.failed(error, take_rejected()).0),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("verifier", &self.verifier)
            .field("sni", &self.sni)
            .finish_non_exhaustive()
    }
}

/// A zone (`fe80::1%eth0`) says which way an address is reached, and is not part of it.
fn server_name(name: &str) -> Result<ServerName<'static>, ConfigError> {
    let bare = name.split('%').next().unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| ConfigError::Name)
}
