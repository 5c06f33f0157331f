use std::future::poll_fn;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sockeye::{CloseReason, Conn, Service, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Running, loopback, soon};

async fn everything_from(service: impl Service) -> Vec<u8> {
    let server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    let mut all = Vec::new();
    soon(client.read_to_end(&mut all)).await.expect("FIN");
    drop(client);
    server.stop().await;
    all
}

#[tokio::test]
async fn echo_returns_every_byte_in_order_whatever_the_cut() {
    let server = Running::start(loopback(), services::echo());
    let sent: Vec<u8> = (0..4 << 20_u32).map(|i: u32| (i % 251) as u8).collect();
    for cut in [1_000, 65_536, 100_000, 1 << 20] {
        let mut client = server.connect().await;
        let (mut reader, mut writer) = client.split();
        let mut back = Vec::new();
        let send = async {
            for piece in sent.chunks(cut) {
                writer.write_all(piece).await.expect("sent");
            }
            writer.shutdown().await.expect("FIN");
        };
        let (read, ()) = soon(async { tokio::join!(reader.read_to_end(&mut back), send) }).await;
        read.expect("read");
        assert!(back == sent, "cut every {cut} bytes");
    }
    server.stop().await;
}

/// What echo holds for a client that does not read is what the kernel's buffers and one of ours hold: the client's
/// own sending stalls, and nobody else's.
#[tokio::test]
async fn echo_does_not_read_from_a_client_that_does_not_read() {
    let mut server = Running::start(loopback(), services::echo());
    let mut greedy = server.connect().await;
    let chunk = vec![1; 1 << 20];
    let mut taken = 0_usize;
    // Stalled: nothing taken for a while, by every measure of loopback.
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(300), greedy.write(&chunk)).await
    {
        taken += written.expect("sent");
        assert!(taken < 100 << 20, "the server buffers without end");
    }
    let mut other = server.connect().await;
    other.write_all(b"x").await.expect("sent");
    assert_eq!(soon(other.read_u8()).await.expect("served"), b'x');
    drop(greedy);
    assert_eq!(server.next_close().await.reason, CloseReason::Reset);
    drop(other);
    server.stop().await;
}

#[tokio::test]
async fn discard_answers_nothing() {
    let mut server = Running::start(loopback(), services::discard());
    let mut client = server.connect().await;
    client.write_all(&vec![1; 1 << 20]).await.expect("sent");
    client.shutdown().await.expect("FIN");
    let mut all = Vec::new();
    soon(client.read_to_end(&mut all)).await.expect("FIN");
    assert!(all.is_empty());
    let close = server.next_close().await;
    assert_eq!((close.bytes_in, close.bytes_out), (1 << 20, 0));
    server.stop().await;
}

#[tokio::test]
async fn chargen_sends_lines_of_72_that_move_on_by_one_and_never_break() {
    let mut server = Running::start(loopback(), services::chargen());
    let mut client = server.connect().await;
    client.write_all(b"ignored").await.expect("sent");
    let mut all = vec![0; 1 << 20];
    soon(client.read_exact(&mut all)).await.expect("endless");
    for (number, line) in all.chunks_exact(74).enumerate() {
        assert_eq!(&line[72..], b"\r\n", "line {number}");
        for (column, byte) in line[..72].iter().enumerate() {
            assert_eq!(*byte, b' ' + ((number + column) % 95) as u8);
        }
    }
    client.shutdown().await.expect("FIN");
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.expect("FIN");
    assert_eq!(server.next_close().await.reason, CloseReason::PeerClosed);
    server.stop().await;
}

#[tokio::test]
async fn daytime_sends_one_line_with_the_date() {
    let line = String::from_utf8(everything_from(services::daytime()).await).expect("text");
    let date = line.strip_suffix("\r\n").expect("a line");
    let told = httpdate::parse_http_date(date).expect("a date");
    let now = SystemTime::now();
    let off = now.duration_since(told).expect("not in the future");
    assert!(off < Duration::from_secs(30), "{line}");
}

#[tokio::test]
async fn time_sends_the_seconds_since_1900_in_four_bytes() {
    let bytes = everything_from(services::time()).await;
    let seconds = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    // 70 years with 17 leap days lie between 1900 and 1970.
    let expected = (now.as_secs() + (70 * 365 + 17) * 86_400) as u32;
    assert!(expected.wrapping_sub(seconds) < 30);
}

#[tokio::test]
async fn a_file_is_sent_by_the_kernel_from_anywhere_to_its_end_and_counted() {
    const BYTES: usize = 5_000_000;
    let bytes: Vec<u8> = (0..BYTES).map(|place| (place % 251) as u8).collect();
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, &bytes).expect("written");
    let file = Arc::new(file);
    let service = service_fn(move |mut conn: Conn| {
        let file = Arc::clone(&file);
        async move {
            let mut offset = 10;
            loop {
                let sent =
                    poll_fn(|cx| conn.poll_send_file(cx, file.as_fd(), &mut offset, 1 << 20));
                if sent.await? == 0 {
                    assert_eq!(offset, BYTES as u64);
                    return Ok(());
                }
            }
        }
    });
    let mut server = Running::start(loopback(), service);
    let mut client = server.connect().await;
    let mut came = Vec::new();
    soon(client.read_to_end(&mut came)).await.expect("read");
    assert!(came == bytes[10..]);
    drop(client);
    assert_eq!(server.next_close().await.bytes_out, (BYTES - 10) as u64);
    server.stop().await;
}
