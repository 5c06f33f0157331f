use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::AsyncWriteExt;

use crate::conn::Conn;
use crate::service::Service;

/// Sends the time as four bytes, the seconds since 1900-01-01 00:00 UTC in network byte order, and closes (RFC 868).
///
/// The number runs over in 2036; after that it counts on from 0, as NTP does (RFC 5905, section 6).
pub fn time() -> Time {
    Time
}

/// See [`time`].
#[derive(Clone, Copy, Debug)]
pub struct Time;

impl Service for Time {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_err(io::Error::other)?.as_secs() + UNIX_EPOCH_SINCE_1900;
        conn.write_all(&(seconds as u32).to_be_bytes()).await
    }
}

/// From RFC 868.
const UNIX_EPOCH_SINCE_1900: u64 = 2_208_988_800;
