//! Follows a script on a connection, for either end of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use sockeye::{Conn, Stream, hot_buffer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::script::Script;
use crate::script::failed::{Came, Cause, Failed, Instead};
use crate::script::flow::{Flow, Position, begins_unseeing};
use crate::script::matcher::{Goal, Held, Matcher, Mismatch, Rest, Search, Verdict};
use crate::script::quoted::Quoted;
use crate::script::syntax::{Action, Data, Part, Pattern, Step, Text, Time};

/// The longest text, with what was captured in it.
const TEXT_BYTES: usize = 1024 * 1024;

/// How much of an expectation is shown.
const SHOWN_CHARACTERS: usize = 200;

/// What a script is followed on.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// See [`Stream::sent`].
    fn sent(&self) -> u64;
}

impl Wire for Stream {
    fn sent(&self) -> u64 {
        Self::sent(self)
    }
}

impl Wire for Conn {
    fn sent(&self) -> u64 {
        self.stream().sent()
    }
}

/// What is to become of the connection when the script is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Last {
    /// A close in good order.
    Close,
    Reset,
}

/// What an end of TLS without close_notify is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    /// A failure: somebody on the way may have cut it.
    Fails,
    /// An end as any other.
    Ends,
}

/// What happens while a script is followed, for whoever looks on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told<'a> {
    /// Bytes came. They may be more than are expected now.
    Received(&'a [u8]),
    PeerClosed,
    /// So many bytes were written.
    Wrote(usize),
    ShutDown,
    /// A `send` is through.
    Sent {
        line: usize,
        bytes: &'a [u8],
    },
    /// What was expected has come.
    Took {
        line: usize,
        /// The first of the bytes.
        begun: &'a [u8],
        bytes: u64,
    },
    /// A statement that moves no bytes is through.
    Did(&'a Step),
}

/// Follows a script to its end. `tell` is told what happens.
///
/// Every wait has a deadline, that of `timeout`; a `send` fails if the peer takes nothing for so long.
///
/// Not cancel safe: who drops it does not know how far it has come.
pub(crate) async fn run<S, T>(
    script: &Script,
    stream: &mut S,
    cut: Cut,
    tell: T,
) -> Result<Last, Failed>
where
    S: Wire,
    T: FnMut(Told<'_>),
{
    let mut talk = Talk {
        script,
        stream,
        cut,
        tell,
        held: Held::default(),
        rest: Rest::Open,
        failed: None,
        consumed: 0,
        captures: BTreeMap::new(),
        is_shut: false,
    };
    let mut flow = Flow::new(&script.steps);
    loop {
        if flow.begins_round_unseeing() {
            talk.look().await;
        }
        let Some(step) = flow.next(talk.position()) else {
            return Ok(Last::Close);
        };
        // A loop may go round without waiting for anything, and others want to go on.
        consume_budget().await;
        match talk.perform(step, &mut flow).await {
            Ok(None) => {}
            Ok(Some(last)) => return Ok(last),
            Err(cause) if cause.is_clean_end() && flow.ends_loop(talk.consumed) => {}
            Err(cause) => {
                return Err(Failed {
                    script: script.name.clone(),
                    line: step.line,
                    cause,
                });
            }
        }
    }
}

struct Talk<'a, S, T> {
    script: &'a Script,
    stream: &'a mut S,
    cut: Cut,
    tell: T,
    held: Held,
    rest: Rest,
    /// What a look has met, for who reads next.
    failed: Option<io::Error>,
    consumed: u64,
    captures: BTreeMap<String, Vec<u8>>,
    is_shut: bool,
}

impl<'a, S, T> Talk<'a, S, T>
where
    S: Wire,
    T: FnMut(Told<'_>),
{
    fn position(&self) -> Position {
        Position {
            consumed: self.consumed,
            at_end: self.rest != Rest::Open && self.held.bytes().is_empty(),
        }
    }

    /// Does what a statement says, and returns what is to become of the connection if it is the last.
    async fn perform(
        &mut self,
        step: &'a Step,
        flow: &mut Flow<'a>,
    ) -> Result<Option<Last>, Cause> {
        let limit = flow.timeout();
        match &step.action {
            Action::Send(data) => self.send(step.line, data, limit).await?,
            Action::Expect(pattern) => {
                self.expect(&[(step.line, pattern)], limit).await?;
            }
            Action::ExpectNothing(time) => {
                self.expect_nothing(*time).await?;
                (self.tell)(Told::Did(step));
            }
            Action::Choose(branches) => {
                let patterns = branches.iter().map(|branch| (branch.line, &branch.pattern));
                let patterns: Vec<(usize, &Pattern)> = patterns.collect();
                let which = self.expect(&patterns, limit).await?;
                flow.branch(&branches[which].body);
            }
            Action::Loop { rounds, body } => {
                if rounds.is_none() && begins_unseeing(body) {
                    self.look().await;
                    if self.position().at_end {
                        return Ok(None);
                    }
                }
                flow.repeat(*rounds, body, self.consumed);
            }
            Action::Timeout(limit) => flow.set_timeout(*limit),
            Action::Break => flow.leave_loop(),
            Action::Continue => flow.end_round(),
            Action::Delay(time) => {
                sleep(*time).await;
                (self.tell)(Told::Did(step));
            }
            Action::Shutdown => {
                self.shut_down(limit).await?;
                (self.tell)(Told::Did(step));
            }
            Action::Close | Action::Reset => {
                (self.tell)(Told::Did(step));
                let resets = step.action == Action::Reset;
                return Ok(Some(if resets { Last::Reset } else { Last::Close }));
            }
        }
        Ok(None)
    }

    async fn send(&mut self, line: usize, data: &'a Data, limit: Duration) -> Result<(), Cause> {
        if self.is_shut {
            return Err(Cause::AfterShutdown);
        }
        let bytes = self.bytes(data)?;
        let mut left = &bytes[..];
        while !left.is_empty() {
            let written = match timeout(limit, self.stream.write(left)).await {
                Err(_) => return Err(Cause::NotTaken(limit)),
                Ok(Ok(0)) => return Err(Cause::Send(io::ErrorKind::WriteZero.into())),
                Ok(written) => written.map_err(Cause::Send)?,
            };
            (self.tell)(Told::Wrote(written));
            left = &left[written..];
        }
        self.flush(limit).await?;
        (self.tell)(Told::Sent {
            line,
            bytes: &bytes,
        });
        Ok(())
    }

    /// TLS may hold what the kernel would not take at once. The peer may take its time as long as it takes some of it.
    async fn flush(&mut self, limit: Duration) -> Result<(), Cause> {
        loop {
            let sent = self.stream.sent();
            match timeout(limit, self.stream.flush()).await {
                Ok(flushed) => return flushed.map_err(Cause::Send),
                Err(_) if self.stream.sent() > sent => {}
                Err(_) => return Err(Cause::NotTaken(limit)),
            }
        }
    }

    async fn shut_down(&mut self, limit: Duration) -> Result<(), Cause> {
        match timeout(limit, self.stream.shutdown()).await {
            Err(_) => return Err(Cause::NotTaken(limit)),
            Ok(shut) => shut.map_err(Cause::Send)?,
        }
        self.is_shut = true;
        (self.tell)(Told::ShutDown);
        Ok(())
    }

    /// Waits until one of the patterns, each with its line, is what comes, and returns which.
    async fn expect(
        &mut self,
        patterns: &[(usize, &'a Pattern)],
        limit: Duration,
    ) -> Result<usize, Cause> {
        let goals: Vec<Goal<'a>> = patterns
            .iter()
            .map(|(_, pattern)| self.goal(pattern))
            .collect::<Result<_, _>>()?;
        let mut matcher = Matcher::new(goals);
        let deadline = Instant::now() + limit;
        let instead = loop {
            match matcher.look(&mut self.held, self.rest) {
                Verdict::Matched { which, captures } => {
                    self.consumed += matcher.consumed();
                    self.captures.extend(captures);
                    (self.tell)(Told::Took {
                        line: patterns[which].0,
                        begun: matcher.begun(),
                        bytes: matcher.consumed(),
                    });
                    return Ok(which);
                }
                Verdict::Undecided => match timeout_at(deadline, self.read()).await {
                    Err(_) => break Instead::Timeout(limit),
                    Ok(Err(error)) => break Instead::Failed(error),
                    Ok(Ok(())) => {}
                },
                Verdict::Failed(mismatch) => break self.instead(mismatch),
            }
        };
        self.consumed += matcher.consumed();
        let left = self.held.bytes();
        let came = Came::new(matcher.begun(), matcher.consumed(), left);
        Err(Cause::Expected {
            wanted: wanted(patterns, matcher.goals()),
            instead,
            came,
        })
    }

    fn instead(&self, mismatch: Mismatch) -> Instead {
        match (mismatch, self.rest) {
            (Mismatch::TooLong, _) => Instead::TooLong,
            (Mismatch::Ended, Rest::Closed) => Instead::Closed,
            (Mismatch::Ended, Rest::Reset) => Instead::Reset,
            _ => Instead::Other,
        }
    }

    /// Waits for so long, in which nothing may come, not even the end.
    async fn expect_nothing(&mut self, time: Duration) -> Result<(), Cause> {
        let until = Instant::now() + time;
        let instead = if !self.held.bytes().is_empty() {
            Instead::Other
        } else if self.rest != Rest::Open {
            // After its end nothing comes, to be sure.
            sleep(time).await;
            return Ok(());
        } else {
            match timeout_at(until, self.read()).await {
                Err(_) => return Ok(()),
                Ok(Err(error)) => Instead::Failed(error),
                Ok(Ok(())) => match self.rest {
                    Rest::Open => Instead::Other,
                    Rest::Closed => Instead::Closed,
                    Rest::Reset => Instead::Reset,
                },
            }
        };
        Err(Cause::Expected {
            wanted: format!("nothing for {}", Time(time)),
            instead,
            came: Came::new(&[], 0, self.held.bytes()),
        })
    }

    /// Reads what has come, or waits for it.
    async fn read(&mut self) -> io::Result<()> {
        let read = match self.failed.take() {
            Some(error) => Err(error),
            None => self.read_some().await,
        };
        match read {
            Ok(bytes) => self.came(bytes),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => self.rest = Rest::Reset,
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// Reads only what has come already, if there is nothing yet. An error is not one of this place.
    async fn look(&mut self) {
        if self.rest != Rest::Open || !self.held.bytes().is_empty() || self.failed.is_some() {
            return;
        }
        // The runtime asks the kernel what is new only between two turns of a task.
        yield_now().await;
        match self.read_some().now_or_never() {
            Some(Ok(bytes)) => self.came(bytes),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }

    /// Keeps what is read, and returns how much it is. Cancel safe.
    async fn read_some(&mut self) -> io::Result<usize> {
        let Self {
            stream, held, tell, ..
        } = self;
        let read = hot_buffer::read(&mut **stream, |bytes| {
            held.push(bytes);
            tell(Told::Received(bytes));
        });
        match read.await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.cut == Cut::Ends => {
                Ok(0)
            }
            read => read,
        }
    }

    /// None is the end.
    fn came(&mut self, bytes: usize) {
        if bytes == 0 {
            self.rest = Rest::Closed;
            (self.tell)(Told::PeerClosed);
        }
    }

    fn goal(&self, pattern: &'a Pattern) -> Result<Goal<'a>, Cause> {
        let some = |bytes: Cow<'a, [u8]>| match bytes.is_empty() {
            true => Err(Cause::NothingToExpect),
            false => Ok(bytes),
        };
        Ok(match pattern {
            Pattern::Exactly(data) => Goal::Exactly {
                expected: some(self.bytes(data)?)?,
                known: 0,
            },
            Pattern::Line(expression) => Goal::Line {
                expression: expression.as_ref(),
                searched: 0,
            },
            Pattern::Until(text) => Goal::Until(Search::new(some(self.text(text)?)?)),
            Pattern::Bytes(bytes) => Goal::Bytes(bytes.get()),
            Pattern::Close => Goal::Close,
            Pattern::Reset => Goal::Reset,
        })
    }

    fn bytes(&self, data: &'a Data) -> Result<Cow<'a, [u8]>, Cause> {
        match data {
            Data::Text(text) => self.text(text),
            Data::Hex(bytes) => Ok(Cow::Borrowed(bytes)),
            Data::File(name) => Ok(Cow::Borrowed(self.script.file(name))),
        }
    }

    /// A text with what was captured in the place of the names.
    fn text(&self, text: &'a Text) -> Result<Cow<'a, [u8]>, Cause> {
        if let [Part::Bytes(bytes)] = text.parts() {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut all = Vec::new();
        for part in text.parts() {
            let bytes = match part {
                Part::Bytes(bytes) => bytes,
                Part::Capture(name) => {
                    let captured = self.captures.get(name);
                    captured.ok_or_else(|| Cause::NothingCaptured(name.clone()))?
                }
            };
            if all.len() + bytes.len() > TEXT_BYTES {
                return Err(Cause::TooLong(TEXT_BYTES));
            }
            all.extend_from_slice(bytes);
        }
        Ok(Cow::Owned(all))
    }
}

/// What is expected, for people: as it is written, and with what was captured.
fn wanted<'a>(patterns: &[(usize, &Pattern)], goals: impl Iterator<Item = &'a Goal<'a>>) -> String {
    let patterns = patterns.iter().map(|(_, pattern)| *pattern);
    let each = patterns.zip(goals).map(|pair| match pair {
        (
            Pattern::Exactly(Data::Text(_)),
            Goal::Exactly {
                expected: Cow::Owned(bytes),
                ..
            },
        ) => Quoted(bytes).to_string(),
        (pattern, _) => pattern.to_string(),
    });
    let each: Vec<String> = each.collect();
    let all = match each.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    match all.char_indices().nth(SHOWN_CHARACTERS) {
        Some((at, _)) => format!("{}...", &all[..at]),
        None => all,
    }
}
