//! The TLS handshake in a running server: its deadline, its limit, what ends it, and the PROXY header before it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use sockeye::admission::{Handshakes, RefuseReason};
use sockeye::proxy_protocol::Version;
use sockeye::tls::{Acceptor, HandshakeError, Trust};
use sockeye::{CloseReason, Conn, Limits, Server, Timeouts, service_fn, services};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::{
    Authority, TLS12, TLS13, acceptor, connect, connector, raw_client, raw_connect,
};
use crate::handshake::{address, declares, denying, proxies};
use crate::support::{Event, Running, echoes, loopback, soon};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);

fn secured(root: &Authority) -> Acceptor {
    acceptor(vec![root.server(&["a.example"]).identity()])
}

/// A server with TLS that waits this long for a handshake.
fn patient(root: &Authority, handshake: Duration) -> Server {
    let mut timeouts = Timeouts::default();
    timeouts.handshake = handshake;
    timeouts.linger = SHORT;
    loopback().timeouts(timeouts).tls(&secured(root))
}

/// The first bytes of a client, as they are on the wire.
fn hello(root: &Authority) -> Vec<u8> {
    let config = Arc::new(raw_client(root, &[TLS12, TLS13]));
    let name = "a.example".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("usable");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("written");
    assert!(!client.wants_write() && bytes.len() > 200);
    bytes
}

/// Sends these bytes, and waits for the server to close.
async fn sends(server: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut client = server.connect().await;
    client.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // What the server has not read turns its close into a reset.
    let _ = soon(client.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn a_handshake_that_stalls_is_not_waited_for_for_ever() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, SHORT), services::echo());
    let hello = hello(&root);
    for sent in [&b""[..], &hello[..1], &hello[..100], &hello] {
        sends(&server, sent).await;
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::TlsHandshakeTimeout);
        assert_eq!((close.bytes_in, close.bytes_out), (0, 0));
        assert!(close.duration >= SHORT);
    }
    let snapshot = server.stop().await.snapshot;
    assert_eq!((snapshot.closed, snapshot.open), (4, 0));
}

#[tokio::test]
async fn a_client_that_leaves_in_the_handshake_is_told_apart_by_how_far_it_came() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, LONG), services::echo());
    drop(server.connect().await);
    assert_eq!(server.next().await, Event::Accept(1));
    let close = server.next_close().await;
    assert_eq!((close.reason, close.error), (CloseReason::PeerClosed, None));

    let hello = hello(&root);
    for sent in [&hello[..1], &hello[..100], &hello] {
        let mut client = server.connect().await;
        client.write_all(sent).await.expect("sent");
        client.shutdown().await.expect("FIN");
        let _ = soon(client.read_to_end(&mut Vec::new())).await;
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::TlsHandshake);
        assert_eq!(
            close.error.as_deref(),
            Some("the peer closed in the middle of the TLS handshake")
        );
    }

    let mut client = server.connect().await;
    client.write_all(&hello[..100]).await.expect("sent");
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("set");
    drop(client);
    let close = server.next_close().await;
    assert_eq!((close.reason, close.error), (CloseReason::Reset, None));
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_tls_fails_the_handshake_at_once_and_says_why() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, LONG), services::echo());
    for sent in [
        &b"hello, is anybody there?\r\n"[..],
        b"\x16\x03\x01\xff\xff a record that is too long",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x05hello",
        &[0; 64],
        &[0xff; 64],
    ] {
        sends(&server, sent).await;
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::TlsHandshake, "{sent:?}");
        let why = close.error.expect("told");
        assert!(!why.is_empty() && !why.chars().any(char::is_control));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_speaks_http_is_told_as_that() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, LONG), services::echo());
    sends(&server, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::TlsHandshake);
    let why = close.error.expect("told");
    assert!(
        why.starts_with("the peer does not speak TLS: ") && why.contains("HTTP"),
        "{why}"
    );
    server.stop().await;
}

/// Each byte of a hello changed in turn, and the hello cut at each: an error at worst, never a panic, and the next client
/// is served.
#[tokio::test]
async fn no_damaged_hello_does_more_than_fail_its_own_handshake() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, LONG), services::echo());
    let hello = hello(&root);
    let mut sent = 0;
    for at in (0..hello.len()).filter(|at| at % 7 == 0 || *at < 200) {
        let mut damaged = hello.clone();
        damaged[at] ^= 1 << (at % 8);
        for bytes in [&damaged, &hello[..at]] {
            let mut client = server.connect().await;
            client.write_all(bytes).await.expect("sent");
            let _ = client.shutdown().await;
            let _ = soon(client.read_to_end(&mut Vec::new())).await;
            sent += 1;
        }
    }
    for _ in 0..sent {
        let close = server.next_close().await;
        assert!(
            matches!(
                close.reason,
                CloseReason::TlsHandshake | CloseReason::PeerClosed | CloseReason::Reset
            ),
            "{close:?}"
        );
    }
    let mut client = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    drop(client);
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.closed_by(CloseReason::Panic), 0);
    assert_eq!((snapshot.closed, snapshot.open), (sent + 1, 0));
}

/// A socket whose writes are changed on the way: what is `ahead` goes in one segment with the first, and then each takes
/// `at_most` bytes.
struct Shaped {
    socket: TcpStream,
    ahead: Vec<u8>,
    at_most: usize,
}

impl Shaped {
    async fn to(server: &Running, ahead: &[u8], at_most: usize) -> Self {
        let socket = server.connect().await;
        socket.set_nodelay(true).expect("set");
        Self {
            socket,
            ahead: ahead.to_vec(),
            at_most,
        }
    }

    /// Shakes hands, and has one word echoed.
    async fn talk(self, root: &Authority, version: &'static rustls::SupportedProtocolVersion) {
        let connector = TlsConnector::from(Arc::new(raw_client(root, &[version])));
        let name = "a.example".try_into().expect("a name");
        let mut client = soon(connector.connect(name, self)).await.expect("agreed");
        echoes(&mut client, b"hello").await;
        client.shutdown().await.expect("close_notify");
        let mut rest = Vec::new();
        soon(client.read_to_end(&mut rest))
            .await
            .expect("a clean end");
    }
}

impl AsyncRead for Shaped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Shaped {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let buf = &buf[..buf.len().min(this.at_most)];
        let all = [this.ahead.as_slice(), buf].concat();
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, &all))?;
        assert_eq!(written, all.len(), "there is room for so little");
        this.ahead.clear();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// With a second thread, for the server is to see the bytes come one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_byte_by_byte_is_as_good_as_any() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, LONG), services::echo());
    for version in [TLS12, TLS13] {
        let client = Shaped::to(&server, b"", 1).await;
        client.talk(&root, version).await;
        let close = server.next_close().await;
        assert_eq!((close.reason, close.bytes_in), (CloseReason::PeerClosed, 5));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_proxy_header_comes_before_tls_in_one_segment_or_byte_by_byte() {
    let root = Authority::root("root");
    let server = patient(&root, LONG).trusted_proxies(proxies());
    let mut server = Running::start(server, services::echo());
    for version in [Version::V1, Version::V2] {
        let header = declares(version, "192.0.2.7:51000");
        for at_most in [usize::MAX, 1] {
            let client = Shaped::to(&server, &header, at_most).await;
            client.talk(&root, TLS13).await;
            let close = server.next_close().await;
            assert_eq!((close.reason, close.bytes_in), (CloseReason::PeerClosed, 5));
            assert_eq!(close.client, Some(address("192.0.2.7:51000").into()));
        }
        let mut client = Shaped::to(&server, b"", usize::MAX).await;
        for byte in header {
            client.write_all(&[byte]).await.expect("sent");
            tokio::task::yield_now().await;
        }
        client.talk(&root, TLS12).await;
        assert_eq!(server.next_close().await.reason, CloseReason::PeerClosed);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_service_under_tls_knows_the_declared_client_and_the_name_that_it_asked_for() {
    let root = Authority::root("root");
    let service = service_fn(async |mut conn: Conn| {
        let session = conn.stream().tls().expect("there is TLS");
        let name = session.server_name.unwrap_or_default();
        let text = format!("{} {name}", conn.client());
        conn.write_all(text.as_bytes()).await
    });
    let server = patient(&root, LONG).trusted_proxies(proxies());
    let server = Running::start(server, service);
    let mut stream = server.connect().await;
    let header = declares(Version::V2, "192.0.2.7:51000");
    stream.write_all(&header).await.expect("sent");
    let connector = connector(root.trust());
    let mut client = soon(connector.connect(stream.into(), "a.example"))
        .await
        .expect("agreed");
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("a clean end");
    assert_eq!(answer, "192.0.2.7:51000 a.example");
    drop(client);
    server.stop().await;
}

/// Cryptography is for those who are let in.
#[tokio::test]
async fn a_declared_client_that_is_denied_is_refused_before_tls() {
    let root = Authority::root("root");
    let server = patient(&root, LONG)
        .trusted_proxies(proxies())
        .rules(denying(&["192.0.2.0/24"]));
    let mut server = Running::start(server, services::echo());
    let header = declares(Version::V2, "192.0.2.7:51000");
    let answer = sends(&server, &[header, hello(&root)].concat()).await;
    assert!(answer.is_empty(), "not even an alert");
    assert_eq!(server.next().await, Event::Accept(1));
    assert_eq!(server.next().await, Event::Refuse(1, "denied"));
    // Without a header TLS is no header.
    sends(&server, &hello(&root)).await;
    assert_eq!(server.next_close().await.reason, CloseReason::ProxyHeader);
    let snapshot = server.stop().await.snapshot;
    assert_eq!((snapshot.refused, snapshot.closed), (1, 1));
}

#[tokio::test]
async fn each_part_of_the_handshake_has_a_deadline_of_its_own() {
    let root = Authority::root("root");
    let mut timeouts = Timeouts::default();
    timeouts.handshake = SHORT;
    timeouts.proxy_header = LONG;
    let server = loopback()
        .timeouts(timeouts)
        .tls(&secured(&root))
        .trusted_proxies(proxies());
    let mut server = Running::start(server, services::echo());
    let mut proxy = server.connect().await;
    // Longer than the handshake may take; it has not begun.
    tokio::time::sleep(SHORT * 2).await;
    let header = declares(Version::V1, "192.0.2.7:51000");
    proxy.write_all(&header).await.expect("sent");
    let _ = soon(proxy.read(&mut [0])).await;
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::TlsHandshakeTimeout);
    assert!(close.duration >= SHORT * 3, "{:?}", close.duration);
    assert_eq!(close.client, Some(address("192.0.2.7:51000").into()));
    server.stop().await;
}

#[tokio::test]
async fn the_lifetime_holds_in_the_handshake_and_counts_it() {
    let root = Authority::root("root");
    let mut timeouts = Timeouts::default();
    timeouts.handshake = LONG;
    timeouts.lifetime = Some(SHORT);
    let server = loopback().timeouts(timeouts).tls(&secured(&root));
    let mut server = Running::start(server, services::echo());
    let stalled = server.connect().await;
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Lifetime);
    assert!(close.duration >= SHORT);
    drop(stalled);
    server.stop().await;

    // Half of it for the pause, and half so that a slow machine is still in time.
    let lifetime = Duration::from_millis(700);
    let mut timeouts = Timeouts::default();
    timeouts.lifetime = Some(lifetime);
    let server = loopback().timeouts(timeouts).tls(&secured(&root));
    let mut server = Running::start(server, services::echo());
    let slow = server.connect().await;
    let delay = lifetime / 2;
    tokio::time::sleep(delay).await;
    let mut client = soon(connector(root.trust()).connect(slow.into(), "a.example"))
        .await
        .expect("agreed");
    soon(client.read_to_end(&mut Vec::new()))
        .await
        .expect("a clean end");
    drop(client);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Lifetime);
    assert!(close.duration >= lifetime && close.duration < delay + lifetime);
    server.stop().await;
}

#[tokio::test]
async fn the_first_byte_is_waited_for_from_the_end_of_the_handshake() {
    let root = Authority::root("root");
    let mut timeouts = Timeouts::default();
    timeouts.first_byte = Some(SHORT);
    let server = loopback().timeouts(timeouts).tls(&secured(&root));
    let mut server = Running::start(server, services::echo());
    let slow = server.connect().await;
    tokio::time::sleep(SHORT * 2).await;
    let mut client = soon(connector(root.trust()).connect(slow.into(), "a.example"))
        .await
        .expect("not closed while it shook hands");
    soon(client.read_to_end(&mut Vec::new()))
        .await
        .expect("a clean end");
    drop(client);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::FirstByteTimeout);
    assert!(close.duration >= SHORT * 3, "{:?}", close.duration);
    server.stop().await;
}

/// At most two at once, and more than two in a row by each way that a handshake can end: a place that is not given back
/// would be missed by the third.
#[tokio::test]
async fn a_place_among_the_handshakes_is_given_back_however_tls_ends() {
    let root = Authority::root("root");
    let limits = Limits {
        handshakes: Some(Handshakes::at_most(2)),
        ..Limits::default()
    };
    let server = patient(&root, Duration::from_millis(250)).limits(limits);
    let mut server = Running::start(server, services::echo());
    let mut open = Vec::new();
    for version in [TLS12, TLS13].repeat(3) {
        let mut client = raw_connect(&server, raw_client(&root, &[version]), "a.example")
            .await
            .expect("agreed");
        echoes(&mut client, b"x").await;
        open.push(client);
    }
    for _ in 0..6 {
        sends(&server, b"no TLS at all\r\n").await;
        assert_eq!(server.next_close().await.reason, CloseReason::TlsHandshake);
    }
    for _ in 0..6 {
        drop(server.connect().await);
        assert_eq!(server.next_close().await.reason, CloseReason::PeerClosed);
    }
    let distrustful = connector(Authority::root("other").trust());
    for _ in 0..6 {
        let error = connect(&server, &distrustful, "a.example")
            .await
            .expect_err("not trusted");
        assert!(matches!(error, HandshakeError::Certificate(_)));
        assert_eq!(server.next_close().await.reason, CloseReason::TlsHandshake);
    }
    for _ in 0..3 {
        sends(&server, &hello(&root)[..50]).await;
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::TlsHandshakeTimeout);
    }
    let stalled = [server.connect().await, server.connect().await];
    let mut refused = server.connect().await;
    assert_eq!(soon(refused.read(&mut [0])).await.unwrap_or(0), 0);
    drop(stalled);
    drop(open);
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.refused, 1);
    assert_eq!(snapshot.refused_by(RefuseReason::Handshakes), 1);
    assert_eq!(snapshot.closed, 6 * 4 + 3 + 2);
}

#[tokio::test]
async fn clients_that_stall_in_the_handshake_hold_nobody_else_up() {
    let root = Authority::root("root");
    let server = Running::start(patient(&root, LONG), services::echo());
    let hello = hello(&root);
    let mut stalled = Vec::new();
    for number in 0..100 {
        let mut client = server.connect().await;
        let sent = &hello[..hello.len() * number / 100];
        client.write_all(sent).await.expect("sent");
        stalled.push(client);
    }
    let mut client = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    let snapshot = server.handle.snapshot();
    assert_eq!((snapshot.open, snapshot.closed), (101, 0));
    drop((stalled, client));
    assert_eq!(server.stop().await.snapshot.closed, 101);
}

#[tokio::test]
async fn a_server_that_drains_waits_for_a_handshake_no_longer_than_the_deadline() {
    let root = Authority::root("root");
    let mut server = Running::start(patient(&root, LONG), services::echo());
    let mut stalled = server.connect().await;
    assert_eq!(server.next().await, Event::Accept(1));
    server.handle.drain(SHORT);
    assert_eq!(soon(stalled.read(&mut [0])).await.unwrap_or(0), 0);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Aborted);
    assert_eq!(server.ended().await.cut(), 1);
}

/// Our client, against servers that are none.
#[tokio::test]
async fn our_client_says_what_became_of_its_handshake() {
    let connector = connector(Trust::Anyone);
    let service = service_fn(async |mut conn: Conn| {
        conn.read_u8().await?;
        Ok(())
    });
    // One that closes once it has heard us. It lingers, so that what we sent does not reset it.
    let server = Running::start(loopback(), service);
    let error = connect(&server, &connector, "a.example")
        .await
        .expect_err("closed");
    assert!(
        matches!(error, HandshakeError::EndOfStream { after: 0 }),
        "{error:?}"
    );
    server.stop().await;

    let service = service_fn(async |mut conn: Conn| {
        conn.write_all(&[0x16, 0x03]).await?;
        conn.read_u8().await.map(drop)
    });
    let server = Running::start(loopback(), service);
    let error = connect(&server, &connector, "a.example")
        .await
        .expect_err("closed");
    assert!(
        matches!(error, HandshakeError::EndOfStream { after: 2 }),
        "{error:?}"
    );
    server.stop().await;

    let service = service_fn(async |mut conn: Conn| {
        conn.read_u8().await?;
        panic!("as the test asked for");
    });
    let server = Running::start(loopback(), service);
    let error = connect(&server, &connector, "a.example")
        .await
        .expect_err("reset");
    let HandshakeError::Io(error) = error else {
        panic!("no error of the socket: {error:?}")
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    server.stop().await;
}
