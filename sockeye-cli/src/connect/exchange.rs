//! A connected stream between an input and an output, and the end of it: the column `connect` of the contract's table.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use sockeye::tcp_info::TcpInfo;
use sockeye::tls::Session;
use sockeye::{DELIVERY, Stream};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cli::connect::OnEof;
use crate::connect::copies::{Copies, Incomplete};
use crate::connect::http::Answer;
use crate::connect::interrupt::Interrupt;
use crate::connect::pipe::Output;
use crate::connect::program::{self, Program};
use crate::connect::progress::Progress;
use crate::connect::receiving::{Received, receive};
use crate::connect::replay::{Difference, Expected};
use crate::connect::sending::{Sent, Source, send};
use crate::connect::upload::Upload;
use crate::exit::Warning;
use crate::http::{BadResponse, Response};
use crate::output::talk;
use crate::script::{Failed, Kind};

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
    /// For each direction.
    pub(crate) throttle: Option<NonZeroU64>,
    /// A program is on our side. When the peer has closed, that is told to it, and it may answer; when it has ended, that
    /// is the end.
    pub(crate) program: bool,
    /// What our side says was recorded: the end is when all of it is said, and all that was recorded has come.
    pub(crate) replay: bool,
    /// When the peer has closed after so many bytes, there is still something to be said that was recorded.
    pub(crate) talks_on_after: Option<u64>,
}

impl Exchange {
    /// Whether the end of the peer's side, after so many bytes, is not yet that of ours.
    fn goes_on_after(&self, received: u64) -> bool {
        let talks_on = self.talks_on_after.is_some_and(|bytes| received >= bytes);
        self.keep_open || self.program || talks_on
    }
}

/// What takes part on our side.
pub(crate) struct Ends {
    pub(crate) source: Source,
    pub(crate) output: Output,
    pub(crate) copies: Copies,
    pub(crate) upload: Upload,
    pub(crate) expected: Option<Expected>,
    pub(crate) answer: Option<Answer>,
    pub(crate) program: Option<Program>,
}

/// What both directions share.
pub(crate) struct Talk<'a> {
    pub(crate) stream: &'a RefCell<Stream>,
    pub(crate) rules: Exchange,
    pub(crate) progress: &'a Progress,
    pub(crate) copies: &'a Copies,
    pub(crate) upload: &'a Upload,
}

const KEPT: &str = "our input has ended; over TLS and through a proxy the connection stays open until the server ends it, or Ctrl-C does \
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
    /// The answer to `--http` is complete.
    Answered(Response),
    /// What came is no answer to `--http`, or not all of it.
    BadAnswer(BadResponse),
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
    /// A file that gets a copy cannot be written.
    CopyFailed(PathBuf, io::Error),
    /// What came is not what was recorded.
    Differs(Difference),
    /// All was as the script says.
    ScriptEnded,
    ScriptFailed(Failed),
}

impl Ending {
    /// Whether we close first, and the peer is to get all of it though it may still be talking. Who has answered has no need of
    /// more, and who has been silent for too long is not waited for any longer.
    fn is_ours(&self) -> bool {
        !matches!(
            self,
            Self::PeerClosed
                | Self::Answered(_)
                | Self::Idle(_)
                | Self::Truncated
                | Self::ReceiveFailed(_)
                | Self::SendFailed(_)
                | Self::Interrupted
        )
    }

    /// Whether it is one that was to come.
    fn is_well(&self) -> bool {
        matches!(
            self,
            Self::PeerClosed
                | Self::InputEnded
                | Self::Received
                | Self::Answered(_)
                | Self::OutputClosed
        )
    }

    /// Whether the connection itself came to its end.
    pub(super) fn is_failure_of_the_connection(&self) -> bool {
        match self {
            Self::ReceiveFailed(_) | Self::Truncated => true,
            Self::ScriptFailed(failed) => failed.cause.kind() == Kind::Network,
            _ => false,
        }
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
    /// What `--http` was answered.
    pub(crate) answer: Option<Answer>,
    /// How the program on our side ended.
    pub(crate) program: Option<io::Result<program::Ended>>,
}

/// How long we read and drop what still comes after we have closed first.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long the last word, close_notify, may take to a peer that has closed or is to be left at once.
const LAST_WORD: Duration = Duration::from_millis(200);

/// Moves bytes both ways until it ends, delivers what came, and closes.
pub(crate) async fn exchange(
    stream: Stream,
    rules: Exchange,
    mut ends: Ends,
    interrupt: &Interrupt,
) -> Exchanged {
    let progress = Progress::new(Instant::now());
    let stream = RefCell::new(stream);
    let mut ending = {
        let talk = Talk {
            stream: &stream,
            rules,
            progress: &progress,
            copies: &ends.copies,
            upload: &ends.upload,
        };
        let sending = send(&talk, &mut ends.source);
        let receiving = receive(
            &talk,
            &mut ends.output,
            ends.expected.as_mut(),
            ends.answer.as_mut(),
        );
        interrupt.heard_within(true);
        until_end(sending, receiving, ends.program.as_mut(), &talk, interrupt).await
    };
    // One that was heard just now is not heard without, too.
    if !matches!(ending, Ending::Interrupted) {
        interrupt.heard_within(false);
    }
    drop(ends.upload);
    if let Some(expected) = &ends.expected
        && ending.is_well()
        && let Some(difference) = expected.missing(&progress)
    {
        ending = Ending::Differs(difference);
    }
    let mut stream = stream.into_inner();
    ending = delivered(ending, ends.output, rules).await;
    ending = copied(ending, ends.copies).await;
    // All that is sent is sent, before the end is said: the kernel does so by itself, and TLS does not.
    let all_sent = match ending {
        Ending::InputEnded => true,
        Ending::PeerClosed => rules.goes_on_after(progress.received.get()),
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
        drop(stream);
    }
    drop(ends.source);
    let program = match ends.program {
        Some(program) => Some(last_of(program, ending.is_well(), interrupt).await),
        None => None,
    };
    Exchanged {
        ending,
        progress,
        tcp_info,
        session,
        answer: ends.answer,
        program,
    }
}

/// Waits for the end of the program. As long as it takes, if all is well: then an interrupt is for it.
async fn last_of(
    program: Program,
    well: bool,
    interrupt: &Interrupt,
) -> io::Result<program::Ended> {
    if well {
        interrupt.heard_within(true);
    }
    let ended = program.finish(well, interrupt).await;
    interrupt.heard_within(false);
    ended
}

/// Has all that came written.
async fn delivered(ending: Ending, output: Output, rules: Exchange) -> Ending {
    let interrupted = matches!(ending, Ending::Interrupted);
    // A program that is to end need not be told all before.
    if interrupted && rules.program {
        return ending;
    }
    let impatient = match ending {
        // Whoever wants to leave is not kept by a slow reader.
        Ending::Interrupted => true,
        // Nothing moves, and that may be so because nobody reads our output.
        Ending::Idle(_) => true,
        // A program may take its time, but not when it has ended, or the connection has failed.
        Ending::PeerClosed => false,
        _ => rules.program,
    };
    let finished = output.finish();
    let finished = match impatient {
        true => timeout(LINGER, finished).await.unwrap_or(Ok(())),
        false => finished.await,
    };
    match finished {
        Ok(()) => ending,
        // Ctrl-C may have ended the reader, too.
        Err(_) if interrupted => ending,
        // A program need not read all that comes.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && rules.program => ending,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ending::OutputClosed,
        Err(error) => Ending::OutputFailed(error),
    }
}

/// Has all copies written. A copy that is not complete is a failure, unless there is a graver one.
async fn copied(ending: Ending, copies: Copies) -> Ending {
    // Whoever wants to leave is not kept by a slow file.
    let limit = matches!(ending, Ending::Interrupted | Ending::Idle(_)).then_some(LINGER);
    match copies.finish(limit).await {
        Ok(()) => ending,
        Err(Incomplete { path, error })
            if ending.is_well() || matches!(ending, Ending::CopyFailed(..)) =>
        {
            Ending::CopyFailed(path, error)
        }
        Err(Incomplete { path, error }) => {
            let path = path.display();
            talk(&Warning(&format!("'{path}' is not complete: {error}")));
            ending
        }
    }
}

/// To TLS the end is a message of its own, and it is always sent. Whoever is gone is not waited for.
pub(crate) async fn say_the_end(stream: &mut Stream) {
    let _ = timeout(LAST_WORD, stream.shutdown()).await;
}

async fn until_end(
    sending: impl Future<Output = Sent>,
    receiving: impl Future<Output = Received>,
    mut program: Option<&mut Program>,
    talk: &Talk<'_>,
    interrupt: &Interrupt,
) -> Ending {
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let mut interrupted = pin!(interrupt.heard());
    let mut course = Course::new(talk.rules);
    loop {
        let last_moment = course.last_moment;
        let wait_over = async {
            match last_moment {
                Some(moment) => sleep_until(moment).await,
                None => pending().await,
            }
        };
        let program_ended = async {
            match &mut program {
                Some(program) => program.ended().await,
                None => pending().await,
            }
        };
        let ending = tokio::select! {
            received = &mut receiving, if course.receives => {
                course.received(received, talk.progress.received.get())
            }
            sent = &mut sending, if course.sends => course.sent(sent),
            () = wait_over => Some(Ending::InputEnded),
            // Others may have its stdout yet: it is over when they have closed that, too.
            () = program_ended, if !course.sends => Some(Ending::InputEnded),
            limit = talk.progress.idle(talk.rules.idle) => Some(Ending::Idle(limit)),
            () = &mut interrupted => Some(Ending::Interrupted),
        };
        if let Some(ending) = ending {
            return ending;
        }
    }
}

/// Which directions still go on. Pure.
struct Course {
    rules: Exchange,
    sends: bool,
    receives: bool,
    /// All has come that was to come.
    enough: bool,
    /// When it is over even if the peer goes on.
    last_moment: Option<Instant>,
    /// Why the peer takes no more.
    gone: Option<io::Error>,
}

impl Course {
    fn new(rules: Exchange) -> Self {
        Self {
            rules,
            sends: true,
            receives: true,
            enough: false,
            last_moment: None,
            gone: None,
        }
    }

    /// What the end of receiving, after so many bytes, means: the end of all, or not yet.
    fn received(&mut self, received: Received, bytes: u64) -> Option<Ending> {
        let goes_on = self.sends && self.rules.goes_on_after(bytes);
        self.receives = false;
        Some(match received {
            Received::Fin if goes_on => return None,
            Received::Enough if self.sends && self.rules.replay => {
                self.enough = true;
                return None;
            }
            Received::Fin => match self.gone.take() {
                // It was to take what we go on to send, whichever of its two ends was seen first.
                Some(error) if self.rules.keep_open => Ending::SendFailed(error),
                _ => Ending::PeerClosed,
            },
            // The write knows more of it.
            Received::Reset => {
                let unknown = || io::ErrorKind::ConnectionReset.into();
                Ending::ReceiveFailed(self.gone.take().unwrap_or_else(unknown))
            }
            Received::Cut if self.rules.tls_eof_lax && self.gone.is_none() => Ending::PeerClosed,
            Received::Cut => Ending::Truncated,
            Received::Enough => Ending::Received,
            Received::Answered(response) => Ending::Answered(response),
            Received::BadAnswer(error) => Ending::BadAnswer(error),
            Received::Failed(error) => Ending::ReceiveFailed(error),
            Received::NoOutput => Ending::OutputClosed,
            Received::CopyBroken => Ending::CopyFailed(PathBuf::new(), broken()),
            Received::Differs(difference) => Ending::Differs(difference),
        })
    }

    /// The same of sending.
    fn sent(&mut self, sent: Sent) -> Option<Ending> {
        self.sends = false;
        match (sent, self.rules.on_eof) {
            (Sent::InputFailed(error), _) => return Some(Ending::InputFailed(error)),
            (Sent::CopyBroken, _) => return Some(Ending::CopyFailed(PathBuf::new(), broken())),
            (Sent::Quit, _) => return Some(Ending::InputEnded),
            (Sent::PeerGone(error), _) if !self.receives => return Some(Ending::SendFailed(error)),
            (Sent::PeerGone(error), _) => self.gone = Some(error),
            _ if self.enough => return Some(Ending::Received),
            _ if !self.receives => return Some(Ending::PeerClosed),
            (Sent::All, OnEof::Exit) => return Some(Ending::InputEnded),
            (Sent::All, OnEof::Wait(time)) => {
                self.last_moment = Instant::now().checked_add(time);
            }
            (Sent::All, OnEof::Keep) if self.rules.tell_kept => talk(&Warning(KEPT)),
            (Sent::All, OnEof::Fin | OnEof::Keep) | (Sent::Closed, _) => {}
        }
        None
    }
}

/// Until the copy itself says why.
fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
