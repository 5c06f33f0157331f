//! How a run gets on, on the last line of a terminal. Without a terminal nothing is shown.

use std::collections::BTreeMap;
use std::io::stderr;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::termios::tcgetwinsize;

use crate::bench::figure::{count, per_s, time};
use crate::exit::escaped;

/// Where a run is. The engine fills it some four times a second.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    /// Since the phase began.
    pub(crate) elapsed: Duration,
    /// Of the phase; `None` if nobody knows how long it takes.
    pub(crate) total: Option<Duration>,
    /// With `--find-max`, the rate that is tried.
    pub(crate) tried_per_s: Option<f64>,
    /// Messages answered, or, while they are opened, connections open; in the last second.
    pub(crate) rate_per_s: f64,
    /// Of those answered in the last second.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    /// By kind, since the run began.
    pub(crate) errors: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Opening,
    WarmUp,
    Measuring,
    /// Waiting for the last answers.
    Draining,
}

/// The line. It is cleared when this is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    bar: ProgressBar,
    colors: bool,
}

impl Live {
    /// Shows nothing if it is not enabled, or if stderr is no terminal.
    pub(crate) fn start(enabled: bool) -> Self {
        let target = if enabled {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // Whatever is too wide is cut, also if the window has just been made smaller; the fallback is the spinner.
        let style = ProgressStyle::with_template("{wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self {
            bar,
            colors: AutoStream::choice(&stderr()) != ColorChoice::Never,
        }
    }

    pub(crate) fn show(&self, progress: &Progress) {
        if self.bar.is_hidden() {
            return;
        }
        let columns = tcgetwinsize(stderr()).map_or(0, |size| usize::from(size.ws_col));
        // Some terminals do not know.
        let columns = if columns == 0 { USUAL_COLUMNS } else { columns };
        self.bar.set_message(line(progress, columns, self.colors));
    }

    /// Leaves the terminal as it was.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const USUAL_COLUMNS: usize = 80;

/// As much as there is room for, the most important first; a figure is whole or not there.
fn line(progress: &Progress, columns: usize, colors: bool) -> String {
    let mut line = String::new();
    let mut used = 0;
    for (part, style) in parts(progress) {
        let gap = if used == 0 { 0 } else { GAP.len() };
        let width = gap + part.chars().count();
        // The last column stays free: some terminals go to the next line when it is written.
        if used + width >= columns {
            break;
        }
        used += width;
        line.push_str(if gap == 0 { "" } else { GAP });
        match style {
            Some(style) if colors => line.push_str(&format!("{style}{part}{style:#}")),
            _ => line.push_str(&part),
        }
    }
    line
}

const GAP: &str = "  ";

fn parts(progress: &Progress) -> Vec<(String, Option<Style>)> {
    let phase = match progress.phase {
        Phase::Opening => "opening",
        Phase::WarmUp => "warm-up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let elapsed = progress.elapsed.as_secs_f64();
    let clock = match progress.total {
        // A phase may take a little longer than it was to.
        Some(total) => {
            let total = total.as_secs_f64();
            format!("{:.1}/{total:.1} s", elapsed.min(total))
        }
        None => format!("{elapsed:.1} s"),
    };
    let bold = Some(Style::new().bold());
    let mut parts = vec![(format!("{phase:9}"), bold), (clock, None)];
    // Errors stand before what is nice to know, so that a narrow terminal shows them.
    parts.extend(errors(&progress.errors));
    parts.push((format!("{:>9}", per_s(progress.rate_per_s)), None));
    let percentiles = [
        ("p99", progress.p99_us),
        ("p50", progress.p50_us),
        ("max", progress.max_us),
    ];
    for (name, us) in percentiles {
        parts.push((format!("{name} {:>7}", time(us)), None));
    }
    let tried = progress
        .tried_per_s
        .map(|rate| format!("trying {}", per_s(rate)));
    parts.extend(tried.map(|tried| (tried, None)));
    parts
}

/// All together, and the kinds if there is room.
fn errors(errors: &BTreeMap<String, u64>) -> Option<(String, Option<Style>)> {
    let mut kinds: Vec<_> = errors.iter().filter(|(_, count)| **count > 0).collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown: Vec<String> = kinds
        .iter()
        .take(KINDS)
        .map(|(kind, number)| format!("{} {}", count(**number), escaped(kind)))
        .collect();
    let others: u64 = kinds.iter().skip(KINDS).map(|(_, count)| **count).sum();
    let mut text = shown.join(", ");
    if others > 0 {
        text += &format!(", {} other", count(others));
    }
    let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    (!text.is_empty()).then_some((text, Some(red)))
}

/// Kinds of errors on the line.
const KINDS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            phase: Phase::Measuring,
            elapsed: Duration::from_millis(3_240),
            total: Some(Duration::from_secs(10)),
            tried_per_s: Some(20_000.0),
            rate_per_s: 9_998.0,
            p50_us: Some(61.0),
            p99_us: Some(140.0),
            max_us: Some(1_200.0),
            errors: BTreeMap::from([
                ("reset".to_owned(), 3),
                ("timeout".to_owned(), 12),
                ("closed".to_owned(), 1),
            ]),
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_figure_is_cut() {
        let whole = line(&progress(), 200, false);
        for columns in 0..120 {
            let line = line(&progress(), columns, false);
            assert!(line.chars().count() < columns.max(1), "{columns}: {line}");
            assert!(whole.starts_with(&line), "{columns}: {line}");
        }
    }

    #[test]
    fn a_line_says_where_the_run_is_how_fast_and_what_fails() {
        assert_eq!(
            line(&progress(), 200, false),
            "measuring  3.2/10.0 s  12 timeout, 3 reset, 1 other    9,998/s  p99  140 µs  p50 61.0 µs  max 1.20 ms  \
             trying 20,000/s"
        );
    }

    #[test]
    fn errors_are_red_only_where_colours_are_wanted() {
        assert!(line(&progress(), 200, true).contains("\u{1b}[31m12 timeout"));
        assert!(!line(&progress(), 200, false).contains('\u{1b}'));
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_nothing_is_obeyed() {
        let progress = Progress {
            p99_us: None,
            errors: BTreeMap::from([("\u{1b}[2J".to_owned(), 1)]),
            ..progress()
        };
        let line = line(&progress, 200, false);
        assert!(line.contains("p99       –"), "{line}");
        assert!(line.contains(r"1 \u{1b}[2J"), "{line}");
    }

    #[test]
    fn without_being_enabled_nothing_is_shown() {
        let live = Live::start(false);
        assert!(live.bar.is_hidden());
        live.show(&progress());
        live.end();
    }
}
