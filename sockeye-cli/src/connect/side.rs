//! Our side of a connection: what is sent and where what comes goes. What it needs is opened before anybody is connected
//! to, and started when the connection is there.

use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read, Write, stdin, stdout};
use std::num::NonZeroU64;
use std::path::Path;

use anyhow::{Context, anyhow};
use sockeye::Stream;
use sockeye::client::Target;

use crate::cli::connect::{Connect, OnEof, TlsEof};
use crate::connect::copies::Files;
use crate::connect::exchange::{Ends, Exchange};
use crate::connect::hex;
use crate::connect::http::{self, Answer};
use crate::connect::keyboard::Keyboard;
use crate::connect::menu::Menu;
use crate::connect::pipe::{Input, Output, unbuffered_stdout};
use crate::connect::program::Program;
use crate::connect::replay::Recorded;
use crate::connect::sending::Source;
use crate::connect::terminal;
use crate::connect::upload::Upload;
use crate::exit::Failure;

/// All that is open before there is a connection.
pub(crate) struct Side {
    input: Opened,
    files: Files,
}

enum Opened {
    Stdin,
    Given(Box<dyn Read + Send>),
    Recorded(Recorded),
    Program,
}

impl Side {
    pub(crate) fn open(arguments: &Connect, target: &Target, tls: bool) -> Result<Self, Failure> {
        let input = match &arguments.http {
            Some(line) => Opened::Given(http::request(arguments, line, target, tls)?),
            None => Opened::open(arguments)?,
        };
        Ok(Self {
            input,
            files: Files::open(arguments)?,
        })
    }

    /// The escape character, if somebody types.
    pub(crate) fn menu(&self, arguments: &Connect) -> Option<u8> {
        let typed =
            matches!(self.input, Opened::Stdin) && !arguments.probe && stdin().is_terminal();
        arguments.escape_char.0.filter(|_| typed)
    }

    /// The terminal, if it is what is read, and there is to be an escape character.
    pub(crate) fn keyboard(&self, arguments: &Connect) -> Option<Keyboard> {
        Keyboard::start(self.menu(arguments)?)
    }

    /// When the talk ends.
    pub(crate) fn rules(&self, arguments: &Connect, has_tls: bool) -> Exchange {
        let checked = !arguments.replay_unchecked;
        let (mut idle, mut receive_at_most) = (None, arguments.recv_bytes.map(NonZeroU64::get));
        let mut talks_on_after = None;
        let on_eof = match &self.input {
            // An end of our side is an end of all of it to many servers over TLS, to most proxies, and to nginx.
            _ if arguments.http.is_some() => {
                idle = Some(http::IDLE);
                OnEof::Keep
            }
            Opened::Stdin | Opened::Given(_) if has_tls || arguments.proxy.is_some() => OnEof::Keep,
            Opened::Stdin | Opened::Given(_) | Opened::Program => OnEof::Fin,
            Opened::Recorded(recorded) => {
                idle = Some(recorded.patience());
                talks_on_after = recorded.talks_on_after(checked);
                if checked {
                    receive_at_most = recorded.receive_at_most();
                }
                match recorded.client_ended || !checked && !recorded.server_ended {
                    true => OnEof::Fin,
                    false => OnEof::Keep,
                }
            }
        };
        Exchange {
            on_eof: arguments.on_eof.unwrap_or(on_eof),
            // With one of these the end is near, or is no question.
            tell_kept: arguments.on_eof.is_none()
                && receive_at_most.is_none()
                && idle.is_none()
                && arguments.idle_timeout.is_none()
                && !arguments.quiet
                && !arguments.json,
            tls_eof_lax: arguments.tls_eof == Some(TlsEof::Lax),
            keep_open: arguments.keep_open,
            idle: arguments.idle_timeout.map_or(idle, |timeout| timeout.0),
            receive_at_most,
            crlf: arguments.crlf,
            throttle: arguments.throttle,
            program: matches!(self.input, Opened::Program),
            replay: matches!(self.input, Opened::Recorded(_)),
            talks_on_after,
        }
    }

    /// Starts what reads and writes.
    pub(crate) fn start(
        self,
        arguments: &Connect,
        stream: &Stream,
        peer: &str,
    ) -> Result<Ends, Failure> {
        let (mut expected, mut program) = (None, None);
        let menu = self.menu(arguments);
        let (source, output) = match self.input {
            Opened::Stdin => {
                let input = Input::start(stdin()).map_err(no_thread)?;
                let source = match menu {
                    Some(escape) => Source::Keyboard(input, Menu::new(escape)),
                    None => Source::Input(input),
                };
                (source, output(arguments)?)
            }
            Opened::Given(input) => {
                let input = Input::start(input).map_err(no_thread)?;
                (Source::Input(input), output(arguments)?)
            }
            Opened::Recorded(recorded) => {
                let (script, answer) = recorded
                    .start(!arguments.replay_unchecked)
                    .map_err(no_thread)?;
                expected = answer;
                (Source::Script(script), output(arguments)?)
            }
            Opened::Program => {
                let (started, from, to) = Program::start(&arguments.command, stream)?;
                program = Some(started);
                let input = Input::start(from).map_err(no_thread)?;
                (Source::Input(input), Box::new(to) as Box<dyn Write + Send>)
            }
        };
        let shows = !arguments.quiet && !arguments.json;
        let file = arguments.send_file.as_deref().filter(|_| shows);
        Ok(Ends {
            source,
            output: Output::start(output).map_err(no_thread)?,
            copies: self.files.start(peer)?,
            upload: Upload::start(file),
            expected,
            answer: arguments
                .http
                .as_ref()
                .map(|line| Answer::to(line, arguments.verbose)),
            program,
        })
    }
}

impl Opened {
    /// What is to be sent.
    fn open(arguments: &Connect) -> Result<Self, Failure> {
        if arguments.exec {
            return Ok(Self::Program);
        }
        if let Some(path) = &arguments.replay {
            return Recorded::open(path).map(Self::Recorded);
        }
        if !arguments.send.is_empty() {
            return Ok(Self::Given(Box::new(Cursor::new(texts(arguments)))));
        }
        match &arguments.send_file {
            Some(path) => Ok(Self::Given(Box::new(file(path)?))),
            None => Ok(Self::Stdin),
        }
    }
}

/// What `--send` says, all of it.
pub(crate) fn texts(arguments: &Connect) -> Vec<u8> {
    let texts = arguments.send.iter().map(|text| text.0.as_slice());
    texts.collect::<Vec<_>>().concat()
}

/// What `--send-file` names.
pub(crate) fn file(path: &Path) -> Result<File, Failure> {
    let cannot = || format!("cannot read '{}'", path.display());
    let file = File::open(path).with_context(cannot);
    let file = file.map_err(Failure::usage)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        let error = anyhow!(io::Error::from(io::ErrorKind::IsADirectory));
        return Err(Failure::usage(error.context(cannot())));
    }
    Ok(file)
}

/// Where what is received goes, and in what form.
fn output(arguments: &Connect) -> Result<Box<dyn Write + Send>, Failure> {
    let plain = unbuffered_stdout()
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot write to stdout")))?;
    Ok(if arguments.hex {
        Box::new(hex::Dump::new(plain))
    } else if stdout().is_terminal() && !arguments.raw {
        Box::new(terminal::Shown::new(plain))
    } else {
        plain
    })
}

fn no_thread(error: io::Error) -> Failure {
    Failure::usage(anyhow!(error).context("cannot start a thread"))
}
