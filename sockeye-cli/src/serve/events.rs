//! What happens while a server serves, as JSON and as lines for people. docs/events.md is the contract.

mod http;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sockeye::Addr;
use sockeye::admission::RefuseReason;
use sockeye::shutdown::Summary;
use sockeye::stats::Snapshot;
use sockeye::tcp_info::TcpInfo;

use crate::certificate::Certificate;
use crate::exit::Failure;
use crate::session::{ProxyHeader, Tls};

pub(crate) use http::{BadRequest, Requested};

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
    Handshake(Box<Handshake>),
    Request(Box<Requested>),
    /// What came is none that can be read.
    BadRequest(Box<BadRequest>),
    /// A program runs for a connection.
    Start {
        id: u64,
        pid: i32,
    },
    /// A line of what a program says on stderr.
    Stderr {
        id: u64,
        text: String,
    },
    Exit(Exit),
    /// A program could not be started; some were before that are told only here.
    ExecError {
        id: u64,
        program: String,
        error: String,
        failures: u64,
    },
    Close(Box<Close>),
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
    Reload(Reload),
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
    /// Somebody who waits for us cannot be told.
    NotReady {
        error: String,
    },
}

/// What a connection went through before its service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Handshake {
    pub(super) id: u64,
    pub(super) peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    pub(super) duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy_header: Option<ProxyHeader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
}

/// How a program ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Exit {
    id: u64,
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    duration_ms: f64,
}

/// How a connection ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Close {
    pub(super) id: u64,
    pub(super) peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    pub(super) reason: &'static str,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcp_info: Option<TcpInfo>,
    /// Whether it is told without `-v`.
    #[serde(skip)]
    pub(super) is_news: bool,
}

/// What came of reading anew.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reload {
    changed: bool,
    cause: Cause,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
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
    pub(super) fn accept(id: u64, peer: &Addr, listener: &Addr) -> Self {
        Self::Accept {
            id,
            peer: peer.to_string(),
            listener: listener.to_string(),
        }
    }

    pub(super) fn exit(id: u64, pid: i32, status: ExitStatus, duration: Duration) -> Self {
        Self::Exit(Exit {
            id,
            pid,
            status: status.code(),
            signal: status.signal(),
            duration_ms: duration.as_micros() as f64 / 1e3,
        })
    }

    /// Whether anything is different, or why nothing is.
    pub(crate) fn reload(cause: Cause, reloaded: Result<bool, Failure>) -> Self {
        let (changed, error) = match reloaded {
            Ok(changed) => (changed, None),
            Err(failure) => (false, Some(format!("{:#}", failure.error))),
        };
        Self::Reload(Reload {
            changed,
            cause,
            error,
        })
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
    pub(super) fn text(&self) -> String {
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
            Self::Handshake(handshake) => handshake.text(),
            Self::Request(request) => request.text(),
            Self::BadRequest(bad) => bad.text(),
            Self::Start { id, pid } => format!("start {id}: process {pid}"),
            Self::Stderr { id, text } => format!("stderr {id}: {text}"),
            Self::Exit(exit) => exit.text(),
            Self::ExecError {
                id,
                program,
                error,
                failures,
            } => format!("cannot start '{program}' for {id}: {error} ({failures} times)"),
            Self::Close(close) => close.text(),
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
            Self::AcceptError {
                listener,
                error,
                failures,
                pause_ms,
            } => format!(
                "cannot accept on {listener}: {error} ({failures} times); pausing for {pause_ms} ms"
            ),
            Self::Snapshot(counters) => counters.text(),
            Self::Reload(reload) => reload.text(),
            Self::Drain { open, deadline_ms } => format!(
                "draining {open} open connections for at most {} s; a second signal cuts them now",
                *deadline_ms as f64 / 1e3
            ),
            Self::Stopped { cut, counters } => stopped(*cut, counters),
            Self::NotReady { error } => format!("warning: {error}"),
            Self::Dropped { events } => format!("{events} lines dropped: their reader is too slow"),
        }
    }

    /// Whether it is told without `-v`.
    pub(super) fn is_news(&self) -> bool {
        match self {
            Self::Accept { .. }
            | Self::Refuse { .. }
            | Self::Refused { .. }
            | Self::Handshake(_)
            | Self::Request(_)
            | Self::BadRequest(_)
            | Self::Start { .. }
            | Self::Exit(_) => false,
            Self::Close(close) => close.is_news,
            _ => true,
        }
    }

    pub(super) fn is_error(&self) -> bool {
        match self {
            Self::AcceptError { .. } | Self::ExecError { .. } | Self::NotReady { .. } => true,
            Self::Reload(reload) => reload.error.is_some(),
            Self::Certificate { warning, .. } => warning.is_some(),
            _ => false,
        }
    }

    pub(super) fn json(&self, time: SystemTime) -> String {
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

impl Handshake {
    fn text(&self) -> String {
        let header = self.proxy_header.as_ref().map(|header| header.line());
        let tls = self.tls.as_ref().map(|tls| tls.line());
        let shown = self.tls.as_ref().and_then(|tls| tls.certificates.first());
        let shown = shown.map(|certificate| format!("a certificate {}", certificate.line()));
        let said: Vec<String> = header.into_iter().chain(tls).chain(shown).collect();
        format!(
            "handshake {} with {} after {} ms: {}",
            self.id,
            whom(&self.peer, &self.client),
            self.duration_ms,
            said.join("; ")
        )
    }
}

impl Exit {
    fn text(&self) -> String {
        let how = match (self.status, self.signal) {
            (Some(status), _) => format!("status {status}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        };
        format!(
            "exit {}: process {} with {how} after {} ms",
            self.id, self.pid, self.duration_ms
        )
    }
}

impl Close {
    fn text(&self) -> String {
        let error = self.error.as_ref();
        let error = error.map_or_else(String::new, |error| format!(" ({error})"));
        format!(
            "close {} from {}: {}{error} after {} ms, {} bytes in, {} out",
            self.id,
            whom(&self.peer, &self.client),
            self.reason,
            self.duration_ms,
            self.bytes_in,
            self.bytes_out
        )
    }
}

impl Reload {
    fn text(&self) -> String {
        match (self.changed, self.cause, &self.error) {
            (_, _, Some(error)) => format!("warning: nothing is changed: {error}"),
            (false, ..) => "reloaded nothing: nothing has changed".to_owned(),
            (true, Cause::Hup, None) => "reloaded".to_owned(),
            (true, Cause::Files, None) => {
                "reloaded the certificates: their files have changed".to_owned()
            }
        }
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
fn stopped(cut: u64, counters: &Counters) -> String {
    let refused = match counters.refused {
        0 => String::new(),
        refused => format!("{refused} of them refused, "),
    };
    format!(
        "stopped: {} accepted, {refused}{cut} cut",
        counters.accepted
    )
}

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

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
