//! The server's side of the talk: from the stream to the output.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::connect::exchange::Talk;
use crate::connect::half::Half;
use crate::connect::http::Answer;
use crate::connect::pipe::{BUFFER_BYTES, Output};
use crate::connect::recording::Side;
use crate::connect::replay::{Difference, Expected};
use crate::connect::throttle::{Throttle, granted};
use crate::http::{BadResponse, Response};

/// How receiving ended.
pub(crate) enum Received {
    Fin,
    /// A reset, of which our write was told.
    Reset,
    /// TLS ended without close_notify.
    Cut,
    Enough,
    /// The answer to `--http` is complete.
    Answered(Response),
    /// It is none, or not all of it.
    BadAnswer(BadResponse),
    Failed(io::Error),
    /// The output has failed.
    NoOutput,
    /// A copy cannot be written.
    CopyBroken,
    /// It is not what was recorded.
    Differs(Difference),
}

pub(crate) async fn receive(
    talk: &Talk<'_>,
    output: &mut Output,
    mut expected: Option<&mut Expected>,
    mut answer: Option<&mut Answer>,
) -> Received {
    let (rules, progress, copies) = (&talk.rules, talk.progress, talk.copies);
    let mut reader = Half(talk.stream);
    let mut throttle = rules
        .throttle
        .map(|rate| Throttle::new(rate, Instant::now()));
    let mut wanted = rules.receive_at_most.unwrap_or(u64::MAX);
    while wanted > 0 {
        let mut buffer = match output.buffer().await {
            Some(buffer) => buffer,
            // A program may read no more and yet have something to say: what comes is dropped, so that it can be said.
            None if rules.program => Vec::with_capacity(BUFFER_BYTES),
            None => return Received::NoOutput,
        };
        let most = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .min(BUFFER_BYTES);
        let most = granted(&mut throttle, most).await;
        let Ok(room) = copies.room(Side::Server).await else {
            return Received::CopyBroken;
        };
        let read = (&mut reader).take(most as u64).read_buf(&mut buffer).await;
        let at = progress.started.elapsed();
        match read {
            Ok(0) if progress.was_reset.get() => return Received::Reset,
            Ok(0) => {
                progress.peer_fin.set(Some(Instant::now()));
                room.end(at);
                if rules.program {
                    // So that it knows, and can answer.
                    output.close();
                }
                return at_the_end(answer);
            }
            Ok(bytes) => {
                room.bytes(at, &buffer);
                if let Some(throttle) = &mut throttle {
                    throttle.spend(bytes);
                }
                let before = progress.received.get();
                wanted -= bytes as u64;
                note(talk, &buffer);
                let same = match &mut expected {
                    Some(expected) => expected.compare(before, &buffer).await,
                    None => Ok(()),
                };
                let complete = answer.as_mut().map(|answer| answer.take(&mut buffer));
                if !buffer.is_empty() {
                    progress.ends_a_line.set(buffer.ends_with(b"\n"));
                }
                output.write(buffer);
                if let Some(ended) = judged(same, complete) {
                    return ended;
                }
            }
            // A socket itself ends without an error; only TLS can tell an end from a cut.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                progress.peer_fin.set(Some(Instant::now()));
                return at_a_cut(answer, rules.tls_eof_lax && !progress.was_reset.get());
            }
            Err(error) => return Received::Failed(error),
        }
    }
    Received::Enough
}

/// Whether what came ends the talk.
fn judged(
    same: Result<(), Difference>,
    complete: Option<Result<Option<Response>, BadResponse>>,
) -> Option<Received> {
    if let Err(difference) = same {
        return Some(Received::Differs(difference));
    }
    match complete.transpose() {
        Ok(response) => response.flatten().map(Received::Answered),
        Err(error) => Some(Received::BadAnswer(error)),
    }
}

/// What it means that TLS ended without close_notify.
fn at_a_cut(answer: Option<&mut Answer>, is_lax: bool) -> Received {
    match at_the_end(answer) {
        // Only a close ends it, and this one may be anybody's.
        Received::Answered(_) if !is_lax => Received::Cut,
        Received::Fin => Received::Cut,
        received => received,
    }
}

/// Notes what has come.
fn note(talk: &Talk<'_>, came: &[u8]) {
    let progress = talk.progress;
    let is_first = progress.first_byte.get().is_none();
    progress.add_received(came);
    if is_first {
        talk.upload.give_way();
    }
}

/// What it means that no more comes.
fn at_the_end(answer: Option<&mut Answer>) -> Received {
    match answer.map(Answer::end) {
        None => Received::Fin,
        Some(Ok(response)) => Received::Answered(response),
        Some(Err(error)) => Received::BadAnswer(error),
    }
}
