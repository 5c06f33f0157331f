//! Files with certificates, keys and secrets.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use sockeye::tls::{ConfigError, Identity, KeyLog};

use crate::exit::Failure;

/// Reads a file and makes something of it.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, ConfigError>,
) -> Result<T, Failure> {
    let cannot = || format!("cannot use '{}'", path.display());
    let bytes = fs::read(path)
        .with_context(cannot)
        .map_err(Failure::usage)?;
    parse(&bytes).with_context(cannot).map_err(Failure::usage)
}

/// A certificate and its key, which may be in the same file.
pub(crate) fn identity(certificate: &Path, key: Option<&Path>) -> Result<Identity, Failure> {
    let bytes = |path: &Path| read(path, |bytes| Ok(bytes.to_vec()));
    let (chain, key_bytes) = (bytes(certificate)?, key.map(bytes).transpose()?);
    let cannot = || match key {
        Some(key) => format!(
            "cannot use '{}' with '{}'",
            certificate.display(),
            key.display()
        ),
        None => format!("cannot use '{}'", certificate.display()),
    };
    let identity = Identity::from_pem(&chain, key_bytes.as_ref().unwrap_or(&chain));
    identity.with_context(cannot).map_err(Failure::usage)
}

/// Opens the file for the secrets: for its owner only, and after what is in it already.
pub(crate) fn key_log(path: &Path) -> Result<KeyLog, Failure> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write '{}'", path.display()));
    Ok(KeyLog::to(file.map_err(Failure::usage)?))
}
