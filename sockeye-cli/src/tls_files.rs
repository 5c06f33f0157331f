//! Files with certificates, keys and secrets.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use sockeye::tls::{ConfigError, Identity, KeyLog};

use crate::exit::Failure;

/// The largest file that is read: thousands of certificates, and no device without end.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Reads a whole file, if it is not larger than `most`.
pub(crate) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Reads a file with certificates or a key.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MOST_BYTES)
}

/// Makes something of what was read from a file, or could not be.
pub(crate) fn using<T>(
    path: &Path,
    bytes: io::Result<Vec<u8>>,
    parse: impl FnOnce(&[u8]) -> Result<T, ConfigError>,
) -> Result<T, Failure> {
    let cannot = || format!("cannot use '{}'", path.display());
    let bytes = bytes.with_context(cannot).map_err(Failure::usage)?;
    parse(&bytes).with_context(cannot).map_err(Failure::usage)
}

/// A certificate and its key, which may be in the same file. `read` gives what is in a file.
pub(crate) fn identity(
    certificate: &Path,
    key: Option<&Path>,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Identity, Failure> {
    let file = |path: &Path| using(path, read(path), |bytes| Ok(bytes.to_vec()));
    let chain = file(certificate)?;
    let other = key.map(file).transpose()?;
    let identity = Identity::from_pem(&chain, other.as_ref().unwrap_or(&chain));
    let with = key.map_or_else(String::new, |key| format!(" with '{}'", key.display()));
    let cannot = || format!("cannot use '{}'{with}", certificate.display());
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
