//! The folder that is served, and nothing but what is below it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, renameat,
    unlinkat,
};
use rustix::io::Errno;

/// A folder from which no path leads out: the kernel sees to it (openat2(2), `RESOLVE_BENEATH`), whatever links there are and
/// whoever changes them meanwhile.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

/// Something in the tree.
#[derive(Debug)]
pub(crate) enum Found {
    File(File, About),
    Folder(OwnedFd),
}

/// What is told of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct About {
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl From<&Stat> for About {
    fn from(stat: &Stat) -> Self {
        let since = Duration::from_secs(stat.st_mtime.unsigned_abs());
        let modified = if stat.st_mtime < 0 {
            UNIX_EPOCH - since
        } else {
            UNIX_EPOCH + since + Duration::from_nanos(stat.st_mtime_nsec)
        };
        Self {
            bytes: stat.st_size.unsigned_abs(),
            modified,
        }
    }
}

/// A rename anywhere makes the kernel uncertain whether a path led out, and it asks for another try.
const MOST_TRIES: u32 = 16;

impl Tree {
    /// # Errors
    ///
    /// That of opening it; `Unsupported` before Linux 5.6, which has no openat2(2).
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder, flags, Mode::empty())?;
        let tree = Self { root };
        match tree.open_below(Path::new("."), flags, Mode::empty()) {
            Err(Errno::NOSYS) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel cannot keep a path inside of a folder (openat2(2) came with Linux 5.6)",
            )),
            other => other.map(|_| tree).map_err(io::Error::from),
        }
    }

    fn open_below(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 1..MOST_TRIES {
            match openat2(&self.root, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        openat2(&self.root, path, flags, mode, resolve)
    }

    /// # Errors
    ///
    /// `NotFound` also for what leads out, and for what is neither a file nor a folder; `PermissionDenied`; those of the
    /// machine, as too few descriptors.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Found> {
        // Without O_NONBLOCK a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = self.open_below(path, flags, Mode::empty()).map_err(told)?;
        let stat = fstat(&opened)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(File::from(opened), About::from(&stat))),
            FileType::Directory => Ok(Found::Folder(opened)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What is told of something in the tree, without opening it for anything else.
    ///
    /// # Errors
    ///
    /// As [`Self::find`].
    pub(crate) fn stat(&self, path: &Path) -> io::Result<Stat> {
        let opened = self.open_below(path, OFlags::PATH, Mode::empty());
        Ok(fstat(&opened.map_err(told)?)?)
    }

    /// A file below, or nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::find`], but for `NotFound`.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Option<(File, About)>> {
        match self.find(path) {
            Ok(Found::File(file, about)) => Ok(Some((file, about))),
            Ok(Found::Folder(_)) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The folder in which something is, to be changed.
    ///
    /// # Errors
    ///
    /// As [`Self::find`].
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = self.open_below(path, flags, Mode::empty());
        Ok(Folder {
            folder: opened.map_err(told)?,
        })
    }
}

/// A folder to put files into.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: OwnedFd,
}

impl Folder {
    /// A new file of this name, which must not be there.
    pub(crate) fn create(&self, name: &Path) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = openat(&self.folder, name, flags, Mode::from_raw_mode(0o666))?;
        Ok(File::from(created))
    }

    /// What is there by this name; links are not followed.
    pub(crate) fn kind(&self, name: &Path) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file another name, in place of what had it.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&self.folder, from, &self.folder, to)?)
    }

    /// Gives a file another name that nothing has yet.
    pub(crate) fn rename_to_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        Ok(rustix::fs::renameat_with(
            self.folder.as_fd(),
            from,
            self.folder.as_fd(),
            to,
            flags,
        )?)
    }

    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.folder, name, AtFlags::empty())?)
    }
}

/// What is outside of the tree is not there.
fn told(error: Errno) -> io::Error {
    match error {
        Errno::XDEV
        | Errno::LOOP
        | Errno::NOTDIR
        | Errno::NAMETOOLONG
        | Errno::NXIO
        | Errno::ILSEQ => io::ErrorKind::NotFound.into(),
        error => error.into(),
    }
}
