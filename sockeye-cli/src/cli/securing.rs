//! What is said before the talk: the options of the PROXY header and of TLS, the same for every verb that connects.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use sockeye::starttls::Protocol;
use sockeye::tls::Fingerprint;

use crate::cli::send_proxy::SendProxy;
use crate::cli::time::positive;
use crate::cli::tls_values::{TlsVersion, protocol};

/// The heading in the help.
pub(crate) const TLS: &str = "TLS";

#[derive(Clone, Debug, Args)]
pub(crate) struct SecuringOptions {
    /// Send a PROXY header first: v1 or v2, and after commas what it is to say
    ///
    /// from=IP:PORT and to=IP:PORT are the client and its server, by default our own ends of the connection; local says that it
    /// is our own. With v2 also authority=NAME, alpn=NAME, unique-id=TEXT, crc32c, and 0xHH=TEXT for others. TEXT is as
    /// in --send, without commas.
    #[arg(
        long,
        alias = "proxy-protocol",
        value_name = "v1|v2[,...]",
        hide_short_help = true
    )]
    pub(crate) send_proxy: Option<SendProxy>,

    /// Speak TLS, as with tls:// before the address
    #[arg(long, help_heading = TLS)]
    pub(crate) tls: bool,

    /// Ask for TLS first: smtp, imap, pop3, postgres, xmpp, ldap
    #[arg(long, value_name = "PROTOCOL", value_parser = starttls, help_heading = TLS)]
    pub(crate) starttls: Option<Protocol>,

    /// Trust the authorities in this file (PEM), not the platform's
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    pub(crate) ca: Option<PathBuf>,

    /// Certificates that were revoked, PEM; needs a list for each authority in the chain
    #[arg(long, value_name = "FILE", requires = "ca", hide_short_help = true, help_heading = TLS)]
    pub(crate) crl: Option<PathBuf>,

    /// Trust this certificate, sha256:HEX; may be repeated
    ///
    /// It is the fingerprint that 'serve --tls-self-signed' and 'openssl x509 -fingerprint -sha256' print. Alone it
    /// makes up for an issuer that nobody knows, a wrong name and a wrong date. With --ca both must hold.
    #[arg(long, value_name = "FINGERPRINT", help_heading = TLS)]
    pub(crate) pin: Vec<Fingerprint>,

    /// The name that the certificate must be for, and that is sent [default: the host]
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = TLS)]
    pub(crate) server_name: Option<String>,

    /// Send this name (SNI); the certificate must be for the other one all the same
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = TLS)]
    pub(crate) sni: Option<String>,

    /// Application protocols, the preferred one first (ALPN)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = protocol, hide_short_help = true, help_heading = TLS)]
    pub(crate) alpn: Vec<String>,

    /// Show this certificate, with its chain, PEM
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = TLS)]
    pub(crate) cert: Option<PathBuf>,

    /// The key of --cert [default: in the same file]
    #[arg(long, value_name = "FILE", requires = "cert", hide_short_help = true, help_heading = TLS)]
    pub(crate) key: Option<PathBuf>,

    /// Trust whoever answers, without verification; a warning says so
    #[arg(long, conflicts_with_all = ["ca", "pin"], help_heading = TLS)]
    pub(crate) insecure: bool,

    /// The lowest version of TLS [default: 1.2]
    #[arg(long, value_name = "VERSION", value_enum, hide_short_help = true, hide_possible_values = true, help_heading = TLS)]
    pub(crate) tls_min: Option<TlsVersion>,

    /// Write the secrets of the session to this file: whoever has it can read the traffic
    ///
    /// In the format of SSLKEYLOGFILE, which Wireshark reads. The variable itself is not looked at.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = TLS)]
    pub(crate) keylog: Option<PathBuf>,

    /// How long --send-proxy, --starttls and the TLS handshake may take together
    #[arg(long, value_name = "TIME", value_parser = positive, default_value = "10s", hide_short_help = true, help_heading = TLS)]
    pub(crate) handshake_timeout: Duration,
}

impl SecuringOptions {
    /// The first option that means nothing without TLS.
    pub(crate) fn tls_option(&self) -> Option<&'static str> {
        let given = [
            ("--ca", self.ca.is_some()),
            ("--crl", self.crl.is_some()),
            ("--pin", !self.pin.is_empty()),
            ("--server-name", self.server_name.is_some()),
            ("--sni", self.sni.is_some()),
            ("--alpn", !self.alpn.is_empty()),
            ("--cert", self.cert.is_some()),
            ("--insecure", self.insecure),
            ("--tls-min", self.tls_min.is_some()),
            ("--keylog", self.keylog.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, given)| *given);
        given.next().map(|(option, _)| option)
    }
}

fn starttls(text: &str) -> Result<Protocol, String> {
    text.parse()
        .map_err(|_| "write smtp, imap, pop3, postgres, xmpp or ldap".to_owned())
}
