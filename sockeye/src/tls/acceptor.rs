//! The server's side.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

use crate::stream::Stream;
use crate::tls::error::{ConfigError, HandshakeError};
use crate::tls::identity::{Certificates, Identity, RevocationLists};
use crate::tls::key_log::KeyLog;
use crate::tls::stream::{Noted, TlsStream};
use crate::tls::{Version, alpn, provider};

/// What a server shows, and what it asks of its clients.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcceptorOptions {
    /// One at least. Each is shown to clients that ask for one of its names (SNI, RFC 6066), and the first to all others.
    /// There may be several for a name, of different kinds of keys: the client gets the first that it can use.
    pub identities: Vec<Identity>,
    /// Authorities of the clients. Default `None`: clients show no certificate. With it they must, and a client without a
    /// certificate of one of these authorities fails in the handshake.
    pub client_authorities: Option<Certificates>,
    /// Certificates of clients that are not valid any more. Default: none. If there are any, each authority in a client's
    /// chain must have one.
    pub client_revocations: RevocationLists,
    /// Application protocols, the preferred one first (ALPN, RFC 7301): at most 64, of 1 to 255 bytes. Default: none, and
    /// what a client offers is not looked at. A client that offers only others is refused.
    pub alpn: Vec<Vec<u8>>,
    /// The lowest version that is agreed to. Default [`Version::Tls12`].
    pub min_version: Version,
    /// Default `None`: secrets are not written anywhere.
    pub key_log: Option<KeyLog>,
}

impl Default for AcceptorOptions {
    fn default() -> Self {
        Self {
            identities: Vec::new(),
            client_authorities: None,
            client_revocations: RevocationLists::default(),
            alpn: Vec::new(),
            min_version: Version::Tls12,
            key_log: None,
        }
    }
}

/// Makes TLS of the connections of a server. Cheap to clone; all clones are reloaded together.
#[derive(Clone)]
pub struct Acceptor {
    current: Arc<ArcSwap<Current>>,
}

struct Current {
    options: AcceptorOptions,
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// # Errors
    ///
    /// If there is no identity, or rustls does not take an option.
    pub fn new(options: AcceptorOptions) -> Result<Self, ConfigError> {
        let current = Current::new(options, None)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(current)),
        })
    }

    /// Puts other options in the place of those that hold, for the handshakes that begin from now on. Open connections go
    /// on. Sessions can be resumed as before (RFC 8446, section 2.2), unless what is asked of clients has changed: then
    /// all have to show anew who they are.
    ///
    /// # Errors
    ///
    /// As [`Acceptor::new`]; then nothing has changed.
    pub fn reload(&self, options: AcceptorOptions) -> Result<(), ConfigError> {
        let new = Current::new(options, Some(&self.current.load()))?;
        self.current.store(Arc::new(new));
        Ok(())
    }

    /// The server's side of a handshake on a connected stream. It has no deadline of its own: a peer that stalls stalls
    /// it. Cancelled, it closes the stream.
    ///
    /// # Errors
    ///
    /// The error, with the stream as it was underneath; the peer has been told by an alert, if there is one for the error.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, (HandshakeError, Stream)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        match acceptor.accept(Noted::new(stream)).into_fallible().await {
            Ok(stream) => Ok(TlsStream::new(stream.into()).into()),
            Err((error, noted)) => Err(noted.failed(error, Vec::new())),
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor")
            .field(&self.current.load().options)
            .finish()
    }
}

impl Current {
    fn new(options: AcceptorOptions, before: Option<&Self>) -> Result<Self, ConfigError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(options.min_version.and_later())?;
        let builder = match &options.client_authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(&authorities.roots),
                    provider(),
                )
                .with_crls(options.client_revocations.lists.clone())
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| ConfigError::of_verifier(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName::new(&options.identities)?));
        config.alpn_protocols = alpn(&options.alpn)?;
        config.ticketer = match before {
            Some(before) if before.asks_the_same_of_clients(&options) => before.tickets(),
            _ => Ticketer::new()?,
        };
        if let Some(key_log) = &options.key_log {
            config.key_log = Arc::new(key_log.clone());
        }
        Ok(Self {
            options,
            config: Arc::new(config),
        })
    }

    fn asks_the_same_of_clients(&self, options: &AcceptorOptions) -> bool {
        self.options.client_authorities == options.client_authorities
            && self.options.client_revocations == options.client_revocations
    }

    fn tickets(&self) -> Arc<dyn ProducesTickets> {
        Arc::clone(&self.config.ticketer)
    }
}

/// Chooses the certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    all: Vec<Arc<CertifiedKey>>,
    /// Names in lower case, `*.example.com` among them, and which of `all` are for them.
    named: HashMap<String, Vec<usize>>,
}

impl ByName {
    fn new(identities: &[Identity]) -> Result<Self, ConfigError> {
        if identities.is_empty() {
            return Err(ConfigError::NoIdentity);
        }
        let all: Vec<_> = identities
            .iter()
            .map(|identity| Arc::clone(&identity.certified))
            .collect();
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certified) in all.iter().enumerate() {
            let end_entity = certified.end_entity_cert()?;
            let certificate = EndEntityCert::try_from(end_entity)
                .map_err(|error| ConfigError::Unusable(error.to_string()))?;
            for name in certificate.valid_dns_names() {
                named
                    .entry(name.to_ascii_lowercase())
                    .or_default()
                    .push(index);
            }
        }
        Ok(Self { all, named })
    }

    fn for_name(&self, name: &str) -> &[usize] {
        let name = name.to_ascii_lowercase();
        let named = self.named.get(&name).or_else(|| {
            // A wildcard stands for one label (RFC 9525, section 6.3).
            let (_, parent) = name.split_once('.')?;
            self.named.get(&format!("*.{parent}"))
        });
        named.map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello
            .server_name()
            .map_or(&[][..], |name| self.for_name(name));
        let named = named.iter().filter_map(|index| self.all.get(*index));
        let usable = |certified: &&Arc<CertifiedKey>| {
            let schemes = hello.signature_schemes();
            certified.key.choose_scheme(schemes).is_some()
        };
        // If the client can use none, the first lets rustls say so.
        let mut best_first = named.chain(&self.all);
        best_first
            .find(usable)
            .or_else(|| self.all.first())
            .cloned()
    }
}
