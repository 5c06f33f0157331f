//! Whether a server's certificate is to be trusted.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::tls::error::ConfigError;
use crate::tls::fingerprint::Fingerprint;
use crate::tls::identity::{Certificates, RevocationLists};
use crate::tls::provider;

/// Which servers are trusted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Trust {
    /// Those whose certificate is signed by an authority that the platform trusts. The default.
    Platform,
    /// Those whose certificate is signed by one of these authorities, and no others.
    Authorities(Certificates),
    /// Those that have one of [`ConnectorOptions::pins`](crate::tls::ConnectorOptions::pins), whoever signed it, for whatever name and time: a certificate that
    /// is known needs nobody to vouch for it.
    PinsOnly,
    /// **Anyone.** What is sent can be read and changed by whoever is on the way. The certificate is still there to be
    /// looked at afterwards ([`Session::peer_certificates`](crate::tls::Session::peer_certificates)).
    Anyone,
}

/// Judges by authorities, by pins, by both or not at all. That the server holds the key of its certificate is looked at in
/// any case.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    /// `None` trusts whoever it is.
    chain: Option<Arc<dyn ServerCertVerifier>>,
    /// If there are any, the certificate must be one of these.
    pins: Arc<[Fingerprint]>,
    /// The name to look for, where it is not the one that is sent.
    name: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        trust: &Trust,
        pins: &[Fingerprint],
        revocations: &RevocationLists,
    ) -> Result<Self, ConfigError> {
        // Ignored, they would seem to protect.
        if !revocations.lists.is_empty() && !matches!(trust, Trust::Authorities(_)) {
            return Err(ConfigError::RevocationsAlone);
        }
        let chain: Option<Arc<dyn ServerCertVerifier>> = match trust {
            Trust::Platform => Some(Arc::new(
                rustls_platform_verifier::Verifier::new(provider())
                    .map_err(|error| ConfigError::PlatformRoots(error.to_string()))?,
            )),
            Trust::Authorities(authorities) => {
                let roots = Arc::clone(&authorities.roots);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
                    .with_crls(revocations.lists.clone())
                    .enforce_revocation_expiration()
                    .build()
                    .map_err(|error| ConfigError::of_verifier(&error))?;
                Some(verifier)
            }
            Trust::PinsOnly if pins.is_empty() => return Err(ConfigError::NoPin),
            Trust::PinsOnly | Trust::Anyone => None,
        };
        Ok(Self {
            chain,
            pins: pins.into(),
            name: None,
            algorithms: provider().signature_verification_algorithms,
        })
    }

    /// Looks for this name, whatever name is sent.
    pub(super) fn for_name(&self, name: ServerName<'static>) -> Self {
        Self {
            name: Some(name),
            ..self.clone()
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let reject = |problem| {
            let chain = std::iter::once(end_entity).chain(intermediates);
            let chain = chain.map(|certificate| certificate.clone().into_owned());
            REJECTED.set(chain.collect());
            Error::InvalidCertificate(problem)
        };
        let pinned = self.pins.is_empty() || self.pins.contains(&Fingerprint::of(end_entity));
        if !pinned {
            return Err(reject(CertificateError::ApplicationVerificationFailure));
        }
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let name = self.name.as_ref().unwrap_or(server_name);
        let verified =
            chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(problem) => reject(problem),
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

thread_local! {
    /// The chain that was rejected last on this thread, on its way past rustls, whose errors have no room for it: a handshake
    /// fails in the same poll in which its verifier rejects.
    static REJECTED: RefCell<Vec<CertificateDer<'static>>> = const { RefCell::new(Vec::new()) };
}

/// The chain of the handshake that has just failed; empty if no chain was the reason.
pub(super) fn take_rejected() -> Vec<CertificateDer<'static>> {
    REJECTED.take()
}
