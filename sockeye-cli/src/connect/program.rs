//! `--exec`: a program on our side of the connection. Its stdin and stdout are pipes, whatever carries the bytes behind
//! them, and the end of the stream is passed on in both directions.

use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use sockeye::Stream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::connect::interrupt::Interrupt;
use crate::environment::{Facts, variables};
use crate::exit::Failure;

/// When the connection has failed: how long the program may take to notice, and again when it was sent TERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// Killed when it is dropped, if it has not ended.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    name: String,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) status: ExitStatus,
    /// While the program was waited for.
    pub(crate) interrupted: bool,
}

impl Ended {
    /// The exit code as a shell has it: 128 and the signal's number, if a signal ended the program.
    pub(crate) fn code(&self) -> i32 {
        let signal = || 128 + self.status.signal().unwrap_or(0);
        self.status.code().unwrap_or_else(signal)
    }
}

impl Program {
    /// Starts it, with what it writes, and where what it is to read goes.
    pub(crate) fn start(
        command: &[OsString],
        stream: &Stream,
    ) -> Result<(Self, PipeReader, PipeWriter), Failure> {
        let [program, arguments @ ..] = command else {
            unreachable!("the command line has a program where it has --exec");
        };
        let name = program.to_string_lossy().into_owned();
        let pipes = || Ok::<_, std::io::Error>((pipe()?, pipe()?));
        let ((stdin, to_stdin), (from_stdout, stdout)) = pipes()
            .context("cannot make a pipe")
            .map_err(Failure::usage)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout)
            .kill_on_drop(true);
        let facts = Facts {
            remote: stream.peer_addr().ok(),
            local: stream.local_addr().ok(),
            ..Facts::default()
        };
        for (name, value) in variables(&facts) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.spawn().map_err(|error| {
            let error = anyhow!(error).context(format!("cannot start '{name}'"));
            Failure::usage(error)
                .with_hint("after -- comes a program and its arguments, no line of a shell")
        })?;
        Ok((Self { child, name }, from_stdout, to_stdin))
    }

    /// Waits until it has ended. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        // It can only fail if somebody else has waited for our child.
        let _ = self.child.wait().await;
    }

    /// Waits for its end: when the connection ended well for as long as it takes, for it is the user's own, and else, or
    /// when that is interrupted, not for long.
    pub(crate) async fn finish(
        mut self,
        well: bool,
        interrupt: &Interrupt,
    ) -> std::io::Result<Ended> {
        let mut interrupted = false;
        if well {
            tokio::select! {
                biased;
                () = self.ended() => {}
                () = interrupt.heard() => interrupted = true,
            }
        } else {
            let _ = timeout(PATIENCE, self.ended()).await;
        }
        if let Some(pid) = self.pid() {
            // It may have ended meanwhile; its id is ours until it was waited for.
            let _ = kill_process(pid, Signal::TERM);
            let _ = timeout(PATIENCE, self.ended()).await;
            let _ = self.child.start_kill();
        }
        Ok(Ended {
            status: self.child.wait().await?,
            name: self.name,
            interrupted,
        })
    }

    /// `None` if it has ended.
    fn pid(&self) -> Option<Pid> {
        let id = self.child.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }
}
