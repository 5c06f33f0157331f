//! A server for strangers: how many, how long, from where. `cargo run --example limits`.

use std::error::Error;
use std::num::NonZeroUsize;
use std::time::Duration;

use sockeye::admission::PerSource;
use sockeye::{BindAddr, Limits, Server, Timeouts, services};

fn main() -> Result<(), Box<dyn Error>> {
    let mut timeouts = Timeouts::default();
    timeouts.first_byte = Some(Duration::from_secs(10));
    timeouts.idle = Some(Duration::from_secs(60));
    timeouts.lifetime = Some(Duration::from_secs(3600));
    let server = Server::bind(BindAddr::AllInterfaces { port: 7000 })?
        .limits(Limits {
            max_connections: Some(1_000),
            per_source: PerSource::AtMost(20),
            ..Limits::default()
        })
        .timeouts(timeouts);
    eprintln!("listening on {}", server.addresses()[0]);
    // No runtime of our own is needed: `run` has one for each worker.
    let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    server.run(workers, services::echo())?;
    Ok(())
}
