//! The library's behaviour, through its public surface, over real sockets on loopback.

mod admission;
#[cfg(feature = "tls")]
mod authority;
mod client;
mod closing;
mod corpora;
mod deadlines;
mod frame;
mod handshake;
mod hop;
mod lent;
mod limits;
mod proxy_protocol;
mod rules;
mod server;
mod services;
mod shutdown;
mod starttls;
mod support;
mod tcp_info;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_closing;
#[cfg(feature = "tls")]
mod tls_handshake;
mod tls_peek;
#[cfg(feature = "tls")]
mod tls_reload;
#[cfg(feature = "tls")]
mod tls_trust;
