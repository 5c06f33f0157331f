//! One place for a connection: opens it, talks, closes it, opens the next.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sockeye::{Addr, Stream};
use tokio::io::AsyncWriteExt;

use crate::bench::account::Unanswered;
use crate::bench::plan::{Pace, Stage};
use crate::bench::recorder::{BothSockets, Kind};
use crate::bench::schedule::{Place, Schedule};
use crate::bench::talk::{Ended, Talk};
use crate::bench::worker::{Slot, Worker};
use crate::cli::bench::{Close, Mode};

pub(crate) async fn run(worker: Rc<Worker>, number: usize) {
    let slot = &worker.slots[number];
    let mut schedule = schedule(&worker, slot);
    let why = match worker.plan.mode {
        Mode::Connect => {
            visit_again_and_again(&worker, slot, schedule.as_mut()).await;
            Unanswered::Late
        }
        Mode::Echo | Mode::Stream | Mode::Http => keep_open(&worker, slot, schedule.as_mut()).await,
    };
    if let Some(schedule) = &mut schedule {
        give_up_rest(&worker, schedule, why);
    }
}

fn schedule(worker: &Worker, slot: &Slot) -> Option<Schedule> {
    let Pace::Open {
        rate_per_s,
        arrivals,
        seed,
    } = worker.plan.pace
    else {
        return None;
    };
    let place = Place {
        index: slot.index,
        of: worker.plan.connections,
    };
    Some(Schedule::new(rate_per_s, arrivals, place, seed))
}

/// A connection that is there from the beginning to the end, opened again when it ends before. Why what is due and was not
/// sent is left.
async fn keep_open(
    worker: &Worker,
    slot: &Slot,
    mut schedule: Option<&mut Schedule>,
) -> Unanswered {
    let mut why = Unanswered::Late;
    let mut pause = Pause::default();
    let mut is_first = true;
    loop {
        let dialed = dial(worker, slot).await;
        if std::mem::take(&mut is_first) {
            worker.first_attempt(dialed.is_ok());
        } else if dialed.is_ok() {
            worker.record.borrow_mut().reopened += 1;
        }
        let mut stream = match dialed {
            Ok(stream) => stream,
            Err(kind) => {
                // The end of the run does not change what the attempt before it came to.
                if kind != UNFINISHED {
                    why = Unanswered::of(&kind);
                }
                error(worker, kind);
                if !pause.rest(worker, slot).await {
                    return why;
                }
                continue;
            }
        };
        worker.keeps();
        let mut talk = Talk::new(worker, slot, schedule.as_deref_mut(), &stream);
        let ended = poll_fn(|cx| talk.poll(cx, &mut stream)).await;
        let was_answered = talk.was_answered();
        if was_answered {
            pause = Pause::default();
        }
        why = ended
            .as_ref()
            .map_or_else(Unanswered::of, |_| Unanswered::Late);
        talk.give_up(why);
        look_back(worker, &stream);
        close(worker, stream).await;
        worker.keeps_no_more();
        match ended {
            Ok(Ended::Over) => return why,
            Ok(Ended::Lifetime) => {}
            // As HTTP servers do when it was the last answer on a connection.
            Ok(Ended::ServerClosed) if was_answered => {}
            Ok(Ended::ServerClosed) => {
                if !pause.rest(worker, slot).await {
                    return why;
                }
            }
            Err(kind) => {
                error(worker, kind);
                if !pause.rest(worker, slot).await {
                    return why;
                }
            }
        }
    }
}

/// A connection for each message.
async fn visit_again_and_again(worker: &Worker, slot: &Slot, mut schedule: Option<&mut Schedule>) {
    worker.first_attempt(true);
    let mut free_since = 0;
    loop {
        let Some((due, counts)) = next_visit(worker, slot, schedule.as_deref_mut()).await else {
            return;
        };
        let begun = worker.pacer.now_ns();
        let lag = begun.saturating_sub(due.max(free_since));
        if schedule.is_some() && counts {
            worker.record.borrow_mut().send_lag.saturating_record(lag);
        }
        let visited = visit(worker, slot).await;
        let now = worker.pacer.now_ns();
        // Who waited behind a visit that was late is as late.
        free_since = now - lag;
        worker.pacer.worked();
        match visited {
            Ok(()) => worker.answered(slot, due, begun, counts, now),
            Err(kind) => {
                let is_fault_of_ours = kind == "ports_exhausted" || kind == "descriptors_exhausted";
                if counts {
                    worker.abandoned(due, begun, Unanswered::of(&kind), now);
                }
                error(worker, kind);
                if is_fault_of_ours && !Pause::default().rest(worker, slot).await {
                    return;
                }
            }
        }
    }
}

/// When the next visit is due, and whether it counts; `None` at the end. Waits until then.
async fn next_visit(
    worker: &Worker,
    slot: &Slot,
    mut schedule: Option<&mut Schedule>,
) -> Option<(u64, bool)> {
    let mut waits_for = None;
    poll_fn(|cx| {
        slot.remember(cx.waker());
        let (now, stage) = (worker.pacer.now_ns(), worker.stage());
        let Some(times) = worker.times() else {
            return match stage {
                Stage::Ended => Poll::Ready(None),
                _ => Poll::Pending,
            };
        };
        let due = match &schedule {
            Some(schedule) => times.start_ns + schedule.due_ns(),
            None if matches!(stage, Stage::Draining(_)) => return Poll::Ready(None),
            None => now,
        };
        if due >= times.end_ns {
            return Poll::Ready(None);
        }
        if due > now {
            if waits_for != Some(due) {
                waits_for = Some(due);
                worker.pacer.wake_at(due, slot.number, cx.waker());
            }
            return Poll::Pending;
        }
        if let Some(schedule) = &mut schedule {
            schedule.advance();
        }
        Poll::Ready(worker.admit(due).map(|counts| (due, counts)))
    })
    .await
}

async fn visit(worker: &Worker, slot: &Slot) -> Result<(), Kind> {
    let mut stream = dial(worker, slot).await?;
    let mut visited = Ok(());
    if worker.plan.size > 0 {
        let mut talk = Talk::once(worker, slot, &stream);
        let ended = poll_fn(|cx| talk.poll(cx, &mut stream)).await;
        // The end of the run ends a talk that still waits for its answer.
        visited = match ended {
            Ok(_) if !talk.was_answered() => Err(UNFINISHED),
            other => other.map(|_| ()),
        };
        // Who asked for it keeps the account.
        talk.give_up(Unanswered::Late);
        look_back(worker, &stream);
    }
    close(worker, stream).await;
    visited
}

/// The run has ended meanwhile.
const UNFINISHED: Kind = Kind::Borrowed("unfinished");

async fn dial(worker: &Worker, slot: &Slot) -> Result<Stream, Kind> {
    while_running(worker, slot, async {
        // Visits are as many at a time as was asked for.
        let opening = (worker.plan.mode != Mode::Connect).then_some(&worker.opening);
        let _permit = match opening {
            // Closed only with the worker, which is not yet.
            Some(opening) => opening.acquire().await.ok(),
            None => None,
        };
        let begun = worker.pacer.now_ns();
        let stream = worker
            .plan
            .dialer
            .dial(slot.next_source(worker.plan.connections))
            .await;
        let stream = stream.map_err(|error| error.kind())?;
        let took = worker.pacer.now_ns() - begun;
        worker.record.borrow_mut().connect.saturating_record(took);
        Ok(stream)
    })
    .await
    .unwrap_or(Err(UNFINISHED))
}

/// What comes of it, or `None` if all ends before.
async fn while_running<T>(
    worker: &Worker,
    slot: &Slot,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        slot.remember(cx.waker());
        worker.pacer.worked();
        if worker.stage() == Stage::Ended {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Notes what the kernel knows in the end.
fn look_back(worker: &Worker, stream: &Stream) {
    let client_tcp = stream.tcp_info();
    let mut record = worker.record.borrow_mut();
    record.tcp.extend(client_tcp);
    if let (Some(ends), Ok(Addr::Tcp(client))) = (&worker.plan.ends, stream.local_addr())
        && let Some(meeting) = ends.part(client)
        && let (Some(client_tcp), Some(server_tcp)) = (client_tcp, meeting.server_tcp())
    {
        record.pair(BothSockets {
            client,
            client_tcp,
            server_tcp,
        });
    }
}

/// As asked. A peer that does not take our end is not waited for.
async fn close(worker: &Worker, mut stream: Stream) {
    worker.pacer.worked();
    match worker.plan.close {
        Close::Reset => stream.abort(),
        Close::Fin => {
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
        }
    }
}

/// After the end nobody counts.
fn error(worker: &Worker, kind: Kind) {
    if worker.stage() == Stage::Ended {
        return;
    }
    worker.interval.borrow_mut().error(kind.clone());
    worker.record.borrow_mut().error(kind);
}

/// What was due and never sent, for the server kept the connection busy or closed it, was not answered either.
fn give_up_rest(worker: &Worker, schedule: &mut Schedule, why: Unanswered) {
    let Some(times) = worker.last_times() else {
        return;
    };
    let now = worker.pacer.now_ns();
    let end = times.end_ns.min(now);
    while times.start_ns + schedule.due_ns() < end {
        let due = times.start_ns + schedule.due_ns();
        schedule.advance();
        match worker.admit(due) {
            Some(true) => worker.abandoned(due, u64::MAX, why, now),
            Some(false) => {}
            None => return,
        }
    }
}

/// Between attempts to open a connection that fail: 10 ms, doubled each time, at most 1 s.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(10))
    }
}

impl Pause {
    /// Whether there is still time for another attempt.
    async fn rest(&mut self, worker: &Worker, slot: &Slot) -> bool {
        let mut rest = pin!(tokio::time::sleep(self.0));
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
        poll_fn(|cx| {
            slot.remember(cx.waker());
            if matches!(worker.stage(), Stage::Draining(_) | Stage::Ended) {
                return Poll::Ready(false);
            }
            rest.as_mut().poll(cx).map(|()| true)
        })
        .await
    }
}
