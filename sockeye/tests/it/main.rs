//! The library's behaviour, through its public surface, over real sockets on loopback.

mod admission;
mod client;
mod closing;
mod corpora;
mod deadlines;
mod frame;
mod limits;
mod proxy_protocol;
mod rules;
mod server;
mod services;
mod shutdown;
mod starttls;
mod support;
mod tcp_info;
mod tls_peek;
