use std::time::Duration;

use sockeye::{CloseReason, Conn, Timeouts, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Running, loopback, soon};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);

/// Sends what is given, then waits for the server to close, and returns why it did.
async fn closed_by(timeouts: Timeouts, send: &[u8]) -> CloseReason {
    let mut server = Running::start(loopback().timeouts(timeouts), services::echo());
    let mut client = server.connect().await;
    client.write_all(send).await.expect("sent");
    let mut all = Vec::new();
    // The server closes in good order: our side sees the end of the stream, not a reset.
    soon(client.read_to_end(&mut all)).await.expect("FIN");
    assert_eq!(all, send);
    drop(client);
    let close = server.next_close().await;
    assert!(close.duration >= SHORT);
    server.stop().await;
    close.reason
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_after_the_first_byte_timeout() {
    let mut timeouts = Timeouts::default();
    timeouts.first_byte = Some(SHORT);
    timeouts.idle = Some(LONG);
    assert_eq!(
        closed_by(timeouts, b"").await,
        CloseReason::FirstByteTimeout
    );
}

#[tokio::test]
async fn a_client_that_falls_silent_is_closed_after_the_idle_timeout() {
    let mut timeouts = Timeouts::default();
    timeouts.first_byte = Some(LONG);
    timeouts.idle = Some(SHORT);
    assert_eq!(closed_by(timeouts, b"hello").await, CloseReason::Idle);
}

#[tokio::test]
async fn the_first_byte_timeout_is_over_with_the_first_byte() {
    let mut timeouts = Timeouts::default();
    timeouts.first_byte = Some(SHORT);
    timeouts.lifetime = Some(SHORT * 3);
    assert_eq!(closed_by(timeouts, b"hello").await, CloseReason::Lifetime);
}

#[tokio::test]
async fn every_byte_puts_the_idle_timeout_off_but_not_the_lifetime() {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(SHORT);
    timeouts.lifetime = Some(SHORT * 4);
    let mut server = Running::start(loopback().timeouts(timeouts), services::echo());
    let mut client = server.connect().await;
    let mut every = tokio::time::interval(SHORT / 6);
    loop {
        every.tick().await;
        let talked = async {
            client.write_all(b"x").await?;
            client.read_u8().await
        };
        if soon(talked).await.is_err() {
            break;
        }
    }
    drop(client);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Lifetime);
    assert!(close.bytes_in > 4, "more bytes than idle timeouts fit in");
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_never_reads_is_idle_once_nothing_moves() {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(SHORT);
    timeouts.linger = SHORT;
    let mut server = Running::start(loopback().timeouts(timeouts), services::chargen());
    let client = server.connect().await;
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Idle);
    assert!(close.bytes_out > 0);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_ends_a_service_that_waits_for_something_else() {
    let mut timeouts = Timeouts::default();
    timeouts.lifetime = Some(SHORT);
    let service = service_fn(async |_conn: Conn| std::future::pending().await);
    let mut server = Running::start(loopback().timeouts(timeouts), service);
    let mut client = server.connect().await;
    assert_eq!(soon(client.read(&mut [0])).await.expect("FIN"), 0);
    drop(client);
    assert_eq!(server.next_close().await.reason, CloseReason::Lifetime);
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_beyond_the_end_of_time_is_none() {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(Duration::MAX);
    timeouts.lifetime = Some(SHORT);
    assert_eq!(closed_by(timeouts, b"hello").await, CloseReason::Lifetime);
}
