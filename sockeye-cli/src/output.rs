//! Where words go: stdout is data, stderr is talk. What happens while a server serves is written by a thread behind a
//! bounded queue, so that a reader that stalls never stalls traffic.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Says something on stderr.
pub(crate) fn talk(message: &(impl Display + ?Sized)) {
    // If nobody listens there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{message}");
}

/// Asks something on stderr: the answer is typed on the same line.
pub(crate) fn ask(question: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

/// Prints a line of data on stdout.
pub(crate) fn data(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Prints a result for people on stdout, in colours if it is a terminal.
pub(crate) fn result(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Waits until nobody reads stdout any more: the other end of the pipe is closed. For ever if it is no pipe.
pub(crate) fn until_unread() -> io::Result<()> {
    let stdout = io::stdout();
    // An error is told whatever is asked for (poll(2)).
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    loop {
        match poll(&mut watched, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lines that wait to be written; one that finds no room is dropped and counted.
const QUEUE_LINES: usize = 8192;

/// How long the end of the program waits for a reader of the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A queue of lines with a thread that writes them.
pub(crate) struct Lines<T> {
    queue: SyncSender<T>,
    dropped: Arc<AtomicU64>,
}

/// The thread behind [`Lines`].
pub(crate) struct Writer {
    ended: Receiver<()>,
}

impl<T: Send + 'static> Lines<T> {
    /// Starts the thread. `render` makes the text of a line, on the thread; `report` that of the lines dropped since the
    /// last report; `broken` is called once if there is no reader any more.
    pub(crate) fn start(
        mut to: impl Write + Send + 'static,
        render: impl Fn(&T) -> String + Send + 'static,
        report: impl Fn(u64) -> String + Send + 'static,
        broken: impl FnOnce() + Send + 'static,
    ) -> io::Result<(Self, Writer)> {
        let (queue, lines) = mpsc::sync_channel(QUEUE_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let (end, ended) = mpsc::channel();
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let written = write_lines(&lines, &mut to, &render, || {
                    match lost.swap(0, Ordering::Relaxed) {
                        0 => None,
                        lines => Some(report(lines)),
                    }
                });
                if written.is_err() {
                    broken();
                }
                // Whoever waits for the end may have stopped waiting.
                let _ = end.send(());
            })?;
        Ok((Self { queue, dropped }, Writer { ended }))
    }

    /// Puts a line in the queue, or counts it as dropped. Never waits.
    pub(crate) fn send(&self, line: T) {
        if self.queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Writer {
    /// Waits until all lines are written, but not for ever, and says whether they are. The [`Lines`] must have been
    /// dropped. If they are not, the thread holds the stream: who writes to it now waits as long.
    #[must_use]
    pub(crate) fn finish(self) -> bool {
        let ended = self.ended.recv_timeout(LAST_LINES);
        !matches!(ended, Err(RecvTimeoutError::Timeout))
    }
}

fn write_lines<T>(
    lines: &Receiver<T>,
    to: &mut impl Write,
    render: &impl Fn(&T) -> String,
    dropped: impl Fn() -> Option<String>,
) -> io::Result<()> {
    let mut text = String::new();
    while let Ok(first) = lines.recv() {
        // As many as wait, in one write.
        let mut next = Ok(first);
        while let Ok(line) = next {
            text.push_str(&render(&line));
            text.push('\n');
            if text.len() >= 64 * 1024 {
                break;
            }
            next = lines.try_recv();
            if let Err(TryRecvError::Disconnected) = next {
                break;
            }
        }
        if let Some(report) = dropped() {
            text.push_str(&report);
            text.push('\n');
        }
        to.write_all(text.as_bytes())?;
        to.flush()?;
        text.clear();
    }
    Ok(())
}
