//! Looks on: a line for each connection that ends, with what the kernel knew about it, and the counters once a
//! second. `cargo run --example observe`.

use std::error::Error;
use std::time::Duration;

use sockeye::stats::{Closed, Observer, Refused};
use sockeye::{Server, services};

struct Log;

impl Observer for Log {
    fn refuse(&self, event: &Refused<'_>) {
        println!("{} refused: {}", event.peer, event.reason.as_str());
    }

    fn close(&self, event: &Closed<'_>) {
        let rtt_us = event.tcp_info.and_then(|info| info.rtt_us);
        println!(
            "{} closed after {:?}: {}, {} bytes in, {} out, round trip {} us",
            event.peer,
            event.duration,
            event.reason,
            event.bytes_in,
            event.bytes_out,
            rtt_us.map_or_else(|| "?".to_owned(), |us| us.to_string()),
        );
    }

    fn wants_tcp_info(&self) -> bool {
        true
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind(([127, 0, 0, 1], 7000))?.observer(Log);
    println!("listening on {}", server.addresses()[0]);
    let handle = server.handle();
    tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            let now = handle.snapshot();
            println!("{} accepted, {} open", now.accepted, now.open);
        }
    });
    server.serve(services::echo()).await?;
    Ok(())
}
