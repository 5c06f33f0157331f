//! A socket that somebody else uses for a while, as a program does that inetd has started.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Blocking;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::SockRef;
use sockeye::{CloseReason, Conn, Timeouts, service_fn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, loopback, soon};

/// Has this done with the socket, in a thread that blocks, and gives it back.
async fn lend(
    conn: Conn,
    work: impl FnOnce(Blocking) -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let (lent, descriptor): (_, OwnedFd) = conn.lend()?;
    let worked = tokio::task::spawn_blocking(move || work(Blocking::from(descriptor)));
    worked.await.expect("no panic")?;
    drop(lent);
    Ok(())
}

#[tokio::test]
async fn what_moves_on_a_lent_socket_is_counted_and_its_end_is_known() {
    let service = service_fn(async |mut conn: Conn| {
        // What was read before is not counted twice.
        conn.read_exact(&mut [0; 3]).await?;
        lend(conn, |mut socket| {
            let mut all = Vec::new();
            socket.read_to_end(&mut all)?;
            socket.write_all(&all)?;
            socket.write_all(b"!")
        })
        .await
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    client.write_all(b"abcdefgh").await.expect("sent");
    client.shutdown().await.expect("FIN");
    let mut answer = String::new();
    let read = soon(client.read_to_string(&mut answer)).await;
    read.expect("a clean end");
    assert_eq!(answer, "defgh!");
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::PeerClosed);
    assert_eq!((close.bytes_in, close.bytes_out), (8, 6));
    server.stop().await;
}

#[tokio::test]
async fn input_that_was_left_unread_is_not_counted_and_destroys_no_answer() {
    let service = service_fn(async |conn: Conn| {
        lend(conn, |mut socket| {
            socket.read_exact(&mut [0; 2])?;
            socket.write_all(&vec![7; 200_000])
        })
        .await
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    client.write_all(b"abcdefgh").await.expect("sent");
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.expect("whole");
    assert_eq!(answer.len(), 200_000);
    drop(client);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Finished);
    assert_eq!((close.bytes_in, close.bytes_out), (2, 200_000));
    server.stop().await;
}

/// The kernel tells an error once, and it was told to the other.
#[tokio::test]
async fn a_reset_that_somebody_else_was_told_of_is_a_reset() {
    let service = service_fn(async |mut conn: Conn| {
        conn.write_all(b"!").await?;
        lend(conn, |mut socket| {
            socket.read(&mut [0]).expect_err("a reset");
            Ok(())
        })
        .await
    });
    let mut server = Running::start(loopback(), service);
    let mut client: TcpStream = server.connect().await;
    client.read_u8().await.expect("it is served");
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("set");
    drop(client);
    assert_eq!(server.next_close().await.reason, CloseReason::Reset);
    server.stop().await;
}

#[tokio::test]
async fn a_lent_socket_on_which_nothing_moves_is_closed_after_the_idle_timeout() {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(Duration::from_millis(100));
    let service = service_fn(async |conn: Conn| {
        let (_lent, _descriptor) = conn.lend()?;
        std::future::pending().await
    });
    let mut server = Running::start(loopback().timeouts(timeouts), service);
    let mut client = server.connect().await;
    client.write_all(b"unread").await.expect("sent");
    let read = soon(client.read(&mut [0])).await;
    assert_eq!(read.expect("a clean end"), 0);
    drop(client);
    assert_eq!(server.next_close().await.reason, CloseReason::Idle);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_aborted_while_its_socket_is_lent_is_reset() {
    let service = service_fn(async |conn: Conn| {
        let (_lent, descriptor) = conn.lend()?;
        Blocking::from(descriptor).write_all(b"!")?;
        std::future::pending().await
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    client.read_u8().await.expect("it is served");
    server.handle.abort();
    let error = soon(client.read_u8()).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.next_close().await.reason, CloseReason::Aborted);
}
