//! The smallest server: `cargo run --example echo`, then `nc 127.0.0.1 7000`.

use std::error::Error;

use sockeye::{Server, services};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(([127, 0, 0, 1], 7000))?;
    eprintln!("listening on {}", server.addresses()[0]);
    server.serve(services::echo()).await?;
    Ok(())
}
