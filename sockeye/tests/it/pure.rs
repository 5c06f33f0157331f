//! The parts that are functions of their arguments: admission and the kernel's tcp_info.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sockeye::admission::{
    Admission, DEFAULT_MAX_CONNECTIONS, PerSource, RefuseReason, default_max_connections,
};
use sockeye::tcp_info::{TcpInfo, TcpState};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_descriptor_limit_leaves_a_reserve_and_never_nothing() {
    assert_eq!(default_max_connections(None, 1), DEFAULT_MAX_CONNECTIONS);
    assert_eq!(default_max_connections(Some(20_000), 2), 20_000 - 48);
    assert_eq!(default_max_connections(Some(30), 2), 15);
    assert_eq!(default_max_connections(Some(u64::MAX), 1), 1_000_000);
}

#[test]
fn deferring_is_counted_and_timed_by_the_clock_that_is_passed_in() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut admission = Admission::new(1, PerSource::Unlimited);
    assert!(admission.reserve(start));
    assert!(!admission.reserve(after(1)));
    assert!(!admission.reserve(after(2)));
    assert_eq!(admission.deferrals(after(3)), (1, Duration::from_secs(2)));
    admission.release(None);
    assert!(admission.reserve(after(5)));
    assert_eq!(admission.deferrals(after(9)), (1, Duration::from_secs(4)));
}

#[test]
fn an_ipv6_source_is_its_64_bit_network_and_a_mapped_ipv4_address_is_ipv4() {
    let mut admission = Admission::new(100, PerSource::AtMost(1));
    let mut decide = |text| admission.decide(Some(ip(text))).map(drop);
    assert_eq!(decide("2001:db8::1"), Ok(()));
    assert_eq!(decide("2001:db8::2"), Err(RefuseReason::PerSource));
    assert_eq!(decide("2001:db8:0:1::1"), Ok(()));
    assert_eq!(decide("192.0.2.1"), Ok(()));
    assert_eq!(decide("::ffff:192.0.2.1"), Err(RefuseReason::PerSource));
    assert_eq!(decide("192.0.2.2"), Ok(()));
}

#[test]
fn the_default_limit_spares_loopback() {
    let mut admission = Admission::new(100, PerSource::RemoteAtMost(1));
    for source in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        for _ in 0..3 {
            assert_eq!(admission.decide(Some(ip(source))), Ok(None));
        }
    }
    assert!(admission.decide(Some(ip("192.0.2.1"))).is_ok());
    assert!(admission.decide(Some(ip("192.0.2.1"))).is_err());
    assert_eq!(
        admission.decide(None),
        Ok(None),
        "a Unix socket has no source"
    );
}

proptest! {
    /// Whatever comes and goes: no limit is passed, nobody is refused below it, and at the end nothing is left.
    #[test]
    fn admission_keeps_both_limits_and_forgets_what_is_released(
        max in 1_usize..8,
        per_source in 1_usize..4,
        steps in prop::collection::vec((0_u8..4, any::<bool>()), 0..200),
    ) {
        let now = Instant::now();
        let mut admission = Admission::new(max, PerSource::AtMost(per_source));
        let mut open: Vec<(u8, _)> = Vec::new();
        for (host, arrives) in steps {
            if !arrives {
                if !open.is_empty() {
                    let (_, source) = open.remove(usize::from(host) % open.len());
                    admission.release(source);
                }
                continue;
            }
            let reserved = admission.reserve(now);
            prop_assert_eq!(reserved, open.len() < max);
            if !reserved {
                continue;
            }
            let same = open.iter().filter(|(other, _)| *other == host).count();
            match admission.decide(Some(ip(&format!("192.0.2.{host}")))) {
                Ok(source) => {
                    prop_assert!(same < per_source);
                    open.push((host, source));
                }
                Err(RefuseReason::PerSource) => {
                    prop_assert_eq!(same, per_source);
                    admission.release(None);
                }
                Err(_) => prop_assert!(false, "no other reason"),
            }
            prop_assert!(admission.sources() <= open.len());
        }
        for (_, source) in open {
            admission.release(source);
        }
        prop_assert_eq!(admission.sources(), 0);
        prop_assert!(admission.has_room());
    }

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
