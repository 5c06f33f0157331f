use proptest::prelude::*;
use sockeye::tls_peek::{
    ClientHello, Guess, HelloError, MAX_ALPN_NAMES, MAX_HELLO_BYTES, MAX_RECORDS, Peek, peek,
};

/// OpenSSL 3.0, TLS 1.3 only, for `Example.ORG`, with ALPN. Without the zeros of its padding, as all of these.
const OPENSSL_TLS13: (&str, usize) = (
    "1603010200010001fc0303f205339dedd1abbd9a6b9d54c23c4c7f02c4b4520efaa2109b0a545a5e053879209fa99c4f\
    3aba31fd814cbe3360dffb82c53e186e9a509b693967c79dc1526c0f000813021303130100ff010001ab00000010000e\
    00000b4578616d706c652e4f5247000b000403000102000a00160014001d0017001e0019001801000101010201030104\
    002300000010000e000c02683208687474702f312e310016000000170000000d001e001c040305030603080708080809\
    080a080b080408050806040105010601002b0003020304002d00020101003300260024001d0020bd4fd659e159c2b1e2\
    6cf38a5b9c2df34a6428f366c4d4abc0064f8910073773001500fa",
    250,
);

/// OpenSSL 3.0 as it is by default, for `mail.example.org`.
const OPENSSL_DEFAULT: (&str, usize) = (
    "1603010200010001fc0303c7f16ed73514622c6d58bc9646c9f8e1a09e7e591e20f199ce92ef9e0ae81e4f20ad3a7202\
    ae6d9548e18ea6571718512e18584342cbf7710941053f25ae09ed9f0024130213031301c02cc030c02bc02fcca9cca8\
    c024c028c023c027009f009e006b006700ff0100018f0000001500130000106d61696c2e6578616d706c652e6f726700\
    0b000403000102000a00160014001d0017001e0019001801000101010201030104002300000016000000170000000d00\
    2a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b000504\
    03040303002d00020101003300260024001d0020c17abab32ce8a1364260bd22b3cbba8d9a5b5f93213bd11e850d7d04\
    81292766001500dd",
    221,
);

/// OpenSSL 3.0, at most TLS 1.2, for `example.org`.
const OPENSSL_TLS12: (&str, usize) = (
    "16030100b1010000ad030313998948e3d78500964dc3a0b5178d43e0882ff81398ff68b896532d1c18f69f00001ec02c\
    c030c02bc02fcca9cca8c024c028c023c027009f009e006b006700ff0100006600000010000e00000b6578616d706c65\
    2e6f7267000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a00280403\
    05030603080708080809080a080b080408050806040105010601030303010302040205020602",
    0,
);

/// OpenSSL 3.0 to an IP address: no name.
const OPENSSL_NAMELESS: (&str, usize) = (
    "1603010200010001fc0303538073f80faa673c1d63bf296b84991239a0516720a44e9c79849d07d05baeb7202c065b06\
    c6caad8bf3ba4ee33a2f45c6ca713c84dc6efe10c86703eabc53f21d0024130213031301c02cc030c02bc02fcca9cca8\
    c024c028c023c027009f009e006b006700ff0100018f000b000403000102000a00160014001d0017001e001900180100\
    0101010201030104002300000016000000170000000d002a0028040305030603080708080809080a080b080408050806\
    040105010601030303010302040205020602002b00050403040303002d00020101003300260024001d00200f92976bbf\
    65f963e92f0d856979ba89a4d7b5fa3bf96615d8f5f08885bfd539001500f6",
    246,
);

fn bytes_of((hex, zeros): (&str, usize)) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().collect();
    let byte = |pair: &[u8]| {
        let pair = str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    let mut bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}

fn real_hellos() -> Vec<Vec<u8>> {
    [
        OPENSSL_TLS13,
        OPENSSL_DEFAULT,
        OPENSSL_TLS12,
        OPENSSL_NAMELESS,
    ]
    .map(bytes_of)
    .to_vec()
}

type Extension = (u16, Vec<u8>);

/// A length of two bytes, and then these.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn named(host: &[u8]) -> Extension {
    (0, vector(&[&[0][..], &vector(host)].concat()))
}

fn protocols(names: &[&[u8]]) -> Extension {
    let mut list = Vec::new();
    for name in names {
        list.push(u8::try_from(name.len()).expect("short"));
        list.extend(*name);
    }
    (16, vector(&list))
}

/// A handshake message, with its header.
fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[1], &length[1..], body].concat()
}

fn hello_body(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(vector(&[0x0a, 0x0a, 0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(extensions);
    body
}

fn hello_with(extensions: &[Extension]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, data) in extensions {
        list.extend(kind.to_be_bytes());
        list.extend(vector(data));
    }
    message(&hello_body(&vector(&list)))
}

/// The message in records of these sizes, over and over.
fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut rest = message;
    for size in sizes.iter().cycle() {
        let (fragment, after) = rest.split_at((*size).min(rest.len()));
        stream.extend([22, 3, 1]);
        stream.extend(vector(fragment));
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    stream
}

fn peek_message(message: &[u8]) -> Peek {
    peek(&records(message, &[1 << 14]))
}

fn hello(peeked: Peek) -> ClientHello {
    match peeked {
        Peek::ClientHello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// What a reader finds that reads no more than there must be, and how often it had to look.
fn read_as_told(stream: &[u8]) -> (Peek, usize) {
    let mut length = 0;
    for looks in 1.. {
        match peek(&stream[..length]) {
            Peek::Incomplete { at_least } if at_least <= stream.len() => {
                assert!(at_least > length, "no more than there is");
                length = at_least;
            }
            end => return (end, looks),
        }
    }
    unreachable!("the stream ends");
}

/// The result for a prefix is `Incomplete`, or that for the whole.
fn same_for_all_prefixes(stream: &[u8]) -> Result<(), TestCaseError> {
    let whole = peek(stream);
    for length in 0..=stream.len() {
        match peek(&stream[..length]) {
            Peek::Incomplete { at_least } => prop_assert!(at_least > length),
            end => prop_assert_eq!(&end, &whole, "after {} bytes", length),
        }
    }
    Ok(())
}

#[test]
fn hellos_of_real_clients_say_name_protocols_and_versions() {
    let said = |bytes| {
        let hello = hello(peek(&bytes_of(bytes)));
        (hello.server_name, hello.alpn, hello.versions)
    };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(
        said(OPENSSL_TLS13),
        (
            name("example.org"),
            vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            vec![0x0304]
        )
    );
    assert_eq!(
        said(OPENSSL_DEFAULT),
        (name("mail.example.org"), vec![], vec![0x0304, 0x0303])
    );
    assert_eq!(
        said(OPENSSL_TLS12),
        (name("example.org"), vec![], vec![0x0303])
    );
    assert_eq!(said(OPENSSL_NAMELESS), (None, vec![], vec![0x0304, 0x0303]));
}

#[test]
fn reserved_values_are_passed_over() {
    let greased = hello_with(&[
        (0x4a4a, vec![]),
        named(b"example.org"),
        (43, vec![8, 0x1a, 0x1a, 0x03, 0x04, 0x03, 0x03, 0xfa, 0xfa]),
        protocols(&[b"\x2a\x2a", b"h2"]),
        (0xdada, vec![0]),
    ]);
    let hello = hello(peek_message(&greased));
    assert_eq!(hello.server_name.as_deref(), Some("example.org"));
    assert_eq!(hello.versions, [0x0304, 0x0303]);
    assert_eq!(hello.alpn, [&b"\x2a\x2a"[..], b"h2"]);
}

#[test]
fn a_hello_without_extensions_has_the_version_in_its_head() {
    for extensions in [&[][..], &[0, 0]] {
        let hello = hello(peek_message(&message(&hello_body(extensions))));
        assert_eq!(hello.server_name, None);
        assert!(hello.alpn.is_empty());
        assert_eq!(hello.versions, [0x0303]);
    }
}

#[test]
fn every_prefix_of_a_real_hello_is_incomplete_and_says_how_much_it_needs() {
    for stream in real_hellos() {
        assert_eq!(peek(b""), Peek::Incomplete { at_least: 9 });
        for length in 0..stream.len() {
            let Peek::Incomplete { at_least } = peek(&stream[..length]) else {
                panic!("complete after {length} bytes");
            };
            assert!(at_least > length && at_least <= stream.len());
        }
        let (end, looks) = read_as_told(&stream);
        assert_eq!(end, peek(&stream));
        assert_eq!(looks, 3, "the head, the rest, and the end");
    }
}

#[test]
fn the_first_byte_that_rules_tls_out_decides() {
    for first in 0..=u8::MAX {
        let ruled_out = peek(&[first]) == Peek::NotTls;
        assert_eq!(ruled_out, first != 22, "{first}");
        let ruled_out = peek(&[22, first]) == Peek::NotTls;
        assert_eq!(ruled_out, first != 3, "22, {first}");
    }
    let invalid = |bytes: &[u8]| match peek(bytes) {
        Peek::Invalid(error) => error,
        other => panic!("{other:?}"),
    };
    let server_hello = HelloError::NotClientHello { message_type: 2 };
    assert_eq!(invalid(&[22, 3, 3, 0, 80, 2]), server_hello);
    assert_eq!(invalid(&[22, 3, 3, 0, 0]), HelloError::EmptyRecord);
    assert_eq!(
        invalid(&[22, 3, 3, 0x40, 1]),
        HelloError::RecordTooLong { bytes: 16_385 }
    );
    assert_eq!(
        invalid(&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xfd]),
        HelloError::TooLarge
    );
    for second_record in [&[21][..], &[22, 2], b"G"] {
        let start = [&[22, 3, 1, 0, 1, 1][..], second_record].concat();
        assert_eq!(invalid(&start), HelloError::Interrupted);
    }
    let empty = [22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0];
    assert_eq!(invalid(&empty), HelloError::EmptyRecord);
}

#[test]
fn a_hello_of_exactly_the_maximum_passes_and_one_byte_more_does_not() {
    let padded = |whole: usize| {
        let rest = whole - hello_with(&[]).len();
        // Two paddings of different numbers, for one extension holds less than 64 KiB.
        let first = 30_000;
        hello_with(&[(21, vec![0; first]), (99, vec![0; rest - first - 8])])
    };
    let largest = padded(MAX_HELLO_BYTES);
    assert_eq!(largest.len(), MAX_HELLO_BYTES);
    assert!(matches!(peek_message(&largest), Peek::ClientHello(_)));
    assert_eq!(
        peek_message(&padded(MAX_HELLO_BYTES + 1)),
        Peek::Invalid(HelloError::TooLarge)
    );
}

#[test]
fn exactly_the_maximum_of_records_passes_and_one_more_does_not() {
    let of = |bytes: usize| {
        let padding = bytes - hello_with(&[(21, vec![])]).len();
        records(&hello_with(&[(21, vec![0; padding])]), &[1])
    };
    let most = of(MAX_RECORDS);
    assert_eq!(most.len(), 6 * MAX_RECORDS);
    let (end, looks) = read_as_told(&most);
    assert!(matches!(end, Peek::ClientHello(_)));
    assert!(looks < 60, "a lower bound that is good enough: {looks}");
    assert_eq!(
        peek(&of(MAX_RECORDS + 1)),
        Peek::Invalid(HelloError::TooManyRecords)
    );
}

#[test]
fn an_extension_that_is_there_twice_is_refused() {
    let twice = hello_with(&[named(b"a.example"), (23, vec![]), named(b"b.example")]);
    assert_eq!(
        peek_message(&twice),
        Peek::Invalid(HelloError::DuplicateExtension { extension: 0 })
    );
    let twice = hello_with(&[(0xfafa, vec![]), (0xfafa, vec![])]);
    assert_eq!(
        peek_message(&twice),
        Peek::Invalid(HelloError::DuplicateExtension { extension: 0xfafa })
    );
}

#[test]
fn a_server_name_is_a_dns_name_or_an_address_that_counts_as_none() {
    let name = |host: &[u8]| match peek_message(&hello_with(&[named(host)])) {
        Peek::ClientHello(hello) => Ok(hello.server_name),
        Peek::Invalid(error) => Err(error),
        other => panic!("{other:?}"),
    };
    let good = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(name(b"WWW.Example.ORG"), good("www.example.org"));
    assert_eq!(name(b"localhost"), good("localhost"));
    assert_eq!(name(b"example.org."), good("example.org"));
    assert_eq!(name(b"_dmarc.a-b.x1"), good("_dmarc.a-b.x1"));
    assert_eq!(
        name(b"xn--bcher-kva.example"),
        good("xn--bcher-kva.example")
    );
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(name(longest.as_bytes()), good(&longest));
    for address in [&b"192.0.2.1"[..], b"2001:db8::1", b"::ffff:192.0.2.1"] {
        assert_eq!(name(address), Ok(None));
    }
    let longer = format!("{longest}a");
    let long_label = format!("{label}a.example");
    for bad in [
        &b"."[..],
        b"a..b",
        b".a",
        b"a..",
        b"-a.example",
        b"a-.example",
        b"a b",
        b"*.example",
        b"a\0.example",
        b"b\xc3\xbccher.example",
        b"\xff",
        b"1.2.3",
        b"127.1",
        b"example.org:443",
        b"a/b",
        longer.as_bytes(),
        long_label.as_bytes(),
    ] {
        assert_eq!(name(bad), Err(HelloError::ServerName), "{bad:?}");
    }
    assert_eq!(name(b""), Err(HelloError::ServerName));
}

#[test]
fn a_list_of_server_names_has_one_host_and_may_have_what_is_not_known() {
    let listed = |list: &[u8]| match peek_message(&hello_with(&[(0, vector(list))])) {
        Peek::ClientHello(hello) => Ok(hello.server_name),
        Peek::Invalid(error) => Err(error),
        other => panic!("{other:?}"),
    };
    let malformed = Err(HelloError::Malformed {
        part: "server name",
    });
    assert_eq!(listed(b"\x09\0\x01x\0\0\x01a"), Ok(Some("a".to_owned())));
    assert_eq!(listed(b"\x09\0\x01x"), Ok(None));
    assert_eq!(listed(b"\0\0\x01a\0\0\x01b"), malformed);
    assert_eq!(listed(b""), malformed);
    assert_eq!(listed(b"\0\0\x02a"), malformed);
    assert_eq!(listed(b"\0"), malformed);
}

#[test]
fn protocols_are_neither_empty_nor_more_than_the_maximum() {
    let of = |extension: Extension| match peek_message(&hello_with(&[extension])) {
        Peek::ClientHello(hello) => Ok(hello.alpn),
        Peek::Invalid(error) => Err(error),
        other => panic!("{other:?}"),
    };
    let malformed = Err(HelloError::Malformed {
        part: "list of protocols",
    });
    assert_eq!(of(protocols(&[])), malformed);
    assert_eq!(of(protocols(&[b"h2", b""])), malformed);
    assert_eq!(of((16, vec![0, 3, 2, b'h'])), malformed);
    assert_eq!(of((16, vec![0, 2, 1, b'x', 0])), malformed);
    let most = [&b"x"[..]; MAX_ALPN_NAMES + 1];
    assert_eq!(
        of(protocols(&most[1..])).map(|names| names.len()),
        Ok(MAX_ALPN_NAMES)
    );
    assert_eq!(of(protocols(&most)), Err(HelloError::TooManyProtocols));
}

#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let malformed = |message: &[u8]| match peek_message(message) {
        Peek::Invalid(HelloError::Malformed { part }) => part,
        other => panic!("{other:?}"),
    };
    let body = hello_body(&[0, 0]);
    for length in 0..body.len() - 2 {
        assert_eq!(malformed(&message(&body[..length])), "structure");
    }
    let with = |at: usize, byte: u8| {
        let mut body = body.clone();
        body[at] = byte;
        message(&body)
    };
    assert_eq!(malformed(&with(0, 2)), "structure", "no version of TLS");
    assert_eq!(malformed(&with(34, 33)), "structure", "a long session id");
    assert_eq!(malformed(&with(36, 3)), "structure", "half a cipher suite");
    assert_eq!(malformed(&with(41, 0)), "structure", "no compression");
    assert_eq!(malformed(&message(&hello_body(&[0, 0, 0]))), "structure");
    let extensions = message(&hello_body(&[0, 3, 0, 23, 0]));
    assert_eq!(malformed(&extensions), "list of extensions");
    for versions in [&[][..], &[0], &[1, 3], &[3, 3, 4, 3], &[2, 3, 4, 0]] {
        let hello = hello_with(&[(43, versions.to_vec())]);
        assert_eq!(malformed(&hello), "list of versions");
    }
}

proptest! {
    /// However a hello is put into records, whatever follows it, and wherever it is cut.
    #[test]
    fn a_hello_is_the_same_in_any_records(
        which in 0_usize..4,
        sizes in prop::collection::vec(prop_oneof![1_usize..4, 1_usize..600], 1..12),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let whole = &real_hellos()[which];
        let mut stream = records(&whole[5..], &sizes);
        let length = stream.len();
        stream.extend(tail);
        prop_assert_eq!(peek(&stream), peek(whole));
        for cut in 0..length {
            let Peek::Incomplete { at_least } = peek(&stream[..cut]) else {
                return Err(TestCaseError::fail(format!("complete after {cut} bytes")));
            };
            prop_assert!(at_least > cut && at_least <= length);
        }
        prop_assert_eq!(read_as_told(&stream[..length]).0, peek(whole));
    }

    /// Something in a hello is changed, and in whatever way it is cut and read, nothing panics.
    #[test]
    fn a_damaged_hello_gives_one_result_for_every_cut(
        which in 0_usize..4,
        size in 1_usize..600,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        in_the_message in any::<bool>(),
    ) {
        let mut message = real_hellos().swap_remove(which).split_off(5);
        if in_the_message {
            for (at, byte) in &changes {
                let at = at.index(message.len());
                message[at] = *byte;
            }
        }
        let mut stream = records(&message, &[size]);
        if !in_the_message {
            for (at, byte) in &changes {
                let at = at.index(stream.len());
                stream[at] = *byte;
            }
        }
        same_for_all_prefixes(&stream)?;
    }

    #[test]
    fn any_bytes_give_one_result_for_every_cut(
        head in prop::sample::select(vec![&b""[..], b"\x16", b"\x16\x03\x01\0", b"\x16\x03\x01\0\x20\x01\0\0"]),
        tail in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        same_for_all_prefixes(&[head, &tail].concat())?;
    }

    #[test]
    fn any_bytes_are_guessed_at_in_printable_words(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(any::<u8>(), 500..600),
        ],
    ) {
        let words = Guess::of(&bytes).to_string();
        prop_assert!(!words.is_empty() && words.chars().all(|c| !c.is_control()));
    }
}

#[test]
fn what_peers_say_instead_of_tls_is_named() {
    let cases: &[(&[u8], Guess, &str)] = &[
        (b"", Guess::Nothing, "nothing"),
        (b"\x16\x03\x03", Guess::Tls, "TLS"),
        (
            b"\x15\x03\x03\0\x02\x02\x28",
            Guess::TlsAlert,
            "a TLS alert",
        ),
        (b"\x80\x2e\x01\x03\x01", Guess::Ssl2, "SSL 2.0"),
        (b"GET / HTTP/1.1\r\n", Guess::Http, "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", Guess::Http, "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Guess::Http, "HTTP"),
        (
            b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff",
            Guess::Http,
            "HTTP",
        ),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", Guess::Ssh, "SSH"),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            Guess::ProxyProtocol,
            "a PROXY header",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
            Guess::ProxyProtocol,
            "a PROXY header",
        ),
        (
            b"220 mail.example.org ESMTP Postfix\r\n",
            Guess::Smtp,
            "SMTP",
        ),
        (b"EHLO x\r\n", Guess::Smtp, "SMTP"),
        (b"220 (vsFTPd 3.0.3)\r\n", Guess::Ftp, "FTP"),
        (b"220-Welcome\r\n", Guess::SmtpOrFtp, "SMTP or FTP"),
        (b"554 go away\r\n", Guess::SmtpOrFtp, "SMTP or FTP"),
        (b"* OK Dovecot ready.\r\n", Guess::Imap, "IMAP"),
        (b"+OK Dovecot ready.\r\n", Guess::Pop3, "POP3"),
        (
            b"-ERR Protocol error\r\n",
            Guess::Pop3OrRedis,
            "POP3 or Redis",
        ),
        (b"<?xml version='1.0'?><stream:stream ", Guess::Xmpp, "XMPP"),
        (b"RFB 003.008\n", Guess::Rfb, "RFB (VNC)"),
        (b"J\0\0\0\n8.0.36\0", Guess::MySql, "MySQL"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Guess::Postgres, "PostgreSQL"),
        (b"\xff\xfd\x18\xff\xfd\x20", Guess::Telnet, "Telnet"),
        (b"hello\r\n", Guess::PlainText, "plain text"),
        (b"2200", Guess::PlainText, "plain text"),
        (b"gr\xc3\xbc\xc3", Guess::PlainText, "plain text"),
        (b"\xc3\xc3", Guess::Binary, "an unknown binary protocol"),
        (b"a\0b", Guess::Binary, "an unknown binary protocol"),
    ];
    for (bytes, guess, words) in cases {
        assert_eq!(Guess::of(bytes), *guess, "{}", bytes.escape_ascii());
        assert_eq!(guess.to_string(), *words);
    }
}
