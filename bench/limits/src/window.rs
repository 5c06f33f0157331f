//! What is counted between two moments.

use crate::account::{cpu_ns, own_cpu_ns};
use crate::report::Latencies;
use std::io;
use std::time::{Duration, Instant};

/// Clocks and accounts are read in one place, so that they cover the same time.
#[derive(Debug)]
pub struct Window {
    began: Instant,
    server_cpu_ns: u64,
    client_cpu_ns: u64,
    latencies_ns: Vec<u64>,
}

/// What it came to.
#[derive(Debug)]
pub struct Found {
    pub seconds: f64,
    pub server_cpu_ns: f64,
    pub client_cpu_ns: f64,
    pub latencies: Latencies,
}

impl Window {
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self {
            // Room for a second or two, so that growing it does not fall into the first of them.
            latencies_ns: Vec::with_capacity(1 << 19),
            server_cpu_ns: cpu_ns(pid)?,
            client_cpu_ns: own_cpu_ns(),
            began: Instant::now(),
        })
    }

    pub fn add(&mut self, latency: Duration) {
        self.latencies_ns.push(latency.as_nanos() as u64);
    }

    pub fn close(self, pid: u32) -> io::Result<Found> {
        Ok(Found {
            seconds: self.began.elapsed().as_secs_f64(),
            server_cpu_ns: cpu_ns(pid)? as f64 - self.server_cpu_ns as f64,
            client_cpu_ns: (own_cpu_ns() - self.client_cpu_ns) as f64,
            latencies: self.latencies_ns.into(),
        })
    }
}

impl Found {
    /// How much of one CPU the server used.
    #[must_use]
    pub fn server_cpu_share(&self) -> f64 {
        self.server_cpu_ns / self.seconds / 1e9
    }
}
