//! Headers for the properties: what we would write, what others write, and what was damaged on the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use sockeye::proxy_protocol::{Header, RawTlv, Ssl, Tlv, Version};

use super::{raw, v2};

/// A header that is the same when it is written and read.
pub(super) fn header() -> impl Strategy<Value = Header> {
    prop_oneof![
        1 => Just(Header::local()),
        1 => Just(Header::unspecified(Version::V1)),
        1 => Just(Header::unspecified(Version::V2)),
        6 => ends().prop_map(|(source, destination)| {
            Header::proxied(Version::V1, source, destination)
        }),
        6 => (ends(), tlvs()).prop_map(|((source, destination), tlvs)| {
            let header = Header::proxied(Version::V2, source, destination);
            tlvs.into_iter().fold(header, Header::with_tlv)
        }),
        2 => (path(), path(), tlvs()).prop_map(|(source, destination, tlvs)| {
            let header = Header::unix(source, destination);
            tlvs.into_iter().fold(header, Header::with_tlv)
        }),
    ]
}

/// The bytes of a valid header, in forms that we do not write as well.
pub(super) fn valid() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => header().prop_map(|header| header.encode().expect("can be written")),
        2 => (written_ipv6(), written_ipv6(), port(), port()).prop_map(
            |(source, destination, from, to)| {
                format!("PROXY TCP6 {source} {destination} {from} {to}\r\n").into_bytes()
            }
        ),
        1 => "[ -~]{0,91}".prop_map(|text| format!("PROXY UNKNOWN {text}\r\n").into_bytes()),
        // Whatever family and block a local header says.
        1 => (any::<u8>(), few(60)).prop_map(|(family, block)| v2(0x20, family, &block)),
        // Unspecified family or transport, and a block that is skipped.
        1 => (prop::sample::select(&[0x00, 0x01, 0x02, 0x10, 0x20, 0x30][..]), few(60))
            .prop_map(|(family, block)| v2(0x21, family, &block)),
        // Streams and datagrams, types of every meaning but a checksum, padding among them.
        2 => (
            prop::sample::select(&[(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x32, 216)][..]),
            prop::collection::vec(any::<u8>(), 216),
            prop::collection::vec((prop::sample::select(&[1, 2, 4, 5, 0x21, 0x30, 0xea, 0xff][..]), few(20)), 0..6),
        )
            .prop_map(|((family, length), mut block, tlvs)| {
                block.truncate(length);
                block.extend(tlvs.iter().flat_map(|(kind, value)| raw(*kind, value)));
                v2(0x21, family, &block)
            }),
    ]
}

/// A valid header after a few edits, with a stream behind it or cut short.
pub(super) fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (valid(), prop::collection::vec(edit(), 0..4), few(20)).prop_map(
        |(mut bytes, edits, stream)| {
            bytes.extend(stream);
            for (at, edit) in edits {
                let at = at.index(bytes.len().max(1)).min(bytes.len());
                edit.apply(&mut bytes, at);
            }
            bytes
        },
    )
}

#[derive(Clone, Debug)]
enum Edit {
    Put(u8),
    Insert(u8),
    Flip(u8),
    Remove,
    Repeat,
    Truncate,
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>, at: usize) {
        let Some(&byte) = bytes.get(at) else {
            return;
        };
        match self {
            Self::Put(byte) => bytes[at] = byte,
            Self::Insert(byte) => bytes.insert(at, byte),
            Self::Flip(bit) => bytes[at] ^= 1 << bit,
            Self::Remove => drop(bytes.remove(at)),
            Self::Repeat => bytes.insert(at, byte),
            Self::Truncate => bytes.truncate(at),
        }
    }
}

/// Mostly at the beginning, where the meaning is, and with the bytes that have one.
fn edit() -> impl Strategy<Value = (prop::sample::Index, Edit)> {
    let byte = || {
        prop_oneof![
            4 => prop::sample::select(&b" \r\n0123456789abcdef:.+-%TCPUNKNOWN\0"[..]),
            1 => any::<u8>(),
        ]
    };
    let edit = prop_oneof![
        3 => byte().prop_map(Edit::Put),
        3 => byte().prop_map(Edit::Insert),
        2 => (0_u8..8).prop_map(Edit::Flip),
        2 => Just(Edit::Remove),
        1 => Just(Edit::Repeat),
        1 => Just(Edit::Truncate),
    ];
    (any::<prop::sample::Index>(), edit)
}

/// Both of one family.
fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let ipv4 = || any::<[u8; 4]>().prop_map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    let ipv6 = || ipv6().prop_map(IpAddr::from);
    let ips = prop_oneof![(ipv4(), ipv4()), (ipv6(), ipv6())];
    (ips, (port(), port())).prop_map(|((source, destination), (from, to))| {
        (
            SocketAddr::new(source, from),
            SocketAddr::new(destination, to),
        )
    })
}

/// Of one digit as often as of five: the shortest lines are those that a reader could read too far.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0_u16..10, any::<u16>()]
}

/// With many zeros, and mapped ones.
fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    let segment = prop_oneof![2 => Just(0), 1 => 0_u16..20, 1 => any::<u16>()];
    prop_oneof![
        4 => prop::collection::vec(segment, 8).prop_map(|segments| {
            let mut all = [0; 8];
            all.copy_from_slice(&segments);
            Ipv6Addr::from(all)
        }),
        1 => any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).to_ipv6_mapped()),
    ]
}

/// In one of the forms that a line may have.
fn written_ipv6() -> impl Strategy<Value = String> {
    (ipv6(), 0..4).prop_map(|(address, form)| {
        let [a, b, c, d, e, f, g, h] = address.segments();
        match form {
            0 => address.to_string(),
            1 => address.to_string().to_uppercase(),
            2 => format!("{a:04x}:{b:04X}:{c:04x}:{d:04x}:{e:04x}:{f:04x}:{g:04x}:{h:04x}"),
            _ => format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}:{g:x}:{h:x}"),
        }
    })
}

/// Of at most 108 bytes, the last of them no padding.
fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=108).prop_map(|mut path| {
        if let Some(last) = path.last_mut() {
            *last |= 1;
        }
        path
    })
}

/// At most one checksum, somewhere among them.
fn tlvs() -> impl Strategy<Value = Vec<Tlv>> {
    let tlv = prop_oneof![
        few(20).prop_map(Tlv::Alpn),
        few(20).prop_map(Tlv::Authority),
        few(128).prop_map(Tlv::UniqueId),
        few(20).prop_map(Tlv::Netns),
        (0x06_u8..0x20, few(20)).prop_map(|(kind, value)| Tlv::Other(RawTlv { kind, value })),
        (0x21_u8..0x30, few(20)).prop_map(|(kind, value)| Tlv::Other(RawTlv { kind, value })),
        (0xe0_u8.., few(20)).prop_map(|(kind, value)| Tlv::Other(RawTlv { kind, value })),
        ssl().prop_map(Tlv::Ssl),
    ];
    let checksum = prop::option::of(any::<prop::sample::Index>());
    (prop::collection::vec(tlv, 0..5), checksum).prop_map(|(mut tlvs, checksum)| {
        if let Some(at) = checksum {
            tlvs.insert(at.index(tlvs.len() + 1), Tlv::Crc32c);
        }
        tlvs
    })
}

fn ssl() -> impl Strategy<Value = Ssl> {
    let detail = (any::<u8>(), few(20)).prop_map(|(kind, value)| RawTlv { kind, value });
    let details = prop::collection::vec(detail, 0..4);
    (any::<u8>(), any::<u32>(), details).prop_map(|(client, verify, details)| Ssl {
        client,
        verify,
        details,
    })
}

fn few(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=most)
}
