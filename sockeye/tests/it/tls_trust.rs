//! Who is trusted, who is not, and what is said about it.

use std::slice::from_ref;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    SerialNumber,
};
use sockeye::tls::{
    Acceptor, AcceptorOptions, Certificates, ConfigError, Connector, ConnectorOptions, Fingerprint,
    HandshakeError, Identity, NoFingerprint, RejectedCertificate, RevocationLists, Trust,
};
use sockeye::{CloseReason, Conn, service_fn, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{
    Authority, Signed, TLS12, TLS13, Wanted, acceptor, connect, connector, lists, raw_client_as,
    raw_connect, shows, trusts,
};
use crate::support::{Close, Running, echoes, loopback, soon};

/// A server that shows this.
fn serving(shown: &Signed) -> Running {
    let acceptor = acceptor(vec![shown.identity()]);
    Running::start(loopback().tls(&acceptor), services::echo())
}

/// Why a client does not trust the server that shows this, and what the server hears of it.
async fn rejected(
    shown: &Signed,
    options: ConnectorOptions,
    name: &str,
) -> (RejectedCertificate, Close) {
    let mut server = serving(shown);
    let connector = Connector::new(options).expect("usable");
    let error = connect(&server, &connector, name)
        .await
        .expect_err("not to be trusted");
    let close = server.next_close().await;
    assert_eq!(close.reason, CloseReason::TlsHandshake);
    server.stop().await;
    let HandshakeError::Certificate(rejected) = error else {
        panic!("not for the certificate: {error:?}")
    };
    (*rejected, close)
}

/// The words about it, if they are words.
fn words(rejected: &RejectedCertificate) -> String {
    let text = rejected.to_string();
    assert_plain(&text);
    let reason = text.strip_prefix("the certificate is not to be trusted: ");
    reason.expect("so it begins").to_owned()
}

/// Neither anything that a terminal obeys, nor what only programmers can read.
fn assert_plain(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    for debug in ["(\"", "Context", "{", "Other(", "DnsName", "IpAddress"] {
        assert!(!text.contains(debug), "{text}");
    }
}

async fn accepted(shown: &Signed, options: ConnectorOptions, name: &str) {
    let server = serving(shown);
    let connector = Connector::new(options).expect("usable");
    let mut client = connect(&server, &connector, name).await.expect("trusted");
    echoes(&mut client, b"hello").await;
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn a_chain_by_an_intermediate_authority_is_trusted_by_its_root() {
    let root = Authority::root("root");
    let shown = root.intermediate("middle").server(&["a.example"]);
    accepted(&shown, trusts(root.trust()), "a.example").await;
}

#[tokio::test]
async fn a_certificate_that_nobody_known_has_signed_is_rejected_and_can_be_looked_at() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let middle = root.intermediate("middle");
    let shown = middle.server(&["a.example"]);
    let (rejected, close) = rejected(&shown, trusts(other.trust()), "a.example").await;
    assert!(rejected.is_unknown_issuer());
    assert!(words(&rejected).starts_with("it is signed by nobody who is trusted here"));
    let chain: Vec<&[u8]> = rejected.chain().collect();
    assert_eq!(chain, [shown.der.as_slice(), &middle.der()]);
    assert_eq!(rejected.fingerprint(), Some(Fingerprint::of(&shown.der)));
    assert_eq!(
        close.error.as_deref(),
        Some("the peer refused: it does not take our certificate (alert UnknownCA)")
    );
}

#[tokio::test]
async fn a_missing_intermediate_certificate_is_an_unknown_issuer() {
    let root = Authority::root("root");
    let mut shown = root.intermediate("middle").server(&["a.example"]);
    let end = shown.chain.find("-----END CERTIFICATE-----").expect("PEM");
    shown
        .chain
        .truncate(end + "-----END CERTIFICATE-----\n".len() + 1);
    let (rejected, _) = rejected(&shown, trusts(root.trust()), "a.example").await;
    assert!(rejected.is_unknown_issuer());
    assert!(words(&rejected).contains("intermediate certificate is missing"));
}

#[tokio::test]
async fn a_certificate_is_rejected_outside_its_time_and_the_day_is_told() {
    let root = Authority::root("root");
    let day = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let (year_2001, year_2100) = (day(1_000_000_000), day(4_102_444_800));
    for (from, to, expected) in [
        (
            day(0),
            year_2001,
            "it expired on Sun, 09 Sep 2001 01:46:40 GMT",
        ),
        (
            year_2100,
            year_2100 + Duration::from_secs(86_400),
            "it is not valid before Fri, 01 Jan 2100 00:00:00 GMT",
        ),
    ] {
        let shown = root.sign(Wanted::server(&["a.example"]).valid(from, to));
        let (rejected, close) = rejected(&shown, trusts(root.trust()), "a.example").await;
        assert_eq!(words(&rejected), expected);
        assert!(!rejected.is_unknown_issuer());
        let told = close.error.expect("told");
        assert!(told.contains("it does not take our certificate"), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_for_other_names_is_rejected_and_both_names_are_told() {
    let root = Authority::root("root");
    for (shown, typed, expected) in [
        (
            &["b.example", "*.c.example"][..],
            "a.example",
            "it is for b.example, *.c.example, not for a.example",
        ),
        (
            &["*.b.example"],
            "x.y.b.example",
            "it is for *.b.example, not for x.y.b.example",
        ),
        (
            &["a.example", "192.0.2.1", "2001:db8::1"],
            "127.0.0.1",
            "it is for a.example, 192.0.2.1, 2001:db8::1, not for 127.0.0.1",
        ),
        (
            &["127.0.0.1"],
            "a.example",
            "it is for 127.0.0.1, not for a.example",
        ),
        (
            &[],
            "a.example",
            "it is for no name at all, so not for a.example",
        ),
    ] {
        let shown = root.server(shown);
        let (rejected, _) = rejected(&shown, trusts(root.trust()), typed).await;
        assert_eq!(words(&rejected), expected);
    }
}

#[tokio::test]
async fn an_ip_address_is_a_name_like_any_other() {
    let root = Authority::root("root");
    let shown = root.server(&["127.0.0.1", "::1"]);
    for typed in ["127.0.0.1", "::1", "0:0::1", "::1%lo"] {
        accepted(&shown, trusts(root.trust()), typed).await;
    }
}

/// A certificate is of the peer's choosing, up to what its authority lets pass, and a rejected one may have none.
#[tokio::test]
async fn hostile_names_in_a_certificate_are_shown_and_not_obeyed() {
    let root = Authority::root("root");
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("ASCII"));
    let wanted = Wanted::server(&["b.example"])
        .named(dns("\u{1b}[31mred\r\n.example"))
        .named(dns("x\"), DnsName(\"y"))
        .named(SanType::URI(
            "https://b.example/\u{7}".try_into().expect("ASCII"),
        ))
        .named(SanType::Rfc822Name(
            "mail@b.example".try_into().expect("ASCII"),
        ));
    let shown = root.sign(wanted);
    let (rejected, _) = rejected(&shown, trusts(root.trust()), "a.example").await;
    let text = rejected.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.contains("it is for b.example, "), "{text}");
    assert!(text.ends_with("not for a.example"), "{text}");
    for debug in ["UniformResourceIdentifier", "Unsupported", "IpAddress"] {
        assert!(!text.contains(debug), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_of_many_names_does_not_flood_the_message() {
    let root = Authority::root("root");
    let names: Vec<String> = (0..200)
        .map(|number| format!("host-{number}.with.a.rather.long.name.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let shown = root.server(&names);
    let (rejected, _) = rejected(&shown, trusts(root.trust()), "a.example").await;
    let text = words(&rejected);
    assert!(text.len() < 1000, "{} bytes", text.len());
    assert!(text.ends_with(" and 190 more, not for a.example"), "{text}");
}

#[tokio::test]
async fn a_certificate_for_something_else_than_servers_is_rejected_in_words() {
    let root = Authority::root("root");
    let mut wanted = Wanted::server(&["a.example"]);
    wanted.parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let shown = root.sign(wanted);
    let (rejected, _) = rejected(&shown, trusts(root.trust()), "a.example").await;
    words(&rejected);
}

fn revoking(root: &Authority, text: &str) -> ConnectorOptions {
    let mut options = trusts(root.trust());
    options.revocations = lists(text);
    options
}

#[tokio::test]
async fn what_its_authority_has_taken_back_is_rejected_at_every_depth_of_the_chain() {
    let root = Authority::root("root");
    let middle = root.intermediate("middle");
    let shown = middle.server(&["a.example"]);
    let other = middle.server(&["a.example"]);
    let revoked = "it, or one of its chain, was revoked by its authority";

    let leaf = root.revokes(&[]) + &middle.revokes(&[&shown.serial]);
    let (reason, close) = rejected(&shown, revoking(&root, &leaf), "a.example").await;
    assert_eq!(words(&reason), revoked);
    let told = close.error.expect("told");
    assert!(told.contains("it does not take our certificate"), "{told}");
    accepted(&other, revoking(&root, &leaf), "a.example").await;

    let above = root.revokes(&[&middle.serial()]) + &middle.revokes(&[]);
    let (reason, _) = rejected(&other, revoking(&root, &above), "a.example").await;
    assert_eq!(words(&reason), revoked);

    let missing = root.revokes(&[]);
    let (reason, _) = rejected(&other, revoking(&root, &missing), "a.example").await;
    assert_eq!(
        words(&reason),
        "no revocation list speaks for one of its chain"
    );

    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let old = root.revokes(&[]) + &middle.revocation_list(&[], yesterday);
    let (reason, _) = rejected(&other, revoking(&root, &old), "a.example").await;
    assert!(words(&reason).starts_with("the revocation list is out of date since "));
}

#[tokio::test]
async fn a_revocation_list_that_its_authority_has_not_signed_speaks_for_nobody() {
    let root = Authority::root("root");
    let shown = root.server(&["a.example"]);
    let forged = Authority::root("root").revokes(&[]);
    let mut server = serving(&shown);
    let connector = Connector::new(revoking(&root, &forged)).expect("nothing is known of it yet");
    let error = connect(&server, &connector, "a.example")
        .await
        .expect_err("not to be trusted");
    assert!(error.to_string().contains("revocation list"), "{error}");
    assert_eq!(server.next_close().await.reason, CloseReason::TlsHandshake);
    server.stop().await;
}

#[tokio::test]
async fn a_pin_alone_trusts_one_certificate_whoever_signed_it_for_whatever_name_and_time() {
    let root = Authority::root("root");
    let shown = root.sign(Wanted::server(&["b.example"]).expired());
    let mut options = trusts(Trust::PinsOnly);
    options.pins = vec![
        Fingerprint::of(b"another"),
        Fingerprint::of(&shown.der),
        Fingerprint::of(b"one more"),
    ];
    accepted(&shown, options.clone(), "a.example").await;

    let other = root.server(&["a.example"]);
    let (rejected, _) = rejected(&other, options, "a.example").await;
    assert_eq!(words(&rejected), "it is not the pinned one");
    assert_eq!(rejected.fingerprint(), Some(Fingerprint::of(&other.der)));

    let error = Connector::new(trusts(Trust::PinsOnly)).expect_err("trusts nobody");
    assert_eq!(error, ConfigError::NoPin);
}

/// As `openssl req -x509` makes them, and everybody uses them for tests.
#[tokio::test]
async fn an_authority_that_serves_itself_is_trusted_where_it_was_given_by_its_own_name_and_dates() {
    let own = |from: i64, until: i64| {
        let mut parameters = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.not_before = day(from).into();
        parameters.not_after = day(until).into();
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("signed");
        Signed {
            chain: certificate.pem(),
            der: certificate.der().to_vec(),
            key: key.serialize_pem(),
            serial: SerialNumber::from(1_u64),
        }
    };
    let given = |signed: &Signed| {
        let certificates = Certificates::from_pem(signed.chain.as_bytes());
        trusts(Trust::Authorities(certificates.expect("our own")))
    };
    let shown = own(-1, 1);
    accepted(&shown, given(&shown), "a.example").await;
    let (other_name, _) = rejected(&shown, given(&shown), "b.example").await;
    assert_eq!(words(&other_name), "it is for a.example, not for b.example");
    let expired = own(-2, -1);
    let (expired, _) = rejected(&expired, given(&expired), "a.example").await;
    assert!(words(&expired).starts_with("it expired on "), "{expired}");
    // Of the same name, and with another key.
    let (stranger, _) = rejected(&shown, given(&own(-1, 1)), "a.example").await;
    assert!(
        words(&stranger).contains("marked as the certificate of an authority"),
        "{stranger}"
    );
}

fn day(from_now: i64) -> SystemTime {
    let days = Duration::from_secs(86_400 * from_now.unsigned_abs());
    match from_now {
        0.. => SystemTime::now() + days,
        _ => SystemTime::now() - days,
    }
}

#[test]
fn revocation_lists_that_nobody_would_look_at_are_an_error() {
    let root = Authority::root("root");
    let list = root.revocation_list(&[], SystemTime::now() + Duration::from_secs(60));
    for trust in [Trust::Platform, Trust::Anyone] {
        let mut options = trusts(trust);
        options.revocations = lists(&list);
        let error = Connector::new(options).expect_err("they protect from nothing");
        assert_eq!(error, ConfigError::RevocationsAlone);
    }
}

#[tokio::test]
async fn a_pin_beside_an_authority_has_to_match_as_well() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let shown = root.server(&["a.example"]);
    let mut options = trusts(root.trust());
    options.pins = vec![Fingerprint::of(&shown.der)];
    accepted(&shown, options.clone(), "a.example").await;

    let unpinned = root.server(&["a.example"]);
    let (reason, _) = rejected(&unpinned, options.clone(), "a.example").await;
    assert_eq!(words(&reason), "it is not the pinned one");

    let (reason, _) = rejected(&shown, options.clone(), "b.example").await;
    assert_eq!(words(&reason), "it is for a.example, not for b.example");

    options.trust = other.trust();
    let (reason, _) = rejected(&shown, options, "a.example").await;
    assert!(reason.is_unknown_issuer());
}

#[tokio::test]
async fn whoever_trusts_anyone_gets_anyone_and_can_look() {
    let root = Authority::root("root");
    let shown = root.sign(Wanted::server(&["b.example"]).not_yet_valid());
    let server = serving(&shown);
    let client = connect(&server, &connector(Trust::Anyone), "a.example")
        .await
        .expect("trusted");
    let session = client.tls().expect("there is TLS");
    assert_eq!(session.peer_certificates, [shown.der]);
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn the_typed_name_is_verified_whatever_name_is_sent() {
    let root = Authority::root("root");
    let (typed, sent) = (
        root.server(&["typed.example"]),
        root.server(&["sent.example"]),
    );
    let mut options = trusts(root.trust());
    options.sni = Some("sent.example".to_owned());

    // The server that is asked for has another certificate than the one that is meant.
    let (reason, _) = rejected(&sent, options.clone(), "typed.example").await;
    assert_eq!(
        words(&reason),
        "it is for sent.example, not for typed.example"
    );

    let (sender, mut names) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |mut conn: Conn| {
        let session = conn.stream().tls().expect("there is TLS");
        let _ = sender.send(session.server_name);
        async move {
            let byte = conn.read_u8().await?;
            conn.write_u8(byte).await
        }
    });
    let acceptor = acceptor(vec![typed.identity()]);
    let server = Running::start(loopback().tls(&acceptor), service);
    let connector = Connector::new(options).expect("usable");
    for _ in 0..2 {
        let mut client = connect(&server, &connector, "typed.example")
            .await
            .expect("trusted");
        echoes(&mut client, b"x").await;
        let seen = soon(names.recv()).await.expect("served");
        assert_eq!(seen.as_deref(), Some("sent.example"));
    }
    // A session with one server must not be taken for one with another, only because the same name was sent.
    let error = connect(&server, &connector, "elsewhere.example")
        .await
        .expect_err("not that one");
    assert!(matches!(error, HandshakeError::Certificate(_)));
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn what_can_be_no_name_is_an_error_before_anything_is_sent() {
    let server = serving(&Authority::root("root").server(&["a.example"]));
    for name in ["", "a b", "-", "a..b", "host:443", "\u{1b}[31m", "[::1]"] {
        let error = connect(&server, &connector(Trust::Anyone), name)
            .await
            .expect_err("no name");
        assert!(
            matches!(error, HandshakeError::Name(ConfigError::Name)),
            "{name:?}: {error:?}"
        );
        let mut options = trusts(Trust::Anyone);
        options.sni = Some(name.to_owned());
        let error = Connector::new(options).expect_err("no name");
        assert_eq!(error, ConfigError::Name, "{name:?}");
    }
    server.stop().await;
}

/// A server that asks its clients for a certificate of this authority.
fn asking(root: &Authority, more: impl FnOnce(&mut AcceptorOptions)) -> Running {
    let mut options = shows(vec![root.server(&["a.example"]).identity()]);
    options.client_authorities = Some(root.certificates());
    more(&mut options);
    let acceptor = Acceptor::new(options).expect("usable");
    let service = service_fn(async |mut conn: Conn| {
        let session = conn.stream().tls().expect("there is TLS");
        let shown = session.peer_certificates.len() as u8;
        conn.write_u8(shown).await
    });
    Running::start(loopback().tls(&acceptor), service)
}

fn showing(root: &Authority, shown: Option<&Signed>) -> Connector {
    let mut options = trusts(root.trust());
    options.identity = shown.map(Signed::identity);
    Connector::new(options).expect("usable")
}

#[tokio::test]
async fn a_client_with_a_certificate_of_the_right_authority_is_served() {
    let root = Authority::root("root");
    let server = asking(&root, |_| {});
    let shown = root.intermediate("middle").client("somebody");
    let connector = showing(&root, Some(&shown));
    for resumed in [false, true] {
        let mut client = connect(&server, &connector, "a.example")
            .await
            .expect("agreed");
        assert_eq!(soon(client.read_u8()).await.expect("served"), 2, "a chain");
        assert_eq!(client.tls().expect("there is TLS").resumed, resumed);
    }
    let config = raw_client_as(&root, &[TLS12], &shown);
    let mut client = raw_connect(&server, config, "a.example")
        .await
        .expect("agreed");
    assert_eq!(soon(client.read_u8()).await.expect("served"), 2);
    server.handle.abort();
    server.ended().await;
}

/// In TLS 1.3 the client is done before the server has seen its certificate.
#[tokio::test]
async fn a_client_that_is_not_taken_hears_why_when_it_first_reads() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let revoked = root.client("somebody");
    let foreign = other.client("somebody");
    let of_a_server = root.server(&["a.example"]);
    let expired = {
        let mut wanted = Wanted::server(&["somebody"]).expired();
        wanted.parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        root.sign(wanted)
    };
    let list = root.revokes(&[&revoked.serial]);
    let mut server = asking(&root, |options| options.client_revocations = lists(&list));
    for (shown, told, heard) in [
        (
            None,
            "the client shows no certificate",
            "it wants a certificate of ours",
        ),
        (
            Some(&foreign),
            "signed by nobody who is trusted here",
            "it does not take our certificate",
        ),
        (
            Some(&revoked),
            "was revoked by its authority",
            "it does not take our certificate",
        ),
        (
            Some(&expired),
            "it expired on ",
            "it does not take our certificate",
        ),
        (
            Some(&of_a_server),
            "the certificate is not to be trusted: ",
            "it does not take our certificate",
        ),
    ] {
        let mut client = connect(&server, &showing(&root, shown), "a.example")
            .await
            .expect("not decided yet");
        // What is sent meanwhile must not turn the refusal into a reset.
        let _ = client.write_all(&[7; 100_000]).await;
        let error = soon(client.read_u8()).await.expect_err("refused");
        let Some(HandshakeError::Refused(why)) = HandshakeError::refusal(&error) else {
            panic!("no refusal: {error:?}")
        };
        assert!(why.contains(heard), "{why}");
        drop(client);
        let close = server.next_close().await;
        assert_eq!(close.reason, CloseReason::TlsHandshake);
        let why = close.error.expect("told");
        assert!(why.contains(told), "{why}");
        assert_plain(&why);
    }
    let mut client = connect(
        &server,
        &showing(&root, Some(&root.client("another"))),
        "a.example",
    )
    .await
    .expect("agreed");
    assert_eq!(soon(client.read_u8()).await.expect("served"), 1);
    drop(client);
    assert_eq!(
        server
            .stop()
            .await
            .snapshot
            .closed_by(CloseReason::TlsHandshake),
        5
    );
}

#[tokio::test]
async fn in_tls_1_2_a_client_that_is_not_taken_hears_it_in_the_handshake() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let mut server = asking(&root, |_| {});
    let config = raw_client_as(&root, &[TLS12], &other.client("somebody"));
    let error = raw_connect(&server, config, "a.example")
        .await
        .expect_err("refused");
    assert!(HandshakeError::refusal(&error).is_some(), "{error:?}");
    assert_eq!(server.next_close().await.reason, CloseReason::TlsHandshake);
    server.stop().await;
}

#[tokio::test]
async fn a_client_is_not_asked_unless_there_are_authorities() {
    let root = Authority::root("root");
    let server = asking(&root, |options| options.client_authorities = None);
    for version in [TLS12, TLS13] {
        let config = raw_client_as(&root, &[version], &root.client("somebody"));
        let mut client = raw_connect(&server, config, "a.example")
            .await
            .expect("agreed");
        assert_eq!(soon(client.read_u8()).await.expect("served"), 0);
    }
    server.handle.abort();
    server.ended().await;
}

#[test]
fn other_errors_are_no_refusal() {
    let plain = std::io::Error::other("something else");
    assert!(HandshakeError::refusal(&plain).is_none());
    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    assert!(HandshakeError::refusal(&end).is_none());
}

#[test]
fn an_identity_is_a_chain_and_its_key_in_one_file_or_two() {
    let root = Authority::root("root");
    let signed = root.intermediate("middle").server(&["a.example"]);
    let other = root.server(&["a.example"]);
    let from = |chain: &str, key: &str| Identity::from_pem(chain.as_bytes(), key.as_bytes());

    let both = signed.key.clone() + &signed.chain;
    for (chain, key) in [(&signed.chain, &signed.key), (&both, &both)] {
        let identity = from(chain, key).expect("belong together");
        assert_eq!(identity.fingerprint(), Fingerprint::of(&signed.der));
        assert_eq!(identity.chain().count(), 2);
    }
    let rsa = root.sign(Wanted::server(&["a.example"]).rsa());
    from(&rsa.chain, &rsa.key).expect("RSA is as good");

    let error = |chain: &str, key: &str| from(chain, key).expect_err("not an identity");
    assert_eq!(
        error(&signed.chain, &other.key),
        ConfigError::KeyMismatch,
        "the key of another certificate"
    );
    assert_eq!(error(&signed.chain, ""), ConfigError::NoKey);
    assert_eq!(error(&signed.chain, &signed.chain), ConfigError::NoKey);
    assert_eq!(error("", &signed.key), ConfigError::NoCertificate);
    assert_eq!(error(&signed.key, &signed.key), ConfigError::NoCertificate);
    assert_eq!(error("not PEM", &signed.key), ConfigError::NoCertificate);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    for (chain, key) in [
        (half(&root.pem()), signed.key.clone()),
        (signed.chain.clone(), half(&signed.key)),
    ] {
        assert!(matches!(error(&chain, &key), ConfigError::Pem(_)));
    }
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let unusable = error(no_certificate, &signed.key);
    assert!(matches!(unusable, ConfigError::Unusable(_)), "{unusable:?}");
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(error(&signed.chain, no_key), ConfigError::UnsupportedKey);
}

#[test]
fn authorities_and_revocation_lists_are_not_empty_and_not_damaged() {
    let root = Authority::root("root");
    let error = Certificates::from_pem(b"").expect_err("nothing");
    assert_eq!(error, ConfigError::NoCertificate);
    let list = root.revokes(&[]);
    let error = Certificates::from_pem(list.as_bytes()).expect_err("a list");
    assert_eq!(error, ConfigError::NoCertificate);
    let error = RevocationLists::from_pem(root.pem().as_bytes()).expect_err("a certificate");
    assert_eq!(error, ConfigError::NoRevocationList);
    let error = RevocationLists::from_pem(&list.as_bytes()[..100]).expect_err("half");
    assert!(matches!(error, ConfigError::Pem(_)));
    let error = Acceptor::new(AcceptorOptions::default()).expect_err("nothing to show");
    assert_eq!(error, ConfigError::NoIdentity);
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_words() {
    let root = Authority::root("root");
    let signed = root.server(&["a.example"]);
    let wrap = |label| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let identity = |chain: &str, key: &str| {
        let made = Identity::from_pem(chain.as_bytes(), key.as_bytes());
        made.expect_err("damaged").to_string()
    };
    let list = wrap("X509 CRL");
    let by_connector = Connector::new(revoking(&root, &list)).expect_err("damaged");
    let mut options = shows(vec![signed.identity()]);
    options.client_authorities = Some(root.certificates());
    options.client_revocations = lists(&list);
    let by_acceptor = Acceptor::new(options).expect_err("damaged");
    assert_eq!(by_connector, by_acceptor);
    for (text, expected) in [
        (
            identity(&wrap("CERTIFICATE"), &signed.key),
            "a certificate in it is no X.509 certificate",
        ),
        (
            identity(&signed.chain[..100], &signed.key),
            "damaged PEM: a section has no end",
        ),
        (
            identity(&signed.chain, "-----BEGIN EC\n"),
            "damaged PEM: a line that begins a section is not whole",
        ),
        (
            identity(&signed.chain.replace('M', "!"), &signed.key),
            "damaged PEM: what is in a section is not base64",
        ),
        (
            by_acceptor.to_string(),
            "a revocation list cannot be read (X.509, RFC 5280)",
        ),
    ] {
        assert_plain(&text);
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_for_its_names_and_addresses() {
    let names = ["a.example", "*.a.example", "127.0.0.1", "::1"].map(str::to_owned);
    let identity = Identity::self_signed(&names).expect("made");
    let again = Identity::self_signed(&names).expect("made");
    assert_ne!(identity.fingerprint(), again.fingerprint(), "a new key");

    let der = identity.chain().next().expect("one").to_vec();
    let acceptor = acceptor(vec![identity.clone()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let mut options = trusts(Trust::PinsOnly);
    options.pins = vec![identity.fingerprint()];
    let pinned = Connector::new(options).expect("usable");
    for name in ["a.example", "x.a.example", "127.0.0.1", "::1"] {
        let mut client = connect(&server, &pinned, name).await.expect("trusted");
        echoes(&mut client, b"hello").await;
        let shown = client.tls().expect("there is TLS").peer_certificates;
        assert_eq!(shown, from_ref(&der));
    }
    server.handle.abort();
    server.ended().await;
    Identity::self_signed(&["not a name \u{e9}".to_owned()]).expect_err("not for that");
}

/// The fingerprint is what says whom to trust, and an authority that signs only itself can be given as one, too.
#[tokio::test]
async fn a_certificate_that_signs_itself_can_be_an_authority_for_its_own_names() {
    let identity = Identity::self_signed(&["a.example".to_owned()]).expect("made");
    let der = identity.chain().next().expect("one").to_vec();
    let encoded = data_encoded(&der);
    let authorities = Certificates::from_pem(encoded.as_bytes()).expect("a certificate");
    let acceptor = acceptor(vec![identity]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let connector = connector(Trust::Authorities(authorities));
    let connected = connect(&server, &connector, "a.example").await;
    connected.expect("trusted");
    let error = connect(&server, &connector, "b.example")
        .await
        .expect_err("another name");
    assert!(matches!(error, HandshakeError::Certificate(_)));
    server.handle.abort();
    server.ended().await;
}

#[test]
fn a_fingerprint_is_read_as_it_is_written_and_as_openssl_writes_it() {
    let fingerprint = Fingerprint::of(b"abc");
    // FIPS 180-2, appendix B.1.
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(fingerprint.to_string(), text);
    assert_eq!(text.parse(), Ok(fingerprint));
    let openssl = "sha256:BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:\
                   B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
    assert_eq!(openssl.parse(), Ok(fingerprint));
    for wrong in [
        "",
        "sha256:",
        "sha256:ba78",
        &text["sha256:".len()..],
        &format!("{text}00"),
        &text.replace('b', "g"),
        &text.replace("sha256", "sha1"),
        &text.replace("ba78", "+a78"),
        &text.replace("ba78", "\u{e9}78"),
    ] {
        let error = wrong.parse::<Fingerprint>().expect_err("no fingerprint");
        assert_eq!(error, NoFingerprint, "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_fingerprint_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        let fingerprint = Fingerprint::of(&bytes);
        prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }

    #[test]
    fn no_text_and_no_bytes_given_for_certificates_or_keys_can_panic(
        text in "(sha256:)?[ -~\n]{0,80}",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = text.parse::<Fingerprint>();
        let pem = |label| format!(
            "-----BEGIN {label}-----\n{}-----END {label}-----\n",
            base64(&bytes),
        );
        let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
        let _ = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
        let _ = Identity::from_pem(&bytes, &bytes);
        let _ = Certificates::from_pem(certificate.as_bytes());
        let lists = RevocationLists::from_pem(pem("X509 CRL").as_bytes());
        if let Ok(lists) = lists {
            let mut options = trusts(Trust::Anyone);
            options.revocations = lists;
            let _ = Connector::new(options);
        }
    }
}

fn data_encoded(der: &[u8]) -> String {
    format!(
        "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
        base64(der)
    )
}

/// RFC 4648, section 4, in lines of 64.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, chunk) in bytes.chunks(3).enumerate() {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit in 0..4 {
            let six = (bits >> (18 - 6 * digit)) & 63;
            let padding = digit > chunk.len();
            text.push(if padding {
                '='
            } else {
                DIGITS[six as usize].into()
            });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

/// What openssl says of a certificate that we make.
#[tokio::test]
#[ignore = "needs openssl"]
async fn openssl_reads_our_certificate_and_computes_the_same_fingerprint() {
    use std::process::{Command, Stdio};
    let names = ["a.example", "127.0.0.1"].map(str::to_owned);
    let identity = Identity::self_signed(&names).expect("made");
    let pem = data_encoded(identity.chain().next().expect("one"));
    let openssl = |arguments: &[&str]| {
        let mut child = Command::new("openssl")
            .arg("x509")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is there");
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, pem.as_bytes()).expect("sent");
        drop(stdin);
        let output = child.wait_with_output().expect("ran");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    let printed = openssl(&["-noout", "-fingerprint", "-sha256"]);
    let (_, digits) = printed.trim().split_once('=').expect("name=digits");
    assert_eq!(
        format!("sha256:{digits}").parse(),
        Ok(identity.fingerprint())
    );
    let printed = openssl(&["-noout", "-ext", "subjectAltName"]);
    assert!(printed.contains("DNS:a.example, IP Address:127.0.0.1"));
}
