//! Clients that are served while others stall in their handshake: first none do, then a thousand, and the round trips
//! should not tell.
//!
//! Half of the stalled connections send nothing, the other half half a ClientHello. Meanwhile connected clients send
//! messages, and new ones come for a short visit, both by a schedule: a message that has to wait for the one before, or
//! for the server, is measured from when it was due. Between events the loop spins, since a timer of the kernel would
//! add up to a millisecond to what is measured in microseconds. Visits come at a rate that does not divide that of the
//! messages, or each would meet the same clients.

use rustls::ClientConfig;
use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::client::Client;
use sockeye_limits::crowd::{Crowd, Opening};
use sockeye_limits::exit_code;
use sockeye_limits::pattern::Pattern;
use sockeye_limits::report::{Latencies, Report, objection};
use sockeye_limits::sys::{self, EDGE, Epoll, Events, READABLE, WRITABLE};
use sockeye_limits::window::Window;
use sockeye_tls_limits::config;
use sockeye_tls_limits::newcomer::Secured;
use sockeye_tls_limits::session::Session;
use sockeye_tls_limits::stalled::{Stalled, half_a_hello, is_held};
use sockeye_tls_limits::visit::Visit;
use std::cell::Cell;
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
/// A visit that is not over after so long is not served.
const LATEST: Duration = Duration::from_secs(1);
const MESSAGE_BYTES: usize = 64;

struct Options {
    address: SocketAddrV4,
    pid: u32,
    stalled: usize,
    clients: usize,
    messages_per_s: f64,
    visits_per_s: f64,
    duration: Duration,
    warm_up: Duration,
}

struct Paced {
    options: Options,
    config: Arc<ClientConfig>,
    pattern: Pattern,
    epoll: Epoll,
    began: Instant,
    /// None for those that failed.
    clients: Vec<Option<Served>>,
    visits: Vec<Option<Visit>>,
    failures: Crowd<()>,
    visit_latencies_ns: Vec<u64>,
}

struct Served {
    client: Client<Session>,
    awaits_echo: bool,
}

fn main() -> ExitCode {
    exit_code("tls_stall", Options::read().and_then(run))
}

fn run(options: Options) -> io::Result<bool> {
    sys::raise_descriptor_limit()?;
    let config = config::client(false)?;
    let stalled = stall(&options, &config)?;
    let mut crowd = Opening {
        count: options.clients,
        in_flight: 64,
        patience: PATIENCE,
    }
    .run(|| Secured::begin(options.address, &config, &[]))?;
    let errors = stalled.errors + crowd.errors;
    if errors > 0 {
        let first = stalled.first_error.or(crowd.first_error);
        let objection = objection(0, options.clients, errors, first.as_deref());
        Report::default().print(objection.as_deref());
        return Ok(false);
    }
    let agreed = crowd
        .streams
        .first()
        .map(|one| one.describe(Report::default()));
    let sessions = std::mem::take(&mut crowd.streams);
    let mut paced = Paced::new(options, config, sessions)?;
    let window = paced.drive()?;
    paced.report(window, &stalled.streams, agreed.unwrap_or_default())
}

fn stall(options: &Options, config: &Arc<ClientConfig>) -> io::Result<Crowd<TcpStream>> {
    let hello = half_a_hello(config)?;
    let begun = Cell::new(0);
    let opening = Opening {
        count: options.stalled,
        in_flight: 256,
        patience: PATIENCE,
    };
    opening.run(|| {
        begun.set(begun.get() + 1);
        let words = if begun.get() % 2 == 0 {
            &hello[..]
        } else {
            &[]
        };
        Stalled::begin(options.address, words)
    })
}

impl Options {
    fn read() -> io::Result<Self> {
        let mut words = Arguments::from_command_line();
        let options = Self {
            address: words.first("ADDRESS")?,
            pid: words.required("--pid")?,
            stalled: words.optional("--stalled")?.unwrap_or(1000),
            clients: words.optional("--clients")?.unwrap_or(100),
            messages_per_s: words.optional("--messages-per-s")?.unwrap_or(10_000.0),
            visits_per_s: words.optional("--visits-per-s")?.unwrap_or(97.0),
            duration: words.seconds("--duration", 6.0)?,
            warm_up: words.seconds("--warmup", 0.5)?,
        };
        words.finish()?;
        let rates = options.messages_per_s.min(options.visits_per_s);
        if options.clients == 0 || options.duration.is_zero() || rates <= 0.0 {
            return Err(usage("this needs clients, rates and time".to_owned()));
        }
        Ok(options)
    }
}

impl Paced {
    fn new(
        options: Options,
        config: Arc<ClientConfig>,
        sessions: Vec<Session>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut clients = Vec::with_capacity(sessions.len());
        for (token, session) in sessions.into_iter().enumerate() {
            epoll.add(&session, token, READABLE)?;
            clients.push(Some(Served {
                client: Client::new(session),
                awaits_echo: false,
            }));
        }
        Ok(Self {
            options,
            config,
            pattern: Pattern::for_size(MESSAGE_BYTES),
            epoll,
            began: Instant::now(),
            clients,
            visits: Vec::new(),
            failures: Crowd::default(),
            visit_latencies_ns: Vec::new(),
        })
    }

    fn drive(&mut self) -> io::Result<Window> {
        let mut buffer = vec![0; 64 * 1024];
        let mut events = Events::with_room_for(1024);
        let mut messages_due = 0;
        let mut edge = self.began + self.options.warm_up;
        let mut window: Option<Window> = None;
        loop {
            let now = Instant::now();
            if now >= edge {
                if let Some(window) = window {
                    return Ok(window);
                }
                window = Some(Window::open(self.options.pid)?);
                edge = Instant::now() + self.options.duration;
            }
            if now >= self.due(messages_due, self.options.messages_per_s) {
                let token = messages_due as usize % self.clients.len();
                self.exchange(token, None, &mut buffer, window.as_mut());
                messages_due += 1;
            }
            if now >= self.due(self.visits.len() as u64, self.options.visits_per_s) {
                self.begin_visit();
            }
            self.epoll.wait(&mut events, Some(Duration::ZERO))?;
            for (token, happened) in events.iter() {
                match token.checked_sub(self.clients.len()) {
                    None => self.exchange(token, Some(happened), &mut buffer, window.as_mut()),
                    Some(visit) => self.proceed_visit(visit, happened, window.is_some()),
                }
            }
        }
    }

    /// When the message or visit of this number is due.
    fn due(&self, number: u64, per_s: f64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / per_s)
    }

    /// Receives what has come for a client, and sends its next message if that is due by now.
    fn exchange(
        &mut self,
        token: usize,
        happened: Option<u32>,
        buffer: &mut [u8],
        window: Option<&mut Window>,
    ) {
        let Some(mut served) = self.clients[token].take() else {
            return;
        };
        match self.step(&mut served, token, happened, buffer, window) {
            Ok(()) => self.clients[token] = Some(served),
            Err(error) => self.failures.fail(&error),
        }
    }

    fn step(
        &self,
        served: &mut Served,
        token: usize,
        happened: Option<u32>,
        buffer: &mut [u8],
        window: Option<&mut Window>,
    ) -> io::Result<()> {
        let Served {
            client,
            awaits_echo,
        } = served;
        let due = |turn: u64| {
            let number = turn * self.clients.len() as u64 + token as u64;
            self.due(number, self.options.messages_per_s)
        };
        if happened.is_some_and(|happened| happened & !WRITABLE != 0) {
            let turn = client.turn;
            let message = self.pattern.message(token, turn);
            if client.receive(message, true, buffer)?.is_some() {
                *awaits_echo = false;
                if let Some(window) = window {
                    window.add(due(turn).elapsed());
                    client.served = true;
                }
            }
        }
        if *awaits_echo || due(client.turn) <= Instant::now() {
            *awaits_echo = true;
            let message = self.pattern.message(token, client.turn);
            client.send(message, &self.epoll, token)?;
        }
        Ok(())
    }

    fn begin_visit(&mut self) {
        let token = self.clients.len() + self.visits.len();
        let visit = Visit::begin(self.options.address, &self.config).and_then(|visit| {
            self.epoll.add(&visit, token, READABLE | WRITABLE | EDGE)?;
            Ok(visit)
        });
        self.visits
            .push(visit.map_err(|error| self.failures.fail(&error)).ok());
    }

    fn proceed_visit(&mut self, number: usize, happened: u32, is_counted: bool) {
        let due = self.due(number as u64, self.options.visits_per_s);
        let Some(visit) = &mut self.visits[number] else {
            return;
        };
        match visit.proceed(happened) {
            Ok(false) => return,
            Ok(true) => {
                let latency = visit.served().map(|served| served - due);
                let latency = latency.filter(|_| is_counted);
                self.visit_latencies_ns
                    .extend(latency.map(|latency| latency.as_nanos() as u64));
            }
            Err(error) => self.failures.fail(&error),
        }
        self.visits[number] = None;
    }

    /// Visits that should be over by now, and are not.
    fn unfinished(&self) -> usize {
        let visits = self.visits.iter().zip(0..);
        let unfinished = visits.filter(|(visit, number)| {
            let due = self.due(*number, self.options.visits_per_s);
            visit.is_some() && due.elapsed() > LATEST
        });
        unfinished.count()
    }

    fn report(self, window: Window, stalled: &[TcpStream], agreed: Report) -> io::Result<bool> {
        let found = window.close(self.options.pid)?;
        let clients = self.clients.iter().flatten();
        let served = clients.filter(|served| served.client.served).count();
        let held = stalled.iter().filter(|stream| is_held(stream)).count();
        let unfinished = self.unfinished();
        let visits = Latencies::from(self.visit_latencies_ns);
        let errors = self.failures.errors;
        let first_error = self.failures.first_error.as_deref();
        let objection =
            objection(served, self.options.clients, errors, first_error).or_else(|| {
                let all = stalled.len();
                if held < all {
                    Some(format!(
                        "only {held} of {all} stalled connections were held"
                    ))
                } else {
                    (unfinished > 0).then(|| format!("{unfinished} visits were not served"))
                }
            });
        agreed
            .count("stalled", stalled.len() as u64)
            .count("stalled_held", held as u64)
            .count("connections", self.options.clients as u64)
            .count("messages", found.latencies.count())
            .count("visits", visits.count())
            .figure("seconds", found.seconds)
            .figure("server_cpu_share", found.server_cpu_share())
            .figure("p50_us", found.latencies.us(0.5))
            .figure("p99_us", found.latencies.us(0.99))
            .figure("max_us", found.latencies.us(1.0))
            .figure("visit_p50_us", visits.us(0.5))
            .figure("visit_p99_us", visits.us(0.99))
            .figure("visit_max_us", visits.us(1.0))
            .count("errors", errors)
            .count("served", served as u64)
            .print(objection.as_deref());
        Ok(objection.is_none())
    }
}
