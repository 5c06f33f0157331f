//! What can go wrong when a server starts or runs. (What can go wrong with a connect is in
//! [`client`](crate::client), with a frame in [`frame`](crate::frame).)

use std::io;
use std::path::PathBuf;

use crate::addr::{Addr, BindAddr};

/// A server could not listen. Nothing is left half-started: the addresses that were bound before are free again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the address (`EADDRINUSE`).
    #[error("cannot listen on {address}: it is in use")]
    InUse {
        /// The address asked for.
        address: BindAddr,
    },
    /// The path of a Unix socket is taken by something that is not a socket. It was left alone.
    #[error("cannot listen on unix:{}: a file that is no socket is there", path.display())]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// The kernel refused: no permission, no such local address, no descriptors.
    #[error("cannot listen on {address}")]
    Io {
        /// The address asked for.
        address: BindAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No address was given.
    #[error("no address to listen on")]
    NoAddress,
}

/// A server had to stop. The connections that were open have been cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// `accept` failed in a way that trying again cannot cure.
    #[error("cannot accept on {address}")]
    Accept {
        /// The listener.
        address: Addr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A listener for one more worker could not be bound.
    #[error("cannot start a worker")]
    Bind(#[from] BindError),
    /// A worker's runtime or thread could not be started.
    #[error("cannot start a worker")]
    Start(#[source] io::Error),
}
