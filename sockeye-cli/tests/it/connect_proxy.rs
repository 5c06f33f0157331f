//! `sockeye connect --proxy`, through proxies of this file, which do just what is in the RFCs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Command, Output};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::peers::Process;
use crate::support::{PATIENCE, Serving, json, line_with, run, sockeye, text};

/// What a proxy was asked, and with which credentials.
#[derive(Debug, Eq, PartialEq)]
struct Asked {
    destination: String,
    credentials: Option<String>,
}

/// A proxy for SOCKS4, SOCKS4a, SOCKS5 and CONNECT, whichever its client speaks.
struct Proxy {
    address: String,
    asked: Receiver<Asked>,
}

impl Proxy {
    /// One that connects to what it is asked for. `password`: it wants these credentials, `user:password`.
    fn start(password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let (tell, asked) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tell) = (stream.expect("accepts"), tell.clone());
                stream.set_read_timeout(Some(PATIENCE)).expect("set");
                // A client that leaves is no failure of the proxy's.
                thread::spawn(move || serve(stream, password, &tell));
            }
        });
        Self { address, asked }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    fn last(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).expect("was asked")
    }
}

fn serve(mut stream: TcpStream, password: Option<&str>, tell: &Sender<Asked>) -> io::Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let (yes, no, refused) = match first[0] {
        5 => (
            &b"\x05\x00\x00\x01\0\0\0\0\0\0"[..],
            &b"\x01\x01"[..],
            &b"\x05\x05\x00\x01\0\0\0\0\0\0"[..],
        ),
        4 => (
            &b"\x00\x5a\0\0\0\0\0\0"[..],
            &b"\x00\x5d\0\0\0\0\0\0"[..],
            &b"\x00\x5b\0\0\0\0\0\0"[..],
        ),
        _ => (
            &b"HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n"[..],
            &b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"[..],
            &b"HTTP/1.1 502 Bad Gateway\r\n\r\n"[..],
        ),
    };
    let (destination, credentials) = match first[0] {
        5 => match socks5(&mut stream, password)? {
            Some(asked) => asked,
            None => return Ok(()),
        },
        4 => socks4(&mut stream)?,
        _ => http(&mut stream)?,
    };
    let known = password.is_none() || credentials.as_deref() == password;
    let _ = tell.send(Asked {
        destination: destination.clone(),
        credentials,
    });
    if !known {
        return stream.write_all(no);
    }
    let to: Vec<SocketAddr> = destination.to_socket_addrs()?.collect();
    match TcpStream::connect(&to[..]) {
        Ok(to) => {
            stream.write_all(yes)?;
            pump(stream, to)
        }
        Err(_) => stream.write_all(refused),
    }
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn field(stream: &mut TcpStream) -> io::Result<String> {
    let [length] = read(stream)?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes)?;
    Ok(String::from_utf8(bytes).expect("UTF-8"))
}

fn until(stream: &mut TcpStream, end: &[u8]) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.extend(read::<1>(stream)?);
    }
    bytes.truncate(bytes.len() - end.len());
    Ok(String::from_utf8(bytes).expect("UTF-8"))
}

fn socks5(
    stream: &mut TcpStream,
    password: Option<&str>,
) -> io::Result<Option<(String, Option<String>)>> {
    let methods = field(stream)?;
    let mut credentials = None;
    match password {
        None => stream.write_all(b"\x05\x00")?,
        Some(_) if !methods.contains('\x02') => {
            stream.write_all(b"\x05\xff")?;
            return Ok(None);
        }
        Some(wanted) => {
            stream.write_all(b"\x05\x02")?;
            assert_eq!(read(stream)?, [1]);
            let given = format!("{}:{}", field(stream)?, field(stream)?);
            if given != wanted {
                stream.write_all(b"\x01\x01")?;
                return Ok(None);
            }
            credentials = Some(given);
            stream.write_all(b"\x01\x00")?;
        }
    }
    assert_eq!(read(stream)?, [5, 1, 0]);
    let host = match read(stream)? {
        [1] => std::net::Ipv4Addr::from(read::<4>(stream)?).to_string(),
        [4] => format!("[{}]", std::net::Ipv6Addr::from(read::<16>(stream)?)),
        [3] => field(stream)?,
        [other] => panic!("address type {other}"),
    };
    let port = u16::from_be_bytes(read(stream)?);
    Ok(Some((format!("{host}:{port}"), credentials)))
}

fn socks4(stream: &mut TcpStream) -> io::Result<(String, Option<String>)> {
    assert_eq!(read(stream)?, [1]);
    let port = u16::from_be_bytes(read(stream)?);
    let ip = read::<4>(stream)?;
    let user = until(stream, b"\0")?;
    let host = match ip {
        [0, 0, 0, 1] => until(stream, b"\0")?,
        ip => std::net::Ipv4Addr::from(ip).to_string(),
    };
    let credentials = (!user.is_empty()).then(|| format!("{user}:"));
    Ok((format!("{host}:{port}"), credentials))
}

fn http(stream: &mut TcpStream) -> io::Result<(String, Option<String>)> {
    let head = until(stream, b"\r\n\r\n")?;
    let destination = head
        .strip_prefix("ONNECT ")
        .and_then(|rest| rest.split_once(" HTTP/1.1\r\n"))
        .unwrap_or_else(|| panic!("{head}"))
        .0;
    assert!(head.contains(&format!("\r\nHost: {destination}")), "{head}");
    let credentials = head.lines().find_map(|line| {
        let basic = line.strip_prefix("Proxy-Authorization: Basic ")?;
        // `alice:s3cret`, the only ones here.
        Some(match basic {
            "YWxpY2U6czNjcmV0" => "alice:s3cret".to_owned(),
            other => other.to_owned(),
        })
    });
    Ok((destination.to_owned(), credentials))
}

fn pump(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    up.join().expect("no panic");
    Ok(())
}

/// `connect`, with nobody's credentials in the environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = sockeye(&[&["connect"], arguments].concat());
    command.env_remove("SOCKEYE_PROXY_AUTH");
    command
}

/// The proxy here passes FIN on.
fn connect(arguments: &[&str], input: &[u8]) -> Output {
    let fin: &[&str] = match arguments.contains(&"--probe") {
        true => &[],
        false => &["--on-eof", "fin"],
    };
    run(command(&[fin, arguments].concat()), input)
}

fn assert_echoed(output: &Output, input: &[u8]) {
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == input, "other bytes came");
}

#[test]
fn every_kind_of_proxy_is_gone_through_and_resolves_names_as_its_scheme_says() {
    let serving = Serving::start(&[]);
    let port = serving.port();
    let proxy = Proxy::start(None);
    let input: Vec<u8> = (0..=255).cycle().take(300_003).collect();
    for (scheme, asked) in [
        ("socks5", "127.0.0.1"),
        ("socks5h", "localhost"),
        ("socks4", "127.0.0.1"),
        ("socks4a", "localhost"),
        ("http", "localhost"),
        ("HTTP", "localhost"),
    ] {
        let output = connect(&["--proxy", &proxy.url(scheme), "localhost", &port], &input);
        assert_echoed(&output, &input);
        let mut last = proxy.last();
        // ::1 may be the first of localhost, and nobody listens there.
        if last.destination == format!("[::1]:{port}") && scheme == "socks5" {
            last = proxy.last();
        }
        assert_eq!(last.destination, format!("{asked}:{port}"), "{scheme}");
        assert_eq!(last.credentials, None);
    }
}

#[test]
fn tls_a_proxy_header_and_a_proxy_go_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}", folder.path().join("s").display());
    let serving = Serving::start(&[
        "-l",
        "127.0.0.1:0",
        "-l",
        &unix,
        "-v",
        "--tls-self-signed",
        "localhost",
        "--proxy-protocol",
        "from=127.0.0.0/8",
    ]);
    let port = serving.port();
    let proxy = Proxy::start(None);
    for scheme in ["socks5h", "http"] {
        let header = "v2,from=192.0.2.7:5000,to=192.0.2.1:443";
        let options = ["--send-proxy", header, "--insecure", "--tls"];
        let url = proxy.url(scheme);
        let all = [&options[..], &["--proxy", &url, "localhost", &port]].concat();
        let output = connect(&all, b"hello");
        assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(proxy.last().destination, format!("localhost:{port}"));
    }
    // Without the option the certificate is verified for the name that was typed, not for the proxy's.
    let url = proxy.url("http");
    let header = ["--send-proxy", "v1", "--proxy", &url];
    let output = connect(&[&header[..], &["--tls", "localhost", &port]].concat(), b"");
    assert_eq!(output.status.code(), Some(60));
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!("no TLS with localhost:{port}")),
        "{said}"
    );
}

#[test]
fn credentials_come_from_the_environment_or_a_file_and_are_not_told() {
    let serving = Serving::start(&[]);
    let proxy = Proxy::start(Some("alice:s3cret"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auth");
    std::fs::write(&file, "alice:s3cret\r\nnot this\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    for scheme in ["socks5", "socks5h", "http"] {
        let url = proxy.url(scheme);
        let arguments = [
            "-v",
            "--explain",
            "--on-eof",
            "fin",
            "--proxy",
            &url,
            &serving.address,
        ];
        let mut from_environment = command(&arguments);
        from_environment.env("SOCKEYE_PROXY_AUTH", "alice:s3cret");
        let from_environment = run(from_environment, b"hello");
        // The file comes first.
        let mut from_file = command(&[&["--proxy-auth-file", file], &arguments[..]].concat());
        from_file.env("SOCKEYE_PROXY_AUTH", "alice:wrong");
        let from_file = run(from_file, b"hello");
        for output in [from_environment, from_file] {
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{said}");
            assert_eq!(text(&output.stdout), "hello");
            assert!(!said.contains("s3cret"), "{said}");
            assert_eq!(proxy.last().credentials.as_deref(), Some("alice:s3cret"));
        }

        let none = connect(&["--proxy", &url, &serving.address], b"");
        assert_eq!(none.status.code(), Some(7));
        let said = text(&none.stderr);
        assert!(said.contains("the proxy wants credentials"), "{said}");
        assert!(said.contains("hint: SOCKEYE_PROXY_AUTH="), "{said}");

        // With --wait-for as well: another try would go the same way, and may lock somebody out.
        let mut wrong = command(&["--wait-for", "1h", "--proxy", &url, &serving.address]);
        wrong.env("SOCKEYE_PROXY_AUTH", "alice:wr0ng");
        let wrong = run(wrong, b"");
        let said = text(&wrong.stderr);
        assert_eq!(wrong.status.code(), Some(7), "{said}");
        assert!(said.contains("does not accept our credentials"), "{said}");
        assert!(!said.contains("wr0ng"), "{said}");
        while proxy.asked.try_recv().is_ok() {}
    }
    let user = Proxy::start(Some("alice:"));
    let mut command = command(&[
        "--on-eof",
        "fin",
        "--proxy",
        &user.url("socks4"),
        &serving.address,
    ]);
    command.env("SOCKEYE_PROXY_AUTH", "alice");
    assert_echoed(&run(command, b"hello"), b"hello");
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_shown() {
    for url in [
        "http://alice:s3cret@127.0.0.1:80",
        "socks5://s3cret@h:1",
        "s3cret@h",
    ] {
        let output = connect(&["--proxy", url, "127.0.0.1:80"], b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        assert!(
            said.contains("can read a command line") && said.contains("SOCKEYE_PROXY_AUTH"),
            "{said}"
        );
    }
}

/// A port where nobody listens while the socket that gave it is alive.
fn closed_port() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("binds");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    (socket, address.to_string())
}

#[test]
fn a_target_that_cannot_be_had_is_told_from_a_proxy_that_cannot() {
    let (_held, closed) = closed_port();
    let proxy = Proxy::start(None);
    for (scheme, reason) in [
        ("socks5", "the proxy refused: connection refused"),
        ("socks4", "the proxy refused: rejected or failed"),
        ("http", "the proxy refused: 502 Bad Gateway"),
    ] {
        let url = proxy.url(scheme);
        let output = connect(&["--proxy", &url, &closed], b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(
            said.contains(&format!("no connection to {closed} through the proxy")),
            "{said}"
        );
        assert!(said.contains(reason), "{said}");
        // Nobody there: that is what a probe asks.
        let probe = connect(&["--probe", "--proxy", &url, &closed], b"");
        assert_eq!(probe.status.code(), Some(1));
        let line = text(&probe.stdout);
        assert!(
            line.starts_with(&format!("{closed} closed")) && line.contains(reason),
            "{line}"
        );
        let waited = connect(&["--wait-for", "200ms", "--proxy", &url, &closed], b"");
        assert_eq!(waited.status.code(), Some(28));
    }
    // No proxy: nobody has said anything of the target.
    for probe in [&["--probe"][..], &[]] {
        let url = format!("socks5h://{closed}");
        let output = connect(&[probe, &["--proxy", &url, "example.org:80"]].concat(), b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(
            said.contains("the proxy of example.org:80 is not there"),
            "{said}"
        );
        assert!(said.contains("hint:"), "{said}");
    }
    let unknown = connect(
        &["--proxy", "http://no-such-name.invalid:80", "127.0.0.1:80"],
        b"",
    );
    assert_eq!(unknown.status.code(), Some(6));
    let json_probe = [
        "--probe",
        "--json",
        "--proxy",
        &format!("http://{closed}"),
        "example.org:80",
    ];
    let output = connect(&json_probe, b"");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(json(&text(&output.stdout))["open"], false);
}

#[test]
fn the_end_of_our_input_is_not_told_to_a_proxy() {
    let serving = Serving::start(&[]);
    let proxy = Proxy::start(None);
    let url = proxy.url("socks5");
    let kept = ["--idle-timeout", "200ms", "--proxy", &url, &serving.address];
    let kept = run(command(&kept), b"hello");
    assert_eq!(text(&kept.stdout), "hello");
    assert_eq!(kept.status.code(), Some(28));
    // Nobody asked for that, so it is told.
    let mut client = Process::start(command(&["--proxy", &url, &serving.address]));
    client.end_input();
    line_with(&client.stderr, "through a proxy the connection stays open");
}

#[test]
fn what_is_open_behind_a_proxy_is_open() {
    let serving = Serving::start(&[]);
    let proxy = Proxy::start(None);
    let url = proxy.url("http");
    let output = connect(&["--probe", "--proxy", &url, &serving.address], b"");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with(&format!("{} open after", serving.address)));
}

#[test]
fn several_ports_are_asked_of_a_proxy_by_name() {
    let serving = [Serving::start(&[]), Serving::start(&[])];
    let proxy = Proxy::start(None);
    let url = proxy.url("socks5h");
    let mut ports = serving
        .each_ref()
        .map(|server| server.socket_address().port());
    ports.sort_unstable();
    let [low, high] = ports;
    let list = format!("{low},{high}");
    let output = connect(&["--probe", "--proxy", &url, "localhost", &list], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    for (line, port) in lines.iter().zip(ports) {
        assert!(
            line.starts_with(&format!("localhost:{port} open after")),
            "{told}"
        );
    }
    let mut asked = [proxy.last(), proxy.last()].map(|asked| asked.destination);
    asked.sort();
    let mut names = ports.map(|port| format!("localhost:{port}"));
    names.sort();
    assert_eq!(asked, names);
}

/// A proxy that lets nobody through to this port, and says yes for all others.
fn forbids(port: u16) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let forbidden = format!(":{port}");
    let answer = move |stream: &mut TcpStream| {
        let [first] = read(stream)?;
        let (destination, yes, no) = match first {
            5 => (
                socks5(stream, None)?.map(|(destination, _)| destination),
                &b"\x05\x00\x00\x01\0\0\0\0\0\0"[..],
                &b"\x05\x02\x00\x01\0\0\0\0\0\0"[..],
            ),
            _ => (
                Some(http(stream)?.0),
                &b"HTTP/1.1 200 Yes\r\n\r\n"[..],
                &b"HTTP/1.1 403 Forbidden\r\n\r\n"[..],
            ),
        };
        match destination.is_some_and(|destination| destination.ends_with(&forbidden)) {
            true => stream.write_all(no),
            false => stream.write_all(yes),
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepts");
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            // A client that leaves is no failure of the proxy's.
            let _ = answer(&mut stream);
        }
    });
    address
}

#[test]
fn of_several_ports_the_one_that_a_proxy_forbids_is_told_as_closed() {
    let proxy = forbids(81);
    for (scheme, reason) in [
        ("socks5h", "its rules do not allow it"),
        ("http", "403 Forbidden"),
    ] {
        let url = format!("{scheme}://{proxy}");
        let output = connect(&["--probe", "--proxy", &url, "example.org", "80-82"], b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let told = text(&output.stdout);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert!(lines[0].starts_with("example.org:80 open"), "{told}");
        assert!(lines[1].starts_with("example.org:81 closed"), "{told}");
        assert!(lines[1].contains(reason), "{told}");
        assert!(lines[2].starts_with("example.org:82 open"), "{told}");
        // Of one alone it is an error as before: nobody was asked.
        let output = connect(&["--probe", "--proxy", &url, "example.org", "81"], b"");
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    }
    // Who does not know us lets us through to none of them.
    let proxy = Proxy::start(Some("user:password"));
    let url = proxy.url("http");
    let output = connect(&["--probe", "--proxy", &url, "example.org", "80-82"], b"");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("credentials"));
}

#[test]
fn a_proxy_that_says_nothing_is_exit_code_28() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let output = connect(
        &["--timeout", "200ms", "--proxy", &url, "example.org:80"],
        b"",
    );
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(28), "{said}");
    assert!(
        said.contains("did not reach example.org:80 within 200ms"),
        "{said}"
    );
}

#[test]
fn what_is_no_proxy_is_told_with_what_it_said() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        stream.write_all(b"\x1b[31mhello\r\n").expect("sent");
        stream
    });
    let output = connect(&["--proxy", &url, "example.org:80"], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("the proxy sent \\u{1b}[31mhe"), "{said}");
    assert!(said.contains("hint: is it a proxy of this kind?"), "{said}");
    server.join().expect("no panic");
}

#[test]
fn the_account_tells_of_the_hop() {
    let serving = Serving::start(&[]);
    let proxy = Proxy::start(None);
    let url = proxy.url("socks5");
    let output = connect(
        &["--explain", "--json", "--proxy", &url, &serving.address],
        b"hi",
    );
    assert_eq!(text(&output.stdout), "hi");
    let account = json(&text(&output.stderr));
    assert_eq!(account["peer"], serving.address.as_str());
    assert_eq!(account["addresses"], serde_json::json!([proxy.address]));
    let hop = &account["hops"][0];
    assert_eq!(hop["proxy"], proxy.address.as_str());
    assert_eq!(hop["protocol"], "socks5");
    assert_eq!(hop["destination"], serving.address.as_str());
    assert_eq!(hop["outcome"], "connected");
    assert!(
        hop["started_ms"].as_f64() <= hop["ended_ms"].as_f64(),
        "{hop}"
    );
    let (_held, closed) = closed_port();
    let output = connect(&["--explain", "--json", "--proxy", &url, &closed], b"");
    assert_eq!(output.status.code(), Some(7));
    let account = json(&text(&output.stderr));
    assert_eq!(account["ending"], "not_connected");
    assert_eq!(account["hops"][0]["outcome"], "failed");
    assert_eq!(
        account["hops"][0]["error"],
        "the proxy refused: connection refused"
    );
    let output = connect(&["-v", "--proxy", &url, &serving.address], b"hi");
    let said = text(&output.stderr);
    let line = format!("asked      socks5 proxy {} at", proxy.address);
    assert!(said.contains(&line), "{said}");
    assert!(
        said.contains(&format!("connected to {}", serving.address)),
        "{said}"
    );
}

#[test]
fn what_cannot_be_asked_of_a_proxy_is_exit_code_2() {
    for (url, target, words) in [
        ("127.0.0.1:1080", "h:80", "scheme is missing"),
        ("https://127.0.0.1:1080", "h:80", "TLS to a proxy"),
        ("ftp://127.0.0.1:1080", "h:80", "'ftp' is no kind of proxy"),
        ("socks5://127.0.0.1", "h:80", "port is missing"),
        ("http://h:80/path", "h:80", "not a port number"),
        (
            "socks4a://127.0.0.1:1080",
            "[::1]:80",
            "IPv4 addresses only",
        ),
        ("http://127.0.0.1:1080", "unix:/tmp/x", "Unix socket"),
        ("http://127.0.0.1:1080", "a b:80", "no name of a host"),
    ] {
        let output = connect(&["--proxy", url, target], b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{url} {target}: {said}");
        assert!(said.contains(words), "{url} {target}: {said}");
    }
    let mut command = command(&["--proxy", "socks4://127.0.0.1:1080", "127.0.0.1:80"]);
    command.env("SOCKEYE_PROXY_AUTH", "alice:s3cret");
    let output = run(command, b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no password") && !said.contains("s3cret"),
        "{said}"
    );
    let missing = [
        "--proxy-auth-file",
        "/no/such/file",
        "--proxy",
        "http://h:1",
        "h:80",
    ];
    let output = connect(&missing, b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/no/such/file"));
    let alone = connect(&["--proxy-auth-file", "/dev/null", "h:80"], b"");
    assert_eq!(alone.status.code(), Some(2));
    let empty = connect(
        &[
            "--proxy-auth-file",
            "/dev/null",
            "--proxy",
            "http://h:1",
            "h:80",
        ],
        b"",
    );
    assert_eq!(empty.status.code(), Some(2));
    assert!(text(&empty.stderr).contains("first line is empty"));
}
