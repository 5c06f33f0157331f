//! `--tee-in`, `--tee-out` and `--record`: files that get what moves, each by a thread of its own.
//!
//! There is room for a piece before it is moved, so that what has moved is always on its way to the file: when the
//! connection ends, by whatever cause, nothing of it is missing. A slow file slows the connection.

use std::fs::{File, OpenOptions};
use std::io::{self, Write, stdin, stdout};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use rustix::fs::fstat;
use tokio::sync::mpsc::{self, Permit};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cli::connect::Connect;
use crate::connect::recording::{Entry, Said, Side, first_line};
use crate::exit::Failure;

/// Pieces on the way to a file, 128 KiB each at most.
const PIECES: usize = 4;

/// A file, opened and empty, before there is a connection.
#[derive(Debug)]
pub(crate) struct Opened {
    path: PathBuf,
    file: File,
}

/// The files that the options name.
#[derive(Debug, Default)]
pub(crate) struct Files {
    tee_in: Option<Opened>,
    tee_out: Option<Opened>,
    record: Option<Opened>,
}

impl Files {
    /// Opens them, and empties them when all could be opened, so that a wrong name costs nobody a file.
    pub(crate) fn open(arguments: &Connect) -> Result<Self, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Opened::open).transpose();
        let files = Self {
            tee_in: open(&arguments.tee_in)?,
            tee_out: open(&arguments.tee_out)?,
            record: open(&arguments.record)?,
        };
        let mut taken = Taken::by(arguments);
        for opened in files.all() {
            taken.take(opened)?;
        }
        for opened in files.all() {
            opened.empty()?;
        }
        Ok(files)
    }

    fn all(&self) -> impl Iterator<Item = &Opened> {
        [&self.tee_in, &self.tee_out, &self.record]
            .into_iter()
            .flatten()
    }

    /// Starts the threads.
    pub(crate) fn start(self, peer: &str) -> Result<Copies, Failure> {
        let start = |opened: Option<Opened>, first: Vec<u8>| {
            opened.map(|opened| Copy::start(opened, first)).transpose()
        };
        Ok(Copies {
            tee_in: start(self.tee_in, Vec::new())?,
            tee_out: start(self.tee_out, Vec::new())?,
            record: start(self.record, first_line(peer, SystemTime::now()))?,
        })
    }
}

/// Files that have a use already: device, inode, and what is said of one that is named again. A file that is also read, or
/// gets other bytes as well, would be destroyed.
struct Taken(Vec<(u64, u64, &'static str)>);

impl Taken {
    fn by(arguments: &Connect) -> Self {
        let named = [&arguments.send_file, &arguments.replay];
        let named = named.into_iter().flatten();
        let named = named
            .filter_map(|path| path.metadata().ok())
            .map(|metadata| (metadata.dev(), metadata.ino(), TWICE));
        let standard = [
            (fstat(stdin()), "is stdin, too"),
            (fstat(stdout()), "is stdout, too"),
        ];
        let standard = standard
            .into_iter()
            .filter_map(|(place, what)| place.ok().map(|place| (place.st_dev, place.st_ino, what)));
        Self(named.chain(standard).collect())
    }

    /// Of a device or a pipe nothing is lost: it may have several uses.
    fn take(&mut self, opened: &Opened) -> Result<(), Failure> {
        let Some(metadata) = opened
            .file
            .metadata()
            .ok()
            .filter(|metadata| metadata.is_file())
        else {
            return Ok(());
        };
        let (device, inode) = (metadata.dev(), metadata.ino());
        let mut taken = self.0.iter();
        if let Some((_, _, what)) = taken.find(|place| (place.0, place.1) == (device, inode)) {
            let path = opened.path.display();
            return Err(Failure::usage(anyhow!("'{path}' {what}"))
                .with_hint("each needs a file of its own"));
        }
        self.0.push((device, inode, TWICE));
        Ok(())
    }
}

const TWICE: &str = "is named twice";

impl Opened {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot write '{}'", path.display()));
        Ok(Self {
            path: path.to_owned(),
            file: file.map_err(Failure::usage)?,
        })
    }

    fn empty(&self) -> Result<(), Failure> {
        if !self
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.is_file())
        {
            return Ok(());
        }
        let emptied = self.file.set_len(0);
        let what = || format!("cannot write '{}'", self.path.display());
        emptied.with_context(what).map_err(Failure::usage)
    }
}

/// The files, each with its thread.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    tee_in: Option<Copy>,
    tee_out: Option<Copy>,
    record: Option<Copy>,
}

#[derive(Debug)]
struct Copy {
    path: PathBuf,
    fill: mpsc::Sender<Piece>,
    written: oneshot::Receiver<io::Result<()>>,
}

/// What a file gets. The thread makes the line of an entry.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Entry(Entry),
}

/// A copy that is not all there.
#[derive(Debug)]
pub(crate) struct Incomplete {
    pub(crate) path: PathBuf,
    pub(crate) error: io::Error,
}

/// A file cannot be written any more: [`Copies::finish`] says which, and why.
pub(crate) struct Broken;

impl Copies {
    /// Waits until every file that copies this side has room for another piece. Cancel safe.
    pub(crate) async fn room(&self, from: Side) -> Result<Room<'_>, Broken> {
        let tee = match from {
            Side::Client => &self.tee_out,
            Side::Server => &self.tee_in,
        };
        Ok(Room {
            from,
            tee: reserve(tee).await?,
            record: reserve(&self.record).await?,
        })
    }

    /// Waits until all is written, for `limit` at most if there is one. The first failure is the one that counts.
    pub(crate) async fn finish(self, limit: Option<Duration>) -> Result<(), Incomplete> {
        let mut result = Ok(());
        for copy in [self.tee_in, self.tee_out, self.record]
            .into_iter()
            .flatten()
        {
            let Copy {
                path,
                fill,
                written,
            } = copy;
            drop(fill);
            let ended = async {
                let lost = || Err(io::Error::other("the writing thread has ended"));
                written.await.unwrap_or_else(|_| lost())
            };
            let written = match limit {
                None => ended.await,
                Some(limit) => match timeout(limit, ended).await {
                    Ok(written) => written,
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                },
            };
            result = result.and_then(|()| written.map_err(|error| Incomplete { path, error }));
        }
        result
    }
}

async fn reserve(copy: &Option<Copy>) -> Result<Option<Permit<'_, Piece>>, Broken> {
    match copy {
        None => Ok(None),
        Some(copy) => copy.fill.reserve().await.map(Some).map_err(|_| Broken),
    }
}

/// Room for one piece.
pub(crate) struct Room<'a> {
    from: Side,
    tee: Option<Permit<'a, Piece>>,
    record: Option<Permit<'a, Piece>>,
}

impl Room<'_> {
    /// Copies what has moved.
    pub(crate) fn bytes(self, at: Duration, bytes: &[u8]) {
        if let Some(tee) = self.tee {
            tee.send(Piece::Bytes(bytes.to_vec()));
        }
        if let Some(record) = self.record {
            let (from, said) = (self.from, Said::Bytes(bytes.to_vec()));
            record.send(Piece::Entry(Entry { at, from, said }));
        }
    }

    /// The side has ended.
    pub(crate) fn end(self, at: Duration) {
        if let Some(record) = self.record {
            let (from, said) = (self.from, Said::End);
            record.send(Piece::Entry(Entry { at, from, said }));
        }
    }
}

impl Copy {
    fn start(opened: Opened, first: Vec<u8>) -> Result<Self, Failure> {
        let (fill, mut filled) = mpsc::channel::<Piece>(PIECES);
        let (end, written) = oneshot::channel();
        let Opened { path, mut file } = opened;
        let write = move || {
            let mut write = || {
                file.write_all(&first)?;
                while let Some(piece) = filled.blocking_recv() {
                    match piece {
                        Piece::Bytes(bytes) => file.write_all(&bytes)?,
                        Piece::Entry(entry) => file.write_all(&entry.line())?,
                    }
                }
                Ok(())
            };
            let result = write();
            // Who asks for room now sees that there is none.
            drop(filled);
            // At the end of the program nobody may wait for it.
            let _ = end.send(result);
        };
        let thread = thread::Builder::new().name("copy".to_owned()).spawn(write);
        thread.map_err(|error| Failure::usage(anyhow!(error).context("cannot start a thread")))?;
        Ok(Self {
            path,
            fill,
            written,
        })
    }
}
