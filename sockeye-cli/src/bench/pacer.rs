//! Wakes connections when their next message is due, to within some microseconds.
//!
//! The runtime's own timer ticks once a millisecond. Here a timer of the kernel (timerfd_create(2)) sleeps until shortly
//! before, and the rest is spun away: between two looks at the clock the runtime polls its sockets, so nothing waits for
//! the spinning.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Waker;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::bench::cpu::own_cpu_ns;

/// How long before an instant the sleep ends: what a wake-up costs on a virtual machine, with some room.
const SPIN_NS: u64 = 60_000;

/// The instants that the connections of one thread wait for. Times are nanoseconds since the origin.
#[derive(Debug)]
pub(crate) struct Pacer {
    origin: Instant,
    waiting: RefCell<BinaryHeap<Reverse<(u64, usize)>>>,
    /// By connection, with the instant that it waits for. An older one may still stand in `waiting`.
    wakers: RefCell<Vec<Option<(u64, Waker)>>>,
    /// What the task sleeps for; later ones need not disturb it.
    sleeps_until: Cell<u64>,
    earlier: Notify,
    timer: AsyncFd<OwnedFd>,
    /// Bumped whenever a connection has done something.
    work: Cell<u64>,
    spun_ns: Cell<u64>,
}

impl Pacer {
    /// Within a runtime, whose driver watches the timer.
    pub(crate) fn new(origin: Instant, connections: usize) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types whose descriptor may change; that of an OwnedFd does not"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self {
            origin,
            waiting: RefCell::default(),
            wakers: RefCell::new(vec![None; connections]),
            sleeps_until: Cell::new(u64::MAX),
            earlier: Notify::new(),
            timer,
            work: Cell::new(0),
            spun_ns: Cell::new(0),
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Has `waker` woken at an instant. A connection waits for one at a time.
    pub(crate) fn wake_at(&self, due_ns: u64, connection: usize, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        match &mut wakers[connection] {
            Some((due, known)) if known.will_wake(waker) => *due = due_ns,
            slot => *slot = Some((due_ns, waker.clone())),
        }
        self.waiting
            .borrow_mut()
            .push(Reverse((due_ns, connection)));
        if due_ns < self.sleeps_until.get() {
            self.earlier.notify_one();
        }
    }

    /// Something was opened, sent, received or closed: the time since the last look at the clock was not spun away.
    pub(crate) fn worked(&self) {
        self.work.set(self.work.get().wrapping_add(1));
    }

    /// What was spent on nothing but looking at the clock.
    pub(crate) fn spun_ns(&self) -> u64 {
        self.spun_ns.get()
    }

    /// Wakes, for ever. Cancel safe.
    pub(crate) async fn run(&self) -> io::Result<()> {
        loop {
            let now = self.now_ns();
            self.wake_due(now);
            let next = self.waiting.borrow().peek().map(|Reverse((due, _))| *due);
            match next {
                None => self.sleep(u64::MAX).await?,
                Some(due) if due > now + SPIN_NS => self.sleep(due - SPIN_NS).await?,
                Some(_) => self.spin().await,
            }
        }
    }

    fn wake_due(&self, now: u64) {
        let mut waiting = self.waiting.borrow_mut();
        let mut wakers = self.wakers.borrow_mut();
        while let Some(Reverse((due, connection))) = waiting.peek().copied()
            && due <= now
        {
            waiting.pop();
            if let Some((_, waker)) = wakers[connection].take_if(|(due, _)| *due <= now) {
                waker.wake();
            }
        }
    }

    /// One turn of the runtime: its ready tasks, and a look at its sockets.
    async fn spin(&self) {
        // In CPU time, as all of which it is a part: others may run meanwhile.
        let (work, before) = (self.work.get(), own_cpu_ns());
        tokio::task::yield_now().await;
        if self.work.get() == work {
            let spun = own_cpu_ns() - before;
            self.spun_ns.set(self.spun_ns.get() + spun);
        }
    }

    async fn sleep(&self, until: u64) -> io::Result<()> {
        self.sleeps_until.set(until.saturating_add(SPIN_NS));
        let alarm = async {
            if until == u64::MAX {
                return std::future::pending().await;
            }
            self.arm(until.saturating_sub(self.now_ns()))?;
            self.timer.readable().await?.clear_ready();
            io::Result::Ok(())
        };
        let ended = tokio::select! {
            ended = alarm => ended,
            () = self.earlier.notified() => Ok(()),
        };
        self.sleeps_until.set(0);
        ended
    }

    /// Setting it anew also takes back an expiry that nobody has read (timerfd_create(2)).
    fn arm(&self, after_ns: u64) -> io::Result<()> {
        // 0 would switch it off.
        let after_ns = after_ns.max(1);
        let value = Timespec {
            tv_sec: (after_ns / 1_000_000_000) as i64,
            tv_nsec: (after_ns % 1_000_000_000) as _,
        };
        let interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let new = Itimerspec {
            it_interval: interval,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &new)?;
        Ok(())
    }
}
