//! The program as a process: started, talked to, ended by its id, and never left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything here takes, shorter than a human's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A command line of the program, without a terminal's colours whatever the environment says.
pub(crate) fn sockeye(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockeye"));
    command.args(arguments);
    command.env("NO_COLOR", "1").env_remove("CLICOLOR_FORCE");
    command
}

/// The program, started by somebody who ignores SIGCHLD, which it inherits.
pub(crate) fn sockeye_whose_parent_ignores_children(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_sockeye")]);
    command.args(arguments);
    command
}

/// Runs a command to its end with `input` on its stdin.
pub(crate) fn run(mut command: Command, input: &[u8]) -> Output {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
    finish(child, input.to_vec())
}

/// Feeds a child its input, and returns what it said when it has ended. Killed if that takes too long.
pub(crate) fn finish(mut child: Child, input: Vec<u8>) -> Output {
    let stdin = child.stdin.take();
    let feed = thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A child that does not read all of it ends the pipe.
            let _ = stdin.write_all(&input);
        }
    });
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = ended.send(());
        output
    });
    if end.recv_timeout(PATIENCE).is_err() {
        kill_process(pid, Signal::KILL).expect("it is our child");
        panic!("did not end within {PATIENCE:?}");
    }
    feed.join().expect("no panic");
    waiter.join().expect("no panic").expect("waited for")
}

/// What a command said on stdout, in text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A `sockeye serve` that has printed its ready line.
pub(crate) struct Serving {
    child: Child,
    /// The first listener, as printed.
    pub(crate) address: String,
    /// All lines of stderr after the first.
    pub(crate) stderr: Receiver<String>,
    /// All lines of stdout.
    pub(crate) stdout: Receiver<String>,
}

impl Serving {
    /// Starts `sockeye serve ARGUMENTS`, on a free port unless they say where.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = sockeye(&["serve"]);
        if !arguments.contains(&"-l") {
            command.args(["-l", "127.0.0.1:0"]);
        }
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts any command that prints the ready line.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let stdout = lines(child.stdout.take().expect("piped"));
        let stderr = lines(child.stderr.take().expect("piped"));
        let ready = stderr.recv_timeout(PATIENCE).expect("a ready line");
        let address = ready
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split_once(" ("))
            .unwrap_or_else(|| panic!("not a ready line: {ready}"))
            .0
            .to_owned();
        Self {
            child,
            address,
            stderr,
            stdout,
        }
    }

    /// Starts `sockeye connect ARGUMENTS` and holds it open.
    pub(crate) fn start_client(arguments: &[&str]) -> Talking {
        let mut child = sockeye(&[&["connect"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        Talking {
            child,
            stdin,
            stdout,
        }
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        self.address.parse().expect("an IP address")
    }

    pub(crate) fn port(&self) -> String {
        self.socket_address().port().to_string()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.socket_address()).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        stream
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Waits for its end and returns its exit code, -1 if a signal killed it.
    pub(crate) fn wait(mut self) -> i32 {
        let (ended, end) = mpsc::channel();
        let pid = self.pid();
        let watch = thread::spawn(move || {
            if end.recv_timeout(PATIENCE).is_err() {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let status = self.child.wait().expect("waited for");
        let _ = ended.send(());
        watch.join().expect("no panic");
        status.code().unwrap_or(-1)
    }

    /// TERM, then the end: the exit code and the lines that were left on stderr.
    pub(crate) fn stop(self) -> i32 {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended, or the test has failed and nobody else will end it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `sockeye connect` to an echo that is talked with.
pub(crate) struct Talking {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Talking {
    /// Says something, and waits for its echo.
    pub(crate) fn say(&mut self, message: &[u8]) {
        self.stdin.write_all(message).expect("sent");
        let mut answer = vec![0; message.len()];
        self.stdout.read_exact(&mut answer).expect("answered");
        assert_eq!(answer, message);
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes a stream on, line by line, until it ends.
pub(crate) fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next line that contains `what`.
pub(crate) fn line_with(lines: &Receiver<String>, what: &str) -> String {
    loop {
        let line = lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("no line with '{what}'"));
        if line.contains(what) {
            return line;
        }
    }
}

/// Sends a message and gets it back.
pub(crate) fn echoes(stream: &mut (impl Read + Write), message: &[u8]) {
    stream.write_all(message).expect("sent");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(answer, message);
}

pub(crate) fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
