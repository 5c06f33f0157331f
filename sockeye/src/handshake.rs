//! What comes before the service: the PROXY header, then the TLS handshake, in the connection's own task, each under
//! its deadline. A client that stalls here holds one place among the handshakes, and nobody else up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::addr::Addr;
use crate::admission::RefuseReason;
use crate::close_reason::CloseReason;
use crate::listener::Acceptor;
use crate::proxy_protocol::{self, Header, ReadError};
use crate::shared::{Core, HandshakePlace};
use crate::stream::Stream;
#[cfg(feature = "tls")]
use crate::tls::{self, HandshakeError};

/// What one connection has to go through before it is served.
pub(crate) struct Handshake {
    listener: Addr,
    /// `None` until it is let in.
    place: Option<HandshakePlace>,
    proxy_header: bool,
    #[cfg(feature = "tls")]
    tls: Option<tls::Acceptor>,
}

/// Why a connection does not come to its service.
pub(crate) enum Unserved {
    /// The client that the header declares is not let in.
    Refused {
        listener: Addr,
        reason: RefuseReason,
    },
    Closed(CloseReason, Option<io::Error>),
}

impl Handshake {
    /// The handshake of a client that came to this listener; `None` for most, who begin at once.
    pub(crate) fn with(core: &Core, acceptor: &Acceptor, peer: &Addr) -> Option<Box<Self>> {
        let trusted = core.trusted.as_ref();
        let proxy_header = trusted.is_some_and(|trusted| trusted.trust(peer.ip()));
        #[cfg(feature = "tls")]
        let (tls, by_tls) = (acceptor.tls(), acceptor.tls().is_some());
        #[cfg(not(feature = "tls"))]
        let by_tls = false;
        (proxy_header || by_tls).then(|| {
            Box::new(Self {
                listener: acceptor.address().clone(),
                place: None,
                proxy_header,
                #[cfg(feature = "tls")]
                tls: tls.cloned(),
            })
        })
    }

    /// Whether who the client is will only be known by the PROXY header.
    pub(crate) fn names_the_client(&self) -> bool {
        self.proxy_header
    }

    /// Takes a place among the handshakes in progress, or says that the connection is to be refused.
    pub(crate) fn begin(&mut self, core: &Arc<Core>) -> Result<(), RefuseReason> {
        self.place = Some(HandshakePlace::take(core)?);
        Ok(())
    }

    /// Goes through it, and gives its place among the handshakes back. Cancelled, it closes the connection.
    pub(crate) async fn perform(
        mut self: Box<Self>,
        account: &mut Account,
    ) -> Result<(), Unserved> {
        let place = self.place.take();
        let performed = self.steps(account).await;
        // Also if it failed: the close may linger, and needs no place here.
        drop(place);
        performed
    }

    async fn steps(self: Box<Self>, account: &mut Account) -> Result<(), Unserved> {
        if self.proxy_header {
            let header = read_proxy_header(account).await?;
            let declared = header.client();
            account.declare(header);
            if let (Some(client), Some(permit)) = (declared, account.permit()) {
                let admitted = permit.admit(Some(client.ip()));
                admitted.map_err(|reason| Unserved::Refused {
                    listener: self.listener.clone(),
                    reason,
                })?;
            }
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls {
            accept_tls(account, &tls).await?;
        }
        Ok(())
    }
}

async fn read_proxy_header(account: &Account) -> Result<Header, Unserved> {
    let record = &account.record;
    let mut stream = take(account)?;
    let limit = record.core.timeouts.proxy_header;
    let (limit, reason) = until(account, limit, CloseReason::ProxyHeaderTimeout);
    let read = tokio::time::timeout(limit, proxy_protocol::read(&mut stream)).await;
    record.hand_back(stream);
    match read {
        Ok(Ok(header)) => Ok(header),
        Ok(Err(error)) => {
            let (reason, error) = match error {
                // Whoever looks whether the port is open does so.
                ReadError::EndOfStream { after: 0 } => (CloseReason::PeerClosed, None),
                ReadError::Io(error) => record.reason_of_socket(error),
                error => (CloseReason::ProxyHeader, Some(io::Error::other(error))),
            };
            Err(Unserved::Closed(reason, error))
        }
        Err(_) => Err(Unserved::Closed(reason, None)),
    }
}

#[cfg(feature = "tls")]
async fn accept_tls(account: &Account, acceptor: &tls::Acceptor) -> Result<(), Unserved> {
    let record = &account.record;
    let stream = take(account)?;
    let limit = record.core.timeouts.handshake;
    let (limit, reason) = until(account, limit, CloseReason::TlsHandshakeTimeout);
    let accepted = tokio::time::timeout(limit, acceptor.accept(stream)).await;
    let (error, stream) = match accepted {
        Ok(Ok(stream)) => {
            record.hand_back(stream);
            return Ok(());
        }
        Ok(Err(failed)) => failed,
        Err(_) => return Err(Unserved::Closed(reason, None)),
    };
    record.hand_back(stream);
    let (reason, error) = match error {
        HandshakeError::EndOfStream { after: 0 } => (CloseReason::PeerClosed, None),
        HandshakeError::Io(error) => record.reason_of_socket(error),
        error => (CloseReason::TlsHandshake, Some(io::Error::other(error))),
    };
    Err(Unserved::Closed(reason, error))
}

fn take(account: &Account) -> Result<Stream, Unserved> {
    // It is there: nobody else has it before the service does.
    let gone = || Unserved::Closed(CloseReason::Aborted, None);
    account.record.take().ok_or_else(gone)
}

/// How long a step may take, and what its end is called: the lifetime of the connection counts from the accept.
fn until(account: &Account, limit: Duration, reason: CloseReason) -> (Duration, CloseReason) {
    let lifetime = account.record.core.timeouts.lifetime;
    match lifetime.map(|lifetime| lifetime.saturating_sub(account.opened.elapsed())) {
        Some(left) if left < limit => (left, CloseReason::Lifetime),
        _ => (limit, reason),
    }
}
