//! Short connections, some at a time: connect, shake hands, have one byte echoed, say the end, close; then the next.
//!
//! It finds what a handshake costs the server, with all that a new connection costs besides. With `--resume` every
//! visit but the first ones resumes the session of one before (RFC 8446, section 2.2), and a run where one does not is
//! none.

use rustls::ClientConfig;
use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::crowd::Crowd;
use sockeye_limits::exit_code;
use sockeye_limits::report::{Report, objection};
use sockeye_limits::sys::{self, EDGE, Epoll, Events, READABLE, WRITABLE};
use sockeye_limits::window::Window;
use sockeye_tls_limits::config;
use sockeye_tls_limits::visit::Visit;
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Options {
    address: SocketAddrV4,
    pid: u32,
    in_flight: usize,
    duration: Duration,
    warm_up: Duration,
    resume: bool,
}

struct Visits {
    options: Options,
    epoll: Epoll,
    places: Vec<Place>,
    failures: Crowd<()>,
    resumed: u64,
    agreed: Option<Report>,
}

/// Where one visit follows the other.
struct Place {
    /// One for each, so that a visit finds the tickets of the one before, whatever the other places do.
    config: Arc<ClientConfig>,
    visit: Option<(Visit, Instant)>,
    /// Whether a visit was completed within the measured window.
    served: bool,
}

fn main() -> ExitCode {
    exit_code("tls_visits", Options::read().and_then(run))
}

fn run(options: Options) -> io::Result<bool> {
    sys::raise_descriptor_limit()?;
    let places: io::Result<_> = (0..options.in_flight)
        .map(|_| Place::new(options.resume))
        .collect();
    let mut visits = Visits {
        epoll: Epoll::new()?,
        places: places?,
        failures: Crowd::default(),
        resumed: 0,
        agreed: None,
        options,
    };
    let window = visits.drive()?;
    visits.report(window)
}

impl Options {
    fn read() -> io::Result<Self> {
        let mut words = Arguments::from_command_line();
        let options = Self {
            address: words.first("ADDRESS")?,
            pid: words.required("--pid")?,
            in_flight: words.optional("--in-flight")?.unwrap_or(16),
            duration: words.seconds("--duration", 3.0)?,
            warm_up: words.seconds("--warmup", 0.5)?,
            resume: words.flag("--resume"),
        };
        words.finish()?;
        if options.in_flight == 0 || options.duration.is_zero() {
            return Err(usage("visits need places and time".to_owned()));
        }
        Ok(options)
    }
}

impl Place {
    fn new(resumes: bool) -> io::Result<Self> {
        Ok(Self {
            config: config::client(resumes)?,
            visit: None,
            served: false,
        })
    }
}

impl Visits {
    fn drive(&mut self) -> io::Result<Window> {
        let mut events = Events::with_room_for(1024);
        for place in 0..self.places.len() {
            self.begin(place);
        }
        let mut edge = Instant::now() + self.options.warm_up;
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
            let left = edge.saturating_duration_since(now);
            self.epoll.wait(&mut events, Some(left))?;
            for (place, happened) in events.iter() {
                self.proceed(place, happened, window.as_mut());
            }
        }
    }

    /// Begins a visit. If one cannot even begin, its place stays empty, which the report says.
    fn begin(&mut self, place: usize) {
        let begun = Instant::now();
        let config = &self.places[place].config;
        let visit = Visit::begin(self.options.address, config).and_then(|visit| {
            self.epoll.add(&visit, place, READABLE | WRITABLE | EDGE)?;
            Ok((visit, begun))
        });
        self.places[place].visit = visit.map_err(|error| self.failures.fail(&error)).ok();
    }

    fn proceed(&mut self, place: usize, happened: u32, window: Option<&mut Window>) {
        let Some((visit, begun)) = &mut self.places[place].visit else {
            return;
        };
        match visit.proceed(happened) {
            Ok(false) => return,
            Ok(true) => {
                let begun = *begun;
                self.end(place, begun, window);
            }
            Err(error) => self.failures.fail(&error),
        }
        self.begin(place);
    }

    fn end(&mut self, place: usize, begun: Instant, window: Option<&mut Window>) {
        let place = &mut self.places[place];
        let Some(((mut visit, _), window)) = place.visit.take().zip(window) else {
            return;
        };
        if let Some(served) = visit.served() {
            window.add(served - begun);
            place.served = true;
        }
        if let Some(session) = visit.session() {
            self.resumed += u64::from(session.is_resumed());
            self.agreed
                .get_or_insert_with(|| session.describe(Report::default()));
        }
    }

    fn report(self, window: Window) -> io::Result<bool> {
        let found = window.close(self.options.pid)?;
        let count = found.latencies.count();
        let visits = count as f64;
        let served = self.places.iter().filter(|place| place.served).count();
        let errors = self.failures.errors;
        let first_error = self.failures.first_error.as_deref();
        let expected = if self.options.resume { count } else { 0 };
        let objection =
            objection(served, self.options.in_flight, errors, first_error).or_else(|| {
                let resumed = self.resumed;
                (resumed != expected).then(|| format!("{resumed} of {count} sessions were resumed"))
            });
        self.agreed
            .unwrap_or_default()
            .count("in_flight", self.options.in_flight as u64)
            .count("visits", count)
            .count("resumed", self.resumed)
            .figure("seconds", found.seconds)
            .figure("visits_per_s", visits / found.seconds)
            .figure("server_cpu_ns_per_visit", found.server_cpu_ns / visits)
            .figure("client_cpu_ns_per_visit", found.client_cpu_ns / visits)
            .figure("server_cpu_share", found.server_cpu_share())
            .figure("p50_us", found.latencies.us(0.5))
            .figure("p99_us", found.latencies.us(0.99))
            .figure("max_us", found.latencies.us(1.0))
            .count("errors", errors)
            .count("served", served as u64)
            .print(objection.as_deref());
        Ok(objection.is_none())
    }
}
