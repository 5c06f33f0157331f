//! Which program is run, and how.

use std::borrow::Cow;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::cli::serve::{Serve, StderrTo};
use crate::environment::{Facts, Variables, variables};
use crate::exit::Failure;

/// A program that was found, and all of it that is the same for every client, as posix_spawn(3) takes it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Where it is: a path with a slash, so that nothing is searched for a client.
    path: PathBuf,
    /// What is started: the program, or on a terminal ourselves.
    started: CString,
    arguments: Vec<CString>,
    /// The server's environment without the variables that are of a connection.
    environment: Vec<CString>,
    pub(super) on_terminal: bool,
    pub(super) stderr: StderrTo,
}

impl Program {
    /// Finds the program.
    pub(super) fn find(arguments: &Serve) -> Result<Self, Failure> {
        let [name, rest @ ..] = &arguments.command[..] else {
            return Err(Failure::usage(anyhow!("exec has no program to run"))
                .with_hint("write it at the end, after --: serve exec -- cat"));
        };
        let (name, rest) = if arguments.shell {
            if !rest.is_empty() {
                let error = anyhow!(
                    "--shell takes one argument, and there are {}",
                    1 + rest.len()
                );
                return Err(Failure::usage(error).with_hint("put the whole command in quotes"));
            }
            (OsStr::new(SHELL), vec!["-c".into(), name.clone()])
        } else {
            (name.as_os_str(), rest.to_vec())
        };
        let path = find(name, env::var_os("PATH").as_deref()).map_err(|error| {
            let shown = name.to_string_lossy().into_owned();
            Failure::usage(anyhow!(error).context(format!("cannot run '{shown}'"))).with_hint(
                "write a program in PATH, or its path; a line for the shell needs --shell",
            )
        })?;
        let mut words = vec![name.to_owned()];
        let mut started = path.as_os_str();
        if arguments.pty {
            words = [OURSELVES, ON_TERMINAL].map(OsString::from).to_vec();
            words.extend([path.clone().into(), name.to_owned()]);
            started = OsStr::new(OURSELVES);
        }
        words.extend(rest);
        Ok(Self {
            started: c_string(started),
            arguments: words.iter().map(|word| c_string(word)).collect(),
            environment: inherited(),
            path,
            on_terminal: arguments.pty,
            stderr: arguments.stderr.unwrap_or(StderrTo::Log),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it, leading a process group of its own or about to: see `become_on_terminal`.
    ///
    /// `stdio` is to be its stdin and stdout, and `stderr`, if it is not to be ours, its stderr. It inherits no other descriptor
    /// of the server's, the default disposition of SIGPIPE, and no signal mask.
    pub(super) fn start(
        &self,
        variables: &Variables,
        stdio: &OwnedFd,
        stderr: Option<&OwnedFd>,
    ) -> io::Result<Pid> {
        let mut files = PosixSpawnFileActions::init()?;
        files.add_dup2(stdio.as_raw_fd(), 0)?;
        files.add_dup2(stdio.as_raw_fd(), 1)?;
        if let Some(stderr) = stderr {
            files.add_dup2(stderr.as_raw_fd(), 2)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
        flags |= PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
        attributes.set_sigdefault(&Signal::SIGPIPE.into())?;
        attributes.set_sigmask(&SigSet::empty())?;
        if !self.on_terminal {
            flags |= PosixSpawnFlags::POSIX_SPAWN_SETPGROUP;
        }
        attributes.set_flags(flags)?;
        let inherited = self.environment.iter();
        let mut environment: Vec<_> = inherited.map(|line| Cow::Borrowed(&**line)).collect();
        for (name, value) in variables {
            if let Some(value) = value {
                environment.push(Cow::Owned(CString::new(format!("{name}={value}"))?));
            }
        }
        let pid = posix_spawn(
            &*self.started,
            &files,
            &attributes,
            &self.arguments,
            &environment,
        )?;
        Ok(Pid::from_raw(pid.as_raw()).expect("a process that was started has a number"))
    }
}

/// The server's environment without what only a connection has: it would be taken for the client's.
fn inherited() -> Vec<CString> {
    let ours = variables(&Facts::default());
    let others = env::vars_os().filter(|(name, _)| ours.iter().all(|(own, _)| name != own));
    others
        .map(|(mut line, value)| {
            line.push("=");
            line.push(value);
            c_string(&line)
        })
        .collect()
}

/// Of text that comes from our command line or environment, and so has no NUL in it.
fn c_string(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).expect("no NUL in arguments")
}

const SHELL: &str = "/bin/sh";

/// The verb that starts a program on a terminal; no user is to know it.
pub(super) const ON_TERMINAL: &str = "exec-on-terminal";

/// proc(5): also if the file was replaced by a newer one since.
const OURSELVES: &str = "/proc/self/exe";

/// Where a program is, as execvp(3) looks for it.
fn find(name: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return runnable(&path).map(|()| path);
    }
    if name.is_empty() {
        return Err(Errno::NOENT.into());
    }
    let mut failed = io::Error::from(Errno::NOENT);
    for folder in env::split_paths(path.unwrap_or_else(|| OsStr::new(DEFAULT_PATH))) {
        // An empty one is the working folder.
        let candidate = Path::new(".").join(folder).join(name);
        match runnable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}

/// Where there is no PATH (execvp(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

fn runnable(path: &Path) -> io::Result<()> {
    let is_file = path.metadata()?.is_file();
    if !is_file {
        return Err(Errno::ACCESS.into());
    }
    Ok(access(path, Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_found_where_execvp_would_find_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        fs::write(&path, "").expect("written");
        let folders = env::join_paths([Path::new("/no/such/folder"), folder.path()]);
        let folders = folders.expect("no colon");
        let found = |name: &str| find(name.as_ref(), Some(&folders)).map_err(|error| error.kind());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        assert_eq!(found("program"), Err(io::ErrorKind::PermissionDenied));
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
        assert_eq!(found("program").as_deref(), Ok(path.as_path()));
        assert_eq!(found("nothing"), Err(io::ErrorKind::NotFound));
        assert_eq!(found(""), Err(io::ErrorKind::NotFound));
        // A folder is no program, and nothing with a slash is searched for.
        let inside = folder.path().to_str().expect("text");
        assert_eq!(found(inside), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(found("./program"), Err(io::ErrorKind::NotFound));
    }
}
