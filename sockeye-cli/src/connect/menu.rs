//! What is typed on a terminal: what is for the server, and after the escape character, a command for us. Pure.

/// What is to be done with what was typed.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Typed {
    /// It is for the server.
    Send(Vec<u8>),
    /// The escape character was typed: ask for a command.
    Ask,
    Command(Command),
}

#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Command {
    /// End the connection.
    Quit,
    /// Tell the server that nothing more comes.
    Close,
    /// Tell what has happened so far.
    Status,
    /// Send the escape character itself.
    Escape,
    GoOn,
    /// None that is known, with its text.
    Unknown(String),
}

/// Finds the escape character, and takes the line after it for a command.
#[derive(Debug)]
pub(crate) struct Menu {
    escape: u8,
    /// What was typed of a command so far, while one is waited for.
    command: Option<Vec<u8>>,
}

/// More of a command is not kept: none that is known is longer.
const COMMAND_BYTES: usize = 80;

impl Menu {
    pub(crate) fn new(escape: u8) -> Self {
        Self {
            escape,
            command: None,
        }
    }

    pub(crate) fn escape(&self) -> u8 {
        self.escape
    }

    /// Takes what was typed, in pieces of any size.
    pub(crate) fn take(&mut self, typed: &[u8]) -> Vec<Typed> {
        let mut found = Vec::new();
        let mut send = Vec::new();
        for &byte in typed {
            match &mut self.command {
                None if byte == self.escape => {
                    if !send.is_empty() {
                        found.push(Typed::Send(std::mem::take(&mut send)));
                    }
                    self.command = Some(Vec::new());
                    found.push(Typed::Ask);
                }
                None => send.push(byte),
                Some(_) if byte == b'\n' || byte == b'\r' => {
                    let line = self.command.take().unwrap_or_default();
                    found.push(Typed::Command(Command::parse(&line)));
                }
                // Typed once more, it goes to the server.
                Some(line) if byte == self.escape && line.is_empty() => {
                    self.command = None;
                    found.push(Typed::Command(Command::Escape));
                }
                Some(line) if line.len() < COMMAND_BYTES => line.push(byte),
                Some(_) => {}
            }
        }
        if !send.is_empty() {
            found.push(Typed::Send(send));
        }
        found
    }
}

impl Command {
    fn parse(line: &[u8]) -> Self {
        let text = String::from_utf8_lossy(line);
        match text.trim() {
            "" => Self::GoOn,
            "q" | "quit" => Self::Quit,
            "c" | "close" => Self::Close,
            "s" | "status" => Self::Status,
            "e" | "escape" => Self::Escape,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

/// What the user is asked, on one line.
pub(crate) fn question(escape: u8) -> String {
    let escape = shown(escape);
    format!("[q quit, c close our side, s status, e send {escape}, Enter go on] ")
}

/// `^]`.
pub(crate) fn shown(escape: u8) -> String {
    format!("^{}", char::from(escape ^ 0x40))
}

/// `none`, or `^` and a character from `@` to `_`.
pub(crate) fn parse_escape(text: &str) -> Result<EscapeChar, String> {
    if text == "none" {
        return Ok(EscapeChar(None));
    }
    match text.as_bytes() {
        [b'^', character] => match character.to_ascii_uppercase() ^ 0x40 {
            b'\n' | b'\r' => Err("^J and ^M end a line".to_owned()),
            escape if OF_THE_TERMINAL.contains(&escape) => Err(format!(
                "a terminal keeps {} for itself; ^] and ^A, for example, it hands on",
                shown(escape)
            )),
            escape @ 0..=0x1f => Ok(EscapeChar(Some(escape))),
            _ => Err("after ^ there is a letter or one of @[\\]^_".to_owned()),
        },
        _ => Err("write none, or ^ and a character, such as ^]".to_owned()),
    }
}

/// What a terminal takes for a command while lines are typed (stty(1): intr, eof, erase, discard, start, rprnt, stop, kill,
/// lnext, werase, susp, quit).
const OF_THE_TERMINAL: &[u8] = b"\x03\x04\x08\x0f\x11\x12\x13\x15\x16\x17\x1a\x1c";

/// The escape character, if there is to be one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EscapeChar(pub(crate) Option<u8>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CTRL_BRACKET: u8 = 0x1d;

    fn all(typed: &[u8]) -> Vec<Typed> {
        Menu::new(CTRL_BRACKET).take(typed)
    }

    #[test]
    fn a_line_after_the_escape_character_is_a_command_and_the_rest_is_for_the_server() {
        let send = |bytes: &[u8]| Typed::Send(bytes.to_vec());
        assert_eq!(all(b"one\ntwo\n"), [send(b"one\ntwo\n")]);
        assert_eq!(
            all(b"a\x1ds\nb\x1d\x1dc\x1d\r\x1d what \n"),
            [
                send(b"a"),
                Typed::Ask,
                Typed::Command(Command::Status),
                send(b"b"),
                Typed::Ask,
                Typed::Command(Command::Escape),
                send(b"c"),
                Typed::Ask,
                Typed::Command(Command::GoOn),
                Typed::Ask,
                Typed::Command(Command::Unknown("what".to_owned())),
            ]
        );
    }

    #[test]
    fn an_escape_character_is_named_by_its_key() {
        let escape = |text| parse_escape(text).map(|escape| escape.0).ok();
        assert_eq!(escape("none"), Some(None));
        for (text, byte) in [("^]", 0x1d), ("^a", 1), ("^A", 1), ("^@", 0), ("^^", 0x1e)] {
            assert_eq!(escape(text), Some(Some(byte)), "{text}");
        }
        for bad in [
            "", "^", "]", "^M", "^j", "^1", "^]]", "^\u{fc}", "^c", "^D", "^S", "^\\",
        ] {
            assert_eq!(escape(bad), None, "{bad}");
        }
        assert_eq!(shown(CTRL_BRACKET), "^]");
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same_to_the_server_and_to_us(
            typed in prop::collection::vec(prop::sample::select(&b"qcs\x1d\r\nx"[..]), 0..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut menu = Menu::new(CTRL_BRACKET);
            let (head, tail) = typed.split_at(cut.index(typed.len() + 1));
            let mut pieces = menu.take(head);
            pieces.extend(menu.take(tail));
            prop_assert_eq!(joined(pieces), joined(all(&typed)));
        }
    }

    /// What is sent in one piece may be sent in two.
    fn joined(typed: Vec<Typed>) -> Vec<Typed> {
        let mut joined: Vec<Typed> = Vec::new();
        for typed in typed {
            match (joined.last_mut(), typed) {
                (Some(Typed::Send(last)), Typed::Send(bytes)) => last.extend(bytes),
                (_, typed) => joined.push(typed),
            }
        }
        joined
    }
}
