//! Ends without cutting anybody off: `cargo run --example graceful_shutdown`, connect, press Ctrl-C here.
//!
//! At Ctrl-C the server stops accepting and the service learns that it drains; it finishes the request that it is at
//! and closes. Whoever is not done after ten seconds is cut, and counted.

use std::error::Error;
use std::time::Duration;

use sockeye::{Conn, Server, service_fn};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

async fn shout(conn: Conn) -> std::io::Result<()> {
    let mut drain = conn.drain_signal();
    let mut conn = BufReader::new(conn);
    let mut line = String::new();
    loop {
        line.clear();
        tokio::select! {
            read = conn.read_line(&mut line) => if read? == 0 {
                return Ok(());
            },
            () = drain.wait() => return conn.write_all(b"closing, come back soon\n").await,
        }
        conn.write_all(line.to_uppercase().as_bytes()).await?;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(([127, 0, 0, 1], 7000))?;
    eprintln!("listening on {}", server.addresses()[0]);
    let handle = server.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.drain(Duration::from_secs(10));
        }
    });
    let summary = server.serve(service_fn(shout)).await?;
    eprintln!(
        "stopped: {} connections served, {} cut",
        summary.snapshot.accepted,
        summary.cut()
    );
    Ok(())
}
