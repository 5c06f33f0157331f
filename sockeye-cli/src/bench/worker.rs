//! One thread: its connections, and what they have in common.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bench::connection;
use crate::bench::cpu::ThreadCpu;
use crate::bench::pacer::Pacer;
use crate::bench::plan::{Extent, Pace, Plan, Stage, Times};
use crate::bench::recorder::{INTERVAL, Interval, Record};
use crate::cli::bench::Mode;

/// What a thread tells while it runs.
#[derive(Debug)]
pub(crate) enum Word {
    /// Every connection has been opened once, or could not be. So many are open.
    Opened(usize),
    /// At the end of each piece of the timeline, and of the measured time.
    Interval(Interval),
    /// The messages that it was to measure are all answered, or never will be.
    Done,
    /// Nothing is under way any more.
    Drained,
}

/// What a thread has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) served: usize,
    /// In the measured time.
    pub(crate) cpu: ThreadCpu,
    /// In the measured time, waiting for the next instant.
    pub(crate) spun_ns: u64,
}

/// What the connections of one thread share.
pub(crate) struct Worker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) pacer: Pacer,
    pub(crate) slots: Vec<Slot>,
    pub(crate) record: RefCell<Record>,
    pub(crate) interval: RefCell<Interval>,
    /// Connections that may be opened at a time: more overflow the listen queue of many a server.
    pub(crate) opening: Semaphore,
    stage: Cell<Stage>,
    /// Of the run, also when it has ended.
    last_times: Cell<Option<Times>>,
    /// Messages that may still be started and measured.
    left: Cell<u64>,
    /// Measured messages that are started and not answered.
    under_way: Cell<u64>,
    done: Notify,
    begun: Notify,
    /// Counts the intervals, so that a connection knows when it is to look at the kernel's account again.
    pub(crate) look: Cell<u32>,
    settled: Cell<usize>,
    open: Cell<usize>,
    all_settled: Notify,
    /// Kept connections that are open now, and since when there was none.
    kept: Cell<usize>,
    none_since_ns: Cell<u64>,
}

/// A place for one connection after another.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Among the connections of all threads.
    pub(crate) index: usize,
    /// Among those of this thread.
    pub(crate) number: usize,
    /// When the oldest message under way was sent; `u64::MAX` if there is none.
    pub(crate) oldest_ns: Cell<u64>,
    /// Its oldest message has waited for too long.
    pub(crate) expired: Cell<bool>,
    /// A message that counts was answered.
    pub(crate) served: Cell<bool>,
    /// Connections begun so far.
    begun: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// At most so many connections are begun and not yet open on a thread.
const MOST_OPENING: usize = 256;

/// So long after the end the connections may close in good order.
const CLOSING: Duration = Duration::from_secs(2);

/// Runs one thread to its end.
pub(crate) fn run(
    plan: Arc<Plan>,
    thread: usize,
    stages: watch::Receiver<Stage>,
    words: mpsc::UnboundedSender<(usize, Word)>,
) -> io::Result<Found> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    if let Pace::Open { .. } = plan.pace {
        // Many turns of tasks between two looks at the sockets would make what is due late.
        builder.event_interval(TURNS_OPEN);
    }
    let runtime = builder.build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let worker = Rc::new(Worker::new(plan, thread)?);
        let mut tasks = JoinSet::new();
        for number in 0..worker.slots.len() {
            tasks.spawn_local(connection::run(Rc::clone(&worker), number));
        }
        let tell = |word| {
            // Nobody listens when the run was given up.
            let _ = words.send((thread, word));
        };
        let mut used = Used::default();
        tokio::select! {
            ended = worker.pacer.run() => ended?,
            () = worker.oversee(stages, &tell, &mut used) => {}
            () = worker.tell_progress(&tell) => {}
            () = worker.expire() => {}
            () = async {
                while tasks.join_next().await.is_some() {}
                tell(Word::Drained);
                std::future::pending().await
            } => {}
        }
        let closed = async { while tasks.join_next().await.is_some() {} };
        // Whoever has not closed by then is dropped with the runtime.
        let _ = tokio::time::timeout(CLOSING, closed).await;
        drop(tasks);
        let served = worker.slots.iter().filter(|slot| slot.served.get()).count();
        Ok(Found {
            record: worker.record.replace(Record::new()),
            served,
            cpu: used.cpu,
            spun_ns: used.spun_ns,
        })
    })
}

const TURNS_OPEN: u32 = 8;

/// What the thread used in the measured time.
#[derive(Default)]
struct Used {
    cpu: ThreadCpu,
    spun_ns: u64,
}

impl Worker {
    fn new(plan: Arc<Plan>, thread: usize) -> io::Result<Self> {
        let indices = (thread..plan.connections).step_by(plan.threads);
        let slots: Vec<Slot> = indices.enumerate().map(Slot::new).collect();
        Ok(Self {
            pacer: Pacer::new(plan.origin, slots.len())?,
            slots,
            record: RefCell::new(Record::new()),
            interval: RefCell::new(Interval::new()),
            opening: Semaphore::new(MOST_OPENING),
            stage: Cell::new(Stage::Opening),
            last_times: Cell::new(None),
            left: Cell::new(plan.share_of(thread)),
            under_way: Cell::new(0),
            done: Notify::new(),
            begun: Notify::new(),
            look: Cell::new(0),
            settled: Cell::new(0),
            open: Cell::new(0),
            all_settled: Notify::new(),
            kept: Cell::new(0),
            none_since_ns: Cell::new(0),
            plan,
        })
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// The times of the run, from its start to its end.
    pub(crate) fn times(&self) -> Option<Times> {
        match self.stage.get() {
            Stage::Opening | Stage::Ended => None,
            Stage::Running(times) | Stage::Draining(times) => Some(times),
        }
    }

    /// As [`Self::times`], and also when all has ended.
    pub(crate) fn last_times(&self) -> Option<Times> {
        self.last_times.get()
    }

    /// Whether there are messages left to measure.
    pub(crate) fn may_start(&self) -> bool {
        self.left.get() > 0
    }

    /// Whether a message may be started that is due then, and if so, whether it counts. Also when all has ended, for
    /// messages that were due and had no chance.
    pub(crate) fn admit(&self, due_ns: u64) -> Option<bool> {
        let times = self.last_times()?;
        if due_ns < times.measure_ns {
            return Some(false);
        }
        if due_ns >= times.end_ns || self.left.get() == 0 {
            return None;
        }
        self.left.set(self.left.get() - 1);
        self.under_way.set(self.under_way.get() + 1);
        Some(true)
    }

    /// A message that counts was answered, or given up.
    pub(crate) fn settled(&self) {
        self.under_way.set(self.under_way.get() - 1);
        if self.under_way.get() == 0 && self.left.get() == 0 {
            self.done.notify_one();
        }
    }

    /// The first attempt to open a connection has ended.
    pub(crate) fn first_attempt(&self, is_open: bool) {
        self.settled.set(self.settled.get() + 1);
        self.open.set(self.open.get() + usize::from(is_open));
        if self.settled.get() == self.slots.len() {
            self.all_settled.notify_one();
        }
    }

    /// A connection that is kept was opened.
    pub(crate) fn keeps(&self) {
        self.kept.set(self.kept.get() + 1);
    }

    /// One that was kept is closed.
    pub(crate) fn keeps_no_more(&self) {
        self.kept.set(self.kept.get() - 1);
        self.none_since_ns.set(self.pacer.now_ns());
    }

    /// A number of messages is not waited for without end where nothing is there to send them on.
    fn give_up_without_connections(&self, now_ns: u64) {
        let is_counted = matches!(self.plan.extent, Extent::Messages(_));
        let is_kept = self.plan.mode != Mode::Connect;
        let Stage::Running(times) = self.stage() else {
            return;
        };
        if !is_counted || !is_kept || self.kept.get() > 0 || self.left.get() == 0 {
            return;
        }
        let since_ns = self.none_since_ns.get().max(times.start_ns);
        if Duration::from_nanos(now_ns.saturating_sub(since_ns)) > self.plan.timeout {
            self.left.set(0);
            if self.under_way.get() == 0 {
                self.done.notify_one();
            }
        }
    }

    /// Follows the stages until the end, and takes the CPU time at both ends of the measured time.
    async fn oversee(
        &self,
        mut stages: watch::Receiver<Stage>,
        tell: &impl Fn(Word),
        used: &mut Used,
    ) {
        let mut before = None;
        let mut begins = None;
        self.all_settled.notified().await;
        tell(Word::Opened(self.open.get()));
        loop {
            let stage = *stages.borrow_and_update();
            let is_new = stage != self.enter(stage);
            match stage {
                Stage::Running(times) if is_new => {
                    begins = Some(self.instant(times.measure_ns));
                    // What came before, while connections were opened, is of no piece.
                    drop(self.interval());
                    self.begun.notify_one();
                    // Of few messages some threads have none.
                    if self.left.get() == 0 {
                        self.done.notify_one();
                    }
                }
                Stage::Draining(_) | Stage::Ended => {
                    if let (Stage::Draining(_), true) = (stage, is_new) {
                        tell(self.interval());
                    }
                    begins = None;
                    if let Some((cpu, spun_ns)) = before.take() {
                        used.cpu = ThreadCpu::now().since(&cpu);
                        used.spun_ns = self.pacer.spun_ns() - spun_ns;
                    }
                }
                _ => {}
            }
            if stage == Stage::Ended {
                return;
            }
            tokio::select! {
                changed = stages.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.done.notified() => tell(Word::Done),
                () = at(begins) => {
                    begins = None;
                    before = Some((ThreadCpu::now(), self.pacer.spun_ns()));
                }
            }
        }
    }

    /// Enters a stage, of which all connections are told; returns the one before.
    fn enter(&self, stage: Stage) -> Stage {
        if let Stage::Running(times) | Stage::Draining(times) = stage {
            self.last_times.set(Some(times));
        }
        let before = self.stage.replace(stage);
        if stage != before {
            for slot in &self.slots {
                slot.wake();
            }
        }
        before
    }

    fn instant(&self, ns: u64) -> Instant {
        Instant::from_std(self.plan.origin + Duration::from_nanos(ns))
    }

    /// Tells how it goes, piece by piece of the timeline.
    async fn tell_progress(&self, tell: &impl Fn(Word)) {
        self.begun.notified().await;
        while let Stage::Running(times) = self.stage() {
            let end_ns = times.next_piece_ns(self.pacer.now_ns());
            tokio::time::sleep_until(self.instant(end_ns)).await;
            // The last piece was told at the end: what comes after it is of none.
            if let Stage::Running(_) = self.stage() {
                self.look.set(self.look.get().wrapping_add(1));
                tell(self.interval());
            }
        }
        std::future::pending().await
    }

    /// What has happened since this was told last.
    fn interval(&self) -> Word {
        Word::Interval(self.interval.replace(Interval::new()))
    }

    /// Looks for messages that wait for too long.
    async fn expire(&self) {
        let timeout = self.plan.timeout;
        loop {
            tokio::time::sleep((timeout / 10).clamp(SOONEST_LOOK, INTERVAL)).await;
            let now = self.pacer.now_ns();
            for slot in &self.slots {
                if slot.is_late(now, timeout) {
                    slot.expired.set(true);
                    slot.wake();
                }
            }
            self.give_up_without_connections(now);
        }
    }
}

/// As often as tokio's timers tick.
const SOONEST_LOOK: Duration = Duration::from_millis(1);

/// Never, if there is no such time.
pub(crate) async fn at(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

impl Slot {
    fn new((number, index): (usize, usize)) -> Self {
        Self {
            index,
            number,
            oldest_ns: Cell::new(u64::MAX),
            expired: Cell::new(false),
            served: Cell::new(false),
            begun: Cell::new(0),
            waker: RefCell::new(None),
        }
    }

    /// Which of the source addresses the next connection has its turn with, of `places` that take turns.
    pub(crate) fn next_source(&self, places: usize) -> usize {
        let before = self.begun.replace(self.begun.get().wrapping_add(1));
        before.wrapping_mul(places).wrapping_add(self.index)
    }

    /// Whether its oldest message has waited for longer than this.
    pub(crate) fn is_late(&self, now_ns: u64, timeout: Duration) -> bool {
        Duration::from_nanos(now_ns.saturating_sub(self.oldest_ns.get())) > timeout
    }

    /// Whom to wake when the stage changes, or the time is up.
    pub(crate) fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
