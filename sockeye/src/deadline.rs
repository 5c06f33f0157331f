//! How long a client is waited for, and the one timer that watches over it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::close_reason::CloseReason;
use crate::stream::DELIVERY;

/// How long a server waits for a client. Every wait ends in a closed connection, with the reason of its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the accept to the end of the PROXY header, where one is required. Default 10 s; a trusted proxy sends it at
    /// once, and a lost segment costs it a second or three.
    pub proxy_header: Duration,
    /// From then to the end of the TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From the accept, or the end of the handshake, to the client's first byte. Default `None`.
    pub first_byte: Option<Duration>,
    /// Nothing read and nothing written. Default `None`: an echo-like service cannot know how long its clients
    /// think. It bounds the peer that never reads, too.
    pub idle: Option<Duration>,
    /// The whole connection, however busy. Default `None`.
    pub lifetime: Option<Duration>,
    /// Over TLS, when the service has ended: how long the client may take nothing of what is still to be sent to it
    /// ([`Stream::deliver`](crate::Stream::deliver)). Default [`DELIVERY`], 60 s.
    pub delivery: Duration,
    /// When we close first: how long to read and drop what the client still sends, waiting for its FIN
    /// ([`Stream::close`](crate::Stream::close)). Default 2 s.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy_header: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            first_byte: None,
            idle: None,
            lifetime: None,
            delivery: DELIVERY,
            linger: Duration::from_secs(2),
        }
    }
}

impl Timeouts {
    /// Whether it matters when bytes move.
    pub(crate) fn watch_bytes(&self) -> bool {
        self.idle.is_some() || self.first_byte.is_some()
    }

    /// When the next deadline of a connection is that was handed to its service at `served`, and which. Pure.
    pub(crate) fn next(
        &self,
        opened: Instant,
        served: Instant,
        heard: bool,
        moved: Instant,
    ) -> Option<(Instant, CloseReason)> {
        let first_byte = self.first_byte.filter(|_| !heard);
        [
            (self.lifetime, opened, CloseReason::Lifetime),
            (first_byte, served, CloseReason::FirstByteTimeout),
            (self.idle, moved, CloseReason::Idle),
        ]
        .into_iter()
        // A deadline past the end of time is none.
        .filter_map(|(limit, since, reason)| Some((since.checked_add(limit?)?, reason)))
        .min_by_key(|(deadline, _)| *deadline)
    }
}

/// Waits for whichever deadline is next. Costs a pointer where there are no timeouts.
#[derive(Default)]
pub(crate) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ready with the reason once a deadline has passed.
    ///
    /// The timer is not set anew for each byte: it fires at a moment that was right once, looks at the record, and is
    /// set to what is right now.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        next: impl Fn() -> Option<(Instant, CloseReason)>,
    ) -> Poll<CloseReason> {
        loop {
            let Some((deadline, reason)) = next() else {
                return Poll::Pending;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(reason);
            }
            timer.as_mut().reset(deadline);
        }
    }
}
