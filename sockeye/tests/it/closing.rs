//! When a connection ends, and as what: the table of the contract, on the side of the server.

use std::time::Duration;

use socket2::SockRef;
use sockeye::{CloseReason, Conn, Timeouts, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::{Running, loopback, soon};

fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("set");
}

#[tokio::test]
async fn a_service_may_still_write_after_the_peers_fin() {
    let service = service_fn(async |mut conn: Conn| {
        let mut all = Vec::new();
        conn.read_to_end(&mut all).await?;
        conn.write_all(format!("{} bytes", all.len()).as_bytes())
            .await
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    client.write_all(b"12345").await.expect("sent");
    client.shutdown().await.expect("FIN");
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, "5 bytes");
    assert_eq!(server.next_close().await.reason, CloseReason::PeerClosed);
    server.stop().await;
}

#[tokio::test]
async fn a_half_close_by_the_service_lets_the_client_go_on() {
    let service = service_fn(async |mut conn: Conn| {
        conn.write_all(b"bye").await?;
        conn.shutdown().await?;
        let mut rest = Vec::new();
        conn.read_to_end(&mut rest).await.map(drop)
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, "bye");
    client.write_all(b"still talking").await.expect("sent");
    client.shutdown().await.expect("FIN");
    let close = server.next_close().await;
    assert_eq!((close.reason, close.bytes_in), (CloseReason::Finished, 13));
    server.stop().await;
}

/// Without the linger, the unread input turns the close into a reset, and that destroys the answer.
#[tokio::test]
async fn our_last_bytes_survive_a_client_that_is_still_sending() {
    const ANSWER_BYTES: usize = 200_000;
    let service = service_fn(async |mut conn: Conn| {
        conn.read_u8().await?;
        conn.write_all(&vec![7; ANSWER_BYTES]).await
    });
    let mut server = Running::start(loopback(), service);
    for _ in 0..20 {
        let mut client = server.connect().await;
        client.write_all(&vec![1; 100_000]).await.expect("sent");
        let mut answer = Vec::new();
        let (mut reader, mut writer) = client.split();
        let (read, _) = soon(async {
            tokio::join!(reader.read_to_end(&mut answer), async {
                let _ = writer.write_all(&vec![1; 100_000]).await;
                writer.shutdown().await
            })
        })
        .await;
        read.expect("no reset");
        assert_eq!(answer.len(), ANSWER_BYTES);
        assert_eq!(server.next_close().await.reason, CloseReason::Finished);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_closes_is_left_after_the_linger() {
    let mut timeouts = Timeouts::default();
    timeouts.linger = Duration::from_millis(50);
    let mut server = Running::start(loopback().timeouts(timeouts), services::daytime());
    let client = server.connect().await;
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Finished);
    assert!(close.duration >= Duration::from_millis(50));
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_reset_by_the_client_is_the_reason_reset_and_no_error() {
    let mut server = Running::start(loopback(), services::echo());
    let mut client = server.connect().await;
    client.write_all(b"x").await.expect("sent");
    soon(client.read_u8()).await.expect("answered");
    reset(client);
    let close = server.next_close().await;
    assert_eq!((close.reason, close.error), (CloseReason::Reset, None));
    server.stop().await;
}

#[tokio::test]
async fn an_error_of_the_service_is_told_after_its_answer_is_delivered() {
    let service = service_fn(async |mut conn: Conn| {
        conn.write_all(b"500 no\r\n").await?;
        Err(std::io::Error::other("the database is away"))
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    client.write_all(b"a request").await.expect("sent");
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, "500 no\r\n");
    drop(client);
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Error);
    assert_eq!(close.error.as_deref(), Some("the database is away"));
    server.stop().await;
}

#[tokio::test]
async fn a_write_after_our_own_fin_is_the_services_mistake_and_no_reset() {
    let service = service_fn(async |mut conn: Conn| {
        conn.shutdown().await?;
        conn.write_all(b"too late").await
    });
    let mut server = Running::start(loopback(), service);
    let client = server.connect().await;
    drop(client);
    assert_eq!(server.next_close().await.reason, CloseReason::Error);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_handed_to_another_task_is_closed_when_that_drops_it() {
    let (give, taken) = oneshot::channel::<Conn>();
    let give = std::sync::Mutex::new(Some(give));
    let service = service_fn(move |conn| {
        let give = give.lock().expect("whole").take().expect("one client");
        async move { give.send(conn).map_err(|_| std::io::Error::other("gone")) }
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    let mut conn = soon(taken).await.expect("handed over");
    conn.write_all(b"from elsewhere").await.expect("sent");
    assert_eq!(server.handle.snapshot().open, 1);
    drop(conn);
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, "from elsewhere");
    drop(client);
    assert_eq!(server.next_close().await.reason, CloseReason::Finished);
    server.stop().await;
}

/// The service has ended well; that its client has not closed yet when the server's time is up makes it no cut.
#[tokio::test]
async fn a_connection_that_only_lingers_is_finished_when_the_server_is_aborted() {
    let mut timeouts = Timeouts::default();
    timeouts.linger = Duration::from_secs(3600);
    let mut server = Running::start(loopback().timeouts(timeouts), services::daytime());
    let mut client = server.connect().await;
    let mut line = String::new();
    soon(client.read_to_string(&mut line)).await.expect("FIN");
    server.handle.abort();
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::Finished);
    assert!(close.has_tcp_info);
    assert_eq!(server.ended().await.cut(), 0);
}

#[tokio::test]
async fn a_service_that_breaks_off_resets_its_connection() {
    let service = service_fn(async |mut conn: Conn| {
        conn.write_all(b"half an ans").await?;
        conn.abort();
        Ok(())
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    let error = soon(client.read_to_end(&mut Vec::new()))
        .await
        .expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.next_close().await.reason, CloseReason::ResetSent);
    server.stop().await;
}
