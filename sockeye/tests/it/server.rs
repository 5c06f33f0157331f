use std::num::NonZeroUsize;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use sockeye::error::BindError;
use sockeye::{Addr, BindAddr, CloseReason, Server, SocketOptions, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Event, Running, echoes, loopback, soon};

#[tokio::test]
async fn one_connection_gives_accept_open_and_close_with_one_id() {
    let mut server = Running::start(loopback(), services::echo());
    let mut client = server.connect().await;
    echoes(&mut client, b"hello").await;
    client.shutdown().await.expect("FIN");
    assert_eq!(server.next().await, Event::Accept(1));
    assert_eq!(server.next().await, Event::Open(1));
    let close = server.next_close().await;
    assert_eq!(close.id, 1);
    assert_eq!(close.reason, CloseReason::PeerClosed);
    assert_eq!((close.bytes_in, close.bytes_out), (5, 5));
    assert!(close.has_tcp_info && close.error.is_none());
    let summary = server.stop().await;
    assert_eq!(summary.snapshot.accepted, 1);
    assert_eq!(summary.snapshot.closed_by(CloseReason::PeerClosed), 1);
    assert_eq!(
        (summary.snapshot.bytes_in, summary.snapshot.bytes_out),
        (5, 5)
    );
    assert_eq!(summary.cut(), 0);
}

#[tokio::test]
async fn every_snapshot_adds_up_while_connections_come_and_go() {
    let server = Running::start(loopback(), services::echo());
    let handle = server.handle.clone();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let address = server.address;
            tokio::spawn(async move {
                for _ in 0..20 {
                    let mut client = TcpStream::connect(address).await.expect("connects");
                    echoes(&mut client, b"x").await;
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
    assert_eq!((s.accepted, s.closed, s.open), (400, 400, 0));
    let by_reason: u64 = CloseReason::ALL.iter().map(|r| s.closed_by(*r)).sum();
    assert_eq!(by_reason, s.closed);
}

#[tokio::test]
async fn all_interfaces_takes_ipv4_and_ipv6_on_one_port_and_shows_ipv4_as_ipv4() {
    let server = Server::bind(BindAddr::AllInterfaces { port: 0 }).expect("binds");
    let port = server.addresses()[0].port().expect("TCP");
    let service = service_fn(async |mut conn: sockeye::Conn| {
        let text = conn.peer().ip().expect("TCP").to_string();
        conn.write_all(text.as_bytes()).await
    });
    let server = Running::start(server, service);
    for ip in ["127.0.0.1", "::1"] {
        let mut client = TcpStream::connect((ip, port)).await.expect("connects");
        let mut answer = String::new();
        soon(client.read_to_string(&mut answer))
            .await
            .expect("answered");
        assert_eq!(answer, ip);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_explicit_ipv6_wildcard_leaves_ipv4_alone() {
    let server =
        Server::bind("[::]:0".parse::<std::net::SocketAddr>().expect("valid")).expect("binds");
    let port = server.addresses()[0].port().expect("TCP");
    let refused = TcpStream::connect(("127.0.0.1", port)).await;
    assert_eq!(
        refused.map(drop).map_err(|e| e.kind()),
        Err(std::io::ErrorKind::ConnectionRefused)
    );
}

#[tokio::test]
async fn several_addresses_are_served_by_one_server() {
    let addresses = [
        BindAddr::from(([127, 0, 0, 1], 0)),
        BindAddr::from(([127, 0, 0, 1], 0)),
    ];
    let server = Server::bind_with(addresses, &SocketOptions::default()).expect("binds");
    let second = server.addresses()[1].clone();
    let server = Running::start(server, services::echo());
    let mut client = server.connect().await;
    echoes(&mut client, b"first").await;
    let Addr::Tcp(second) = second else {
        panic!("TCP")
    };
    let mut client = TcpStream::connect(second).await.expect("connects");
    echoes(&mut client, b"second").await;
    drop(client);
    server.handle.abort();
    assert_eq!(server.ended().await.snapshot.accepted, 2);
}

#[test]
fn a_port_in_use_is_an_error_and_binds_nothing_else() {
    let first = loopback();
    let Addr::Tcp(taken) = first.addresses()[0] else {
        panic!("TCP")
    };
    let free = {
        let probe = loopback();
        let Addr::Tcp(free) = probe.addresses()[0] else {
            panic!("TCP")
        };
        free
    };
    let both = [BindAddr::Tcp(free), BindAddr::Tcp(taken)];
    let error = Server::bind_with(both, &SocketOptions::default()).expect_err("taken");
    assert!(matches!(error, BindError::InUse { address } if address == BindAddr::Tcp(taken)));
    Server::bind(free).expect("was let go again");
}

#[test]
fn no_address_is_an_error() {
    let error = Server::bind_with([], &SocketOptions::default()).expect_err("nothing to do");
    assert!(matches!(error, BindError::NoAddress));
}

#[tokio::test]
async fn a_unix_socket_is_served_and_its_file_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sock");
    let server = Server::bind(BindAddr::Unix(path.clone())).expect("binds");
    assert_eq!(
        server.addresses()[0],
        Addr::Unix(Some(path.as_path().into()))
    );
    let handle = server.handle();
    let ended = tokio::spawn(server.serve(services::echo()));
    let mut client = UnixStream::connect(&path).await.expect("connects");
    echoes(&mut client, b"hello").await;
    drop(client);
    handle.stop();
    let summary = soon(ended).await.expect("no panic").expect("accepts");
    assert_eq!(summary.snapshot.closed_by(CloseReason::PeerClosed), 1);
    assert!(!path.exists());
}

#[test]
fn a_stale_unix_socket_is_replaced_a_living_one_and_a_file_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sock");
    let asked = BindAddr::Unix(path.clone());

    let living = UnixListener::bind(&path).expect("binds");
    let error = Server::bind(asked.clone()).expect_err("somebody listens there");
    assert!(matches!(error, BindError::InUse { .. }));

    drop(living);
    assert!(
        path.exists(),
        "a listener of the standard library leaves its file"
    );
    let server = Server::bind(asked.clone()).expect("nobody listens there any more");
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "precious").expect("written");
    let error = Server::bind(asked).expect_err("not a socket");
    assert!(matches!(error, BindError::NotASocket { .. }));
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
}

#[test]
fn workers_share_one_port_and_one_account() {
    const WORKERS: usize = 3;
    const CLIENTS: usize = 60;
    let server = loopback();
    let Addr::Tcp(address) = server.addresses()[0] else {
        panic!("TCP")
    };
    let handle = server.handle();
    let seen = Arc::new(AtomicUsize::new(0));
    let all_in = Arc::new(Barrier::new(2));
    let service = {
        let (seen, all_in) = (Arc::clone(&seen), Arc::clone(&all_in));
        service_fn(move |mut conn| {
            let (seen, all_in) = (Arc::clone(&seen), Arc::clone(&all_in));
            async move {
                if seen.fetch_add(1, Ordering::SeqCst) + 1 == CLIENTS {
                    all_in.wait();
                }
                conn.read_u8().await.map(drop)
            }
        })
    };
    let thread =
        std::thread::spawn(move || server.run(NonZeroUsize::new(WORKERS).expect("not 0"), service));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| std::net::TcpStream::connect(address).expect("connects"))
        .collect();
    all_in.wait();
    assert_eq!(handle.snapshot().open, CLIENTS as u64);
    drop(clients);
    handle.stop();
    let summary = thread.join().expect("no panic").expect("serves");
    assert_eq!(summary.snapshot.closed, CLIENTS as u64);
    assert_eq!(summary.snapshot.accepted, CLIENTS as u64);
}

#[test]
fn while_workers_share_a_port_nobody_else_can_have_it() {
    let server = loopback();
    let Addr::Tcp(address) = server.addresses()[0] else {
        panic!("TCP")
    };
    let handle = server.handle();
    let thread =
        std::thread::spawn(move || server.run(NonZeroUsize::new(2).expect("2"), services::echo()));
    let mut client = std::net::TcpStream::connect(address).expect("connects");
    std::io::Write::write_all(&mut client, b"x").expect("sent");
    std::io::Read::read_exact(&mut client, &mut [0]).expect("both workers are up");
    let error = Server::bind(address).expect_err("taken");
    assert!(matches!(error, BindError::InUse { .. }));
    drop(client);
    handle.stop();
    thread.join().expect("no panic").expect("serves");
}

#[tokio::test]
async fn a_panic_closes_its_own_connection_and_no_other() {
    let service = service_fn(async |mut conn: sockeye::Conn| {
        loop {
            match conn.read_u8().await {
                Ok(b'!') => panic!("as the test asked for"),
                Ok(byte) => conn.write_u8(byte).await?,
                Err(_) => return Ok(()),
            }
        }
    });
    let mut server = Running::start(loopback(), service);
    let mut bystander = server.connect().await;
    echoes(&mut bystander, b"a").await;
    let mut victim = server.connect().await;
    victim.write_all(b"!").await.expect("sent");
    let ended = soon(victim.read_u8()).await.expect_err("closed");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.next_close().await.reason, CloseReason::Panic);
    echoes(&mut bystander, b"b").await;
    drop(bystander);
    assert_eq!(
        server.stop().await.snapshot.closed_by(CloseReason::Panic),
        1
    );
}

#[tokio::test]
async fn a_panic_before_the_service_has_a_future_is_a_panic_too() {
    async fn never() -> std::io::Result<()> {
        Ok(())
    }
    let service = service_fn(|conn: sockeye::Conn| {
        assert!(conn.id() == 0, "as the test asked for");
        never()
    });
    let mut server = Running::start(loopback(), service);
    let _client = server.connect().await;
    assert_eq!(server.next_close().await.reason, CloseReason::Panic);
    assert_eq!(server.stop().await.cut(), 0);
}

#[tokio::test]
async fn an_observer_that_panics_costs_nobody_a_connection() {
    struct Panics;
    impl sockeye::stats::Observer for Panics {
        fn open(&self, _: &sockeye::stats::Opened<'_>) {
            panic!("as the test asked for");
        }
        fn close(&self, _: &sockeye::stats::Closed<'_>) {
            panic!("as the test asked for");
        }
    }
    let server = loopback().observer(Panics);
    let Addr::Tcp(address) = server.addresses()[0] else {
        panic!("TCP")
    };
    let handle = server.handle();
    let ended = tokio::spawn(server.serve(services::echo()));
    for _ in 0..3 {
        let mut client = TcpStream::connect(address).await.expect("connects");
        echoes(&mut client, b"x").await;
    }
    handle.stop();
    let summary = soon(ended).await.expect("no panic").expect("accepts");
    assert_eq!(summary.snapshot.closed, 3);
}

#[tokio::test]
async fn dropping_the_future_closes_the_listener_and_the_connections() {
    let server = loopback();
    let Addr::Tcp(address) = server.addresses()[0] else {
        panic!("TCP")
    };
    let running = tokio::spawn(server.serve(services::echo()));
    let mut client = TcpStream::connect(address).await.expect("connects");
    echoes(&mut client, b"x").await;
    running.abort();
    let ended = soon(client.read_u8()).await.expect_err("cut");
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(address).await.expect_err("closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn run_inside_a_runtime_is_a_panic_and_no_hang() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let ended = std::panic::catch_unwind(|| {
        runtime.block_on(async {
            let workers = NonZeroUsize::new(2).expect("not 0");
            loopback().run(workers, services::echo()).map(drop)
        })
    });
    assert!(ended.is_err());
}

#[test]
fn an_address_keeps_the_scope_of_a_link_local_one() {
    let link_local: std::net::SocketAddr = "[fe80::1%3]:7000".parse().expect("valid");
    assert_eq!(Addr::from(link_local), Addr::Tcp(link_local));
    let mapped: std::net::SocketAddr = "[::ffff:192.0.2.1]:7000".parse().expect("valid");
    assert_eq!(Addr::from(mapped).to_string(), "192.0.2.1:7000");
}
