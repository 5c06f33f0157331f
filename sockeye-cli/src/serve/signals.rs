//! INT and TERM drain, then abort; USR1 tells the counters; HUP has rules and certificates read anew.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sockeye::Handle;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::serve::events::Event;
use crate::serve::reload::Ask;
use crate::serve::reporter::Reporter;

/// The thread that waits for signals.
pub(crate) struct Watch {
    end: oneshot::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watch {
    /// Ends the thread, and says whether a second signal cut the server short.
    pub(crate) fn end(self) -> bool {
        // It ends by itself, too, after a second signal.
        let _ = self.end.send(());
        self.thread.join().unwrap_or(false)
    }
}

/// Takes the signals from now on: when this returns, none of them kills the process any more.
pub(crate) fn listen(
    handle: Handle,
    drain: Duration,
    reporter: Arc<Reporter>,
    reload: Ask,
) -> io::Result<Watch> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let signals = {
        let _context = runtime.enter();
        Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            snapshot: signal(SignalKind::user_defined1())?,
        }
    };
    let (end, ended) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || wait(&runtime, signals, ended, &handle, drain, &reporter, &reload))?;
    Ok(Watch { end, thread })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    snapshot: Signal,
}

/// What a signal asks for.
enum Asked {
    End,
    Reload,
    Snapshot,
}

impl Signals {
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.snapshot.recv() => Asked::Snapshot,
        }
    }
}

fn wait(
    runtime: &Runtime,
    mut signals: Signals,
    mut ended: oneshot::Receiver<()>,
    handle: &Handle,
    drain: Duration,
    reporter: &Reporter,
    reload: &Ask,
) -> bool {
    runtime.block_on(async {
        let mut draining = false;
        loop {
            let asked = tokio::select! {
                asked = signals.next() => asked,
                _ = &mut ended => return false,
            };
            match asked {
                Asked::End if draining => {
                    handle.abort();
                    return true;
                }
                Asked::End => {
                    draining = true;
                    reporter.report(Event::drain(handle.snapshot(), drain));
                    handle.drain(drain);
                }
                Asked::Reload => reload.hup(),
                Asked::Snapshot => {
                    // First, so that of those it counts none is told after it.
                    let snapshot = handle.snapshot();
                    reporter.last_refused();
                    reporter.report(Event::snapshot(snapshot));
                }
            }
        }
    })
}
