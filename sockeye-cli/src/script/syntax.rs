//! What a script says: its steps, and how they are written.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use crate::script::quoted::escape;

/// One statement. Two are equal if they say the same, wherever they stand.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) action: Action,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.action == other.action
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Send(Data),
    Expect(Pattern),
    /// That nothing comes for so long.
    ExpectNothing(Duration),
    /// The first branch whose pattern is what comes.
    Choose(Vec<Branch>),
    Loop {
        /// `None` is until the peer closes.
        rounds: Option<NonZeroU32>,
        body: Vec<Step>,
    },
    Delay(Duration),
    /// For what stands below it in its block.
    Timeout(Duration),
    /// Ends the innermost loop.
    Break,
    /// Ends its round.
    Continue,
    Shutdown,
    Close,
    Reset,
}

/// `on PATTERN`, and what is done then.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) line: usize,
    pub(crate) pattern: Pattern,
    pub(crate) body: Vec<Step>,
}

impl PartialEq for Branch {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.body == other.body
    }
}

/// Bytes, as they are written in a script.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Text(Text),
    Hex(Vec<u8>),
    /// The name of a file, from the folder of the script on.
    File(String),
}

/// What may come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    Exactly(Data),
    /// A line, which the expression is to match as a whole, without its end.
    Line(Option<Expression>),
    /// Any bytes up to these, and these.
    Until(Text),
    Bytes(NonZeroU64),
    Close,
    Reset,
}

/// Bytes with captures among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// What was captured under this name.
    Capture(String),
}

impl Text {
    pub(crate) fn push(&mut self, byte: u8) {
        match self.parts.last_mut() {
            Some(Part::Bytes(bytes)) => bytes.push(byte),
            _ => self.parts.push(Part::Bytes(vec![byte])),
        }
    }

    pub(crate) fn push_capture(&mut self, name: &str) {
        self.parts.push(Part::Capture(name.to_owned()));
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// A regular expression over bytes, which matches all of something or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    source: String,
    whole: Regex,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// What a compiled expression may take: `.{1000}` fits, a thousand of those do not.
const EXPRESSION_BYTES: usize = 256 * 1024;

impl Expression {
    pub(crate) fn new(source: &str) -> Result<Self, regex::Error> {
        // Alone first: what is not whole by itself could be made so by what is put around it, and the error would tell of
        // that, too.
        compile(source)?;
        let whole = compile(&format!(r"\A(?:{source})\z"))?;
        Ok(Self {
            source: source.to_owned(),
            whole,
        })
    }

    /// The names that it captures under.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.whole.capture_names().flatten()
    }

    /// What it captures if it matches all of this. A group that takes no part captures nothing, which is no bytes.
    pub(crate) fn match_whole(&self, bytes: &[u8]) -> Option<Captures> {
        if self.names().next().is_none() {
            return self.whole.is_match(bytes).then(Vec::new);
        }
        let found = self.whole.captures(bytes)?;
        let captured = |name: &str| {
            let group = found.name(name);
            group.map_or_else(Vec::new, |group| group.as_bytes().to_vec())
        };
        let names = self.names();
        Some(
            names
                .map(|name| (name.to_owned(), captured(name)))
                .collect(),
        )
    }
}

/// Names, and what was captured under them.
pub(crate) type Captures = Vec<(String, Vec<u8>)>;

fn compile(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        // What comes is bytes, whether or not they are UTF-8: a dot is any of them but the end of the line.
        .unicode(false)
        .size_limit(EXPRESSION_BYTES)
        .dfa_size_limit(EXPRESSION_BYTES)
        .nest_limit(50)
        .build()
}

/// A statement on one line.
pub(crate) struct Statement<'a>(pub(crate) &'a Action);

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Action::Send(data) => write!(f, "send {data}"),
            Action::Expect(pattern) => write!(f, "expect {pattern}"),
            Action::ExpectNothing(time) => write!(f, "expect nothing for {}", Time(*time)),
            Action::Delay(time) => write!(f, "delay {}", Time(*time)),
            Action::Timeout(time) => write!(f, "timeout {}", Time(*time)),
            Action::Break => f.write_str("break"),
            Action::Continue => f.write_str("continue"),
            Action::Shutdown => f.write_str("shutdown"),
            Action::Close => f.write_str("close"),
            Action::Reset => f.write_str("reset"),
            // Written with their blocks.
            Action::Choose(_) => f.write_str("on"),
            Action::Loop { .. } => f.write_str("loop"),
        }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Hex(bytes) => {
                f.write_str("hex ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::File(name) => write!(f, "file \"{}\"", escape(name.as_bytes())),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for part in &self.parts {
            match part {
                // No byte could be taken for the beginning of a capture.
                Part::Bytes(bytes) => f.write_str(&escape(bytes).replace('{', "\\{"))?,
                Part::Capture(name) => write!(f, "{{{name}}}")?,
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(data) => data.fmt(f),
            Self::Line(None) => f.write_str("line"),
            Self::Line(Some(expression)) => write!(f, "line /{}/", expression.source),
            Self::Until(text) => write!(f, "until {text}"),
            Self::Bytes(count) => write!(f, "{count} bytes"),
            Self::Close => f.write_str("close"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// A time as it is written, `1m30s`.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = humantime::format_duration(self.0).to_string();
        f.write_str(&words.replace(' ', ""))
    }
}
