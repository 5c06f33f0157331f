//! A client: connects by name, sends a GET, prints the answer. `cargo run --example http_get -- example.com`.

use std::error::Error;

use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "example.com".to_owned());
    let port = arguments.next().map_or(Ok(80), |port| port.parse())?;

    let mut connected = sockeye::client::connect((host.clone(), port)).await?;
    eprintln!("connected to {}", connected.peer);
    let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
    connected.stream.write_all(request.as_bytes()).await?;
    tokio::io::copy(&mut connected.stream, &mut tokio::io::stdout()).await?;
    Ok(())
}
