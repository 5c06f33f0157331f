//! Certificates for tests, in files: an authority, what it signs, and what is wrong with some of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;

/// An authority with a folder for what it makes.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        // Of two with one name only the signatures would tell which is meant.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(
            DnType::CommonName,
            format!("An authority for tests, {number}"),
        );
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.file(file).display().to_string()
    }

    fn file(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes `NAME.pem` and `NAME.key` for these names, valid from yesterday for 30 days.
    pub(crate) fn certificate(&self, name: &str, names: &[&str]) {
        self.valid_for(name, names, -1, 30);
    }

    /// As `certificate`, valid between these days from now.
    pub(crate) fn valid_for(&self, name: &str, names: &[&str], from: i64, until: i64) {
        let (parameters, key) = Self::parameters(names, from, until);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        self.write(name, &certificate.pem(), &key);
    }

    /// Makes `NAME.pem`, `NAME.key` that is revoked by `crl.pem`.
    pub(crate) fn revoked(&self, name: &str, names: &[&str]) {
        let (mut parameters, key) = Self::parameters(names, -1, 30);
        let serial = SerialNumber::from(4711_u64);
        parameters.serial_number = Some(serial.clone());
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        self.write(name, &certificate.pem(), &key);
        let revoked = RevokedCertParams {
            serial_number: serial,
            revocation_time: day(-1).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: day(-1).into(),
            next_update: day(30).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("signed");
        fs::write(self.file("crl.pem"), list.pem().expect("PEM")).expect("written");
    }

    fn parameters(names: &[&str], from: i64, until: i64) -> (CertificateParams, KeyPair) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.not_before = day(from).into();
        parameters.not_after = day(until).into();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "a certificate for tests");
        (parameters, KeyPair::generate().expect("a key"))
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        fs::write(self.file(&format!("{name}.pem")), certificate).expect("written");
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

fn day(from_now: i64) -> SystemTime {
    let days = Duration::from_secs(86_400 * from_now.unsigned_abs());
    match from_now {
        0.. => SystemTime::now() + days,
        _ => SystemTime::now() - days,
    }
}
