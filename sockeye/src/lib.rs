//! The two ends of a TCP connection: a server loop around the **listening socket**, which only accepts, and the
//! **connected socket**, which talks; and a client that connects by name.
//!
//! ```text
//! accept side   listener ──▶ admission ──▶ PROXY header ──▶ TLS ──▶ service ──▶ close ──▶ account
//!               accepts,     room for      only from       if       yours, or   drain,    one CloseReason,
//!               never        one more?     trusted         asked    services::  linger    counters, event
//!               fails        let in?       proxies         for
//!
//! connect side  resolve ──▶ race the addresses ──▶ proxy ──▶ PROXY header ──▶ STARTTLS ──▶ TLS ──▶ stream ──▶ close
//! ```
//!
//! Each connection gets one task; in it your [`Service`] reads and writes a [`Conn`], and what comes before and after
//! is done for it: rules and limits, handshakes, deadlines, a close that loses no byte, panics kept in, a shutdown that
//! drains. TLS is the feature `tls`.
//!
//! # An echo server
//!
//! ```
//! use sockeye::{Server, service_fn};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let echo = service_fn(async |mut conn| {
//!         let mut buffer = [0; 4096];
//!         loop {
//!             match conn.read(&mut buffer).await? {
//!                 0 => return Ok(()), // the client has sent FIN
//!                 bytes => conn.write_all(&buffer[..bytes]).await?,
//!             }
//!         }
//!     });
//!     let server = Server::bind(([127, 0, 0, 1], 7000))?;
//! #   server.handle().stop();
//!     server.serve(echo).await?;
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! 1. `accepted == refused + open + closed` in every [`stats::Snapshot`], and every closed connection has exactly one
//!    [`CloseReason`].
//! 2. The accept loop waits for no peer and no service, and nothing a client does ends it.
//! 3. Everything is bounded, with a documented default: [`Limits`], [`Timeouts`], [`SocketOptions`], [`frame`],
//!    [`proxy_protocol`], [`hop`], [`starttls`], [`tls_peek`].
//! 4. With [`services`] and [`hot_buffer`], an idle connection holds no buffer.
//! 5. What a connection took is given back by `Drop`, however it ends.
//! 6. No byte that a peer sends can make the library panic.
//! 7. A panic in a service closes its own connection and touches no other (with `panic = "unwind"`).
//!
//! # What is not
//!
//! Linux only. No UDP, no HTTP. The library reads no files and no environment, takes no signals, and keeps no global
//! state; it spawns the tasks of connections, the threads of workers in [`Server::run`], a blocking task for a lookup in
//! [`client`], and nothing else.
//! Within version 0.x the interface may change with each minor version.

#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_os = "linux"))]
compile_error!("sockeye runs on Linux only, so far");

// In the order of the flow, which is the order to read them in.
mod server;

mod listener;

mod accept;

pub mod admission;
mod rate;
pub mod rules;
mod source;

mod drive;

mod handshake;
pub mod proxy_protocol;
#[cfg(feature = "tls")]
pub mod tls;
pub mod tls_peek;

mod deadline;

mod service;
pub mod services;

mod conn;
mod lent;

pub mod hot_buffer;
mod stream;

mod account;
mod shared;

pub mod client;
pub mod hop;
pub mod starttls;

pub mod frame;

pub mod shutdown;
pub mod stats;
pub mod tcp_info;

mod addr;
mod close_reason;
pub mod error;
#[allow(unsafe_code, reason = "the one place for it")]
mod sys;

pub use addr::{Addr, BindAddr};
pub use admission::Limits;
pub use close_reason::CloseReason;
pub use conn::Conn;
pub use deadline::Timeouts;
pub use lent::Lent;
pub use listener::{Keepalive, SocketOptions};
pub use server::{Server, inherited_descriptor, raise_descriptor_limit};
pub use service::{Service, ServiceFn, service_fn};
pub use shutdown::Handle;
pub use stream::{DELIVERY, Stream};
