//! What comes between a connected socket and the talk: the PROXY header, the plain words before TLS, TLS.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use sockeye::proxy_protocol::Header;
use sockeye::starttls::{self, NegotiateError, Protocol};
use sockeye::tls::{
    Certificates, Connector, ConnectorOptions, HandshakeError, RejectedCertificate,
    RevocationLists, Session, Trust, Version,
};
use sockeye::{Addr, Stream};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::address::Destination;
use crate::certificate::Certificate;
use crate::cli::securing::SecuringOptions;
use crate::exit::{Code, Failure};
use crate::tls_files::{identity, key_log, read, using};

/// What is to be done with a connection before it is talked on.
pub(crate) struct Securing {
    options: SecuringOptions,
    tls: Option<Tls>,
    /// What the peer is called in messages, if not by the address of its socket.
    peer: Option<String>,
}

struct Tls {
    connector: Connector,
    starttls: Option<Protocol>,
    insecure: bool,
    /// The name that the certificate must have.
    name: String,
}

/// What was done.
#[derive(Default)]
pub(crate) struct Secured {
    pub(crate) proxy_header: Option<Header>,
    pub(crate) starttls: Option<(Protocol, Duration)>,
    pub(crate) tls: Option<(Session, Duration)>,
    /// What a server showed that was not trusted.
    pub(crate) rejected: Vec<Certificate>,
    /// What the user has to know though all went well.
    pub(crate) warning: Option<String>,
}

impl Securing {
    /// Reads what the options name, so that a missing file is known before anybody is connected to.
    pub(crate) fn new(
        options: &SecuringOptions,
        destination: &Destination,
    ) -> Result<Self, Failure> {
        let plain = Self {
            options: options.clone(),
            tls: None,
            peer: None,
        };
        let wanted = destination.tls || options.tls || options.starttls.is_some();
        if !wanted {
            return match options.tls_option() {
                None => Ok(plain),
                Some(option) => Err(Failure::usage(anyhow!("{option} is for TLS"))
                    .with_hint("write tls://HOST:PORT, or --tls")),
            };
        }
        if destination.tls && options.starttls.is_some() {
            let error = anyhow!("tls:// speaks TLS from the first byte on, --starttls does not");
            return Err(Failure::usage(error).with_hint("write the address without tls://"));
        }
        let name = options.server_name.as_ref().or(destination.host.as_ref());
        let name = name.cloned().ok_or_else(|| {
            Failure::usage(anyhow!(
                "a Unix socket has no name that a certificate could be for"
            ))
            .with_hint("--server-name NAME says which")
        })?;
        let tls = Tls {
            connector: connector(options)?,
            starttls: options.starttls,
            insecure: options.insecure,
            name,
        };
        Ok(Self {
            tls: Some(tls),
            ..plain
        })
    }

    /// Behind a proxy the socket has the proxy's address, and that is not whom the words are for.
    pub(crate) fn calls_the_peer(&mut self, name: String) {
        self.peer = Some(name);
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// By what a certificate is judged.
    pub(crate) fn trusted_by(&self) -> &'static str {
        let options = &self.options;
        match (&options.ca, options.pin.as_slice()) {
            _ if options.insecure => "nothing",
            (Some(_), []) => "ca",
            (Some(_), _) => "ca and pin",
            (None, []) => "platform",
            (None, _) => "pin",
        }
    }

    /// Does it, all under one deadline. What was done before it failed is in `secured` all the same.
    pub(crate) async fn secure(
        &self,
        stream: Stream,
        secured: &mut Secured,
    ) -> Result<Stream, Failure> {
        let peer = self
            .peer
            .clone()
            .or_else(|| Some(stream.peer_addr().ok()?.to_string()));
        let peer = peer.unwrap_or_else(|| "the server".to_owned());
        let limit = self.options.handshake_timeout;
        let steps = async {
            let stream = send_header(&self.options, stream, secured, &peer).await?;
            match &self.tls {
                Some(tls) => tls.shake_hands(&peer, stream, secured).await,
                None => Ok(stream),
            }
        };
        match timeout(limit, steps).await {
            Ok(result) => result,
            Err(_) => {
                let limit = humantime::format_duration(limit);
                let error = anyhow!("no handshake with {peer} within {limit}");
                Err(Failure::new(Code::Timeout, error)
                    .with_hint("it accepts and says nothing; --handshake-timeout waits longer"))
            }
        }
    }
}

/// The PROXY header, if one is to be sent.
async fn send_header(
    options: &SecuringOptions,
    mut stream: Stream,
    secured: &mut Secured,
    peer: &str,
) -> Result<Stream, Failure> {
    let Some(send_proxy) = &options.send_proxy else {
        return Ok(stream);
    };
    let end = |address: std::io::Result<Addr>| match address {
        Ok(Addr::Tcp(address)) => Some(address),
        _ => None,
    };
    let (ours, servers) = (end(stream.local_addr()), end(stream.peer_addr()));
    if send_proxy.lacks_an_end(ours, servers) {
        let error =
            anyhow!("--send-proxy: a Unix socket has no address to put beside the one given");
        return Err(Failure::usage(error).with_hint("give both, from=IP:PORT and to=IP:PORT"));
    }
    let header = send_proxy.header(ours, servers);
    let bytes = header.encode();
    let bytes = bytes.map_err(|error| Failure::usage(anyhow!(error).context("--send-proxy")))?;
    stream.write_all(&bytes).await.map_err(|error| {
        let what = format!("cannot send the PROXY header to {peer}");
        Failure::new(Code::Receive, anyhow!(error).context(what))
    })?;
    secured.proxy_header = Some(header);
    Ok(stream)
}

impl Tls {
    async fn shake_hands(
        &self,
        peer: &str,
        mut stream: Stream,
        secured: &mut Secured,
    ) -> Result<Stream, Failure> {
        if let Some(protocol) = self.starttls {
            let started = Instant::now();
            starttls::negotiate(&mut stream, protocol, &self.name)
                .await
                .map_err(|error| no_starttls(error, peer))?;
            secured.starttls = Some((protocol, started.elapsed()));
        }
        let started = Instant::now();
        match self.connector.connect(stream, &self.name).await {
            Ok(stream) => {
                let took = started.elapsed();
                secured.tls = stream.tls().map(|session| (session, took));
                if let (true, Some((session, _))) = (self.insecure, &secured.tls) {
                    secured.warning = Some(insecure(session));
                }
                Ok(stream)
            }
            Err(error) => {
                if let HandshakeError::Certificate(rejected) = &error {
                    secured.rejected = rejected.chain().map(Certificate::of).collect();
                }
                Err(failure(error, peer))
            }
        }
    }
}

/// The warning that --insecure costs on every run.
fn insecure(session: &Session) -> String {
    let shown = match session.peer_certificates.first() {
        Some(der) => format!("it showed one {}", Certificate::of(der).line()),
        None => "it showed none".to_owned(),
    };
    format!("--insecure: the server's certificate is not verified; {shown}")
}

fn no_starttls(error: NegotiateError, peer: &str) -> Failure {
    let code = match &error {
        NegotiateError::Io(_) => Code::Receive,
        _ => Code::Handshake,
    };
    Failure::new(code, anyhow!(error).context(format!("no TLS with {peer}")))
}

/// Why there is no TLS: 60 where the certificate is at fault, 35 else.
pub(crate) fn failure(error: HandshakeError, peer: &str) -> Failure {
    let hint = match &error {
        HandshakeError::Certificate(rejected) => certificate_hint(rejected),
        HandshakeError::Refused(why) if why.contains("wants a certificate") => {
            Some("--cert FILE --key FILE show one".to_owned())
        }
        HandshakeError::NotTls(_) => {
            Some("without TLS write the address alone; some servers want --starttls".to_owned())
        }
        _ => None,
    };
    let code = match &error {
        HandshakeError::Certificate(_) | HandshakeError::Revocation(_) => Code::Certificate,
        HandshakeError::Io(_) => Code::Receive,
        _ => Code::Handshake,
    };
    let failure = Failure::new(code, anyhow!(error).context(format!("no TLS with {peer}")));
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// What can be done about it. Where somebody may be in between there is no way around it to paste.
fn certificate_hint(rejected: &RejectedCertificate) -> Option<String> {
    let shown = Certificate::of(rejected.chain().next()?);
    let fingerprint = rejected.fingerprint()?;
    if rejected.is_not_pinned() {
        return Some(
            "it was renewed, or somebody is in between: ask whoever runs the server".to_owned(),
        );
    }
    if !rejected.is_unknown_issuer() {
        return None;
    }
    Some(match shown.issuer() {
        Some(issuer) => format!(
            "it is issued by {issuer}: --ca FILE trusts that one, --pin {fingerprint} this very certificate"
        ),
        None => format!("it is signed by itself: --pin {fingerprint} trusts this very certificate"),
    })
}

fn connector(given: &SecuringOptions) -> Result<Connector, Failure> {
    let mut options = ConnectorOptions::default();
    options.trust = match &given.ca {
        _ if given.insecure => Trust::Anyone,
        Some(path) => Trust::Authorities(using(path, read(path), Certificates::from_pem)?),
        None if !given.pin.is_empty() => Trust::PinsOnly,
        None => Trust::Platform,
    };
    options.pins.clone_from(&given.pin);
    if let Some(path) = &given.crl {
        options.revocations = using(path, read(path), RevocationLists::from_pem)?;
    }
    if let Some(path) = &given.cert {
        options.identity = Some(identity(path, given.key.as_deref(), read)?);
    }
    options.sni.clone_from(&given.sni);
    options.alpn = given.alpn.iter().map(|name| name.clone().into()).collect();
    options.min_version = given.tls_min.map_or(options.min_version, Version::from);
    options.key_log = given.keylog.as_deref().map(key_log).transpose()?;
    Connector::new(options).map_err(Failure::usage)
}
