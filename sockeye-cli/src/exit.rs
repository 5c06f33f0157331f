//! How the program ends: exit codes that scripts can rely on, and errors that say what to do.

use std::fmt;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// The exit codes of the contract: those of the network are curl's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Code {
    Done = 0,
    /// The answer is no: a probe found nobody.
    No = 1,
    /// Usage or configuration.
    Usage = 2,
    Resolve = 6,
    Connect = 7,
    Timeout = 28,
    /// TLS did not come about.
    Handshake = 35,
    /// Receiving failed, or the stream was cut short.
    Receive = 56,
    /// The certificate is not to be trusted.
    Certificate = 60,
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a verb failed: what, on what and why, perhaps what to do about it, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) error: anyhow::Error,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Code::Usage, error)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let bold = Style::new().bold();
        let message = escaped(&format!("{:#}", self.error));
        write!(f, "{red}error:{red:#} {message}")?;
        if let Some(hint) = &self.hint {
            write!(f, "\n{bold}hint:{bold:#} {}", escaped(hint))?;
        }
        Ok(())
    }
}

/// Something that the user should know though all goes on.
pub(crate) struct Warning<'a>(pub(crate) &'a str);

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yellow = Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold();
        write!(f, "{yellow}warning:{yellow:#} {}", escaped(self.0))
    }
}

/// What cannot be seen, or changes how the rest is seen, shown and not obeyed: control characters, and those that turn the
/// direction of writing. A name or a path may come from somebody else.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // These are seen.
            '\'' | '"' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}
