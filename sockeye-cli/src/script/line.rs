//! One line of a script, word by word.

use std::time::Duration;

use crate::cli::time::positive;
use crate::script::error::{ParseError, Problem};
use crate::script::syntax::{Expression, Part, Text};

/// A line, and how far it has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) number: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    pub(super) fn new(number: usize, text: &'a str) -> Self {
        Self {
            number,
            text,
            at: 0,
        }
    }

    /// Spaces before the first word; `None` if there is no word. A tab is as wide as somebody's editor says.
    pub(super) fn indent(&self) -> Result<Option<usize>, ParseError> {
        let trimmed = self.text.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return Ok(None);
        }
        let indent = self.text.len() - trimmed.len();
        match self.text[..indent].find(|c| c != ' ') {
            None => Ok(Some(indent)),
            Some(at) => Err(self.fault_at(at, Problem::Tab)),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// What comes next, after spaces; `None` at the end of the line or before a comment.
    pub(super) fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next().filter(|c| *c != '#')
    }

    /// What is wrong where the line is now.
    pub(super) fn fault(&self, problem: Problem) -> ParseError {
        self.fault_at(self.at, problem)
    }

    /// What is wrong with the statement that stands here.
    pub(super) fn fault_of_all(&self, problem: Problem) -> ParseError {
        self.fault_at(self.text.len() - self.text.trim_start().len(), problem)
    }

    fn fault_at(&self, at: usize, problem: Problem) -> ParseError {
        ParseError {
            line: self.number,
            column: self.text[..at].chars().count() + 1,
            problem,
            text: self.text.to_owned(),
        }
    }

    /// The next word, which ends before a space, a quote, a slash or a comment; empty if there is none.
    pub(super) fn word(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '/' | '#'));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// The next word if it is this one.
    pub(super) fn takes(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let is_it = ahead.word() == word;
        if is_it {
            *self = ahead;
        }
        is_it
    }

    /// Whether this is the next word.
    pub(super) fn begins(&self, word: &str) -> bool {
        let mut ahead = *self;
        ahead.takes(word)
    }

    /// That the line ends here.
    pub(super) fn finish(&mut self) -> Result<(), ParseError> {
        if self.peek().is_none() {
            return Ok(());
        }
        let rest = self.rest();
        let word = rest.split_whitespace().next().unwrap_or(rest);
        Err(self.fault(Problem::Trailing(word.to_owned())))
    }

    /// A time of more than 0.
    pub(super) fn time(&mut self) -> Result<Duration, ParseError> {
        self.peek();
        let from = self.at;
        let word = self.word();
        if word.is_empty() {
            return Err(self.fault(Problem::Expected("a time as 500ms, 5s or 1m30s")));
        }
        positive(word).map_err(|why| {
            let word = word.to_owned();
            self.fault_at(from, Problem::BadTime { word, why })
        })
    }

    /// Bytes in hexadecimal, with spaces between them or not.
    pub(super) fn hex(&mut self) -> Result<Vec<u8>, ParseError> {
        let mut bytes = Vec::new();
        loop {
            let mut ahead = *self;
            let word = ahead.word();
            if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                break;
            }
            if word.len() % 2 == 1 {
                let start = ahead.at - word.len();
                return Err(self.fault_at(start, Problem::OddHex));
            }
            bytes.extend(
                (0..word.len())
                    .step_by(2)
                    .filter_map(|at| byte(&word[at..])),
            );
            *self = ahead;
        }
        if bytes.is_empty() {
            self.peek();
            return Err(self.fault(Problem::Expected("bytes as 0d0a")));
        }
        Ok(bytes)
    }

    /// A text in quotes, with captures in it.
    pub(super) fn text(&mut self) -> Result<Text, ParseError> {
        self.quoted(true)
    }

    /// A name in quotes, in which a brace is a brace: no peer chooses what a file is called.
    pub(super) fn name(&mut self) -> Result<String, ParseError> {
        if self.peek() != Some('"') {
            return Err(self.fault(Problem::Expected("a name in quotes")));
        }
        let from = self.at;
        let text = self.quoted(false)?;
        let Some(Part::Bytes(bytes)) = text.parts().first() else {
            return Err(self.fault_at(from, Problem::EmptyText));
        };
        let name = String::from_utf8(bytes.clone());
        name.map_err(|_| self.fault_at(from, Problem::NotUtf8))
    }

    fn quoted(&mut self, captures: bool) -> Result<Text, ParseError> {
        let opened = self.at;
        self.at += 1;
        let mut text = Text::default();
        loop {
            let from = self.at;
            let Some(c) = self.rest().chars().next() else {
                return Err(self.fault_at(opened, Problem::UnclosedText));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape(from)?),
                '{' if captures => match self.capture() {
                    Some(name) => text.push_capture(name),
                    None => text.push(b'{'),
                },
                _ => {
                    let mut bytes = [0; 4];
                    let bytes = c.encode_utf8(&mut bytes).bytes();
                    bytes.for_each(|byte| text.push(byte));
                }
            }
        }
    }

    /// The name of a capture and the brace behind it, if that is what comes: the brace before it is only a brace else.
    fn capture(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let (name, behind) = rest.split_at(end);
        if !is_name(name) || !behind.starts_with('}') {
            return None;
        }
        self.at += end + 1;
        Some(name)
    }

    /// What stands behind the backslash at `from`.
    fn escape(&mut self, from: usize) -> Result<u8, ParseError> {
        let Some(kind) = self.rest().chars().next() else {
            return Err(self.fault_at(from, Problem::UnclosedText));
        };
        self.at += kind.len_utf8();
        Ok(match kind {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            '\\' | '"' | '{' => kind as u8,
            'x' => {
                let byte = byte(self.rest());
                self.at += if byte.is_some() { 2 } else { 0 };
                byte.ok_or_else(|| self.fault_at(from, Problem::BadHexEscape))?
            }
            _ => return Err(self.fault_at(from, Problem::UnknownEscape(kind))),
        })
    }

    /// A regular expression between slashes.
    pub(super) fn expression(&mut self) -> Result<Expression, ParseError> {
        let opened = self.at;
        let source = &self.rest()[1..];
        let mut escaped = false;
        let end = source.find(|c| {
            let ends = c == '/' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return Err(self.fault(Problem::UnclosedExpression));
        };
        self.at += end + 2;
        Expression::new(&source[..end]).map_err(|error| {
            let words = error.to_string();
            // A syntax error is a picture of several lines, and the last one says what it is.
            let last = words.lines().last().unwrap_or_default();
            let why = last.trim_start_matches("error: ").to_owned();
            self.fault_at(opened, Problem::BadExpression(why))
        })
    }
}

/// Whether letters, digits and underscores are a name, and not a number as in `{2}`.
fn is_name(text: &str) -> bool {
    // All its characters are of a name already.
    text.bytes()
        .next()
        .is_some_and(|first| !first.is_ascii_digit())
}

/// The byte that the first two characters stand for.
fn byte(text: &str) -> Option<u8> {
    let digits = text.get(..2)?;
    // `from_str_radix` would take a sign.
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    all_digits.then(|| u8::from_str_radix(digits, 16).ok())?
}
