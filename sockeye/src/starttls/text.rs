//! The protocols of lines: SMTP, IMAP and POP3. All three hold the same conversation in their own words: a greeting,
//! the question what the server can do, and the command.

use super::answer::{MAX_LINE_BYTES, MAX_REPLY_LINES, MAX_SAID_CHARS, StarttlsError, Step, shown};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    /// RFC 3207, with the replies of RFC 5321 section 4.2.
    Smtp,
    /// RFC 9051 sections 6.1.1, 6.2.1 and 7.1.
    Imap,
    /// RFC 2595 section 4, with the capabilities of RFC 2449.
    Pop3,
}

/// What is answered now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Greeting,
    Capabilities,
    Consent,
}

/// What a line means.
enum Line {
    /// The answer goes on.
    More,
    /// The answer is complete, and it is yes.
    Yes,
    /// The answer is complete, and it is no.
    No,
    /// Nothing that the protocol has here.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Dialogue {
    dialect: Dialect,
    stage: Stage,
    line: Vec<u8>,
    lines: usize,
    /// The lines of this answer, as far as they can be shown.
    said: Vec<u8>,
    offered: bool,
    /// SMTP: the code of this answer's first line, which all of its lines must have.
    code: Option<[u8; 3]>,
    /// POP3: the list of capabilities has begun.
    listing: bool,
}

impl Dialogue {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            stage: Stage::Greeting,
            line: Vec::new(),
            lines: 0,
            said: Vec::new(),
            offered: false,
            code: None,
            listing: false,
        }
    }

    pub(super) fn push(&mut self, byte: u8) -> Result<Step, StarttlsError> {
        if self.line.len() == MAX_LINE_BYTES {
            return Err(StarttlsError::LineTooLong);
        }
        self.line.push(byte);
        if byte != b'\n' {
            return Ok(Step::Wait);
        }
        if self.lines == MAX_REPLY_LINES {
            return Err(StarttlsError::TooManyLines);
        }
        self.lines += 1;
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        // Some servers end their lines with LF alone; it cannot be taken for anything else.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.note(line);
        let meaning = match self.dialect {
            Dialect::Smtp => self.smtp(line),
            Dialect::Imap => self.imap(line),
            Dialect::Pop3 => self.pop3(line),
        };
        match meaning {
            Line::More => Ok(Step::Wait),
            Line::Yes => self.next(),
            Line::No => Err(StarttlsError::Refused {
                said: shown(&self.said),
            }),
            Line::Foreign => Err(StarttlsError::Malformed {
                due: self.due(),
                said: shown(line),
            }),
        }
    }

    pub(super) fn due(&self) -> &'static str {
        match (self.dialect, self.stage) {
            (Dialect::Smtp, Stage::Greeting) => "an SMTP greeting",
            (Dialect::Smtp, Stage::Capabilities) => "an answer to EHLO",
            (Dialect::Imap, Stage::Greeting) => "an IMAP greeting",
            (Dialect::Imap, Stage::Capabilities) => "an answer to CAPABILITY",
            (Dialect::Smtp | Dialect::Imap, Stage::Consent) => "an answer to STARTTLS",
            (Dialect::Pop3, Stage::Greeting) => "a POP3 greeting",
            (Dialect::Pop3, Stage::Capabilities) => "an answer to CAPA",
            (Dialect::Pop3, Stage::Consent) => "an answer to STLS",
        }
    }

    /// Keeps a line for a refusal; those of a long answer are kept only in part.
    fn note(&mut self, line: &[u8]) {
        if !self.said.is_empty() {
            self.said.push(b' ');
        }
        let room = (4 * MAX_SAID_CHARS + 1).saturating_sub(self.said.len());
        self.said.extend(line.iter().take(room));
    }

    /// After a complete answer that is yes.
    fn next(&mut self) -> Result<Step, StarttlsError> {
        let (stage, command) = match self.stage {
            Stage::Greeting => (Stage::Capabilities, self.question()),
            Stage::Capabilities if !self.offered => return Err(StarttlsError::NotOffered),
            Stage::Capabilities => (Stage::Consent, self.command()),
            Stage::Consent => return Ok(Step::Agreed),
        };
        self.stage = stage;
        self.lines = 0;
        self.said.clear();
        self.code = None;
        Ok(Step::Send(command.to_vec()))
    }

    fn question(&self) -> &'static [u8] {
        match self.dialect {
            // A client that has no name of its own says an address literal (RFC 5321 sections 4.1.1.1 and 4.1.3). Its
            // true address is not known here, and the one that the server sees may be another anyway; it must not
            // refuse for that (4.1.4). A name such as `localhost` is refused by servers that ask for a full one.
            Dialect::Smtp => b"EHLO [127.0.0.1]\r\n",
            Dialect::Imap => b"a1 CAPABILITY\r\n",
            Dialect::Pop3 => b"CAPA\r\n",
        }
    }

    fn command(&self) -> &'static [u8] {
        match self.dialect {
            Dialect::Smtp => b"STARTTLS\r\n",
            Dialect::Imap => b"a2 STARTTLS\r\n",
            Dialect::Pop3 => b"STLS\r\n",
        }
    }

    fn smtp(&mut self, line: &[u8]) -> Line {
        let Some((code, rest)) = line.split_first_chunk::<3>() else {
            return Line::Foreign;
        };
        let known = *self.code.get_or_insert(*code);
        if !code.iter().all(u8::is_ascii_digit) || known != *code {
            return Line::Foreign;
        }
        let (more, text) = match rest {
            [] => (false, rest),
            [b' ', text @ ..] => (false, text),
            [b'-', text @ ..] => (true, text),
            _ => return Line::Foreign,
        };
        // The first line is the server's name; its capabilities follow (RFC 5321 section 4.1.1.1).
        if self.stage == Stage::Capabilities && self.lines > 1 {
            self.offered |= is_first_word(text, b"STARTTLS");
        }
        let yes = match self.stage {
            Stage::Greeting | Stage::Consent => b"220",
            Stage::Capabilities => b"250",
        };
        match code {
            _ if more => Line::More,
            code if code == yes => Line::Yes,
            [b'4' | b'5', ..] => Line::No,
            _ => Line::Foreign,
        }
    }

    fn imap(&mut self, line: &[u8]) -> Line {
        let (tag, rest) = split_word(line);
        let (word, rest) = split_word(rest);
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        if tag == b"*" {
            return match self.stage {
                _ if is(b"BYE") => Line::No,
                Stage::Greeting if is(b"OK") => Line::Yes,
                // Who is logged in already may not start TLS any more (RFC 9051 section 7.1.4).
                Stage::Greeting if is(b"PREAUTH") => Line::No,
                Stage::Greeting => Line::Foreign,
                Stage::Capabilities if is(b"CAPABILITY") => {
                    let mut words = rest.split(|byte| *byte == b' ');
                    self.offered |= words.any(|word| word.eq_ignore_ascii_case(b"STARTTLS"));
                    Line::More
                }
                // A server may tell of other things at any time (RFC 9051 section 7). Nothing of it is kept.
                Stage::Capabilities | Stage::Consent => Line::More,
            };
        }
        let due: &[u8] = match self.stage {
            Stage::Greeting => return Line::Foreign,
            Stage::Capabilities => b"a1",
            Stage::Consent => b"a2",
        };
        match tag {
            tag if tag != due => Line::Foreign,
            _ if is(b"OK") => Line::Yes,
            _ if is(b"NO") || is(b"BAD") => Line::No,
            _ => Line::Foreign,
        }
    }

    fn pop3(&mut self, line: &[u8]) -> Line {
        if self.listing {
            if line == b"." {
                self.listing = false;
                return Line::Yes;
            }
            self.offered |= is_first_word(line, b"STLS");
            return Line::More;
        }
        match split_word(line).0 {
            b"+OK" if self.stage == Stage::Capabilities => {
                self.listing = true;
                Line::More
            }
            b"+OK" => Line::Yes,
            b"-ERR" => Line::No,
            _ => Line::Foreign,
        }
    }
}

/// Up to the first space, and what is behind it.
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b' ');
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.get(1..).unwrap_or_default())
}

fn is_first_word(text: &[u8], word: &[u8]) -> bool {
    split_word(text).0.eq_ignore_ascii_case(word)
}
