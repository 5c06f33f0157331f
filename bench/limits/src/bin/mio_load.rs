//! The closed loop of `load` on mio instead of bare epoll: what a generator costs that uses a library for readiness.
//!
//! mio is edge-triggered, so each connection is registered once, for both directions. One read for an event is enough
//! all the same: the buffer has room for all that the server owes a connection.

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use sockeye_limits::account::own_cpu_ns;
use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::client::Client;
use sockeye_limits::crowd::{Opening, Plain};
use sockeye_limits::exit_code;
use sockeye_limits::pattern::Pattern;
use sockeye_limits::report::{Report, objection};
use sockeye_limits::sys;
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Options {
    address: SocketAddrV4,
    connections: usize,
    size: usize,
    duration: Duration,
}

struct Load {
    poll: Poll,
    pattern: Pattern,
    clients: Vec<Client<TcpStream>>,
    buffer: Vec<u8>,
    messages: u64,
}

fn main() -> ExitCode {
    exit_code("mio_load", run())
}

fn run() -> io::Result<bool> {
    let options = Options::read()?;
    sys::raise_descriptor_limit()?;
    let opening = Opening {
        count: options.connections,
        in_flight: 256,
        patience: Duration::from_secs(10),
    };
    let crowd = opening.run(|| Plain::begin(options.address, &[]))?;
    let (errors, first_error) = (crowd.errors, crowd.first_error);
    let mut load = Load::new(crowd.streams, options.size)?;
    let (cpu, began) = (own_cpu_ns(), Instant::now());
    load.drive(began + options.duration)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (own_cpu_ns() - cpu) as f64;
    let messages = load.messages as f64;
    let served = load.clients.iter().filter(|client| client.turn > 0).count();
    let objection = objection(served, options.connections, errors, first_error.as_deref());
    Report::default()
        .count("connections", options.connections as u64)
        .count("messages", load.messages)
        .figure("seconds", seconds)
        .figure("messages_per_s", messages / seconds)
        .figure("client_cpu_ns_per_message", cpu / messages)
        .count("errors", errors)
        .count("served", served as u64)
        .print(objection.as_deref());
    Ok(objection.is_none())
}

impl Options {
    fn read() -> io::Result<Self> {
        let mut words = Arguments::from_command_line();
        let options = Self {
            address: words.first("ADDRESS")?,
            connections: words.required("--connections")?,
            size: words.required("--size")?,
            duration: words.seconds("--duration", 3.0)?,
        };
        words.finish()?;
        if options.connections == 0 || options.size == 0 || options.duration.is_zero() {
            return Err(usage("a load needs connections, bytes and time".to_owned()));
        }
        Ok(options)
    }
}

impl Load {
    fn new(streams: Vec<std::net::TcpStream>, size: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(streams.len());
        for (token, stream) in streams.into_iter().enumerate() {
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(token), interest)?;
            clients.push(Client::new(stream));
        }
        Ok(Self {
            poll,
            pattern: Pattern::for_size(size),
            clients,
            buffer: vec![0; size.max(64 * 1024)],
            messages: 0,
        })
    }

    /// A connection that fails ends the program: these figures are of a generator, and no peer is to be blamed.
    fn drive(&mut self, end: Instant) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        for token in 0..self.clients.len() {
            let message = self.pattern.message(token, 0);
            self.clients[token].push(message)?;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match self.poll.poll(&mut events, Some(left)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                self.proceed(event.token().0, event.is_readable())?;
            }
        }
    }

    fn proceed(&mut self, token: usize, is_readable: bool) -> io::Result<()> {
        let client = &mut self.clients[token];
        let message = self.pattern.message(token, client.turn);
        if is_readable && client.receive(message, true, &mut self.buffer)?.is_some() {
            self.messages += 1;
        }
        client.push(self.pattern.message(token, client.turn))?;
        Ok(())
    }
}
