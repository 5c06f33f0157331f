//! `sockeye connect --starttls`, and real servers of all six protocols.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::authority::Authority;
use crate::peers::{Process, command, on_free_ports, unprivileged};
use crate::support::{json, line_with, run, sockeye, text};

/// An authority, a certificate for localhost in `server.pem` and `server.key`, and a folder that a server may own.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    fs::create_dir(authority.path("home")).expect("a folder");
    // A server of another user reads what is in here, and PostgreSQL wants the key for itself.
    fs::set_permissions(authority.folder(), PermissionsExt::from_mode(0o711)).expect("set");
    for file in ["server.pem", "server.key"] {
        let copy = authority.path(&format!("home/{file}"));
        fs::copy(authority.path(file), &copy).expect("copied");
        fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).expect("set");
    }
    authority
}

fn connect(arguments: &[&str], port: &str, input: &[u8]) -> Output {
    let address = format!("localhost:{port}");
    run(
        sockeye(&[&["connect", "-4"], arguments, &[&address]].concat()),
        input,
    )
}

/// Asks for TLS, says this, and returns what was answered until the server ended, and the account.
fn talk(authority: &Authority, protocol: &str, port: &str, say: &[u8]) -> (Vec<u8>, Value) {
    talk_with(&[], authority, protocol, port, say)
}

fn talk_with(
    options: &[&str],
    authority: &Authority,
    protocol: &str,
    port: &str,
    say: &[u8],
) -> (Vec<u8>, Value) {
    let ca = authority.path("ca.pem");
    let tls = ["--starttls", protocol, "--ca", &ca, "--explain", "--json"];
    let output = connect(&[&tls, options].concat(), port, say);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let account = json(&said);
    assert_eq!(account["starttls"]["protocol"], protocol, "{account}");
    assert_eq!(account["tls"]["version"], "TLSv1.3", "{account}");
    assert_eq!(account["tls"]["certificates"][0]["names"][0], "localhost");
    (output.stdout, account)
}

/// Without TLS to be had it is exit code 35 with the reason, and an unknown authority 60.
fn is_not_offered(protocol: &str, port: &str, why: &str) {
    let output = connect(&["--starttls", protocol], port, b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(35), "{said}");
    assert!(said.contains(why), "no '{why}' in: {said}");
    assert_eq!(text(&output.stdout), "");
}

fn is_not_trusted(protocol: &str, port: &str) {
    let stranger = Authority::new();
    let ca = stranger.path("ca.pem");
    let output = connect(&["--starttls", protocol, "--ca", &ca], port, b"");
    assert_eq!(output.status.code(), Some(60), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
}

/// aiosmtpd, a server of SMTP in Python, with or without TLS.
fn smtp(authority: &Authority, tls: bool) -> (Process, String) {
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    let (server, [port]) = on_free_ports(|[port]| {
        let listen = format!("127.0.0.1:{port}");
        let mut line = vec!["aiosmtpd", "-n", "-l", &listen];
        line.extend(["-c", "aiosmtpd.handlers.Sink"]);
        if tls {
            line.extend(["--tlscert", &certificate, "--tlskey", &key]);
        }
        command(&line)
    });
    (server, port)
}

#[test]
#[ignore = "needs aiosmtpd"]
fn a_server_of_smtp_greets_again_over_tls() {
    let authority = authority();
    let (_server, port) = smtp(&authority, true);
    let mail = b"EHLO me.example\r\nMAIL FROM:<me@example.com>\r\nQUIT\r\n";
    let (answer, _) = talk(&authority, "smtp", &port, mail);
    let answer = text(&answer);
    assert!(answer.starts_with("250-"), "{answer}");
    assert!(!answer.contains("STARTTLS"), "it is over TLS now: {answer}");
    assert!(answer.ends_with("250 OK\r\n221 Bye\r\n"), "{answer}");
    is_not_trusted("smtp", &port);
}

#[test]
#[ignore = "needs aiosmtpd"]
fn a_server_of_smtp_without_tls_does_not_offer_it() {
    let authority = authority();
    let (_server, port) = smtp(&authority, false);
    is_not_offered("smtp", &port, "does not offer STARTTLS");
}

/// Dovecot in a folder of its own, which has IMAP on the first port and POP3 on the second.
fn dovecot(authority: &Authority, tls: &str) -> (Process, [String; 2]) {
    let home = authority.path("home");
    on_free_ports(|[imap, pop3]| {
        let configuration = format!(
            "protocols = imap pop3
            base_dir = {home}/run
            state_dir = {home}/state
            log_path = /dev/stderr
            listen = 127.0.0.1
            ssl = {tls}
            ssl_cert = <{home}/server.pem
            ssl_key = <{home}/server.key
            default_internal_user = $USER
            default_internal_group = $GROUP
            default_login_user = $USER
            stats_writer_socket_path =
            passdb {{
                driver = static
                args = nopassword=y
            }}
            service imap-login {{
                chroot =
                inet_listener imap {{
                    port = {imap}
                }}
                inet_listener imaps {{
                    port = 0
                }}
            }}
            service pop3-login {{
                chroot =
                inet_listener pop3 {{
                    port = {pop3}
                }}
                inet_listener pop3s {{
                    port = 0
                }}
            }}
            service anvil {{
                chroot =
            }}
            service stats {{
                chroot =
            }}"
        );
        // It runs as one user, whoever that is.
        let file = format!("{home}/dovecot.conf");
        fs::write(&file, configuration).expect("written");
        let start = "sed -i s/\\$USER/`id -un`/\\;s/\\$GROUP/`id -gn`/ $0 && exec dovecot -F -c $0";
        unprivileged(&["sh", "-c", start, &file], Path::new(&home))
    })
}

#[test]
#[ignore = "needs dovecot"]
fn a_server_of_imap_and_pop3_tells_over_tls_what_it_can_do() {
    let authority = authority();
    let (_server, [imap, pop3]) = dovecot(&authority, "yes");
    let (answer, _) = talk(&authority, "imap", &imap, b"a CAPABILITY\r\nb LOGOUT\r\n");
    let answer = text(&answer);
    assert!(answer.starts_with("* CAPABILITY IMAP4rev1 "), "{answer}");
    assert!(!answer.contains("STARTTLS"), "it is over TLS now: {answer}");
    assert!(answer.contains("\r\nb OK Logout"), "{answer}");
    is_not_trusted("imap", &imap);

    let (answer, _) = talk(&authority, "pop3", &pop3, b"CAPA\r\nQUIT\r\n");
    let answer = text(&answer);
    assert!(answer.starts_with("+OK\r\nCAPA\r\n"), "{answer}");
    assert!(!answer.contains("STLS"), "it is over TLS now: {answer}");
    assert!(answer.ends_with(".\r\n+OK Logging out\r\n"), "{answer}");
    is_not_trusted("pop3", &pop3);
}

#[test]
#[ignore = "needs dovecot"]
fn a_server_of_imap_and_pop3_without_tls_does_not_offer_it() {
    let authority = authority();
    let (_server, [imap, pop3]) = dovecot(&authority, "no");
    is_not_offered("imap", &imap, "does not offer STARTTLS");
    is_not_offered("pop3", &pop3, "does not offer STARTTLS");
}

/// PostgreSQL with a database of its own.
fn postgres(authority: &Authority, tls: &str) -> (Process, String) {
    let home = authority.path("home");
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL where Debian has it")
        .map(|entry| entry.expect("an entry").path().join("bin"))
        .collect();
    versions.sort();
    let programs = versions.pop().expect("a version");
    let program = |name: &str| programs.join(name).display().to_string();
    let (initdb, postgres) = (program("initdb"), program("postgres"));
    let data = format!("{home}/data");
    let make = [
        &initdb,
        "-D",
        &data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
    ];
    let made = run(unprivileged(&make, Path::new(&home)), b"");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        format!("ssl={tls}"),
        format!("ssl_cert_file={home}/server.pem"),
        format!("ssl_key_file={home}/server.key"),
    ];
    let (server, [port]) = on_free_ports(|[port]| {
        let mut line = vec![postgres.as_str(), "-D", &data, "-p", port];
        for setting in &settings {
            line.extend(["-c", setting]);
        }
        unprivileged(&line, Path::new(&home))
    });
    // It listens before that, and answers with an error.
    line_with(&server.stderr, "ready to accept connections");
    (server, port)
}

/// A message of PostgreSQL's client: its kind, if it has one, its length, its content.
fn message(kind: &[u8], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + content.len()).expect("short");
    [kind, &length.to_be_bytes(), content].concat()
}

#[test]
#[ignore = "needs postgresql"]
fn postgresql_answers_a_query_over_tls() {
    let authority = authority();
    let (_server, port) = postgres(&authority, "on");
    let version = 0x0003_0000_u32.to_be_bytes();
    let start = [&version[..], b"user\0postgres\0\0"].concat();
    let query = b"select version, cipher from pg_stat_ssl where pid = pg_backend_pid()\0";
    let session = [
        message(b"", &start),
        message(b"Q", query),
        message(b"X", b""),
    ];
    let (answer, account) = talk(&authority, "postgres", &port, &session.concat());
    let answer = String::from_utf8_lossy(&answer);
    // Authentication went well, and the row says what was agreed.
    assert!(answer.starts_with("R\0\0\0\x08\0\0\0\0"), "{answer:?}");
    let cipher = account["tls"]["cipher"].as_str().expect("text");
    assert!(answer.contains("TLSv1.3"), "{answer:?}");
    assert!(answer.contains(cipher), "no {cipher} in {answer:?}");
    is_not_trusted("postgres", &port);
}

#[test]
#[ignore = "needs postgresql"]
fn postgresql_without_tls_does_not_offer_it() {
    let authority = authority();
    let (_server, port) = postgres(&authority, "off");
    is_not_offered("postgres", &port, "does not offer STARTTLS");
}

/// Prosody for the host `localhost`. It is told where its certificate is, or nothing of one.
fn prosody(authority: &Authority, tls: bool) -> (Process, String) {
    let home = authority.path("home");
    let ssl = format!("certificate = '{home}/server.pem'; key = '{home}/server.key'");
    let (module, ssl) = if tls {
        ("'tls';", ssl.as_str())
    } else {
        ("", "")
    };
    let (server, [port]) = on_free_ports(|[port]| {
        let configuration = format!(
            "pidfile = '{home}/pid'
            data_path = '{home}'
            certificates = '{home}'
            modules_enabled = {{ {module} 'saslauth' }}
            modules_disabled = {{ 's2s' }}
            interfaces = {{ '127.0.0.1' }}
            c2s_ports = {{ {port} }}
            c2s_require_encryption = false
            allow_unencrypted_plain_auth = true
            log = {{ {{ to = 'console', levels = {{ min = 'info' }} }} }}
            VirtualHost 'localhost'
                ssl = {{ {ssl} }}"
        );
        let file = format!("{home}/prosody.cfg.lua");
        fs::write(&file, configuration).expect("written");
        // It says everything on stdout.
        let start = "exec prosody -F --config $0 >&2";
        unprivileged(&["sh", "-c", start, &file], Path::new(&home))
    });
    (server, port)
}

#[test]
#[ignore = "needs prosody"]
fn a_server_of_xmpp_offers_to_log_in_over_tls() {
    let authority = authority();
    let (_server, port) = prosody(&authority, true);
    let stream = "<stream:stream to='localhost' xmlns='jabber:client' version='1.0' \
                  xmlns:stream='http://etherx.jabber.org/streams'></stream:stream>";
    let (answer, _) = talk(&authority, "xmpp", &port, stream.as_bytes());
    let answer = text(&answer);
    assert!(answer.contains("from='localhost'"), "{answer}");
    assert!(answer.contains("<mechanism>PLAIN</mechanism>"), "{answer}");
    assert!(!answer.contains("starttls"), "it is over TLS now: {answer}");
    is_not_trusted("xmpp", &port);
}

#[test]
#[ignore = "needs prosody"]
fn a_server_of_xmpp_without_tls_does_not_offer_it() {
    let authority = authority();
    let (_server, port) = prosody(&authority, false);
    is_not_offered("xmpp", &port, "does not offer STARTTLS");
}

/// slapd without a database: it can still be bound to.
fn slapd(authority: &Authority, tls: bool) -> (Process, String) {
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    let configuration = if tls {
        format!("TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n")
    } else {
        String::new()
    };
    let file = authority.path("slapd.conf");
    fs::write(&file, configuration).expect("written");
    // A copy, because Ubuntu's AppArmor lets the one in its place read nothing in here.
    // Made by another process: a program that this one had open for writing could not be run (ETXTBSY) while a child that
    // another test is starting still has our descriptors.
    let program = authority.path("slapd");
    let copied = command(&["cp", "/usr/sbin/slapd", &program]).status();
    assert!(copied.expect("runs").success());
    let (server, [port]) = on_free_ports(|[port]| {
        let url = format!("ldap://127.0.0.1:{port}/");
        command(&[&program, "-h", &url, "-f", &file, "-d", "0"])
    });
    (server, port)
}

#[test]
#[ignore = "needs slapd"]
fn a_server_of_ldap_is_bound_to_over_tls() {
    let authority = authority();
    let (_server, port) = slapd(&authority, true);
    // RFC 4511: an anonymous bind of version 3 as message 2, and its success. An unbind right behind it would be an end
    // that the server takes for more urgent than its answer.
    let bind = b"\x30\x0c\x02\x01\x02\x60\x07\x02\x01\x03\x04\x00\x80\x00";
    let success = b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
    let until = ["--recv-bytes", "14"];
    let (answer, _) = talk_with(&until, &authority, "ldap", &port, bind);
    assert_eq!(answer, success);
    is_not_trusted("ldap", &port);
}

#[test]
#[ignore = "needs slapd"]
fn a_server_of_ldap_without_tls_refuses() {
    let authority = authority();
    let (_server, port) = slapd(&authority, false);
    is_not_offered("ldap", &port, "the server refused: ");
}
