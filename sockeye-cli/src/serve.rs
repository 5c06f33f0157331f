//! `sockeye serve`: many clients, a service for each.

mod events;
pub(crate) mod exec;
mod files;
mod holder;
mod mirror;
mod ready;
mod refusals;
mod reload;
mod reporter;
mod scripted;
mod signals;
mod sources;
mod web;

use std::num::NonZeroUsize;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use sockeye::admission::PerSource;
use sockeye::error::{BindError, ServeError};
use sockeye::shutdown::Summary;
use sockeye::tls::Acceptor;
use sockeye::{BindAddr, Limits, Server, SocketOptions, Timeouts, services};

use crate::address::{Address, Scheme};
use crate::cli::serve::{Serve, Service};
use crate::cli::time::Timeout;
use crate::exit::{Code, Failure, Warning};
use crate::output::talk;
use crate::serve::events::Event;
use crate::serve::files::{Files, Settings};
use crate::serve::mirror::Mirror;
use crate::serve::ready::Ready;
use crate::serve::reload::Reload;
use crate::serve::reporter::Reporter;
use crate::serve::scripted::Scripted;
use crate::serve::sources::{RulesSource, Tls};
use crate::serve::web::Web;

const DEFAULT_ADDRESS: &str = "127.0.0.1:7000";

pub(crate) fn run(arguments: Serve) -> Result<Code, Failure> {
    // Before anything else is opened.
    let ready = Ready::new(&arguments)?;
    let workers = arguments
        .workers
        .unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let service = Chosen::of(&arguments, workers)?;
    if !matches!(service, Chosen::Exec(_)) {
        // There are no other threads yet. Without it fewer connections fit, and no more than that.
        let limit = sockeye::raise_descriptor_limit().ok().flatten();
        if let (Some(asked), Some(limit)) = (arguments.max_connections, limit)
            && asked.get() as u64 >= limit
        {
            talk(&Warning(&format!(
                "--max-connections {asked}: the descriptor limit of {limit} (ulimit -Hn) leaves room for fewer; clients that \
                 find none wait in the listen queue"
            )));
        }
    }
    let rules = RulesSource::new(&arguments);
    let tls = Tls::load(&arguments)?;
    let script = match &service {
        Chosen::Script(script) => Some(script.clone()),
        _ => None,
    };
    let (server, over_tls) = configure(&arguments, &rules, tls.as_ref())?;
    let (handle, drain) = (server.handle(), arguments.drain);
    let shown = tls.as_ref().map_or_else(Vec::new, |tls| tls.shown.clone());
    let (reporter, writers) = reporter::start(&arguments, over_tls, shown, ready, {
        let handle = handle.clone();
        // As after a signal: nobody looks on any more, but the clients are still there.
        move || handle.drain(drain)
    })
    .map_err(|error| Failure::usage(anyhow!(error).context("cannot start a thread")))?;
    let reporter = Arc::new(reporter);
    let reload = Reload::new(rules, tls, script, handle.clone(), &reporter).start();
    let reload =
        reload.map_err(|error| Failure::usage(anyhow!(error).context("cannot start a thread")))?;
    let signals = signals::listen(handle, drain, Arc::clone(&reporter), reload)
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot take signals")))?;

    let server = server.observer(Arc::clone(&reporter));
    let served = serve(server, workers, service, &reporter);
    let interrupted = signals.end();
    reporter.last_refused();
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
        process::exit(ended.unwrap_or_else(|failure| failure.code).number().into());
    }
    ended
}

/// A service, ready to be used.
enum Chosen {
    Echo,
    Discard,
    Chargen,
    Daytime,
    Time,
    Exec(exec::Plan),
    Files(Files),
    Http(Mirror),
    Script(Scripted),
}

impl Chosen {
    fn of(arguments: &Serve, workers: NonZeroUsize) -> Result<Self, Failure> {
        if let Some((given, hint)) = arguments.misplaced() {
            let service = arguments.service.name();
            let error = anyhow!("'serve {service}' has no use for {given}");
            return Err(Failure::usage(error).with_hint(hint));
        }
        Ok(match arguments.service {
            Service::Exec => Self::Exec(exec::Plan::new(arguments, workers)?),
            Service::Files => {
                let settings = Settings {
                    folder: arguments.path.clone().unwrap_or_else(|| ".".into()),
                    index: arguments.index,
                    spa: arguments.spa.clone(),
                    upload_bytes: arguments.upload.then_some(arguments.upload_limit),
                };
                let folder = settings.folder.display().to_string();
                Self::Files(Files::new(settings).map_err(|error| {
                    Failure::usage(anyhow!(error).context(format!("cannot serve {folder}")))
                })?)
            }
            Service::Http => Self::Http(Mirror {
                echo: arguments.echo,
            }),
            Service::Script => Self::Script(Scripted::load(arguments.path.as_deref())?),
            Service::Echo => Self::Echo,
            Service::Discard => Self::Discard,
            Service::Chargen => Self::Chargen,
            Service::Daytime => Self::Daytime,
            Service::Time => Self::Time,
        })
    }
}

fn serve(
    server: Server,
    workers: NonZeroUsize,
    service: Chosen,
    reporter: &Arc<Reporter>,
) -> Result<Summary, ServeError> {
    match service {
        Chosen::Exec(plan) => plan.serve(server, workers, reporter),
        Chosen::Script(script) => server.run(workers, script),
        Chosen::Files(files) => server.run(workers, Web::new(files, Arc::clone(reporter))),
        Chosen::Http(mirror) => server.run(workers, Web::new(mirror, Arc::clone(reporter))),
        Chosen::Echo => server.run(workers, services::echo()),
        Chosen::Discard => server.run(workers, services::discard()),
        Chosen::Chargen => server.run(workers, services::chargen()),
        Chosen::Daytime => server.run(workers, services::daytime()),
        Chosen::Time => server.run(workers, services::time()),
    }
}

/// The server with all that is asked for, and which of its listeners speak TLS.
fn configure(
    arguments: &Serve,
    rules: &RulesSource,
    tls: Option<&Tls>,
) -> Result<(Server, Vec<bool>), Failure> {
    let rules = rules.load()?;
    let (server, over_tls) = bind(arguments, tls.map(|tls| &tls.acceptor))?;
    if let Some(objection) = exec::objection(arguments, server.addresses(), &over_tls) {
        return Err(objection);
    }
    let mut server = server
        .limits(limits(arguments))
        .timeouts(timeouts(arguments))
        .rules(rules);
    if let Some(mut trusted) = arguments.proxy_protocol.clone() {
        trusted.only = arguments.proxy_protocol_only;
        server = server.trusted_proxies(trusted);
    }
    Ok((server, over_tls))
}

/// Binds all addresses, and says which of them speak TLS.
fn bind(arguments: &Serve, tls: Option<&Acceptor>) -> Result<(Server, Vec<bool>), Failure> {
    let mut options = SocketOptions::default();
    options.backlog = arguments.backlog;
    options.nodelay = arguments.nodelay;
    let (addresses, over_tls) = addresses(&arguments.listen, tls.is_some())?;
    let mut server = Server::bind_with(addresses, &options).map_err(|error| {
        let hint = hint(&error);
        let failure = Failure::usage(error);
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })?;
    for index in (0..over_tls.len()).filter(|index| over_tls[*index]) {
        let acceptor = tls.ok_or_else(|| {
            Failure::usage(anyhow!("no certificate to speak TLS with"))
                .with_hint("--tls-cert FILE is one, --tls-self-signed NAME makes one")
        })?;
        server = server.tls_on(index, acceptor);
    }
    Ok((server, over_tls))
}

/// Where to listen, and whether over TLS: as the address says, else if there is a certificate.
fn addresses(listen: &[String], by_default: bool) -> Result<(Vec<BindAddr>, Vec<bool>), Failure> {
    let default = [DEFAULT_ADDRESS.to_owned()];
    let listen = if listen.is_empty() { &default } else { listen };
    let (mut addresses, mut over_tls) = (Vec::new(), Vec::new());
    for text in listen {
        let address = Address::parse(text)?;
        addresses.extend(address.bind_addresses()?);
        let tls = match address.scheme {
            Some(scheme) => scheme == Scheme::Tls,
            None => by_default,
        };
        over_tls.resize(addresses.len(), tls);
    }
    Ok((addresses, over_tls))
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
    let is_exec = arguments.service == Service::Exec;
    let default = is_exec.then_some(exec::DEFAULT_MAX_CONNECTIONS);
    Limits {
        max_connections: arguments.max_connections.or(default).map(NonZeroUsize::get),
        per_source: match arguments.max_per_source {
            None => Limits::default().per_source,
            Some(0) => PerSource::Unlimited,
            Some(limit) => PerSource::AtMost(limit),
        },
        rate: arguments.rate,
        handshakes: arguments.max_handshakes,
    }
}

fn timeouts(arguments: &Serve) -> Timeouts {
    let given = |timeout: Option<Timeout>| -> Option<Duration> { timeout?.0 };
    let mut timeouts = Timeouts::default();
    timeouts.proxy_header = arguments.handshake_timeout;
    timeouts.handshake = arguments.handshake_timeout;
    timeouts.first_byte = given(arguments.first_byte_timeout);
    timeouts.idle = match arguments.idle_timeout {
        Some(timeout) => timeout.0,
        None => arguments.service.default_idle_timeout(),
    };
    timeouts.lifetime = given(arguments.max_lifetime);
    timeouts
}
