//! What happens while a server serves, as JSON on stdout and as lines on stderr. docs/events.md is the contract.

use std::collections::BTreeMap;
use std::io::{self, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use sockeye::Addr;
use sockeye::admission::RefuseReason;
use sockeye::proxy_protocol::Header;
use sockeye::shutdown::Summary;
use sockeye::stats::{
    AcceptFailed, Accepted, Closed, Listening, Observer, Opened, Refused, Snapshot,
};
use sockeye::tcp_info::TcpInfo;

use crate::certificate::Certificate;
use crate::cli::serve::Serve;
use crate::exit::{Failure, escaped};
use crate::output::{Lines, Writer, talk};
use crate::serve::refusals::Refusals;
use crate::session::{ProxyHeader, Tls};

/// One event. The names of the fields are those of docs/events.md.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Listening {
        service: &'static str,
        address: String,
        tls: bool,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        reason: &'static str,
    },
    /// More than are told one by one.
    Refused {
        count: u64,
        reasons: BTreeMap<&'static str, u64>,
    },
    Handshake {
        id: u64,
        peer: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        duration_ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        proxy_header: Option<Box<ProxyHeader>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Box<Tls>>,
    },
    Close {
        id: u64,
        peer: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<String>,
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
    /// What clients are shown from now on.
    Certificate {
        #[serde(flatten)]
        certificate: Box<Certificate>,
        #[serde(skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
    },
    Reload {
        changed: bool,
        cause: Cause,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
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

/// Why something is read anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    Hup,
    Files,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Counters {
    accepted: u64,
    refused: u64,
    refused_by: BTreeMap<&'static str, u64>,
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
            refused_by: RefuseReason::ALL
                .map(|reason| (reason.as_str(), snapshot.refused_by(reason)))
                .into(),
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
    fn accept(id: u64, peer: &Addr, listener: &Addr) -> Self {
        Self::Accept {
            id,
            peer: peer.to_string(),
            listener: listener.to_string(),
        }
    }

    pub(crate) fn nothing_to_reload() -> Self {
        Self::Reload {
            changed: false,
            cause: Cause::Hup,
            error: None,
        }
    }

    pub(crate) fn reload(cause: Cause, reloaded: Result<(), Failure>) -> Self {
        Self::Reload {
            changed: reloaded.is_ok(),
            cause,
            error: reloaded.err().map(|failure| format!("{:#}", failure.error)),
        }
    }

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
                service,
                address,
                tls,
                ..
            } => {
                let over = if *tls { " over TLS" } else { "" };
                format!("listening on {address} ({service}{over})")
            }
            Self::Accept { id, peer, .. } => format!("accept {id} from {peer}"),
            Self::Refuse {
                id,
                peer,
                client,
                reason,
            } => format!("refuse {id} from {}: {reason}", whom(peer, client)),
            Self::Refused { count, reasons } => {
                format!("refused {count} more: {}", listed(reasons))
            }
            Self::Handshake {
                id,
                peer,
                client,
                duration_ms,
                proxy_header,
                tls,
            } => {
                let header = proxy_header.as_ref().map(|header| header.line());
                let tls = tls.as_ref().map(|tls| tls.line());
                let said: Vec<String> = header.into_iter().chain(tls).collect();
                let whom = whom(peer, client);
                format!(
                    "handshake {id} with {whom} after {duration_ms} ms: {}",
                    said.join("; ")
                )
            }
            Self::Certificate {
                certificate,
                warning,
            } => match warning {
                None => format!("certificate {}", certificate.line()),
                Some(warning) => {
                    let line = certificate.line();
                    format!("warning: certificate {line}: {warning}")
                }
            },
            Self::Close {
                id,
                peer,
                client,
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
                    "close {id} from {}: {reason}{error} after {duration_ms} ms, {bytes_in} bytes in, {bytes_out} out",
                    whom(peer, client)
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
            Self::Reload {
                error: Some(error), ..
            } => format!("warning: nothing is changed: {error}"),
            Self::Reload {
                changed: true,
                cause: Cause::Files,
                ..
            } => "reloaded the certificates: their files have changed".to_owned(),
            Self::Reload {
                changed: true,
                cause: Cause::Hup,
                ..
            } => "HUP: reloaded".to_owned(),
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
            Self::Accept { .. }
                | Self::Refuse { .. }
                | Self::Refused { .. }
                | Self::Handshake { .. }
                | Self::Close { .. }
        )
    }

    fn is_error(&self) -> bool {
        match self {
            Self::AcceptError { .. } => true,
            Self::Reload { error, .. } => error.is_some(),
            Self::Certificate { warning, .. } => warning.is_some(),
            _ => false,
        }
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

/// The client, and the proxy that speaks for it.
fn whom(peer: &str, client: &Option<String>) -> String {
    match client {
        Some(client) => format!("{client} by {peer}"),
        None => peer.to_owned(),
    }
}

/// `3 denied, 1 rate`.
fn listed(reasons: &BTreeMap<&'static str, u64>) -> String {
    let counted = reasons.iter().filter(|(_, count)| **count > 0);
    let counted = counted.map(|(reason, count)| format!("{count} {reason}"));
    counted.collect::<Vec<_>>().join(", ")
}

impl Counters {
    fn text(&self) -> String {
        let refused = match self.refused {
            0 => "0 refused".to_owned(),
            refused => format!("{refused} refused ({})", listed(&self.refused_by)),
        };
        format!(
            "{} open, {} accepted, {refused}, {} closed; {} bytes in, {} out (of those closed); \
             {} accept errors, full {} times for {} ms",
            self.open,
            self.accepted,
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
    /// Which listeners speak TLS, and what they show.
    tls: Vec<bool>,
    shown: Vec<(Certificate, Option<String>)>,
    refusals: Mutex<Refusals>,
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
    tls: Vec<bool>,
    shown: Vec<(Certificate, Option<String>)>,
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
        tls,
        shown,
        refusals: Mutex::default(),
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

impl Reporter {
    /// What clients are shown from now on.
    pub(crate) fn certificates(&self, shown: Vec<(Certificate, Option<String>)>) {
        for (certificate, warning) in shown {
            self.report(Event::Certificate {
                certificate: Box::new(certificate),
                warning,
            });
        }
    }

    /// Tells of the refusals that were only counted, if it is time to.
    fn tell_refused(&self, now: Option<Instant>) {
        let refused = self.refusals().take(now);
        if let Some(reasons) = refused {
            let count = reasons.values().sum();
            self.report(Event::Refused { count, reasons });
        }
    }

    /// Those that were only counted until now.
    pub(crate) fn last_refused(&self) {
        self.tell_refused(None);
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Reporter {
    fn listen(&self, event: &Listening<'_>) {
        for (index, address) in event.addresses.iter().enumerate() {
            self.report(Event::Listening {
                service: self.service,
                address: address.to_string(),
                tls: self.tls.get(index).copied().unwrap_or(false),
                workers: event.workers,
                max_connections: event.max_connections,
                pid: std::process::id(),
            });
        }
        self.certificates(self.shown.clone());
    }

    fn accept(&self, event: &Accepted<'_>) {
        // Those that are refused at once are told by `refuse`, or only counted.
        if event.refused.is_none() && self.wants_connections() {
            self.tell_refused(Some(Instant::now()));
            self.report(Event::accept(event.id, event.peer, event.listener));
        }
    }

    fn refuse(&self, event: &Refused<'_>) {
        if !self.wants_connections() {
            return;
        }
        let at_once = event.client.is_none();
        let now = Instant::now();
        self.tell_refused(Some(now));
        if at_once && !self.refusals().may_tell(event.reason, now) {
            return;
        }
        if at_once {
            self.report(Event::accept(event.id, event.peer, event.listener));
        }
        self.report(Event::Refuse {
            id: event.id,
            peer: event.peer.to_string(),
            client: event.client.map(ToString::to_string),
            reason: event.reason.as_str(),
        });
    }

    fn open(&self, event: &Opened<'_>) {
        let session = event.stream.tls();
        let header = event.proxy_header;
        if !self.wants_connections() || (session.is_none() && header.is_none()) {
            return;
        }
        let client = header.and_then(Header::client);
        self.report(Event::Handshake {
            id: event.id,
            peer: event.peer.to_string(),
            client: client.map(|client| client.to_string()),
            duration_ms: event.after.as_micros() as f64 / 1e3,
            proxy_header: header.map(|header| Box::new(header.into())),
            tls: session.as_ref().map(|session| Box::new(session.into())),
        });
    }

    fn close(&self, event: &Closed<'_>) {
        if self.wants_connections() {
            self.report(Event::Close {
                id: event.id,
                peer: event.peer.to_string(),
                client: event.client.map(ToString::to_string),
                reason: event.reason.as_str(),
                bytes_in: event.bytes_in,
                bytes_out: event.bytes_out,
                duration_ms: event.duration.as_micros() as f64 / 1e3,
                error: event.error.map(in_words),
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

/// An error with its causes, where they say more.
fn in_words(error: &io::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.get_ref().and_then(|inner| inner.source());
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !words.ends_with(&said) {
            words = format!("{words}: {said}");
        }
        cause = inner.source();
    }
    escaped(&words)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
