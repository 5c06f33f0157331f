//! Reads rules, certificates and the script anew: on HUP all, and certificates whenever their files change. What is bad
//! changes nothing. In a thread of its own, for a file that hangs must not keep a signal from ending the server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sockeye::Handle;
use sockeye::tls::Acceptor;

use crate::exit::Failure;
use crate::serve::events::{Cause, Event};
use crate::serve::reporter::Reporter;
use crate::serve::scripted::Scripted;
use crate::serve::sources::{Contents, RulesSource, Tls, TlsSource, shown};

/// What can be read anew.
pub(super) struct Reload {
    rules: RulesSource,
    tls: Option<Certificates>,
    script: Option<Scripted>,
    handle: Handle,
    /// Weak, for this thread must not keep the last lines from being written.
    reporter: Weak<Reporter>,
}

struct Certificates {
    source: TlsSource,
    acceptor: Acceptor,
    /// When they were last tried, well or not: each change is told once.
    tried: Contents,
    /// What is shown to clients.
    loaded: Contents,
}

/// Asks the thread to read everything anew.
#[derive(Clone)]
pub(super) struct Ask {
    hup: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Ask {
    /// Never waits; several requests before the next reload are one.
    pub(super) fn hup(&self) {
        self.hup.store(true, Ordering::Relaxed);
        wake(&self.wake);
    }
}

/// One that waits is as good as many.
fn wake(wake: &SyncSender<()>) {
    let _ = wake.try_send(());
}

impl Reload {
    pub(super) fn new(
        rules: RulesSource,
        tls: Option<Tls>,
        script: Option<Scripted>,
        handle: Handle,
        reporter: &Arc<Reporter>,
    ) -> Self {
        Self {
            rules,
            tls: tls.map(|tls| Certificates {
                source: tls.source,
                acceptor: tls.acceptor,
                tried: tls.contents.clone(),
                loaded: tls.contents,
            }),
            script,
            handle,
            reporter: Arc::downgrade(reporter),
        }
    }

    /// Starts the thread, which lasts as long as the program.
    pub(super) fn start(self) -> io::Result<Ask> {
        let (sender, woken) = mpsc::sync_channel(1);
        let ask = Ask {
            hup: Arc::default(),
            wake: sender,
        };
        let hup = Arc::clone(&ask.hup);
        let watcher = self.watch(&ask.wake);
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || self.run(&hup, &woken, watcher))?;
        Ok(ask)
    }

    /// Watches the folders of the certificates.
    ///
    /// Not the files themselves, for most tools put a new file in the place of the old one, or turn a link that leads to it
    /// (certbot, Kubernetes). Where no events come, as from NFS, looking every [`LOOK`] finds it, too; so it is no
    /// failure if the kernel has no watches left.
    fn watch(&self, wake_up: &SyncSender<()>) -> Option<RecommendedWatcher> {
        let files = self.tls.as_ref()?.source.files();
        let mut folders: Vec<PathBuf> = files.flat_map(|file| folders(file)).collect();
        folders.sort();
        folders.dedup();
        let wake_up = wake_up.clone();
        let changed = move |event: notify::Result<notify::Event>| {
            // To read a file is an event, too, and it is we who do.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                wake(&wake_up);
            }
        };
        let mut watcher = notify::recommended_watcher(changed).ok()?;
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
        }
        Some(watcher)
    }

    fn run(mut self, hup: &AtomicBool, woken: &Receiver<()>, _watcher: Option<RecommendedWatcher>) {
        loop {
            let event = match woken.recv_timeout(LOOK) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let latest = Instant::now() + AT_LATEST;
            let in_time = || !hup.load(Ordering::Relaxed) && Instant::now() < latest;
            // Certificate and key are two files, and one comes first.
            while event && in_time() && woken.recv_timeout(QUIET).is_ok() {}
            if hup.swap(false, Ordering::Relaxed) {
                self.all();
            } else {
                self.changed_certificates();
            }
        }
    }

    fn report(&self, event: Event) {
        if let Some(reporter) = self.reporter.upgrade() {
            reporter.report(event);
        }
    }

    /// HUP: everything, or nothing if a part of it is bad.
    fn all(&mut self) {
        let mut reload = || -> Result<bool, Failure> {
            let rules = self.rules.load()?;
            let script = self.script.as_ref().map(Scripted::read).transpose()?;
            let contents = self
                .tls
                .as_ref()
                .map(|tls| tls.source.read(Some(&tls.tried)));
            let certificates = match contents {
                Some(contents) => self.certificates(contents)?,
                None => false,
            };
            let changed = rules != *self.handle.rules();
            if changed {
                self.handle.set_rules(rules);
            }
            let followed = self.script.as_ref().zip(script);
            let script = followed.is_some_and(|(scripted, script)| scripted.replace(script));
            Ok(changed || certificates || script)
        };
        let reloaded = reload();
        self.report(Event::reload(Cause::Hup, reloaded));
    }

    /// The certificates, if what is in their files is not what it was.
    fn changed_certificates(&mut self) {
        let Some(tls) = &self.tls else { return };
        let contents = tls.source.read(Some(&tls.tried));
        if contents == tls.tried {
            return;
        }
        let reloaded = self.certificates(contents);
        self.report(Event::reload(Cause::Files, reloaded));
    }

    /// Puts these certificates in the place of those that are shown, and says whether they are others.
    fn certificates(&mut self, contents: Contents) -> Result<bool, Failure> {
        let Some(tls) = &mut self.tls else {
            return Ok(false);
        };
        tls.tried = contents.clone();
        if contents == tls.loaded {
            return Ok(false);
        }
        let options = tls.source.options(&contents)?;
        let certificates = shown(&options);
        tls.acceptor.reload(options).map_err(Failure::usage)?;
        tls.loaded = contents;
        if let Some(reporter) = self.reporter.upgrade() {
            reporter.certificates(certificates);
        }
        Ok(true)
    }
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

/// How long the folder must be quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(500);

/// A folder that is never quiet is looked at all the same.
const AT_LATEST: Duration = Duration::from_secs(2);
