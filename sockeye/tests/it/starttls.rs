use proptest::prelude::*;
use sockeye::starttls::{
    MAX_LDAP_BYTES, MAX_LINE_BYTES, MAX_REPLY_LINES, MAX_SAID_CHARS, MAX_XMPP_BYTES,
    NegotiateError, Negotiation, Protocol, StarttlsError, Step, UnknownProtocol, negotiate,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::soon;

const HOST: &str = "example.org";

/// A conversation as a real server holds it, to its consent.
#[derive(Debug)]
struct Transcript {
    protocol: Protocol,
    turns: &'static [Turn],
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Server(&'static [u8]),
    Client(&'static [u8]),
}

use Turn::{Client, Server};

const XMPP_HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream to='example.org' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const XMPP_STARTTLS: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROSODY_FEATURES: &[u8] = b"<?xml version='1.0'?>\
    <stream:stream xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='example.org' \
    id='c8c1d05b' xml:lang='en' xmlns='jabber:client'>\
    <stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
    </stream:features>";
const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

const TRANSCRIPTS: &[Transcript] = &[
    // Postfix.
    Transcript {
        protocol: Protocol::Smtp,
        turns: &[
            Server(b"220 mail.example.org ESMTP Postfix (Debian/GNU)\r\n"),
            Client(b"EHLO [127.0.0.1]\r\n"),
            Server(
                b"250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n\
                250-ETRN\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n\
                250-SMTPUTF8\r\n250 CHUNKING\r\n",
            ),
            Client(b"STARTTLS\r\n"),
            Server(b"220 2.0.0 Ready to start TLS\r\n"),
        ],
    },
    // A greeting of many lines, words in lower case, STARTTLS in the last line, replies without text.
    Transcript {
        protocol: Protocol::Smtp,
        turns: &[
            Server(b"220-mail.example.org ESMTP Exim 4.96\r\n220-We do not allow\r\n220 spam.\r\n"),
            Client(b"EHLO [127.0.0.1]\r\n"),
            Server(b"250-mail.example.org Hello [127.0.0.1]\n250-HELP\n250 starttls\n"),
            Client(b"STARTTLS\r\n"),
            Server(b"220\r\n"),
        ],
    },
    // Dovecot.
    Transcript {
        protocol: Protocol::Imap,
        turns: &[
            Server(
                b"* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ \
                STARTTLS LOGINDISABLED] Dovecot (Debian) ready.\r\n",
            ),
            Client(b"a1 CAPABILITY\r\n"),
            Server(
                b"* CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS \
                LOGINDISABLED\r\na1 OK Pre-login capabilities listed, post-login capabilities have \
                more.\r\n",
            ),
            Client(b"a2 STARTTLS\r\n"),
            Server(b"a2 OK Begin TLS negotiation now.\r\n"),
        ],
    },
    Transcript {
        protocol: Protocol::Pop3,
        turns: &[
            Server(b"+OK Dovecot (Debian) ready.\r\n"),
            Client(b"CAPA\r\n"),
            Server(
                b"+OK\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nSTLS\r\n\
                SASL\r\n.\r\n",
            ),
            Client(b"STLS\r\n"),
            Server(b"+OK Begin TLS negotiation now.\r\n"),
        ],
    },
    Transcript {
        protocol: Protocol::Postgres,
        turns: &[Client(b"\0\0\0\x08\x04\xd2\x16\x2f"), Server(b"S")],
    },
    Transcript {
        protocol: Protocol::Xmpp,
        turns: &[
            Client(XMPP_HEADER),
            Server(PROSODY_FEATURES),
            Client(XMPP_STARTTLS),
            Server(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        ],
    },
    // ejabberd, with double quotes, a `>` in a value, more features, a keepalive, and elements written in full.
    Transcript {
        protocol: Protocol::Xmpp,
        turns: &[
            Client(XMPP_HEADER),
            Server(
                b"<?xml version='1.0'?><stream:stream id=\"11>1\" version=\"1.0\" xml:lang=\"en\" \
                xmlns:stream=\"http://etherx.jabber.org/streams\" from=\"example.org\" \
                xmlns=\"jabber:client\"><stream:features>\
                <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1\
                </mechanism></mechanisms>\
                <t:starttls xmlns:t = \"urn:ietf:params:xml:ns:xmpp-tls\" ></t:starttls>\
                <register xmlns=\"http://jabber.org/features/iq-register\"/></stream:features>\r\n",
            ),
            Client(XMPP_STARTTLS),
            Server(b" <proceed xmlns=\"urn:ietf:params:xml:ns:xmpp-tls\"></proceed>"),
        ],
    },
    // OpenLDAP.
    Transcript {
        protocol: Protocol::Ldap,
        turns: &[
            Client(LDAP_REQUEST),
            Server(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"),
        ],
    },
    // Active Directory: lengths of four bytes, and the name of what it answers.
    Transcript {
        protocol: Protocol::Ldap,
        turns: &[
            Client(LDAP_REQUEST),
            Server(
                b"\x30\x84\x00\x00\x00\x28\x02\x01\x01\x78\x84\x00\x00\x00\x1f\x0a\x01\x00\x04\x00\
                \x04\x00\x8a\x161.3.6.1.4.1.1466.20037",
            ),
        ],
    },
];

/// The conversation with a server that says these things, each when the one before it has been answered, and each in
/// the pieces that `cut` makes of it. What we said, and how it ended.
fn hold(
    protocol: Protocol,
    says: &[&[u8]],
    cut: impl Fn(&[u8]) -> Vec<Vec<u8>>,
) -> (Vec<Vec<u8>>, Result<Step, StarttlsError>) {
    let (mut negotiation, mut step) = Negotiation::begin(protocol, HOST);
    let mut sent = Vec::new();
    let mut says = says.iter();
    loop {
        match step {
            Step::Agreed => return (sent, Ok(Step::Agreed)),
            Step::Send(command) => sent.push(command),
            Step::Wait => {}
        }
        let Some(next) = says.next() else {
            return (sent, Err(negotiation.ended()));
        };
        step = Step::Wait;
        for piece in cut(next) {
            match negotiation.receive(&piece) {
                // What may still come before we speak, space in XMPP, does not take the word from us.
                Ok(Step::Wait) => {}
                Ok(next) => step = next,
                Err(error) => return (sent, Err(error)),
            }
        }
    }
}

/// How it ends, which must be the same for every cut of every answer.
fn outcome(protocol: Protocol, says: &[&[u8]]) -> Result<Step, StarttlsError> {
    let whole = hold(protocol, says, |answer| vec![answer.to_vec()]);
    let single = hold(protocol, says, |answer| {
        answer.chunks(1).map(<[u8]>::to_vec).collect()
    });
    assert_eq!(single, whole, "byte by byte");
    let longest = says.iter().map(|answer| answer.len()).max().unwrap_or(0);
    // Every place in a short answer, some in a long one.
    for at in (0..longest).step_by(longest / 500 + 1) {
        let halves = hold(protocol, says, |answer| {
            let (head, tail) = answer.split_at(at.min(answer.len()));
            vec![head.to_vec(), tail.to_vec()]
        });
        assert_eq!(halves, whole, "cut at {at}");
    }
    whole.1
}

fn refused(said: &str) -> Result<Step, StarttlsError> {
    Err(StarttlsError::Refused {
        said: said.to_owned(),
    })
}

fn malformed(due: &'static str, said: &str) -> Result<Step, StarttlsError> {
    Err(StarttlsError::Malformed {
        due,
        said: said.to_owned(),
    })
}

fn server_turns(transcript: &Transcript) -> Vec<&'static [u8]> {
    let server = |turn: &Turn| match turn {
        Server(says) => Some(*says),
        Client(_) => None,
    };
    transcript.turns.iter().filter_map(server).collect()
}

#[test]
fn real_conversations_end_in_consent_for_every_cut() {
    for transcript in TRANSCRIPTS {
        let says = server_turns(transcript);
        assert_eq!(outcome(transcript.protocol, &says), Ok(Step::Agreed));
    }
}

#[test]
fn we_speak_when_it_is_our_turn_and_say_what_the_protocol_has() {
    for transcript in TRANSCRIPTS {
        let (mut negotiation, mut step) = Negotiation::begin(transcript.protocol, HOST);
        for turn in transcript.turns {
            match *turn {
                Client(says) => assert_eq!(step, Step::Send(says.to_vec())),
                Server(says) => step = negotiation.receive(says).expect("goes on"),
            }
        }
        assert_eq!(step, Step::Agreed);
    }
}

#[test]
fn a_byte_with_the_consent_is_early_data_in_whatever_segment_it_comes() {
    for transcript in TRANSCRIPTS {
        for extra in [&b"\n"[..], b" ", b"\x16\x03\x03", b"250 injected\r\n"] {
            let mut says = server_turns(transcript);
            let consent = says.pop().expect("a last turn");
            let together = [consent, extra].concat();
            says.push(&together);
            let (_, end) = hold(transcript.protocol, &says, |answer| vec![answer.to_vec()]);
            let bytes = extra.len();
            assert_eq!(end, Err(StarttlsError::EarlyData { bytes }));
            for at in 1..together.len() {
                let (_, end) = hold(transcript.protocol, &says, |answer| {
                    let (head, tail) = answer.split_at(at.min(answer.len()));
                    vec![head.to_vec(), tail.to_vec()]
                });
                assert!(matches!(end, Err(StarttlsError::EarlyData { bytes }) if bytes > 0));
            }
        }
    }
}

#[test]
fn an_answer_that_comes_before_its_command_is_refused() {
    for transcript in TRANSCRIPTS {
        let says = server_turns(transcript);
        for (at, pair) in says.windows(2).enumerate() {
            let pipelined = pair.concat();
            let mut early = says[..at].to_vec();
            early.push(&pipelined);
            let (_, end) = hold(transcript.protocol, &early, |answer| vec![answer.to_vec()]);
            assert!(matches!(end, Err(StarttlsError::EarlyAnswer { .. })));
        }
    }
    let both = b"220 ready\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n";
    let (mut negotiation, _) = Negotiation::begin(Protocol::Smtp, HOST);
    let early = Err(StarttlsError::EarlyAnswer { bytes: 29 });
    assert_eq!(negotiation.receive(both), early);
    assert_eq!(negotiation.receive(b""), early, "an error stays");
    assert_eq!(negotiation.receive(b"250 STARTTLS\r\n"), early);
}

#[test]
fn after_the_consent_everything_is_early_data() {
    let (mut negotiation, _) = Negotiation::begin(Protocol::Postgres, HOST);
    assert_eq!(negotiation.receive(b"S"), Ok(Step::Agreed));
    assert_eq!(negotiation.receive(b""), Ok(Step::Agreed));
    let early = Err(StarttlsError::EarlyData { bytes: 2 });
    assert_eq!(negotiation.receive(b"SS"), early);
    assert_eq!(negotiation.receive(b""), early);
}

#[test]
fn a_server_that_does_not_list_it_does_not_offer_it() {
    let silent: &[(Protocol, &[&[u8]])] = &[
        (
            Protocol::Smtp,
            &[b"220 x\r\n", b"250-STARTTLS.example\r\n250 SIZE\r\n"],
        ),
        // The first line is the server's name, and a word is not a part of one.
        (Protocol::Smtp, &[b"220 x\r\n", b"250 STARTTLS\r\n"]),
        (
            Protocol::Smtp,
            &[
                b"220 x\r\n",
                b"250-x\r\n250-STARTTLSX\r\n250 X STARTTLS\r\n",
            ],
        ),
        (
            Protocol::Imap,
            &[
                b"* OK [CAPABILITY STARTTLS] hi\r\n",
                b"* CAPABILITY IMAP4rev1\r\na1 OK done\r\n",
            ],
        ),
        (
            Protocol::Pop3,
            &[b"+OK STLS\r\n", b"+OK STLS\r\nTOP\r\nX STLS\r\n.\r\n"],
        ),
        (Protocol::Postgres, &[b"N"]),
        (
            Protocol::Xmpp,
            &[b"<stream:stream version='1.0'><stream:features/>"],
        ),
        (
            Protocol::Xmpp,
            &[
                b"<stream:stream version='1.0'><stream:features><starttls xmlns='other'/>\
                <x><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></x></stream:features>",
            ],
        ),
        // Before version 1.0 there are no features to wait for.
        (Protocol::Xmpp, &[b"<stream:stream id='1'>"]),
    ];
    for (protocol, says) in silent {
        assert_eq!(
            outcome(*protocol, says),
            Err(StarttlsError::NotOffered),
            "{protocol}"
        );
    }
}

#[test]
fn a_refusal_keeps_the_servers_words() {
    let xmpp_failure = b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>";
    let xmpp_error = b"<stream:stream version='1.0'><stream:error><host-unknown \
        xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text>none &lt; such</text></stream:error>";
    let cases: &[(Protocol, &[&[u8]], &str)] = &[
        (
            Protocol::Smtp,
            &[
                b"220 x\r\n",
                b"250-x\r\n250 STARTTLS\r\n",
                b"454 TLS not available\r\n",
            ],
            "454 TLS not available",
        ),
        (
            Protocol::Smtp,
            &[b"554-mx.example\r\n554 Go away\r\n"],
            "554-mx.example 554 Go away",
        ),
        (
            Protocol::Smtp,
            &[b"220 x\r\n", b"502 no EHLO\r\n"],
            "502 no EHLO",
        ),
        (
            Protocol::Imap,
            &[
                b"* OK hi\r\n",
                b"* CAPABILITY starttls\r\na1 OK\r\n",
                b"* OK still\r\na2 NO later\r\n",
            ],
            "* OK still a2 NO later",
        ),
        (
            Protocol::Imap,
            &[b"* PREAUTH logged in\r\n"],
            "* PREAUTH logged in",
        ),
        (Protocol::Imap, &[b"* BYE busy\r\n"], "* BYE busy"),
        (
            Protocol::Imap,
            &[b"* OK hi\r\n", b"a1 BAD what\r\n"],
            "a1 BAD what",
        ),
        (Protocol::Pop3, &[b"-ERR busy\r\n"], "-ERR busy"),
        (
            Protocol::Pop3,
            &[b"+OK\r\n", b"-ERR unknown command\r\n"],
            "-ERR unknown command",
        ),
        (
            Protocol::Pop3,
            &[b"+OK\r\n", b"+OK\r\nSTLS\r\n.\r\n", b"-ERR no\r\n"],
            "-ERR no",
        ),
        (
            Protocol::Xmpp,
            &[PROSODY_FEATURES, xmpp_failure],
            "failure",
        ),
        (Protocol::Xmpp, &[xmpp_error], "host-unknown"),
        (
            Protocol::Ldap,
            &[b"\x30\x14\x02\x01\x01\x78\x0f\x0a\x01\x02\x04\x00\x04\x08unsuppor"],
            "2 protocolError: unsuppor",
        ),
        // A notice of disconnection, with message id 0.
        (
            Protocol::Ldap,
            &[b"\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036"],
            "52 unavailable",
        ),
    ];
    for (protocol, says, said) in cases {
        assert_eq!(outcome(*protocol, says), refused(said), "{protocol}");
    }
    let (mut negotiation, _) = Negotiation::begin(Protocol::Postgres, HOST);
    let error = negotiation.receive(b"E\0\0\0\x10Sfalse\0").expect_err("no");
    assert!(matches!(error, StarttlsError::Refused { said } if !said.contains("false")));
}

#[test]
fn what_another_protocol_says_is_shown_and_not_taken_for_an_answer() {
    let cases: &[(Protocol, &[&[u8]], &'static str, &str)] = &[
        (
            Protocol::Smtp,
            &[b"SSH-2.0-OpenSSH_9.2p1\r\n"],
            "an SMTP greeting",
            "SSH-2.0-OpenSSH_9.2p1",
        ),
        (
            Protocol::Smtp,
            &[b"220-x\r\n221 y\r\n"],
            "an SMTP greeting",
            "221 y",
        ),
        (Protocol::Smtp, &[b"22x x\r\n"], "an SMTP greeting", "22x x"),
        (Protocol::Smtp, &[b"220x\r\n"], "an SMTP greeting", "220x"),
        (Protocol::Smtp, &[b"2\r\n"], "an SMTP greeting", "2"),
        (
            Protocol::Smtp,
            &[b"220 x\r\n", b"354 go on\r\n"],
            "an answer to EHLO",
            "354 go on",
        ),
        (Protocol::Imap, &[b"+OK\r\n"], "an IMAP greeting", "+OK"),
        (
            Protocol::Imap,
            &[b"* FLAGS\r\n"],
            "an IMAP greeting",
            "* FLAGS",
        ),
        (
            Protocol::Imap,
            &[b"* OK\r\n", b"a2 OK\r\n"],
            "an answer to CAPABILITY",
            "a2 OK",
        ),
        (
            Protocol::Imap,
            &[b"* OK\r\n", b"+ go on\r\n"],
            "an answer to CAPABILITY",
            "+ go on",
        ),
        (Protocol::Pop3, &[b"+OKAY\r\n"], "a POP3 greeting", "+OKAY"),
        (Protocol::Postgres, &[b"H"], "an answer to SSLRequest", "H"),
        (Protocol::Xmpp, &[b"HTTP/1.1"], "an XMPP stream", "H"),
        (Protocol::Xmpp, &[b"<html>"], "an XMPP stream", "html"),
        (Protocol::Xmpp, &[b"<!-- -->"], "an XMPP stream", "!-- --"),
        (
            Protocol::Xmpp,
            &[b"<stream:stream version='1.0'><?xml?>"],
            "a list of XMPP stream features",
            "?xml?",
        ),
        (
            Protocol::Xmpp,
            &[PROSODY_FEATURES, b"<proceed xmlns='other'/>"],
            "an answer to starttls",
            "proceed",
        ),
        (
            Protocol::Xmpp,
            &[b"<stream:stream version=1>"],
            "an XMPP stream",
            "stream:stream version=1",
        ),
        (Protocol::Xmpp, &[b"</x>"], "an XMPP stream", "/x"),
        (Protocol::Xmpp, &[b"<a<"], "an XMPP stream", "<"),
        (Protocol::Ldap, &[b"SSH"], "an answer to StartTLS", "S"),
        // An indefinite length, and one of five bytes.
        (
            Protocol::Ldap,
            &[b"\x30\x80"],
            "an answer to StartTLS",
            "0\\x80",
        ),
        (
            Protocol::Ldap,
            &[b"\x30\x85"],
            "an answer to StartTLS",
            "0\\x85",
        ),
    ];
    for (protocol, says, due, said) in cases {
        assert_eq!(outcome(*protocol, says), malformed(due, said), "{protocol}");
    }
}

#[test]
fn an_ldap_response_must_be_what_it_says_it_is() {
    let good = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00";
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        outcome(Protocol::Ldap, &[&bytes])
    };
    assert_eq!(with(4, 1), Ok(Step::Agreed));
    for (at, byte) in [
        (2, 0x03), // not an integer
        (3, 0x00), // an integer without bytes
        (4, 0x02), // the answer to another request
        (4, 0x00), // success, and to no request
        (4, 0x80), // a negative number
        (5, 0x61), // a bind response
        (6, 0x06), // shorter than its parts
        (6, 0x08), // longer than what is there
        (7, 0x02), // an integer for an enumeration
        (8, 0x02), // a code that takes a part of the next element
        (11, 0x01),
        (13, 0x01),
    ] {
        assert!(
            matches!(with(at, byte), Err(StarttlsError::Malformed { .. })),
            "{byte:#x} at {at}"
        );
    }
    // Bytes in the message that belong to nothing, and the name of another operation.
    for bytes in [
        &b"\x30\x0e\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00\x04\x00"[..],
        b"\x30\x0e\x02\x01\x01\x78\x09\x0a\x01\x00\x04\x00\x04\x00\x04\x00",
        b"\x30\x0f\x02\x01\x01\x78\x0a\x0a\x01\x00\x04\x00\x04\x00\x8a\x011",
    ] {
        let end = outcome(Protocol::Ldap, &[bytes]);
        assert!(matches!(end, Err(StarttlsError::Malformed { .. })));
    }
    // Controls, referrals and a value may be there.
    let full =
        b"\x30\x14\x02\x01\x01\x78\x0b\x0a\x01\x00\x04\x00\x04\x00\xa3\x00\x8b\x00\xa0\x02\x30\x00";
    assert_eq!(outcome(Protocol::Ldap, &[full]), Ok(Step::Agreed));
}

#[test]
fn the_end_of_the_stream_says_what_was_due() {
    let due = |protocol, says: &[&[u8]]| match outcome(protocol, says) {
        Err(StarttlsError::Ended { due }) => due,
        other => panic!("{other:?}"),
    };
    assert_eq!(due(Protocol::Smtp, &[]), "an SMTP greeting");
    assert_eq!(due(Protocol::Smtp, &[b"220-x\r\n"]), "an SMTP greeting");
    assert_eq!(due(Protocol::Smtp, &[b"220 x\r\n"]), "an answer to EHLO");
    let offer = [&b"220 x\r\n"[..], b"250-x\r\n250 STARTTLS\r\n"];
    assert_eq!(due(Protocol::Smtp, &offer), "an answer to STARTTLS");
    assert_eq!(due(Protocol::Imap, &[]), "an IMAP greeting");
    assert_eq!(due(Protocol::Pop3, &[b"+OK\r\n"]), "an answer to CAPA");
    assert_eq!(due(Protocol::Postgres, &[]), "an answer to SSLRequest");
    assert_eq!(due(Protocol::Xmpp, &[]), "an XMPP stream");
    assert_eq!(
        due(
            Protocol::Xmpp,
            &[b"<stream:stream version='1.0'></stream:stream>"]
        ),
        "an XMPP stream"
    );
    assert_eq!(
        due(Protocol::Xmpp, &[PROSODY_FEATURES, b"<proceed "]),
        "an answer to starttls"
    );
    assert_eq!(due(Protocol::Ldap, &[b"\x30"]), "an answer to StartTLS");
}

#[test]
fn a_line_of_exactly_the_maximum_passes_and_one_byte_more_does_not() {
    let line = |bytes: usize| {
        let text = "x".repeat(bytes - 6);
        format!("220 {text}\r\n").into_bytes()
    };
    let ended = Err(StarttlsError::Ended {
        due: "an answer to EHLO",
    });
    assert_eq!(outcome(Protocol::Smtp, &[&line(MAX_LINE_BYTES)]), ended);
    let long = Err(StarttlsError::LineTooLong);
    assert_eq!(outcome(Protocol::Smtp, &[&line(MAX_LINE_BYTES + 1)]), long);
    let endless = vec![b'x'; MAX_LINE_BYTES + 1];
    assert_eq!(outcome(Protocol::Pop3, &[&endless]), long);
}

#[test]
fn an_answer_of_exactly_the_maximum_of_lines_passes_and_one_more_does_not() {
    let lines = |count: usize| {
        let mut answer = "250-x\r\n".repeat(count - 1).into_bytes();
        answer.extend(b"250 STARTTLS\r\n");
        answer
    };
    let greeting = b"220 x\r\n";
    assert_eq!(
        outcome(
            Protocol::Smtp,
            &[greeting, &lines(MAX_REPLY_LINES), b"220\r\n"]
        ),
        Ok(Step::Agreed)
    );
    assert_eq!(
        outcome(Protocol::Smtp, &[greeting, &lines(MAX_REPLY_LINES + 1)]),
        Err(StarttlsError::TooManyLines)
    );
    let chatter = "* OK [ALERT] x\r\n".repeat(MAX_REPLY_LINES + 1);
    assert_eq!(
        outcome(Protocol::Imap, &[b"* OK\r\n", chatter.as_bytes()]),
        Err(StarttlsError::TooManyLines)
    );
}

#[test]
fn xmpp_is_bounded_in_every_place_and_anew_after_each_command() {
    let features = |bytes: usize| {
        let (head, tail) = PROSODY_FEATURES.split_at(PROSODY_FEATURES.len() - 18);
        let filler = vec![b' '; bytes - PROSODY_FEATURES.len()];
        [head, &filler, tail].concat()
    };
    let proceed = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    assert_eq!(
        outcome(Protocol::Xmpp, &[&features(MAX_XMPP_BYTES), proceed]),
        Ok(Step::Agreed)
    );
    let long = Err(StarttlsError::XmppTooLong);
    assert_eq!(
        outcome(Protocol::Xmpp, &[&features(MAX_XMPP_BYTES + 1)]),
        long
    );
    for endless in [b' ', b'<'] {
        let mut endless = vec![endless];
        endless.resize(MAX_XMPP_BYTES + 1, b' ');
        assert_eq!(outcome(Protocol::Xmpp, &[&endless]), long);
    }
}

#[test]
fn an_ldap_response_is_refused_by_the_length_that_it_declares() {
    let long = Err(StarttlsError::LdapTooLong);
    for header in [&b"\x30\x83\x00\xff\xfc"[..], b"\x30\x84\xff\xff\xff\xff"] {
        assert_eq!(outcome(Protocol::Ldap, &[header]), long);
    }
    let ended = Err(StarttlsError::Ended {
        due: "an answer to StartTLS",
    });
    assert_eq!(MAX_LDAP_BYTES, 0xfffb + 5);
    assert_eq!(outcome(Protocol::Ldap, &[b"\x30\x83\x00\xff\xfb"]), ended);
}

#[test]
fn what_a_server_says_cannot_command_a_terminal_nor_fill_it() {
    let said = |greeting: &[u8]| match outcome(Protocol::Pop3, &[greeting]) {
        Err(StarttlsError::Refused { said }) => said,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        said(b"-ERR \x1b[31m'\x07\"\\\xff\xe2\x80\xae\xc3\xa4\n"),
        "-ERR \\u{1b}[31m'\\u{7}\"\\\\\\xff\\u{202e}\u{e4}"
    );
    let exact = format!("-ERR {}", "\u{20ac}".repeat(MAX_SAID_CHARS - 5));
    assert_eq!(said(format!("{exact}\r\n").as_bytes()), exact);
    let long = said(format!("{exact}x\r\n").as_bytes());
    assert_eq!(long.chars().count(), MAX_SAID_CHARS);
    assert!(long.ends_with('…'));
}

#[test]
fn the_host_is_escaped_in_the_stream_header() {
    let (_, step) = Negotiation::begin(Protocol::Xmpp, "a'/><b&\"\n");
    let Step::Send(header) = step else {
        panic!("nothing to send");
    };
    let header = String::from_utf8(header).expect("UTF-8");
    assert!(header.contains(" to='a&apos;/&gt;&lt;b&amp;&quot;&#10;' "));
}

#[test]
fn a_protocol_is_parsed_from_the_name_that_it_shows() {
    for protocol in Protocol::ALL {
        assert_eq!(protocol.to_string().parse(), Ok(protocol));
    }
    for name in ["", "SMTP", "ftp", "smtp "] {
        assert_eq!(name.parse::<Protocol>(), Err(UnknownProtocol));
    }
}

/// One of the conversations up to some byte, and then anything.
fn derailed() -> impl Strategy<Value = (Protocol, Vec<Vec<u8>>)> {
    let transcript = prop::sample::select(TRANSCRIPTS.iter().collect::<Vec<_>>());
    let kinds = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        // Of few kinds, so that there are lines, tags and elements among them.
        prop::collection::vec(
            prop::sample::select(&b"20 -*a1OK.<>/='\"\r\n\x30\x82\x02\x01\x04\x0a\x78"[..]),
            0..80
        ),
    ];
    (transcript, any::<prop::sample::Index>(), 0_usize..4, kinds).prop_map(
        |(transcript, cut, turns, tail)| {
            let says = server_turns(transcript);
            let turns = turns.min(says.len() - 1);
            let mut derailed: Vec<Vec<u8>> =
                says[..turns].iter().map(|says| says.to_vec()).collect();
            let mut last = says[turns].to_vec();
            last.truncate(cut.index(last.len() + 1));
            last.extend(tail);
            derailed.push(last);
            (transcript.protocol, derailed)
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_are_answered_the_same_for_every_cut((protocol, says) in derailed()) {
        let (last, before) = says.split_last().expect("at least one");
        let fresh = || {
            let (mut negotiation, _) = Negotiation::begin(protocol, HOST);
            for says in before {
                let _ = negotiation.receive(says);
            }
            negotiation
        };
        let whole = fresh().receive(last);
        let mut single = fresh();
        let mut taken = 0;
        let mut step = Ok(Step::Wait);
        for byte in last {
            step = single.receive(&[*byte]);
            taken += 1;
            if step != Ok(Step::Wait) {
                break;
            }
        }
        let rest = last.len() - taken;
        match whole {
            Err(StarttlsError::EarlyAnswer { bytes }) => {
                prop_assert!(matches!(step, Ok(Step::Send(_))));
                prop_assert_eq!(bytes, rest);
            }
            Err(StarttlsError::EarlyData { bytes }) => {
                prop_assert_eq!(step, Ok(Step::Agreed));
                prop_assert_eq!(bytes, rest);
            }
            whole => prop_assert_eq!(step, whole),
        }
    }
}

/// A server that says these things, each when it has been asked, and then hangs up.
async fn against(protocol: Protocol, turns: &[Turn]) -> Result<(), NegotiateError> {
    let (mut client, mut server) = tokio::io::duplex(1 << 17);
    let serve = async {
        for turn in turns {
            match turn {
                Server(says) => server.write_all(says).await.expect("room"),
                Client(asks) => {
                    let mut asked = vec![0; asks.len()];
                    if server.read_exact(&mut asked).await.is_err() {
                        return;
                    }
                    assert_eq!(asked, *asks);
                }
            }
        }
        drop(server);
    };
    let ask = async {
        let end = negotiate(&mut client, protocol, HOST).await;
        drop(client);
        end
    };
    soon(async { tokio::join!(serve, ask).1 }).await
}

#[tokio::test]
async fn real_conversations_are_held_over_a_stream() {
    for transcript in TRANSCRIPTS {
        against(transcript.protocol, transcript.turns)
            .await
            .expect("consent");
    }
}

#[tokio::test]
async fn the_first_byte_after_the_consent_is_left_for_the_handshake() {
    let (mut client, mut server) = tokio::io::duplex(1024);
    let serve = async {
        let mut request = [0; 8];
        server.read_exact(&mut request).await.expect("a request");
        server.write_all(b"S").await.expect("room");
        let mut hello = [0; 5];
        server.read_exact(&mut hello).await.expect("a hello");
        server.write_all(&hello).await.expect("room");
    };
    let ask = async {
        let end = negotiate(&mut client, Protocol::Postgres, HOST).await;
        end.expect("consent");
        client.write_all(b"hello").await.expect("room");
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"hello");
    };
    soon(async { tokio::join!(serve, ask) }).await;
}

#[tokio::test]
async fn early_bytes_are_found_even_where_a_read_ends_before_them() {
    // 4096 bytes are read at once, and this answer ends there.
    let mut answer = Vec::new();
    for _ in 0..4 {
        answer.extend(format!("250-{}\r\n", "x".repeat(1000)).into_bytes());
    }
    answer.extend(format!("250 STARTTLS {}\r\n", "x".repeat(4096 - 4 * 1006 - 15)).into_bytes());
    assert_eq!(answer.len(), 4096);
    answer.extend(b"220 go\r\n");
    let answer: &'static [u8] = answer.leak();
    let turns = [
        Server(b"220 x\r\n"),
        Client(b"EHLO [127.0.0.1]\r\n"),
        Server(answer),
        Client(b"STARTTLS\r\n"),
    ];
    let end = against(Protocol::Smtp, &turns).await;
    assert!(matches!(
        end,
        Err(NegotiateError::Starttls(StarttlsError::EarlyAnswer {
            bytes: 8
        }))
    ));
}

#[tokio::test]
async fn injected_bytes_and_a_hang_up_end_a_negotiation() {
    let turns = [
        Client(b"\0\0\0\x08\x04\xd2\x16\x2f"),
        Server(b"SR\0\0\0\x08"),
    ];
    let end = against(Protocol::Postgres, &turns).await;
    assert!(matches!(
        end,
        Err(NegotiateError::Starttls(StarttlsError::EarlyData {
            bytes: 5
        }))
    ));
    let end = against(Protocol::Postgres, &turns[..1]).await;
    assert!(matches!(
        end,
        Err(NegotiateError::Starttls(StarttlsError::Ended { .. }))
    ));
    let end = against(Protocol::Smtp, &[]).await;
    assert!(matches!(
        end,
        Err(NegotiateError::Starttls(StarttlsError::Ended {
            due: "an SMTP greeting"
        }))
    ));
}
