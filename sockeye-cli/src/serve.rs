//! `sockeye serve`: many clients, a service for each.

mod events;
mod holder;
mod signals;

use std::num::NonZeroUsize;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use sockeye::admission::PerSource;
use sockeye::error::{BindError, ServeError};
use sockeye::shutdown::Summary;
use sockeye::{BindAddr, Limits, Server, SocketOptions, Timeouts, services};

use crate::address::Address;
use crate::cli::{Serve, Service, Timeout};
use crate::exit::{Code, Failure};
use crate::serve::events::Event;

const DEFAULT_ADDRESS: &str = "127.0.0.1:7000";

pub(crate) fn run(arguments: Serve) -> Result<Code, Failure> {
    // First of all: there are no other threads yet. Without it fewer connections fit, and no more than that.
    let _ = sockeye::raise_descriptor_limit();
    let server = bind(&arguments)?
        .limits(limits(&arguments))
        .timeouts(timeouts(&arguments));
    let handle = server.handle();
    let drain = arguments.drain;
    let (reporter, writers) = events::start(&arguments, {
        let handle = handle.clone();
        // As after a signal: nobody looks on any more, but the clients are still there.
        move || handle.drain(drain)
    })
    .map_err(|error| Failure::usage(anyhow!(error).context("cannot start a thread")))?;
    let reporter = Arc::new(reporter);
    let signals = signals::listen(handle, drain, Arc::clone(&reporter))
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot take signals")))?;

    let server = server.observer(Arc::clone(&reporter));
    let workers = arguments
        .workers
        .unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let served = serve(server, workers, arguments.service);
    let interrupted = signals.end();
    if let Ok(summary) = &served {
        reporter.report(Event::stopped(summary));
    }
    drop(reporter);
    let can_talk = writers.finish();
    let ended = match served {
        Ok(_) if interrupted => Ok(Code::Interrupted),
        Ok(_) => Ok(Code::Done),
        Err(error) => Err(Failure::usage(error)),
    };
    if !can_talk {
        // Nobody reads stderr: another word on it would never end.
        process::exit(ended.unwrap_or_else(|failure| failure.code) as i32);
    }
    ended
}

fn serve(server: Server, workers: NonZeroUsize, service: Service) -> Result<Summary, ServeError> {
    match service {
        Service::Echo => server.run(workers, services::echo()),
        Service::Discard => server.run(workers, services::discard()),
        Service::Chargen => server.run(workers, services::chargen()),
        Service::Daytime => server.run(workers, services::daytime()),
        Service::Time => server.run(workers, services::time()),
    }
}

fn bind(arguments: &Serve) -> Result<Server, Failure> {
    let mut options = SocketOptions::default();
    options.backlog = arguments.backlog;
    options.nodelay = arguments.nodelay;
    Server::bind_with(addresses(&arguments.listen)?, &options).map_err(|error| {
        let hint = hint(&error);
        let failure = Failure::usage(error);
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })
}

fn addresses(listen: &[String]) -> Result<Vec<BindAddr>, Failure> {
    let default = [DEFAULT_ADDRESS.to_owned()];
    let listen = if listen.is_empty() { &default } else { listen };
    let mut addresses = Vec::new();
    for text in listen {
        addresses.extend(Address::parse(text)?.bind_addresses()?);
    }
    Ok(addresses)
}

/// What can be done about an address that cannot be had.
fn hint(error: &BindError) -> Option<String> {
    match error {
        BindError::InUse { address } => Some(match holder::of(address) {
            Some(holder) => {
                format!("it is held by {holder}; -l takes another address, port 0 a free one")
            }
            None => "-l takes another address, port 0 a free one".to_owned(),
        }),
        BindError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Some("ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned())
        }
        BindError::Io { source, .. } if source.kind() == std::io::ErrorKind::AddrNotAvailable => {
            Some("it is not an address of this machine; :PORT listens on all that are".to_owned())
        }
        _ => None,
    }
}

fn limits(arguments: &Serve) -> Limits {
    Limits {
        max_connections: arguments.max_connections.map(NonZeroUsize::get),
        per_source: match arguments.max_per_source {
            None => Limits::default().per_source,
            Some(0) => PerSource::Unlimited,
            Some(limit) => PerSource::AtMost(limit),
        },
    }
}

fn timeouts(arguments: &Serve) -> Timeouts {
    let given = |timeout: Option<Timeout>| -> Option<Duration> { timeout?.0 };
    let mut timeouts = Timeouts::default();
    timeouts.first_byte = given(arguments.first_byte_timeout);
    timeouts.idle = given(arguments.idle_timeout);
    timeouts.lifetime = given(arguments.max_lifetime);
    timeouts
}
