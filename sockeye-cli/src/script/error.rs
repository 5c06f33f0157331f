//! What is wrong with a script, where, and what would be right.

use std::fmt;

use thiserror::Error;

/// A script that cannot be run.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) struct ParseError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// In characters, counted from 1.
    pub(crate) column: usize,
    pub(crate) problem: Problem,
    /// The line itself.
    pub(crate) text: String,
}

/// How much of a line is shown.
const SHOWN_CHARACTERS: usize = 100;

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.problem)?;
        let text = self.text.trim();
        if text.is_empty() {
            return Ok(());
        }
        let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
        let more = if shown.len() < text.len() { "..." } else { "" };
        write!(f, ", in: {shown}{more}")
    }
}

#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Problem {
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("more than {0} statements")]
    TooManySteps(usize),
    #[error("blocks within blocks, more than {0} deep")]
    TooDeep(usize),
    #[error("more than {0} captures")]
    TooManyCaptures(usize),
    #[error("there is no statement in it")]
    Empty,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("a tab in the indentation")]
    Tab,
    #[error("stands further in than what is above it")]
    Indented,
    #[error("'{0}' is no statement")]
    UnknownStatement(String),
    #[error("{0} is expected here")]
    Expected(&'static str),
    #[error("'{0}' is one word too many")]
    Trailing(String),
    #[error("a text without its closing quote")]
    UnclosedText,
    #[error("an empty text")]
    EmptyText,
    #[error("unknown escape \\{0}")]
    UnknownEscape(char),
    #[error("\\x needs two hexadecimal digits")]
    BadHexEscape,
    #[error("nothing above is captured as {{{0}}}")]
    UnknownCapture(String),
    #[error("an odd number of hexadecimal digits")]
    OddHex,
    #[error("an expression without its closing /")]
    UnclosedExpression,
    #[error("not a regular expression: {0}")]
    BadExpression(String),
    #[error("an expression of what?")]
    BareExpression,
    #[error("'{word}' is not a time: {why}")]
    BadTime { word: String, why: String },
    #[error("'{0}' is not a number from 1 to 1000000")]
    BadRounds(String),
    #[error("nothing stands further in below it")]
    NoBlock,
    #[error("'{0}' does not fit on the line of an 'on'")]
    NeedsBlock(&'static str),
    #[error("never reached after the '{0}' above it")]
    Unreachable(&'static str),
    #[error("'{0}' is for loops, and this is in none")]
    NoLoop(&'static str),
    #[error("after 'shutdown' nothing can be sent")]
    SendAfterShutdown,
    #[error("a loop without end that expects nothing")]
    EndlessLoop,
}

impl Problem {
    /// What would be right, where the message does not say it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownStatement(_) => STATEMENTS,
            Self::TooLarge(_) => {
                "send file \"NAME\" and expect file \"NAME\" take long data from files"
            }
            Self::Tab => "indent with spaces",
            Self::Indented => {
                "only what belongs to a 'loop' or an 'on' stands further in, all of it equally far"
            }
            Self::UnclosedText => "a text ends on its line; write \\\" for a quote in it",
            Self::EmptyText => "write what is sent or expected between the quotes",
            Self::UnknownEscape(_) => "known are \\r \\n \\t \\0 \\\\ \\\" \\{ \\xHH",
            Self::UnknownCapture(_) => {
                "expect line /(?<name>.*)/ captures; write \\{ for a brace that is to be sent"
            }
            Self::OddHex => "a byte is two digits: hex 0d0a, or hex 0d 0a",
            Self::UnclosedExpression => {
                "an expression ends on its line; write \\/ for a slash in it"
            }
            Self::BareExpression => {
                "an expression is for a line: line /REGEX/; other bytes are \"TEXT\", hex or until \"TEXT\""
            }
            Self::BadRounds(_) => "'loop 3' is three times, 'loop' is until the peer closes",
            Self::NoBlock => "write what belongs to it below it, further in",
            Self::NeedsBlock(_) => "write it below, further in",
            Self::EndlessLoop => {
                "it would never see that the peer has closed: expect something below it, as far in, or write 'loop 100'"
            }
            Self::Expected(what) if *what == DATA => "write \"TEXT\", hex 0d0a or file \"NAME\"",
            Self::Expected(what) if *what == PATTERN => PATTERNS,
            _ => return None,
        })
    }
}

pub(super) const DATA: &str = "what is to be sent";
pub(super) const PATTERN: &str = "what is to come";

const STATEMENTS: &str = "statements are send, expect, on, loop, break, continue, delay, timeout, shutdown, close and \
    reset; docs/script.md has them all";
const PATTERNS: &str = "write \"TEXT\", hex 0d0a, file \"NAME\", line, line /REGEX/, until \"TEXT\", 16 bytes, close or reset";
