//! A closed-loop load: every connection sends a message, reads its whole echo, and only then sends the next.
//!
//! It finds what a message costs the server. Its latencies are those of a saturated server and say little about a
//! lightly loaded one: with 1,000 connections most of a round trip is spent waiting for this one thread. And a closed
//! loop sends nothing while the server stalls, so a stall is one slow message per connection and not the thousands a
//! schedule would count.

use sockeye_limits::account::{cpu_ns, own_cpu_ns};
use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::client::Client;
use sockeye_limits::crowd::{Crowd, Opening};
use sockeye_limits::exit_code;
use sockeye_limits::pattern::Pattern;
use sockeye_limits::report::{Report, objection};
use sockeye_limits::sys::{self, Epoll, Events, READABLE, WRITABLE};
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Options {
    address: SocketAddrV4,
    pid: u32,
    connections: usize,
    size: usize,
    duration: Duration,
    warm_up: Duration,
    verify: bool,
}

/// What is counted between two moments, both read in one place so that they cover the same time.
struct Window {
    began: Instant,
    server_cpu_ns: u64,
    client_cpu_ns: u64,
    latencies_ns: Vec<u64>,
}

/// What all connections do.
struct Plan {
    pattern: Pattern,
    verify: bool,
    epoll: Epoll,
}

struct Load {
    options: Options,
    plan: Plan,
    clients: Vec<Option<Client>>,
    crowd: Crowd,
}

fn main() -> ExitCode {
    exit_code("load", Options::read().and_then(run))
}

fn run(options: Options) -> io::Result<bool> {
    let limit = sys::raise_descriptor_limit()?;
    if options.connections as u64 + 32 > limit {
        return Err(usage(format!(
            "--connections: the descriptor limit is {limit}"
        )));
    }
    let mut load = Load::open(options)?;
    let window = load.drive()?;
    load.report(window)
}

impl Options {
    fn read() -> io::Result<Self> {
        let mut words = Arguments::from_command_line();
        let seconds = |value: f64, name| {
            Duration::try_from_secs_f64(value).map_err(|error| usage(format!("{name}: {error}")))
        };
        let options = Self {
            address: words.first("ADDRESS")?,
            pid: words.required("--pid")?,
            connections: words.required("--connections")?,
            size: words.required("--size")?,
            duration: seconds(words.required("--duration")?, "--duration")?,
            warm_up: seconds(words.optional("--warmup")?.unwrap_or(0.5), "--warmup")?,
            verify: words.flag("--verify"),
        };
        words.finish()?;
        if options.connections == 0 || options.size == 0 || options.duration.is_zero() {
            return Err(usage("a load needs connections, bytes and time".to_owned()));
        }
        Ok(options)
    }
}

impl Load {
    /// Opens all connections before the first message, or the first ones would be measured alone.
    fn open(options: Options) -> io::Result<Self> {
        let opening = Opening {
            address: options.address,
            count: options.connections,
            in_flight: 256,
            message: &[],
            patience: Duration::from_secs(10),
        };
        let mut crowd = opening.run()?;
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

    fn report(self, window: Window) -> io::Result<bool> {
        let seconds = window.began.elapsed().as_secs_f64();
        let server_cpu = cpu_ns(self.options.pid)? as f64 - window.server_cpu_ns as f64;
        let client_cpu = (own_cpu_ns() - window.client_cpu_ns) as f64;
        let served = self
            .clients
            .iter()
            .flatten()
            .filter(|client| client.served)
            .count();
        let mut latencies = window.latencies_ns;
        latencies.sort_unstable();
        let messages = latencies.len() as f64;
        let at = |share: f64| {
            let place = ((messages * share).ceil() as usize).saturating_sub(1);
            latencies
                .get(place)
                .map_or(f64::NAN, |&ns| ns as f64 / 1000.0)
        };
        let objection = objection(
            served,
            self.options.connections,
            self.crowd.errors,
            self.crowd.first_error.as_deref(),
        );
        Report::default()
            .count("connections", self.options.connections as u64)
            .count("size_bytes", self.options.size as u64)
            .count("messages", latencies.len() as u64)
            .figure("seconds", seconds)
            .figure("messages_per_s", messages / seconds)
            .figure("server_cpu_ns_per_message", server_cpu / messages)
            .figure("client_cpu_ns_per_message", client_cpu / messages)
            .figure("server_cpu_share", server_cpu / seconds / 1e9)
            .figure("p50_us", at(0.5))
            .figure("p99_us", at(0.99))
            .figure("max_us", at(1.0))
            .count("errors", self.crowd.errors)
            .count("served", served as u64)
            .print(objection.as_deref());
        Ok(objection.is_none())
    }
}

impl Plan {
    fn step(
        &self,
        client: &mut Client,
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
            window.latencies_ns.push(latency.as_nanos() as u64);
            client.served = true;
        }
        let message = self.pattern.message(token, client.turn);
        client.send(message, &self.epoll, token)
    }
}

impl Window {
    fn open(pid: u32) -> io::Result<Self> {
        Ok(Self {
            // Room for a second or two, so that growing it does not fall into the first of them.
            latencies_ns: Vec::with_capacity(1 << 19),
            server_cpu_ns: cpu_ns(pid)?,
            client_cpu_ns: own_cpu_ns(),
            began: Instant::now(),
        })
    }
}
