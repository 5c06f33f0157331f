//! Sends as fast as one connection takes it, for a while: what a byte costs at best.

use sockeye_limits::account::{cpu_ns, own_cpu_ns};
use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::pattern::Pattern;
use sockeye_limits::report::Report;
use sockeye_limits::{exit_code, sys};
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What one call sends. Larger than most programs' buffers, and still small enough for the cache.
const PIECE_BYTES: usize = 128 * 1024;
const FILE_BYTES: usize = 16 << 20;

enum Means {
    Write(Vec<u8>),
    SendFile(File),
}

fn main() -> ExitCode {
    exit_code("stream", run())
}

fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let address: SocketAddrV4 = words.first("ADDRESS")?;
    let pid: u32 = words.required("--pid")?;
    let by: String = words.required("--by")?;
    let duration = words.seconds("--duration", 3.0)?;
    let warm_up = words.seconds("--warmup", 0.5)?;
    words.finish()?;
    let means = Means::named(&by)?;
    let stream = TcpStream::connect(address)?;
    means.send_for(&stream, warm_up)?;
    let (server_cpu, client_cpu) = (cpu_ns(pid)?, own_cpu_ns());
    let began = Instant::now();
    let bytes = means.send_for(&stream, duration)?;
    let seconds = began.elapsed().as_secs_f64();
    let server_cpu = cpu_ns(pid)? as f64 - server_cpu as f64;
    let client_cpu = (own_cpu_ns() - client_cpu) as f64;
    let gibibytes = bytes as f64 / (1u64 << 30) as f64;
    Report::default()
        .count("bytes", bytes)
        .figure("seconds", seconds)
        .figure("gib_per_s", gibibytes / seconds)
        .figure("server_cpu_ns_per_gib", server_cpu / gibibytes)
        .figure("client_cpu_ns_per_gib", client_cpu / gibibytes)
        .figure("both_cpu_ns_per_gib", (server_cpu + client_cpu) / gibibytes)
        .print(None);
    Ok(true)
}

impl Means {
    fn named(name: &str) -> io::Result<Self> {
        let pattern = Pattern::for_size(FILE_BYTES);
        let bytes = pattern.message(0, 0);
        match name {
            "write" => Ok(Self::Write(bytes[..PIECE_BYTES].to_vec())),
            "sendfile" => Ok(Self::SendFile(sys::memory_file(bytes)?)),
            _ => Err(usage(format!("--by {name}: write or sendfile"))),
        }
    }

    fn send_for(&self, mut stream: &TcpStream, time: Duration) -> io::Result<u64> {
        let end = Instant::now() + time;
        let mut total = 0;
        let mut offset = 0;
        while Instant::now() < end {
            total += match self {
                Self::Write(piece) => stream.write(piece)?,
                Self::SendFile(file) => {
                    if offset == FILE_BYTES as i64 {
                        offset = 0;
                    }
                    sys::send_file(stream, file, &mut offset, PIECE_BYTES)?
                }
            } as u64;
        }
        Ok(total)
    }
}
