//! Every decision about an address is that of looking at each rule by hand, whatever the lists say.

use std::net::IpAddr;

use sockeye::rules::{ListError, Network, Rules, parse_list};

/// Three parts, with a NUL byte between them: who is allowed, who is denied, and who comes.
pub(crate) fn check(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (allowed, denied, clients) = (list(&next()), list(&next()), next());
    let mut rules = Rules::default();
    allowed.iter().for_each(|network| rules.allow(*network));
    denied.iter().for_each(|network| rules.deny(*network));
    assert!(rules.len() <= allowed.len() + denied.len());
    let edges = allowed
        .iter()
        .chain(&denied)
        .map(|network| parts_of(*network).0);
    let given = clients
        .split_whitespace()
        .filter_map(|text| text.parse().ok());
    for client in edges.chain(given).take(50) {
        let expected = by_hand(&allowed, &denied, client);
        assert_eq!(rules.lets_in(client), expected, "{client}");
    }
}

fn list(text: &str) -> Vec<Network> {
    match parse_list(text) {
        Ok(networks) => {
            // Written and read again, they are the same.
            let written: Vec<String> = networks.iter().map(ToString::to_string).collect();
            assert_eq!(parse_list(&written.join("\n")).as_ref(), Ok(&networks));
            networks
        }
        Err(error) => {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
            if let ListError::Line { line, .. } = error {
                assert!((1..=text.lines().count()).contains(&line));
            }
            Vec::new()
        }
    }
}

fn by_hand(allowed: &[Network], denied: &[Network], client: IpAddr) -> bool {
    let longest = |networks: &[Network]| {
        let holding = networks.iter().filter(|network| network.contains(client));
        holding.map(|network| parts_of(*network).1).max()
    };
    match (longest(allowed), longest(denied)) {
        (None, None) => allowed.is_empty(),
        (allow, deny) => allow > deny,
    }
}

/// The address of a network, and the length of its prefix, from its text.
fn parts_of(network: Network) -> (IpAddr, u8) {
    let text = network.to_string();
    let (ip, length) = text.split_once('/').unwrap_or((&text, ""));
    let ip: IpAddr = ip.parse().expect("an address");
    let most = if ip.is_ipv4() { 32 } else { 128 };
    (ip, length.parse().unwrap_or(most))
}
