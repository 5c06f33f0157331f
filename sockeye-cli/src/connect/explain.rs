//! What happened, in words and as JSON: from the lookup to the close, with what the kernel knows (docs/events.md).

use std::time::Duration;

use serde::Serialize;
use sockeye::client::{
    Attempt, ConnectError, Connected, Failure, Hop, HopOutcome, Outcome, Report, Target,
};
use sockeye::tcp_info::TcpInfo;
use sockeye::tls::Session;
use tokio::time::Instant;

use crate::certificate::Certificate;
use crate::connect::exchange::{Ending, Exchanged};
use crate::connect::progress::Progress;
use crate::connect::proxy;
use crate::output::talk;
use crate::secure::Secured;
use crate::session::{ProxyHeader, Tls};

/// The account of one connect. The names of the fields are those of docs/events.md.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Account {
    connected: bool,
    pub(crate) peer: String,
    local: Option<String>,
    resolved_ms: Option<f64>,
    addresses: Vec<String>,
    attempts: Vec<Tried>,
    hops: Vec<Asked>,
    proxy_header: Option<ProxyHeader>,
    starttls: Option<Agreed>,
    tls: Option<TlsSession>,
    /// What a server has shown that was not trusted.
    rejected_certificates: Vec<Certificate>,
    warning: Option<String>,
    http: Option<Answered>,
    bytes_sent: u64,
    pub(crate) bytes_received: u64,
    first_byte_ms: Option<f64>,
    duration_ms: Option<f64>,
    closed_first: Option<&'static str>,
    ending: &'static str,
    program_exit_code: Option<i32>,
    pub(crate) error: Option<String>,
    tcp_info: Option<TcpInfo>,
    /// Whether what was received ends with a line's end.
    #[serde(skip)]
    pub(crate) ends_a_line: bool,
    #[serde(skip)]
    steps: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Agreed {
    protocol: &'static str,
    duration_ms: f64,
}

#[derive(Debug, Serialize)]
struct TlsSession {
    #[serde(flatten)]
    session: Tls,
    handshake_ms: f64,
    /// By what the server's certificate was judged.
    trusted_by: &'static str,
}

#[derive(Debug, Serialize)]
struct Tried {
    address: String,
    started_ms: f64,
    ended_ms: Option<f64>,
    outcome: &'static str,
    error: Option<String>,
}

impl From<&Attempt> for Tried {
    fn from(attempt: &Attempt) -> Self {
        let (outcome, error) = match &attempt.outcome {
            Outcome::Connected => ("connected", None),
            Outcome::Failed(error) => ("failed", Some(error.to_string())),
            _ => ("unfinished", None),
        };
        Self {
            address: attempt.address.to_string(),
            started_ms: ms(attempt.started_at),
            ended_ms: attempt.ended_at.map(ms),
            outcome,
            error,
        }
    }
}

/// What was asked of a proxy.
#[derive(Debug, Serialize)]
struct Asked {
    proxy: String,
    protocol: &'static str,
    destination: String,
    started_ms: f64,
    ended_ms: Option<f64>,
    outcome: &'static str,
    error: Option<String>,
}

impl From<&Hop> for Asked {
    fn from(hop: &Hop) -> Self {
        let (outcome, error) = match &hop.outcome {
            HopOutcome::Open => ("connected", None),
            HopOutcome::Failed(error) => ("failed", Some(error.to_string())),
            _ => ("unfinished", None),
        };
        Self {
            proxy: hop.proxy.to_string(),
            protocol: hop.protocol.as_str(),
            destination: hop.destination.to_string(),
            started_ms: ms(hop.started_at),
            ended_ms: hop.ended_at.map(ms),
            outcome,
            error,
        }
    }
}

/// The answer to `--http`.
#[derive(Debug, Serialize)]
struct Answered {
    /// Null unless it was complete.
    status: Option<u16>,
    body_bytes: u64,
}

/// Whom we are connected to: the address that won, or what the proxy was asked for.
pub(crate) fn peer(connected: &Connected) -> String {
    let behind = proxy::destination(&connected.report);
    behind.unwrap_or_else(|| connected.peer.to_string())
}

impl Account {
    pub(crate) fn of_success(connected: &Connected) -> Self {
        Self {
            connected: true,
            peer: peer(connected),
            local: connected.stream.local_addr().ok().map(|a| a.to_string()),
            ..Self::of_report(&connected.report)
        }
    }

    pub(crate) fn of_failure(error: &ConnectError) -> Self {
        Self {
            peer: error.target.to_string(),
            ending: "not_connected",
            error: Some(why_not(error)),
            ..Self::of_report(&error.report)
        }
    }

    fn of_report(report: &Report) -> Self {
        Self {
            resolved_ms: report.resolved_in.map(ms),
            addresses: report.addresses.iter().map(ToString::to_string).collect(),
            attempts: report.attempts.iter().map(Tried::from).collect(),
            hops: report.hops.iter().map(Asked::from).collect(),
            steps: steps(report),
            ..Self::default()
        }
    }

    /// What was done before the talk, and how far it came.
    pub(crate) fn secured(&mut self, secured: Secured, trusted_by: &'static str) {
        self.proxy_header = secured.proxy_header.as_ref().map(ProxyHeader::from);
        self.starttls = secured.starttls.map(|(protocol, took)| Agreed {
            protocol: protocol.as_str(),
            duration_ms: ms(took),
        });
        self.tls = secured.tls.map(|(session, took)| TlsSession {
            session: Tls::from(&session),
            handshake_ms: ms(took),
            trusted_by,
        });
        self.rejected_certificates = secured.rejected;
        self.warning = secured.warning;
    }

    /// The handshake failed, or was interrupted, or our side could not be started: there was no talk.
    pub(crate) fn no_talk(&mut self, ending: &'static str) {
        self.ending = ending;
    }

    /// What was done before the talk, a line each.
    pub(crate) fn security(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(header) = &self.proxy_header {
            lines.push(format!("sent first {}", header.line()));
        }
        if let Some(agreed) = &self.starttls {
            let (protocol, ms) = (agreed.protocol, agreed.duration_ms);
            lines.push(format!("starttls   agreed by {protocol} after {ms} ms"));
        }
        if let Some(tls) = &self.tls {
            let line = tls.session.line();
            lines.push(format!("tls        {line}, after {} ms", tls.handshake_ms));
            let by = tls.trusted_by;
            for (index, certificate) in tls.session.certificates.iter().enumerate() {
                let line = certificate.line();
                lines.push(match index {
                    0 => format!("shown      a certificate {line}, trusted by {by}"),
                    _ => format!("chain      {line}"),
                });
            }
        }
        for certificate in &self.rejected_certificates {
            lines.push(format!("rejected   {}", certificate.line()));
        }
        lines
    }

    pub(crate) fn ended(&mut self, exchanged: &Exchanged) {
        let Exchanged {
            ending,
            progress,
            tcp_info,
            session,
            answer,
            program,
        } = exchanged;
        if let (Some(tls), Some(session)) = (&mut self.tls, session) {
            tls.session = session.into();
        }
        let since = |moment: Instant| ms(moment - progress.started);
        self.bytes_sent = progress.sent.get();
        self.bytes_received = progress.received.get();
        self.first_byte_ms = progress.first_byte.get().map(since);
        self.duration_ms = Some(since(progress.ended.get()));
        self.closed_first = Some(match (progress.our_fin.get(), progress.peer_fin.get()) {
            (Some(ours), Some(peers)) if ours <= peers => "us",
            (_, Some(_)) => "peer",
            (None, None) if ending.is_failure_of_the_connection() => "peer",
            _ => "us",
        });
        self.http = answer.as_ref().map(|answer| Answered {
            status: match ending {
                Ending::Answered(response) => Some(response.status),
                _ => None,
            },
            body_bytes: answer.body_bytes,
        });
        self.ends_a_line = progress.ends_a_line.get();
        self.tcp_info = *tcp_info;
        if let Some(Ok(program)) = program {
            self.program_exit_code = Some(program.code());
        }
        (self.ending, self.error) = match ending {
            Ending::PeerClosed => ("peer_closed", None),
            Ending::InputEnded => ("input_ended", None),
            Ending::Received => ("received", None),
            Ending::Answered(_) => ("answered", None),
            Ending::BadAnswer(error) => ("bad_answer", Some(error.to_string())),
            Ending::OutputClosed => ("output_closed", None),
            Ending::Interrupted => ("interrupted", None),
            Ending::Idle(_) => ("idle", None),
            Ending::Truncated => ("truncated", None),
            Ending::ReceiveFailed(error) => ("receive_failed", Some(error.to_string())),
            Ending::SendFailed(error) => ("send_failed", Some(error.to_string())),
            Ending::OutputFailed(error) => ("output_failed", Some(error.to_string())),
            Ending::InputFailed(error) => ("input_failed", Some(error.to_string())),
            Ending::CopyFailed(_, error) => ("copy_failed", Some(error.to_string())),
            Ending::Differs(difference) => ("differs", Some(difference.to_string())),
            Ending::ScriptEnded => ("script_ended", None),
            Ending::ScriptFailed(failed) => ("script_failed", Some(failed.to_string())),
        };
    }

    /// How it ended, in a line.
    pub(crate) fn ending(&self) -> String {
        format!(
            "{}: {} bytes sent, {} received; {}",
            self.how_it_ended(),
            self.bytes_sent,
            self.bytes_received,
            self.who_closed_first()
        )
    }

    fn how_it_ended(&self) -> String {
        let ending = self.ending.replace('_', " ");
        match &self.error {
            Some(error) => format!("{ending} ({error})"),
            None => ending,
        }
    }

    fn who_closed_first(&self) -> &'static str {
        match self.closed_first {
            Some("peer") => "the peer closed its side first",
            _ => "we closed our side first",
        }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|error| unreachable!("only numbers and text: {error}"))
    }

    /// In words, on stderr: stdout has the data.
    pub(crate) fn print(&self) {
        for line in &self.steps {
            talk(line);
        }
        if !self.connected {
            return;
        }
        if let Some(local) = &self.local {
            talk(&format!("connected  {local} to {}", self.peer));
        }
        for line in self.security() {
            talk(&line);
        }
        if let Some(tls) = &self.tls {
            talk(&format!("session    {}", tls.session.resumption()));
        }
        // There was no talk to tell of.
        if self.duration_ms.is_none() {
            return;
        }
        talk(&format!("sent       {} bytes", self.bytes_sent));
        let first = self
            .first_byte_ms
            .map_or_else(String::new, |ms| format!(", the first after {ms} ms"));
        talk(&format!("received   {} bytes{first}", self.bytes_received));
        if let Some(Answered { status, body_bytes }) = self.http {
            let status = status.map_or_else(|| "no".to_owned(), |status| status.to_string());
            talk(&format!(
                "answer     status {status}, {body_bytes} bytes of body"
            ));
        }
        let after = self.duration_ms.unwrap_or_default();
        talk(&format!(
            "ended      after {after} ms, {}; {}",
            self.how_it_ended(),
            self.who_closed_first()
        ));
        if let Some(info) = &self.tcp_info {
            talk(&format!("tcp        {}", in_words(info)));
        }
        if let Some(code) = self.program_exit_code {
            talk(&format!("program    ended with exit code {code}"));
        }
    }
}

/// The lookup and the attempts, a line each.
pub(crate) fn steps(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(time) = report.resolved_in {
        let found: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "resolved   {} in {} ms",
            found.join(", "),
            ms(time)
        ));
    }
    for attempt in &report.attempts {
        let took = attempt.ended_at.map_or_else(String::new, |ended| {
            format!(" after {} ms", ms(ended.saturating_sub(attempt.started_at)))
        });
        let outcome = match &attempt.outcome {
            Outcome::Connected => "connected".to_owned(),
            Outcome::Failed(error) => error.to_string(),
            _ => "no answer yet".to_owned(),
        };
        lines.push(format!(
            "tried      {} at {} ms: {outcome}{took}",
            attempt.address,
            ms(attempt.started_at)
        ));
    }
    for hop in &report.hops {
        let took = hop.ended_at.map_or_else(String::new, |ended| {
            format!(" after {} ms", ms(ended.saturating_sub(hop.started_at)))
        });
        let (protocol, proxy, at) = (hop.protocol, &hop.proxy, ms(hop.started_at));
        lines.push(format!(
            "asked      {protocol} proxy {proxy} at {at} ms for {hop}{took}"
        ));
    }
    lines
}

/// Why there is no connection, without the address.
pub(crate) fn why_not(error: &ConnectError) -> String {
    if let Some(reason) = proxy::reason(error) {
        return reason.to_string();
    }
    let why = why_not_direct(error);
    match error.is_of_proxy() {
        true => format!("the proxy is not there: {why}"),
        false => why,
    }
}

fn why_not_direct(error: &ConnectError) -> String {
    match &error.failure {
        Failure::Request(error) => error.to_string(),
        Failure::Resolve(error) | Failure::Unix(error) => error.to_string(),
        Failure::TimedOut(after) => {
            format!("no answer within {}", humantime::format_duration(*after))
        }
        Failure::AllFailed => {
            let mut reasons: Vec<String> = Vec::new();
            for attempt in &error.report.attempts {
                if let Outcome::Failed(error) = &attempt.outcome {
                    let reason = error.to_string();
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
            reasons.join(", ")
        }
        _ => error.to_string(),
    }
}

/// The answer of `--probe --json`.
pub(crate) fn probe_json(
    target: &Target,
    open: bool,
    peer: &str,
    tls: Option<&Session>,
    took: Duration,
    why: Option<&str>,
) -> String {
    serde_json::json!({
        "target": target.to_string(),
        "open": open,
        "peer": open.then_some(peer),
        "tls": tls.map(Tls::from),
        "duration_ms": ms(took),
        "error": why,
    })
    .to_string()
}

/// What has happened so far, in a line.
pub(crate) fn status(progress: &Progress, info: Option<&TcpInfo>) -> String {
    let (sent, received) = (progress.sent.get(), progress.received.get());
    let after = ms(progress.started.elapsed());
    let tcp = info.map_or_else(String::new, |info| format!("; {}", in_words(info)));
    format!("{sent} bytes sent, {received} received in {after} ms{tcp}")
}

fn in_words(info: &TcpInfo) -> String {
    let mut parts = Vec::new();
    if let Some(state) = info.state {
        parts.push(state.as_str().to_owned());
    }
    if let (Some(rtt), Some(var)) = (info.rtt_us, info.rttvar_us) {
        parts.push(format!("round trip {} ms ± {}", us(rtt), us(var)));
    }
    if let (Some(again), Some(out)) = (info.total_retrans, info.segs_out) {
        parts.push(format!("{again} of {out} segments sent again"));
    }
    if let Some(segments) = info.snd_cwnd {
        parts.push(format!("congestion window {segments} segments"));
    }
    if let Some(bytes) = info.snd_mss_bytes {
        parts.push(format!("segments of up to {bytes} bytes"));
    }
    if let Some(bytes) = info.snd_wnd_bytes {
        parts.push(format!("the peer's window {bytes} bytes"));
    }
    parts.join(", ")
}

fn us(microseconds: u32) -> f64 {
    f64::from(microseconds) / 1e3
}

/// Milliseconds with three places.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
