//! What the tests with real peers share: the processes, and how each peer is started.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, finish, line_with, lines};

/// What a process has to end in when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) const MEGABYTE: usize = 1_000_003;

/// A process with its streams, which ends with the test. What it says on stdout are bytes, on stderr lines.
pub(crate) struct Process {
    /// `None` once it has ended.
    child: Option<Child>,
    stdin: Sender<Vec<u8>>,
    stdout: Receiver<Vec<u8>>,
    pub(crate) stderr: Receiver<String>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
        let mut input = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let stderr = lines(child.stderr.take().expect("piped"));
        let (stdin, to_write) = mpsc::channel::<Vec<u8>>();
        // Not every process takes all that it is given; what it did take, the test sees.
        thread::spawn(move || to_write.iter().all(|bytes| input.write_all(&bytes).is_ok()));
        let (read, stdout) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(bytes @ 1..) = output.read(&mut buffer) {
                if read.send(buffer[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child: Some(child),
            stdin,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    /// Waits until it listens on so many ports, and returns them. `None` if it has ended instead.
    pub(crate) fn ports(&mut self, number: usize) -> Option<Vec<String>> {
        // Only the kernel knows, and it has to be asked again and again.
        let until = Instant::now() + PATIENCE;
        while self.child.as_mut()?.try_wait().expect("asked").is_none() {
            let ports = listening_ports(self);
            if ports.len() >= number {
                return Some(ports);
            }
            assert!(Instant::now() < until, "listens on {ports:?}");
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Puts bytes on its stdin, which stays open.
    pub(crate) fn feed(&self, bytes: &[u8]) {
        // If it has ended already, the test learns of it by what it says and by its exit code.
        let _ = self.stdin.send(bytes.to_vec());
    }

    pub(crate) fn end_input(&mut self) {
        self.stdin = mpsc::channel().0;
    }

    /// Waits for the next bytes of stdout, so many at least.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < bytes {
            let Ok(piece) = self.stdout.recv_timeout(PATIENCE) else {
                panic!("stdout has {} bytes of {bytes}", taken.len());
            };
            taken.extend(piece);
        }
        taken
    }

    /// Waits for its end, while its stdin stays as it is: the exit code and what was left on stdout.
    pub(crate) fn wait(&mut self) -> (Option<i32>, Vec<u8>) {
        let mut rest = Vec::new();
        loop {
            match self.stdout.recv_timeout(PATIENCE) {
                Ok(piece) => rest.extend(piece),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("does not end"),
            }
        }
        let child = self.child.take().expect("runs");
        (finish(child, Vec::new()).status.code(), rest)
    }

    /// The end of its stdin, then its own end, which must be a good one: what was left on stdout.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.end_input();
        let (code, rest) = self.wait();
        let said: Vec<String> = self.stderr.try_iter().collect();
        assert_eq!(code, Some(0), "{said:?}");
        rest
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The test has failed, or the process is one that does not end by itself. Asked, a server takes its own
            // children and what it has in the kernel with it; killed, it cannot.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            let until = Instant::now() + GRACE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn command(line: &[&str]) -> Command {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]);
    command
}

/// Bytes that no compression, no reordering and no repetition leave unchanged.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Runs a test three times, side by side: on IPv4, on IPv6 and on a Unix socket.
pub(crate) fn three_times(places: [&str; 2], test: impl Fn(&str) + Sync) {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}", folder.path().join("s").display());
    let test = &test;
    thread::scope(|scope| {
        for place in [places[0], places[1], &unix] {
            scope.spawn(move || test(place));
        }
    });
}

/// curl, told to fetch a path from this address whatever the environment says of proxies.
pub(crate) fn curl(options: &[&str], scheme: &str, address: &str, path: &str) -> Command {
    let mut curl = command(&["curl", "-sS", "--globoff", "--noproxy", "*"]);
    curl.args(options);
    match address.strip_prefix("unix:") {
        Some(unix) => {
            curl.args(["--unix-socket", unix]);
            curl.arg(format!("{scheme}://localhost/{path}"))
        }
        None => curl.arg(format!("{scheme}://{address}/{path}")),
    };
    curl
}

/// `HOST:PORT` of a place and the port that was found for it; a Unix socket's place is its address.
pub(crate) fn address(place: &str, port: &str) -> String {
    match place {
        "::1" => format!("[::1]:{port}"),
        "127.0.0.1" => format!("127.0.0.1:{port}"),
        _ => place.to_owned(),
    }
}

/// A server of another kind that says when it listens, and its address.
pub(crate) fn listening(arguments: &[&str], place: &str) -> (Process, String) {
    let server = Process::start(command(arguments));
    line_with(&server.stderr, "istening on ");
    let address = address(place, &listening_port(&server));
    (server, address)
}

/// Asks the kernel: not every server that was given port 0 tells which one it got. Empty without a port.
pub(crate) fn listening_port(server: &Process) -> String {
    let ports = listening_ports(server);
    ports.into_iter().next().unwrap_or_default()
}

/// The ports that it listens on now, those of IPv4 first.
fn listening_ports(server: &Process) -> Vec<String> {
    let mut ports = Vec::new();
    let pid = server.pid();
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return ports;
    };
    let sockets: Vec<String> = descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
        .collect();
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields[1], fields[3], fields[9]);
            if state == "0A" && sockets.iter().any(|socket| socket == inode) {
                let port = local.rsplit_once(':').expect("a port").1;
                let port = u16::from_str_radix(port, 16).expect("hexadecimal");
                ports.push(port.to_string());
            }
        }
    }
    ports
}

/// A netcat that is started with `-l`.
pub(crate) fn netcat(command: &[&str], place: &str) -> (Process, String) {
    let target = match place.strip_prefix("unix:") {
        Some(path) => vec!["-lU", path],
        None => vec!["-l", place, "0"],
    };
    listening(&[command, &target].concat(), place)
}

/// Twice `-d`: it tells where it listens. It waits for one direction when the other has ended.
pub(crate) fn socat(place: &str) -> (Process, String) {
    let listener = match place {
        "127.0.0.1" => "TCP4-LISTEN:0,bind=127.0.0.1".to_owned(),
        "::1" => "TCP6-LISTEN:0,bind=[::1]".to_owned(),
        _ => place.replace("unix:", "UNIX-LISTEN:"),
    };
    listening(&["socat", "-d", "-d", "-t", "30", "-", &listener], place)
}

pub(crate) const SMALL: usize = 10_000;

/// A folder with the files `small` and `large`.
pub(crate) fn folder_with_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in [("small", SMALL), ("large", MEGABYTE)] {
        fs::write(folder.path().join(name), noise(bytes)).expect("written");
    }
    folder
}

/// An nginx that listens on IPv4, IPv6 and a Unix socket, and its addresses. `None` if somebody has taken its port.
pub(crate) fn nginx(root: &Path) -> Option<(Process, [String; 3])> {
    let port = free_port();
    let root = root.to_str().expect("UTF-8");
    let addresses = ["127.0.0.1", "::1", &format!("unix:{root}/s")];
    let addresses = addresses.map(|place| address(place, &port));
    let [v4, v6, unix] = &addresses;
    let server = format!("server {{ listen {v4}; listen {v6}; listen {unix}; }}");
    let server = nginx_with(root, &nginx_http(root, &server))?;
    Some((server, addresses))
}

/// The configuration of an nginx that speaks HTTP and serves the files of a folder.
pub(crate) fn nginx_http(root: &str, servers: &str) -> String {
    format!(
        "http {{
            access_log off; root {root};
            client_body_temp_path 1; proxy_temp_path 2; fastcgi_temp_path 3; uwsgi_temp_path 4; scgi_temp_path 5;
            {servers}
        }}"
    )
}

/// An nginx that is ready. `None` if somebody has taken its port.
pub(crate) fn nginx_with(root: &str, blocks: &str) -> Option<Process> {
    let configuration = format!(
        "{blocks} daemon off; master_process off; pid pid; error_log stderr notice; events {{}}"
    );
    fs::write(format!("{root}/conf"), configuration).expect("written");
    let server = Process::start(command(&[
        "nginx", "-e", "stderr", "-p", root, "-c", "conf",
    ]));
    loop {
        let line = server.stderr.recv_timeout(PATIENCE).expect("a line");
        if line.contains("bind()") {
            return None;
        }
        assert!(!line.contains("[emerg]"), "{line}");
        // It says how it will wait for clients when its sockets listen.
        if line.contains("epoll") {
            return Some(server);
        }
    }
}

/// For servers that take no port 0: one that is free now will most likely be free in a moment.
pub(crate) fn free_port() -> String {
    let free = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("binds");
    free.local_addr().expect("bound").port().to_string()
}

/// A server that takes no port 0, started with ports that are free, as many as it wants, until nobody else has taken one.
pub(crate) fn on_free_ports<const N: usize>(
    start: impl Fn(&[String; N]) -> Command,
) -> (Process, [String; N]) {
    for _ in 0..5 {
        let ports = [(); N].map(|()| free_port());
        let mut server = Process::start(start(&ports));
        if server.ports(N).is_some() {
            return (server, ports);
        }
        let said: Vec<String> = server.stderr.iter().collect();
        assert!(said.concat().contains("in use"), "{said:?}");
    }
    panic!("no free port in five tries");
}

/// Whose a server is that does not run as root: the user nobody of Debian and Ubuntu.
const NOBODY: u32 = 65_534;

/// A command that root gives to nobody to run, and another user runs as themselves; with a folder that is theirs.
pub(crate) fn unprivileged(line: &[&str], folder: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command(line);
    }
    give_away(folder);
    let nobody = NOBODY.to_string();
    let (user, group) = (format!("--reuid={nobody}"), format!("--regid={nobody}"));
    command(&[&["setpriv", &user, &group, "--clear-groups"], line].concat())
}

fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("given");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("read") {
            give_away(&entry.expect("an entry").path());
        }
    }
}
