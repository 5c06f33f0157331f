//! Against the crates `ppp` and `proxy-header`, which read the same specification. Where the three do not agree, one of
//! the reasons below must hold.

use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};
use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxyHeader};
use sockeye::proxy_protocol::{Addresses, Command, Header, Invalid, Parsed, Version, parse};

use super::generated;

/// What a parser makes of a header: both ends, if it gives any, and the length.
type Reading = (Option<(SocketAddr, SocketAddr)>, usize);

fn ours(header: &Header, length: usize) -> Reading {
    let ends = match header.addresses {
        Addresses::Ip {
            source,
            destination,
        } => Some((source, destination)),
        _ => None,
    };
    (ends, length)
}

fn ppp(bytes: &[u8]) -> Option<Reading> {
    fn ends<A: Into<IpAddr>>(from: A, to: A, ports: (u16, u16)) -> (SocketAddr, SocketAddr) {
        let source = SocketAddr::new(from.into(), ports.0);
        (source, SocketAddr::new(to.into(), ports.1))
    }
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => {
            let ends = match header.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(ip) => Some(ends(
                    ip.source_address,
                    ip.destination_address,
                    (ip.source_port, ip.destination_port),
                )),
                v1::Addresses::Tcp6(ip) => Some(ends(
                    ip.source_address,
                    ip.destination_address,
                    (ip.source_port, ip.destination_port),
                )),
            };
            Some((ends, header.header.len()))
        }
        HeaderResult::V2(Ok(header)) => {
            let ends = match header.addresses {
                _ if header.command == v2::Command::Local => None,
                v2::Addresses::IPv4(ip) => Some(ends(
                    ip.source_address,
                    ip.destination_address,
                    (ip.source_port, ip.destination_port),
                )),
                v2::Addresses::IPv6(ip) => Some(ends(
                    ip.source_address,
                    ip.destination_address,
                    (ip.source_port, ip.destination_port),
                )),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            Some((ends, header.len()))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => None,
    }
}

fn proxy_header(bytes: &[u8]) -> Option<Reading> {
    let (header, length) = ProxyHeader::parse(bytes, ParseConfig::default()).ok()?;
    let ends = header.proxied_address();
    Some((ends.map(|ends| (ends.source, ends.destination)), length))
}

/// Why we refuse what both accept.
fn is_stricter_for_a_reason(invalid: &Invalid) -> bool {
    matches!(
        invalid,
        // A plus before a port, which the standard library's parser takes; an LF alone in what follows UNKNOWN.
        Invalid::UnexpectedByte { byte: b'+' | b'\n', .. }
            // They give TLVs later, one by one, if asked, and verify no checksum.
            | Invalid::TlvPastEnd { .. }
            | Invalid::TlvLength { .. }
            | Invalid::TooManyTlvs
            | Invalid::Checksum { .. }
            | Invalid::ChecksumTwice { .. }
    )
}

/// Why `ppp` may refuse, or read otherwise, what we accept.
fn is_too_much_for_ppp(header: &Header, bytes: &[u8]) -> bool {
    match (header.version, header.command) {
        // The text after UNKNOWN: it must be UTF-8, and of at most four words.
        (Version::V1, _) => {
            let words = bytes.split(|byte| *byte == b' ').count();
            header.addresses == Addresses::Unspecified
                && (std::str::from_utf8(bytes).is_err() || words > 6)
        }
        // A local header's family must be known, and its block have room for addresses.
        (_, Command::Local) => bytes[13] != 0,
        // It reads addresses though the transport is unspecified.
        (_, Command::Proxy) => bytes[13] != 0 && bytes[13] & 0x0f == 0,
    }
}

/// Why `proxy-header` may refuse what we accept.
fn is_too_much_for_proxy_header(header: &Header, bytes: &[u8]) -> bool {
    match (header.version, header.command) {
        (Version::V1, _) => false,
        (_, Command::Local) => bytes[13] != 0,
        // Of the unspecified it takes only family and transport together.
        (_, Command::Proxy) => bytes[13] != 0 && (bytes[13] & 0x0f == 0 || bytes[13] >> 4 == 0),
    }
}

fn compare(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (ppp, proxy_header) = (ppp(bytes), proxy_header(bytes));
    match parse(bytes) {
        Ok(Parsed::Complete {
            header,
            bytes: length,
        }) => {
            let reading = Some(ours(&header, length));
            let whole = &bytes[..length];
            if !is_too_much_for_ppp(&header, whole) {
                prop_assert_eq!(&ppp, &reading, "ppp");
            }
            if !is_too_much_for_proxy_header(&header, whole) {
                prop_assert_eq!(&proxy_header, &reading, "proxy-header");
            }
        }
        Ok(Parsed::Incomplete { .. }) => {
            prop_assert!(ppp.is_none() || proxy_header.is_none(), "waits for more");
        }
        Err(invalid) => {
            let agreed = ppp.is_some() && ppp == proxy_header;
            prop_assert!(
                !agreed || is_stricter_for_a_reason(&invalid),
                "{invalid}, but both read {ppp:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn valid_headers_are_read_as_others_read_them(bytes in generated::valid()) {
        compare(&bytes)?;
    }

    #[test]
    fn damaged_headers_are_refused_where_others_refuse_them(bytes in generated::damaged()) {
        compare(&bytes)?;
    }
}

/// The reasons above, each with a header for which it holds: a reason that no longer does goes.
#[test]
fn the_known_differences_are_still_there() {
    let both_accept = |bytes: &[u8]| {
        assert!(ppp(bytes).is_some() && ppp(bytes) == proxy_header(bytes));
        parse(bytes).expect_err("is refused")
    };
    let plus = both_accept(b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n");
    assert_eq!(plus, Invalid::UnexpectedByte { at: 27, byte: b'+' });
    let line_feed = both_accept(b"PROXY UNKNOWN x\ny\r\n");
    assert_eq!(
        line_feed,
        Invalid::UnexpectedByte {
            at: 15,
            byte: b'\n'
        }
    );
    let checksum = both_accept(&super::with_tlvs(&[&super::raw(3, &[0; 4])]));
    assert_eq!(checksum, Invalid::Checksum { at: 28 });

    let accepted = |bytes: &[u8]| super::whole(bytes);
    let not_utf_8 = b"PROXY UNKNOWN \xff\r\n";
    accepted(not_utf_8);
    assert_eq!(ppp(not_utf_8), None);
    let five_words = b"PROXY UNKNOWN a b c d e\r\n";
    accepted(five_words);
    assert_eq!(ppp(five_words), None);
    let local = super::v2(0x20, 0xf1, &[]);
    accepted(&local);
    assert_eq!((ppp(&local), proxy_header(&local)), (None, None));
    let no_transport = super::v2(0x21, 0x10, &super::IPV4_BLOCK);
    assert_eq!(accepted(&no_transport).client(), None);
    assert!(ppp(&no_transport).is_some_and(|(ends, _)| ends.is_some()));
    assert_eq!(proxy_header(&no_transport), None);
}
