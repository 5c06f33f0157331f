//! Ctrl-C, heard from the beginning to the end: one that comes between two waits must not be lost.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Interrupts. A clone hears of those too that its original has not heard of yet.
#[derive(Clone, Debug)]
pub(crate) struct Interrupts(watch::Receiver<()>);

impl Interrupts {
    /// Within a runtime, of which it is a task. From then on an interrupt does not end the process.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(());
        tokio::spawn(async move {
            while interrupts.recv().await.is_some() {
                sender.send_replace(());
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The runtime ends, and this with it.
            std::future::pending().await
        }
    }
}
