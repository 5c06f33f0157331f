use sockeye::admission::PerSource;
use sockeye::{CloseReason, Limits, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Event, Running, loopback, soon};

async fn say(client: &mut TcpStream) -> std::io::Result<u8> {
    client.write_all(b"x").await?;
    soon(client.read_u8()).await
}

#[tokio::test]
async fn at_the_global_limit_clients_wait_and_are_served_when_others_leave() {
    let limits = Limits {
        max_connections: Some(2),
        ..Limits::default()
    };
    let mut server = Running::start(loopback().limits(limits), services::echo());
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    say(&mut first).await.expect("served");
    say(&mut second).await.expect("served");

    let mut third = server.connect().await;
    third.write_all(b"x").await.expect("sent into the queue");
    say(&mut first).await.expect("still served");
    assert_eq!(server.handle.snapshot().accepted, 2);

    drop(first);
    assert_eq!(soon(third.read_u8()).await.expect("served now"), b'x');
    assert_eq!(server.next_close().await.id, 1);
    drop((second, third));
    let snapshot = server.stop().await.snapshot;
    assert_eq!((snapshot.accepted, snapshot.refused), (3, 0));
    assert!(snapshot.deferrals >= 1);
}

#[tokio::test]
async fn over_the_limit_of_its_source_a_client_is_refused_and_others_are_not() {
    let limits = Limits {
        per_source: PerSource::AtMost(1),
        ..Limits::default()
    };
    let mut server = Running::start(loopback().limits(limits), services::echo());
    let mut first = server.connect().await;
    say(&mut first).await.expect("served");
    assert_eq!(server.next().await, Event::Accept(1));
    assert_eq!(server.next().await, Event::Open(1));

    let mut second = server.connect().await;
    assert_eq!(server.next().await, Event::Accept(2));
    assert_eq!(server.next().await, Event::Refuse(2, "per_source"));
    let ended = soon(second.read(&mut [0])).await;
    assert_eq!(ended.unwrap_or(0), 0, "closed without a byte");

    let elsewhere = TcpSocket::new_v4().expect("a socket");
    elsewhere
        .bind(([127, 0, 0, 2], 0).into())
        .expect("all of 127/8 is ours");
    let mut other = elsewhere.connect(server.address).await.expect("connects");
    say(&mut other).await.expect("another source is served");

    drop(first);
    server.next_close().await;
    let mut again = server.connect().await;
    say(&mut again).await.expect("served again");
    drop((other, again));
    let snapshot = server.stop().await.snapshot;
    assert_eq!((snapshot.accepted, snapshot.refused), (4, 1));
    assert_eq!(snapshot.closed_by(CloseReason::PeerClosed), 3);
}

#[tokio::test]
async fn loopback_has_no_limit_by_default() {
    let server = Running::start(loopback(), services::echo());
    let mut clients = Vec::new();
    for _ in 0..1_100 {
        clients.push(server.connect().await);
    }
    for client in &mut clients {
        say(client).await.expect("served");
    }
    drop(clients);
    assert_eq!(server.stop().await.snapshot.refused, 0);
}
