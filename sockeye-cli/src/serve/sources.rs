//! What is read from files, and can be read anew: certificates with all that goes with them, and the rules.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use sockeye::rules::{Network, Rules, parse_list};
use sockeye::tls::{Acceptor, AcceptorOptions, Certificates, Identity, RevocationLists, Version};

use crate::certificate::Certificate;
use crate::cli::serve::Serve;
use crate::exit::Failure;
use crate::tls_files::{identity, key_log, read, read_at_most, using};

/// Where the certificates come from; what does not come from files is made once.
pub(super) struct TlsSource {
    /// Certificates, each with the file of its key.
    pairs: Vec<(PathBuf, Option<PathBuf>)>,
    self_signed: Option<Identity>,
    client_ca: Option<PathBuf>,
    client_crl: Option<PathBuf>,
    /// The rest, the file of secrets among it, which is opened once.
    fixed: AcceptorOptions,
}

impl TlsSource {
    /// `None` if there is to be no TLS.
    pub(super) fn new(arguments: &Serve) -> Result<Option<Self>, Failure> {
        let (certificates, keys) = (&arguments.tls_cert, &arguments.tls_key);
        if certificates.is_empty() && arguments.tls_self_signed.is_empty() {
            return match arguments.tls_option() {
                None => Ok(None),
                Some(option) => Err(Failure::usage(anyhow!("{option} is for TLS"))
                    .with_hint("--tls-cert FILE or --tls-self-signed NAME switch it on")),
            };
        }
        if !keys.is_empty() && keys.len() != certificates.len() {
            let error = anyhow!(
                "{} certificates and {} keys",
                certificates.len(),
                keys.len()
            );
            return Err(Failure::usage(error).with_hint(
                "give each --tls-cert its --tls-key, in the same order, or none of them",
            ));
        }
        let key_of = |index: usize| keys.get(index).cloned();
        let names = &arguments.tls_self_signed;
        let self_signed = (!names.is_empty()).then(|| {
            let identity = Identity::self_signed(names);
            identity.with_context(|| format!("--tls-self-signed {}", names.join(",")))
        });
        let mut fixed = AcceptorOptions::default();
        fixed.alpn = arguments
            .alpn
            .iter()
            .map(|name| name.clone().into())
            .collect();
        fixed.min_version = arguments.tls_min.map_or(fixed.min_version, Version::from);
        fixed.key_log = arguments.keylog.as_deref().map(key_log).transpose()?;
        Ok(Some(Self {
            pairs: (certificates.iter().enumerate())
                .map(|(index, path)| (path.clone(), key_of(index)))
                .collect(),
            self_signed: self_signed.transpose().map_err(Failure::usage)?,
            client_ca: arguments.tls_client_ca.clone(),
            client_crl: arguments.tls_client_crl.clone(),
            fixed,
        }))
    }

    /// Reads the files as they are now. A pipe can be read only once, and gives what it gave `before`.
    pub(super) fn read(&self, before: Option<&Contents>) -> Contents {
        let read = |path: &PathBuf| {
            let old = before.and_then(|before| before.0.get(path));
            let bytes = match old {
                Some(old) if fs::metadata(path).is_ok_and(|now| !now.is_file()) => old.clone(),
                _ => read(path).map_err(|error| error.to_string()),
            };
            (path.clone(), bytes)
        };
        Contents(self.files().map(read).collect())
    }

    /// Makes of what was read what clients are shown and asked for.
    pub(super) fn options(&self, contents: &Contents) -> Result<AcceptorOptions, Failure> {
        let mut options = self.fixed.clone();
        options.identities.extend(self.self_signed.clone());
        for (certificate, key) in &self.pairs {
            let identity = identity(certificate, key.as_deref(), |path| contents.of(path))?;
            options.identities.push(identity);
        }
        let bytes = |path: &Path| contents.of(path);
        if let Some(path) = &self.client_ca {
            options.client_authorities = Some(using(path, bytes(path), Certificates::from_pem)?);
        }
        if let Some(path) = &self.client_crl {
            options.client_revocations = using(path, bytes(path), RevocationLists::from_pem)?;
        }
        Ok(options)
    }

    /// All files that it reads.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pairs.iter();
        let pairs = pairs.flat_map(|(certificate, key)| [Some(certificate), key.as_ref()]);
        pairs
            .chain([self.client_ca.as_ref(), self.client_crl.as_ref()])
            .flatten()
    }
}

/// What is in the files of a [`TlsSource`], or why it cannot be read. Read once, so that what is compared is what is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Contents(BTreeMap<PathBuf, Result<Vec<u8>, String>>);

impl Contents {
    fn of(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// TLS as it is at the start.
pub(super) struct Tls {
    pub(super) source: TlsSource,
    pub(super) contents: Contents,
    pub(super) acceptor: Acceptor,
    pub(super) shown: Vec<Shown>,
}

/// A certificate that is shown to clients, and what is wrong with it already.
pub(super) type Shown = (Certificate, Option<String>);

impl Tls {
    /// `None` if there is to be no TLS.
    pub(super) fn load(arguments: &Serve) -> Result<Option<Self>, Failure> {
        let Some(source) = TlsSource::new(arguments)? else {
            return Ok(None);
        };
        let contents = source.read(None);
        let options = source.options(&contents)?;
        let shown = shown(&options);
        let acceptor = Acceptor::new(options).map_err(Failure::usage)?;
        Ok(Some(Self {
            source,
            contents,
            acceptor,
            shown,
        }))
    }
}

/// What is shown to clients.
pub(super) fn shown(options: &AcceptorOptions) -> Vec<Shown> {
    let chains = options.identities.iter().map(Identity::chain);
    chains
        .filter_map(|mut chain| chain.next().map(Certificate::of))
        .map(|certificate| {
            let wrong = certificate.fault(SystemTime::now());
            (certificate, wrong)
        })
        .collect()
}

/// `--allow` and `--deny`, as they were written.
pub(super) struct RulesSource {
    allow: Vec<Source>,
    deny: Vec<Source>,
}

/// A file of as many networks as a list may have, with comments.
const MOST_LIST_BYTES: u64 = 128 * 1024 * 1024;

enum Source {
    Network(Network),
    File(PathBuf),
}

impl RulesSource {
    pub(super) fn new(arguments: &Serve) -> Self {
        let source = |text: &String| match text.parse() {
            Ok(network) => Source::Network(network),
            Err(_) => Source::File(text.into()),
        };
        Self {
            allow: arguments.allow.iter().map(source).collect(),
            deny: arguments.deny.iter().map(source).collect(),
        }
    }

    /// Reads the files as they are now.
    pub(super) fn load(&self) -> Result<Rules, Failure> {
        let mut rules = Rules::default();
        for source in &self.allow {
            // Also if the list is empty: then nobody is let in.
            rules.allow_listed_only();
            source.networks()?.into_iter().for_each(|n| rules.allow(n));
        }
        for source in &self.deny {
            source.networks()?.into_iter().for_each(|n| rules.deny(n));
        }
        Ok(rules)
    }
}

impl Source {
    fn networks(&self) -> Result<Vec<Network>, Failure> {
        let path = match self {
            Self::Network(network) => return Ok(vec![*network]),
            Self::File(path) => path,
        };
        let shown = path.display();
        let text = read_at_most(path, MOST_LIST_BYTES).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::other("not text (UTF-8)"))
        });
        let text = text.map_err(|error| {
            let written = path.to_string_lossy();
            let error = match written.parse::<Network>() {
                // `10.1.2.3/8` is no file that somebody forgot.
                Err(network) if written.contains('/') && !path.is_absolute() => anyhow!(error)
                    .context(format!(
                        "'{shown}' is neither a network ({network}) nor a file that can be read"
                    )),
                _ => anyhow!(error).context(format!("cannot read '{shown}'")),
            };
            Failure::usage(error)
                .with_hint("write a network such as 192.0.2.0/24, or a file with one a line")
        })?;
        let networks = parse_list(&text).with_context(|| format!("in '{shown}'"));
        networks.map_err(Failure::usage)
    }
}
