//! How the program ends: exit codes that scripts can rely on, and errors that say what to do.

use std::fmt;
use std::num::NonZeroU8;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// The exit codes of the contract: those of the network are curl's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Code {
    Done,
    /// The answer is no: a probe found nobody.
    No,
    /// Usage or configuration.
    Usage,
    Resolve,
    Connect,
    Timeout,
    /// TLS did not come about.
    Handshake,
    /// Receiving failed, or the stream was cut short.
    Receive,
    /// The certificate is not to be trusted.
    Certificate,
    Interrupted,
    /// That of the program of `--exec`; or 128 and the number of the signal that ended us.
    Other(NonZeroU8),
}

impl Code {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Resolve => 6,
            Self::Connect => 7,
            Self::Timeout => 28,
            Self::Handshake => 35,
            Self::Receive => 56,
            Self::Certificate => 60,
            Self::Interrupted => 130,
            Self::Other(code) => code.get(),
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
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

/// As [`escaped`], for a page: whatever is in it, it is text there, and in an attribute.
pub(crate) fn markup(text: &str) -> String {
    let text = escaped(text).replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&quot;")
}
