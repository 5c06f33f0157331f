//! Our side of the talk: from the input to the stream.

use std::io;
use std::pin::pin;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::cli::connect::OnEof;
use crate::connect::crlf::Crlf;
use crate::connect::exchange::Talk;
use crate::connect::explain;
use crate::connect::half::Half;
use crate::connect::menu::{self, Command, Menu, Typed};
use crate::connect::pipe::Input;
use crate::connect::progress::Progress;
use crate::connect::recording::Side;
use crate::connect::replay::Script;
use crate::connect::throttle::{Throttle, granted};
use crate::exit::escaped;
use crate::output::{ask, talk as say};

/// Where what is sent comes from.
pub(crate) enum Source {
    Input(Input),
    /// From a terminal, with a menu behind the escape character.
    Keyboard(Input, Menu),
    Script(Script),
}

/// How sending ended.
pub(crate) enum Sent {
    All,
    /// The user closed our side; nothing more is read.
    Closed,
    /// The user wants to end it.
    Quit,
    /// The peer takes no more. That alone is no failure of ours: it may have all that it wants, and answer.
    PeerGone(io::Error),
    InputFailed(io::Error),
    /// A copy cannot be written.
    CopyBroken,
}

pub(crate) async fn send(talk: &Talk<'_>, source: &mut Source) -> Sent {
    let rules = talk.rules;
    let mut sender = Sender {
        talk,
        writer: Half(talk.stream),
        throttle: rules
            .throttle
            .map(|rate| Throttle::new(rate, Instant::now())),
        crlf: rules.crlf.then(Crlf::default),
    };
    let sent = match sender.all(source).await {
        Ok(sent) | Err(sent) => sent,
    };
    if let Sent::PeerGone(error) = &sent {
        talk.progress.was_reset.set(is_reset(error));
    }
    talk.upload.end();
    sent
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut
    )
}

struct Sender<'a> {
    talk: &'a Talk<'a>,
    writer: Half<'a>,
    throttle: Option<Throttle>,
    crlf: Option<Crlf>,
}

impl Sender<'_> {
    async fn all(&mut self, source: &mut Source) -> Result<Sent, Sent> {
        while let Some(piece) = self.next(source).await? {
            let piece = piece.map_err(Sent::InputFailed)?;
            if let Source::Keyboard(_, menu) = source {
                for typed in menu.take(&piece) {
                    if let Some(sent) = self.typed(typed, menu.escape()).await? {
                        return Ok(sent);
                    }
                }
                continue;
            }
            let piece = self.piece(piece).await?;
            if let Source::Input(input) = source {
                input.recycle(piece);
            }
        }
        if matches!(self.talk.rules.on_eof, OnEof::Fin | OnEof::Wait(_)) {
            self.fin().await?;
        }
        Ok(Sent::All)
    }

    /// The next piece. While there is none, what TLS still holds of those before it is sent: if nobody reads, nobody else
    /// does that.
    async fn next(&mut self, source: &mut Source) -> Result<Option<io::Result<Vec<u8>>>, Sent> {
        let mut next = pin!(source.next(self.talk.progress));
        let flushed = tokio::select! {
            biased;
            piece = &mut next => return Ok(piece),
            flushed = self.writer.flush() => flushed,
        };
        flushed.map_err(Sent::PeerGone)?;
        Ok(next.await)
    }

    /// Sends what was typed, or does what the user asks for.
    async fn typed(&mut self, typed: Typed, escape: u8) -> Result<Option<Sent>, Sent> {
        let command = match typed {
            Typed::Send(bytes) => {
                self.piece(bytes).await?;
                return Ok(None);
            }
            Typed::Ask => {
                ask(&menu::question(escape));
                return Ok(None);
            }
            Typed::Command(command) => command,
        };
        match command {
            Command::Quit => return Ok(Some(Sent::Quit)),
            Command::Close => {
                self.fin().await?;
                say("our side is closed, and nothing more is read here; Ctrl-C ends");
                return Ok(Some(Sent::Closed));
            }
            Command::Status => {
                let info = self.talk.stream.borrow().tcp_info();
                say(&explain::status(self.talk.progress, info.as_ref()));
            }
            Command::Escape => self.bytes(&[escape]).await?,
            Command::GoOn => {}
            Command::Unknown(text) => say(&format!("'{}' is no command here", escaped(&text))),
        }
        Ok(None)
    }

    /// Sends a piece, and gives back its buffer, or another.
    async fn piece(&mut self, piece: Vec<u8>) -> Result<Vec<u8>, Sent> {
        let piece = match &mut self.crlf {
            None => piece,
            Some(crlf) => crlf.convert(&piece),
        };
        self.bytes(&piece).await?;
        Ok(piece)
    }

    async fn bytes(&mut self, mut rest: &[u8]) -> Result<(), Sent> {
        let Talk {
            progress,
            copies,
            upload,
            ..
        } = self.talk;
        while !rest.is_empty() {
            let most = granted(&mut self.throttle, rest.len()).await;
            let room = copies.room(Side::Client).await;
            let room = room.map_err(|_| Sent::CopyBroken)?;
            match self.writer.write(&rest[..most]).await {
                Ok(0) => return Err(Sent::PeerGone(io::ErrorKind::WriteZero.into())),
                Err(error) => return Err(Sent::PeerGone(error)),
                Ok(bytes) => {
                    let (now, later) = rest.split_at(bytes);
                    progress.add_sent(bytes);
                    room.bytes(progress.started.elapsed(), now);
                    upload.add(bytes);
                    if let Some(throttle) = &mut self.throttle {
                        throttle.spend(bytes);
                    }
                    rest = later;
                }
            }
        }
        Ok(())
    }

    /// Tells the server that nothing more comes.
    async fn fin(&mut self) -> Result<(), Sent> {
        let progress = self.talk.progress;
        let room = self.talk.copies.room(Side::Client).await;
        let room = room.map_err(|_| Sent::CopyBroken)?;
        self.writer.shutdown().await.map_err(Sent::PeerGone)?;
        progress.our_fin.set(Some(Instant::now()));
        room.end(progress.started.elapsed());
        Ok(())
    }
}

impl Source {
    async fn next(&mut self, progress: &Progress) -> Option<io::Result<Vec<u8>>> {
        match self {
            Self::Input(input) | Self::Keyboard(input, _) => input.next().await,
            Self::Script(script) => script.next(progress).await,
        }
    }
}
