//! An echo as tokio's documentation shows it: one thread, a task for each connection, `read` into a buffer of the task's
//! own, `write_all`, and nothing else.
//!
//! How large that buffer is decides between speed with large messages and memory, so it is an option.

use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::{announce, exit_code, sys};
use std::io;
use std::process::ExitCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    exit_code("tokio_echo", run())
}

fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let bytes: usize = words.required("--buffer")?;
    words.finish()?;
    if bytes == 0 {
        return Err(usage("--buffer: at least one byte".to_owned()));
    }
    sys::raise_descriptor_limit()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(serve(bytes))
}

/// An error of accept ends the program: a limit that lost connections is none.
async fn serve(buffer_bytes: usize) -> io::Result<bool> {
    let listener = sys::listen()?;
    announce(&listener)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // What went wrong on a connection ends it, and concerns nobody else.
        tokio::spawn(async move { drop(echo(stream, buffer_bytes).await) });
    }
}

async fn echo(mut stream: TcpStream, buffer_bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}
