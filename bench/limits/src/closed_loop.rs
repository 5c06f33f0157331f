//! A closed-loop load: every connection sends a message, reads its whole echo, and only then sends the next.
//!
//! It finds what a message costs the server. Its latencies are those of a saturated server and say little about a
//! lightly loaded one: with 1,000 connections most of a round trip is spent waiting for this one thread. And a closed
//! loop sends nothing while the server stalls, so a stall is one slow message per connection and not the thousands a
//! schedule would count.

use crate::arguments::{Arguments, usage};
use crate::client::Client;
use crate::crowd::{Crowd, Newcomer, Opening};
use crate::pattern::Pattern;
use crate::report::{Report, objection};
use crate::sys::{self, Epoll, Events, READABLE, WRITABLE};
use crate::window::Window;
use std::io::{self, Read, Write};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

struct Options {
    address: SocketAddrV4,
    pid: u32,
    connections: usize,
    size: usize,
    duration: Duration,
    warm_up: Duration,
    verify: bool,
    on_cue: bool,
}

/// What all connections do.
struct Plan {
    pattern: Pattern,
    verify: bool,
    epoll: Epoll,
}

struct Load<S> {
    options: Options,
    plan: Plan,
    clients: Vec<Option<Client<S>>>,
    crowd: Crowd<S>,
}

/// Runs the load the command line asks for, on connections begun so. Whether it counts.
pub fn run<N>(begin: impl Fn(SocketAddrV4) -> io::Result<N>) -> io::Result<bool>
where
    N: Newcomer<Stream: Read + Write + AsRawFd>,
{
    let options = Options::read()?;
    let limit = sys::raise_descriptor_limit()?;
    if options.connections as u64 + 32 > limit {
        return Err(usage(format!(
            "--connections: the descriptor limit is {limit}"
        )));
    }
    let began = Instant::now();
    let crowd = open(&options, begin)?;
    let opened = began.elapsed().as_secs_f64();
    let agreed = match crowd.streams.first() {
        Some(stream) => N::describe(stream, Report::default()),
        None => Report::default(),
    };
    let agreed = agreed.figure(
        "open_us_per_connection",
        opened * 1e6 / options.connections as f64,
    );
    let on_cue = options.on_cue;
    if on_cue {
        eprintln!("opened {}", crowd.streams.len());
        await_cue()?;
    }
    let mut load = Load::new(options, crowd)?;
    let window = load.drive()?;
    let counts = load.report(window, agreed)?;
    if on_cue {
        await_cue()?;
    }
    Ok(counts)
}

/// Several loads that share the machine begin together, and none of them ends, which closes thousands of connections,
/// while another one measures. A line on standard input is the cue, and so is its end.
fn await_cue() -> io::Result<()> {
    io::stdin().read_line(&mut String::new()).map(drop)
}

impl Options {
    fn read() -> io::Result<Self> {
        let mut words = Arguments::from_command_line();
        let options = Self {
            address: words.first("ADDRESS")?,
            pid: words.required("--pid")?,
            connections: words.required("--connections")?,
            size: words.required("--size")?,
            duration: words.seconds("--duration", 3.0)?,
            warm_up: words.seconds("--warmup", 0.5)?,
            verify: words.flag("--verify"),
            on_cue: words.flag("--on-cue"),
        };
        words.finish()?;
        if options.connections == 0 || options.size == 0 || options.duration.is_zero() {
            return Err(usage("a load needs connections, bytes and time".to_owned()));
        }
        Ok(options)
    }
}

/// Opens all connections before the first message, or the first ones would be measured alone.
fn open<N: Newcomer>(
    options: &Options,
    begin: impl Fn(SocketAddrV4) -> io::Result<N>,
) -> io::Result<Crowd<N::Stream>> {
    let opening = Opening {
        count: options.connections,
        in_flight: 256,
        patience: Duration::from_secs(10),
    };
    opening.run(|| begin(options.address))
}

impl<S: Read + Write + AsRawFd> Load<S> {
    fn new(options: Options, mut crowd: Crowd<S>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut clients = Vec::with_capacity(options.connections);
        for (token, stream) in crowd.streams.drain(..).enumerate() {
            epoll.add(&stream, token, READABLE)?;
            clients.push(Some(Client::new(stream)));
        }
        let plan = Plan {
            pattern: Pattern::for_size(options.size),
            verify: options.verify,
            epoll,
        };
        Ok(Self {
            options,
            plan,
            clients,
            crowd,
        })
    }

    fn drive(&mut self) -> io::Result<Window> {
        let mut buffer = vec![0; 64 * 1024];
        let mut events = Events::with_room_for(1024);
        for token in 0..self.clients.len() {
            self.proceed(token, 0, &mut buffer, None);
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
            self.plan.epoll.wait(&mut events, Some(left))?;
            for (token, happened) in events.iter() {
                self.proceed(token, happened, &mut buffer, window.as_mut());
            }
        }
    }

    /// Moves one connection on. One that fails is out: opening it again would hide the failure in the rate.
    fn proceed(
        &mut self,
        token: usize,
        happened: u32,
        buffer: &mut [u8],
        window: Option<&mut Window>,
    ) {
        let Some(client) = &mut self.clients[token] else {
            return;
        };
        if let Err(error) = self.plan.step(client, token, happened, buffer, window) {
            self.crowd.fail(&error);
            self.clients[token] = None;
        }
    }

    fn report(&self, window: Window, agreed: Report) -> io::Result<bool> {
        let found = window.close(self.options.pid)?;
        let served = self
            .clients
            .iter()
            .flatten()
            .filter(|client| client.served)
            .count();
        let messages = found.latencies.count() as f64;
        let objection = objection(
            served,
            self.options.connections,
            self.crowd.errors,
            self.crowd.first_error.as_deref(),
        );
        agreed
            .count("connections", self.options.connections as u64)
            .count("size_bytes", self.options.size as u64)
            .count("messages", found.latencies.count())
            .figure("seconds", found.seconds)
            .figure("messages_per_s", messages / found.seconds)
            .figure("server_cpu_ns_per_message", found.server_cpu_ns / messages)
            .figure("client_cpu_ns_per_message", found.client_cpu_ns / messages)
            .figure("server_cpu_share", found.server_cpu_share())
            .figure("p50_us", found.latencies.us(0.5))
            .figure("p99_us", found.latencies.us(0.99))
            .figure("max_us", found.latencies.us(1.0))
            .count("errors", self.crowd.errors)
            .count("served", served as u64)
            .print(objection.as_deref());
        Ok(objection.is_none())
    }
}

impl Plan {
    fn step<S: Read + Write + AsRawFd>(
        &self,
        client: &mut Client<S>,
        token: usize,
        happened: u32,
        buffer: &mut [u8],
        window: Option<&mut Window>,
    ) -> io::Result<()> {
        let message = self.pattern.message(token, client.turn);
        // Anything but room for more is for a read to find out.
        if happened & !WRITABLE != 0
            && let Some(latency) = client.receive(message, self.verify, buffer)?
            && let Some(window) = window
        {
            window.add(latency);
            client.served = true;
        }
        let message = self.pattern.message(token, client.turn);
        client.send(message, &self.epoll, token)
    }
}
