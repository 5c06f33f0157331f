//! How one message goes into the record.

use std::cell::RefMut;

use crate::bench::plan::{Extent, Pace, Times};
use crate::bench::recorder::{Kind, Record};
use crate::bench::worker::{Slot, Worker};

/// Why a message has no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unanswered {
    /// There was no time left, or it took too long.
    Late,
    /// Its connection failed, or there was none.
    Lost,
}

impl Unanswered {
    /// Of an error that ended a connection, or an attempt at one. What was waited for to its end is no loss, and ports are
    /// told of by themselves.
    pub(crate) fn of(kind: &Kind) -> Self {
        match &**kind {
            "timeout" | "ports_exhausted" | "unfinished" => Self::Late,
            _ => Self::Lost,
        }
    }
}

impl Worker {
    /// A message has its answer.
    pub(crate) fn answered(&self, slot: &Slot, due_ns: u64, sent_ns: u64, counts: bool, now: u64) {
        let latency = now.saturating_sub(due_ns);
        self.interval.borrow_mut().answered(latency);
        let mut record = self.record.borrow_mut();
        let is_counted = match self.plan.extent {
            Extent::Messages(_) => counts,
            Extent::Time(_) => self.is_measured(now),
        };
        record.messages += u64::from(is_counted);
        if !counts {
            return;
        }
        record.latency.saturating_record(latency);
        // In a closed loop a message is due when it is sent: one record serves for both.
        if let Pace::Open { .. } = self.plan.pace {
            let service = now.saturating_sub(sent_ns);
            record.service.saturating_record(service);
        }
        record.last_ns = record.last_ns.max(now);
        drop(record);
        slot.served.set(true);
        self.settled();
    }

    /// A message will not be answered. It has waited until now, and would have waited for longer. `sent_ns` is `u64::MAX` if
    /// it was never sent.
    pub(crate) fn abandoned(&self, due_ns: u64, sent_ns: u64, why: Unanswered, now: u64) {
        let mut record = self.record.borrow_mut();
        record.unanswered += 1;
        record.lost += u64::from(why == Unanswered::Lost);
        record.latency.saturating_record(now.saturating_sub(due_ns));
        if let (Pace::Open { .. }, Some(service)) = (self.plan.pace, now.checked_sub(sent_ns)) {
            record.service.saturating_record(service);
        }
        record.last_ns = record.last_ns.max(now);
        drop(record);
        self.settled();
    }

    /// Both ends of one message. The server's times are those of the last piece that it has seen; where they do not fit
    /// between ours they are another message's.
    pub(crate) fn met(&self, sent_ns: u64, read_ns: u64, write_ns: u64, now: u64) {
        if sent_ns <= read_ns && read_ns <= write_ns && write_ns <= now {
            let mut record = self.record.borrow_mut();
            record.to_server.saturating_record(read_ns - sent_ns);
            record.in_server.saturating_record(write_ns - read_ns);
            record.to_client.saturating_record(now - write_ns);
        }
    }

    pub(crate) fn sent(&self, bytes: u64, now: u64) {
        if let Some(mut record) = self.measured(now) {
            record.sent_bytes += bytes;
        }
    }

    pub(crate) fn received(&self, bytes: u64, now: u64) {
        if let Some(mut record) = self.measured(now) {
            record.received_bytes += bytes;
        }
    }

    fn measured(&self, now: u64) -> Option<RefMut<'_, Record>> {
        self.is_measured(now).then(|| self.record.borrow_mut())
    }

    fn is_measured(&self, now: u64) -> bool {
        self.times().is_some_and(|times: Times| times.counts(now))
    }
}
