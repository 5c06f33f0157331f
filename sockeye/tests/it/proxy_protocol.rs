//! Section numbers are those of HAProxy's doc/proxy-protocol.txt.

mod differential;
mod generated;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use sockeye::proxy_protocol::{
    Addresses, Command, EncodeError, Header, Invalid, MAX_TLVS, MAX_UNIQUE_ID_BYTES, Parsed,
    RawTlv, ReadError, Ssl, Tlv, Version, parse, read,
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::corpora::proxy_protocol::check;

/// Section 2.2: the constant at the beginning of version 2.
const SIGNATURE: [u8; 12] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
];

/// Version and command, family and transport, and a block of the length that it says.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short");
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(block);
    bytes
}

const IPV4_BLOCK: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xc7, 0x38, 0x01, 0xbb];

/// A client's IPv4 connection, with these TLVs.
fn with_tlvs(tlvs: &[&[u8]]) -> Vec<u8> {
    v2(0x21, 0x11, &[&IPV4_BLOCK[..], &tlvs.concat()].concat())
}

fn raw(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short").to_be_bytes();
    [&[kind][..], &length, value].concat()
}

/// CRC32C bit by bit (RFC 4960, appendix B), so that the table of the library is not its own judge.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

/// Puts the sum of the whole into its last four bytes, which are those of a checksum.
fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    let at = header.len() - 4;
    header[at..].fill(0);
    let sum = crc32c(&header).to_be_bytes();
    header[at..].copy_from_slice(&sum);
    header
}

fn whole(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Ok(Parsed::Complete {
            header,
            bytes: length,
        }) => {
            assert_eq!(length, bytes.len());
            header
        }
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Gives its bytes in pieces of these sizes, then all at once, and counts the reads.
struct Pieces<'a> {
    left: &'a [u8],
    sizes: Vec<usize>,
    reads: usize,
    most_asked: usize,
}

impl<'a> Pieces<'a> {
    fn new(left: &'a [u8], sizes: &[usize]) -> Self {
        Self {
            left,
            sizes: sizes.iter().rev().copied().collect(),
            reads: 0,
            most_asked: 0,
        }
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads += 1;
        self.most_asked = self.most_asked.max(buffer.remaining());
        let piece = self.sizes.pop().unwrap_or(usize::MAX);
        if piece == 0 {
            // Nothing has come yet.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = piece.min(buffer.remaining()).min(self.left.len());
        let (now, later) = self.left.split_at(size);
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }.build().expect("a runtime").block_on(future)
}

#[test]
fn lines_of_version_1_are_read() {
    let ip = |source, destination| Addresses::Ip {
        source: address(source),
        destination: address(destination),
    };
    let cases = [
        // The example of section 2.1.
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            ip("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        // The longest for IPv4: 56 bytes.
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            ip("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        // The longest for IPv6: 104 bytes.
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            ip(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ),
        // Ports are in the range 0 to 65535, inclusive.
        (
            "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
            ip("0.0.0.0:0", "0.0.0.0:0"),
        ),
        // One double colon; upper or lower case.
        (
            "PROXY TCP6 :: 2001:DB8::a 1 2\r\n",
            ip("[::]:1", "[2001:db8::a]:2"),
        ),
        // Sets of 4 digits, zeros included.
        (
            "PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 1:2:3:4:5:6:7:: 1 2\r\n",
            ip("[2001:db8::1]:1", "[1:2:3:4:5:6:7:0]:2"),
        ),
        // Eight sets and nothing after them but the least that a line can have.
        (
            "PROXY TCP6 1:2:3:4:5:6:7:8 :: 0 0\r\n",
            ip("[1:2:3:4:5:6:7:8]:0", "[::]:0"),
        ),
        // What `inet_ntop` gives for an IPv4-mapped address, and so what HAProxy sends.
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n",
            ip("[::ffff:192.0.2.7]:1", "[::1]:2"),
        ),
        // `UNKNOWN`, the short form: 15 bytes.
        ("PROXY UNKNOWN\r\n", Addresses::Unspecified),
        // The rest of the line is ignored, whatever it is.
        ("PROXY UNKNOWN \r\n", Addresses::Unspecified),
        (
            "PROXY UNKNOWN 192.0.2.7  x -1 \0é\r\n",
            Addresses::Unspecified,
        ),
        // The worst case: 107 bytes.
        (
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Addresses::Unspecified,
        ),
    ];
    for (line, addresses) in cases {
        let header = whole(line.as_bytes());
        assert_eq!(header.addresses, addresses, "{line}");
        assert_eq!(
            (header.version, header.command),
            (Version::V1, Command::Proxy)
        );
        assert_eq!(header.tlvs, []);
        check(line.as_bytes());
    }
}

#[test]
fn a_line_that_does_not_match_exactly_is_refused() {
    let unexpected = |at, byte| Invalid::UnexpectedByte { at, byte };
    let not_a_header = |at, byte| Invalid::NotAHeader { at, byte };
    let cases: &[(&str, Invalid)] = &[
        // Other protocols.
        ("GET / HTTP/1.1\r\n", not_a_header(0, b'G')),
        ("\u{16}\u{3}\u{1}", not_a_header(0, 0x16)),
        ("POST / HTTP/1.1\r\n", not_a_header(1, b'O')),
        ("\r\nHELO x\r\n", not_a_header(2, b'H')),
        // "PROXY", then exactly one space.
        ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", not_a_header(0, b'p')),
        ("PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", not_a_header(5, b'T')),
        (
            "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            Invalid::Protocol { at: 6 },
        ),
        // Only TCP4, TCP6 and UNKNOWN, in upper case.
        (
            "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
            Invalid::Protocol { at: 6 },
        ),
        (
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            Invalid::Protocol { at: 6 },
        ),
        ("PROXY TCP5", Invalid::Protocol { at: 6 }),
        ("PROXY TCP4\r\n", Invalid::Protocol { at: 6 }),
        ("PROXY \r\n", Invalid::Protocol { at: 6 }),
        ("PROXY UNKNOWNS\r\n", unexpected(13, b'S')),
        // One space between fields, none before the CRLF.
        (
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            Invalid::Address { at: 19 },
        ),
        (
            "PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n",
            Invalid::Port { at: 27 },
        ),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1  2\r\n", unexpected(29, b' ')),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", unexpected(30, b' ')),
        (
            "PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n",
            Invalid::Protocol { at: 6 },
        ),
        // Exactly four octets, each at most 255, without leading zeros.
        (
            "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP4 1.2.3.4 00.2.3.4 1 2\r\n",
            Invalid::Address { at: 19 },
        ),
        ("PROXY TCP4 127.1 ", Invalid::Address { at: 11 }),
        ("PROXY TCP4 0x7f.1.1.1 ", unexpected(12, b'x')),
        ("PROXY TCP4 -1.2.3.4 ", unexpected(11, b'-')),
        ("PROXY TCP4 111.111.111.1111", unexpected(26, b'1')),
        // The protocol dictates the family.
        ("PROXY TCP4 ::1 ::1 1 2\r\n", unexpected(11, b':')),
        (
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP6 ::1 1.2.3.4 1 2\r\n",
            Invalid::Address { at: 15 },
        ),
        // Exactly 128 bits, one double colon, no scope, no brackets.
        ("PROXY TCP6 ::1::2 ::1 1 2\r\n", Invalid::Address { at: 11 }),
        ("PROXY TCP6 1:2:3 ::1 1 2\r\n", Invalid::Address { at: 11 }),
        (
            "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP6 12345:: ::1 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        (
            "PROXY TCP6 ::ffff:1.2.3.04 ::1 1 2\r\n",
            Invalid::Address { at: 11 },
        ),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", unexpected(18, b'%')),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", unexpected(11, b'[')),
        // A decimal number of at most 65535, without leading zeros or sign.
        (
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            Invalid::Port { at: 27 },
        ),
        (
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n",
            Invalid::Port { at: 29 },
        ),
        (
            "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            Invalid::Port { at: 27 },
        ),
        (
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
            Invalid::Port { at: 29 },
        ),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", unexpected(27, b'+')),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", unexpected(29, b'-')),
        (
            "PROXY TCP4 1.2.3.4 1.2.3.4 000001 2\r\n",
            unexpected(32, b'1'),
        ),
        // Fields that are not there.
        ("PROXY TCP4 1.2.3.4 1.2.3.4\r\n", unexpected(26, b'\r')),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", unexpected(28, b'\r')),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", unexpected(30, b' ')),
        // A single CR or LF does not end the line.
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", unexpected(30, b'\n')),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx", unexpected(31, b'x')),
        ("PROXY UNKNOWN\n", unexpected(13, b'\n')),
        ("PROXY UNKNOWN x\ny\r\n", unexpected(15, b'\n')),
        ("PROXY UNKNOWN x\ry\r\n", unexpected(16, b'y')),
        ("PROXY UNKNOWN\r\r\n", unexpected(14, b'\r')),
        // US-ASCII.
        ("PROXY TCP4 1.2.3.٤ 1.2.3.4 1 2\r\n", unexpected(17, 0xd9)),
    ];
    for (line, invalid) in cases {
        assert_eq!(parse(line.as_bytes()).as_ref(), Err(invalid), "{line:?}");
        check(line.as_bytes());
    }
}

#[test]
fn a_line_without_crlf_in_107_bytes_is_refused_and_not_before() {
    let line = |length: usize| {
        let filled = format!("PROXY UNKNOWN {:x<1$}\r\n", "", length - 16);
        assert_eq!(filled.len(), length);
        filled
    };
    whole(line(107).as_bytes());
    assert_eq!(parse(line(108).as_bytes()), Err(Invalid::LineTooLong));
    let line = line(1_000);
    let last = parse(&line.as_bytes()[..106]);
    assert_eq!(last, Ok(Parsed::Incomplete { at_least: 1 }));
    let over = parse(&line.as_bytes()[..107]);
    assert_eq!(over, Err(Invalid::LineTooLong));

    // Its fields are within their bounds, and the line is not.
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    let line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    assert_eq!(parse(line.as_bytes()), Err(Invalid::LineTooLong));
    check(line.as_bytes());
}

#[test]
fn headers_of_version_2_are_read() {
    // By hand, byte for byte: TCP over IPv4, 192.0.2.7:51000 to 198.51.100.1:443.
    let bytes = [
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, // signature
        0x21, // version 2, PROXY
        0x11, // AF_INET, STREAM
        0x00, 0x0c, // 12 bytes follow
        192, 0, 2, 7, 198, 51, 100, 1, // addresses
        0xc7, 0x38, 0x01, 0xbb, // ports
    ];
    let ipv4 = Header::proxied(
        Version::V2,
        address("192.0.2.7:51000"),
        address("198.51.100.1:443"),
    );
    assert_eq!(whole(&bytes), ipv4);
    assert_eq!(ipv4.encode(), Ok(bytes.to_vec()));

    let mut ipv6_block = [0; 36];
    ipv6_block[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    ipv6_block[15] = 1;
    ipv6_block[31] = 2;
    ipv6_block[32..].copy_from_slice(&[0x00, 0x01, 0xff, 0xff]);
    let ipv6 = Header::proxied(
        Version::V2,
        address("[2001:db8::1]:1"),
        address("[::2]:65535"),
    );

    let mut unix_block = [0; 216];
    unix_block[..6].copy_from_slice(b"/run/a");
    // An abstract name (unix(7)): only NUL bytes at the end are padding.
    unix_block[108..112].copy_from_slice(b"\0a\0b");
    let unix = Header::unix("/run/a", *b"\0a\0b");

    let cases = [
        // UDP over IPv4; TCP and UDP over IPv6; Unix streams and datagrams.
        (v2(0x21, 0x12, &IPV4_BLOCK), ipv4.clone()),
        (v2(0x21, 0x21, &ipv6_block), ipv6.clone()),
        (v2(0x21, 0x22, &ipv6_block), ipv6),
        (v2(0x21, 0x31, &unix_block), unix.clone()),
        (v2(0x21, 0x32, &unix_block), unix),
        // The whole place, without padding; and an unnamed socket.
        (
            v2(0x21, 0x31, &[&[b'x'; 108][..], &[0; 108]].concat()),
            Header::unix([b'x'; 108], []),
        ),
        // UNSPEC: with no block, and with one, which is to be ignored, be it addresses or what looks like TLVs.
        (v2(0x21, 0x00, &[]), Header::unspecified(Version::V2)),
        (
            v2(0x21, 0x00, &IPV4_BLOCK),
            Header::unspecified(Version::V2),
        ),
        (v2(0x21, 0x01, &[0x03]), Header::unspecified(Version::V2)),
        // A family with an unspecified transport: "should ignore address information".
        (
            v2(0x21, 0x10, &IPV4_BLOCK),
            Header::unspecified(Version::V2),
        ),
        (v2(0x21, 0x30, &[]), Header::unspecified(Version::V2)),
        // Bytes after the addresses are TLVs; NOOP is padding.
        (with_tlvs(&[&raw(0x04, b""), &raw(0x04, &[7; 9])]), ipv4),
    ];
    for (bytes, header) in cases {
        assert_eq!(whole(&bytes), header, "{}", bytes.escape_ascii());
        check(&bytes);
    }
}

#[test]
fn a_local_header_is_accepted_whatever_its_block_says() {
    let cases = [
        // As it should be sent.
        v2(0x20, 0x00, &[]),
        // A length other than zero must not surprise (Envoy CVE-2024-23327), nor a family: it "is ignored".
        v2(0x20, 0x00, &[0xff; 7]),
        v2(0x20, 0x11, &IPV4_BLOCK),
        v2(0x20, 0x11, &[1]),
        v2(0x20, 0x21, &[]),
        v2(0x20, 0xff, &[0; 300]),
        // "Discard the protocol block": neither a checksum, nor what goes past the end, is looked for in it.
        v2(0x20, 0x11, &[&IPV4_BLOCK[..], &raw(0x03, &[0; 4])].concat()),
        v2(0x20, 0x11, &[&IPV4_BLOCK[..], &[0x01, 0xff, 0xff]].concat()),
    ];
    for bytes in cases {
        assert_eq!(whole(&bytes), Header::local());
        check(&bytes);
    }
}

#[test]
fn a_header_of_version_2_that_means_nothing_is_refused() {
    let cases = [
        // Only version 2.
        (v2(0x11, 0x11, &IPV4_BLOCK), Invalid::Version { version: 1 }),
        (v2(0x30, 0x00, &[]), Invalid::Version { version: 3 }),
        // Only LOCAL and PROXY.
        (v2(0x22, 0x11, &IPV4_BLOCK), Invalid::Command { command: 2 }),
        (v2(0x2f, 0x00, &[]), Invalid::Command { command: 15 }),
        // Only UNSPEC, INET, INET6, UNIX.
        (v2(0x21, 0x41, &[0; 300]), Invalid::Family { family: 4 }),
        (v2(0x21, 0xf0, &[0; 300]), Invalid::Family { family: 15 }),
        // Only UNSPEC, STREAM, DGRAM.
        (
            v2(0x21, 0x13, &IPV4_BLOCK),
            Invalid::Transport { transport: 3 },
        ),
        (v2(0x21, 0x0f, &[]), Invalid::Transport { transport: 15 }),
        // Addresses have their length.
        (
            v2(0x21, 0x11, &IPV4_BLOCK[..11]),
            Invalid::BlockTooShort {
                declared: 11,
                needed: 12,
            },
        ),
        (
            v2(0x21, 0x22, &[0; 35]),
            Invalid::BlockTooShort {
                declared: 35,
                needed: 36,
            },
        ),
        (
            v2(0x21, 0x31, &[0; 215]),
            Invalid::BlockTooShort {
                declared: 215,
                needed: 216,
            },
        ),
        (
            v2(0x21, 0x11, &[]),
            Invalid::BlockTooShort {
                declared: 0,
                needed: 12,
            },
        ),
        // A TLV has a type, a length, and as many bytes as that says.
        (with_tlvs(&[&[1]]), Invalid::TlvPastEnd { at: 28 }),
        (with_tlvs(&[&[1, 0]]), Invalid::TlvPastEnd { at: 28 }),
        (with_tlvs(&[&[1, 0, 1]]), Invalid::TlvPastEnd { at: 28 }),
        (
            with_tlvs(&[&raw(4, b"abc"), &[0xea, 0xff, 0xff, 0]]),
            Invalid::TlvPastEnd { at: 34 },
        ),
        // A unique ID has up to 128 bytes.
        (
            with_tlvs(&[&raw(5, &[0; 129])]),
            Invalid::TlvLength {
                at: 28,
                kind: 5,
                bytes: 129,
            },
        ),
        // SSL: a byte, four bytes, TLVs.
        (
            with_tlvs(&[&raw(0x20, &[1, 0, 0, 0])]),
            Invalid::TlvLength {
                at: 28,
                kind: 0x20,
                bytes: 4,
            },
        ),
        (
            with_tlvs(&[&raw(0x20, &[1, 0, 0, 0, 0, 0x21])]),
            Invalid::TlvPastEnd { at: 36 },
        ),
        // What is within SSL ends with it, though the header goes on.
        (
            with_tlvs(&[&raw(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 3]), &raw(4, b"")]),
            Invalid::TlvPastEnd { at: 36 },
        ),
    ];
    for (bytes, invalid) in cases {
        assert_eq!(parse(&bytes), Err(invalid), "{}", bytes.escape_ascii());
        check(&bytes);
    }
}

#[test]
fn what_is_certain_to_be_refused_is_refused_at_its_first_byte() {
    let refused_at = |bytes: &[u8]| (0..=bytes.len()).find(|held| parse(&bytes[..*held]).is_err());
    let whole = v2(0x21, 0x11, &IPV4_BLOCK);
    let with = |at: usize, byte| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let cases: &[(&[u8], usize)] = &[
        (b"GET / HTTP/1.1\r\n", 1),
        (b"PUT / HTTP/1.1\r\n", 2),
        (b"PROXY_", 6),
        (b"PROXY X", 7),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 80 +", 31),
        (&with(3, 0x0d), 4),
        (&with(12, 0x31), 13),
        (&with(13, 0x51), 14),
        (&with(15, 11), 16),
    ];
    for (bytes, held) in cases {
        assert_eq!(refused_at(bytes), Some(*held), "{}", bytes.escape_ascii());
    }
}

#[test]
fn tlvs_are_given_by_their_meaning() {
    let ssl = [
        &[0x05, 0, 0, 0, 0][..],
        &raw(0x21, b"TLSv1.3"),
        &raw(0x22, b"client.example"),
        &raw(0x23, b"TLS_AES_128_GCM_SHA256"),
        &raw(0x24, b"RSA-SHA256"),
        &raw(0x25, b"RSA2048"),
        &raw(0x28, b"later"),
    ];
    let bytes = with_tlvs(&[
        &raw(0x01, b"h2"),
        &raw(0x02, b"example.com"),
        &raw(0x02, b"second.example"),
        &raw(0x04, b"padding"),
        &raw(0x05, &[0xff; MAX_UNIQUE_ID_BYTES]),
        &raw(0x20, &ssl.concat()),
        &raw(0x30, b"blue"),
        &raw(0xea, b"\x01vpce-1"),
        &raw(0xea, b"\x02"),
    ]);
    let header = whole(&bytes);
    assert_eq!(header.alpn(), Some(&b"h2"[..]));
    assert_eq!(header.authority(), Some("example.com"));
    assert_eq!(header.unique_id(), Some(&[0xff; 128][..]));
    assert_eq!(header.netns(), Some("blue"));
    assert_eq!(header.other(0xea), Some(&b"\x01vpce-1"[..]));
    assert_eq!(header.other(0xeb), None);
    assert_eq!(header.tlvs.len(), 8, "all but the padding");
    let ssl = header.ssl().expect("is there");
    assert!(ssl.is_tls() && ssl.verified());
    assert_eq!(ssl.version(), Some("TLSv1.3"));
    assert_eq!(ssl.common_name(), Some("client.example"));
    assert_eq!(ssl.cipher(), Some("TLS_AES_128_GCM_SHA256"));
    assert_eq!(ssl.signature_algorithm(), Some("RSA-SHA256"));
    assert_eq!(ssl.key_algorithm(), Some("RSA2048"));
    assert_eq!(ssl.details.len(), 6);
    check(&bytes);
}

#[test]
fn names_that_are_not_utf_8_are_kept_and_not_given_as_text() {
    // Envoy CVE-2024-23324.
    let ssl = [&[0x01, 0, 0, 0, 1][..], &raw(0x22, b"\xc3\x28")].concat();
    let bytes = with_tlvs(&[
        &raw(0x02, b"\xff\xfe"),
        &raw(0x20, &ssl),
        &raw(0x30, b"\x80"),
    ]);
    let header = whole(&bytes);
    assert_eq!(header.authority(), None);
    assert_eq!(header.netns(), None);
    assert_eq!(header.ssl().and_then(Ssl::common_name), None);
    assert_eq!(header.tlvs[0], Tlv::Authority(b"\xff\xfe".to_vec()));
}

#[test]
fn a_certificate_is_verified_only_if_there_was_one() {
    let ssl = |client, verify| Ssl {
        client,
        verify,
        details: Vec::new(),
    };
    // OpenSSL's result of verification is 0 where there was nothing to verify.
    assert!(!ssl(Ssl::TLS, 0).verified());
    assert!(!ssl(Ssl::TLS | Ssl::CERTIFICATE_CONNECTION, 18).verified());
    assert!(ssl(Ssl::TLS | Ssl::CERTIFICATE_CONNECTION, 0).verified());
    assert!(ssl(Ssl::TLS | Ssl::CERTIFICATE_SESSION, 0).verified());
    assert!(!ssl(0, 0).is_tls());
}

#[test]
fn a_checksum_covers_the_whole_header() {
    // The check value of the algorithm, and RFC 3720, appendix B.4: 32 bytes of zeros.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);

    let right = sealed(with_tlvs(&[&raw(2, b"example.com"), &raw(3, &[0; 4])]));
    let header = whole(&right);
    assert_eq!(header.tlvs[1], Tlv::Crc32c);
    assert_eq!(header.encode(), Ok(right.clone()));
    check(&right);
    // Any byte of what the header means, the addresses first; all but the checksum's own type, without which it is none.
    for at in (16..right.len()).filter(|at| *at != 42) {
        let mut wrong = right.clone();
        wrong[at] ^= 0x40;
        assert!(parse(&wrong).is_err(), "byte {at}");
        check(&wrong);
    }
    let mut wrong = right;
    wrong[16] ^= 1;
    assert_eq!(parse(&wrong), Err(Invalid::Checksum { at: 42 }));

    for bytes in [0, 3, 5] {
        let header = with_tlvs(&[&raw(3, &vec![0; bytes])]);
        let length = Invalid::TlvLength {
            at: 28,
            kind: 3,
            bytes,
        };
        assert_eq!(parse(&header), Err(length));
    }
}

#[test]
fn a_second_checksum_is_refused() {
    let first = whole(&sealed(with_tlvs(&[&raw(3, &[0; 4])])));
    assert_eq!(first.tlvs, [Tlv::Crc32c]);
    // The first is right, if the second is taken as it stands: found by trying, as each covers the other.
    let mut bytes = with_tlvs(&[&raw(3, &[0; 4]), &raw(3, b"xxxx")]);
    let sum = crc32c(&bytes).to_be_bytes();
    bytes[31..35].copy_from_slice(&sum);
    assert_eq!(parse(&bytes), Err(Invalid::ChecksumTwice { at: 35 }));
}

#[test]
fn more_tlvs_than_there_are_types_are_refused() {
    let empty = raw(0xea, b"");
    let header = |count| with_tlvs(&vec![&empty[..]; count]);
    assert_eq!(whole(&header(MAX_TLVS)).tlvs.len(), MAX_TLVS);
    assert_eq!(parse(&header(MAX_TLVS + 1)), Err(Invalid::TooManyTlvs));
    // Those within another count, too.
    let ssl = [&[0; 5][..], &empty.repeat(200)].concat();
    let ssl = raw(0x20, &ssl);
    assert_eq!(parse(&with_tlvs(&[&ssl, &ssl])), Err(Invalid::TooManyTlvs));
    // The most that fits in: 21,841 empty ones.
    let most = with_tlvs(&vec![&empty[..]; (65_535 - 12) / 3]);
    assert_eq!(parse(&most), Err(Invalid::TooManyTlvs));
}

#[test]
fn the_client_is_an_ipv4_client_however_the_header_writes_it() {
    let mapped = whole(b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c633:6401 51000 443\r\n");
    assert_eq!(mapped.client(), Some(address("192.0.2.7:51000")));
    let ipv6 = whole(b"PROXY TCP6 2001:db8::1 ::1 51000 443\r\n");
    assert_eq!(ipv6.client(), Some(address("[2001:db8::1]:51000")));
    assert_eq!(Header::local().client(), None);
    assert_eq!(Header::unspecified(Version::V1).client(), None);
    assert_eq!(Header::unix("/a", "/b").client(), None);
}

#[test]
fn the_text_of_an_error_holds_no_byte_of_the_peers() {
    for byte in 0..=255_u8 {
        for line in [&b"PROXY "[..], b"PROXY UNKNOWN", b"PROXY TCP4 ", b""] {
            if let Err(invalid) = parse(&[line, &[byte, byte]].concat()) {
                let text = format!("{invalid} {invalid:?}");
                assert!(text.chars().all(|c| (' '..='~').contains(&c)), "{text}");
            }
        }
    }
    let error = Invalid::NotAHeader { at: 0, byte: b'G' };
    assert_eq!(
        error.to_string(),
        "not a PROXY header: byte 0x47 at offset 0"
    );
}

#[test]
fn what_a_header_cannot_say_is_not_written() {
    let v4 = address("192.0.2.7:1");
    let v6 = address("[2001:db8::1]:2");
    let ip = Header::proxied(Version::V2, v4, v4);
    let mut local = Header::local();
    local.addresses = ip.addresses.clone();
    let empty = |kind| RawTlv {
        kind,
        value: Vec::new(),
    };
    let ssl = Ssl {
        details: vec![empty(0x21); MAX_TLVS],
        ..Ssl::default()
    };
    let many = |count| {
        let mut header = ip.clone();
        header.tlvs = vec![Tlv::Alpn(Vec::new()); count];
        header
    };
    let cases = [
        (
            Header::proxied(Version::V1, v4, v4).with_tlv(Tlv::Crc32c),
            EncodeError::TlvsInV1,
        ),
        (local, EncodeError::LocalWithAddresses),
        (
            Header::local().with_tlv(Tlv::Crc32c),
            EncodeError::TlvsWithoutAddresses,
        ),
        (
            Header::unspecified(Version::V2).with_tlv(Tlv::Crc32c),
            EncodeError::TlvsWithoutAddresses,
        ),
        (
            Header::unix([b'x'; 109], []),
            EncodeError::UnixPathTooLong { bytes: 109 },
        ),
        (
            ip.clone().with_tlv(Tlv::UniqueId(vec![0; 129])),
            EncodeError::UniqueIdTooLong { bytes: 129 },
        ),
        (
            ip.clone().with_tlv(Tlv::Other(empty(4))),
            EncodeError::KnownKind { kind: 4 },
        ),
        (
            ip.clone().with_tlv(Tlv::Crc32c).with_tlv(Tlv::Crc32c),
            EncodeError::ChecksumTwice,
        ),
        // One TLV too long for its own length, and one that the header's cannot count with the rest.
        (
            ip.clone().with_tlv(Tlv::Authority(vec![0; 65_536])),
            EncodeError::TooLong,
        ),
        (
            ip.clone()
                .with_tlv(Tlv::Authority(vec![0; 65_535 - 12 - 2])),
            EncodeError::TooLong,
        ),
        (many(MAX_TLVS + 1), EncodeError::TooManyTlvs),
        (ip.clone().with_tlv(Tlv::Ssl(ssl)), EncodeError::TooManyTlvs),
    ];
    for (header, error) in cases {
        assert_eq!(header.encode(), Err(error));
    }
    // The longest that there is.
    let longest = ip
        .clone()
        .with_tlv(Tlv::Authority(vec![0; 65_535 - 12 - 3]));
    let bytes = longest.encode().expect("fits");
    assert_eq!(bytes.len(), 16 + 65_535);
    assert_eq!(whole(&bytes), longest);
    assert!(many(MAX_TLVS).encode().is_ok());

    // One family for both: the IPv4 address is mapped.
    let mixed = Header::proxied(Version::V1, v4, v6).encode();
    let line = b"PROXY TCP6 ::ffff:c000:207 2001:db8::1 1 2\r\n";
    assert_eq!(mixed.as_deref(), Ok(&line[..]));
    let mixed = Header::proxied(Version::V2, v6, v4).encode();
    let mapped = Header::proxied(Version::V2, v6, address("[::ffff:192.0.2.7]:1"));
    assert_eq!(whole(&mixed.expect("can be written")), mapped);

    // What version 1 has no word for.
    let mut unix = Header::unix("/a", "/b");
    let mut local = Header::local();
    for header in [&mut unix, &mut local] {
        header.version = Version::V1;
        assert_eq!(header.encode(), Ok(b"PROXY UNKNOWN\r\n".to_vec()));
    }
}

#[test]
fn reading_takes_few_reads_and_no_byte_of_the_stream() {
    let long = with_tlvs(&[&raw(0xea, &[7; 60_000])]);
    let cases = [
        (&b"PROXY UNKNOWN\r\n"[..], 1),
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", 6),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", 7),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", 2),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 50000 443\r\n", 6),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            14,
        ),
        (&v2(0x20, 0x00, &[]), 2),
        (&v2(0x21, 0x11, &IPV4_BLOCK), 3),
        (&long, 2 + 15),
    ];
    for (header, reads) in cases {
        // A second header is the stream's, and not for us to find.
        let stream = [header, header, b"data"].concat();
        let mut reader = Pieces::new(&stream, &[]);
        let read = block_on(read(&mut reader)).expect("a header");
        assert_eq!(read, whole(header));
        assert_eq!(reader.left, &stream[header.len()..]);
        assert_eq!(reader.reads, reads, "{}", header.escape_ascii());
    }
}

#[test]
fn a_declared_length_sets_no_memory_aside() {
    let mut header = v2(0x21, 0x11, &[]);
    header[14..].fill(0xff);
    let mut reader = Pieces::new(&header, &[]);
    let error = block_on(read(&mut reader)).expect_err("nothing more comes");
    assert!(matches!(error, ReadError::EndOfStream { after: 16 }));
    assert!(reader.most_asked <= 4096, "{}", reader.most_asked);
}

#[test]
fn a_stream_that_ends_inside_a_header_says_after_how_many_bytes() {
    for (stream, after) in [(&b""[..], 0), (b"PROXY TCP4 1.2.3.4 1", 20)] {
        let error = block_on(read(&mut &stream[..])).expect_err("no header");
        assert!(
            matches!(error, ReadError::EndOfStream { after: told } if told == after),
            "{error:?}"
        );
    }
}

#[test]
fn a_failure_of_the_connection_is_its_own_error() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    let error = block_on(read(&mut Broken)).expect_err("broken");
    assert!(
        matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test]
async fn what_follows_a_header_in_one_segment_stays_in_the_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback can be bound");
    let address = listener.local_addr().expect("is bound");
    let sent = [&v2(0x21, 0x11, &IPV4_BLOCK)[..], b"\x16\x03\x01 hello"].concat();
    std::thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(address).expect("connects");
        io::Write::write_all(&mut client, &sent).expect("is sent");
    });
    let (mut server, _) = listener.accept().await.expect("accepts");
    let header = crate::support::soon(read(&mut server))
        .await
        .expect("a header");
    assert_eq!(header.client(), Some(self::address("192.0.2.7:51000")));
    let mut rest = Vec::new();
    crate::support::soon(server.read_to_end(&mut rest))
        .await
        .expect("can be read");
    assert_eq!(rest, b"\x16\x03\x01 hello");
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(
        start in prop::sample::select(vec![
            Vec::new(),
            b"PROXY ".to_vec(),
            b"PROXY TCP4 ".to_vec(),
            b"PROXY TCP6 ".to_vec(),
            SIGNATURE.to_vec(),
            [&SIGNATURE[..], &[0x21, 0x11, 0, 40]].concat(),
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        check(&[start, bytes].concat());
    }

    /// One byte after another, and in any pieces: the same header, and the rest of the stream where it was.
    #[test]
    fn a_header_is_the_same_for_every_cut(
        header in generated::valid(),
        stream in prop::collection::vec(any::<u8>(), 0..40),
        sizes in prop::collection::vec(0_usize..20, 0..60),
    ) {
        let expected = whole(&header);
        for held in 0..header.len() {
            match parse(&header[..held]) {
                Ok(Parsed::Incomplete { at_least }) => {
                    prop_assert!(at_least > 0 && held + at_least <= header.len());
                }
                other => prop_assert!(false, "{:?} after {} bytes", other, held),
            }
        }
        let sent = [&header[..], &stream].concat();
        let mut reader = Pieces::new(&sent, &sizes);
        let read = block_on(read(&mut reader));
        prop_assert_eq!(read.ok(), Some(expected));
        prop_assert_eq!(reader.left, &stream[..]);
        check(&sent);
    }

    #[test]
    fn a_damaged_header_is_the_same_for_every_cut(bytes in generated::damaged()) {
        check(&bytes);
    }

    #[test]
    fn what_is_encoded_is_parsed(header in generated::header()) {
        let bytes = header.encode().expect("can be written");
        prop_assert_eq!(whole(&bytes), header);
    }
}
