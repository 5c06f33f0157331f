//! What is the same for every run of a command: whom to measure, with what, and whether it can be done at all.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use sockeye::client::Target;
use sockeye::{Addr, Server, SocketOptions};

use crate::address::{Address, Destination, parse_destination};
use crate::bench::both_ends::{Ends, Here};
use crate::bench::cycle::Cycle;
use crate::bench::dial::{DialError, Dialer, Ports};
use crate::bench::interrupt::Interrupts;
use crate::bench::plan::{Extent, Pace, Plan};
use crate::cli::bench::{Bench, Mode};
use crate::exit::{Code, Failure, Warning};
use crate::http;
use crate::output::talk;
use crate::secure::{Secured, Securing};

/// What is the same for every run.
pub(crate) struct Setup<'a> {
    pub(crate) arguments: &'a Bench,
    pub(crate) mode: Mode,
    /// As it is shown.
    pub(crate) target: String,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) tls: bool,
    /// What is sent with `--mode http`.
    request: Vec<u8>,
    origin: Instant,
    pub(crate) interrupts: Interrupts,
    pub(crate) here: Option<(Here, Ends)>,
}

impl<'a> Setup<'a> {
    pub(crate) async fn new(arguments: &'a Bench, limit: Option<u64>) -> Result<Self, Failure> {
        if let Some(limit) = limit {
            enough_descriptors(arguments, limit)?;
        }
        let mode = mode(arguments)?;
        let interrupts = Interrupts::listen()
            .map_err(|error| Failure::usage(anyhow!(error).context("cannot take signals")))?;
        let origin = Instant::now();
        let here = if arguments.serve {
            Some(serve_here(arguments, mode, origin)?)
        } else {
            None
        };
        let destination = match &here {
            Some((address, ..)) => parse_destination(&[address.to_string()])?,
            None => parse_destination(&arguments.address)?,
        };
        let securing = Securing::new(&arguments.securing, &destination)?;
        let tls = securing.has_tls();
        if tls && here.is_some() {
            return Err(Failure::usage(anyhow!(
                "--serve measures plain TCP, without TLS"
            )));
        }
        let request = match mode {
            Mode::Http => request(arguments, &destination, tls)?,
            Mode::Echo | Mode::Stream | Mode::Connect => Vec::new(),
        };
        let target = here.as_ref().map_or_else(
            || arguments.address.join(":"),
            |(address, ..)| address.to_string(),
        );
        let mut dialer = Dialer::new(
            destination.target,
            securing,
            arguments.source,
            arguments.timeout,
        );
        enough_ports(arguments, mode, &dialer)?;
        try_once(arguments, &mut dialer, interrupts.clone()).await?;
        Ok(Self {
            arguments,
            mode,
            target,
            dialer: Arc::new(dialer),
            tls,
            request,
            origin,
            interrupts,
            here: here.map(|(_, here, ends)| (here, ends)),
        })
    }

    pub(crate) fn plan(&self, rate: Option<f64>, duration: Duration) -> Plan {
        let arguments = self.arguments;
        let connections = arguments.connections.get();
        let threads = arguments.threads.unwrap_or_else(default_threads).get();
        Plan {
            mode: self.mode,
            connections,
            threads: threads.min(connections),
            pace: rate.map_or(Pace::Closed, |rate_per_s| Pace::Open {
                rate_per_s,
                arrivals: arguments.arrivals,
                seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
            }),
            size: match self.mode {
                Mode::Connect => arguments.size.unwrap_or(0),
                Mode::Http => self.request.len(),
                Mode::Echo | Mode::Stream => arguments.size.unwrap_or(64),
            },
            pipeline: arguments.pipeline.get(),
            warmup: arguments.warmup,
            extent: arguments
                .messages
                .map_or(Extent::Time(duration), Extent::Messages),
            timeout: arguments.timeout,
            lifetime: arguments.lifetime,
            close: arguments.close,
            verify: arguments.verify,
            cycle: match self.mode {
                Mode::Http => Cycle::of(self.request.clone()),
                Mode::Echo | Mode::Stream | Mode::Connect => Cycle::noise(0),
            },
            dialer: Arc::clone(&self.dialer),
            ends: self.here.as_ref().map(|(_, ends)| ends.clone()),
            origin: self.origin,
        }
    }

    pub(crate) fn duration(&self) -> Duration {
        let default = match self.arguments.find_max {
            Some(_) => Duration::from_secs(3),
            None => Duration::from_secs(10),
        };
        self.arguments.duration.unwrap_or(default)
    }

    pub(crate) fn end(self) {
        if let Some((here, _)) = self.here {
            here.end();
        }
    }
}

/// Each connection is a descriptor, with both ends here two.
fn enough_descriptors(arguments: &Bench, limit: u64) -> Result<(), Failure> {
    const OTHERS: u64 = 64;
    let each = if arguments.serve { 2 } else { 1 };
    let connections = arguments.connections.get() as u64;
    let needed = connections.saturating_mul(each).saturating_add(OTHERS);
    if needed <= limit {
        return Ok(());
    }
    let error = anyhow!(
        "{} connections need {needed} descriptors, and {limit} is the limit",
        arguments.connections
    );
    Err(Failure::usage(error)
        .with_hint("'ulimit -Hn' shows the limit; several processes, each with a part, have more"))
}

/// Half of the CPUs: a server on the same machine needs the other half.
fn default_threads() -> NonZeroUsize {
    let all = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(all / 2).unwrap_or(NonZeroUsize::MIN)
}

fn mode(arguments: &Bench) -> Result<Mode, Failure> {
    let default = if arguments.http.is_some() {
        Mode::Http
    } else {
        Mode::Echo
    };
    let mode = arguments.mode.unwrap_or(default);
    let wrong = |text: &str| Err(Failure::usage(anyhow!("{text}")));
    let unlikely = arguments
        .find_max
        .as_ref()
        .filter(|wanted| !wanted.is_ceiling_of_latency());
    let asks_for_messages =
        arguments.messages.is_some() || arguments.rate.is_some() || arguments.find_max.is_some();
    match mode {
        _ if unlikely.is_some() => {
            wrong("--find-max needs a latency and what it may be at most, such as 'p99<5ms'")
        }
        _ if arguments.http.is_some() && mode != Mode::Http => wrong("--http is for --mode http"),
        Mode::Http if arguments.size.is_some() => {
            wrong("--size is not for --mode http: the request has the size it has")
        }
        Mode::Http if arguments.verify => {
            wrong("--verify is not for --mode http: there is nothing to compare an answer with")
        }
        Mode::Stream if arguments.verify => {
            wrong("--verify is not for --mode stream: nothing says what is to come back")
        }
        Mode::Stream | Mode::Connect if arguments.pipeline.get() > 1 => wrong(
            "--pipeline is for --mode echo and http: the others wait for no answer, or have one message each",
        ),
        Mode::Echo if arguments.size == Some(0) => wrong("--size 0: an echo has at least one byte"),
        Mode::Stream if arguments.size == Some(0) && asks_for_messages => wrong(
            "--size 0: a stream that is only received has no messages, so -n, --rate and --find-max have nothing to count",
        ),
        Mode::Connect if arguments.lifetime.is_some() => {
            wrong("--lifetime is not for --mode connect: each message is a connection of its own")
        }
        _ if arguments.serve && mode != Mode::Echo => wrong("--serve is for --mode echo"),
        _ if arguments.serve && arguments.pipeline.get() > 1 => {
            wrong("--serve follows one message at a time on a connection, without --pipeline")
        }
        _ => Ok(mode),
    }
}

pub(crate) fn request_path(arguments: &Bench) -> &str {
    arguments.http.as_deref().unwrap_or("/")
}

/// The request, the same each time.
fn request(arguments: &Bench, destination: &Destination, tls: bool) -> Result<Vec<u8>, Failure> {
    let host = match &destination.target {
        Target::Host(host, port) => http::host_field(host, *port, tls),
        _ => "localhost".to_owned(),
    };
    http::request("GET", request_path(arguments), &host)
        .map_err(|error| Failure::usage(anyhow!(error)))
}

/// An echo server here, at the address given or at a free port.
fn serve_here(
    arguments: &Bench,
    mode: Mode,
    origin: Instant,
) -> Result<(Addr, Here, Ends), Failure> {
    debug_assert_eq!(mode, Mode::Echo, "the others are refused");
    let address = match arguments.address.as_slice() {
        [] => "127.0.0.1:0".to_owned(),
        words => words.join(":"),
    };
    let bind = Address::parse(&address)?.bind_addresses()?;
    let server = Server::bind_with(bind, &SocketOptions::default()).map_err(Failure::usage)?;
    let bound = server.addresses().first().cloned();
    let Some(bound @ Addr::Tcp(_)) = bound else {
        return Err(Failure::usage(anyhow!("--serve needs a TCP address")));
    };
    let ends = Ends::default();
    let here = Here::start(server, ends.clone(), origin)
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot start a thread")))?;
    Ok((bound, here, ends))
}

/// Refuses what cannot be, with the arithmetic.
fn enough_ports(arguments: &Bench, mode: Mode, dialer: &Dialer) -> Result<(), Failure> {
    let Some(ports) = dialer.ports() else {
        return match arguments.source {
            Some(_) => Err(Failure::usage(anyhow!("--source is for TCP"))),
            None => Ok(()),
        };
    };
    let connections = arguments.connections.get() as u64;
    if mode == Mode::Connect || connections <= ports.count() {
        return Ok(());
    }
    let error = anyhow!(
        "{connections} connections at a time have not enough ports: {}",
        ports.text()
    );
    Err(Failure::usage(error).with_hint(Ports::HINT))
}

/// One connection before all others, to say well what is wrong.
async fn try_once(
    arguments: &Bench,
    dialer: &mut Dialer,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let mut secured = Secured::default();
    let tried = tokio::select! {
        biased;
        tried = dialer.try_once(&mut secured) => tried,
        () = interrupts.next() => {
            return Err(Failure::new(Code::Interrupted, anyhow!("interrupted")));
        }
    };
    if let (Some(warning), false) = (&secured.warning, arguments.quiet) {
        talk(&Warning(warning));
    }
    match tried {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == "ports_exhausted" => Err(no_port(arguments, dialer, error)),
        Err(DialError::Connect(error)) => {
            let code = crate::connect::code_of(&error);
            Err(Failure::new(code, error))
        }
        Err(DialError::Secure(failure)) => Err(failure),
    }
}

/// The kernel says the same of an address that is not of this machine and of ports that are all in use.
fn no_port(arguments: &Bench, dialer: &Dialer, error: DialError) -> Failure {
    let failure = match error {
        DialError::Connect(error) => Failure::new(Code::Connect, error),
        DialError::Secure(failure) => return failure,
    };
    match (arguments.source, dialer.ports()) {
        (Some(source), _) => failure.with_hint(format!(
            "either {source} is not of this machine, or all of its ports are in use"
        )),
        (None, Some(ports)) => failure.with_hint(format!("{}; {}", ports.text(), Ports::HINT)),
        (None, None) => failure,
    }
}
