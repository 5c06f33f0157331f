//! stdin and stdout at pipe speed: a thread each, a few large buffers that go round.
//!
//! They are never made non-blocking: that would hold for every process that shares them, the shell included.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::thread;

use tokio::sync::{mpsc, oneshot};

/// Bytes per buffer: twice what a pipe holds by default.
pub(crate) const BUFFER_BYTES: usize = 128 * 1024;

/// Buffers on the way. Two would let both sides work at once; four even out their rhythm.
const BUFFERS: usize = 4;

/// The end that is read from.
pub(crate) struct Input {
    filled: mpsc::Receiver<io::Result<Vec<u8>>>,
    empty: mpsc::Sender<Vec<u8>>,
}

impl Input {
    /// Starts to read.
    pub(crate) fn start(mut from: impl Read + Send + 'static) -> io::Result<Self> {
        let (fill, filled) = mpsc::channel(BUFFERS);
        let (empty, mut emptied) = mpsc::channel::<Vec<u8>>(BUFFERS);
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || {
                loop {
                    let mut buffer = emptied.try_recv().unwrap_or_default();
                    buffer.resize(BUFFER_BYTES, 0);
                    let read = match from.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(bytes) => {
                            buffer.truncate(bytes);
                            Ok(buffer)
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => Err(error),
                    };
                    let failed = read.is_err();
                    if fill.blocking_send(read).is_err() || failed {
                        return;
                    }
                }
            })?;
        Ok(Self { filled, empty })
    }

    /// The next piece; `None` at the end. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        self.filled.recv().await
    }

    /// Gives a buffer back.
    pub(crate) fn recycle(&self, buffer: Vec<u8>) {
        // No room means that there are buffers enough.
        let _ = self.empty.try_send(buffer);
    }
}

/// The end that is written to.
pub(crate) struct Output {
    /// `None` when nothing more is to be written.
    fill: Option<mpsc::Sender<Vec<u8>>>,
    emptied: mpsc::Receiver<Vec<u8>>,
    written: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Starts to write what is sent.
    pub(crate) fn start(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let (fill, mut filled) = mpsc::channel::<Vec<u8>>(BUFFERS);
        let (empty, emptied) = mpsc::channel(BUFFERS);
        for _ in 0..BUFFERS {
            // There is room for exactly these.
            let _ = empty.try_send(Vec::new());
        }
        let (end, written) = oneshot::channel();
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let mut write = || {
                    while let Some(mut buffer) = filled.blocking_recv() {
                        to.write_all(&buffer)?;
                        buffer.clear();
                        // At the end nobody wants it any more.
                        let _ = empty.blocking_send(buffer);
                    }
                    to.flush()
                };
                let result = write();
                // A pipe ends for its reader before anybody is told.
                drop(to);
                // The other end sees `emptied` closed and asks.
                drop(empty);
                let _ = end.send(result);
            })?;
        Ok(Self {
            fill: Some(fill),
            emptied,
            written,
        })
    }

    /// Waits for an empty buffer; `None` if writing has failed: [`Output::finish`] says why. Cancel safe.
    pub(crate) async fn buffer(&mut self) -> Option<Vec<u8>> {
        let mut buffer = self.emptied.recv().await?;
        buffer.reserve(BUFFER_BYTES);
        Some(buffer)
    }

    /// Has a buffer of [`Output::buffer`] written.
    pub(crate) fn write(&self, buffer: Vec<u8>) {
        // There is room for every buffer there is; a failure is told by `finish`.
        if let Some(fill) = &self.fill {
            let _ = fill.try_send(buffer);
        }
    }

    /// Nothing more comes: what is written to ends when all is written.
    pub(crate) fn close(&mut self) {
        self.fill = None;
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.fill);
        drop(self.emptied);
        self.written
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the writing thread has ended")))
    }
}

/// Standard output without the line buffer of the standard library.
pub(crate) fn unbuffered_stdout() -> io::Result<Box<dyn Write + Send>> {
    let descriptor = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(Box::new(File::from(descriptor)))
}
