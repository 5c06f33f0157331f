//! Looks on while a server serves, and puts what happens in the queues of those who want it: JSON on stdout, lines on
//! stderr.

use std::io::{self, stderr, stdout};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sockeye::CloseReason;
use sockeye::proxy_protocol::Header;
use sockeye::stats::{AcceptFailed, Accepted, Closed, Listening, Observer, Opened, Refused};

use crate::cli::serve::{Serve, Service};
use crate::exit::escaped;
use crate::output::{Lines, Writer, talk, until_unread};
use crate::serve::events::{Close, Event, Handshake, millis};
use crate::serve::ready::Ready;
use crate::serve::refusals::{Failures, Refusals};
use crate::serve::sources::Shown;
use crate::session::{ProxyHeader, Tls};

/// Puts events in the queues of those who want them.
pub(crate) struct Reporter {
    service: Service,
    /// Which listeners speak TLS, and what they show.
    tls: Vec<bool>,
    shown: Vec<Shown>,
    ready: Mutex<Ready>,
    refusals: Mutex<Refusals>,
    not_started: Mutex<Failures>,
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
    shown: Vec<Shown>,
    ready: Ready,
    unread: impl FnOnce() + Clone + Send + 'static,
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
            unread.clone(),
        )?;
        // It may be long until something is written that finds no reader. The thread ends with the process.
        thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || until_unread().map(|()| unread()))?;
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
        service: arguments.service,
        tls,
        shown,
        ready: Mutex::new(ready),
        refusals: Mutex::default(),
        not_started: Mutex::default(),
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
    pub(crate) fn wants_connections(&self) -> bool {
        self.json.is_some() || self.wants == Wants::Everything
    }

    /// What clients are shown from now on.
    pub(crate) fn certificates(&self, shown: Vec<Shown>) {
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

    /// A program was started for a connection.
    pub(crate) fn started(&self, id: u64, pid: i32) {
        if self.wants_connections() {
            self.report(Event::Start { id, pid });
        }
    }

    /// A program could not be started. Told once a second: a flood of clients is no flood of lines.
    pub(crate) fn not_started(&self, id: u64, program: &Path, error: &io::Error) {
        let failures = self.not_started.lock();
        let told = failures
            .unwrap_or_else(PoisonError::into_inner)
            .failed(Instant::now());
        if let Some(failures) = told {
            self.report(Event::ExecError {
                id,
                program: escaped(&program.to_string_lossy()),
                error: error.to_string(),
                failures,
            });
        }
    }

    /// A program has said a line on stderr, which is escaped.
    pub(crate) fn said(&self, id: u64, text: String) {
        self.report(Event::Stderr { id, text });
    }

    /// A program has ended.
    pub(crate) fn exited(&self, id: u64, pid: i32, status: ExitStatus, duration: Duration) {
        if self.wants_connections() {
            self.report(Event::exit(id, pid, status, duration));
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
                service: self.service.name(),
                address: address.to_string(),
                tls: self.tls.get(index).copied().unwrap_or(false),
                workers: event.workers,
                max_connections: event.max_connections,
                pid: std::process::id(),
            });
        }
        self.certificates(self.shown.clone());
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        for error in ready.announce(event.addresses) {
            self.report(Event::NotReady { error });
        }
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
        // A session is made for the asking, and costs.
        if !self.wants_connections() {
            return;
        }
        let (session, header) = (event.stream.tls(), event.proxy_header);
        if session.is_none() && header.is_none() {
            return;
        }
        let client = header.and_then(Header::client);
        self.report(Event::Handshake(Box::new(Handshake {
            id: event.id,
            peer: event.peer.to_string(),
            client: client.map(|client| client.to_string()),
            duration_ms: event.after.as_micros() as f64 / 1e3,
            proxy_header: header.map(ProxyHeader::from),
            tls: session.as_ref().map(Tls::from),
        })));
    }

    fn close(&self, event: &Closed<'_>) {
        // That a client does not keep to the script is what a script is for.
        let is_news = self.service == Service::Script && event.reason == CloseReason::Error;
        if self.wants_connections() || is_news {
            self.report(Event::Close(Box::new(Close {
                id: event.id,
                peer: event.peer.to_string(),
                client: event.client.map(ToString::to_string),
                reason: event.reason.as_str(),
                bytes_in: event.bytes_in,
                bytes_out: event.bytes_out,
                duration_ms: event.duration.as_micros() as f64 / 1e3,
                error: event.error.map(in_words),
                tcp_info: event.tcp_info.copied(),
                is_news,
            })));
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
