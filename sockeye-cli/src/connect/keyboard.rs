//! stdin as a terminal: a line that is being typed is given to us as soon as the escape character is typed, and the
//! terminal is as it was when we end.
//!
//! A terminal keeps a line to itself until it ends, so that it can be corrected. Besides the line end it knows one more
//! character that ends a line (termios(3), `VEOL`), usually none: for as long as we talk it is the escape character. So the
//! line can be corrected as before, and no other program has to be asked to leave the terminal alone.

use std::io::{Stdin, stdin};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The terminal. It is restored when this is dropped.
#[derive(Debug)]
pub(crate) struct Keyboard {
    terminal: Stdin,
    escape: u8,
    before: u8,
}

impl Keyboard {
    /// `None` if stdin is no terminal.
    pub(crate) fn start(escape: u8) -> Option<Self> {
        let terminal = stdin();
        let before = tcgetattr(&terminal).ok()?.special_codes[SpecialCodeIndex::VEOL];
        let keyboard = Self {
            terminal,
            escape,
            before,
        };
        keyboard.set(escape);
        Some(keyboard)
    }

    fn set(&self, end_of_line: u8) {
        // From the background it would stop us (SIGTTOU). Who is not in a session with the terminal is not asked.
        if tcgetpgrp(&self.terminal).is_ok_and(|foreground| foreground != getpgrp()) {
            return;
        }
        // A terminal that has gone has nothing to set.
        if let Ok(mut settings) = tcgetattr(&self.terminal) {
            settings.special_codes[SpecialCodeIndex::VEOL] = end_of_line;
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, &settings);
        }
    }

    /// Waits for a signal that would end the process without restoring the terminal, and returns its number (INT and TERM
    /// are heard elsewhere); when the process is continued after a stop, the shell may have set the terminal, and it is set again. Cancel safe.
    pub(crate) async fn ended(&self) -> u8 {
        let Ok(mut signals) = Signals::listen() else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => return 1,
                _ = signals.quit.recv() => return 3,
                _ = signals.go_on.recv() => self.set(self.escape),
            }
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.set(self.before);
    }
}

struct Signals {
    hangup: Signal,
    quit: Signal,
    go_on: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            go_on: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }
}
