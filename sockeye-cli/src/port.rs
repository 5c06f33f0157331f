//! Ports: by number, by the name that `/etc/services` has for them, and several at once. Pure, but for reading that file.

use std::fs::File;
use std::io::{self, Read};

use thiserror::Error;

/// A name that `/etc/services` may have (services(5)), which getservbyname(3) looks up as well.
const SERVICES: &str = "/etc/services";

/// What is read of that file: a hundred times what a distribution has in it.
const SERVICES_BYTES: u64 = 2 << 20;

/// Why a text is no port.
#[derive(Debug, Error)]
pub(crate) enum BadPort {
    #[error("the port is missing")]
    Missing,
    #[error("'{0}' is not a port number")]
    NotANumber(String),
    #[error("{0} is not a port: the highest is 65535")]
    TooHigh(String),
    #[error("'{0}' is several ports, and only connect --probe takes these")]
    Several(String),
    #[error("no port is named '{0}' in {file}", file = SERVICES)]
    Unnamed(String),
    #[error("'{0}' is a name, and {file} cannot be read, which would have its number: {1}", file = SERVICES)]
    NoNames(String, io::Error),
    #[error("{0}-{1} goes from high to low")]
    Backwards(u16, u16),
    #[error("nobody can be connected to on port 0")]
    Zero,
}

/// A port by its number or by its name.
pub(crate) fn parse_port(text: &str) -> Result<u16, BadPort> {
    if text.is_empty() {
        return Err(BadPort::Missing);
    }
    // `parse` would take a sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse::<u16>();
        return number.map_err(|_| BadPort::TooHigh(text.to_owned()));
    }
    if is_several(text) {
        return Err(BadPort::Several(text.to_owned()));
    }
    if !is_name(text) {
        return Err(BadPort::NotANumber(text.to_owned()));
    }
    let services = services().map_err(|error| BadPort::NoNames(text.to_owned(), error))?;
    named(&services, text).ok_or_else(|| BadPort::Unnamed(text.to_owned()))
}

/// Whether it is a list or a range. A name may have a `-` in it, as `ftp-data` has.
pub(crate) fn is_several(text: &str) -> bool {
    text.contains(',') || range(text).is_some()
}

/// `22`, `http`, `20-25` or a list of these, `22,http,8000-8010`: the ports in order, each once.
pub(crate) fn parse_ports(text: &str) -> Result<Vec<u16>, BadPort> {
    let mut ports = Vec::new();
    for part in text.split(',') {
        match range(part) {
            Some((first, last)) => {
                let (first, last) = (parse_port(first)?, parse_port(last)?);
                if first > last {
                    return Err(BadPort::Backwards(first, last));
                }
                ports.extend(first..=last);
            }
            None => ports.push(parse_port(part)?),
        }
        // A list may name the same range again and again.
        ports.sort_unstable();
        ports.dedup();
    }
    match ports.first() {
        Some(0) => Err(BadPort::Zero),
        _ => Ok(ports),
    }
}

/// The two ends of a range, if it is one.
fn range(text: &str) -> Option<(&str, &str)> {
    let (first, last) = text.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(first) && is_number(last)).then_some((first, last))
}

/// Names have a letter in them (RFC 6335, section 5.1); some that are in use have more than letters, digits and `-`.
fn is_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

fn services() -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(SERVICES)?
        .take(SERVICES_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The TCP port that a file in the form of services(5) has for a name or an alias, in the case in which it is written
/// there; the first one, as getservbyname(3) has it. A line that cannot be read names nothing.
fn named(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_ascii_whitespace();
        let official = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let is_it = protocol == "tcp" && (official == name || words.any(|alias| alias == name));
        is_it.then(|| port.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "\
# comment
ftp-data\t20/tcp
domain\t\t53/udp\t\t# only this way here
http\t\t80/tcp\t\twww www-http # WorldWideWeb
http\t\t8080/tcp
broken
worse\t\tx/tcp
\t
https 443/tcp
";

    #[test]
    fn a_name_or_an_alias_is_the_first_tcp_port_that_has_it() {
        assert_eq!(named(FILE, "http"), Some(80));
        assert_eq!(named(FILE, "www-http"), Some(80));
        assert_eq!(named(FILE, "https"), Some(443));
        assert_eq!(named(FILE, "ftp-data"), Some(20));
        for unknown in [
            "HTTP", "domain", "broken", "worse", "#", "comment", "tcp", "80/tcp", "",
        ] {
            assert_eq!(named(FILE, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn several_ports_come_in_order_and_each_once() {
        for (text, ports) in [
            ("22", vec![22]),
            ("20-22", vec![20, 21, 22]),
            ("443,20-22,21,80-80", vec![20, 21, 22, 80, 443]),
            ("65535-65535", vec![65_535]),
        ] {
            assert_eq!(parse_ports(text).expect(text), ports);
        }
        assert_eq!(
            parse_ports("1-65535").map(|ports| ports.len()).ok(),
            Some(65_535)
        );
        for bad in [
            "", ",", "22,", "25-20", "0-3", "20-70000", "20-", "-20", "1-2-3", "+80", "20 - 25",
        ] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_connect_probe_takes_several() {
        assert!(is_several("20-25") && is_several("22,80"));
        assert!(!is_several("ftp-data") && !is_several("80"));
        assert!(matches!(parse_port("20-25"), Err(BadPort::Several(_))));
    }

    proptest! {
        #[test]
        fn any_file_is_read_and_what_it_names_is_in_it(
            file in "([a-z#]{0,3}[ \t]{0,2}[0-9]{0,6}/?(tcp|udp)?[ \t][a-z]?\n?){0,8}|\\PC{0,60}",
            name in "[a-z]{1,3}",
        ) {
            if let Some(port) = named(&file, &name) {
                prop_assert!(file.contains(&name) && file.contains(&port.to_string()));
            }
        }

        #[test]
        fn any_text_is_a_port_a_range_or_an_error(text in "[0-9,-]{0,12}|\\PC{0,12}") {
            if let Ok(ports) = parse_ports(&text) {
                prop_assert!(!ports.is_empty() && !ports.contains(&0));
                prop_assert!(ports.is_sorted_by(|one, next| one < next));
            }
        }
    }
}
