//! Why a conversation did not go as its script says.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::script::matcher::HELD_BYTES;
use crate::script::quoted::{Quoted, SHOWN_BYTES};
use crate::script::syntax::Time;

/// The statement that failed, and why.
#[derive(Debug, Error)]
#[error("{script}:{line}: {cause}")]
pub(crate) struct Failed {
    pub(crate) script: String,
    pub(crate) line: usize,
    pub(crate) cause: Cause,
}

#[derive(Debug, Error)]
pub(crate) enum Cause {
    #[error("expected {wanted}{}", Ending(.instead, .came))]
    Expected {
        wanted: String,
        instead: Instead,
        came: Came,
    },
    #[error("cannot send: {0}")]
    Send(io::Error),
    #[error("the peer takes nothing of what is to be sent for {}", Time(*.0))]
    NotTaken(Duration),
    #[error("cannot send after 'shutdown'")]
    AfterShutdown,
    #[error("nothing is captured as {{{0}}} yet")]
    NothingCaptured(String),
    #[error("of its captures nothing is left to expect")]
    NothingToExpect,
    #[error("with its captures longer than {0} bytes")]
    TooLong(usize),
}

/// What happened where something else was expected.
#[derive(Debug)]
pub(crate) enum Instead {
    /// Other bytes came.
    Other,
    /// More bytes came than are held, and it was not clear what they are.
    TooLong,
    Closed,
    Reset,
    /// Nothing more came in this time.
    Timeout(Duration),
    Failed(io::Error),
}

/// What came, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// Bytes that were as expected, if they are too many to be shown.
    pub(crate) right: u64,
    /// Those behind them, the first of them if they are many.
    pub(crate) bytes: Vec<u8>,
}

/// Whose fault it is, which is what an exit code tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// The peer said something else, or nothing.
    Answer,
    /// The peer did not take what we said.
    Timeout,
    /// The connection failed.
    Network,
    /// The script cannot be followed.
    Script,
}

impl Cause {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Expected {
                instead: Instead::Reset | Instead::Failed(_),
                ..
            }
            | Self::Send(_) => Kind::Network,
            Self::Expected { .. } => Kind::Answer,
            Self::NotTaken(_) => Kind::Timeout,
            Self::AfterShutdown
            | Self::NothingCaptured(_)
            | Self::NothingToExpect
            | Self::TooLong(_) => Kind::Script,
        }
    }

    /// Whether the peer closed in good order where something was to begin.
    pub(crate) fn is_clean_end(&self) -> bool {
        match self {
            Self::Expected {
                instead: Instead::Closed,
                came,
                ..
            } => came.is_nothing(),
            _ => false,
        }
    }
}

impl Came {
    /// Of what a matcher consumed the beginning, and what it left.
    pub(crate) fn new(begun: &[u8], consumed: u64, left: &[u8]) -> Self {
        if consumed > SHOWN_BYTES as u64 {
            let left = &left[..left.len().min(SHOWN_BYTES + 1)];
            return Self {
                right: consumed,
                bytes: left.to_vec(),
            };
        }
        let all = begun.iter().chain(left).copied();
        Self {
            right: 0,
            bytes: all.take(SHOWN_BYTES + 1).collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.right == 0 && self.bytes.is_empty()
    }
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.right, self.bytes.is_empty()) {
            (0, _) => Quoted(&self.bytes).fmt(f),
            (right, true) => write!(f, "{right} bytes"),
            (right, false) => write!(f, "{right} bytes and {}", Quoted(&self.bytes)),
        }
    }
}

/// The end of the sentence that begins with what was expected.
struct Ending<'a>(&'a Instead, &'a Came);

impl fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(instead, came) = self;
        match instead {
            Instead::Other if came.right > 0 => {
                let (right, bytes) = (came.right, Quoted(&came.bytes));
                write!(f, ", and {bytes} came after {right} bytes that are right")
            }
            Instead::Other => write!(f, ", and {came} came"),
            Instead::TooLong => write!(f, ", and {HELD_BYTES} bytes came without it, {came}"),
            Instead::Timeout(limit) if came.is_nothing() => {
                write!(f, " within {}, and nothing came", Time(*limit))
            }
            Instead::Timeout(limit) => {
                write!(f, " within {}, and only {came} came", Time(*limit))
            }
            Instead::Closed => write!(f, ", and the peer closed{}", After(came)),
            Instead::Reset => write!(f, ", and the peer reset the connection{}", After(came)),
            Instead::Failed(error) => write!(f, ", and {error}{}", After(came)),
        }
    }
}

struct After<'a>(&'a Came);

impl fmt::Display for After<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nothing() {
            return Ok(());
        }
        write!(f, " after {}", self.0)
    }
}
