use std::io;
use std::time::SystemTime;

use tokio::io::AsyncWriteExt;

use crate::conn::Conn;
use crate::service::Service;

/// Sends the date and time as one line, `Tue, 24 Nov 2026 12:00:00 GMT`, and closes (RFC 867, which leaves the form
/// open; this one is the date of RFC 9110, section 5.6.7). Does not wait for the client to send anything.
pub fn daytime() -> Daytime {
    Daytime
}

/// See [`daytime`].
#[derive(Clone, Copy, Debug)]
pub struct Daytime;

impl Service for Daytime {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let line = format!("{}\r\n", httpdate::fmt_http_date(SystemTime::now()));
        conn.write_all(line.as_bytes()).await
    }
}
