//! Reads rules and certificates anew: on HUP both, and certificates whenever their files change. What is bad changes
//! nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sockeye::Handle;
use sockeye::tls::Acceptor;

use crate::exit::Failure;
use crate::serve::events::{Cause, Event};
use crate::serve::reporter::Reporter;
use crate::serve::sources::{Contents, RulesSource, Tls, TlsSource, shown};

/// What can be read anew.
pub(super) struct Reload {
    rules: RulesSource,
    tls: Option<Certificates>,
    handle: Handle,
    /// Weak, for the thread that watches must not keep the last lines from being written.
    reporter: Weak<Reporter>,
}

struct Certificates {
    source: TlsSource,
    acceptor: Acceptor,
    files: Mutex<Files>,
}

struct Files {
    /// When they were last tried, well or not: each change is told once.
    tried: Contents,
    /// What is shown to clients.
    loaded: Contents,
}

impl Reload {
    pub(super) fn new(
        rules: RulesSource,
        tls: Option<Tls>,
        handle: Handle,
        reporter: &Arc<Reporter>,
    ) -> Self {
        Self {
            rules,
            tls: tls.map(|tls| Certificates {
                source: tls.source,
                acceptor: tls.acceptor,
                files: Mutex::new(Files {
                    tried: tls.contents.clone(),
                    loaded: tls.contents,
                }),
            }),
            handle,
            reporter: Arc::downgrade(reporter),
        }
    }

    fn report(&self, event: Event) {
        if let Some(reporter) = self.reporter.upgrade() {
            reporter.report(event);
        }
    }

    /// HUP: everything, or nothing if a part of it is bad.
    pub(super) fn all(&self) {
        let reload = || -> Result<bool, Failure> {
            let rules = self.rules.load()?;
            let certificates = match &self.tls {
                Some(tls) => self.certificates(tls)?,
                None => false,
            };
            let changed = rules != *self.handle.rules();
            if changed {
                self.handle.set_rules(rules);
            }
            Ok(changed || certificates)
        };
        self.report(Event::reload(Cause::Hup, reload()));
    }

    /// The certificates, if what is in their files is not what it was.
    fn changed_certificates(&self) {
        let Some(tls) = &self.tls else { return };
        if tls.files().tried == tls.source.contents() {
            return;
        }
        let reloaded = self.certificates(tls);
        self.report(Event::reload(Cause::Files, reloaded));
    }

    /// Loads the certificates, and says whether they are others than before.
    fn certificates(&self, tls: &Certificates) -> Result<bool, Failure> {
        let mut files = tls.files();
        // Before they are loaded: what changes meanwhile is a change to come.
        files.tried = tls.source.contents();
        let options = tls.source.load()?;
        if files.tried == files.loaded {
            return Ok(false);
        }
        let certificates = shown(&options);
        tls.acceptor.reload(options).map_err(Failure::usage)?;
        files.loaded = files.tried.clone();
        if let Some(reporter) = self.reporter.upgrade() {
            reporter.certificates(certificates);
        }
        Ok(true)
    }
}

impl Certificates {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the files of certificates until the program ends, in a thread.
///
/// Their directories are watched and not they, for most tools put a new file in the place of the old one, or turn a link
/// that leads to it (certbot, Kubernetes). Where no events come, as from NFS, looking every [`LOOK`] finds it, too.
pub(super) fn watch(reload: Arc<Reload>) -> io::Result<()> {
    let Some(tls) = &reload.tls else {
        return Ok(());
    };
    let mut folders: Vec<PathBuf> = tls.source.files().flat_map(|file| folders(file)).collect();
    folders.sort();
    folders.dedup();
    if folders.is_empty() {
        return Ok(());
    }
    let (tell, changes) = mpsc::sync_channel(1);
    // One waiting change is as good as many.
    let watcher = notify::recommended_watcher(move |_| {
        let _ = tell.try_send(());
    });
    let watcher = watcher.and_then(|mut watcher| {
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    // Without events, for want of inotify instances for example, there is still the look from time to time.
    let watcher = watcher.ok();
    thread::Builder::new()
        .name("certificates".to_owned())
        .spawn(move || look(&reload, watcher, &changes))?;
    Ok(())
}

/// The folders where an entry can change that decides what a path leads to: that of the file, and that of each link on
/// the way.
fn folders(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut next = std::path::absolute(file).ok();
    for _ in 0..MOST_LINKS {
        let Some(path) = next.take() else { break };
        let links = path
            .ancestors()
            .skip(1)
            .filter(|folder| folder.is_symlink());
        let with_links = links.chain([path.as_path()]);
        folders.extend(with_links.filter_map(Path::parent).map(Path::to_owned));
        next = std::fs::read_link(&path)
            .ok()
            .and_then(|to| Some(path.parent()?.join(to)));
    }
    folders
}

/// As many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Between two looks without an event.
const LOOK: Duration = Duration::from_secs(10);

/// How long the folder must be quiet before it is looked at: certificate and key are two files, and one comes first.
const QUIET: Duration = Duration::from_millis(500);

/// A folder that is never quiet is looked at all the same.
const AT_LATEST: Duration = Duration::from_secs(2);

fn look(reload: &Reload, watcher: Option<RecommendedWatcher>, changes: &Receiver<()>) {
    loop {
        let event = match &watcher {
            Some(_) => changes.recv_timeout(LOOK),
            None => {
                thread::sleep(LOOK);
                Err(RecvTimeoutError::Timeout)
            }
        };
        match event {
            Ok(()) => {
                let latest = Instant::now() + AT_LATEST;
                while Instant::now() < latest && changes.recv_timeout(QUIET).is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        reload.changed_certificates();
    }
}
