//! Versions and application protocols of TLS on the command line.

use clap::ValueEnum;
use sockeye::tls::Version;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl From<TlsVersion> for Version {
    fn from(version: TlsVersion) -> Self {
        match version {
            TlsVersion::Tls12 => Self::Tls12,
            TlsVersion::Tls13 => Self::Tls13,
        }
    }
}

/// A name for ALPN (RFC 7301, section 3.1).
pub(crate) fn protocol(text: &str) -> Result<String, String> {
    if !(1..=255).contains(&text.len()) {
        return Err("a name has 1 to 255 bytes".to_owned());
    }
    if text.trim() != text {
        return Err("write the names without spaces between them: h2,http/1.1".to_owned());
    }
    Ok(text.to_owned())
}
