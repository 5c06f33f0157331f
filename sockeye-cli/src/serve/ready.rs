//! Word for scripts and supervisors that the server accepts, and which process it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::anyhow;
use sockeye::{Addr, inherited_descriptor};

use crate::cli::serve::Serve;
use crate::exit::Failure;

/// Who is to be told. Dropped at the end, it removes the files.
#[derive(Debug)]
pub(crate) struct Ready {
    descriptor: Option<File>,
    file: Option<PathBuf>,
    /// Files that are ours by now, with what tells them from those of another that came later.
    written: Vec<(PathBuf, Option<FileId>)>,
}

impl Ready {
    /// To be called before anything is opened: only then a number is for sure that of a descriptor which somebody has
    /// handed over. Writes the process ID.
    pub(crate) fn new(arguments: &Serve) -> Result<Self, Failure> {
        let descriptor = match arguments.ready_fd {
            Some(number) => Some(inherited_descriptor(number).map_err(|error| {
                let error = anyhow!(error).context(format!("--ready-fd {number}"));
                Failure::usage(error)
                    .with_hint("a shell opens one as in: sockeye serve --ready-fd 3 3>FILE")
            })?),
            None => None,
        };
        let mut ready = Self {
            descriptor: descriptor.map(File::from),
            file: arguments.ready_file.clone(),
            written: Vec::new(),
        };
        if let Some(path) = &arguments.pid_file {
            let cannot = |error| anyhow!("--pid-file: {}", ready.cannot(path, error));
            let id = write_whole(path, &format!("{}\n", process::id()))
                .map_err(|error| Failure::usage(cannot(error)))?;
            ready.written.push((path.clone(), id));
        }
        if let Some(path) = &ready.file {
            // One of an earlier run would be taken for ours; and whoever waits for a file that cannot be written waits for ever.
            write_whole(path, "")
                .and_then(|_| fs::remove_file(path))
                .map_err(|error| {
                    Failure::usage(anyhow!("--ready-file: {}", ready.cannot(path, error)))
                })?;
        }
        Ok(ready)
    }

    fn cannot(&self, path: &Path, error: io::Error) -> String {
        format!("cannot write {}: {error}", path.display())
    }

    /// Tells the addresses, once; returns what went wrong.
    pub(crate) fn announce(&mut self, addresses: &[Addr]) -> Vec<String> {
        let lines: String = addresses
            .iter()
            .map(|address| format!("{address}\n"))
            .collect();
        let mut wrong = Vec::new();
        if let Some(mut descriptor) = self.descriptor.take()
            && let Err(error) = descriptor.write_all(lines.as_bytes())
        {
            wrong.push(format!("--ready-fd: cannot write to it: {error}"));
        }
        if let Some(path) = self.file.take() {
            match write_whole(&path, &lines) {
                Ok(id) => self.written.push((path, id)),
                Err(error) => wrong.push(format!("--ready-file: {}", self.cannot(&path, error))),
            }
        }
        wrong
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        for (path, id) in &self.written {
            // Another server may have put its own there meanwhile, and then it is not ours to remove.
            if id.is_some() && file_id(path) == *id {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let about = fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

/// Into another file that then takes its place: nobody reads half of it.
fn write_whole(path: &Path, text: &str) -> io::Result<Option<FileId>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", process::id()));
    fs::write(&beside, text)?;
    let id = file_id(Path::new(&beside));
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    Ok(id)
}
