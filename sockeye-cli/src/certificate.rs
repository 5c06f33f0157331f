//! What a certificate says, for people and as JSON.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use sockeye::tls::Fingerprint;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::exit::escaped;

/// The facts of one certificate. The names of the fields are those of docs/events.md.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Certificate {
    /// Empty, as all texts here, if the certificate cannot be read.
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    pub(crate) fingerprint: String,
    #[serde(skip)]
    valid: Option<(SystemTime, SystemTime)>,
}

impl Certificate {
    pub(crate) fn of(der: &[u8]) -> Self {
        let mut facts = Self {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            not_before: None,
            not_after: None,
            fingerprint: Fingerprint::of(der).to_string(),
            valid: None,
        };
        // A peer may show what it likes; rustls has then refused it, or was told to trust anyone.
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return facts;
        };
        facts.subject = escaped(&certificate.subject().to_string());
        facts.issuer = escaped(&certificate.issuer().to_string());
        facts.names = names(&certificate);
        let validity = certificate.validity();
        facts.valid = moment(validity.not_before).zip(moment(validity.not_after));
        if let Some((from, until)) = facts.valid {
            facts.not_before = Some(humantime::format_rfc3339_seconds(from).to_string());
            facts.not_after = Some(humantime::format_rfc3339_seconds(until).to_string());
        }
        facts
    }

    /// One line: `for localhost, until 2027-11-25T00:00:00Z, issued by CN=..., sha256:...`.
    pub(crate) fn line(&self) -> String {
        let whom = match self.names.as_slice() {
            [] => self.subject.clone(),
            names => names.join(", "),
        };
        let until = self.not_after.as_deref().unwrap_or("an unknown day");
        let issuer = match self.issuer() {
            None => "signed by itself".to_owned(),
            Some(issuer) => format!("issued by {issuer}"),
        };
        format!(
            "for {whom}, valid until {until}, {issuer}, {}",
            self.fingerprint
        )
    }

    /// Whose it is.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Who has signed it, if it was not signed by itself.
    pub(crate) fn issuer(&self) -> Option<&str> {
        (self.issuer != self.subject).then_some(self.issuer.as_str())
    }

    /// Why clients will not take it.
    pub(crate) fn fault(&self, now: SystemTime) -> Option<String> {
        let (from, until) = self.valid?;
        if self.names.is_empty() {
            return Some("it is for no name (subjectAltName), and clients look for one".to_owned());
        }
        if now > until {
            let until = humantime::format_rfc3339_seconds(until);
            return Some(format!("it has expired on {until}"));
        }
        if now < from {
            let from = humantime::format_rfc3339_seconds(from);
            return Some(format!("it is not valid before {from}"));
        }
        None
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(escaped(name)),
            GeneralName::IPAddress(bytes) => ip(bytes),
            _ => None,
        })
        .collect()
}

fn ip(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// `None` for a time before 1970 or after 9999, which cannot be written.
fn moment(time: ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).ok()?;
    (seconds <= 253_402_300_799).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
