//! What happens while a server serves, as JSON on stdout and as lines on stderr. docs/events.md is the contract.

use std::io::{self, stderr, stdout};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sockeye::shutdown::Summary;
use sockeye::stats::{AcceptFailed, Accepted, Closed, Listening, Observer, Refused, Snapshot};
use sockeye::tcp_info::TcpInfo;

use crate::cli::Serve;
use crate::output::{Lines, Writer, talk};

/// One event. The names of the fields are those of docs/events.md.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Listening {
        service: &'static str,
        address: String,
        workers: usize,
        max_connections: usize,
        pid: u32,
    },
    Accept {
        id: u64,
        peer: String,
        listener: String,
    },
    Refuse {
        id: u64,
        peer: String,
        reason: &'static str,
    },
    Close {
        id: u64,
        peer: String,
        reason: &'static str,
        bytes_in: u64,
        bytes_out: u64,
        duration_ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tcp_info: Option<Box<TcpInfo>>,
    },
    AcceptError {
        listener: String,
        error: String,
        failures: u64,
        pause_ms: u64,
    },
    Snapshot(Counters),
    Reload {
        changed: bool,
    },
    Drain {
        open: u64,
        deadline_ms: u64,
    },
    Stopped {
        cut: u64,
        #[serde(flatten)]
        counters: Counters,
    },
    Dropped {
        events: u64,
    },
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counters {
    accepted: u64,
    refused: u64,
    open: u64,
    closed: u64,
    bytes_in: u64,
    bytes_out: u64,
    accept_errors: u64,
    deferrals: u64,
    deferred_ms: u64,
}

impl From<Snapshot> for Counters {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            accepted: snapshot.accepted,
            refused: snapshot.refused,
            open: snapshot.open,
            closed: snapshot.closed,
            bytes_in: snapshot.bytes_in,
            bytes_out: snapshot.bytes_out,
            accept_errors: snapshot.accept_errors,
            deferrals: snapshot.deferrals,
            deferred_ms: millis(snapshot.deferred),
        }
    }
}

impl Event {
    pub(crate) fn snapshot(snapshot: Snapshot) -> Self {
        Self::Snapshot(snapshot.into())
    }

    pub(crate) fn drain(snapshot: Snapshot, deadline: Duration) -> Self {
        Self::Drain {
            open: snapshot.open,
            deadline_ms: millis(deadline),
        }
    }

    pub(crate) fn stopped(summary: &Summary) -> Self {
        Self::Stopped {
            cut: summary.cut(),
            counters: summary.snapshot.into(),
        }
    }

    /// The line for people.
    fn text(&self) -> String {
        match self {
            Self::Listening {
                service, address, ..
            } => format!("listening on {address} ({service})"),
            Self::Accept { id, peer, .. } => format!("accept {id} from {peer}"),
            Self::Refuse { id, peer, reason } => format!("refuse {id} from {peer}: {reason}"),
            Self::Close {
                id,
                peer,
                reason,
                bytes_in,
                bytes_out,
                duration_ms,
                error,
                ..
            } => {
                let error = error
                    .as_ref()
                    .map_or_else(String::new, |e| format!(" ({e})"));
                format!(
                    "close {id} from {peer}: {reason}{error} after {duration_ms} ms, {bytes_in} bytes in, {bytes_out} out"
                )
            }
            Self::AcceptError {
                listener,
                error,
                failures,
                pause_ms,
            } => format!(
                "cannot accept on {listener}: {error} ({failures} times); pausing for {pause_ms} ms"
            ),
            Self::Snapshot(counters) => counters.text(),
            Self::Reload { .. } => "HUP: there is nothing to reload".to_owned(),
            Self::Drain { open, deadline_ms } => format!(
                "draining {open} open connections for at most {} s; a second signal cuts them now",
                *deadline_ms as f64 / 1e3
            ),
            Self::Stopped { cut, counters } => {
                format!("stopped: {} accepted, {cut} cut", counters.accepted)
            }
            Self::Dropped { events } => format!("{events} lines dropped: their reader is too slow"),
        }
    }

    /// Whether it is told without `-v`.
    fn is_news(&self) -> bool {
        !matches!(
            self,
            Self::Accept { .. } | Self::Refuse { .. } | Self::Close { .. }
        )
    }

    fn is_error(&self) -> bool {
        matches!(self, Self::AcceptError { .. })
    }

    fn json(&self, time: SystemTime) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            event: &'a Event,
            time: String,
        }
        let time = humantime::format_rfc3339_millis(time).to_string();
        serde_json::to_string(&Line { event: self, time })
            .unwrap_or_else(|error| unreachable!("only numbers and text: {error}"))
    }
}

impl Counters {
    fn text(&self) -> String {
        format!(
            "{} open, {} accepted, {} refused, {} closed; {} bytes in, {} out (of those closed); \
             {} accept errors, full {} times for {} ms",
            self.open,
            self.accepted,
            self.refused,
            self.closed,
            self.bytes_in,
            self.bytes_out,
            self.accept_errors,
            self.deferrals,
            self.deferred_ms
        )
    }
}

/// Puts events in the queues of those who want them.
pub(crate) struct Reporter {
    service: &'static str,
    json: Option<Lines<(SystemTime, Event)>>,
    text: Lines<Event>,
    wants: Wants,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wants {
    Errors,
    News,
    Everything,
}

/// The threads behind a [`Reporter`].
pub(crate) struct Writers {
    text: Writer,
    json: Option<Writer>,
}

impl Writers {
    /// Waits, within bounds, until all is written, and says whether stderr can still be written to. The [`Reporter`]
    /// must have been dropped.
    #[must_use]
    pub(crate) fn finish(self) -> bool {
        let text = self.text.finish();
        let json = self.json.is_none_or(Writer::finish);
        if text && !json {
            talk("the last events were not written: their reader does not read");
        }
        text
    }
}

/// Starts the writers; `unread` is called when stdout has no reader any more.
pub(crate) fn start(
    arguments: &Serve,
    unread: impl FnOnce() + Send + 'static,
) -> io::Result<(Reporter, Writers)> {
    let dropped = |events| Event::Dropped { events };
    let (text, text_writer) = Lines::start(
        stderr(),
        Event::text,
        move |events| dropped(events).text(),
        || (),
    )?;
    let (json, json_writer) = if arguments.json {
        let (lines, writer) = Lines::start(
            stdout(),
            |(time, event): &(SystemTime, Event)| event.json(*time),
            move |events| dropped(events).json(SystemTime::now()),
            unread,
        )?;
        (Some(lines), Some(writer))
    } else {
        (None, None)
    };
    let wants = match (arguments.quiet, arguments.verbose) {
        (true, _) => Wants::Errors,
        (false, false) => Wants::News,
        (false, true) => Wants::Everything,
    };
    let reporter = Reporter {
        service: arguments.service.name(),
        json,
        text,
        wants,
    };
    let writers = Writers {
        text: text_writer,
        json: json_writer,
    };
    Ok((reporter, writers))
}

impl Reporter {
    pub(crate) fn report(&self, event: Event) {
        let told = match self.wants {
            Wants::Everything => true,
            Wants::News => event.is_news(),
            Wants::Errors => event.is_error(),
        };
        if told {
            self.text.send(event.clone());
        }
        if let Some(json) = &self.json {
            json.send((SystemTime::now(), event));
        }
    }

    /// Whether anybody is told of single connections: making the text costs on every one.
    fn wants_connections(&self) -> bool {
        self.json.is_some() || self.wants == Wants::Everything
    }
}

impl Observer for Reporter {
    fn listen(&self, event: &Listening<'_>) {
        for address in event.addresses {
            self.report(Event::Listening {
                service: self.service,
                address: address.to_string(),
                workers: event.workers,
                max_connections: event.max_connections,
                pid: std::process::id(),
            });
        }
    }

    fn accept(&self, event: &Accepted<'_>) {
        if self.wants_connections() {
            self.report(Event::Accept {
                id: event.id,
                peer: event.peer.to_string(),
                listener: event.listener.to_string(),
            });
        }
    }

    fn refuse(&self, event: &Refused<'_>) {
        if self.wants_connections() {
            self.report(Event::Refuse {
                id: event.id,
                peer: event.peer.to_string(),
                reason: event.reason.as_str(),
            });
        }
    }

    fn close(&self, event: &Closed<'_>) {
        if self.wants_connections() {
            self.report(Event::Close {
                id: event.id,
                peer: event.peer.to_string(),
                reason: event.reason.as_str(),
                bytes_in: event.bytes_in,
                bytes_out: event.bytes_out,
                duration_ms: event.duration.as_micros() as f64 / 1e3,
                error: event.error.map(ToString::to_string),
                tcp_info: event.tcp_info.copied().map(Box::new),
            });
        }
    }

    fn accept_error(&self, event: &AcceptFailed<'_>) {
        self.report(Event::AcceptError {
            listener: event.listener.to_string(),
            error: event.error.to_string(),
            failures: event.failures,
            pause_ms: millis(event.pause),
        });
    }

    fn wants_tcp_info(&self) -> bool {
        self.json.is_some()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
