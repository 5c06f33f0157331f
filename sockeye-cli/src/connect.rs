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
use std::io::{self, IsTerminal, stderr, stdout};
use std::num::{NonZeroU8, NonZeroU64};
use std::process;

use anyhow::anyhow;
use sockeye::Stream;
use sockeye::client::{Connector, Target};
use sockeye::tls::HandshakeError;

use crate::address::parse_destinations;
use crate::cli::connect::{Connect, TlsEof};
pub(crate) use crate::connect::dial::code_of;
use crate::connect::dial::{connect, connector, failure};
use crate::connect::exchange::{Ending, exchange};
use crate::connect::explain::Account;
use crate::connect::interrupt::Interrupt;
use crate::connect::keyboard::Keyboard;
use crate::connect::program::Ended;
use crate::connect::side::Side;
use crate::exit::{Code, Failure, Warning};
use crate::http::{RequestLine, has_body};
use crate::output::talk;
use crate::script::{Cut, Kind, Script};
use crate::secure::{self, Secured, Securing};

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
    let exchanged = match words {
        Words::Side(side) => {
            let rules = side.rules(arguments, securing.has_tls());
            point_to_menu(arguments, &side, &account.peer);
            let ends = match side.start(arguments, &stream, &account.peer) {
                Ok(ends) => ends,
                Err(failure) => {
                    account.no_talk("not_started");
                    return tell(arguments, account, Err(failure));
                }
            };
            exchange(stream, rules, ends, interrupt).await
        }
        Words::Script(script) => {
            let cut = match arguments.tls_eof {
                Some(TlsEof::Lax) => Cut::Ends,
                _ => Cut::Fails,
            };
            scripted::converse(stream, &script, cut, arguments.verbose, interrupt).await
        }
    };
    account.ended(&exchanged);
    if !account.ends_a_line && stdout().is_terminal() && !arguments.exec {
        talk("");
    }
    let quiet = arguments.quiet || arguments.json;
    if exchanged.progress.is_alert.get() && !securing.has_tls() && !quiet {
        let refused =
            "what came looks like a TLS alert: the server may want tls:// before its address";
        talk(&Warning(refused));
    }
    if let (
        Some(http::Answer {
            beyond: beyond @ 1..,
            ..
        }),
        false,
    ) = (&exchanged.answer, quiet)
    {
        let warning =
            format!("{beyond} bytes came after the end of the answer; they are not in it");
        talk(&Warning(&warning));
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

/// The exit code for the way in which the connection ended.
fn finish(arguments: &Connect, ending: Ending, account: &Account) -> Result<Code, Failure> {
    let wanted = arguments.recv_bytes.map_or(0, NonZeroU64::get);
    let got = account.bytes_received;
    match ending {
        Ending::PeerClosed | Ending::InputEnded if got < wanted => Err(Failure::new(
            Code::Receive,
            anyhow!("{} closed after {got} of {wanted} bytes", account.peer),
        )),
        Ending::PeerClosed | Ending::InputEnded | Ending::Received | Ending::OutputClosed => {
            Ok(Code::Done)
        }
        Ending::Answered(response) if arguments.fail && response.status >= 400 => {
            let error = anyhow!("{} answered with status {}", account.peer, response.status);
            Err(Failure::new(Code::No, error))
        }
        Ending::Answered(_) => Ok(Code::Done),
        Ending::BadAnswer(error) => Err(Failure::new(
            Code::Receive,
            anyhow!(error).context(format!("no complete answer from {}", account.peer)),
        )),
        Ending::Interrupted => Ok(Code::Interrupted),
        Ending::ScriptEnded => Ok(Code::Done),
        Ending::ScriptFailed(failed) => {
            let code = match failed.cause.kind() {
                Kind::Answer => Code::No,
                Kind::Timeout => Code::Timeout,
                Kind::Network => Code::Receive,
                Kind::Script => Code::Usage,
            };
            Err(Failure::new(code, failed))
        }
        Ending::Idle(limit) => Err(Failure::new(
            Code::Timeout,
            anyhow!(
                "nothing moved to or from {} for {}",
                account.peer,
                humantime::format_duration(limit)
            ),
        )),
        Ending::Truncated => Err(Failure::new(
            Code::Receive,
            anyhow!(
                "truncated: {} ended TLS without close_notify, so what came may not be all",
                account.peer
            ),
        )
        .with_hint("--tls-eof lax is for servers that are known to end so")),
        Ending::ReceiveFailed(error) => Err(match HandshakeError::refusal(&error) {
            // In TLS 1.3 a server can refuse our certificate only after the handshake.
            Some(refused) if got == 0 => secure::failure(refused, &account.peer),
            _ => Failure::new(
                Code::Receive,
                anyhow!(error).context(format!("cannot receive from {}", account.peer)),
            ),
        }),
        Ending::SendFailed(error) => Err(Failure::new(
            Code::Receive,
            anyhow!(error).context(format!("{} does not take what we send", account.peer)),
        )),
        Ending::OutputFailed(error) => Err(Failure::new(
            Code::Receive,
            anyhow!(error).context("cannot write to stdout"),
        )),
        Ending::CopyFailed(path, error) => Err(Failure::new(
            Code::Receive,
            anyhow!(error).context(format!("cannot write to '{}'", path.display())),
        )),
        Ending::Differs(difference) => Err(Failure::new(
            Code::No,
            anyhow!(
                "the answer of {} is not the recorded one: {difference}",
                account.peer
            ),
        )),
        Ending::InputFailed(error) => Err(Failure::usage(
            anyhow!(error).context("cannot read the input"),
        )),
    }
}

/// If the connection ended well, what counts is how the program ended.
fn with_program(ended: Result<Code, Failure>, program: io::Result<Ended>) -> Result<Code, Failure> {
    let program = match program {
        Ok(program) if program.interrupted => return Ok(Code::Interrupted),
        Ok(program) => program,
        Err(error) => {
            let error = anyhow!(error).context("cannot wait for the program");
            return ended.and(Err(Failure::usage(error)));
        }
    };
    let code = u8::try_from(program.code()).ok().and_then(NonZeroU8::new);
    let (Ok(Code::Done), Some(code)) = (&ended, code) else {
        return ended;
    };
    let (name, how) = (&program.name, program.status);
    Err(Failure::new(
        Code::Other(code),
        anyhow!("'{name}' ended with {how}"),
    ))
}
