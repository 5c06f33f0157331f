//! How TLS ends, and that all bytes arrive before it does.

use std::time::Duration;

use socket2::SockRef;
use sockeye::tls::Trust;
use sockeye::{CloseReason, Conn, Service, Stream, Timeouts, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::authority::{
    Authority, TLS12, TLS13, acceptor, connect, connector, raw_client, raw_connect,
};
use crate::support::{Running, echoes, loopback, soon};

const SHORT: Duration = Duration::from_millis(60);

/// A server with TLS, and clients of both versions that are not ours: they say whether the end was clean.
async fn for_both_versions<S: Service, F: Future<Output = ()>>(
    timeouts: Timeouts,
    service: impl Fn() -> S,
    test: impl Fn(TlsStream<TcpStream>, Running) -> F,
) {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    for version in [TLS12, TLS13] {
        let server = loopback().timeouts(timeouts).tls(&acceptor);
        let server = Running::start(server, service());
        let client = raw_connect(&server, raw_client(&root, &[version]), "a.example")
            .await
            .expect("agreed");
        test(client, server).await;
    }
}

/// Reads all, which is an error if the stream ends without close_notify.
async fn all(client: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon(client.read_to_end(&mut all)).await.map(|_| all)
}

#[tokio::test]
async fn close_notify_is_a_clean_end_and_the_answer_after_it_arrives() {
    const ANSWER_BYTES: usize = 3_000_000;
    let service = || {
        service_fn(async |mut conn: Conn| {
            let mut all = Vec::new();
            // An end without close_notify would be an error here.
            conn.read_to_end(&mut all).await?;
            conn.write_all(&vec![all.len() as u8; ANSWER_BYTES]).await
        })
    };
    for_both_versions(
        Timeouts::default(),
        service,
        async |mut client, mut server| {
            client.write_all(b"12345").await.expect("sent");
            client.shutdown().await.expect("close_notify and FIN");
            let answer = all(&mut client).await.expect("ends with close_notify");
            assert_eq!(answer.len(), ANSWER_BYTES);
            assert!(answer.iter().all(|byte| *byte == 5));
            let close = server.next_close().await;
            assert_eq!(close.reason, CloseReason::PeerClosed);
            assert_eq!((close.bytes_in, close.bytes_out), (5, ANSWER_BYTES as u64));
            server.stop().await;
        },
    )
    .await;
}

#[tokio::test]
async fn our_client_hears_the_rest_after_its_own_end() {
    let service = service_fn(async |mut conn: Conn| {
        let mut all = Vec::new();
        conn.read_to_end(&mut all).await?;
        conn.write_all(format!("{} bytes", all.len()).as_bytes())
            .await
    });
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let mut server = Running::start(loopback().tls(&acceptor), service);
    let mut client = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    client.write_all(b"12345").await.expect("sent");
    client.shutdown().await.expect("close_notify and FIN");
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("a clean end");
    assert_eq!(answer, "5 bytes");
    assert_eq!(server.next_close().await.reason, CloseReason::PeerClosed);
    server.stop().await;
}

#[tokio::test]
async fn an_end_without_close_notify_is_truncated() {
    for_both_versions(
        Timeouts::default(),
        services::echo,
        async |mut client, mut server| {
            echoes(&mut client, b"hello").await;
            let (mut socket, _) = client.into_inner();
            socket.shutdown().await.expect("FIN, and nothing before it");
            let close = server.next_close().await;
            assert_eq!((close.reason, close.error), (CloseReason::Truncated, None));
            assert_eq!((close.bytes_in, close.bytes_out), (5, 5));
            server.stop().await;
        },
    )
    .await;
}

/// It is an error to whoever reads: what came may not be all.
#[tokio::test]
async fn a_service_is_told_of_an_end_without_close_notify() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let service = service_fn(move |mut conn: Conn| {
        let sender = sender.clone();
        async move {
            let read = conn.read_to_end(&mut Vec::new()).await;
            let _ = sender.send(read.map_err(|error| error.kind()));
            Ok(())
        }
    });
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let mut server = Running::start(loopback().tls(&acceptor), service);
    let client = raw_connect(&server, raw_client(&root, &[TLS13]), "a.example")
        .await
        .expect("agreed");
    client.into_inner().0.shutdown().await.expect("FIN");
    let read = soon(errors.recv()).await.expect("served");
    assert_eq!(read, Err(std::io::ErrorKind::UnexpectedEof));
    assert_eq!(server.next_close().await.reason, CloseReason::Truncated);
    server.stop().await;
}

#[tokio::test]
async fn a_reset_is_a_reset_under_tls_too() {
    for_both_versions(
        Timeouts::default(),
        services::echo,
        async |mut client, mut server| {
            echoes(&mut client, b"hello").await;
            SockRef::from(client.get_ref().0)
                .set_linger(Some(Duration::ZERO))
                .expect("set");
            drop(client);
            let close = server.next_close().await;
            assert_eq!((close.reason, close.error), (CloseReason::Reset, None));
            server.stop().await;
        },
    )
    .await;
}

/// The kernel tells of a reset once: a read after the write that was told finds an end, as after a FIN.
#[tokio::test]
async fn a_reset_that_a_write_has_met_is_no_end_for_the_read_after_it() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let mut server = Running::start(loopback().tls(&acceptor), services::echo());
    let mut client = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    server.handle.abort();
    assert_eq!(server.next_close().await.reason, CloseReason::Aborted);
    let mut written = Ok(());
    while written.is_ok() {
        written = soon(client.write_all(b"into the void")).await;
    }
    let read = soon(client.read_u8()).await.expect_err("it was cut");
    assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
    server.ended().await;
}

#[tokio::test]
async fn the_server_says_close_notify_when_the_service_ends() {
    for_both_versions(
        Timeouts::default(),
        services::daytime,
        async |mut client, mut server| {
            let line = all(&mut client).await.expect("a clean end");
            assert!(line.ends_with(b" GMT\r\n"));
            drop(client);
            assert_eq!(server.next_close().await.reason, CloseReason::Finished);
            server.stop().await;
        },
    )
    .await;
}

#[tokio::test]
async fn the_server_says_close_notify_after_an_error_of_the_service() {
    let service = || {
        service_fn(async |mut conn: Conn| {
            conn.write_all(b"500 no\r\n").await?;
            Err(std::io::Error::other("the database is away"))
        })
    };
    for_both_versions(
        Timeouts::default(),
        service,
        async |mut client, mut server| {
            client.write_all(b"a request").await.expect("sent");
            client.flush().await.expect("sent");
            let answer = all(&mut client).await.expect("a clean end");
            assert_eq!(answer, b"500 no\r\n");
            drop(client);
            assert_eq!(server.next_close().await.reason, CloseReason::Error);
            server.stop().await;
        },
    )
    .await;
}

#[tokio::test]
async fn the_server_says_close_notify_at_a_deadline() {
    let mut idle = Timeouts::default();
    idle.idle = Some(SHORT);
    let mut first_byte = Timeouts::default();
    first_byte.first_byte = Some(SHORT);
    let mut lifetime = Timeouts::default();
    // It holds in the handshake, too, which must have time on a slow machine.
    lifetime.lifetime = Some(SHORT * 5);
    for (timeouts, reason) in [
        (idle, CloseReason::Idle),
        (first_byte, CloseReason::FirstByteTimeout),
        (lifetime, CloseReason::Lifetime),
    ] {
        for_both_versions(timeouts, services::echo, async |mut client, mut server| {
            assert!(all(&mut client).await.expect("a clean end").is_empty());
            drop(client);
            assert_eq!(server.next_close().await.reason, reason);
            server.stop().await;
        })
        .await;
    }
}

#[tokio::test]
async fn the_server_answers_close_notify_with_its_own() {
    for_both_versions(
        Timeouts::default(),
        services::echo,
        async |mut client, mut server| {
            echoes(&mut client, b"hello").await;
            client.shutdown().await.expect("close_notify and FIN");
            assert!(all(&mut client).await.expect("a clean end").is_empty());
            assert_eq!(server.next_close().await.reason, CloseReason::PeerClosed);
            server.stop().await;
        },
    )
    .await;
}

/// A cut is to be seen as one: close_notify would tell the client that it has all there is.
#[tokio::test]
async fn an_abort_and_a_panic_say_no_close_notify() {
    let service = || {
        service_fn(async |mut conn: Conn| {
            let byte = conn.read_u8().await?;
            assert!(byte != b'!', "as the test asked for");
            conn.write_u8(byte).await?;
            std::future::pending().await
        })
    };
    for_both_versions(
        Timeouts::default(),
        service,
        async |mut client, mut server| {
            client.write_all(b"!").await.expect("sent");
            client.flush().await.expect("sent");
            all(&mut client).await.expect_err("cut");
            assert_eq!(server.next_close().await.reason, CloseReason::Panic);
            server.stop().await;
        },
    )
    .await;
    for_both_versions(
        Timeouts::default(),
        service,
        async |mut client, mut server| {
            echoes(&mut client, b"x").await;
            server.handle.abort();
            all(&mut client).await.expect_err("cut");
            assert_eq!(server.next_close().await.reason, CloseReason::Aborted);
            server.ended().await;
        },
    )
    .await;
}

/// The end is to be said, and there is no room to say it in: no longer than the linger.
#[tokio::test]
async fn a_peer_that_never_reads_is_given_up_under_tls_too() {
    let mut timeouts = Timeouts::default();
    timeouts.idle = Some(SHORT);
    timeouts.linger = SHORT;
    for_both_versions(timeouts, services::chargen, async |client, mut server| {
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::Idle);
        assert!(close.bytes_out > 0 && close.has_tcp_info);
        drop(client);
        server.stop().await;
    })
    .await;
    // And where it has closed its own side.
    let service = || {
        service_fn(async |mut conn: Conn| {
            conn.read_to_end(&mut Vec::new()).await?;
            conn.write_all(&vec![7; 20_000_000]).await
        })
    };
    for_both_versions(timeouts, service, async |mut client, mut server| {
        client.shutdown().await.expect("close_notify");
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::Idle);
        drop(client);
        server.stop().await;
    })
    .await;
}

/// What is not read is not taken in without end: neither by the service nor by rustls.
#[tokio::test]
async fn echo_under_tls_does_not_read_from_a_client_that_does_not_read() {
    for_both_versions(
        Timeouts::default(),
        services::echo,
        async |client, server| {
            let (mut reader, mut writer) = tokio::io::split(client);
            let block = [7; 10_000];
            let mut sent = 0;
            // No write for so long is the sign that everything on the way is full.
            let patience = Duration::from_millis(100);
            let pushing = tokio::time::timeout(patience, writer.write(&block));
            let mut pushed = pushing.await;
            while let Ok(written) = pushed {
                sent += written.expect("sent");
                assert!(sent < 50_000_000, "it is held somewhere");
                pushed = tokio::time::timeout(patience, writer.write(&block)).await;
            }
            let finishing = tokio::spawn(async move { writer.shutdown().await });
            let mut back = Vec::new();
            soon(reader.read_to_end(&mut back))
                .await
                .expect("a clean end");
            assert_eq!(back.len(), sent, "every byte, all the same");
            soon(finishing).await.expect("no panic").expect("said");
            server.stop().await;
        },
    )
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_record_end_the_connection_with_an_error_and_no_panic() {
    for_both_versions(
        Timeouts::default(),
        services::echo,
        async |mut client, mut server| {
            echoes(&mut client, b"hello").await;
            let (mut socket, _) = client.into_inner();
            socket.write_all(&[0xff; 100]).await.expect("sent");
            soon(socket.read_to_end(&mut Vec::new()))
                .await
                .expect("an alert, then FIN");
            drop(socket);
            let close = server.next_close().await;
            assert_eq!(close.reason, CloseReason::Error);
            assert!(close.error.is_some());
            server.stop().await;
        },
    )
    .await;
}

/// Has the socket take little at a time, so that rustls has something left after almost every write.
fn narrow(stream: &Stream) {
    SockRef::from(stream)
        .set_send_buffer_size(8192)
        .expect("set");
}

const QUESTION_BYTES: usize = 200_000;
const ANSWER_BYTES: usize = 400_000;

/// rustls keeps up to 64 KiB that the socket did not take. Were that sent only with the next write, both would wait: the
/// client for the end of the answer, the service for the next question.
#[tokio::test]
async fn an_answer_that_is_never_flushed_arrives_to_the_last_byte() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let service = service_fn(async |mut conn: Conn| {
        narrow(conn.stream());
        let mut question = vec![0; QUESTION_BYTES];
        for round in 0..ROUNDS {
            conn.read_exact(&mut question).await?;
            // Lengths that do not fall together with records.
            conn.write_all(&vec![round; ANSWER_BYTES + usize::from(round) * 7_777])
                .await?;
        }
        conn.read_u8().await.map(drop)
    });
    const ROUNDS: u8 = 3;
    let server = Running::start(loopback().tls(&acceptor), service);
    for version in [TLS12, TLS13] {
        let mut client = raw_connect(&server, raw_client(&root, &[version]), "a.example")
            .await
            .expect("agreed");
        for round in 0..ROUNDS {
            // All of the question first; nothing is read until it is sent.
            client
                .write_all(&vec![1; QUESTION_BYTES])
                .await
                .expect("sent");
            client.flush().await.expect("sent");
            let mut answer = vec![0; ANSWER_BYTES + usize::from(round) * 7_777];
            soon(client.read_exact(&mut answer))
                .await
                .expect("every byte");
            assert!(answer.iter().all(|byte| *byte == round));
        }
    }
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn our_client_need_not_flush_either() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let service = service_fn(async |mut conn: Conn| {
        let mut question = vec![0; ANSWER_BYTES];
        conn.read_exact(&mut question).await?;
        conn.write_all(b"all there").await
    });
    let server = Running::start(loopback().tls(&acceptor), service);
    let mut client = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    narrow(&client);
    client
        .write_all(&vec![1; ANSWER_BYTES])
        .await
        .expect("sent");
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, "all there");
    server.handle.abort();
    server.ended().await;
}

/// The same in one task: what has been written is still there when only the read is left to wait for.
#[tokio::test]
async fn reading_and_writing_can_be_joined_without_a_flush() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let service = service_fn(async |conn: Conn| {
        narrow(conn.stream());
        let (mut reader, mut writer) = tokio::io::split(conn);
        let answer = vec![7; QUESTION_BYTES];
        let (read, written) = tokio::join!(reader.read_u8(), writer.write_all(&answer));
        written.and(read).map(drop)
    });
    let mut server = Running::start(loopback().tls(&acceptor), service);
    let mut client = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    let mut answer = vec![0; QUESTION_BYTES];
    soon(client.read_exact(&mut answer))
        .await
        .expect("every byte");
    client.write_u8(b'x').await.expect("sent");
    client.flush().await.expect("sent");
    drop(client);
    assert!(server.next_close().await.error.is_none());
    server.stop().await;
}

/// Two tasks on one stream: one reads all the time, one writes all the time, and neither may take the other's wake-up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tasks_read_and_write_one_stream_at_once() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let service = service_fn(async |conn: Conn| {
        narrow(conn.stream());
        let (mut reader, mut writer) = tokio::io::split(conn);
        let writing = tokio::spawn(async move {
            for number in 0..ANSWER_BYTES / 1000 {
                writer.write_all(&[number as u8; 1000]).await?;
            }
            // Not flushed; it is the reader who waits from now on.
            std::io::Result::Ok(writer)
        });
        let mut sum = 0;
        let mut buffer = vec![0; 5000];
        while sum < QUESTION_BYTES {
            sum += reader.read(&mut buffer).await?;
        }
        let end = reader.read(&mut buffer).await?;
        let mut writer = writing.await.map_err(std::io::Error::other)??;
        writer.write_all(format!("{sum} {end}").as_bytes()).await
    });
    let server = Running::start(loopback().tls(&acceptor), service);
    for version in [TLS12, TLS13] {
        let client = raw_connect(&server, raw_client(&root, &[version]), "a.example")
            .await
            .expect("agreed");
        let (mut reader, mut writer) = tokio::io::split(client);
        let writing = tokio::spawn(async move {
            for _ in 0..QUESTION_BYTES / 1000 {
                writer.write_all(&[1; 1000]).await?;
                writer.flush().await?;
            }
            std::io::Result::Ok(writer)
        });
        let mut answer = vec![0; ANSWER_BYTES / 1000 * 1000];
        soon(reader.read_exact(&mut answer))
            .await
            .expect("every byte");
        for (number, chunk) in answer.chunks(1000).enumerate() {
            assert!(chunk.iter().all(|byte| *byte == number as u8));
        }
        let mut writer = soon(writing).await.expect("no panic").expect("sent");
        writer.shutdown().await.expect("close_notify");
        let mut rest = String::new();
        soon(reader.read_to_string(&mut rest))
            .await
            .expect("a clean end");
        assert_eq!(rest, format!("{QUESTION_BYTES} 0"));
    }
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn a_read_that_is_cancelled_loses_nothing() {
    const PIECES: u32 = 2_000;
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let service = service_fn(async |mut conn: Conn| {
        let mut all = Vec::new();
        let mut buffer = [0; 64];
        loop {
            let read = tokio::select! {
                biased;
                read = conn.read(&mut buffer) => read?,
                () = tokio::task::yield_now() => continue,
            };
            if read == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..read]);
        }
        let numbers = all.chunks(4).map(|chunk| {
            let bytes = chunk.try_into().unwrap_or_default();
            u32::from_be_bytes(bytes)
        });
        let in_order = numbers.eq(0..PIECES);
        conn.write_all(if in_order { b"all" } else { b"not" }).await
    });
    let server = Running::start(loopback().tls(&acceptor), service);
    let mut client = connect(&server, &connector(Trust::Anyone), "a.example")
        .await
        .expect("agreed");
    for number in 0..PIECES {
        client.write_all(&number.to_be_bytes()).await.expect("sent");
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    client.shutdown().await.expect("close_notify");
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer))
        .await
        .expect("answered");
    assert_eq!(answer, "all");
    server.handle.abort();
    server.ended().await;
}

/// Writes until the socket takes no more, and ends: then up to 64 KiB are still with TLS. A socket whose buffer the kernel
/// tunes takes more later, when a probe of the window is answered, at times all of what is left.
fn overflows() -> impl Service {
    service_fn(async |mut conn: Conn| {
        narrow(conn.stream());
        let block = [7; 16 * 1024];
        while let Ok(written) = tokio::time::timeout(SHORT, conn.write(&block)).await {
            written?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn what_tls_still_holds_is_delivered_though_the_client_takes_longer_than_the_linger() {
    let mut timeouts = Timeouts::default();
    timeouts.linger = Duration::from_millis(1);
    for_both_versions(timeouts, overflows, async |mut client, mut server| {
        let early = tokio::time::timeout(5 * SHORT, server.next_close()).await;
        assert!(early.is_err(), "closed before anything was read: {early:?}");
        let received = all(&mut client).await.expect("ends with close_notify");
        drop(client);
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::Finished);
        assert_eq!(received.len() as u64, close.bytes_out);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_more_is_left_after_the_delivery_time() {
    let mut timeouts = Timeouts::default();
    timeouts.delivery = SHORT;
    for_both_versions(timeouts, overflows, async |client, mut server| {
        assert_eq!(server.next_close().await.reason, CloseReason::Unread);
        drop(client);
        server.stop().await;
    })
    .await;
}
