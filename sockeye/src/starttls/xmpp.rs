//! XMPP: RFC 6120 section 5, over streams of its section 4. As much XML as a server sends before TLS, read byte by
//! byte: no comments, no instructions, no document types (RFC 6120 section 11.1), and no CDATA either.

use super::answer::{MAX_XMPP_BYTES, StarttlsError, Step, shown};

const TLS: &[u8] = b"urn:ietf:params:xml:ns:xmpp-tls";

/// What opens the stream. `host` may hold anything.
pub(super) fn stream_header(host: &str) -> Vec<u8> {
    let mut header = String::from("<?xml version='1.0'?><stream:stream to='");
    for c in host.chars() {
        match c {
            '&' => header.push_str("&amp;"),
            '<' => header.push_str("&lt;"),
            '>' => header.push_str("&gt;"),
            '\'' => header.push_str("&apos;"),
            '"' => header.push_str("&quot;"),
            c if c.is_control() => header.push_str(&format!("&#{};", u32::from(c))),
            c => header.push(c),
        }
    }
    header.push_str(
        "' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    header.into_bytes()
}

/// What may stand between two elements and says nothing (RFC 6120 section 4.6.1 has it keep connections alive).
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The child of the stream that is being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Child {
    Features,
    Proceed,
    Failure,
    /// An error that ends the stream (RFC 6120 section 4.9).
    Error,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Bytes since our last message.
    bytes: usize,
    /// What stands between `<` and `>`, as far as it has come.
    markup: Option<Vec<u8>>,
    /// The quote that an attribute's value is in.
    quote: Option<u8>,
    /// Something other than space has come.
    begun: bool,
    /// How many elements are open; the stream itself is one.
    depth: usize,
    child: Option<Child>,
    /// The first element in a child of the stream; of an error it is the condition.
    condition: Option<Vec<u8>>,
    offered: bool,
    /// We have sent `starttls`.
    asked: bool,
}

impl Stream {
    pub(super) fn push(&mut self, byte: u8) -> Result<Step, StarttlsError> {
        if self.bytes == MAX_XMPP_BYTES {
            return Err(StarttlsError::XmppTooLong);
        }
        self.bytes += 1;
        let Some(markup) = &mut self.markup else {
            return self.text(byte);
        };
        match (byte, self.quote) {
            (b'>', None) => {
                let markup = self.markup.take().unwrap_or_default();
                return self.markup(&markup);
            }
            (b'<', _) => return Err(self.malformed(b"<")),
            (b'"' | b'\'', None) => self.quote = Some(byte),
            (byte, Some(quote)) if byte == quote => self.quote = None,
            _ => {}
        }
        markup.push(byte);
        Ok(Step::Wait)
    }

    pub(super) fn due(&self) -> &'static str {
        match (self.asked, self.depth) {
            (false, 0) => "an XMPP stream",
            (false, _) => "a list of XMPP stream features",
            (true, _) => "an answer to starttls",
        }
    }

    /// Between two pieces of markup.
    fn text(&mut self, byte: u8) -> Result<Step, StarttlsError> {
        match byte {
            b'<' => self.markup = Some(Vec::new()),
            // Only within the children of the stream is there any text.
            byte if self.depth < 2 && !is_space(byte) => return Err(self.malformed(&[byte])),
            _ => {}
        }
        Ok(Step::Wait)
    }

    fn markup(&mut self, markup: &[u8]) -> Result<Step, StarttlsError> {
        let first = !std::mem::replace(&mut self.begun, true);
        match markup {
            [b'?', b'x', b'm', b'l', .., b'?'] if first => Ok(Step::Wait),
            [b'?' | b'!', ..] => Err(self.malformed(markup)),
            [b'/', ..] => self.close(markup),
            [tag @ .., b'/'] => {
                self.open(tag)?;
                self.close(markup)
            }
            tag => {
                self.open(tag)?;
                Ok(Step::Wait)
            }
        }
    }

    fn open(&mut self, tag: &[u8]) -> Result<(), StarttlsError> {
        let Some(tag) = Tag::parse(tag) else {
            return Err(self.malformed(tag));
        };
        match self.depth {
            0 if tag.local != b"stream" => return Err(self.malformed(tag.local)),
            // Without a version there are no features to wait for (RFC 6120 section 4.7.5).
            0 if tag.attribute(b"version").is_none() => return Err(StarttlsError::NotOffered),
            0 => {}
            1 => self.child = Some(self.child(&tag)?),
            2 => {
                self.offered |= self.child == Some(Child::Features) && tag.is_tls(b"starttls");
                self.condition.get_or_insert_with(|| tag.local.to_vec());
            }
            _ => {}
        }
        self.depth += 1;
        Ok(())
    }

    fn child(&self, tag: &Tag<'_>) -> Result<Child, StarttlsError> {
        match tag.local {
            b"error" => Ok(Child::Error),
            b"features" if !self.asked => Ok(Child::Features),
            b"proceed" if self.asked && tag.is_tls(b"proceed") => Ok(Child::Proceed),
            b"failure" if self.asked && tag.is_tls(b"failure") => Ok(Child::Failure),
            _ => Err(self.malformed(tag.local)),
        }
    }

    fn close(&mut self, markup: &[u8]) -> Result<Step, StarttlsError> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(self.malformed(markup));
        };
        self.depth = depth;
        match (depth, self.child) {
            // The end of the whole stream.
            (0, _) => Err(StarttlsError::Ended { due: self.due() }),
            (1, Some(Child::Features)) if !self.offered => Err(StarttlsError::NotOffered),
            (1, Some(Child::Features)) => {
                self.asked = true;
                self.bytes = 0;
                self.condition = None;
                Ok(Step::Send([b"<starttls xmlns='", TLS, b"'/>"].concat()))
            }
            (1, Some(Child::Proceed)) => Ok(Step::Agreed),
            (1, Some(Child::Failure)) => Err(self.refused(b"failure")),
            (1, Some(Child::Error)) => Err(self.refused(b"error")),
            _ => Ok(Step::Wait),
        }
    }

    fn refused(&self, name: &[u8]) -> StarttlsError {
        StarttlsError::Refused {
            said: shown(self.condition.as_deref().unwrap_or(name)),
        }
    }

    fn malformed(&self, said: &[u8]) -> StarttlsError {
        StarttlsError::Malformed {
            due: self.due(),
            said: shown(said),
        }
    }
}

/// What opens an element. Its own name space counts only if it is declared in it, as all servers do and RFC 6120 has
/// it in every example: for what `starttls`, `proceed` and `failure` are in is not that of the stream.
struct Tag<'a> {
    prefix: Option<&'a [u8]>,
    local: &'a [u8],
    attributes: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Tag<'a> {
    fn parse(tag: &'a [u8]) -> Option<Self> {
        let (name, mut rest) = split_at(tag, is_space);
        let (prefix, local) = match split_at(name, |byte| byte == b':') {
            (local, []) => (None, local),
            (prefix, [_, local @ ..]) => (Some(prefix), local),
        };
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                break;
            }
            let (name, value) = split_at(rest, |byte| byte == b'=');
            let (quote, value) = value.get(1..)?.trim_ascii_start().split_first()?;
            if !matches!(quote, b'"' | b'\'') {
                return None;
            }
            let (value, after) = split_at(value, |byte| byte == *quote);
            attributes.push((name.trim_ascii_end(), value));
            rest = after.get(1..)?;
        }
        (!local.is_empty()).then_some(Self {
            prefix,
            local,
            attributes,
        })
    }

    fn attribute(&self, name: &[u8]) -> Option<&'a [u8]> {
        let found = self.attributes.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| *value)
    }

    fn is_tls(&self, local: &[u8]) -> bool {
        let declared = match self.prefix {
            None => self.attribute(b"xmlns"),
            Some(prefix) => self.attribute(&[b"xmlns:", prefix].concat()),
        };
        self.local == local && declared == Some(TLS)
    }
}

/// Up to the first byte that is one, and the rest from there.
fn split_at(bytes: &[u8], is_one: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| is_one(*byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}
