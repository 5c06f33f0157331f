//! Who comes in by address; pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use sockeye::rules::{ListError, Network, NetworkError, Rules, parse_list};

fn network(text: &str) -> Network {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn rules(allowed: &[&str], denied: &[&str]) -> Rules {
    let mut rules = Rules::default();
    for text in allowed {
        rules.allow(network(text));
    }
    for text in denied {
        rules.deny(network(text));
    }
    rules
}

fn let_in<'a>(rules: &Rules, clients: &[&'a str]) -> Vec<&'a str> {
    let lets_in = |client: &&&str| rules.lets_in(client.parse().expect("an address"));
    clients.iter().filter(lets_in).copied().collect()
}

#[test]
fn without_rules_everybody_comes_in() {
    let rules = Rules::default();
    assert!(rules.is_empty());
    assert_eq!(let_in(&rules, &["192.0.2.1", "::1"]), ["192.0.2.1", "::1"]);
}

#[test]
fn to_allow_some_is_to_deny_the_others_and_to_deny_some_is_not_to() {
    let some = rules(&["192.0.2.0/24"], &[]);
    assert_eq!(
        let_in(&some, &["192.0.2.1", "192.0.3.1", "::1"]),
        ["192.0.2.1"]
    );
    let others = rules(&[], &["192.0.2.0/24"]);
    assert_eq!(
        let_in(&others, &["192.0.2.1", "192.0.3.1", "::1"]),
        ["192.0.3.1", "::1"]
    );
}

#[test]
fn a_list_of_friends_that_is_empty_lets_nobody_in() {
    let mut nobody = Rules::default();
    nobody.allow_listed_only();
    assert_eq!(let_in(&nobody, &["192.0.2.1", "::1"]), [""; 0]);
}

#[test]
fn the_most_specific_rule_decides_and_a_tie_denies_in_whatever_order_they_were_given() {
    let nested = rules(
        &["0.0.0.0/0", "10.1.0.0/16", "10.1.2.3"],
        &["10.0.0.0/8", "10.1.2.0/24"],
    );
    let clients = ["9.9.9.9", "10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3"];
    assert_eq!(
        let_in(&nested, &clients),
        ["9.9.9.9", "10.1.9.9", "10.1.2.3"]
    );
    let mut tie = rules(&["192.0.2.0/24"], &["192.0.2.0/24"]);
    assert_eq!(let_in(&tie, &["192.0.2.1"]), [""; 0]);
    tie.allow(network("192.0.2.0/24"));
    assert_eq!(let_in(&tie, &["192.0.2.1"]), [""; 0]);
    assert_eq!(tie.len(), 1);
}

#[test]
fn a_mapped_ipv4_address_is_ipv4_in_rules_and_in_clients() {
    let mapped = rules(&["::ffff:192.0.2.0/120"], &[]);
    assert_eq!(
        let_in(&mapped, &["192.0.2.1", "::ffff:192.0.2.1", "192.0.3.1"]),
        ["192.0.2.1", "::ffff:192.0.2.1"]
    );
    let ipv6 = rules(&["::/0"], &[]);
    assert_eq!(
        let_in(&ipv6, &["2001:db8::1", "192.0.2.1", "::ffff:192.0.2.1"]),
        ["2001:db8::1"]
    );
    assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
}

#[test]
fn a_network_is_written_as_it_is_read() {
    for text in [
        "192.0.2.0/24",
        "192.0.2.1",
        "0.0.0.0/0",
        "2001:db8::/32",
        "::1",
        "::/0",
    ] {
        assert_eq!(network(text).to_string(), text);
    }
    assert_eq!(network("192.0.2.1/32").to_string(), "192.0.2.1");
    assert_eq!(network("::ffff:192.0.2.0/120").to_string(), "192.0.2.0/24");
}

#[test]
fn what_is_no_network_is_refused_with_the_reason() {
    let error = |text: &str| text.parse::<Network>().expect_err(text);
    for text in [
        "",
        "example.com",
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.01",
        "/8",
        "1::2::3/64",
        " 10.0.0.0/8",
    ] {
        assert_eq!(error(text), NetworkError::NoAddress, "{text}");
    }
    for text in [
        "192.0.2.0/33",
        "192.0.2.0/",
        "192.0.2.0/+8",
        "192.0.2.0/-1",
        "192.0.2.0/8/8",
        "192.0.2.0/256",
    ] {
        assert_eq!(error(text), NetworkError::Prefix { most: 32 }, "{text}");
    }
    assert_eq!(error("::/129"), NetworkError::Prefix { most: 128 });
    assert_eq!(
        error("10.1.2.3/8").to_string(),
        "10.1.2.3 has bits after the prefix: write 10.0.0.0/8 or 10.1.2.3"
    );
}

#[test]
fn a_list_has_a_network_a_line_and_comments_and_names_the_line_that_is_wrong() {
    let list = "# friends\n10.0.0.0/8\r\n\n  2001:db8::/32 # office\n192.0.2.1";
    let networks = parse_list(list).expect("a list");
    assert_eq!(
        networks,
        [
            network("10.0.0.0/8"),
            network("2001:db8::/32"),
            network("192.0.2.1")
        ]
    );
    let wrong = parse_list("10.0.0.0/8\n10.0.0.0/8 10.1.0.0/16\n").expect_err("two in a line");
    assert!(matches!(wrong, ListError::Line { line: 2, .. }), "{wrong}");
    let hostile = parse_list("\x1b]0;title\x07").expect_err("no network");
    assert!(hostile.to_string().contains("\\u{1b}]0;title"), "{hostile}");
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    // Of few kinds, so that networks hold them.
    let v4 = prop::array::uniform4(0_u8..3).prop_map(|bytes| IpAddr::V4(bytes.into()));
    let v6 = prop::array::uniform8(0_u16..3).prop_map(|words| IpAddr::V6(words.into()));
    let mapped = prop::array::uniform4(0_u8..3)
        .prop_map(|bytes| Ipv4Addr::from(bytes).to_ipv6_mapped().into());
    prop_oneof![v4, v6, mapped]
}

fn any_network() -> impl Strategy<Value = (IpAddr, u8)> {
    any_ip().prop_flat_map(|ip| {
        let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
        // A mapped network has 96 bits that are fixed.
        let least: u8 = match ip {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => 96,
            _ => 0,
        };
        (Just(ip), least..=most)
    })
}

/// As slow and as plain as it can be: every rule is looked at.
fn by_hand(rules: &[((IpAddr, u8), bool)], client: IpAddr) -> bool {
    let bits = |ip: IpAddr| -> u128 {
        match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        }
    };
    let is_v4 = |ip: IpAddr| ip.to_canonical().is_ipv4();
    let length = |(ip, length): (IpAddr, u8)| if ip.is_ipv4() { 96 + length } else { length };
    let holds = |network: (IpAddr, u8)| {
        let shift = 128 - u32::from(length(network));
        let same = bits(network.0).checked_shr(shift) == bits(client).checked_shr(shift);
        same && is_v4(network.0) == is_v4(client)
    };
    let found: Vec<_> = rules
        .iter()
        .filter(|(network, _)| holds(*network))
        .collect();
    let most_specific = found.iter().map(|(network, _)| length(*network)).max();
    match most_specific {
        None => !rules.iter().any(|(_, allowed)| *allowed),
        Some(most) => found
            .iter()
            .filter(|(network, _)| length(*network) == most)
            .all(|(_, allowed)| *allowed),
    }
}

proptest! {
    #[test]
    fn every_decision_is_that_of_looking_at_every_rule(
        given in prop::collection::vec((any_network(), any::<bool>()), 0..12),
        clients in prop::collection::vec(any_ip(), 1..20),
    ) {
        let mut rules = Rules::default();
        for ((ip, length), allowed) in &given {
            let trunc = IpNet::new(*ip, *length).expect("in range").trunc();
            let network = network(&trunc.to_string());
            if *allowed {
                rules.allow(network);
            } else {
                rules.deny(network);
            }
        }
        for client in clients {
            prop_assert_eq!(rules.lets_in(client), by_hand(&given, client), "{}", client);
        }
    }

    #[test]
    fn any_text_is_a_list_or_an_error_that_can_be_shown(text in "\\PC*|[0-9a-f:./# \\n]*") {
        match parse_list(&text) {
            Ok(networks) => prop_assert!(networks.len() <= text.lines().count()),
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
        }
    }

    #[test]
    fn a_network_holds_what_begins_like_it(ip in any::<u128>(), length in 0_u8..=128, other in any::<u128>()) {
        let net = IpNet::new(Ipv6Addr::from(ip).into(), length).expect("in range").trunc();
        prop_assume!(Ipv6Addr::from(ip).to_ipv4_mapped().is_none());
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let network = network(&net.to_string());
        prop_assert!(network.contains(Ipv6Addr::from(ip).into()));
        let inside = Ipv6Addr::from((ip & mask) | (other & !mask));
        prop_assume!(inside.to_ipv4_mapped().is_none());
        prop_assert!(network.contains(inside.into()));
    }
}
