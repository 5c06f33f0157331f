//! Short connections, some at a time: connect, have one byte echoed, close, see the server close; then the next.
//!
//! It finds what it costs a server to accept and to close. With `--close fin` the client says the end first, as most
//! do, and is left with a socket in TIME_WAIT for each visit, unless the kernel is told to keep none
//! (tcp_max_tw_buckets); with `--close reset` it just goes.

use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::crowd::{Crowd, Newcomer, Plain};
use sockeye_limits::exit_code;
use sockeye_limits::report::{Report, objection};
use sockeye_limits::sys::{self, EDGE, Epoll, Events, READABLE, WRITABLE};
use sockeye_limits::window::Window;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const MESSAGE: &[u8] = b"x";

struct Options {
    address: SocketAddrV4,
    pid: u32,
    in_flight: usize,
    says_the_end: bool,
    duration: Duration,
    warm_up: Duration,
}

struct Visits {
    options: Options,
    epoll: Epoll,
    places: Vec<Place>,
    failures: Crowd<()>,
}

/// Where one visit follows the other.
struct Place {
    state: State,
    begun: Instant,
    /// Whether a visit was completed within the measured window.
    served: bool,
}

enum State {
    Arriving(Plain<'static>),
    Leaving(TcpStream),
    Empty,
}

fn main() -> ExitCode {
    exit_code("visits", Options::read().and_then(run))
}

fn run(options: Options) -> io::Result<bool> {
    sys::raise_descriptor_limit()?;
    let mut visits = Visits {
        epoll: Epoll::new()?,
        places: (0..options.in_flight).map(|_| Place::new()).collect(),
        failures: Crowd::default(),
        options,
    };
    let window = visits.drive()?;
    visits.report(window)
}

impl Options {
    fn read() -> io::Result<Self> {
        let mut words = Arguments::from_command_line();
        let address = words.first("ADDRESS")?;
        let close: String = words.required("--close")?;
        let options = Self {
            address,
            pid: words.required("--pid")?,
            in_flight: words.optional("--in-flight")?.unwrap_or(64),
            says_the_end: match close.as_str() {
                "fin" => true,
                "reset" => false,
                _ => return Err(usage(format!("--close {close}: fin or reset"))),
            },
            duration: words.seconds("--duration", 3.0)?,
            warm_up: words.seconds("--warmup", 0.5)?,
        };
        words.finish()?;
        if options.in_flight == 0 || options.duration.is_zero() {
            return Err(usage("visits need places and time".to_owned()));
        }
        Ok(options)
    }
}

impl Place {
    fn new() -> Self {
        Self {
            state: State::Empty,
            begun: Instant::now(),
            served: false,
        }
    }

    /// Goes on until the socket has had enough. Whether the visit is over.
    fn proceed(&mut self, happened: u32, says_the_end: bool) -> io::Result<bool> {
        if let State::Arriving(arriving) = &mut self.state {
            if !arriving.proceed(happened)? {
                return Ok(false);
            }
            if !says_the_end {
                return Ok(true);
            }
            if let State::Arriving(arrived) = std::mem::replace(&mut self.state, State::Empty) {
                let stream = arrived.into_stream();
                stream.shutdown(Shutdown::Write)?;
                self.state = State::Leaving(stream);
            }
        }
        match &self.state {
            State::Leaving(stream) => await_the_end(stream),
            State::Arriving(_) | State::Empty => Ok(false),
        }
    }
}

/// Whether the server has closed too.
fn await_the_end(mut stream: &TcpStream) -> io::Result<bool> {
    match stream.read(&mut [0; 16]) {
        Ok(0) => Ok(true),
        Ok(_) => Err(sockeye_limits::crowd::not_an_echo()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
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
        let arriving = Plain::begin(self.options.address, MESSAGE).and_then(|arriving| {
            self.epoll
                .add(&arriving, place, READABLE | WRITABLE | EDGE)?;
            Ok(arriving)
        });
        let place = &mut self.places[place];
        place.begun = begun;
        place.state = arriving
            .map_err(|error| self.failures.fail(&error))
            .map_or(State::Empty, State::Arriving);
    }

    /// A visit that fails is counted, and the next one begun: a server that refuses some is to be seen doing so.
    fn proceed(&mut self, token: usize, happened: u32, window: Option<&mut Window>) {
        let place = &mut self.places[token];
        match place.proceed(happened, self.options.says_the_end) {
            Ok(false) => return,
            Ok(true) => {
                if let Some(window) = window {
                    window.add(place.begun.elapsed());
                    place.served = true;
                }
            }
            Err(error) => self.failures.fail(&error),
        }
        self.begin(token);
    }

    fn report(self, window: Window) -> io::Result<bool> {
        let found = window.close(self.options.pid)?;
        let count = found.latencies.count();
        let visits = count as f64;
        let served = self.places.iter().filter(|place| place.served).count();
        let errors = self.failures.errors;
        let first_error = self.failures.first_error.as_deref();
        let objection = objection(served, self.options.in_flight, errors, first_error);
        Report::default()
            .count("connections", self.options.in_flight as u64)
            .count("visits", count)
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
