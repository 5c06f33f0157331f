//! The PROXY header, and proxies that no one here wrote: HAProxy and nginx before `serve`, `connect` before them.

use std::fs;
use std::io::Read;
use std::net::{Shutdown, TcpStream};

use serde_json::Value;

use crate::authority::Authority;
use crate::peers::{Process, command, free_port, nginx_http, nginx_with, on_free_ports};
use crate::support::{PATIENCE, Serving, echoes, json, line_with, run, sockeye, text};

/// An authority, and a certificate for localhost that has its key in the same file, as HAProxy wants it.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    authority.certificate("client", &["client.example"]);
    let read = |file| fs::read_to_string(authority.path(file)).expect("read");
    let both = read("server.pem") + &read("server.key");
    fs::write(authority.path("both.pem"), both).expect("written");
    authority
}

/// An echo that believes proxies of this machine, and the ports of its listeners: without TLS, and with it.
fn serve(authority: &Authority, arguments: &[&str]) -> (Serving, [String; 2]) {
    let both = authority.path("both.pem");
    let listen = ["-l", "tcp://127.0.0.1:0", "-l", "tls://127.0.0.1:0"];
    let believe = [
        "--tls-cert",
        &both,
        "--json",
        "--proxy-protocol",
        "from=127.0.0.1",
    ];
    let serving = Serving::start(&[&listen, &believe[..], arguments].concat());
    let over_tls = line_with(&serving.stderr, "(echo over TLS)");
    let over_tls = over_tls.split(' ').nth(2).expect("an address");
    let (_, over_tls) = over_tls.rsplit_once(':').expect("a port");
    let ports = [serving.port(), over_tls.to_owned()];
    (serving, ports)
}

/// An HAProxy in which each of these parts of a configuration has a port of its own in the place of `PORT`.
fn haproxy<const N: usize>(authority: &Authority, parts: [String; N]) -> (Process, [String; N]) {
    let file = authority.path("haproxy.cfg");
    on_free_ports(|ports: &[String; N]| {
        let mut configuration = "defaults\n mode tcp\n \
             timeout connect 10s\n timeout client 30s\n timeout server 30s\n"
            .to_owned();
        for (part, port) in parts.iter().zip(ports) {
            configuration.push_str(&part.replace("PORT", port));
        }
        fs::write(&file, configuration).expect("written");
        command(&["haproxy", "-db", "-f", &file])
    })
}

/// A part that listens with `bind` options and passes all on to a server.
fn passes_on(bind: &str, server: &str) -> String {
    format!("listen in-PORT\n bind 127.0.0.1:PORT {bind}\n server one 127.0.0.1:{server}\n")
}

fn event(serving: &Serving, name: &str) -> Value {
    json(&line_with(
        &serving.stdout,
        &format!("\"event\":\"{name}\""),
    ))
}

/// Talks through a proxy, and returns what the server was told of the client. That is true.
fn talks_through(port: &str, serving: &Serving) -> Value {
    let mut client = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connects");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    let (here, proxy) = (
        client.local_addr().expect("bound").to_string(),
        client.peer_addr().expect("connected").to_string(),
    );
    echoes(&mut client, b"hello by a proxy");
    client.shutdown(Shutdown::Write).expect("shut");
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    let handshake = event(serving, "handshake");
    let header = &handshake["proxy_header"];
    assert_eq!(handshake["client"], here.as_str(), "{handshake}");
    assert_eq!(header["command"], "proxy", "{handshake}");
    assert_eq!(header["source"], here.as_str(), "{handshake}");
    assert_eq!(header["destination"], proxy.as_str(), "{handshake}");
    let close = event(serving, "close");
    assert_eq!(close["client"], here.as_str(), "{close}");
    assert_ne!(close["peer"], here.as_str(), "{close}");
    assert_eq!(close["reason"], "peer_closed", "{close}");
    assert_eq!(
        (&close["bytes_in"], &close["bytes_out"]),
        (&json("16"), &json("16"))
    );
    handshake
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_tells_who_the_client_is_in_both_versions_and_before_tls() {
    let authority = authority();
    let (serving, [plain, over_tls]) = serve(&authority, &[]);
    let ca = authority.path("ca.pem");
    let tls = format!("ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost");
    let parts = [
        format!("{plain} send-proxy"),
        format!("{plain} send-proxy-v2"),
        format!("{over_tls} send-proxy {tls}"),
        format!("{over_tls} send-proxy-v2 {tls}"),
    ];
    let (_haproxy, ports) = haproxy(&authority, parts.map(|server| passes_on("", &server)));
    for (index, port) in ports.iter().enumerate() {
        let handshake = talks_through(port, &serving);
        let version = if index % 2 == 0 { 1 } else { 2 };
        assert_eq!(handshake["proxy_header"]["version"], version, "{handshake}");
        let name = &handshake["tls"]["server_name"];
        let expected = if index < 2 { "null" } else { "\"localhost\"" };
        assert_eq!(name, &json(expected), "{handshake}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_tells_of_its_clients_tls() {
    let authority = authority();
    let (serving, [plain, over_tls]) = serve(&authority, &[]);
    let (ca, both) = (authority.path("ca.pem"), authority.path("both.pem"));
    let bind = format!("ssl crt {both} ca-file {ca} verify optional alpn echo,h2");
    let options =
        "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,crc32c,unique-id,authority";
    let parts = [
        format!("{plain} send-proxy-v2 {options}\n unique-id-format id-%ci"),
        format!(
            "{over_tls} send-proxy-v2-ssl-cn ssl verify required ca-file {ca} verifyhost localhost"
        ),
    ];
    let (_haproxy, ports) = haproxy(&authority, parts.map(|server| passes_on(&bind, &server)));
    let (cert, key) = (authority.path("client.pem"), authority.path("client.key"));
    let talk = |port: &str, options: &[&str]| {
        let address = format!("tls://localhost:{port}");
        let say = [
            "--ca",
            &ca,
            "--send",
            "hello",
            "--recv-bytes",
            "5",
            &address,
        ];
        let output = run(sockeye(&[&["connect"], options, &say[..]].concat()), b"");
        assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
        event(&serving, "handshake")["proxy_header"].clone()
    };
    let with_certificate = ["--cert", &cert, "--key", &key, "--alpn", "echo"];
    let header = talk(&ports[0], &with_certificate);
    assert_eq!(header["authority"], "localhost", "{header}");
    assert_eq!(header["alpn"], "echo", "{header}");
    assert_eq!(header["unique_id"], "id-127.0.0.1", "{header}");
    let tls = &header["tls"];
    assert_eq!(tls["version"], "TLSv1.3", "{header}");
    assert_eq!(tls["common_name"], "a certificate for tests", "{header}");
    assert_eq!(tls["verified"], true, "{header}");
    let cipher = tls["cipher"].as_str().expect("text");
    assert!(cipher.starts_with("TLS_"), "{cipher}");

    let header = talk(&ports[1], &with_certificate);
    let tls = &header["tls"];
    assert_eq!(tls["common_name"], "a certificate for tests", "{header}");
    let header = talk(&ports[0], &[]);
    assert_eq!(header["tls"]["version"], "TLSv1.3", "{header}");
    assert_eq!(header["tls"]["common_name"], Value::Null, "{header}");
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs haproxy"]
fn haproxys_health_checks_are_let_in_and_do_no_harm() {
    let authority = authority();
    // Whoever the proxy speaks for from this machine is refused; the proxy for itself is not.
    let rules = ["--deny", "127.0.0.1", "--rate", "1/h,burst=1"];
    let (serving, [plain, over_tls]) = serve(&authority, &rules);
    let checks = "check check-send-proxy inter 20ms fall 1 rise 1";
    let parts = [
        format!("{plain} send-proxy-v2 {checks}"),
        format!("{over_tls} send-proxy-v2 ssl verify none check-ssl {checks}"),
    ];
    let (haproxy, [port, _]) = haproxy(&authority, parts.map(|server| passes_on("", &server)));
    let (mut without_tls, mut with_tls) = (0, 0);
    while without_tls < 3 || with_tls < 3 {
        let handshake = event(&serving, "handshake");
        assert_eq!(handshake["proxy_header"]["command"], "local", "{handshake}");
        assert_eq!(handshake["proxy_header"]["source"], Value::Null);
        assert_eq!(handshake["client"], Value::Null, "{handshake}");
        if handshake["tls"].is_null() {
            without_tls += 1;
        } else {
            with_tls += 1;
        }
    }
    let mut client = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connects");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    // Refused as a client, it gets an end or a reset, and no byte.
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    let refuse = event(&serving, "refuse");
    let here = client.local_addr().expect("bound").to_string();
    assert_eq!(
        (&refuse["client"], &refuse["reason"]),
        (&Value::String(here), &json("\"denied\"")),
        "{refuse}"
    );
    // It was never taken for one that is down.
    drop(haproxy);
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs haproxy"]
fn an_haproxy_that_says_nothing_of_its_client_is_not_served() {
    let authority = authority();
    let (serving, [plain, _]) = serve(&authority, &[]);
    let (_haproxy, [port]) = haproxy(&authority, [passes_on("", &plain)]);
    let address = format!("127.0.0.1:{port}");
    let output = run(sockeye(&["connect", &address]), b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(event(&serving, "close")["reason"], "proxy_header");
    assert_eq!(serving.stop(), 0);
}

/// An nginx that listens on one port of this machine, which is in the place of `PORT`.
fn nginx(authority: &Authority, blocks: &str) -> (Process, String) {
    let root = authority.folder().to_str().expect("UTF-8");
    let started = || {
        let port = free_port();
        let server = nginx_with(root, &blocks.replace("PORT", &port))?;
        Some((server, port))
    };
    (0..5).find_map(|_| started()).expect("a free port")
}

#[test]
#[ignore = "needs nginx and libnginx-mod-stream"]
fn nginx_tells_who_the_client_is_with_and_without_tls() {
    let authority = authority();
    let (serving, [plain, over_tls]) = serve(&authority, &[]);
    let ca = authority.path("ca.pem");
    let tls = format!(
        "proxy_ssl on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca};
        proxy_ssl_server_name on; proxy_ssl_name localhost;"
    );
    for (server, tls) in [(&plain, ""), (&over_tls, tls.as_str())] {
        let blocks = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
            stream {{ server {{
                listen 127.0.0.1:PORT; proxy_pass 127.0.0.1:{server}; proxy_protocol on; {tls}
            }} }}"
        );
        let (_nginx, port) = nginx(&authority, &blocks);
        let handshake = talks_through(&port, &serving);
        assert_eq!(handshake["proxy_header"]["version"], 1, "{handshake}");
        assert_eq!(handshake["tls"].is_null(), tls.is_empty(), "{handshake}");
    }
    assert_eq!(serving.stop(), 0);
}

/// What a server of HTTP answers to whoever sends this header first: the body, and our end of the connection.
fn told(header: &str, options: &[&str], address: &str) -> (String, String) {
    let request = ["--send", "GET / HTTP/1.0\\r\\n\\r\\n", "--on-eof", "keep"];
    let explain = ["--send-proxy", header, "--explain", "--json", address];
    let output = run(
        sockeye(&[&["connect"], &request[..], options, &explain].concat()),
        b"",
    );
    let account = json(&text(&output.stderr));
    let answer = text(&output.stdout);
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{account}: {answer}"));
    let local = account["local"].as_str().expect("an address");
    (body.to_owned(), local.to_owned())
}

const FROM_TO: &str = "from=192.0.2.7:5000,to=192.0.2.8:443";
const FROM_TO_V6: &str = "from=[2001:db8::7]:5000,to=[2001:db8::8]:443";

#[test]
#[ignore = "needs haproxy"]
fn haproxy_believes_what_connect_says() {
    let authority = authority();
    let answers = "http-request return status 200 content-type text/plain lf-string \
         \"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id] %[ssl_fc_sni]\"";
    let both = authority.path("both.pem");
    let parts = ["", &format!("ssl crt {both}")].map(|bind| {
        format!(
            "frontend in-PORT\n mode http\n bind 127.0.0.1:PORT accept-proxy {bind}\n {answers}\n"
        )
    });
    let (_haproxy, [plain, over_tls]) = haproxy(&authority, parts);
    let ca = authority.path("ca.pem");
    let (plain_address, tls_address) = (
        format!("127.0.0.1:{plain}"),
        format!("tls://localhost:{over_tls}"),
    );
    let v2 = |more: &str| format!("v2,{FROM_TO},{more}");
    for (options, address, port, sni) in [
        (&[][..], &plain_address, &plain, ""),
        (&["-4", "--ca", &ca], &tls_address, &over_tls, "localhost"),
    ] {
        for version in ["v1", "v2"] {
            for (what, expected) in [
                (FROM_TO, "192.0.2.7 5000 192.0.2.8 443"),
                (FROM_TO_V6, "2001:db8::7 5000 2001:db8::8 443"),
            ] {
                let (answer, _) = told(&format!("{version},{what}"), options, address);
                assert_eq!(answer, format!("{expected}   {sni}"));
            }
            // By itself it says the truth.
            let (answer, local) = told(version, options, address);
            let local = local.replace(':', " ");
            assert_eq!(answer, format!("{local} 127.0.0.1 {port}   {sni}"));
        }
        let more = v2("authority=example.com,alpn=h2,unique-id=a\\x20b,0xe0=mine,crc32c");
        let (answer, _) = told(&more, options, address);
        let ends = "192.0.2.7 5000 192.0.2.8 443";
        assert_eq!(answer, format!("{ends} example.com a b {sni}"));
        // Nothing is declared then, and the connection's own ends count.
        let (answer, local) = told("v2,local", options, address);
        let local = local.replace(':', " ");
        assert_eq!(answer, format!("{local} 127.0.0.1 {port}   {sni}"));
    }
}

#[test]
#[ignore = "needs nginx"]
fn nginx_believes_what_connect_says() {
    let authority = authority();
    let root = authority.folder().to_str().expect("UTF-8");
    let (both, ca) = (authority.path("both.pem"), authority.path("ca.pem"));
    let answers = "default_type text/plain; return 200 \"$proxy_protocol_addr $proxy_protocol_port \
         $proxy_protocol_server_addr $proxy_protocol_server_port\";";
    for tls in [false, true] {
        let bind = if tls { "ssl" } else { "" };
        let servers = format!(
            "server {{ listen 127.0.0.1:PORT {bind} proxy_protocol; ssl_certificate {both};
             ssl_certificate_key {both}; location / {{ {answers} }} }}"
        );
        let (_nginx, port) = nginx(&authority, &nginx_http(root, &servers));
        let (options, address) = if tls {
            let address = format!("tls://localhost:{port}");
            (vec!["-4", "--ca", ca.as_str()], address)
        } else {
            (vec![], format!("127.0.0.1:{port}"))
        };
        for version in ["v1", "v2"] {
            for (what, expected) in [
                (FROM_TO, "192.0.2.7 5000 192.0.2.8 443"),
                (FROM_TO_V6, "2001:db8::7 5000 2001:db8::8 443"),
            ] {
                let (answer, _) = told(&format!("{version},{what}"), &options, &address);
                assert_eq!(answer, expected);
            }
        }
        let more = format!("v2,{FROM_TO},authority=example.com,unique-id=1,crc32c");
        let (answer, _) = told(&more, &options, &address);
        assert_eq!(answer, "192.0.2.7 5000 192.0.2.8 443");
    }
}
