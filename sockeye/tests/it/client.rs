use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sockeye::client::{Connector, Failure, Family, Outcome, Target};
use sockeye::{Addr, BindAddr, Server, Stream, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Running, loopback, soon};

/// A port where nobody listens, and nobody will while the socket lives.
pub(crate) fn closed_port(ip: &str) -> (socket2::Socket, SocketAddr) {
    let address: SocketAddr = (ip.parse::<std::net::IpAddr>().expect("valid"), 0).into();
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&address.into()).expect("binds");
    let bound = socket.local_addr().expect("bound").as_socket().expect("IP");
    (socket, bound)
}

#[tokio::test]
async fn connects_by_name_and_falls_back_to_the_family_that_answers() {
    let server = Running::start(loopback(), services::echo());
    let connected = sockeye::client::connect(("localhost", server.address.port()))
        .await
        .expect("127.0.0.1 answers");
    assert_eq!(connected.peer, Addr::Tcp(server.address));
    assert!(connected.report.resolved_in.is_some());
    let mut won = 0;
    for attempt in &connected.report.attempts {
        match &attempt.outcome {
            Outcome::Connected => won += 1,
            Outcome::Failed(error) => {
                assert!(attempt.address.is_ipv6());
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
    let mut stream = connected.stream;
    stream.write_all(b"hello").await.expect("sent");
    stream.shutdown().await.expect("FIN");
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.expect("echo");
    assert_eq!(answer, b"hello");
    server.stop().await;
}

#[tokio::test]
async fn a_refused_connection_says_which_address_refused() {
    let (_held, address) = closed_port("127.0.0.1");
    let error = Connector::default()
        .connect(address)
        .await
        .expect_err("nobody listens");
    assert!(matches!(error.failure, Failure::AllFailed));
    let [attempt] = error.report.attempts.as_slice() else {
        panic!("one attempt: {error:?}");
    };
    assert_eq!(attempt.address, address);
    let Outcome::Failed(why) = &attempt.outcome else {
        panic!("{attempt:?}")
    };
    assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&address.to_string()));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_resolve_failure() {
    let error = Connector::default()
        .connect(("no-such-name.invalid", 80))
        .await
        .expect_err("RFC 6761 promises that it does not exist");
    let resolving = matches!(error.failure, Failure::Resolve(_) | Failure::TimedOut(_));
    assert!(resolving && error.report.addresses.is_empty(), "{error:?}");
}

/// A listen queue that is full drops the SYN: the attempt hangs as it does with a host that is down.
struct Blackhole {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

async fn blackhole() -> Blackhole {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("binds");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("bound");
    let mut queue = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queue.push(stream.expect("connects until the queue is full"));
    }
    Blackhole {
        address,
        _listener: listener,
        _queue: queue,
    }
}

#[tokio::test]
async fn an_address_that_does_not_answer_costs_the_timeout_and_no_more() {
    let hole = blackhole().await;
    let mut connector = Connector::default();
    connector.timeout = Duration::from_millis(100);
    let error = soon(connector.connect(hole.address))
        .await
        .expect_err("no answer");
    assert!(matches!(error.failure, Failure::TimedOut(after) if after == connector.timeout));
    assert!(matches!(
        error.report.attempts[0].outcome,
        Outcome::Unfinished
    ));
}

#[tokio::test]
async fn an_address_that_does_not_answer_costs_250_ms_when_there_is_another() {
    let hole = blackhole().await;
    let server = Running::start(loopback(), services::echo());
    let connected =
        soon(Connector::default().connect(Target::Addresses(vec![hole.address, server.address])))
            .await
            .expect("the second answers");
    assert_eq!(connected.peer, Addr::Tcp(server.address));
    let [first, second] = connected.report.attempts.as_slice() else {
        panic!("{:?}", connected.report);
    };
    assert!(matches!(first.outcome, Outcome::Unfinished));
    assert!(matches!(second.outcome, Outcome::Connected));
    assert!(second.started_at >= Duration::from_millis(250));
    drop(connected);
    server.stop().await;
}

#[tokio::test]
async fn the_next_address_is_tried_at_once_when_one_has_refused() {
    let (_held, closed) = closed_port("127.0.0.1");
    let server = Running::start(loopback(), services::echo());
    let mut connector = Connector::default();
    connector.attempt_delay = Duration::MAX;
    connector.timeout = Duration::MAX;
    let connected = soon(connector.connect(Target::Addresses(vec![closed, server.address])))
        .await
        .expect("the second answers");
    assert_eq!(connected.peer, Addr::Tcp(server.address));
    drop(connected);
    server.stop().await;
}

#[tokio::test]
async fn family_and_source_choose_the_addresses() {
    let server = Server::bind(BindAddr::AllInterfaces { port: 0 }).expect("binds");
    let port = server.addresses()[0].port().expect("TCP");
    let server = Running::start(server, services::echo());
    let both: Vec<SocketAddr> = ["127.0.0.1", "::1"]
        .map(|ip| (ip.parse::<std::net::IpAddr>().expect("valid"), port).into())
        .into();
    for (family, expected) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        let mut connector = Connector::default();
        connector.family = Some(family);
        let connected = connector.connect(Target::Addresses(both.clone())).await;
        let peer = connected.expect("answers").peer;
        assert_eq!(peer.ip().expect("IP").to_string(), expected);
    }
    let mut connector = Connector::default();
    connector.source = Some("127.0.0.5:0".parse().expect("valid"));
    let connected = connector
        .connect(("localhost", port))
        .await
        .expect("answers");
    let local = connected.stream.local_addr().expect("ours");
    assert_eq!(local.ip(), Some("127.0.0.5".parse().expect("valid")));

    connector.family = Some(Family::V6);
    let error = connector
        .connect(("localhost", port))
        .await
        .expect_err("an IPv4 source has no way to IPv6");
    assert!(matches!(error.failure, Failure::NoUsableAddress));
    drop(connected);
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_is_connected_by_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sock");
    let missing = sockeye::client::connect(Target::Unix(path.clone()))
        .await
        .expect_err("nothing there");
    assert!(
        matches!(missing.failure, Failure::Unix(error) if error.kind() == io::ErrorKind::NotFound)
    );

    let server = Server::bind(BindAddr::Unix(path.clone())).expect("binds");
    let handle = server.handle();
    let ended = tokio::spawn(server.serve(services::daytime()));
    let connected = sockeye::client::connect(Target::Unix(path))
        .await
        .expect("connects");
    let mut stream = connected.stream;
    assert!(matches!(stream, Stream::Unix(_)));
    let mut line = String::new();
    soon(stream.read_to_string(&mut line)).await.expect("FIN");
    assert!(line.ends_with("GMT\r\n"));
    drop(stream);
    handle.stop();
    soon(ended).await.expect("no panic").expect("accepts");
}

#[tokio::test]
async fn close_waits_for_the_peers_fin_and_says_whether_it_came() {
    let server = Running::start(loopback(), services::echo());
    let connected = sockeye::client::connect(server.address)
        .await
        .expect("answers");
    assert!(soon(connected.stream.close(Duration::from_secs(60))).await);
    server.stop().await;

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let connected = sockeye::client::connect(address).await.expect("answers");
    let (_held_open, _) = listener.accept().await.expect("accepts");
    assert!(!connected.stream.close(Duration::from_millis(20)).await);
}

/// Bound to the port that it asks for, a socket's SYN meets itself and opens a connection.
#[tokio::test]
async fn a_connection_to_itself_is_nobody_listening() {
    let (held, address) = closed_port("127.0.0.1");
    drop(held);
    let mut connector = Connector::default();
    connector.source = Some(address);
    let error = connector
        .connect(address)
        .await
        .expect_err("nobody listens");
    let Outcome::Failed(why) = &error.report.attempts[0].outcome else {
        panic!("{error:?}")
    };
    assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
}
