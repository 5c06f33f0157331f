use std::time::Duration;

use sockeye::{CloseReason, Conn, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, loopback, soon};

async fn say(client: &mut TcpStream) -> std::io::Result<u8> {
    client.write_all(b"x").await?;
    soon(client.read_u8()).await
}

/// Waits until nobody listens there any more.
async fn refused(address: std::net::SocketAddr) {
    soon(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn stop_lets_the_open_connections_go_on_for_as_long_as_they_like() {
    let server = Running::start(loopback(), services::echo());
    let mut client = server.connect().await;
    say(&mut client).await.expect("served");
    server.handle.stop();
    refused(server.address).await;
    say(&mut client).await.expect("still served");
    drop(client);
    let summary = server.ended().await;
    assert_eq!(summary.cut(), 0);
}

#[tokio::test]
async fn stop_takes_the_clients_that_already_wait_in_the_queue() {
    let server = loopback();
    let sockeye::Addr::Tcp(address) = server.addresses()[0] else {
        panic!("TCP")
    };
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(TcpStream::connect(address).await.expect("into the queue"));
    }
    server.handle().stop();
    let server = Running::start(server, services::echo());
    for client in &mut clients {
        say(client).await.expect("served");
    }
    drop(clients);
    let summary = server.ended().await;
    assert_eq!(summary.snapshot.accepted, 300);
    assert_eq!(summary.cut(), 0);
}

#[tokio::test]
async fn drain_tells_the_services_and_cuts_nobody_who_ends_in_time() {
    let service = service_fn(async |mut conn: Conn| {
        let mut drain = conn.drain_signal();
        assert!(!drain.is_draining());
        conn.write_all(b"x").await?;
        drain.wait().await;
        assert!(drain.is_draining());
        conn.write_all(b"finished").await
    });
    let server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    soon(client.read_u8()).await.expect("served");
    server.handle.drain(Duration::from_secs(3600));
    let mut rest = String::new();
    soon(client.read_to_string(&mut rest)).await.expect("FIN");
    assert_eq!(rest, "finished");
    drop(client);
    let summary = server.ended().await;
    assert_eq!(summary.cut(), 0);
    assert_eq!(summary.snapshot.closed_by(CloseReason::Finished), 1);
}

#[tokio::test]
async fn after_the_drain_deadline_the_rest_is_cut_and_counted() {
    let server = Running::start(loopback(), services::echo());
    let mut clients = [server.connect().await, server.connect().await];
    for client in &mut clients {
        say(client).await.expect("served");
    }
    server.handle.drain(Duration::from_millis(50));
    for client in &mut clients {
        let cut = soon(client.read_u8()).await.expect_err("cut");
        assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let summary = server.ended().await;
    assert_eq!(summary.cut(), 2);
    assert_eq!(summary.snapshot.closed_by(CloseReason::Aborted), 2);
}

#[tokio::test]
async fn a_later_drain_can_only_be_sooner() {
    let server = Running::start(loopback(), services::echo());
    let mut client = server.connect().await;
    say(&mut client).await.expect("served");
    server.handle.drain(Duration::MAX);
    server.handle.drain(Duration::ZERO);
    server.handle.drain(Duration::from_secs(3600));
    server.handle.stop();
    assert_eq!(server.ended().await.cut(), 1);
}

#[tokio::test]
async fn abort_cuts_at_once() {
    let server = Running::start(loopback(), services::echo());
    let mut client = server.connect().await;
    say(&mut client).await.expect("served");
    server.handle.drain(Duration::from_secs(3600));
    server.handle.abort();
    let cut = soon(client.read_u8()).await.expect_err("cut");
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.ended().await.cut(), 1);
}
