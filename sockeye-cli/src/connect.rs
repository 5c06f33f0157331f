//! `sockeye connect`: one connection, by hand or from a script.

mod copies;
mod crlf;
mod dial;
pub(crate) mod escape;
mod exchange;
mod explain;
mod half;
mod hex;
mod http;
mod interrupt;
mod keyboard;
mod meaning;
pub(crate) mod menu;
mod pipe;
mod probe;
mod program;
mod progress;
mod proxy;
mod receiving;
mod recording;
mod replay;
mod scripted;
mod sending;
mod side;
mod terminal;
mod throttle;
mod upload;

use std::future::pending;
use std::io::{IsTerminal, stderr, stdout};
use std::num::NonZeroU8;
use std::process;

use anyhow::anyhow;
use sockeye::Stream;
use sockeye::client::{Connector, Target};

use crate::address::parse_destinations;
use crate::children;
use crate::cli::connect::{Connect, TlsEof};
pub(crate) use crate::connect::dial::code_of;
use crate::connect::dial::{connect, connector, failure};
use crate::connect::exchange::{Exchanged, exchange};
use crate::connect::explain::Account;
use crate::connect::interrupt::Interrupt;
use crate::connect::keyboard::Keyboard;
use crate::connect::meaning::{finish, with_program};
use crate::connect::side::Side;
use crate::exit::{Code, Failure, Warning};
use crate::http::{RequestLine, has_body};
use crate::output::talk;
use crate::script::{Cut, Script};
use crate::secure::{Secured, Securing};

pub(crate) fn run(arguments: Connect) -> Result<Code, Failure> {
    let (destination, ports) = parse_destinations(&arguments.address)?;
    check(&arguments, &ports)?;
    let mut securing = Securing::new(&arguments.securing, &destination)?;
    let connector = connector(&arguments)?;
    if connector.proxy.is_some() {
        let name = match (&destination.host, ports.as_slice()) {
            // Of several ports none is the one.
            (Some(host), [_, _, ..]) => host.clone(),
            _ => destination.target.to_string(),
        };
        securing.calls_the_peer(name);
    }
    if arguments.tls_eof.is_some() && !securing.has_tls() {
        return Err(Failure::usage(anyhow!("--tls-eof is for TLS"))
            .with_hint("write tls://HOST:PORT, or --tls"));
    }
    if arguments.exec {
        children::keep_their_status()?;
    }
    let words = Words::open(&arguments, &destination.target, securing.has_tls())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot start")))?;
    let keyboard = match &words {
        Words::Side(side) => side.keyboard(&arguments),
        Words::Script(_) => None,
    };
    let plan = Plan {
        arguments,
        connector,
        target: destination.target,
        ports,
        securing,
        interrupt: Interrupt::default(),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            ended = plan.carry_out(words) => ended,
            () = plan.interrupt.unheard() => Ok(Code::Interrupted),
            signal = killed(keyboard.as_ref()) => Ok(signal),
        }
    });
    // A thread may still wait for stdin or for the resolver, and neither can be stopped but by the end of the process.
    let code = ended.unwrap_or_else(|failure| {
        talk(&failure);
        failure.code
    });
    let code = match code {
        Code::Interrupted => plan.interrupt.code(),
        code => code,
    };
    drop(keyboard);
    process::exit(code.number().into())
}

/// Waits for a signal that must not end us before the terminal is as it was.
async fn killed(keyboard: Option<&Keyboard>) -> Code {
    match keyboard {
        Some(keyboard) => Code::Other(NonZeroU8::MIN.saturating_add(127 + keyboard.ended().await)),
        None => pending().await,
    }
}

/// What was asked for, and can be done more than once.
struct Plan {
    arguments: Connect,
    connector: Connector,
    target: Target,
    ports: Vec<u16>,
    securing: Securing,
    interrupt: Interrupt,
}

impl Plan {
    async fn carry_out(&self, words: Words) -> Result<Code, Failure> {
        let Some(times) = self.arguments.repeat else {
            return self.once(words).await;
        };
        let (mut went_well, mut first_bad) = (0, None);
        let mut words = Some(words);
        for time in 0..times.get() {
            if time > 0 {
                tokio::time::sleep(self.arguments.interval).await;
            }
            let words = match words.take() {
                Some(words) => words,
                None => Words::open(&self.arguments, &self.target, self.securing.has_tls())?,
            };
            let code = self.once(words).await.unwrap_or_else(|failure| {
                talk(&failure);
                failure.code
            });
            match code {
                Code::Done => went_well += 1,
                Code::Interrupted => return Ok(code),
                _ => first_bad = first_bad.or(Some(code)),
            }
        }
        if !self.arguments.quiet && !self.arguments.json {
            talk(&format!("{went_well} of {times} went well"));
        }
        Ok(first_bad.unwrap_or(Code::Done))
    }

    async fn once(&self, words: Words) -> Result<Code, Failure> {
        let (arguments, target, securing) = (&self.arguments, &self.target, &self.securing);
        let connector = &self.connector;
        match self.ports.as_slice() {
            ports @ [_, _, ..] => {
                probe::several(arguments, connector, target, ports, securing).await
            }
            _ if arguments.probe => probe::one(arguments, connector, target, securing).await,
            _ => {
                talk_to(
                    arguments,
                    connector,
                    target,
                    securing,
                    words,
                    &self.interrupt,
                )
                .await
            }
        }
    }
}

/// What the options alone cannot say of each other.
fn check(arguments: &Connect, ports: &[u16]) -> Result<(), Failure> {
    if ports.len() > 1 {
        several_ports(arguments)?;
    }
    // Without a body nothing is read for a request.
    let asks = |line: &RequestLine| !has_body(&line.method);
    let asks = arguments.http.as_ref().is_some_and(asks);
    let again = arguments.probe
        || arguments.exec
        || arguments.send_file.is_some()
        || arguments.script.is_some()
        || asks;
    if arguments.repeat.is_some() && !again && arguments.send.is_empty() {
        let error = anyhow!("--repeat needs an input that can be had again");
        return Err(Failure::usage(error).with_hint(
            "--send TEXT, --send-file FILE, --script, --exec or --probe; --send '' is none",
        ));
    }
    Ok(())
}

/// Several ports are for `--probe`, and without what would be done with the connection to one.
fn several_ports(arguments: &Connect) -> Result<(), Failure> {
    let wrong = |why| {
        Err(Failure::usage(anyhow!(
            "several ports are for --probe{why}"
        )))
    };
    match arguments {
        _ if !arguments.probe => wrong(""),
        _ if arguments.wait_for.is_some() => wrong(", and --wait-for waits for one"),
        _ => Ok(()),
    }
}

/// Where what is said comes from.
enum Words {
    Side(Box<Side>),
    Script(Script),
}

impl Words {
    fn open(arguments: &Connect, target: &Target, has_tls: bool) -> Result<Self, Failure> {
        match &arguments.script {
            Some(path) => Script::load(path).map(Self::Script),
            None => Side::open(arguments, target, has_tls).map(|side| Self::Side(Box::new(side))),
        }
    }
}

async fn talk_to(
    arguments: &Connect,
    connector: &Connector,
    target: &Target,
    securing: &Securing,
    words: Words,
    interrupt: &Interrupt,
) -> Result<Code, Failure> {
    let connected = match connect(arguments, connector, target).await {
        Ok(connected) => connected,
        Err(error) => {
            let account = Account::of_failure(&error);
            return tell(arguments, account, Err(failure(arguments, error)));
        }
    };
    if arguments.verbose {
        for line in explain::steps(&connected.report) {
            talk(&line);
        }
        talk(&format!("connected to {}", explain::peer(&connected)));
    }
    let mut account = Account::of_success(&connected);
    let stream = secure(
        arguments,
        securing,
        connected.stream,
        &mut account,
        interrupt,
    )
    .await;
    let stream = match stream {
        Ok(Some(stream)) => stream,
        Ok(None) => {
            account.no_talk("interrupted");
            return tell(arguments, account, Ok(Code::Interrupted));
        }
        Err(failure) => {
            account.no_talk("not_secured");
            return tell(arguments, account, Err(failure));
        }
    };
    let exchanged = converse(arguments, securing, stream, words, &account.peer, interrupt).await;
    let exchanged = match exchanged {
        Ok(exchanged) => exchanged,
        Err(failure) => {
            account.no_talk("not_started");
            return tell(arguments, account, Err(failure));
        }
    };
    account.ended(&exchanged);
    if !account.ends_a_line && stdout().is_terminal() && !arguments.exec {
        talk("");
    }
    if !arguments.quiet && !arguments.json {
        remark(&exchanged, securing.has_tls());
    }
    if arguments.verbose {
        talk(&account.ending());
    }
    let ended = finish(arguments, exchanged.ending, &account);
    let ended = match exchanged.program {
        Some(program) => with_program(ended, program),
        None => ended,
    };
    tell(arguments, account, ended)
}

/// What there is to talk about, by whoever it is that talks on our side. Fails before a byte is moved.
async fn converse(
    arguments: &Connect,
    securing: &Securing,
    stream: Stream,
    words: Words,
    peer: &str,
    interrupt: &Interrupt,
) -> Result<Exchanged, Failure> {
    match words {
        Words::Side(side) => {
            let rules = side.rules(arguments, securing.has_tls());
            point_to_menu(arguments, &side, peer);
            let ends = side.start(arguments, &stream, peer)?;
            Ok(exchange(stream, rules, ends, interrupt).await)
        }
        Words::Script(script) => {
            let cut = match arguments.tls_eof {
                Some(TlsEof::Lax) => Cut::Ends,
                _ => Cut::Fails,
            };
            Ok(scripted::converse(stream, &script, cut, arguments.verbose, interrupt).await)
        }
    }
}

/// What looks as if it was not meant so.
fn remark(exchanged: &Exchanged, has_tls: bool) {
    if exchanged.progress.is_alert.get() && !has_tls {
        let refused =
            "what came looks like a TLS alert: the server may want tls:// before its address";
        talk(&Warning(refused));
    }
    let beyond = exchanged.answer.as_ref().map_or(0, |answer| answer.beyond);
    if beyond > 0 {
        let warning =
            format!("{beyond} bytes came after the end of the answer; they are not in it");
        talk(&Warning(&warning));
    }
}

/// Who types learns of the menu.
fn point_to_menu(arguments: &Connect, side: &Side, peer: &str) {
    let quiet = arguments.quiet || arguments.json || !stderr().is_terminal();
    if let Some(escape) = side.menu(arguments).filter(|_| !quiet) {
        let escape = menu::shown(escape);
        talk(&format!("connected to {peer}; {escape} has a menu"));
    }
}

/// The PROXY header and TLS, as far as they are asked for; `None` after an interrupt.
async fn secure(
    arguments: &Connect,
    securing: &Securing,
    stream: Stream,
    account: &mut Account,
    interrupt: &Interrupt,
) -> Result<Option<Stream>, Failure> {
    let mut secured = Secured::default();
    let stream = tokio::select! {
        biased;
        stream = securing.secure(stream, &mut secured) => stream.map(Some),
        () = interrupt.heard() => Ok(None),
    };
    // As JSON the account is all there is on stderr, and has it in it.
    if !(arguments.explain && arguments.json) {
        warn(&secured);
    }
    account.secured(secured, securing.trusted_by());
    if arguments.verbose {
        for line in account.security() {
            talk(&line);
        }
    }
    stream
}

fn warn(secured: &Secured) {
    if let Some(warning) = &secured.warning {
        talk(&Warning(warning));
    }
}

/// Prints the account if it was asked for. As JSON it has the error in it, and is all there is on stderr.
fn tell(
    arguments: &Connect,
    mut account: Account,
    ended: Result<Code, Failure>,
) -> Result<Code, Failure> {
    if !arguments.explain {
        return ended;
    }
    if !arguments.json {
        account.print();
        return ended;
    }
    let code = ended.unwrap_or_else(|failure| {
        account.error = Some(format!("{:#}", failure.error));
        failure.code
    });
    talk(&account.json());
    Ok(code)
}
