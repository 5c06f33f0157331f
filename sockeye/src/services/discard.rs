use std::io;

use crate::conn::Conn;
use crate::hot_buffer;
use crate::service::Service;

/// Reads and drops every byte, and answers nothing, until the client's end of stream (RFC 863).
pub fn discard() -> Discard {
    Discard
}

/// See [`discard`].
#[derive(Clone, Copy, Debug)]
pub struct Discard;

impl Service for Discard {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        while hot_buffer::read(&mut conn, |_| ()).await? > 0 {}
        Ok(())
    }
}
