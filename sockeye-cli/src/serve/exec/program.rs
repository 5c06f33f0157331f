//! Which program is run, and how.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::anyhow;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::cli::serve::{Serve, StderrTo};
use crate::environment::Variables;
use crate::exit::Failure;

/// A program that was found, and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Where it is: a path with a slash, so that nothing is searched for a client.
    path: PathBuf,
    /// What it is called by, as it was written.
    name: OsString,
    arguments: Vec<OsString>,
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
            (SHELL.into(), vec!["-c".into(), name.clone()])
        } else {
            (name.clone(), rest.to_vec())
        };
        let path = find(&name, env::var_os("PATH").as_deref()).map_err(|error| {
            let shown = name.to_string_lossy().into_owned();
            Failure::usage(anyhow!(error).context(format!("cannot run '{shown}'"))).with_hint(
                "write a program in PATH, or its path; a line for the shell needs --shell",
            )
        })?;
        Ok(Self {
            path,
            name,
            arguments: rest,
            on_terminal: arguments.pty,
            stderr: arguments.stderr.unwrap_or(StderrTo::Log),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it, leading a process group of its own or about to: see `become_on_terminal`.
    ///
    /// It inherits no descriptor but these three, the default disposition of SIGPIPE, and no signal mask.
    pub(super) fn start(
        &self,
        variables: Variables,
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: Stdio,
    ) -> io::Result<Child> {
        let mut command = if self.on_terminal {
            let mut command = Command::new(OURSELVES);
            command.args([ON_TERMINAL.as_ref(), self.path.as_os_str(), &self.name]);
            command
        } else {
            let mut command = Command::new(&self.path);
            command.arg0(&self.name).process_group(0);
            command
        };
        command.args(&self.arguments);
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(stdin).stdout(stdout).stderr(stderr).spawn()
    }
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
