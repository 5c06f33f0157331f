//! TLS between our two ends, and what they agree on.

use std::slice::from_ref;
use std::sync::Arc;

use sockeye::tls::{
    Acceptor, ConfigError, Connector, HandshakeError, Identity, Session, Trust, Version,
};
use sockeye::{BindAddr, CloseReason, Conn, Server, Service, Stream, client, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::authority::{
    Authority, TLS12, TLS13, Wanted, acceptor, connect, connector, raw_client, raw_connect,
    raw_server, shows, trusts,
};
use crate::support::{Running, echoes, loopback, soon};

/// Tells what was agreed, then echoes.
fn telling() -> (impl Service, mpsc::UnboundedReceiver<Option<Session>>) {
    let (sender, sessions) = mpsc::unbounded_channel();
    let service = service_fn(move |mut conn: Conn| {
        let _ = sender.send(conn.stream().tls());
        async move {
            let mut buffer = [0; 100];
            loop {
                match conn.read(&mut buffer).await? {
                    0 => return Ok(()),
                    bytes => conn.write_all(&buffer[..bytes]).await?,
                }
            }
        }
    });
    (service, sessions)
}

async fn next(sessions: &mut mpsc::UnboundedReceiver<Option<Session>>) -> Session {
    let session = soon(sessions.recv()).await.expect("served");
    session.expect("there is TLS")
}

#[tokio::test]
async fn both_ends_tell_what_was_agreed_and_a_second_connection_goes_on_from_the_first() {
    let root = Authority::root("root");
    let shown = root.server(&["a.example"]);
    let (service, mut sessions) = telling();
    let acceptor = acceptor(vec![shown.identity()]);
    let mut server = Running::start(loopback().tls(&acceptor), service);
    let connector = connector(root.trust());
    for resumed in [false, true] {
        let mut client = connect(&server, &connector, "a.example")
            .await
            .expect("agreed");
        echoes(&mut client, b"hello").await;
        let ours = client.tls().expect("there is TLS");
        let theirs = next(&mut sessions).await;
        for session in [&ours, &theirs] {
            assert_eq!(session.version, Some(Version::Tls13));
            assert_eq!(session.cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
            assert_eq!(session.group, Some("X25519MLKEM768"));
            assert_eq!(session.alpn, None);
            assert_eq!(session.resumed, resumed);
        }
        assert_eq!(theirs.server_name.as_deref(), Some("a.example"));
        assert_eq!(ours.server_name, None, "it is for the server's side");
        assert!(ours.tickets > Some(0), "they have come before the echo");
        assert_eq!(theirs.tickets, None);
        assert_eq!(ours.peer_certificates, from_ref(&shown.der));
        assert!(theirs.peer_certificates.is_empty());
        client.shutdown().await.expect("said");
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::PeerClosed);
        assert_eq!((close.bytes_in, close.bytes_out), (5, 5), "what is inside");
        assert!(close.has_tcp_info, "of the socket below");
    }
    server.stop().await;
}

#[tokio::test]
async fn clients_of_either_version_are_served_and_resume() {
    let root = Authority::root("root");
    let (service, mut sessions) = telling();
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let server = Running::start(loopback().tls(&acceptor), service);
    for (only, version) in [(TLS12, Version::Tls12), (TLS13, Version::Tls13)] {
        let config = Arc::new(raw_client(&root, &[only]));
        for resumed in [false, true] {
            let mut client = raw_connect(&server, Arc::clone(&config), "a.example")
                .await
                .expect("agreed");
            echoes(&mut client, b"hello").await;
            let session = next(&mut sessions).await;
            assert_eq!(session.version, Some(version));
            assert_eq!(session.resumed, resumed, "{version:?}");
            assert!(session.cipher.expect("agreed").starts_with("TLS_"));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn our_client_speaks_the_older_version_where_the_server_has_no_other() {
    let root = Authority::root("root");
    let shown = root.server(&["a.example"]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let config = Arc::new(raw_server(&shown, &[TLS12]));
    let serving = tokio::spawn(async move {
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.expect("accepts");
            let accepted = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await;
            let Ok(mut stream) = accepted else { continue };
            let byte = stream.read_u8().await.expect("sent");
            stream.write_u8(byte).await.expect("sent back");
            stream.flush().await.expect("sent back");
        }
    });
    let dial = async || client::connect(address).await.expect("connects").stream;
    let mut client = soon(connector(root.trust()).connect(dial().await, "a.example"))
        .await
        .expect("agreed");
    echoes(&mut client, b"x").await;
    let session = client.tls().expect("there is TLS");
    assert_eq!(session.version, Some(Version::Tls12));
    assert_eq!(session.tickets, Some(0), "a word of TLS 1.3");
    drop(client);

    let mut options = trusts(root.trust());
    options.min_version = Version::Tls13;
    let strict = Connector::new(options).expect("usable");
    let error = soon(strict.connect(dial().await, "a.example"))
        .await
        .expect_err("no version in common");
    assert!(
        matches!(error, HandshakeError::Refused(_)),
        "the server has said so first: {error:?}"
    );
    soon(serving).await.expect("did not panic");
}

#[tokio::test]
async fn a_server_refuses_a_version_below_its_own_and_says_why() {
    let root = Authority::root("root");
    let mut options = shows(vec![root.server(&["a.example"]).identity()]);
    options.min_version = Version::Tls13;
    let acceptor = Acceptor::new(options).expect("usable");
    let mut server = Running::start(loopback().tls(&acceptor), services::echo());
    let refused = raw_connect(&server, raw_client(&root, &[TLS12]), "a.example").await;
    let refused = refused.expect_err("too old");
    let why = refused.get_ref().expect("of TLS").downcast_ref();
    let too_old = rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion);
    assert_eq!(why, Some(&too_old));
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::TlsHandshake);
    assert_eq!(
        close.error.as_deref(),
        Some("the two cannot agree: no version of TLS in common")
    );
    raw_connect(&server, raw_client(&root, &[TLS13]), "a.example")
        .await
        .expect("agreed");
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn a_unix_socket_carries_tls_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sock");
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let server = Server::bind(BindAddr::Unix(path.clone())).expect("binds");
    let server = server.tls(&acceptor);
    let handle = server.handle();
    let ended = tokio::spawn(server.serve(services::echo()));
    let connected = client::connect(client::Target::Unix(path.clone()))
        .await
        .expect("connects");
    let mut client = soon(connector(root.trust()).connect(connected.stream, "a.example"))
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    assert!(client.tcp_info().is_none());
    assert_eq!(
        client.peer_addr().expect("connected"),
        connected.peer,
        "those of the socket below"
    );
    assert!(soon(client.close(std::time::Duration::from_secs(5))).await);
    handle.stop();
    let summary = soon(ended).await.expect("no panic").expect("accepts");
    assert_eq!(summary.snapshot.closed_by(CloseReason::PeerClosed), 1);
}

#[tokio::test]
async fn without_tls_there_is_no_session() {
    let (service, mut sessions) = telling();
    let server = Running::start(loopback(), service);
    let client = Stream::from(server.connect().await);
    assert_eq!(client.tls(), None);
    assert_eq!(soon(sessions.recv()).await, Some(None));
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn one_listener_speaks_tls_and_the_other_does_not() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let addresses = [0, 0].map(|port| BindAddr::from(([127, 0, 0, 1], port)));
    let server = Server::bind_with(addresses, &Default::default()).expect("binds");
    let server = server.tls_on(1, &acceptor);
    let secured = server.addresses()[1].clone();
    let server = Running::start(server, services::echo());
    let mut plain = server.connect().await;
    echoes(&mut plain, b"hello").await;
    let sockeye::Addr::Tcp(secured) = secured else {
        panic!("TCP")
    };
    let connected = client::connect(secured).await.expect("connects");
    let mut client = soon(connector(root.trust()).connect(connected.stream, "a.example"))
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    server.handle.abort();
    server.ended().await;
}

#[test]
fn every_worker_speaks_tls() {
    const CLIENTS: usize = 30;
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let server = loopback().tls(&acceptor);
    let sockeye::Addr::Tcp(address) = server.addresses()[0] else {
        panic!("TCP")
    };
    let handle = server.handle();
    let workers = std::num::NonZeroUsize::new(3).expect("not 0");
    let thread = std::thread::spawn(move || server.run(workers, services::echo()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let connector = connector(root.trust());
        for _ in 0..CLIENTS {
            let connected = client::connect(address).await.expect("connects");
            let mut client = soon(connector.connect(connected.stream, "a.example"))
                .await
                .expect("agreed");
            echoes(&mut client, b"hello").await;
            client.shutdown().await.expect("close_notify");
        }
        // Tickets are good at every worker.
        let connected = client::connect(address).await.expect("connects");
        let again = soon(connector.connect(connected.stream, "a.example"));
        let again = again.await.expect("agreed");
        assert!(again.tls().expect("there is TLS").resumed);
    });
    handle.stop();
    let summary = thread.join().expect("no panic").expect("serves");
    assert_eq!(summary.snapshot.accepted, CLIENTS as u64 + 1);
    assert_eq!(summary.snapshot.closed_by(CloseReason::TlsHandshake), 0);
}

/// The certificate that is shown to a client that asks for this name.
async fn shown_for(server: &Running, name: &str) -> Vec<u8> {
    let client = connect(server, &connector(Trust::Anyone), name)
        .await
        .expect("agreed");
    let session = client.tls().expect("there is TLS");
    session.peer_certificates[0].clone()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let root = Authority::root("root");
    let first = root.server(&["first.example"]);
    let exact = root.server(&["www.b.example", "Mixed.Example"]);
    let wildcard = root.server(&["*.b.example"]);
    let all = [&first, &wildcard, &exact];
    let acceptor = acceptor(all.map(|signed| signed.identity()).into());
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    for (name, expected) in [
        ("first.example", &first),
        ("www.b.example", &exact),
        ("WWW.B.EXAMPLE", &exact),
        ("mixed.example", &exact),
        ("other.b.example", &wildcard),
        ("OTHER.b.example", &wildcard),
        // A wildcard is one label, neither two nor none.
        ("x.y.b.example", &first),
        ("b.example", &first),
        ("unknown.example", &first),
        // An address is not sent as a name (RFC 6066, section 3).
        ("127.0.0.1", &first),
        ("::1", &first),
    ] {
        assert_eq!(shown_for(&server, name).await, expected.der, "{name}");
    }
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn of_two_kinds_of_keys_for_one_name_the_client_gets_one_that_it_can_use() {
    let root = Authority::root("root");
    let other = root.server(&["other.example"]);
    let ecdsa = root.server(&["a.example"]);
    let rsa = root.sign(Wanted::server(&["a.example"]).rsa());
    let all = [&other, &ecdsa, &rsa];
    let acceptor = acceptor(all.map(|signed| signed.identity()).into());
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    assert_eq!(shown_for(&server, "a.example").await, ecdsa.der);
    for version in [TLS12, TLS13] {
        let config = only_rsa(&root, version);
        let client = raw_connect(&server, config, "a.example")
            .await
            .expect("agreed");
        let shown = client.get_ref().1.peer_certificates().expect("shown");
        assert_eq!(shown[0].as_ref(), rsa.der);
    }
    server.handle.abort();
    server.ended().await;
}

/// A client that takes no signature but RSA, in the handshake.
fn only_rsa(
    root: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let algorithms = &mut provider.signature_verification_algorithms;
    let mapping: Vec<_> = algorithms.mapping.to_vec();
    let rsa = mapping
        .into_iter()
        .filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA"));
    algorithms.mapping = Box::leak(rsa.collect());
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from(root.der());
    roots.add(root).expect("our own");
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("known")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn of_the_application_protocols_in_common_the_servers_first_is_taken() {
    let root = Authority::root("root");
    let mut options = shows(vec![root.server(&["a.example"]).identity()]);
    options.alpn = vec![b"first".to_vec(), b"second".to_vec()];
    let acceptor = Acceptor::new(options).expect("usable");
    let (service, mut sessions) = telling();
    let mut server = Running::start(loopback().tls(&acceptor), service);
    let offers = |offered: &[&[u8]]| {
        let mut options = trusts(root.trust());
        options.alpn = offered.iter().map(|protocol| protocol.to_vec()).collect();
        Connector::new(options).expect("usable")
    };
    for (offered, expected) in [
        (&[&b"second"[..], b"first"][..], Some(&b"first"[..])),
        (&[b"third", b"second"], Some(b"second")),
        (&[], None),
    ] {
        let client = connect(&server, &offers(offered), "a.example")
            .await
            .expect("agreed");
        let ours = client.tls().expect("there is TLS").alpn;
        let theirs = next(&mut sessions).await.alpn;
        assert_eq!(ours.as_deref(), expected);
        assert_eq!(theirs.as_deref(), expected);
        drop(client);
        server.next_close().await;
    }

    let error = connect(&server, &offers(&[b"third"]), "a.example")
        .await
        .expect_err("none in common");
    let HandshakeError::Refused(why) = error else {
        panic!("not refused: {error:?}")
    };
    assert!(why.contains("application protocols"), "{why}");
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::TlsHandshake);
    assert_eq!(
        close.error.as_deref(),
        Some("no application protocol in common (ALPN)")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_server_without_application_protocols_does_not_look_at_what_is_offered() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let mut options = trusts(root.trust());
    options.alpn = vec![b"h2".to_vec()];
    let connector = Connector::new(options).expect("usable");
    let mut client = connect(&server, &connector, "a.example")
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    assert_eq!(client.tls().expect("there is TLS").alpn, None);
    server.handle.abort();
    server.ended().await;
}

#[test]
fn application_protocols_that_tls_has_no_room_for_are_an_error_at_once() {
    let root = Authority::root("root");
    let identity = root.server(&["a.example"]).identity();
    let made = |alpn: &[Vec<u8>]| {
        let mut options = shows(vec![identity.clone()]);
        options.alpn = alpn.to_vec();
        let acceptor = Acceptor::new(options).map(drop);
        let mut options = trusts(Trust::Anyone);
        options.alpn = alpn.to_vec();
        let connector = Connector::new(options).map(drop);
        assert_eq!(acceptor, connector);
        connector
    };
    assert_eq!(made(&vec![vec![b'x'; 255]; 64]), Ok(()));
    for alpn in [
        vec![Vec::new()],
        vec![vec![b'x'; 256]],
        vec![b"h2".to_vec(), Vec::new()],
        vec![b"h2".to_vec(); 65],
    ] {
        assert_eq!(made(&alpn), Err(ConfigError::Alpn));
    }
}

#[tokio::test]
async fn secrets_are_logged_for_wireshark_if_that_is_asked_for() {
    let log: Arc<std::sync::Mutex<Vec<u8>>> = Arc::default();
    struct To(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for To {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let identity = Identity::self_signed(&["a.example".to_owned()]).expect("made");
    let acceptor = acceptor(vec![identity]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let mut options = trusts(Trust::Anyone);
    options.key_log = Some(sockeye::tls::KeyLog::to(To(Arc::clone(&log))));
    let connector = Connector::new(options).expect("usable");
    connect(&server, &connector, "a.example")
        .await
        .expect("agreed");
    let text = String::from_utf8(log.lock().expect("whole").clone()).expect("text");
    for label in ["CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "] {
        let line = text.lines().find(|line| line.starts_with(label));
        let words: Vec<&str> = line.expect("logged").split(' ').collect();
        assert_eq!(words.len(), 3);
        assert_eq!(words[1].len(), 64, "the client's random");
    }
    server.handle.abort();
    server.ended().await;
}
