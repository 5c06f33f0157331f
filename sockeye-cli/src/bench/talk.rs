//! The talk on one connection: messages out, answers in, and when each was due, sent and answered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use sockeye::hot_buffer;
use sockeye::{Addr, Stream};
use tokio::io::AsyncWrite;

use crate::bench::account::Unanswered;
use crate::bench::both_ends::Meeting;
use crate::bench::dial::kind_of;
use crate::bench::plan::Stage;
use crate::bench::recorder::Kind;
use crate::bench::schedule::Schedule;
use crate::bench::worker::{Slot, Worker};
use crate::cli::bench::Mode;
use crate::http::{Progress, ResponseReader};

/// How a talk ends that does not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// There is nothing more to send.
    Over,
    /// The connection is as old as it may be.
    Lifetime,
    /// The server has said that this was its last answer on it.
    ServerClosed,
}

/// One talk, from the opening of a connection to its end.
pub(crate) struct Talk<'a> {
    worker: &'a Worker,
    slot: &'a Slot,
    schedule: Option<&'a mut Schedule>,
    under_way: VecDeque<Message>,
    /// Messages at a time.
    most: usize,
    /// Only one message, whenever.
    once: Once,
    message_bytes: u64,
    /// To be sent on this connection, and sent.
    owed: u64,
    sent: u64,
    reader: Reader,
    /// Since when another message could be sent, if none before it had been late.
    free_since_ns: u64,
    /// What the pacer is to wake us for.
    waits_for: Option<u64>,
    closes_at_ns: u64,
    /// The server has ended, or will.
    server_closes: bool,
    was_answered: bool,
    looked: u32,
    meeting: Option<Arc<Meeting>>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    due_ns: u64,
    sent_ns: u64,
    /// How much later it was sent than it could have been.
    lag_ns: u64,
    counts: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Once {
    No,
    Begins,
    Begun,
}

/// What an answer is.
enum Reader {
    /// As many bytes, the same ones if they are compared.
    Echo {
        received: u64,
    },
    /// None: it is enough that the kernel has taken the message.
    None,
    Http(Box<ResponseReader>),
}

/// So many connections of a thread are asked in each interval what the kernel knows.
const LOOKED_AT: usize = 8;

impl<'a> Talk<'a> {
    pub(crate) fn new(
        worker: &'a Worker,
        slot: &'a Slot,
        schedule: Option<&'a mut Schedule>,
        stream: &Stream,
    ) -> Self {
        let plan = &worker.plan;
        let now = worker.pacer.now_ns();
        let meeting = match (&plan.ends, stream.local_addr()) {
            (Some(ends), Ok(Addr::Tcp(client))) => Some(ends.meet(client)),
            _ => None,
        };
        slot.expired.set(false);
        slot.oldest_ns.set(u64::MAX);
        Self {
            worker,
            slot,
            schedule,
            under_way: VecDeque::new(),
            most: plan.pipeline,
            once: Once::No,
            message_bytes: plan.size as u64,
            owed: 0,
            sent: 0,
            reader: match plan.mode {
                Mode::Echo | Mode::Connect => Reader::Echo { received: 0 },
                Mode::Stream => Reader::None,
                Mode::Http => Reader::Http(Box::new(ResponseReader::new(false))),
            },
            free_since_ns: now,
            waits_for: None,
            closes_at_ns: now.saturating_add(plan.lifetime_ns(slot.index)),
            server_closes: false,
            was_answered: false,
            looked: 0,
            meeting,
        }
    }

    /// One message, and its answer. Who asks for it keeps the account.
    pub(crate) fn once(worker: &'a Worker, slot: &'a Slot, stream: &Stream) -> Self {
        Self {
            most: 1,
            once: Once::Begins,
            ..Self::new(worker, slot, None, stream)
        }
    }

    /// Whether the server has answered anything at all.
    pub(crate) fn was_answered(&self) -> bool {
        self.was_answered
    }

    /// Goes on as far as it can.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<Ended, Kind>> {
        self.slot.remember(cx.waker());
        // A look at the clock costs as much as a message has other work: none is wasted.
        let mut now = None;
        loop {
            if self.slot.expired.take() {
                return Poll::Ready(Err("timeout".into()));
            }
            self.start(cx, &mut now);
            if let Err(error) = self.write(cx, stream, &mut now) {
                return Poll::Ready(Err(kind_of(&error)));
            }
            if let Some(ended) = self.ended(&mut now) {
                return Poll::Ready(Ok(ended));
            }
            let mut taken = Ok(());
            let read = hot_buffer::poll_read(cx, stream, |_, stream, bytes| {
                let read_ns = self.worker.pacer.now_ns();
                now = Some(read_ns);
                self.look(stream);
                taken = if self.slot.is_late(read_ns, self.worker.plan.timeout) {
                    Err("timeout".into())
                } else {
                    self.take(bytes, read_ns)
                };
            });
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(self.closed_by_server()),
                Poll::Ready(Ok(_)) => {
                    if let Err(kind) = taken {
                        return Poll::Ready(Err(kind));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(kind_of(&error))),
                // What is answered by having been written has left room for the next.
                Poll::Pending if self.starts_more(cx) => now = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn starts_more(&mut self, cx: &Context<'_>) -> bool {
        let owed = self.owed;
        if let Reader::None = self.reader {
            self.start(cx, &mut None);
        }
        self.owed > owed
    }

    /// Starts every message that is due and has room.
    fn start(&mut self, cx: &Context<'_>, now: &mut Option<u64>) {
        if self.message_bytes == 0 {
            // A stream that is only received.
            return;
        }
        while self.under_way.len() < self.most && !self.server_closes {
            let Some(times) = self.worker.times() else {
                return;
            };
            let now = *now.get_or_insert_with(|| self.worker.pacer.now_ns());
            let next = match &mut self.schedule {
                _ if self.once == Once::Begun => return,
                _ if self.once == Once::Begins => {
                    self.once = Once::Begun;
                    Some((now, false))
                }
                _ if now >= self.closes_at_ns => return,
                Some(schedule) => {
                    let due = times.start_ns + schedule.due_ns();
                    if due >= times.end_ns {
                        return;
                    }
                    if due > now {
                        // Between two messages a connection is opened again at nobody's expense.
                        let then = due.min(self.closes_at_ns);
                        if self.waits_for != Some(then) {
                            self.waits_for = Some(then);
                            let pacer = &self.worker.pacer;
                            pacer.wake_at(then, self.slot.number, cx.waker());
                        }
                        return;
                    }
                    self.waits_for = None;
                    schedule.advance();
                    self.worker.admit(due).map(|counts| (due, counts))
                }
                None if matches!(self.worker.stage(), Stage::Draining(_)) => return,
                None => self.worker.admit(now).map(|counts| (now, counts)),
            };
            let Some((due_ns, counts)) = next else {
                return;
            };
            self.begin(due_ns, counts, now);
        }
    }

    fn begin(&mut self, due_ns: u64, counts: bool, now: u64) {
        let lag_ns = now.saturating_sub(due_ns.max(self.free_since_ns));
        if counts && self.schedule.is_some() {
            let mut record = self.worker.record.borrow_mut();
            record.send_lag.saturating_record(lag_ns);
        }
        if self.under_way.is_empty() {
            self.slot.oldest_ns.set(now);
        }
        self.under_way.push_back(Message {
            due_ns,
            sent_ns: now,
            lag_ns,
            counts,
        });
        self.owed += self.message_bytes;
        self.worker.pacer.worked();
    }

    /// Writes what is owed, as far as the kernel takes it.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        now: &mut Option<u64>,
    ) -> std::io::Result<()> {
        while self.sent < self.owed {
            let bytes = self.worker.plan.cycle.at(self.sent, self.owed - self.sent);
            let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(cx, bytes) else {
                return Ok(());
            };
            let written = written? as u64;
            self.sent += written;
            self.worker.pacer.worked();
            let at = now.unwrap_or_else(|| self.worker.pacer.now_ns());
            self.worker.sent(written, at);
            if let Reader::None = self.reader {
                let at = self.worker.pacer.now_ns();
                *now = Some(at);
                while self.is_first_written() {
                    self.answered(at);
                }
            }
        }
        Ok(())
    }

    fn is_first_written(&self) -> bool {
        let behind = self.under_way.len() as u64;
        behind > 0 && self.sent >= self.owed - (behind - 1) * self.message_bytes
    }

    /// Whether this connection has nothing more to do.
    fn ended(&self, now: &mut Option<u64>) -> Option<Ended> {
        let stage = self.worker.stage();
        if stage == Stage::Ended {
            return Some(Ended::Over);
        }
        if !self.under_way.is_empty() {
            return None;
        }
        if self.server_closes {
            return Some(Ended::ServerClosed);
        }
        if self.once == Once::Begun {
            return Some(Ended::Over);
        }
        if let Stage::Draining(times) = stage {
            let is_over = match &self.schedule {
                Some(schedule) => times.start_ns + schedule.due_ns() >= times.end_ns,
                None => true,
            };
            if is_over || !self.worker.may_start() {
                return Some(Ended::Over);
            }
        }
        if self.closes_at_ns == u64::MAX {
            return None;
        }
        let now = *now.get_or_insert_with(|| self.worker.pacer.now_ns());
        (now >= self.closes_at_ns).then_some(Ended::Lifetime)
    }

    /// Takes what came.
    fn take(&mut self, bytes: &[u8], now: u64) -> Result<(), Kind> {
        self.worker.pacer.worked();
        self.worker.received(bytes.len() as u64, now);
        match &mut self.reader {
            Reader::None => {
                self.was_answered = true;
                self.slot.served.set(true);
                Ok(())
            }
            Reader::Echo { received } => {
                let start = *received;
                *received += bytes.len() as u64;
                let plan = &self.worker.plan;
                if *received > self.sent || plan.verify && !plan.cycle.matches(start, bytes) {
                    return Err("not_an_echo".into());
                }
                let all = *received;
                while self.first_ends_at().is_some_and(|end| end <= all) {
                    self.answered(now);
                }
                Ok(())
            }
            Reader::Http(_) => self.take_http(bytes, now),
        }
    }

    /// The position in the stream at which the oldest message under way ends.
    fn first_ends_at(&self) -> Option<u64> {
        let behind = (self.under_way.len() as u64).checked_sub(1)?;
        Some(self.owed - behind * self.message_bytes)
    }

    fn take_http(&mut self, mut bytes: &[u8], now: u64) -> Result<(), Kind> {
        while !bytes.is_empty() {
            if self.under_way.is_empty() {
                return Err("unasked_answer".into());
            }
            let Reader::Http(reader) = &mut self.reader else {
                return Ok(());
            };
            let progress = reader.take(bytes, &mut |_| ());
            match progress.map_err(|_| Kind::Borrowed("not_http"))? {
                Progress::More => return Ok(()),
                Progress::Complete { used, response } => {
                    bytes = bytes.get(used..).unwrap_or_default();
                    self.server_closes |= !response.keep_alive;
                    self.answered_with(response.status, now);
                    if self.server_closes {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// An answer that says no is one all the same: it took its time, and is an error.
    fn answered_with(&mut self, status: u16, now: u64) {
        if status >= 400 {
            let kind = Kind::Owned(format!("http_{status}"));
            self.worker.interval.borrow_mut().error(kind.clone());
            self.worker.record.borrow_mut().error(kind);
        }
        self.answered(now);
    }

    /// The oldest message has its answer.
    fn answered(&mut self, now: u64) {
        let was_full = self.under_way.len() == self.most;
        let Some(message) = self.under_way.pop_front() else {
            return;
        };
        if was_full {
            // Who waited behind a message that was late is as late.
            self.free_since_ns = now - message.lag_ns;
        }
        let oldest = self.under_way.front().map_or(u64::MAX, |next| next.sent_ns);
        self.slot.oldest_ns.set(oldest);
        self.was_answered = true;
        if self.once != Once::No {
            return;
        }
        let Message {
            due_ns,
            sent_ns,
            counts,
            ..
        } = message;
        self.worker
            .answered(self.slot, due_ns, sent_ns, counts, now);
        if let (Some(meeting), true) = (&self.meeting, counts) {
            let read = meeting.read_ns.load(Ordering::Acquire);
            let write = meeting.write_ns.load(Ordering::Acquire);
            self.worker.met(sent_ns, read, write, now);
        }
    }

    fn closed_by_server(&mut self) -> Result<Ended, Kind> {
        if let Reader::Http(reader) = &mut self.reader
            && let Ok(Some(response)) = reader.end()
        {
            // An answer without a length ends with the connection.
            self.answered_with(response.status, self.worker.pacer.now_ns());
        }
        let is_polite = matches!(self.reader, Reader::Http(_)) && self.under_way.is_empty();
        if is_polite {
            return Ok(Ended::ServerClosed);
        }
        Err("closed".into())
    }

    /// Asks the kernel, if this connection is one of those that are looked at and it is time.
    fn look(&mut self, stream: &Stream) {
        let look = self.worker.look.get();
        if self.slot.number >= LOOKED_AT || look == self.looked {
            return;
        }
        self.looked = look;
        let mut interval = self.worker.interval.borrow_mut();
        interval.tcp.extend(stream.tcp_info());
        let server = self
            .meeting
            .as_ref()
            .and_then(|meeting| meeting.server_tcp());
        interval.server_tcp.extend(server);
    }

    /// What is under way will not be answered any more.
    pub(crate) fn give_up(&mut self, why: Unanswered) {
        self.slot.oldest_ns.set(u64::MAX);
        let now = self.worker.pacer.now_ns();
        for message in self.under_way.drain(..) {
            if self.once == Once::No && message.counts {
                self.worker
                    .abandoned(message.due_ns, message.sent_ns, why, now);
            }
        }
    }
}
