//! The example scripts, and the programs that they are to fool and to test.

use std::process::Output;

use crate::peers::{Process, command, curl, on_free_ports};
use crate::script::example;
use crate::support::{Serving, json, line_with, run, sockeye, text};

/// A server that follows an example.
fn serve(name: &str) -> Serving {
    Serving::start(&["script", &example(name), "--json"])
}

/// The next connection ended as the script has it.
fn kept_to_the_script(serving: &Serving) {
    let event = json(&line_with(&serving.stdout, "\"close\""));
    assert_ne!(event["reason"], "error", "{event}");
}

/// What Python does with a server on this port.
fn python(script: &str, serving: &Serving) -> String {
    let port = serving.port();
    let output = run(command(&["python3", "-c", script, &port]), b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn connect(name: &str, port: &str) -> Output {
    let (script, address) = (example(name), format!("127.0.0.1:{port}"));
    run(sockeye(&["connect", "--script", &script, &address]), b"")
}

#[test]
#[ignore = "needs python3"]
fn pythons_smtplib_hands_its_mail_to_the_fake_server() {
    let serving = serve("smtp-server.script");
    let said = python(
        r#"
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30) as server:
    print(server.sendmail("a@example.com", ["b@example.com", "c@example.com"], "Subject: x\n\nhello\n.\n"))
    print(server.noop())
    print(server.sendmail("a@example.com", ["b@example.com"], ""))
"#,
        &serving,
    );
    assert_eq!(said, "{}\n(250, b'ok')\n{}\n");
    kept_to_the_script(&serving);
}

#[test]
#[ignore = "needs python3"]
fn pythons_poplib_gets_its_mail_from_the_fake_server() {
    let serving = serve("pop3-server.script");
    let said = python(
        r#"
import poplib, sys
server = poplib.POP3("127.0.0.1", int(sys.argv[1]), timeout=30)
server.user("me")
server.pass_("secret")
print(server.stat())
print(server.retr(1)[1])
try:
    server.dele(1)
except poplib.error_proto as error:
    print(error)
print(server.quit())
"#,
        &serving,
    );
    let expected = "(1, 25)\n[b'Subject: hello', b'', b'hello']\nb'-ERR not that'\nb'+OK bye'\n";
    assert_eq!(said, expected);
    kept_to_the_script(&serving);
}

#[test]
#[ignore = "needs redis-tools"]
fn redis_cli_talks_to_the_fake_server() {
    let serving = serve("redis-server.script");
    let port = serving.port();
    let ask = |words: &[&str]| {
        let line = [&["redis-cli", "-h", "127.0.0.1", "-p", &port], words].concat();
        let output = run(command(&line), b"");
        kept_to_the_script(&serving);
        text(&output.stdout)
    };
    assert_eq!(ask(&["PING"]), "PONG\n");
    assert_eq!(ask(&["GET", "color of \u{fc}"]), "color of \u{fc}\n");
    let refused = ask(&["SET", "color", "blue"]);
    assert!(
        refused.contains("ERR 'SET' is not in the script"),
        "{refused}"
    );
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_server_keeps_to_the_script() {
    let (_server, [port]) = on_free_ports(|[port]| {
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        command(&[&["redis-server", "--port", port], &options[..]].concat())
    });
    let output = connect("redis-client.script", &port);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs curl"]
fn curl_asks_the_fake_server() {
    let serving = serve("http-server.script");
    let output = run(curl(&[], "http", &serving.address, "some/page?x=1"), b"");
    assert_eq!(text(&output.stdout), "GET of /some/page?x=1\n");
    kept_to_the_script(&serving);
}

#[test]
#[ignore = "needs curl"]
fn curl_sees_that_an_answer_was_cut() {
    let serving = serve("cut-answer.script");
    let output = run(curl(&[], "http", &serving.address, ""), b"");
    // Receiving failed (curl(1)): a clean end would have been 18, a part of a file.
    assert_eq!(output.status.code(), Some(56), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "only this");
    kept_to_the_script(&serving);
}

#[test]
#[ignore = "needs python3"]
fn pythons_http_server_keeps_to_the_script() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "import http.server as h, sys; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler); \
        print('at', s.server_port, file=sys.stderr, flush=True); s.serve_forever()";
    let mut server = command(&["python3", "-c", script]);
    server.current_dir(folder.path());
    let server = Process::start(server);
    let line = line_with(&server.stderr, "at ");
    let output = connect("http-client.script", &line["at ".len()..]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs aiosmtpd"]
fn aiosmtpd_keeps_to_the_script() {
    let (_server, [port]) = on_free_ports(|[port]| {
        let listen = format!("127.0.0.1:{port}");
        let sink = ["-c", "aiosmtpd.handlers.Sink"];
        command(&[&["aiosmtpd", "-n", "-l", &listen], &sink[..]].concat())
    });
    let output = connect("smtp-client.script", &port);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // A server of something else does not.
    let other = serve("pop3-server.script");
    let output = connect("smtp-client.script", &other.port());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let expected = "smtp-client.script:2: expected line /220 .*/, and \"+OK ready\\r\\n\" came";
    assert!(said.contains(expected), "{said}");
}
