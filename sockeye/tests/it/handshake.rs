//! What comes before the service: the PROXY header, and what is decided when it says who the client is.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use socket2::SockRef;
use sockeye::admission::{Handshakes, PerSource, Rate, RefuseReason};
use sockeye::proxy_protocol::{Header, Tlv, Version};
use sockeye::rules::{Rules, TrustedProxies};
use sockeye::{
    BindAddr, CloseReason, Conn, Limits, Server, Service, Timeouts, service_fn, services,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::support::{Event, Running, echoes, loopback, soon};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);

/// Trusts this machine.
pub(crate) fn proxies() -> TrustedProxies {
    TrustedProxies {
        networks: vec!["127.0.0.1".parse().expect("a network")],
        ..TrustedProxies::default()
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A header that declares this client.
pub(crate) fn declares(version: Version, client: &str) -> Vec<u8> {
    let header = Header::proxied(version, address(client), address("198.51.100.1:443"));
    header.encode().expect("fits")
}

pub(crate) fn denying(networks: &[&str]) -> Rules {
    let mut rules = Rules::default();
    for network in networks {
        rules.deny(network.parse().expect("a network"));
    }
    rules
}

/// Says who the client is, and who the peer.
fn naming() -> impl Service {
    service_fn(async |mut conn: Conn| {
        let header = conn.proxy_header().is_some();
        let names = format!("{} {} {header}", conn.client(), conn.peer());
        conn.write_all(names.as_bytes()).await
    })
}

async fn answer(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("a clean end");
    answer
}

/// Whether the connection ended without a byte.
async fn nothing_came(client: &mut (impl AsyncReadExt + Unpin)) -> bool {
    matches!(soon(client.read(&mut [0])).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn the_header_of_a_trusted_proxy_declares_the_client() {
    let server = loopback().trusted_proxies(proxies());
    let mut server = Running::start(server, naming());
    for (version, declared) in [
        (Version::V1, "192.0.2.7:51000"),
        (Version::V2, "192.0.2.7:51000"),
        (Version::V1, "[2001:db8::7]:51000"),
        (Version::V2, "[2001:db8::7]:51000"),
    ] {
        let mut proxy = server.connect().await;
        let itself = proxy.local_addr().expect("bound");
        let destination = match address(declared) {
            SocketAddr::V4(_) => "198.51.100.1:443",
            SocketAddr::V6(_) => "[2001:db8::1]:443",
        };
        let header = Header::proxied(version, address(declared), address(destination));
        let header = header.encode().expect("fits");
        proxy.write_all(&header).await.expect("sent");
        assert_eq!(
            answer(&mut proxy).await,
            format!("{declared} {itself} true")
        );
        drop(proxy);
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::Finished);
        assert_eq!(close.client, Some(address(declared).into()));
        assert_eq!(close.bytes_in, 0, "the header is no byte of the stream");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_stream_begins_right_after_the_header_however_it_is_cut() {
    let server = loopback().trusted_proxies(proxies());
    let server = Running::start(server, services::echo());
    for version in [Version::V1, Version::V2] {
        let header = declares(version, "192.0.2.7:51000");
        let together = [header.clone(), b"hello".to_vec()].concat();
        // The beginning of one more header: data, as anything after the first is.
        let twice = [header.clone(), header.clone()].concat();
        for (sent, echoed) in [(together, &b"hello"[..]), (twice, &header)] {
            let mut proxy = server.connect().await;
            proxy.write_all(&sent).await.expect("sent");
            let mut back = vec![0; echoed.len()];
            soon(proxy.read_exact(&mut back)).await.expect("echoed");
            assert_eq!(back, echoed);

            let mut proxy = server.connect().await;
            proxy.set_nodelay(true).expect("set");
            for byte in &sent {
                proxy.write_all(&[*byte]).await.expect("sent");
                tokio::task::yield_now().await;
            }
            soon(proxy.read_exact(&mut back)).await.expect("echoed");
            assert_eq!(back, echoed);
        }
    }
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn a_header_that_declares_nobody_lets_the_proxy_itself_in() {
    // Whatever the rules say of it, and however many it has: it is the user's own.
    let limits = Limits {
        per_source: PerSource::AtMost(1),
        ..Limits::default()
    };
    let server = loopback()
        .trusted_proxies(proxies())
        .limits(limits)
        .rules(denying(&["127.0.0.0/8"]));
    let server = Running::start(server, naming());
    let mut open = Vec::new();
    for header in [
        Header::local(),
        Header::unspecified(Version::V1),
        Header::unspecified(Version::V2),
        Header::unix("/client", "/server"),
        Header::unspecified(Version::V1),
    ] {
        let mut proxy = server.connect().await;
        let itself = proxy.local_addr().expect("bound");
        let header = header.encode().expect("fits");
        proxy.write_all(&header).await.expect("sent");
        assert_eq!(answer(&mut proxy).await, format!("{itself} {itself} true"));
        open.push(proxy);
    }
    drop(open);
    assert_eq!(server.stop().await.snapshot.refused, 0);
}

#[tokio::test]
async fn a_declared_client_that_is_denied_is_refused_and_counted_as_that() {
    let server = loopback()
        .trusted_proxies(proxies())
        .rules(denying(&["192.0.2.0/24"]));
    let mut server = Running::start(server, services::echo());
    for (id, version) in [(1, Version::V1), (2, Version::V2)] {
        let mut proxy = server.connect().await;
        let header = declares(version, "192.0.2.7:51000");
        proxy.write_all(&header).await.expect("sent");
        assert!(nothing_came(&mut proxy).await);
        assert_eq!(server.next().await, Event::Accept(id));
        assert_eq!(server.next().await, Event::Refuse(id, "denied"));
    }
    let mut proxy = server.connect().await;
    let header = declares(Version::V2, "192.0.3.7:51000");
    proxy.write_all(&header).await.expect("sent");
    echoes(&mut proxy, b"hello").await;
    assert_eq!(server.next().await, Event::Accept(3));
    assert_eq!(server.next().await, Event::Open(3));
    let now = server.handle.snapshot();
    assert_eq!((now.accepted, now.refused, now.open), (3, 2, 1));
    drop(proxy);
    server.next_close().await;
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.refused_by(RefuseReason::Denied), 2);
    assert_eq!((snapshot.closed, snapshot.open), (1, 0));
}

#[tokio::test]
async fn limits_of_a_source_count_declared_clients_and_not_their_proxy() {
    let limits = Limits {
        per_source: PerSource::AtMost(2),
        ..Limits::default()
    };
    let server = loopback().trusted_proxies(proxies()).limits(limits);
    let mut server = Running::start(server, services::echo());
    let mut open = Vec::new();
    for client in 1..=5 {
        for _ in 0..2 {
            let mut proxy = server.connect().await;
            let header = declares(Version::V2, &format!("192.0.2.{client}:51000"));
            proxy.write_all(&header).await.expect("sent");
            echoes(&mut proxy, b"x").await;
            open.push(proxy);
        }
    }
    let header = declares(Version::V2, "192.0.2.1:51000");
    let mut third = server.connect().await;
    third.write_all(&header).await.expect("sent");
    assert!(nothing_came(&mut third).await);
    let snapshot = server.handle.snapshot();
    assert_eq!(snapshot.refused_by(RefuseReason::PerSource), 1);

    drop(open.remove(0));
    server.next_close().await;
    let mut again = server.connect().await;
    again.write_all(&header).await.expect("sent");
    echoes(&mut again, b"x").await;
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn the_rate_is_that_of_the_declared_client_too() {
    let limits = Limits {
        rate: Some(Rate {
            accepts: 1,
            per: LONG,
            burst: 1,
        }),
        ..Limits::default()
    };
    let server = loopback().trusted_proxies(proxies()).limits(limits);
    let server = Running::start(server, services::echo());
    for client in 1..=3 {
        let header = declares(Version::V1, &format!("192.0.2.{client}:51000"));
        let mut proxy = server.connect().await;
        proxy.write_all(&header).await.expect("sent");
        echoes(&mut proxy, b"x").await;
        let mut proxy = server.connect().await;
        proxy.write_all(&header).await.expect("sent");
        assert!(nothing_came(&mut proxy).await);
    }
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.refused_by(RefuseReason::Rate), 3);
}

#[tokio::test]
async fn a_trusted_proxy_without_a_header_is_not_served() {
    let server = loopback().trusted_proxies(proxies());
    let mut server = Running::start(server, services::echo());
    let header = declares(Version::V2, "192.0.2.7:51000");
    for sent in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY",
        &header[..header.len() - 1],
        &[0x16, 3, 1, 2, 0, 1],
    ] {
        let mut proxy = server.connect().await;
        proxy.write_all(sent).await.expect("sent");
        proxy.shutdown().await.expect("FIN");
        assert!(nothing_came(&mut proxy).await);
        drop(proxy);
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::ProxyHeader);
        assert!(close.error.is_some(), "it is told what was wrong");
        assert_eq!(close.client, None);
    }
    // Whoever only looks whether the port is open.
    drop(server.connect().await);
    let close = server.next_close().await;
    assert_eq!((close.reason, close.error), (CloseReason::PeerClosed, None));
    // And in haste.
    let hasty = server.connect().await;
    SockRef::from(&hasty)
        .set_linger(Some(Duration::ZERO))
        .expect("set");
    drop(hasty);
    let close = server.next_close().await;
    assert_eq!((close.reason, close.error), (CloseReason::Reset, None));
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.closed_by(CloseReason::ProxyHeader), 5);
    assert_eq!((snapshot.bytes_in, snapshot.refused), (0, 0));
}

#[tokio::test]
async fn from_anybody_else_a_header_is_data() {
    let mut trusted = proxies();
    trusted.networks = vec!["127.0.0.2".parse().expect("a network")];
    let server = loopback()
        .trusted_proxies(trusted)
        .rules(denying(&["192.0.2.0/24"]));
    let server = Running::start(server, services::echo());
    for version in [Version::V1, Version::V2] {
        let mut client = server.connect().await;
        echoes(&mut client, &declares(version, "192.0.2.7:51000")).await;
    }
    server.handle.abort();
    server.ended().await;

    // And nobody is trusted unless that is said.
    let server = Running::start(loopback(), naming());
    let mut client = server.connect().await;
    let itself = client.local_addr().expect("bound");
    assert_eq!(
        answer(&mut client).await,
        format!("{itself} {itself} false")
    );
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn where_only_proxies_are_served_everybody_else_is_refused() {
    let mut trusted = proxies();
    trusted.only = true;
    let server = Running::start(loopback().trusted_proxies(trusted), services::echo());
    let from = TcpSocket::new_v4().expect("a socket");
    from.bind(address("127.0.0.2:0"))
        .expect("all of 127/8 is ours");
    let mut stranger = from.connect(server.address).await.expect("connects");
    assert!(nothing_came(&mut stranger).await);

    let mut proxy = server.connect().await;
    let header = declares(Version::V1, "192.0.2.7:51000");
    proxy.write_all(&header).await.expect("sent");
    echoes(&mut proxy, b"hello").await;
    drop(proxy);
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.refused_by(RefuseReason::NoProxy), 1);
    assert_eq!((snapshot.accepted, snapshot.closed), (2, 1));
}

#[tokio::test]
async fn clients_of_a_unix_socket_are_proxies_if_that_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sock");
    let trusted = TrustedProxies {
        unix: true,
        only: true,
        ..TrustedProxies::default()
    };
    let server = Server::bind(BindAddr::Unix(path.clone())).expect("binds");
    let server = server
        .trusted_proxies(trusted)
        .rules(denying(&["192.0.2.0/24"]));
    let handle = server.handle();
    let ended = tokio::spawn(server.serve(naming()));
    let mut proxy = UnixStream::connect(&path).await.expect("connects");
    let header = declares(Version::V2, "192.0.3.7:51000");
    proxy.write_all(&header).await.expect("sent");
    assert!(answer(&mut proxy).await.starts_with("192.0.3.7:51000 "));
    drop(proxy);
    let mut proxy = UnixStream::connect(&path).await.expect("connects");
    let header = declares(Version::V2, "192.0.2.7:51000");
    proxy.write_all(&header).await.expect("sent");
    assert!(nothing_came(&mut proxy).await);
    handle.stop();
    let summary = soon(ended).await.expect("no panic").expect("accepts");
    assert_eq!(summary.snapshot.refused_by(RefuseReason::Denied), 1);

    let server = Server::bind(BindAddr::Unix(path.clone())).expect("binds");
    let mut trusted = proxies();
    trusted.only = true;
    let server = server.trusted_proxies(trusted);
    let handle = server.handle();
    let ended = tokio::spawn(server.serve(naming()));
    let mut stranger = UnixStream::connect(&path).await.expect("connects");
    assert!(nothing_came(&mut stranger).await);
    handle.stop();
    let summary = soon(ended).await.expect("no panic").expect("accepts");
    assert_eq!(summary.snapshot.refused_by(RefuseReason::NoProxy), 1);
}

#[tokio::test]
async fn what_else_a_proxy_says_is_there_for_the_service() {
    let service = service_fn(async |mut conn: Conn| {
        let header = conn.proxy_header().expect("required");
        let authority = header.authority().unwrap_or("nobody").to_owned();
        conn.write_all(authority.as_bytes()).await
    });
    let server = Running::start(loopback().trusted_proxies(proxies()), service);
    let mut proxy = server.connect().await;
    let header = Header::proxied(
        Version::V2,
        address("192.0.2.7:1"),
        address("192.0.2.1:443"),
    )
    .with_tlv(Tlv::Authority(b"a.example".to_vec()));
    let header = header.encode().expect("fits");
    proxy.write_all(&header).await.expect("sent");
    assert_eq!(answer(&mut proxy).await, "a.example");
    drop(proxy);
    server.stop().await;
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for_for_ever() {
    let mut timeouts = Timeouts::default();
    timeouts.proxy_header = SHORT;
    timeouts.linger = SHORT;
    let server = loopback().trusted_proxies(proxies()).timeouts(timeouts);
    let mut server = Running::start(server, services::echo());
    for sent in [&b""[..], b"PROXY TCP4 192.0.2.7 "] {
        let mut proxy = server.connect().await;
        proxy.write_all(sent).await.expect("sent");
        assert!(nothing_came(&mut proxy).await);
        drop(proxy);
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::ProxyHeaderTimeout);
        assert!(close.duration >= SHORT);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_lifetime_begins_with_the_accept_and_other_timeouts_with_the_service() {
    let mut timeouts = Timeouts::default();
    timeouts.lifetime = Some(SHORT);
    timeouts.linger = SHORT;
    let server = loopback().trusted_proxies(proxies()).timeouts(timeouts);
    let mut server = Running::start(server, services::echo());
    let mut proxy = server.connect().await;
    assert!(nothing_came(&mut proxy).await);
    drop(proxy);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Lifetime);
    assert!(close.duration >= SHORT);
    server.stop().await;

    for reason in [CloseReason::FirstByteTimeout, CloseReason::Idle] {
        let mut timeouts = Timeouts::default();
        match reason {
            CloseReason::Idle => timeouts.idle = Some(SHORT),
            _ => timeouts.first_byte = Some(SHORT),
        }
        let server = loopback().trusted_proxies(proxies()).timeouts(timeouts);
        let mut server = Running::start(server, services::echo());
        let mut proxy = server.connect().await;
        // A proxy that takes longer for its header than a client may be silent.
        tokio::time::sleep(SHORT * 2).await;
        let header = declares(Version::V1, "192.0.2.7:51000");
        proxy.write_all(&header).await.expect("sent");
        assert!(nothing_came(&mut proxy).await);
        drop(proxy);
        assert_eq!(server.next().await, Event::Accept(1));
        assert_eq!(server.next().await, Event::Open(1));
        let close = server.next_close().await;
        assert_eq!(close.reason, reason);
        assert!(close.duration >= SHORT * 3, "{:?}", close.duration);
        server.stop().await;
    }
}

#[tokio::test]
async fn an_abort_cuts_a_handshake_as_well() {
    let server = loopback().trusted_proxies(proxies());
    let mut server = Running::start(server, services::echo());
    let mut proxy = server.connect().await;
    proxy.write_all(b"PROXY ").await.expect("sent");
    assert_eq!(server.next().await, Event::Accept(1));
    server.handle.abort();
    assert!(nothing_came(&mut proxy).await);
    assert_eq!(server.next_close().await.reason, CloseReason::Aborted);
    assert_eq!(server.ended().await.cut(), 1);
}

/// At most two at once, and more than two in a row by each way that a handshake can end: a place that is not given back
/// would be missed by the third.
#[tokio::test]
async fn a_place_among_the_handshakes_is_given_back_however_it_ends() {
    let mut timeouts = Timeouts::default();
    timeouts.proxy_header = Duration::from_millis(250);
    timeouts.linger = SHORT;
    let limits = Limits {
        handshakes: Some(Handshakes::at_most(2)),
        ..Limits::default()
    };
    let server = loopback()
        .trusted_proxies(proxies())
        .timeouts(timeouts)
        .limits(limits)
        .rules(denying(&["192.0.2.0/24"]));
    let mut server = Running::start(server, services::echo());
    let denied = declares(Version::V2, "192.0.2.7:51000");
    let welcome = declares(Version::V2, "192.0.3.7:51000");
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut proxy = server.connect().await;
        proxy.write_all(&welcome).await.expect("sent");
        echoes(&mut proxy, b"x").await;
        open.push(proxy);
    }
    for _ in 0..6 {
        let mut proxy = server.connect().await;
        proxy.write_all(&denied).await.expect("sent");
        assert!(nothing_came(&mut proxy).await);
    }
    for reason in [
        CloseReason::ProxyHeader,
        CloseReason::PeerClosed,
        CloseReason::ProxyHeaderTimeout,
        CloseReason::Reset,
    ] {
        for _ in 0..3 {
            let mut proxy = server.connect().await;
            match reason {
                CloseReason::ProxyHeader => proxy.write_all(b"hello").await.expect("sent"),
                CloseReason::ProxyHeaderTimeout => assert!(nothing_came(&mut proxy).await),
                CloseReason::Reset => SockRef::from(&proxy)
                    .set_linger(Some(Duration::ZERO))
                    .expect("set"),
                _ => {}
            }
            drop(proxy);
            assert_eq!(server.next_close().await.reason, reason);
        }
    }
    drop(open);
    let snapshot = server.stop().await.snapshot;
    assert_eq!(snapshot.refused, 6);
    assert_eq!(snapshot.refused_by(RefuseReason::Denied), 6);
    assert_eq!(snapshot.closed, 6 + 4 * 3);
}

#[tokio::test]
async fn beyond_the_limit_of_handshakes_clients_are_refused_and_the_served_do_not_count() {
    let limits = Limits {
        handshakes: Some(Handshakes::at_most(2)),
        ..Limits::default()
    };
    let server = loopback().trusted_proxies(proxies()).limits(limits);
    let mut server = Running::start(server, services::echo());
    let header = declares(Version::V1, "192.0.2.7:51000");
    let mut served = Vec::new();
    for _ in 0..5 {
        let mut proxy = server.connect().await;
        proxy.write_all(&header).await.expect("sent");
        echoes(&mut proxy, b"x").await;
        served.push(proxy);
    }
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(server.connect().await);
    }
    let mut refused = server.connect().await;
    assert!(nothing_came(&mut refused).await);
    let snapshot = server.handle.snapshot();
    assert_eq!(snapshot.refused_by(RefuseReason::Handshakes), 1);

    drop(stalled.pop());
    server.next_close().await;
    let mut proxy = server.connect().await;
    proxy.write_all(&header).await.expect("sent");
    echoes(&mut proxy, b"x").await;
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn without_a_handshake_its_limit_does_not_matter() {
    let limits = Limits {
        handshakes: Some(Handshakes::at_most(0)),
        ..Limits::default()
    };
    let server = Running::start(loopback().limits(limits), services::echo());
    let mut client = server.connect().await;
    echoes(&mut client, b"hello").await;
    drop(client);
    assert_eq!(server.stop().await.snapshot.refused, 0);
}

#[tokio::test]
async fn new_rules_hold_for_new_connections_only() {
    let server = Running::start(loopback(), services::echo());
    let mut open = server.connect().await;
    echoes(&mut open, b"before").await;
    server.handle.set_rules(denying(&["127.0.0.1"]));
    let mut refused = server.connect().await;
    assert!(nothing_came(&mut refused).await);
    echoes(&mut open, b"after").await;
    server.handle.set_rules(Rules::default());
    let mut again = server.connect().await;
    echoes(&mut again, b"again").await;
    drop((open, again));
    let snapshot = server.stop().await.snapshot;
    assert_eq!((snapshot.accepted, snapshot.refused), (3, 1));
    assert_eq!(snapshot.refused_by(RefuseReason::Denied), 1);
}

/// The header is read after the accept, and the rules that hold then decide.
#[tokio::test]
async fn rules_are_looked_at_when_the_client_is_known() {
    let server = loopback().trusted_proxies(proxies());
    let mut server = Running::start(server, services::echo());
    let mut proxy = server.connect().await;
    assert_eq!(server.next().await, Event::Accept(1));
    server.handle.set_rules(denying(&["192.0.2.0/24"]));
    let header = declares(Version::V1, "192.0.2.7:51000");
    proxy.write_all(&header).await.expect("sent");
    assert!(nothing_came(&mut proxy).await);
    assert_eq!(server.next().await, Event::Refuse(1, "denied"));
    server.stop().await;
}

#[tokio::test]
async fn every_snapshot_adds_up_while_clients_are_refused_late() {
    let limits = Limits {
        handshakes: Some(Handshakes::at_most(3)),
        ..Limits::default()
    };
    let server = loopback()
        .trusted_proxies(proxies())
        .limits(limits)
        .rules(denying(&["192.0.2.0/24"]));
    let server = Running::start(server, services::echo());
    let handle = server.handle.clone();
    let clients: Vec<_> = (0..12_u8)
        .map(|number| {
            let address = server.address;
            tokio::spawn(async move {
                for round in 0..20_u8 {
                    let mut proxy = TcpStream::connect(address).await.expect("connects");
                    let header = match (number + round) % 3 {
                        0 => declares(Version::V1, "192.0.2.7:51000"),
                        1 => declares(Version::V2, "192.0.3.7:51000"),
                        _ => b"nonsense".to_vec(),
                    };
                    // Those that are refused may be so before they have written.
                    let _ = proxy.write_all(&header).await;
                    let _ = proxy.shutdown().await;
                    let _ = proxy.read(&mut [0]).await;
                }
            })
        })
        .collect();
    while !clients.iter().all(|client| client.is_finished()) {
        let s = handle.snapshot();
        assert_eq!(s.accepted, s.refused + s.open + s.closed);
        tokio::task::yield_now().await;
    }
    let s = server.stop().await.snapshot;
    assert_eq!((s.accepted, s.open), (240, 0));
    let refused: u64 = RefuseReason::ALL.iter().map(|r| s.refused_by(*r)).sum();
    let closed: u64 = CloseReason::ALL.iter().map(|r| s.closed_by(*r)).sum();
    assert_eq!((refused, closed), (s.refused, s.closed));
    assert!(s.refused_by(RefuseReason::Denied) > 0);
}

/// Says to this same program that it is alone, and can count its descriptors.
const ALONE: &str = "SOCKEYE_TEST_ALONE";

/// The other tests open and close descriptors meanwhile, so this one runs in a process of its own.
#[test]
fn ten_thousand_refused_connections_leave_no_descriptor_behind() {
    if std::env::var_os(ALONE).is_some() {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(refuse_ten_thousand());
    }
    let name = "handshake::ten_thousand_refused_connections_leave_no_descriptor_behind";
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args([name, "--exact"])
        .env(ALONE, "1")
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 passed"), "{told}");
}

async fn refuse_ten_thousand() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    let server = loopback()
        .trusted_proxies(proxies())
        .rules(denying(&["127.0.0.2", "192.0.2.0/24"]));
    let server = Running::start(server, services::echo());
    let header = declares(Version::V2, "192.0.2.7:51000");
    let refused = async |source: &str| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address(source)).expect("all of 127/8 is ours");
        let mut client = socket.connect(server.address).await.expect("connects");
        // Closed without a wait, so that ports are not used up.
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .expect("set");
        // Who is refused at once may be so before this is sent.
        let _ = client.write_all(&header).await;
        assert!(nothing_came(&mut client).await);
    };
    refused("127.0.0.1:0").await;
    refused("127.0.0.2:0").await;
    let before = descriptors();
    for _ in 0..5_000 {
        // Refused by the header, and at once.
        refused("127.0.0.1:0").await;
        refused("127.0.0.2:0").await;
    }
    let snapshot = server.handle.snapshot();
    assert_eq!(snapshot.refused_by(RefuseReason::Denied), 10_002);
    assert_eq!(snapshot.open, 0);
    assert_eq!(descriptors(), before);
    server.stop().await;
}
