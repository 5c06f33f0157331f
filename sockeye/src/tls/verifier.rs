//! Whether a server's certificate is to be trusted.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::tls::error::{ConfigError, is_authority_as_server};
use crate::tls::fingerprint::Fingerprint;
use crate::tls::identity::{Certificates, RevocationLists};
use crate::tls::provider;

/// Which servers are trusted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Trust {
    /// Those whose certificate is signed by an authority that the platform trusts. The default.
    Platform,
    /// Those whose certificate is signed by one of these authorities, or is itself one of these, and no others.
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
    /// Trusted also where a server shows one of them as its own; `None` if that is not to be.
    as_own: Option<Certificates>,
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
        let as_own = match trust {
            // A list of revoked certificates would have to speak for it.
            Trust::Authorities(given) if revocations.lists.is_empty() => Some(given.clone()),
            _ => None,
        };
        Ok(Self {
            chain,
            as_own,
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

    fn is_given_as_own(&self, problem: &CertificateError, shown: &CertificateDer<'_>) -> bool {
        let given = self.as_own.as_ref();
        is_authority_as_server(problem) && given.is_some_and(|given| given.hold(shown))
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
        let verified = match verified {
            // 'openssl req -x509' marks as an authority what then signs itself and serves; curl and others take it, if it
            // was given as one. Its dates are looked at before the mark, and who gave it vouches for it; the name is left.
            Err(Error::InvalidCertificate(problem))
                if self.is_given_as_own(&problem, end_entity) =>
            {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                verify_server_name(&certificate, name).map(|()| ServerCertVerified::assertion())
            }
            verified => verified,
        };
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
