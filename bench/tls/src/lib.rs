//! What the bare TLS echo and the TLS loads share. Each program is one file in `src/bin`; read `tls_echo.rs` first, it
//! is the limit the project is measured against.
//!
//! Sockets, epoll, accounts and reports are those of `sockeye-limits`. The loads use rustls without a runtime.

pub mod config;
pub mod newcomer;
pub mod session;
pub mod stalled;
pub mod visit;
