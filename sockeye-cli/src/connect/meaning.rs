//! What the end of a connection means: the exit code, and the words for it.

use std::io;
use std::num::{NonZeroU8, NonZeroU64};

use anyhow::anyhow;
use sockeye::tls::HandshakeError;

use crate::cli::connect::Connect;
use crate::connect::exchange::Ending;
use crate::connect::explain::Account;
use crate::connect::program::Ended;
use crate::exit::{Code, Failure};
use crate::script::{Failed, Kind};
use crate::secure;

fn of_script(failed: Failed) -> Failure {
    let code = match failed.cause.kind() {
        Kind::Answer => Code::No,
        Kind::Timeout => Code::Timeout,
        Kind::Network => Code::Receive,
        Kind::Script => Code::Usage,
    };
    Failure::new(code, failed)
}

fn truncated(account: &Account) -> Failure {
    let error = anyhow!(
        "truncated: {} ended TLS without close_notify, so what came may not be all",
        account.peer
    );
    Failure::new(Code::Receive, error)
        .with_hint("--tls-eof lax is for servers that are known to end so")
}

/// The exit code for the way in which the connection ended.
pub(super) fn finish(
    arguments: &Connect,
    ending: Ending,
    account: &Account,
) -> Result<Code, Failure> {
    let wanted = arguments.recv_bytes.map_or(0, NonZeroU64::get);
    let got = account.bytes_received;
    match ending {
        Ending::PeerClosed | Ending::InputEnded if got < wanted => Err(Failure::new(
            Code::Receive,
            anyhow!("{} closed after {got} of {wanted} bytes", account.peer),
        )),
        Ending::PeerClosed | Ending::InputEnded | Ending::Received => Ok(Code::Done),
        Ending::OutputClosed | Ending::ScriptEnded => Ok(Code::Done),
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
        Ending::ScriptFailed(failed) => Err(of_script(failed)),
        Ending::Idle(limit) => Err(Failure::new(
            Code::Timeout,
            anyhow!(
                "nothing moved to or from {} for {}",
                account.peer,
                humantime::format_duration(limit)
            ),
        )),
        Ending::Truncated => Err(truncated(account)),
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
pub(super) fn with_program(
    ended: Result<Code, Failure>,
    program: io::Result<Ended>,
) -> Result<Code, Failure> {
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
