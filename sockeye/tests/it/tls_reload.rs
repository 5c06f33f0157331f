//! Certificates are exchanged while the server runs.

use std::slice::from_ref;

use sockeye::services;
use sockeye::tls::{Acceptor, AcceptorOptions, ConfigError, Connector, Session};
use tokio::io::AsyncWriteExt;

use crate::authority::{Authority, Signed, acceptor, connect, connector, lists, shows, trusts};
use crate::support::{Running, echoes, loopback};

/// What one connection comes to; it has read, so that its tickets have come.
async fn session(server: &Running, connector: &Connector) -> Session {
    let mut client = connect(server, connector, "a.example")
        .await
        .expect("agreed");
    echoes(&mut client, b"hello").await;
    let session = client.tls().expect("there is TLS");
    client.shutdown().await.expect("close_notify");
    session
}

#[tokio::test]
async fn new_connections_are_shown_the_new_certificate_and_open_ones_go_on() {
    let root = Authority::root("root");
    let (before, after) = (root.server(&["a.example"]), root.server(&["a.example"]));
    let acceptor = acceptor(vec![before.identity()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let mut open = connect(&server, &connector(root.trust()), "a.example")
        .await
        .expect("agreed");
    echoes(&mut open, b"before").await;
    let shown = open.tls().expect("there is TLS").peer_certificates;
    assert_eq!(shown, from_ref(&before.der));

    acceptor
        .reload(shows(vec![after.identity()]))
        .expect("usable");
    echoes(&mut open, b"after").await;
    let fresh = session(&server, &connector(root.trust())).await;
    assert_eq!(fresh.peer_certificates, from_ref(&after.der));
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn all_clones_are_reloaded_together() {
    let root = Authority::root("root");
    let after = root.server(&["a.example"]);
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    acceptor
        .clone()
        .reload(shows(vec![after.identity()]))
        .expect("usable");
    let fresh = session(&server, &connector(root.trust())).await;
    assert_eq!(fresh.peer_certificates, from_ref(&after.der));
    server.handle.abort();
    server.ended().await;
}

#[tokio::test]
async fn sessions_go_on_after_a_reload_of_certificates() {
    let root = Authority::root("root");
    let acceptor = acceptor(vec![root.server(&["a.example"]).identity()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let connector = connector(root.trust());
    assert!(!session(&server, &connector).await.resumed);
    for _ in 0..3 {
        let renewed = root.server(&["a.example"]).identity();
        acceptor.reload(shows(vec![renewed])).expect("usable");
        assert!(session(&server, &connector).await.resumed);
    }
    server.handle.abort();
    server.ended().await;
}

/// Options of a server that asks its clients for certificates of this authority.
fn asks(shown: &Signed, root: &Authority) -> AcceptorOptions {
    let mut options = shows(vec![shown.identity()]);
    options.client_authorities = Some(root.certificates());
    options
}

#[tokio::test]
async fn sessions_end_when_something_else_is_asked_of_clients() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let shown = root.server(&["a.example"]);
    let acceptor = acceptor(vec![shown.identity()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let client = root.client("somebody");
    let mut options = trusts(root.trust());
    options.identity = Some(client.identity());
    let connector = Connector::new(options).expect("usable");
    assert!(!session(&server, &connector).await.resumed);
    assert!(session(&server, &connector).await.resumed);

    acceptor.reload(asks(&shown, &root)).expect("usable");
    assert!(!session(&server, &connector).await.resumed, "who is it?");
    assert!(session(&server, &connector).await.resumed);
    acceptor.reload(asks(&shown, &root)).expect("usable");
    assert!(session(&server, &connector).await.resumed, "all the same");

    let mut options = asks(&shown, &root);
    options.client_revocations = lists(&root.revokes(&[]));
    acceptor.reload(options).expect("usable");
    assert!(!session(&server, &connector).await.resumed, "still good?");

    // Had the session gone on, the certificate that was taken back would not have been seen.
    let mut options = asks(&shown, &root);
    options.client_revocations = lists(&root.revokes(&[&client.serial]));
    acceptor.reload(options).expect("usable");
    assert!(refused(&server, &connector).await);

    acceptor.reload(asks(&shown, &other)).expect("usable");
    assert!(refused(&server, &connector).await);
    server.handle.abort();
    server.ended().await;
}

/// Whether the server does not take the client's certificate.
async fn refused(server: &Running, connector: &Connector) -> bool {
    let Ok(mut client) = connect(server, connector, "a.example").await else {
        return true;
    };
    let read = tokio::io::AsyncReadExt::read_u8(&mut client).await;
    read.is_err_and(|error| sockeye::tls::HandshakeError::refusal(&error).is_some())
}

#[tokio::test]
async fn a_bad_reload_changes_nothing() {
    let root = Authority::root("root");
    let shown = root.server(&["a.example"]);
    let acceptor = acceptor(vec![shown.identity()]);
    let server = Running::start(loopback().tls(&acceptor), services::echo());
    let connector = connector(root.trust());
    session(&server, &connector).await;
    let error = acceptor.reload(shows(Vec::new())).expect_err("nothing");
    assert_eq!(error, ConfigError::NoIdentity);
    let resumed = session(&server, &connector).await;
    assert!(resumed.resumed);
    let fresh = session(&server, &self::connector(root.trust())).await;
    assert_eq!(fresh.peer_certificates, from_ref(&shown.der));
    server.handle.abort();
    server.ended().await;
}

#[test]
fn an_acceptor_shows_no_key_when_it_is_debugged() {
    let root = Authority::root("root");
    let shown = root.server(&["a.example"]);
    let acceptor = Acceptor::new(shows(vec![shown.identity()])).expect("usable");
    let secret: String = shown.key.lines().skip(1).take(1).collect();
    let text = format!("{acceptor:?} {:?}", shown.identity());
    assert!(!text.contains(&secret));
    assert!(text.len() < 50_000);
}
