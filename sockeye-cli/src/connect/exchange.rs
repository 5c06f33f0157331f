//! A connected stream between an input and an output, and the end of it: the column `connect` of the contract's table.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::Duration;

use sockeye::tcp_info::TcpInfo;
use sockeye::tls::Session;
use sockeye::tls_peek::Guess;
use sockeye::{DELIVERY, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::cli::connect::OnEof;
use crate::connect::crlf::Crlf;
use crate::connect::pipe::{Input, Output};
use crate::exit::Warning;
use crate::output::talk;

/// When to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) on_eof: OnEof,
    /// Say that the end of our input keeps the connection open, for nobody asked for that.
    pub(crate) tell_kept: bool,
    /// Take an end of TLS without close_notify for the end.
    pub(crate) tls_eof_lax: bool,
    pub(crate) keep_open: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) receive_at_most: Option<u64>,
    pub(crate) crlf: bool,
}

const KEPT: &str = "our input has ended; over TLS the connection stays open until the server ends it, or Ctrl-C does \
    (--on-eof fin passes the end on, --on-eof exit ends it)";

/// Why it ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The peer sent FIN, and all that came before it is delivered.
    PeerClosed,
    /// Our input ended, and that was to be the end.
    InputEnded,
    /// As many bytes came as were asked for.
    Received,
    /// Nobody reads our output any more.
    OutputClosed,
    Interrupted,
    Idle(Duration),
    /// TLS ended without close_notify: somebody on the way may have cut it.
    Truncated,
    ReceiveFailed(io::Error),
    /// The peer does not take what we still have to send.
    SendFailed(io::Error),
    OutputFailed(io::Error),
    InputFailed(io::Error),
}

impl Ending {
    /// Whether the peer may still be talking: then it is we who close first.
    fn is_ours(&self) -> bool {
        !matches!(
            self,
            Self::PeerClosed
                | Self::Truncated
                | Self::ReceiveFailed(_)
                | Self::SendFailed(_)
                | Self::Interrupted
        )
    }
}

/// What came of it.
pub(crate) struct Exchanged {
    pub(crate) ending: Ending,
    pub(crate) progress: Progress,
    /// What the kernel knew before the close.
    pub(crate) tcp_info: Option<TcpInfo>,
    /// What TLS knew: by then a server has sent its tickets.
    pub(crate) session: Option<Session>,
}

/// How long we read and drop what still comes after we have closed first.
const LINGER: Duration = Duration::from_secs(2);

/// How long the last word, close_notify, may take to a peer that has closed or is to be left at once.
const LAST_WORD: Duration = Duration::from_millis(200);

/// Moves bytes both ways until it ends, delivers what came, and closes.
pub(crate) async fn exchange(
    mut stream: Stream,
    rules: Exchange,
    mut input: Input,
    mut output: Output,
) -> Exchanged {
    let progress = Progress::new(Instant::now());
    let mut ending = {
        let (reader, writer) = tokio::io::split(&mut stream);
        let sending = send(writer, &mut input, rules, &progress);
        let receiving = receive(reader, &mut output, rules.receive_at_most, &progress);
        until_end(sending, receiving, rules, &progress).await
    };
    if !matches!(ending, Ending::Interrupted) {
        let finished = output.finish();
        let finished = match ending {
            // Nothing moves, and that may be so because nobody reads our output.
            Ending::Idle(_) => timeout(LINGER, finished).await.unwrap_or(Ok(())),
            _ => finished.await,
        };
        match finished {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                ending = Ending::OutputClosed
            }
            Err(error) => ending = Ending::OutputFailed(error),
        }
    }
    // All that is sent is sent, before the end is said: the kernel does so by itself, and TLS does not.
    let all_sent = match ending {
        Ending::InputEnded => true,
        Ending::PeerClosed => rules.keep_open,
        _ => false,
    };
    if all_sent && let Err(error) = stream.deliver(rules.idle.unwrap_or(DELIVERY)).await {
        ending = Ending::SendFailed(error);
    }
    progress.ended.set(Instant::now());
    let (tcp_info, session) = (stream.tcp_info(), stream.tls());
    if ending.is_ours() {
        stream.close(LINGER).await;
    } else {
        say_the_end(&mut stream).await;
    }
    Exchanged {
        ending,
        progress,
        tcp_info,
        session,
    }
}

/// To TLS the end is a message of its own, and it is always sent. Whoever is gone is not waited for.
pub(crate) async fn say_the_end(stream: &mut Stream) {
    let _ = timeout(LAST_WORD, stream.shutdown()).await;
}

/// What has happened so far; written by both directions, which are one task.
pub(crate) struct Progress {
    pub(crate) started: Instant,
    /// Before the close, which may linger.
    pub(crate) ended: Cell<Instant>,
    moved: Cell<Instant>,
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
    pub(crate) first_byte: Cell<Option<Instant>>,
    pub(crate) our_fin: Cell<Option<Instant>>,
    pub(crate) peer_fin: Cell<Option<Instant>>,
    pub(crate) ends_a_line: Cell<bool>,
    /// What came first is a TLS alert: the server was told something that is no TLS.
    pub(crate) is_alert: Cell<bool>,
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            ended: Cell::new(now),
            moved: Cell::new(now),
            sent: Cell::new(0),
            received: Cell::new(0),
            first_byte: Cell::new(None),
            our_fin: Cell::new(None),
            peer_fin: Cell::new(None),
            ends_a_line: Cell::new(true),
            is_alert: Cell::new(false),
        }
    }

    fn add(&self, counter: &Cell<u64>, bytes: usize) {
        counter.set(counter.get() + bytes as u64);
        self.moved.set(Instant::now());
    }

    /// Waits until nothing has moved for `limit`.
    async fn idle(&self, limit: Option<Duration>) -> Duration {
        let Some(limit) = limit else {
            return pending().await;
        };
        loop {
            let Some(deadline) = self.moved.get().checked_add(limit) else {
                return pending().await;
            };
            if deadline <= Instant::now() {
                return limit;
            }
            sleep_until(deadline).await;
        }
    }
}

/// How sending ended.
enum Sent {
    All,
    /// The peer takes no more. That alone is no failure of ours: it may have all that it wants, and answer.
    PeerGone(io::Error),
    InputFailed(io::Error),
}

/// How receiving ended.
enum Received {
    Fin,
    /// TLS ended without close_notify.
    Cut,
    Enough,
    Failed(io::Error),
    /// The output has failed.
    NoOutput,
}

async fn until_end(
    sending: impl Future<Output = Sent>,
    receiving: impl Future<Output = Received>,
    rules: Exchange,
    progress: &Progress,
) -> Ending {
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let (mut sends, mut receives) = (true, true);
    let mut last_moment = None;
    let mut gone = None;
    loop {
        let wait_over = async {
            match last_moment {
                Some(moment) => sleep_until(moment).await,
                None => pending().await,
            }
        };
        tokio::select! {
            received = &mut receiving, if receives => match received {
                Received::Fin if rules.keep_open && sends => receives = false,
                Received::Fin => return match gone {
                    // The kernel tells of a reset once, and it told the write: this is no clean end.
                    Some(error) if is_reset(&error) => Ending::ReceiveFailed(error),
                    _ => Ending::PeerClosed,
                },
                Received::Cut if rules.tls_eof_lax && gone.is_none() => return Ending::PeerClosed,
                Received::Cut => return Ending::Truncated,
                Received::Enough => return Ending::Received,
                Received::Failed(error) => return Ending::ReceiveFailed(error),
                Received::NoOutput => return Ending::OutputClosed,
            },
            sent = &mut sending, if sends => {
                sends = false;
                match (sent, rules.on_eof) {
                    (Sent::InputFailed(error), _) => return Ending::InputFailed(error),
                    (Sent::PeerGone(error), _) if !receives => return Ending::SendFailed(error),
                    (Sent::PeerGone(error), _) => gone = Some(error),
                    _ if !receives => return Ending::PeerClosed,
                    (Sent::All, OnEof::Exit) => return Ending::InputEnded,
                    (Sent::All, OnEof::Wait(time)) => last_moment = Instant::now().checked_add(time),
                    (Sent::All, OnEof::Keep) if rules.tell_kept => talk(&Warning(KEPT)),
                    (Sent::All, OnEof::Fin | OnEof::Keep) => {}
                }
            },
            () = wait_over => return Ending::InputEnded,
            limit = progress.idle(rules.idle) => return Ending::Idle(limit),
            _ = tokio::signal::ctrl_c() => return Ending::Interrupted,
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut
    )
}

async fn send(
    mut writer: impl AsyncWrite + Unpin,
    input: &mut Input,
    rules: Exchange,
    progress: &Progress,
) -> Sent {
    let mut crlf = rules.crlf.then(Crlf::default);
    while let Some(piece) = input.next().await {
        let piece = match (piece, &mut crlf) {
            (Ok(piece), None) => piece,
            (Ok(piece), Some(crlf)) => crlf.convert(&piece),
            (Err(error), _) => return Sent::InputFailed(error),
        };
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            match writer.write(rest).await {
                Ok(0) => return Sent::PeerGone(io::ErrorKind::WriteZero.into()),
                Err(error) => return Sent::PeerGone(error),
                Ok(bytes) => {
                    progress.add(&progress.sent, bytes);
                    rest = &rest[bytes..];
                }
            }
        }
        input.recycle(piece);
    }
    if matches!(rules.on_eof, OnEof::Fin | OnEof::Wait(_)) {
        if let Err(error) = writer.shutdown().await {
            return Sent::PeerGone(error);
        }
        progress.our_fin.set(Some(Instant::now()));
    }
    Sent::All
}

async fn receive(
    mut reader: impl AsyncRead + Unpin,
    output: &mut Output,
    at_most: Option<u64>,
    progress: &Progress,
) -> Received {
    let mut wanted = at_most.unwrap_or(u64::MAX);
    while wanted > 0 {
        let Some(mut buffer) = output.buffer().await else {
            return Received::NoOutput;
        };
        match (&mut reader).take(wanted).read_buf(&mut buffer).await {
            Ok(0) => {
                progress.peer_fin.set(Some(Instant::now()));
                return Received::Fin;
            }
            Ok(bytes) => {
                wanted -= bytes as u64;
                progress.add(&progress.received, bytes);
                if progress.first_byte.get().is_none() {
                    progress.first_byte.set(Some(Instant::now()));
                    progress.is_alert.set(Guess::of(&buffer) == Guess::TlsAlert);
                }
                progress.ends_a_line.set(buffer.ends_with(b"\n"));
                output.write(buffer);
            }
            // A socket itself ends without an error; only TLS can tell an end from a cut.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                progress.peer_fin.set(Some(Instant::now()));
                return Received::Cut;
            }
            Err(error) => return Received::Failed(error),
        }
    }
    Received::Enough
}
