//! The secrets of sessions, for whoever wants to look into captured traffic.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the secrets of every session are written to, in the format that Wireshark reads (`SSLKEYLOGFILE`).
///
/// **Whoever reads it can read the traffic**, also what was captured before. It is for debugging, and never on by itself;
/// the variable `SSLKEYLOGFILE` is not looked at.
#[derive(Clone)]
pub struct KeyLog(Arc<Mutex<dyn Write + Send>>);

impl KeyLog {
    /// Writes to this. An error of it loses the line and nothing else: a handshake must not fail for want of a log.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        hexadecimal(client_random, &mut line);
        line.push(' ');
        hexadecimal(secret, &mut line);
        line.push('\n');
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer
            .write_all(line.as_bytes())
            .and_then(|()| writer.flush());
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLog").finish_non_exhaustive()
    }
}

fn hexadecimal(bytes: &[u8], to: &mut String) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(to, "{byte:02x}");
    }
}
