//! Echo over TLS, and a client that trusts it by its fingerprint: `cargo run --features tls --example tls_echo`.

use std::error::Error;

use sockeye::tls::{Acceptor, AcceptorOptions, Connector, ConnectorOptions, Identity, Trust};
use sockeye::{Server, client, services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A real server has a certificate from an authority: `Identity::from_pem`.
    let identity = Identity::self_signed(&["localhost".to_owned()])?;
    let fingerprint = identity.fingerprint();
    let mut shown = AcceptorOptions::default();
    shown.identities = vec![identity];
    let server = Server::bind(([127, 0, 0, 1], 0))?.tls(&Acceptor::new(shown)?);
    let port = server.addresses()[0].port().unwrap_or_default();
    let handle = server.handle();
    let served = tokio::spawn(server.serve(services::echo()));

    let mut asked = ConnectorOptions::default();
    asked.trust = Trust::PinsOnly;
    asked.pins = vec![fingerprint];
    let connected = client::connect(("localhost", port)).await?;
    let connector = Connector::new(asked)?;
    let mut stream = connector.connect(connected.stream, "localhost").await?;
    if let Some(session) = stream.tls() {
        eprintln!("{:?}, {:?}, {fingerprint}", session.version, session.cipher);
    }
    stream.write_all(b"hello").await?;
    // close_notify, then FIN: the server knows that this is the end, and not a cut.
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    handle.stop();
    served.await??;
    Ok(())
}
