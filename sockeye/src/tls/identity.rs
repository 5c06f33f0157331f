//! Certificates and keys, from bytes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;

use crate::tls::error::ConfigError;
use crate::tls::fingerprint::Fingerprint;
use crate::tls::provider;

/// A certificate with its chain, and the key that belongs to it: what a server shows, or a client that is asked to.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a chain, the certificate itself first, and its key (PKCS#8, PKCS#1 or SEC1), both PEM (RFC 7468). They may
    /// be in the same file, given twice.
    ///
    /// # Errors
    ///
    /// If either is missing, damaged or of a kind that is not supported, or the two do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        let chain = certificates(chain)?;
        let key = without_mark(key);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            _ if is_encrypted(key) => ConfigError::EncryptedKey,
            pem::Error::NoItemsFound => ConfigError::NoKey,
            error => ConfigError::of_pem(&error),
        })?;
        Self::new(chain, key)
    }

    /// Makes a certificate for these names and IP addresses, signed by itself, with a new key (ECDSA, P-256). It is valid
    /// for a year, and lives in memory only: clients have to be told its [`Fingerprint`].
    ///
    /// # Errors
    ///
    /// If there is no name, or one is neither the name of a host, perhaps with `*.` before it, nor an IP address.
    pub fn self_signed(names: &[String]) -> Result<Self, ConfigError> {
        let is_name = |name: &String| {
            let host = name.strip_prefix("*.").unwrap_or(name);
            ServerName::try_from(host).is_ok()
        };
        if names.is_empty() || !names.iter().all(is_name) {
            return Err(ConfigError::Name);
        }
        let cannot = |error: rcgen::Error| ConfigError::SelfSigned(error.to_string());
        let mut parameters = CertificateParams::new(names).map_err(cannot)?;
        let now = SystemTime::now();
        // Clocks differ.
        parameters.not_before = (now - Duration::from_secs(86_400)).into();
        parameters.not_after = (now + Duration::from_secs(365 * 86_400)).into();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(name) = names.first() {
            let subject = &mut parameters.distinguished_name;
            *subject = rcgen::DistinguishedName::new();
            subject.push(rcgen::DnType::CommonName, name.as_str());
        }
        let key = KeyPair::generate().map_err(cannot)?;
        let certificate = parameters.self_signed(&key).map_err(cannot)?;
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| ConfigError::SelfSigned(error.to_owned()))?;
        Self::new(chain, key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, ConfigError> {
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        Ok(Self {
            certified: Arc::new(certified),
        })
    }

    /// The chain, DER, the certificate itself first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.certified.cert.iter().map(AsRef::as_ref)
    }

    /// Of the certificate itself.
    pub fn fingerprint(&self) -> Fingerprint {
        // `CertifiedKey::from_der` has parsed it, so there is one.
        Fingerprint::of(self.chain().next().unwrap_or_default())
    }
}

/// Certificates of authorities.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub(super) roots: Arc<RootCertStore>,
    given: Arc<[CertificateDer<'static>]>,
}

impl Certificates {
    /// Reads all that are in a PEM file, one at least.
    pub fn from_pem(text: &[u8]) -> Result<Self, ConfigError> {
        let given = certificates(text)?;
        let mut roots = RootCertStore::empty();
        for certificate in &given {
            roots.add(certificate.clone())?;
        }
        Ok(Self {
            roots: Arc::new(roots),
            given: given.into(),
        })
    }

    /// Whether this very certificate is one of them.
    pub(super) fn hold(&self, certificate: &CertificateDer<'_>) -> bool {
        self.given.contains(certificate)
    }
}

impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.given == other.given
    }
}

/// Lists of certificates that their authorities have taken back (CRLs, RFC 5280).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RevocationLists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
}

impl RevocationLists {
    /// Reads all that are in a PEM file, one at least.
    pub fn from_pem(text: &[u8]) -> Result<Self, ConfigError> {
        let lists =
            CertificateRevocationListDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
        let lists = lists.map_err(|error| ConfigError::of_pem(&error))?;
        if lists.is_empty() {
            return Err(ConfigError::NoRevocationList);
        }
        Ok(Self { lists })
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let text = without_mark(text);
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| ConfigError::of_pem(&error))?;
    if certificates.is_empty() {
        return Err(ConfigError::NoCertificate);
    }
    Ok(certificates)
}

/// Some editors begin a file with a mark (U+FEFF), which hides its first line.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// PKCS#8 has a name of its own for it (RFC 7468, section 11); the older forms say so in a header (RFC 1421).
fn is_encrypted(key: &[u8]) -> bool {
    let has = |text: &[u8]| key.windows(text.len()).any(|window| window == text);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}
