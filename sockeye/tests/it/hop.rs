use std::net::SocketAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sockeye::client::{Connector, Failure, HopOutcome, Proxy, Target};
use sockeye::hop::{
    Credentials, Destination, HopError, MAX_HEAD_BYTES, Negotiation, OpenError, Protocol, Refusal,
    RequestError, UnknownProtocol, open,
};
use sockeye::services;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::closed_port;
use crate::corpora::hop::{Found, hold};
use crate::support::{Running, echoes, loopback, soon};

fn name() -> Destination {
    Destination::Name("example.org".to_owned(), 443)
}

fn v4() -> Destination {
    Destination::Address(([192, 0, 2, 1], 80).into())
}

fn v6() -> Destination {
    Destination::Address("[2001:db8::1]:80".parse().expect("an address"))
}

fn alice() -> Credentials {
    Credentials::new("alice", "s3cret")
}

/// What is said to a proxy that says these bytes, and how it ended; the same for every cut, and without a byte too many.
fn talk(
    protocol: Protocol,
    destination: &Destination,
    credentials: Option<&Credentials>,
    says: &[u8],
) -> Found {
    let begin = || Negotiation::begin(protocol, destination, credentials).expect("can be asked");
    let whole = hold(begin(), says, &[usize::MAX]);
    for pieces in [&[1][..], &[2, 3, 5]] {
        assert_eq!(
            hold(begin(), says, pieces),
            whole,
            "in pieces of {pieces:?}"
        );
    }
    whole
}

fn outcome(protocol: Protocol, says: &[u8]) -> Result<(), HopError> {
    talk(protocol, &v4(), None, says).outcome
}

fn with_credentials(protocol: Protocol, says: &[u8]) -> Result<(), HopError> {
    talk(protocol, &v4(), Some(&alice()), says).outcome
}

#[test]
fn a_protocol_has_its_name() {
    for protocol in Protocol::ALL {
        assert_eq!(protocol.to_string().parse(), Ok(protocol));
    }
    assert_eq!("https".parse::<Protocol>(), Err(UnknownProtocol));
}

#[test]
fn socks5_says_what_rfc_1928_and_1929_have() {
    let reply = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34";
    let with_name = talk(
        Protocol::Socks5,
        &name(),
        None,
        &[b"\x05\x00", &reply[..]].concat(),
    );
    assert_eq!(
        with_name.said,
        [
            &b"\x05\x01\x00"[..],
            b"\x05\x01\x00\x03\x0bexample.org\x01\xbb",
        ]
    );
    assert_eq!((with_name.outcome, with_name.used), (Ok(()), 12));

    let with_password = talk(
        Protocol::Socks5,
        &v4(),
        Some(&alice()),
        &[b"\x05\x02\x01\x00", &reply[..]].concat(),
    );
    assert_eq!(
        with_password.said,
        [
            &b"\x05\x02\x00\x02"[..],
            b"\x01\x05alice\x06s3cret",
            b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50",
        ]
    );
    assert_eq!((with_password.outcome, with_password.used), (Ok(()), 14));

    // A proxy that wants no password is not told it.
    let kept = talk(Protocol::Socks5, &v6(), Some(&alice()), b"\x05\x00");
    assert_eq!(kept.said.len(), 2);
    assert!(kept.said[1].starts_with(b"\x05\x01\x00\x04\x20\x01\x0d\xb8"));
}

#[test]
fn a_socks5_reply_ends_where_its_address_ends() {
    let named = [b"\x05\x00\x05\x00\x00\x03\x04host", &[0, 80][..]].concat();
    for reply in [
        &b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"[..],
        &b"\x05\x00\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x34"[..],
        &b"\x05\x00\x05\x00\x00\x03\x00\x12\x34"[..],
        &named,
    ] {
        let beyond = [reply, b"SSH-2.0-x"].concat();
        let found = talk(Protocol::Socks5, &v4(), None, &beyond);
        assert_eq!((found.outcome, found.used), (Ok(()), reply.len()));
    }
}

#[test]
fn a_no_in_socks5_is_told_with_its_reason() {
    for (code, words, is_temporary) in [
        (1, "general failure", true),
        (2, "its rules do not allow it", false),
        (3, "network unreachable", true),
        (4, "host unreachable", true),
        (5, "connection refused", true),
        (6, "TTL expired", true),
        (7, "it does not know how to connect", false),
        (8, "it does not know this kind of address", false),
        (9, "reply 9, which has no meaning", false),
    ] {
        // Some proxies send nothing after the code.
        let refused = outcome(Protocol::Socks5, &[5, 0, 5, code]).expect_err("refused");
        assert_eq!(refused, HopError::Refused(Refusal::Socks5(code)));
        assert_eq!(refused.to_string(), format!("the proxy refused: {words}"));
        assert_eq!(refused.is_temporary(), is_temporary, "{words}");
    }
    let socks5 = |says| outcome(Protocol::Socks5, says);
    assert_eq!(socks5(b"\x05\xff"), Err(HopError::CredentialsWanted));
    let rejected = with_credentials(Protocol::Socks5, b"\x05\x02\x01\x01");
    assert_eq!(rejected, Err(HopError::CredentialsRejected));
    let other = with_credentials(Protocol::Socks5, b"\x05\xff");
    assert!(matches!(other, Err(HopError::UnknownCredentials { .. })));
}

#[test]
fn socks4_says_what_its_papers_have() {
    let granted = b"\x00\x5a\x00\x00\x00\x00\x00\x00";
    let user = Credentials::new("alice", "");
    let plain = talk(Protocol::Socks4, &v4(), Some(&user), granted);
    assert_eq!(plain.said, [b"\x04\x01\x00\x50\xc0\x00\x02\x01alice\x00"]);
    assert_eq!((plain.outcome, plain.used), (Ok(()), 8));
    let named = talk(Protocol::Socks4a, &name(), None, granted);
    assert_eq!(
        named.said,
        [b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.org\x00"]
    );
    assert_eq!(named.outcome, Ok(()));
    for code in [91, 92, 93] {
        let refused = outcome(Protocol::Socks4, &[0, code]);
        assert_eq!(refused, Err(HopError::Refused(Refusal::Socks4(code))));
    }
}

#[test]
fn connect_says_what_rfc_9110_and_7617_have() {
    let plain = talk(
        Protocol::Http,
        &name(),
        None,
        b"HTTP/1.1 200 Connection established\r\n\r\nSSH-2.0-x",
    );
    assert_eq!(
        plain.said,
        [b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"]
    );
    assert_eq!((plain.outcome, plain.used), (Ok(()), 39));
    let known = talk(Protocol::Http, &v6(), Some(&alice()), b"");
    assert_eq!(
        known.said,
        [
            &b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\
            Proxy-Authorization: Basic YWxpY2U6czNjcmV0\r\n\r\n"[..]
        ]
    );
}

#[test]
fn a_tunnel_begins_after_the_head_of_any_2xx() {
    for head in [
        "HTTP/1.0 200 OK\r\nVia: x\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.1 200\n\n",
        "HTTP/1.1 299 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        for beyond in ["", "\r\n\r\n", "x"] {
            let says = format!("{head}{beyond}");
            let found = talk(Protocol::Http, &v4(), None, says.as_bytes());
            assert_eq!(
                (found.outcome, found.used),
                (Ok(()), head.len()),
                "{head:?}"
            );
        }
    }
}

#[test]
fn a_no_to_connect_is_told_with_its_reason() {
    let refusal = |status, reason: &str| {
        let reason = reason.to_owned();
        Err(HopError::Refused(Refusal::Http { status, reason }))
    };
    let http = |head: &str| {
        outcome(
            Protocol::Http,
            format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(),
        )
    };
    assert_eq!(http("403 Filtered"), refusal(403, "Filtered"));
    assert_eq!(http("502 Bad \x1b[31m"), refusal(502, "Bad \\u{1b}[31m"));
    assert_eq!(http("503"), refusal(503, ""));
    assert_eq!(http("101 Switching"), refusal(101, "Switching"));
    let temporary = |head| http(head).expect_err("refused").is_temporary();
    assert!(temporary("502 x") && temporary("504"));
    assert!(!temporary("403") && !temporary("501") && !temporary("302"));
}

#[test]
fn what_a_proxy_wants_to_know_is_told() {
    let head = |fields: &str| format!("HTTP/1.1 407 No\r\n{fields}\r\n");
    let basic = head("Proxy-Authenticate: Basic realm=\"a\"\r\n");
    let both = head("Proxy-Authenticate: Digest realm=\"a\"\r\nproxy-authenticate: basic\r\n");
    for head in [&basic, &both, &head("")] {
        let (head, http) = (head.as_bytes(), Protocol::Http);
        assert_eq!(outcome(http, head), Err(HopError::CredentialsWanted));
        let rejected = with_credentials(http, head);
        assert_eq!(rejected, Err(HopError::CredentialsRejected));
    }
    // tinyproxy.
    let unauthorized = b"HTTP/1.0 401 Unauthorized\r\n\r\n";
    let rejected = with_credentials(Protocol::Http, unauthorized);
    assert_eq!(rejected, Err(HopError::CredentialsRejected));
    let refused = outcome(Protocol::Http, unauthorized);
    assert!(matches!(refused, Err(HopError::Refused(_))));
    let digest = head("Proxy-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n");
    let offered = "Digest credentials".to_owned();
    let unknown = Err(HopError::UnknownCredentials { offered });
    assert_eq!(with_credentials(Protocol::Http, digest.as_bytes()), unknown);
}

#[test]
fn what_is_no_answer_is_told_with_what_came() {
    for (protocol, says, said) in [
        (Protocol::Socks5, &b"HTTP/1.1 400"[..], "H"),
        (Protocol::Socks5, b"\x05\x02", "\\u{5}\\u{2}"),
        (
            Protocol::Socks5,
            b"\x05\x00\x05\x00\x00\x02",
            "\\u{5}\\0\\0\\u{2}",
        ),
        (Protocol::Socks4, b"\x05\x00", "\\u{5}"),
        (Protocol::Socks4, b"\x00\x00", "\\0\\0"),
        (Protocol::Http, b"SSH-2.0-OpenSSH", "SSH-2.0"),
        (Protocol::Http, b"hm\r\n", "hm"),
        (Protocol::Http, b"HTTP/1.1 20\r\n", "HTTP/1.1 20"),
        (Protocol::Http, b"HTTP/1.1 2000\r\n", "HTTP/1.1 2000"),
        (Protocol::Http, b"HTTP/1.1 099 x\r\n", "HTTP/1.1 099 x"),
    ] {
        match outcome(protocol, says) {
            Err(HopError::Malformed { said: shown, .. }) => assert_eq!(shown, said),
            other => panic!("{other:?} of {}", says.escape_ascii()),
        }
    }
    for (protocol, says) in [
        (Protocol::Socks5, &b"\x05"[..]),
        (Protocol::Socks4, b"\x00\x5a\x00"),
        (Protocol::Http, b"HTTP/1.1 200 OK\r\n"),
    ] {
        let ended = outcome(protocol, says);
        assert!(matches!(ended, Err(HopError::Ended { .. })), "{ended:?}");
    }
}

#[test]
fn what_a_proxy_may_say_has_a_maximum() {
    let line = format!("HTTP/1.1 200 {}", "a".repeat(MAX_HEAD_BYTES));
    assert_eq!(
        outcome(Protocol::Http, line.as_bytes()),
        Err(HopError::HeadTooLong)
    );
    // Of all heads together: interim answers do not begin anew.
    let interim = "HTTP/1.1 100\r\n\r\n".repeat(MAX_HEAD_BYTES / 16 + 1);
    assert_eq!(
        outcome(Protocol::Http, interim.as_bytes()),
        Err(HopError::HeadTooLong)
    );
    let fitting = format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(MAX_HEAD_BYTES - 17));
    assert_eq!(outcome(Protocol::Http, fitting.as_bytes()), Ok(()));
}

#[test]
fn what_cannot_be_asked_is_refused_before_a_byte_is_sent() {
    let refused = |protocol, destination: &Destination, credentials: Option<Credentials>| {
        let begun = Negotiation::begin(protocol, destination, credentials.as_ref());
        begun.map(|(_, step)| step).expect_err("is refused")
    };
    let long = "a".repeat(256);
    for host in [
        "",
        "a b",
        "a\r\nX: y",
        "a\0b",
        "a/b",
        "fe80::1%1",
        "a@b",
        "\u{fc}",
        &long,
    ] {
        let name = Destination::Name(host.to_owned(), 80);
        for protocol in Protocol::ALL {
            let expected = RequestError::Name {
                name: host.to_owned(),
            };
            assert_eq!(refused(protocol, &name, None), expected);
        }
    }
    assert_eq!(
        refused(Protocol::Socks4, &name(), None),
        RequestError::NoNames
    );
    assert_eq!(
        refused(Protocol::Socks4a, &v6(), None),
        RequestError::Ipv4Only
    );
    for (protocol, user, password) in [
        (Protocol::Socks5, "", "x"),
        (Protocol::Socks5, &long, "x"),
        (Protocol::Socks5, "x", &long),
        (Protocol::Socks4, "alice", "s3cret"),
        (Protocol::Socks4a, "a\0b", ""),
        (Protocol::Http, "a:b", ""),
        (Protocol::Http, "a", "b\nc"),
        (Protocol::Http, "a", &"b".repeat(4096)),
    ] {
        let error = refused(protocol, &v4(), Some(Credentials::new(user, password)));
        assert!(matches!(error, RequestError::Credentials { .. }), "{error}");
        assert!(!error.to_string().contains("s3cret"));
    }
    assert!(!format!("{:?}", alice()).contains("s3cret"));
}

/// From where on any byte can matter.
const BEGINNINGS: &[&[u8]] = &[
    b"",
    b"\x05",
    b"\x05\x00\x05\x00\x00",
    b"\x05\x02\x01\x00\x05\x00\x00\x03",
    b"\x00\x5a",
    b"HTTP/1.1 200",
    b"HTTP/1.1 407 x\r\nProxy-Authenticate:",
    b"HTTP/1.0 100 \r\n\r\n",
];

proptest! {
    #[test]
    fn any_bytes_of_a_proxy_mean_the_same_in_every_cut(
        bytes in vec(any::<u8>(), 0..40),
        beginning in prop::sample::select(BEGINNINGS),
    ) {
        crate::corpora::hop::check(&[beginning, &bytes].concat());
    }
}

#[tokio::test]
async fn what_comes_with_the_consent_is_left_to_the_destination() {
    for (protocol, consent) in [
        (
            Protocol::Socks5,
            &b"\x05\x00\x05\x00\x00\x03\x02ab\x00\x50"[..],
        ),
        (Protocol::Socks4a, b"\x00\x5a\x00\x00\x00\x00\x00\x00"),
        (Protocol::Http, b"HTTP/1.1 200 OK\r\nVia: 1.1 x\r\n\r\n"),
    ] {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        let says = [consent, b"220 hello\r\n"].concat();
        soon(theirs.write_all(&says)).await.expect("sent");
        soon(open(&mut ours, protocol, &name(), None))
            .await
            .expect("open");
        let mut next = [0; 11];
        soon(ours.read_exact(&mut next)).await.expect("is there");
        assert_eq!(&next, b"220 hello\r\n", "{protocol}");
    }
}

/// A proxy of one answer for each connection: what it was told after `greeting`, and then the answer; an echo afterwards.
async fn proxy(answers: Vec<Vec<u8>>) -> (SocketAddr, tokio::task::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            requests.push(socks5(&mut stream, &answer).await);
            let (mut reader, mut writer) = stream.split();
            // Whoever is not served closes.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
        requests
    });
    (address, task)
}

/// The server's part of SOCKS5: the request that was made, after which this is the answer.
async fn socks5(stream: &mut TcpStream, answer: &[u8]) -> Vec<u8> {
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await.expect("a greeting");
    stream.write_all(b"\x05\x00").await.expect("sent");
    let mut request = vec![0; 512];
    let bytes = stream.read(&mut request).await.expect("a request");
    request.truncate(bytes);
    stream.write_all(answer).await.expect("sent");
    request
}

const YES: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";
const REFUSED: &[u8] = b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00";

fn through(address: SocketAddr, resolve_here: bool) -> Connector {
    let mut proxy = Proxy::new(Protocol::Socks5, address);
    proxy.resolve_here = resolve_here;
    let mut connector = Connector::default();
    connector.proxy = Some(proxy);
    connector
}

#[tokio::test]
async fn a_connector_goes_through_its_proxy_and_tells_of_it() {
    let (address, proxy) = proxy(vec![YES.to_vec()]).await;
    let connector = through(address, false);
    let connected = soon(connector.connect(("example.org", 80)))
        .await
        .expect("open");
    assert_eq!(connected.peer, address.into());
    let [hop] = connected.report.hops.as_slice() else {
        panic!("one hop: {:?}", connected.report);
    };
    assert_eq!(
        hop.destination,
        Destination::Name("example.org".to_owned(), 80)
    );
    assert!(matches!(hop.outcome, HopOutcome::Open), "{hop:?}");
    assert!(hop.ended_at >= Some(hop.started_at));
    let mut stream = connected.stream;
    echoes(&mut stream, b"hello").await;
    drop(stream);
    let requests = soon(proxy).await.expect("no panic");
    assert_eq!(requests, [b"\x05\x01\x00\x03\x0bexample.org\x00\x50"]);
}

#[tokio::test]
async fn addresses_are_asked_for_one_after_the_other() {
    let (address, proxy) = proxy(vec![REFUSED.to_vec(), YES.to_vec()]).await;
    let targets: Vec<SocketAddr> = ["192.0.2.1:80", "192.0.2.2:80"]
        .map(|text| text.parse().expect("an address"))
        .to_vec();
    let target = Target::Addresses(targets);
    let connected = soon(through(address, true).connect(target))
        .await
        .expect("open");
    let outcomes: Vec<bool> = connected
        .report
        .hops
        .iter()
        .map(|hop| matches!(hop.outcome, HopOutcome::Open))
        .collect();
    assert_eq!(outcomes, [false, true]);
    drop(connected);
    let requests = soon(proxy).await.expect("no panic");
    assert!(
        requests[1].ends_with(&[192, 0, 2, 2, 0, 80]),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_no_that_stands_is_not_asked_for_again() {
    let forbidden = b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    let (address, proxy) = proxy(vec![forbidden]).await;
    let targets = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().expect("an address"));
    let target = Target::Addresses(targets.to_vec());
    let error = soon(through(address, true).connect(target))
        .await
        .expect_err("forbidden");
    assert!(matches!(error.failure, Failure::Proxy) && !error.is_of_proxy());
    assert_eq!(error.report.hops.len(), 1);
    let expected = format!(
        "no connection to 192.0.2.1:80, 192.0.2.2:80 through the proxy {address}: 192.0.2.1:80: \
         the proxy refused: its rules do not allow it"
    );
    assert_eq!(error.to_string(), expected);
    soon(proxy).await.expect("no panic");
}

#[tokio::test]
async fn a_name_that_is_resolved_here_is_asked_for_by_its_addresses() {
    let answers = vec![YES.to_vec()];
    let (address, proxy) = proxy(answers).await;
    let connected = soon(through(address, true).connect(("localhost", 80)))
        .await
        .expect("open");
    let hop = connected.report.hops.first().expect("asked");
    assert!(matches!(hop.destination, Destination::Address(to) if to.ip().is_loopback()));
    drop(connected);
    soon(proxy).await.expect("no panic");
}

#[tokio::test]
async fn a_proxy_that_says_nothing_costs_the_timeout_and_no_more() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = silent.local_addr().expect("bound");
    let mut connector = through(address, false);
    connector.timeout = Duration::from_millis(50);
    let error = soon(connector.connect(("example.org", 80)))
        .await
        .expect_err("silent");
    assert!(matches!(error.failure, Failure::TimedOut(_)), "{error:?}");
    let expected = format!("the proxy {address} did not reach example.org:80 within 50ms");
    assert_eq!(error.to_string(), expected);
    let hop = error.report.hops.first().expect("asked");
    assert!(matches!(hop.outcome, HopOutcome::Unfinished) && hop.ended_at.is_none());
}

#[tokio::test]
async fn a_proxy_that_hangs_up_has_not_connected_us() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let proxy = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        socks5(&mut stream, b"\x05").await
    });
    let connector = through(address, false);
    let error = soon(connector.connect(("example.org", 80)))
        .await
        .expect_err("hung up");
    let hop = error.report.hops.first().expect("asked");
    let HopOutcome::Failed(reason) = &hop.outcome else {
        panic!("{hop:?}");
    };
    assert!(
        matches!(reason, OpenError::Hop(HopError::Ended { .. })),
        "{reason:?}"
    );
    assert!(reason.is_temporary());
    soon(proxy).await.expect("no panic");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_from_a_target_that_is_not() {
    let (_held, address) = closed_port("127.0.0.1");
    let error = soon(through(address, false).connect(("example.org", 80)))
        .await
        .expect_err("nobody listens");
    assert!(error.is_of_proxy() && matches!(error.failure, Failure::AllFailed));
    assert!(error.report.hops.is_empty());
    let words = error.to_string();
    let expected = format!("the proxy of example.org:80 is not there: cannot connect to {address}");
    assert!(words.starts_with(&expected), "{words}");
}

#[tokio::test]
async fn what_no_proxy_can_reach_is_refused_without_connecting() {
    let server = Running::start(loopback(), services::echo());
    let connector = through(server.address, false);
    let error = connector
        .connect(Target::Unix("/no/such/socket".into()))
        .await
        .expect_err("no proxy connects to a Unix socket");
    assert!(matches!(
        error.failure,
        Failure::Request(RequestError::UnixSocket)
    ));
    let error = connector.connect(("a b", 80)).await.expect_err("no name");
    assert!(matches!(
        error.failure,
        Failure::Request(RequestError::Name { .. })
    ));
    let mut connector = connector;
    connector.proxy = Some(Proxy::new(Protocol::Socks4, server.address));
    let error = connector.connect(("::1", 80)).await.expect_err("no IPv4");
    assert!(matches!(
        error.failure,
        Failure::Request(RequestError::Ipv4Only)
    ));
    assert!(error.report.attempts.is_empty());
    server.stop().await;
}
