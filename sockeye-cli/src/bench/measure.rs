//! One run: starts the threads, leads them through its stages, and makes the report.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::bench::cpu::{MEASURING, ProcessCpu, ThreadCpu};
use crate::bench::interrupt::Interrupts;
use crate::bench::live::{Live, Phase, Progress};
use crate::bench::plan::{Extent, Pace, Plan, Stage, Times};
use crate::bench::recorder::Record;
use crate::bench::timeline::Timeline;
use crate::bench::worker::{self, Found, Word, at};
use crate::exit::{Code, Failure};

/// What a run has found, of all threads together.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) record: Record,
    /// Open at the beginning.
    pub(crate) opened: usize,
    pub(crate) served: usize,
    pub(crate) measured_ns: f64,
    pub(crate) own: Vec<Own>,
    pub(crate) server: Option<ProcessCpu>,
    pub(crate) timeline: Timeline,
    pub(crate) interrupted: bool,
}

/// One thread's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) cpu: ThreadCpu,
    pub(crate) spun_ns: u64,
}

/// Whose CPU time is the server's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watched {
    Nobody,
    Process(u32),
    /// This process, but for the threads that measure.
    Ourselves,
}

/// After the end what is under way may take so long. Later answers are none.
const DRAIN: Duration = Duration::from_secs(2);

/// A schedule begins a moment later than the threads are told, so that its first messages are in time.
const HEAD_START: Duration = Duration::from_millis(2);

/// Within this time all threads have told of a piece that is over.
const HEARD: Duration = Duration::from_millis(50);

/// Runs, and shows how it gets on. An interrupt ends it early, with what there is by then.
pub(crate) async fn measure(
    plan: Plan,
    watched: Watched,
    interrupts: Interrupts,
    live: &Live,
    tried_per_s: Option<f64>,
) -> Result<Measured, Failure> {
    let plan = Arc::new(plan);
    let mut run = Run::start(Arc::clone(&plan), interrupts)?;
    let stages = &run.stages.clone();
    let lead = Lead {
        plan: &plan,
        watched,
        stages,
        live,
        tried_per_s,
    };
    lead.show(&run, Phase::Opening, Duration::ZERO, None);
    let opened = run.opened().await?;
    let led = lead.through(&mut run).await;
    stages.send_replace(Stage::Ended);
    let found = run.join()?;
    let led = led?;
    let mut record = Record::new();
    for thread in &found {
        record.merge(&thread.record);
    }
    if let Pace::Closed = plan.pace {
        record.service = record.latency.clone();
    }
    let measured_ns = match plan.extent {
        Extent::Messages(_) if !led.interrupted => record.last_ns.max(led.measure_ns + 1),
        _ => led.end_ns,
    } - led.measure_ns;
    let own: Vec<Own> = found
        .iter()
        .map(|thread| Own {
            cpu: thread.cpu,
            spun_ns: thread.spun_ns,
        })
        .collect();
    Ok(Measured {
        record,
        opened,
        served: found.iter().map(|thread| thread.served).sum(),
        measured_ns: measured_ns as f64,
        server: led.server,
        own,
        timeline: run.timeline,
        interrupted: led.interrupted,
    })
}

/// The threads.
struct Run {
    threads: Vec<JoinHandle<std::io::Result<Found>>>,
    stages: watch::Sender<Stage>,
    words: mpsc::UnboundedReceiver<(usize, Word)>,
    interrupts: Interrupts,
    timeline: Timeline,
    /// Threads that have measured all they were to measure, and those that have nothing under way any more. A short run is
    /// over before anybody waits for it.
    done: usize,
    drained: usize,
}

impl Run {
    fn start(plan: Arc<Plan>, interrupts: Interrupts) -> Result<Self, Failure> {
        let (stages, _) = watch::channel(Stage::Opening);
        // Bounded by its senders: four words a second each.
        let (sender, words) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for number in 0..plan.threads {
            let (plan, stages, sender) = (Arc::clone(&plan), stages.subscribe(), sender.clone());
            let thread = thread::Builder::new()
                .name(format!("{MEASURING}{number}"))
                .spawn(move || worker::run(plan, number, stages, sender));
            let cannot = |error| Failure::usage(anyhow!("cannot start a thread: {error}"));
            threads.push(thread.map_err(cannot)?);
        }
        Ok(Self {
            threads,
            stages,
            words,
            interrupts,
            timeline: Timeline::new(),
            done: 0,
            drained: 0,
        })
    }

    /// Hears a word; `None` if there is nobody to say one any more.
    async fn hear(&mut self) -> Option<()> {
        let (thread, word) = self.words.recv().await?;
        match word {
            Word::Interval(interval) => self.timeline.take(thread, interval),
            Word::Done => self.done += 1,
            Word::Drained => self.drained += 1,
            Word::Opened(_) => {}
        }
        Some(())
    }

    /// Waits until every connection was tried once, and says how many are open.
    async fn opened(&mut self) -> Result<usize, Failure> {
        let (mut opened, mut left) = (0, self.threads.len());
        while left > 0 {
            tokio::select! {
                word = self.words.recv() => match word {
                    Some((_, Word::Opened(open))) => {
                        opened += open;
                        left -= 1;
                    }
                    Some(_) => {}
                    None => return Err(self.failed()),
                },
                () = self.interrupts.next() => {
                    self.stages.send_replace(Stage::Ended);
                    return Err(Failure::new(Code::Interrupted, anyhow!("interrupted before it began")));
                }
            }
        }
        Ok(opened)
    }

    /// A thread has ended without a word.
    fn failed(&mut self) -> Failure {
        self.stages.send_replace(Stage::Ended);
        match self.join() {
            Err(failure) => failure,
            Ok(_) => Failure::usage(anyhow!("the threads that measure have ended")),
        }
    }

    fn join(&mut self) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        for thread in self.threads.drain(..) {
            let ended = thread
                .join()
                .map_err(|_| Failure::usage(anyhow!("a thread that measures has panicked")))?;
            found.push(
                ended.map_err(|error| Failure::usage(anyhow!(error).context("cannot measure")))?,
            );
        }
        Ok(found)
    }
}

/// Who leads the threads through the stages.
struct Lead<'a> {
    plan: &'a Plan,
    watched: Watched,
    stages: &'a watch::Sender<Stage>,
    live: &'a Live,
    tried_per_s: Option<f64>,
}

struct Led {
    measure_ns: u64,
    end_ns: u64,
    server: Option<ProcessCpu>,
    interrupted: bool,
}

impl Lead<'_> {
    async fn through(&self, run: &mut Run) -> Result<Led, Failure> {
        let head_start = match self.plan.pace {
            Pace::Closed => Duration::ZERO,
            Pace::Open { .. } => HEAD_START,
        };
        let start_ns = self.plan.now_ns() + head_start.as_nanos() as u64;
        let measure_ns = start_ns + self.plan.warmup.as_nanos() as u64;
        let end_ns = match self.plan.extent {
            Extent::Time(time) => measure_ns + time.as_nanos() as u64,
            Extent::Messages(_) => u64::MAX,
        };
        let mut times = Times {
            start_ns,
            measure_ns,
            end_ns,
        };
        run.timeline.begin(start_ns, measure_ns);
        self.stages.send_replace(Stage::Running(times));
        let mut interrupted = self
            .until(
                run,
                &times,
                Phase::WarmUp,
                Some(self.plan.warmup),
                self.at(measure_ns),
            )
            .await;
        let before = self.server_cpu()?;
        if !interrupted {
            let (total, end) = match self.plan.extent {
                Extent::Time(time) => (Some(time), self.at(end_ns)),
                Extent::Messages(_) => (None, None),
            };
            interrupted = self.until(run, &times, Phase::Measuring, total, end).await;
        }
        let after = self.server_cpu()?;
        let server = after
            .zip(before)
            .map(|(after, before)| after.since(&before));
        times.end_ns = times.end_ns.min(self.plan.now_ns());
        times.measure_ns = times.measure_ns.min(times.end_ns);
        self.stages.send_replace(Stage::Draining(times));
        let drained = Instant::now() + DRAIN.min(self.plan.timeout);
        self.show(run, Phase::Draining, Duration::ZERO, None);
        self.drain(run, drained).await;
        run.timeline.finish(times.end_ns);
        Ok(Led {
            measure_ns: times.measure_ns,
            end_ns: times.end_ns,
            server,
            interrupted,
        })
    }

    fn at(&self, ns: u64) -> Option<Instant> {
        let at = self.plan.origin.checked_add(Duration::from_nanos(ns))?;
        Some(Instant::from_std(at))
    }

    /// Waits until then, or until all have done what they were to do. Whether it was interrupted.
    async fn until(
        &self,
        run: &mut Run,
        times: &Times,
        phase: Phase,
        total: Option<Duration>,
        then: Option<Instant>,
    ) -> bool {
        let began = Instant::now();
        let mut over = std::pin::pin!(at(then));
        let mut interrupts = run.interrupts.clone();
        // What is told of a piece is known a moment after its end.
        let next = self.plan.now_ns().saturating_sub(HEARD.as_nanos() as u64);
        let mut end_ns = times.next_piece_ns(next);
        loop {
            tokio::select! {
                () = &mut over => return false,
                () = interrupts.next() => {
                    // The next one is another one.
                    run.interrupts = interrupts;
                    return true;
                }
                () = at(self.at(end_ns).map(|end| end + HEARD)) => {
                    run.timeline.tick(end_ns);
                    end_ns = times.next_piece_ns(end_ns);
                    self.show(run, phase, began.elapsed(), total);
                }
                // Threads that have failed say so when they are joined.
                heard = run.hear() => if heard.is_none() || run.done == self.plan.threads {
                    return false;
                },
            }
        }
    }

    fn show(&self, run: &Run, phase: Phase, elapsed: Duration, total: Option<Duration>) {
        let last = run.timeline.last();
        let last = last.as_ref();
        let errors = run.timeline.errors().into_iter();
        self.live.show(&Progress {
            phase,
            elapsed,
            total,
            tried_per_s: self.tried_per_s,
            rate_per_s: run.timeline.last_second_rate().unwrap_or(0.0),
            p50_us: last.and_then(|point| point.p50_us),
            p99_us: last.and_then(|point| point.p99_us),
            max_us: last.and_then(|point| point.max_us),
            errors: errors
                .map(|(kind, count)| (kind.into_owned(), count))
                .collect(),
        });
    }

    fn server_cpu(&self) -> Result<Option<ProcessCpu>, Failure> {
        let cpu = match self.watched {
            Watched::Nobody => return Ok(None),
            Watched::Process(pid) => ProcessCpu::of(pid).map_err(|error| {
                let error = anyhow!(error)
                    .context(format!("--pid: cannot read the CPU time of process {pid}"));
                Failure::usage(error).with_hint("it has ended, or it is not yours")
            }),
            Watched::Ourselves => ProcessCpu::of_our_server().map_err(|error| {
                Failure::usage(anyhow!(error).context("cannot read the CPU time of this process"))
            }),
        };
        cpu.map(Some)
    }

    async fn drain(&self, run: &mut Run, until: Instant) {
        let mut interrupts = run.interrupts.clone();
        let drained =
            async { while run.drained < self.plan.threads && run.hear().await.is_some() {} };
        tokio::select! {
            _ = tokio::time::timeout_at(until, drained) => {}
            () = interrupts.next() => {}
        }
    }
}
