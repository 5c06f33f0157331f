//! Authorities and certificates made for a test, and peers of TLS that are not ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sockeye::Stream;
use sockeye::tls::{
    Acceptor, AcceptorOptions, Certificates, Connector, ConnectorOptions, HandshakeError, Identity,
    RevocationLists, Trust,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

use crate::support::{Running, soon};

pub(crate) const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
pub(crate) const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;

const DAY: Duration = Duration::from_secs(86_400);

/// Whoever signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    serial: u64,
    /// The certificates between those it signs and the root, its own first; empty for a root.
    above: String,
}

impl Authority {
    /// One that nobody vouches for.
    pub(crate) fn root(name: &str) -> Self {
        let (parameters, serial) = authority(name);
        let key = KeyPair::generate().expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(parameters, key).expect("signed"),
            serial,
            above: String::new(),
        }
    }

    /// One that this vouches for.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let (parameters, serial) = authority(name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(parameters, key, &self.issuer).expect("signed");
        Self {
            above: issuer.pem() + &self.above,
            issuer,
            serial,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    pub(crate) fn certificates(&self) -> Certificates {
        Certificates::from_pem(self.pem().as_bytes()).expect("our own")
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Authorities(self.certificates())
    }

    /// A certificate of a server that has these names.
    pub(crate) fn server(&self, names: &[&str]) -> Signed {
        self.sign(Wanted::server(names))
    }

    /// A certificate of a client.
    pub(crate) fn client(&self, name: &str) -> Signed {
        let mut wanted = Wanted::server(&[name]);
        wanted.parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(wanted)
    }

    pub(crate) fn sign(&self, wanted: Wanted) -> Signed {
        let Wanted { parameters, rsa } = wanted;
        let key = if rsa {
            KeyPair::generate_for(&PKCS_RSA_SHA256)
        } else {
            KeyPair::generate()
        };
        let key = key.expect("a key");
        let serial = parameters.serial_number.clone().expect("always set");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        Signed {
            chain: certificate.pem() + &self.above,
            der: certificate.der().to_vec(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// Its list of what it has taken back, by the serial numbers; PEM.
    pub(crate) fn revokes(&self, serials: &[&SerialNumber]) -> String {
        self.revocation_list(serials, SystemTime::now() + DAY)
    }

    pub(crate) fn revocation_list(&self, serials: &[&SerialNumber], valid: SystemTime) -> String {
        let revoked = |serial: &&SerialNumber| RevokedCertParams {
            serial_number: SerialNumber::clone(serial),
            revocation_time: (SystemTime::now() - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (valid - 2 * DAY).into(),
            next_update: valid.into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("signed");
        list.pem().expect("encoded")
    }

    pub(crate) fn serial(&self) -> SerialNumber {
        self.serial.into()
    }
}

fn authority(name: &str) -> (CertificateParams, u64) {
    let serial = next_serial();
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(serial.into());
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (parameters, serial)
}

fn next_serial() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(1_000);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// A certificate to be signed.
pub(crate) struct Wanted {
    pub(crate) parameters: CertificateParams,
    rsa: bool,
}

impl Wanted {
    pub(crate) fn server(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.serial_number = Some(next_serial().into());
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Self {
            parameters,
            rsa: false,
        }
    }

    /// With an RSA key, where ECDSA is the rule.
    pub(crate) fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    pub(crate) fn valid(mut self, from: SystemTime, to: SystemTime) -> Self {
        self.parameters.not_before = from.into();
        self.parameters.not_after = to.into();
        self
    }

    pub(crate) fn expired(self) -> Self {
        let now = SystemTime::now();
        self.valid(now - 3 * DAY, now - 2 * DAY)
    }

    pub(crate) fn not_yet_valid(self) -> Self {
        let now = SystemTime::now();
        self.valid(now + 2 * DAY, now + 3 * DAY)
    }

    pub(crate) fn named(mut self, name: SanType) -> Self {
        self.parameters.subject_alt_names.push(name);
        self
    }
}

/// A certificate with its chain, PEM, and its key.
pub(crate) struct Signed {
    pub(crate) chain: String,
    pub(crate) der: Vec<u8>,
    pub(crate) key: String,
    pub(crate) serial: SerialNumber,
}

impl Signed {
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).expect("our own")
    }
}

/// Options of a server that shows these.
pub(crate) fn shows(identities: Vec<Identity>) -> AcceptorOptions {
    let mut options = AcceptorOptions::default();
    options.identities = identities;
    options
}

pub(crate) fn acceptor(identities: Vec<Identity>) -> Acceptor {
    Acceptor::new(shows(identities)).expect("usable")
}

/// Options of a client that trusts in this way.
pub(crate) fn trusts(trust: Trust) -> ConnectorOptions {
    let mut options = ConnectorOptions::default();
    options.trust = trust;
    options
}

pub(crate) fn connector(trust: Trust) -> Connector {
    Connector::new(trusts(trust)).expect("usable")
}

pub(crate) fn lists(text: &str) -> RevocationLists {
    RevocationLists::from_pem(text.as_bytes()).expect("our own")
}

/// A client that is not ours.
pub(crate) fn raw_client(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("our own");
    roots.add(root).expect("our own");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The same with a certificate of its own.
pub(crate) fn raw_client_as(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    shown: &Signed,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("our own");
    roots.add(root).expect("our own");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = parsed(shown);
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("our own")
}

/// A server that is not ours.
pub(crate) fn raw_server(
    shown: &Signed,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = parsed(shown);
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("our own")
}

fn parsed(shown: &Signed) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(shown.chain.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("our own");
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).expect("our own");
    (chain, key)
}

/// Connects and shakes hands by a client that is not ours.
pub(crate) async fn raw_connect(
    server: &Running,
    config: impl Into<Arc<ClientConfig>>,
    name: &str,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = server.connect().await;
    soon(TlsConnector::from(config.into()).connect(name, stream)).await
}

/// Connects and shakes hands by our client.
pub(crate) async fn connect(
    server: &Running,
    connector: &Connector,
    name: &str,
) -> Result<Stream, HandshakeError> {
    let stream = server.connect().await.into();
    soon(connector.connect(stream, name)).await
}
