//! The progress of `--send-file`, on the last line of a terminal. Without a terminal nothing is shown.

use std::io::{IsTerminal, stdout};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line. It is cleared when all is sent, and when this is dropped.
#[derive(Debug)]
pub(crate) struct Upload(ProgressBar);

impl Upload {
    /// Shows nothing without a file, and if stderr is no terminal.
    pub(crate) fn start(file: Option<&Path>) -> Self {
        let Some(file) = file else {
            return Self(ProgressBar::hidden());
        };
        // Of a pipe nobody knows how much is in it.
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file());
        let length = metadata.map(|metadata| metadata.len());
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        let template = match length {
            Some(_) => "{bytes} of {total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left",
            None => "{bytes} {bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub(crate) fn add(&self, bytes: usize) {
        if !self.0.is_finished() {
            self.0.inc(bytes as u64);
        }
    }

    /// An answer comes: on the same terminal the two would be written over each other.
    pub(crate) fn give_way(&self) {
        if stdout().is_terminal() {
            self.end();
        }
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.end();
    }
}
