//! The limit of TLS: rustls on tokio, one thread, a task for each connection, and nothing else.
//!
//! This is what one writes after reading the documentation of tokio-rustls: read, write it all, flush. The buffer has
//! room for the largest record of TLS (16 KiB, RFC 8446, section 5.1), since tokio-rustls hands over no more at once.
//! Tickets are made, as Sockeye makes them, since rustls makes none unless it is told to.

use rustls::ServerConfig;
use sockeye_limits::arguments::Arguments;
use sockeye_limits::{announce, exit_code, sys};
use sockeye_tls_limits::config;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const RECORD_BYTES: usize = 16 * 1024;

fn main() -> ExitCode {
    exit_code("tls_echo", run())
}

fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let certificates: String = words.required("--tls-cert")?;
    let key: String = words.required("--tls-key")?;
    words.finish()?;
    sys::raise_descriptor_limit()?;
    let config = config::server(&certificates, &key)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(serve(config))
}

/// An error of accept ends the program: a limit that lost connections is none.
async fn serve(config: Arc<ServerConfig>) -> io::Result<bool> {
    let acceptor = TlsAcceptor::from(config);
    let listener = sys::listen()?;
    announce(&listener)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // What went wrong on a connection ends it, and concerns nobody else.
            let _ = echo(acceptor, stream).await;
        });
    }
}

async fn echo(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; RECORD_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..count]).await?;
        stream.flush().await?;
    }
}
