//! What the kernel says of a connection, from bytes.

use proptest::prelude::*;
use sockeye::tcp_info::{TcpInfo, TcpState};

proptest! {
    #[test]
    fn tcp_info_of_any_bytes_is_parsed_and_a_shorter_struct_only_knows_less(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = TcpInfo::parse(&bytes);
        let short = TcpInfo::parse(&bytes[..cut.index(bytes.len() + 1)]);
        prop_assert!(short.state.is_none() || short.state == whole.state);
        prop_assert!(short.rtt_us.is_none() || short.rtt_us == whole.rtt_us);
        prop_assert!(short.bytes_acked.is_none() || short.bytes_acked == whole.bytes_acked);
        prop_assert!(short.snd_wnd_bytes.is_none() || short.snd_wnd_bytes == whole.snd_wnd_bytes);
    }
}

#[test]
fn an_empty_tcp_info_knows_nothing() {
    assert_eq!(TcpInfo::parse(&[]), TcpInfo::default());
}

/// The kernel fills the structure; what we know from elsewhere must be what the parser finds in it.
#[tokio::test]
async fn tcp_info_agrees_with_what_happened_on_a_real_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("binds");
    let address = listener.local_addr().expect("bound");
    let mut client = tokio::net::TcpStream::connect(address)
        .await
        .expect("connects");
    let (accepted, _) = listener.accept().await.expect("accepts");
    client.write_all(&[1; 1_000]).await.expect("sent");
    let mut accepted = sockeye::Stream::from(accepted);
    accepted.read_exact(&mut [0; 1_000]).await.expect("read");

    let info = accepted.tcp_info().expect("TCP");
    assert_eq!(info.state, Some(TcpState::Established));
    assert_eq!(info.bytes_received, Some(1_000));
    assert_eq!(info.data_segs_in, Some(1));
    assert_eq!(info.bytes_sent, Some(0));
    assert_eq!(info.total_retrans, Some(0));
    assert!(info.rtt_us.is_some_and(|rtt| rtt < 60_000_000));
    assert!(
        info.snd_mss_bytes
            .is_some_and(|mss| (500..=65_536).contains(&mss))
    );
    assert!(
        info.pmtu_bytes
            .is_some_and(|mtu| (1_280..=65_536).contains(&mtu))
    );
    assert!(
        info.snd_cwnd
            .is_some_and(|segments| (1..=1_000).contains(&segments))
    );
    let client = sockeye::Stream::from(client);
    let sent = client.tcp_info().expect("TCP");
    assert_eq!(sent.bytes_sent, Some(1_000));
    assert_eq!(sent.data_segs_out, Some(1));
}
