//! The accept loop: takes a client, asks admission, spawns its task, and takes the next.
//!
//! It waits for the next client, for room, or for the end, and for nothing else: never for a peer, a service, or a lock
//! that is held across an await. No error of `accept` but a mistake of our own ends it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::addr::Addr;
use crate::admission::RefuseReason;
use crate::drive::{drive, introduce_and_drive};
use crate::error::ServeError;
use crate::handshake::Handshake;
use crate::listener::{AcceptFailure, Acceptor, Backoff};
use crate::service::Service;
use crate::shared::{Core, Permit};
use crate::shutdown::Phase;
use crate::stats::{AcceptFailed, Accepted};
use crate::stream::Stream;

/// Takes clients from one listening socket and gives each a task, until the server is stopped.
pub(crate) async fn accept_loop<S: Service>(
    core: &Arc<Core>,
    service: &Arc<S>,
    acceptor: Acceptor,
) -> Result<(), ServeError> {
    let failed = |source| ServeError::Accept {
        address: acceptor.address().clone(),
        source,
    };
    let mut phase = core.phase();
    let mut backoff = Backoff::new();
    let mut next = Next::Client;
    loop {
        let accept = async {
            match next {
                Next::Client => {}
                Next::Room => core.room().await,
                Next::Pause(pause) => tokio::time::sleep(pause).await,
            }
            let accept = poll_fn(|cx| poll_accept(cx, core, service, &acceptor, &mut backoff));
            tokio::task::unconstrained(accept).await
        };
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| !phase.is_running()) => break,
            accepted = accept => next = accepted.map_err(failed)?,
        }
    }
    if *phase.borrow() == Phase::Aborting {
        return Ok(());
    }
    // Those in the queue have connected, as far as they can tell; to close the listener on them is to reset them.
    for _ in 0..LAST_ACCEPTS {
        let Some(permit) = core.reserve() else { break };
        let accepted = acceptor.accept_waiting();
        if matches!(&accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            break;
        }
        let next = take(core, service, &acceptor, &mut backoff, permit, accepted);
        let Next::Client = next.map_err(failed)? else {
            break;
        };
    }
    Ok(())
}

/// What the accept loop waits for next.
#[derive(Clone, Copy)]
enum Next {
    /// The next client.
    Client,
    /// The server is full: a place for it.
    Room,
    /// The kernel has no descriptors or no memory for more: time.
    Pause(Duration),
}

/// How many clients are taken from a listen queue when the server stops: a full queue by default.
const LAST_ACCEPTS: u32 = 4096;

/// How many clients are taken before the open connections have their turn.
///
/// Large, for a burst is a race against the listen queue: with 128 at a time, which is tokio's own budget for a turn, a
/// burst of 9,000 overflows a queue of 4,096, and who is dropped there waits a second for the next SYN. 512 take
/// two or three milliseconds.
const BATCH: usize = 512;

/// Takes clients as they come; ready when something else is to be waited for.
fn poll_accept<S: Service>(
    cx: &mut Context<'_>,
    core: &Arc<Core>,
    service: &Arc<S>,
    acceptor: &Acceptor,
    backoff: &mut Backoff,
) -> Poll<io::Result<Next>> {
    for _ in 0..BATCH {
        // A place is held only while it is tried: one worker that waits for a client must not keep it from another.
        let Some(permit) = core.reserve() else {
            return Poll::Ready(Ok(Next::Room));
        };
        let accepted = ready!(acceptor.poll_accept(cx));
        match take(core, service, acceptor, backoff, permit, accepted) {
            Ok(Next::Client) => {}
            other => return Poll::Ready(other),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Lets a client in, or decides what a failed accept asks for.
fn take<S: Service>(
    core: &Arc<Core>,
    service: &Arc<S>,
    acceptor: &Acceptor,
    backoff: &mut Backoff,
    permit: Permit,
    accepted: io::Result<(Stream, Addr)>,
) -> io::Result<Next> {
    match accepted {
        Ok((stream, peer)) => {
            backoff.succeeded();
            admit(core, service, permit, stream, peer, acceptor);
        }
        Err(error) => match AcceptFailure::of(&error) {
            AcceptFailure::Peer => core.ledger.accept_failed(None),
            AcceptFailure::Exhausted => {
                return Ok(Next::Pause(exhausted(core, acceptor, backoff, &error)));
            }
            AcceptFailure::Ours => return Err(error),
        },
    }
    Ok(Next::Client)
}

/// Lets an accepted client in, or refuses it.
fn admit<S: Service>(
    core: &Arc<Core>,
    service: &Arc<S>,
    mut permit: Permit,
    stream: Stream,
    peer: Addr,
    acceptor: &Acceptor,
) {
    let id = core.next_id();
    let mut handshake = Handshake::with(core, acceptor, &peer);
    let refused = decide(core, &mut permit, &peer, handshake.as_deref_mut()).err();
    core.ledger.accept(&Accepted {
        id,
        peer: &peer,
        listener: acceptor.address(),
        refused,
    });
    if refused.is_none() {
        let service = Arc::clone(service);
        let account = Account::open(Arc::clone(core), id, stream, peer, permit);
        match handshake {
            None => core.tasks.spawn(id, drive(service, account)),
            Some(handshake) => {
                let introduced = introduce_and_drive(handshake, service, account);
                core.tasks.spawn(id, introduced);
            }
        }
    }
}

/// The first look at a client. Of one behind a trusted proxy nothing is known yet: the second look is in `handshake.rs`.
fn decide(
    core: &Arc<Core>,
    permit: &mut Permit,
    peer: &Addr,
    handshake: Option<&mut Handshake>,
) -> Result<(), RefuseReason> {
    if !handshake
        .as_ref()
        .is_some_and(|handshake| handshake.names_the_client())
    {
        if core.trusted.as_ref().is_some_and(|trusted| trusted.only) {
            return Err(RefuseReason::NoProxy);
        }
        permit.admit(peer.ip())?;
    }
    match handshake {
        Some(handshake) => handshake.begin(core),
        None => Ok(()),
    }
}

/// Counts an accept that failed for want of something, and says how long to pause.
fn exhausted(
    core: &Core,
    acceptor: &Acceptor,
    backoff: &mut Backoff,
    error: &io::Error,
) -> Duration {
    let (pause, report) = backoff.failed(Instant::now());
    let event = report.map(|failures| AcceptFailed {
        listener: acceptor.address(),
        error,
        failures,
        pause,
    });
    core.ledger.accept_failed(event.as_ref());
    pause
}
