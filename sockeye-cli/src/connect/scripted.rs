//! `--script`: a conversation as a script has it, in the place of an input and an output.

use sockeye::Stream;
use tokio::time::Instant;

use crate::connect::exchange::{Ending, Exchanged, LINGER, say_the_end};
use crate::connect::explain;
use crate::connect::interrupt::Interrupt;
use crate::connect::progress::Progress;
use crate::output::talk;
use crate::script::{Cut, Kind, Last, Quoted, Script, Statement, Told, run};

/// Follows the script, and closes as it says. With `verbose` each step is told.
pub(super) async fn converse(
    mut stream: Stream,
    script: &Script,
    cut: Cut,
    verbose: bool,
    interrupt: &Interrupt,
) -> Exchanged {
    let progress = Progress::new(Instant::now());
    interrupt.heard_within(true);
    let followed = tokio::select! {
        biased;
        followed = run(script, &mut stream, cut, |told| {
            note(&progress, told);
            if verbose {
                tell(&progress, told);
            }
        }) => Some(followed),
        () = interrupt.heard() => None,
    };
    interrupt.heard_within(false);
    progress.ended.set(Instant::now());
    let (tcp_info, session) = (stream.tcp_info(), stream.tls());
    let ending = match followed {
        None => Ending::Interrupted,
        Some(Ok(Last::Reset)) => {
            stream.abort();
            return Exchanged {
                ending: Ending::ScriptEnded,
                progress,
                tcp_info,
                session,
                answer: None,
                program: None,
            };
        }
        Some(Ok(Last::Close)) => Ending::ScriptEnded,
        Some(Err(failed)) => Ending::ScriptFailed(failed),
    };
    // Whoever is gone, or is to be left at once, is not waited for.
    let in_haste = match &ending {
        Ending::ScriptFailed(failed) => failed.cause.kind() != Kind::Answer,
        ending => matches!(ending, Ending::Interrupted),
    };
    if in_haste {
        say_the_end(&mut stream).await;
    } else {
        stream.close(LINGER).await;
    }
    Exchanged {
        ending,
        progress,
        tcp_info,
        session,
        answer: None,
        program: None,
    }
}

/// Counts for the account.
fn note(progress: &Progress, told: Told<'_>) {
    match told {
        Told::Received(bytes) => progress.add_received(bytes),
        Told::Wrote(bytes) => progress.add_sent(bytes),
        Told::PeerClosed => progress.peer_fin.set(Some(Instant::now())),
        Told::ShutDown => progress.our_fin.set(Some(Instant::now())),
        Told::Sent { .. } | Told::Took { .. } | Told::Did(_) => {}
    }
}

/// A line for each step: when, which line of the script, and what.
fn tell(progress: &Progress, told: Told<'_>) {
    let (line, what) = match told {
        Told::Sent { line, bytes } => (line, format!("-> {}", many(bytes, bytes.len() as u64))),
        Told::Took {
            line,
            begun: [],
            bytes: _,
        } => (line, "<- the end".to_owned()),
        Told::Took { line, begun, bytes } => (line, format!("<- {}", many(begun, bytes))),
        Told::Did(step) => (step.line, format!("-- {}", Statement(&step.action))),
        Told::Received(_) | Told::Wrote(_) | Told::PeerClosed | Told::ShutDown => return,
    };
    let ms = explain::ms(progress.started.elapsed());
    talk(&format!("{ms:>9.3} ms  line {line:<4} {what}"));
}

/// The first of some bytes, and how many there are if these are not all.
fn many(begun: &[u8], bytes: u64) -> String {
    let shown = Quoted(begun).to_string();
    if shown.ends_with("...") {
        return format!("{shown} ({bytes} bytes)");
    }
    shown
}
