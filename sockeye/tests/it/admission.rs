//! Who comes in, by number and by rate; pure.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sockeye::Limits;
use sockeye::admission::{
    Admission, DEFAULT_MAX_CONNECTIONS, Handshakes, PerSource, RATE_MAX_SOURCES, Rate,
    RefuseReason, default_max_connections,
};
use sockeye::rules::Rules;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn admission(max_connections: usize, per_source: PerSource) -> Admission {
    let limits = Limits {
        per_source,
        ..Limits::default()
    };
    Admission::new(max_connections, &limits)
}

/// So many in a second, so many at once.
fn rated(accepts: u32, burst: u32) -> Admission {
    let limits = Limits {
        per_source: PerSource::Unlimited,
        rate: Some(Rate {
            accepts,
            per: Duration::from_secs(1),
            burst,
        }),
        ..Limits::default()
    };
    Admission::new(100, &limits)
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
    let mut admission = admission(1, PerSource::Unlimited);
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
    let mut admission = admission(100, PerSource::AtMost(1));
    let (open_house, now) = (Rules::default(), Instant::now());
    let mut decide = |text| admission.decide(&open_house, Some(ip(text)), now).map(drop);
    assert_eq!(decide("2001:db8::1"), Ok(()));
    assert_eq!(decide("2001:db8::2"), Err(RefuseReason::PerSource));
    assert_eq!(decide("2001:db8:0:1::1"), Ok(()));
    assert_eq!(decide("192.0.2.1"), Ok(()));
    assert_eq!(decide("::ffff:192.0.2.1"), Err(RefuseReason::PerSource));
    assert_eq!(decide("192.0.2.2"), Ok(()));
}

#[test]
fn the_default_limit_spares_loopback() {
    let mut admission = admission(100, PerSource::RemoteAtMost(1));
    let (open_house, now) = (Rules::default(), Instant::now());
    let mut decide = |ip| admission.decide(&open_house, ip, now);
    for source in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        for _ in 0..3 {
            assert_eq!(decide(Some(ip(source))), Ok(None));
        }
    }
    assert!(decide(Some(ip("192.0.2.1"))).is_ok());
    assert!(decide(Some(ip("192.0.2.1"))).is_err());
    assert_eq!(decide(None), Ok(None), "a Unix socket has no source");
}

#[test]
fn a_rule_comes_before_every_limit() {
    let mut admission = rated(1, 1);
    let mut rules = Rules::default();
    rules.deny("192.0.2.0/24".parse().expect("a network"));
    let now = Instant::now();
    for _ in 0..3 {
        let decision = admission.decide(&rules, Some(ip("::ffff:192.0.2.1")), now);
        assert_eq!(decision, Err(RefuseReason::Denied));
    }
    assert_eq!(admission.rated_sources(), 0, "nothing is kept of them");
    assert!(admission.decide(&rules, Some(ip("192.0.3.1")), now).is_ok());
    assert!(admission.decide(&rules, None, now).is_ok(), "a Unix socket");
}

#[test]
fn a_burst_passes_then_the_rate_holds_and_a_pause_brings_it_back() {
    let mut admission = rated(10, 3);
    let start = Instant::now();
    let mut let_in = |ms, host| {
        let now = start + Duration::from_millis(ms);
        let decision = admission.decide(&Rules::default(), Some(ip(host)), now);
        match decision {
            Ok(_) => true,
            Err(reason) => {
                assert_eq!(reason, RefuseReason::Rate);
                false
            }
        }
    };
    let burst: Vec<bool> = (0..5).map(|_| let_in(0, "192.0.2.1")).collect();
    assert_eq!(burst, [true, true, true, false, false]);
    assert!(
        let_in(0, "192.0.2.2"),
        "another source has a rate of its own"
    );
    assert!(!let_in(99, "192.0.2.1"));
    assert!(let_in(100, "192.0.2.1"));
    assert!(!let_in(100, "192.0.2.1"));
    let later: Vec<bool> = (0..4).map(|_| let_in(10_000, "192.0.2.1")).collect();
    assert_eq!(
        later,
        [true, true, true, false],
        "never more than the burst"
    );
}

#[test]
fn an_ipv6_network_shares_one_rate() {
    let mut admission = rated(1, 1);
    let now = Instant::now();
    let mut decide = |host| admission.decide(&Rules::default(), Some(ip(host)), now);
    assert!(decide("2001:db8::1").is_ok());
    assert_eq!(decide("2001:db8::2"), Err(RefuseReason::Rate));
    assert!(decide("2001:db8:0:1::1").is_ok());
}

#[test]
fn the_table_of_rates_is_bounded_and_forgets_who_has_recovered() {
    let mut admission = rated(1, 1);
    let start = Instant::now();
    let mut come = |number: u32, seconds| {
        let host = IpAddr::from(number.to_be_bytes());
        let now = start + Duration::from_secs(seconds);
        // The first from each source, and so within its rate.
        admission
            .decide(&Rules::default(), Some(host), now)
            .expect("let in");
        admission.rated_sources()
    };
    let most = u32::try_from(RATE_MAX_SOURCES).expect("fits");
    let known = (0..most + 1000).map(|number| come(number, 0)).max();
    assert_eq!(known, Some(RATE_MAX_SOURCES));
    assert_eq!(come(u32::MAX, 3600), 1);
}

#[test]
fn beyond_the_start_handshakes_are_refused_by_a_chance_that_grows_to_certainty() {
    let limits = Limits {
        handshakes: Some(Handshakes {
            start: 10,
            percent: 30,
            full: 20,
        }),
        ..Limits::default()
    };
    let mut admission = Admission::new(100, &limits);
    for _ in 0..10 {
        // Below the start chance is not asked.
        admission
            .begin_handshake(|| unreachable!())
            .expect("let in");
    }
    let refused = Err(RefuseReason::Handshakes);
    assert_eq!(admission.begin_handshake(|| 0.29), refused);
    assert_eq!(admission.begin_handshake(|| 0.31), Ok(()));
    // Half way: 65 percent.
    for _ in 11..15 {
        admission.begin_handshake(|| 0.99).expect("by chance");
    }
    assert_eq!(admission.begin_handshake(|| 0.64), refused);
    assert_eq!(admission.begin_handshake(|| 0.66), Ok(()));
    for _ in 16..20 {
        admission.begin_handshake(|| 0.999).expect("by chance");
    }
    assert_eq!(admission.handshakes(), 20);
    assert_eq!(admission.begin_handshake(|| 0.999), refused);
    for _ in 0..20 {
        admission.end_handshake();
    }
    assert_eq!(admission.begin_handshake(|| 0.0), Ok(()));
}

#[test]
fn the_default_refuses_nobody_early_where_a_small_burst_could_be_all_there_is() {
    let default = Handshakes::for_limit;
    assert_eq!(default(100), Handshakes::at_most(100));
    assert_eq!((default(1000).start, default(1000).full), (500, 1000));
    assert_eq!(
        (default(1_000_000).start, default(1_000_000).full),
        (2048, 4096)
    );
    let limits = Limits {
        handshakes: Some(Handshakes::at_most(2)),
        ..Limits::default()
    };
    let mut admission = Admission::new(100, &limits);
    let begun: Vec<bool> = (0..3)
        .map(|_| admission.begin_handshake(|| 0.0).is_ok())
        .collect();
    assert_eq!(begun, [true, true, false]);
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
        let mut admission = admission(max, PerSource::AtMost(per_source));
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
            match admission.decide(&Rules::default(), Some(ip(&format!("192.0.2.{host}"))), now) {
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

    /// At any time, whoever comes however often: no more are let in than the burst and what the rate has brought since.
    #[test]
    fn no_pattern_of_attempts_beats_the_rate(
        accepts in 1_u32..20,
        burst in 1_u32..20,
        pauses in prop::collection::vec(0_u64..500, 1..200),
    ) {
        let mut admission = rated(accepts, burst);
        let start = Instant::now();
        let mut elapsed = 0;
        let mut let_in = 0_u64;
        for pause in pauses {
            elapsed += pause;
            let now = start + Duration::from_millis(elapsed);
            let decision = admission.decide(&Rules::default(), Some(ip("192.0.2.1")), now);
            let_in += u64::from(decision.is_ok());
            let most = u64::from(burst) + elapsed * u64::from(accepts) / 1000;
            prop_assert!(let_in <= most, "{let_in} of {most} after {elapsed} ms");
        }
    }
}
