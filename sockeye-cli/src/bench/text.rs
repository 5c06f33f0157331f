//! What a run found, on one screen, for people.

use anstyle::{AnsiColor, Style};

use crate::bench::figure::{UNKNOWN, bytes, count, number, per_s, percent, plural, time};
use crate::bench::report::{
    Cost, Finding, Found, Latency, Loop, Report, Spread, TcpSummary, Verdict,
};
use crate::cli::bench::{Arrivals, Mode};
use crate::exit::escaped;

/// Columns: what a terminal has that nobody made wider, and a little more.
const WIDTH: usize = 100;

/// Where what is told begins, behind its name.
const INDENT: usize = 14;

/// Kinds of errors that are told one by one, and thresholds that were kept.
const MOST: usize = 6;

/// The summary: lines for a terminal, with colours, without the last line's end.
pub(crate) fn summary(report: &Report) -> String {
    let mut lines = Lines::default();
    verdict(report, &mut lines);
    lines.text("", &what(report));
    lines.text("", &load(report));
    lines.blank();
    messages(report, &mut lines);
    lines.blank();
    latencies(report, &mut lines);
    lines.blank();
    lines.text("cpu", &cost("", &report.own));
    if let Some(server) = &report.server {
        lines.text("", &cost("server ", server));
    }
    if let Some(tcp) = &report.tcp {
        lines.text("tcp", &tcp_summary(tcp));
    }
    let both_ends = report.both_ends.as_ref();
    if let Some(tcp) = both_ends.and_then(|both| both.server_tcp.as_ref()) {
        lines.text("", &format!("server's ends: {}", tcp_summary(tcp)));
    }
    thresholds(&report.thresholds, &mut lines);
    if let Some(found) = &report.found {
        self::found(found, &mut lines);
    }
    lines.0.join("\n")
}

/// The lines so far.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn blank(&mut self) {
        self.0.push(String::new());
    }

    /// A name, and a text that takes as many lines as it needs.
    fn text(&mut self, name: &str, text: &str) {
        let indent = if name.is_empty() && self.is_head() {
            0
        } else {
            INDENT
        };
        for (index, line) in wrapped(text, WIDTH - indent).into_iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            self.0.push(format!("{name:indent$}{line}"));
        }
    }

    /// A word in colour before a text.
    fn marked(&mut self, mark: &str, color: AnsiColor, text: &str) {
        let style = Style::new().fg_color(Some(color.into())).bold();
        let width = mark.chars().count() + 1;
        for (index, line) in wrapped(text, WIDTH - width).into_iter().enumerate() {
            self.0.push(if index == 0 {
                let gap = if line.is_empty() { "" } else { " " };
                format!("{style}{mark}{style:#}{gap}{line}")
            } else {
                format!("{:width$}{line}", "")
            });
        }
    }

    /// Above the first blank line nothing has a name.
    fn is_head(&self) -> bool {
        !self.0.iter().any(String::is_empty)
    }
}

/// Cut at spaces; a word that is longer than a line anywhere.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        let mut last = lines.pop().unwrap_or_default();
        if used > 0 {
            last.push(' ');
            used += 1;
        }
        for c in word.chars() {
            if used == width {
                lines.push(std::mem::take(&mut last));
                used = 0;
            }
            last.push(c);
            used += 1;
        }
        lines.push(last);
    }
    lines
}

fn verdict(report: &Report, lines: &mut Lines) {
    let red = AnsiColor::Red;
    if !report.valid {
        lines.marked(
            "INVALID",
            red,
            "these figures are not what they would be taken for",
        );
    }
    for Finding { text, .. } in &report.invalid {
        lines.0.extend(
            wrapped(&escaped(text), WIDTH - 2)
                .iter()
                .map(|line| format!("  {line}")),
        );
    }
    if report.valid {
        lines.marked("VALID", AnsiColor::Green, "");
    }
    for Finding { text, .. } in &report.warnings {
        lines.marked("warning:", AnsiColor::Yellow, &escaped(text));
    }
}

/// `echo of 64 B at 127.0.0.1:7000, 64 connections`.
pub(crate) fn what(report: &Report) -> String {
    let asked = &report.asked;
    let size = format!("{} B", count(asked.size_bytes as u64));
    let message = match report.mode {
        Mode::Echo => format!("echo of {size} at"),
        Mode::Stream => format!("stream of {size} to"),
        Mode::Connect if asked.size_bytes == 0 => "connect to".to_owned(),
        Mode::Connect => format!("connect, and echo of {size}, at"),
        Mode::Http => "http from".to_owned(),
    };
    let mut what = format!("{message} {}", escaped(&report.target));
    if asked.tls {
        what += " over TLS";
    }
    what += &format!(
        ", {}, {}",
        plural(asked.connections as u64, "connection"),
        plural(asked.threads as u64, "thread")
    );
    if asked.pipeline > 1 {
        what += &format!(", {} messages under way", count(asked.pipeline as u64));
    }
    if let Some(lifetime) = asked.lifetime_ms {
        what += &format!(", a new one after {}", time(Some(lifetime * 1e3)));
    }
    what
}

/// Who decided when to send, and for how long.
pub(crate) fn load(report: &Report) -> String {
    let asked = &report.asked;
    let load = match report.loop_kind {
        Loop::Open => {
            let rate = asked.rate_per_s.map_or_else(|| UNKNOWN.to_owned(), per_s);
            let arrivals = match asked.arrivals {
                Some(Arrivals::Poisson) => "poisson",
                _ => "constant",
            };
            format!("open loop: {rate}, {arrivals}")
        }
        Loop::Closed => "closed loop: a server that stalls is asked less".to_owned(),
    };
    let measured = time(Some(report.measured_ms * 1e3));
    let warmup = match asked.warmup_ms {
        warmup if warmup > 0.0 => format!(" after {} of warm-up", time(Some(warmup * 1e3))),
        _ => String::new(),
    };
    format!("{load}; measured for {measured}{warmup}")
}

fn messages(report: &Report, lines: &mut Lines) {
    let mut answered = format!(
        "{} answered, {}",
        count(report.messages),
        per_s(report.messages_per_s)
    );
    if let Some(rate) = report.asked.rate_per_s {
        answered += &format!(" of {} asked", per_s(rate));
    }
    if report.unanswered > 0 {
        answered += &format!("; {} unanswered", count(report.unanswered));
    }
    lines.text("messages", &answered);
    lines.text("errors", &errors(report));
    let connections = &report.connections;
    lines.text(
        "connections",
        &format!(
            "{} asked, {} opened, {} of {} served, {} opened again",
            count(connections.asked as u64),
            count(connections.opened as u64),
            count(connections.served as u64),
            count(connections.due as u64),
            count(connections.reopened)
        ),
    );
    // Small messages are counted, large ones weighed.
    if report.mode == Mode::Stream || report.asked.size_bytes >= 4096 {
        lines.text(
            "bytes",
            &format!(
                "{}/s sent, {}/s received",
                bytes(report.sent_bytes_per_s),
                bytes(report.received_bytes_per_s)
            ),
        );
    }
}

fn errors(report: &Report) -> String {
    let mut kinds: Vec<_> = report
        .errors
        .iter()
        .filter(|(_, count)| **count > 0)
        .collect();
    if kinds.is_empty() {
        return "none".to_owned();
    }
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut told: Vec<String> = kinds
        .iter()
        .take(MOST)
        .map(|(kind, number)| format!("{} {}", count(**number), escaped(kind)))
        .collect();
    let others: u64 = kinds.iter().skip(MOST).map(|(_, count)| **count).sum();
    if others > 0 {
        told.push(format!("{} of other kinds", count(others)));
    }
    format!("{}; the warm-up is included", told.join(", "))
}

/// A table: what was timed, and its percentiles.
fn latencies(report: &Report, lines: &mut Lines) {
    let columns = ["p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"];
    let rows = timed(report);
    let wide = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let row = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>9}")).collect();
        format!("{name:wide$}{cells}").trim_end().to_owned()
    };
    lines.0.push(row("", &columns.map(str::to_owned)));
    for (name, latency) in &rows {
        lines.0.push(row(name, &cells(latency)));
    }
    let missing = rows
        .iter()
        .any(|(_, latency)| latency.count > 0 && latency.p99_99_us.is_none());
    if missing {
        let least = |percentile| count(Latency::count_for(percentile));
        let why = format!(
            "{UNKNOWN} too few to tell: p99 takes {}, p99.9 {}, p99.99 {}",
            least(99.0),
            least(99.9),
            least(99.99)
        );
        lines.0.push(why);
    }
}

/// What was timed, under the names that both pages and screens give it.
pub(crate) fn timed(report: &Report) -> Vec<(&'static str, &Latency)> {
    let mut rows = match report.loop_kind {
        Loop::Open => vec![
            ("latency, from when it was due", &report.latency),
            ("service time, from the sending", &report.service),
        ],
        // Both are the same there.
        Loop::Closed => vec![("latency, closed loop", &report.latency)],
    };
    rows.extend(
        report
            .send_lag
            .as_ref()
            .map(|lag| ("send lag, our own", lag)),
    );
    rows.push(("connect", &report.connect));
    if let Some(both) = &report.both_ends {
        rows.extend([
            ("to the server", &both.to_server),
            ("in the server", &both.in_server),
            ("back to the client", &both.to_client),
        ]);
    }
    rows.retain(|(name, latency)| *name != "connect" || latency.count > 0);
    rows
}

fn cells(latency: &Latency) -> [String; 7] {
    let known = (latency.count > 0).then_some(());
    [
        time(latency.p50_us),
        time(latency.p90_us),
        time(latency.p99_us),
        time(latency.p99_9_us),
        time(latency.p99_99_us),
        time(known.map(|()| latency.max_us)),
        time(known.map(|()| latency.mean_us)),
    ]
}

fn cost(whose: &str, cost: &Cost) -> String {
    let message = cost.cpu_ns_per_message.map(|ns| ns / 1e3);
    // How many threads a server has that wait for nothing nobody knows.
    let of = if whose.is_empty() { "" } else { " in all" };
    format!(
        "{whose}{} per message, {} of a CPU; busiest thread {}, waiting for a CPU {}{of}",
        time(message),
        percent(cost.cpu_share),
        percent(cost.busiest_thread_share),
        percent(cost.cpu_wait_share)
    )
}

fn tcp_summary(tcp: &TcpSummary) -> String {
    let spread = |spread: Option<Spread>, shown: fn(f64) -> String| match spread {
        Some(Spread { min, median, max }) => {
            format!("{} ({} to {})", shown(median), shown(min), shown(max))
        }
        None => UNKNOWN.to_owned(),
    };
    format!(
        "{} of {} segments sent again, RTT {}, cwnd {}",
        count(tcp.retransmitted),
        count(tcp.sent_segments),
        spread(tcp.rtt_us, |us| time(Some(us))),
        spread(tcp.cwnd, number)
    )
}

/// Those that were broken one by one, then those that were not.
fn thresholds(thresholds: &[Verdict], lines: &mut Lines) {
    let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let told = |verdict: &Verdict| {
        format!(
            "{}: {}",
            escaped(&verdict.threshold),
            escaped(&verdict.text)
        )
    };
    for verdict in thresholds.iter().filter(|verdict| verdict.broken) {
        // The name is styled behind the layout, so that colours take no columns.
        let at = lines.0.len();
        lines.text("BROKEN", &told(verdict));
        if let Some(line) = lines.0.get_mut(at) {
            *line = line.replacen("BROKEN", &format!("{red}BROKEN{red:#}"), 1);
        }
    }
    let kept: Vec<&Verdict> = thresholds
        .iter()
        .filter(|verdict| !verdict.broken)
        .collect();
    let mut name = "kept";
    for verdict in kept.iter().take(MOST) {
        lines.text(name, &told(verdict));
        name = "";
    }
    if kept.len() > MOST {
        lines.text(name, &format!("and {} more", kept.len() - MOST));
    }
}

fn found(found: &Found, lines: &mut Lines) {
    lines.text("found", &found_rate(found));
    let confirms = |confirms: bool| {
        let trials = found
            .trials
            .iter()
            .filter(|trial| trial.confirms == confirms);
        trials.count()
    };
    let mut tried = format!(
        "{} of the search, {} to confirm",
        plural(confirms(false) as u64, "trial"),
        confirms(true)
    );
    if let Some(Spread { min, median, max }) = found.confirmed {
        let [min, median, max] = [min, median, max].map(|us| time(Some(us)));
        tried += &format!(", which gave {median} ({min} to {max})");
    }
    lines.text("", &tried);
}

/// The sentence that `--find-max` is for.
pub(crate) fn found_rate(found: &Found) -> String {
    let objective = escaped(&found.objective);
    let mut told = match found.rate_per_s {
        Some(rate) => format!("{objective} holds at {}", per_s(rate)),
        None => format!("{objective} holds at no rate that was tried"),
    };
    if let Some(rate) = found.fails_at_per_s {
        told += &format!(", not at {}", per_s(rate));
    }
    if found.limited_by_generator {
        told += "; what gave way was the generator and not the server, which may take more";
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample;

    /// As a terminal shows it.
    fn plain(report: &Report) -> String {
        anstream::adapter::strip_str(&summary(report)).to_string()
    }

    #[test]
    fn every_summary_fits_on_a_screen() {
        for report in sample::all() {
            let text = plain(&report);
            let widest = text
                .lines()
                .map(|line| line.chars().count())
                .max()
                .expect("there");
            assert!(widest <= WIDTH, "{widest} columns:\n{text}");
        }
        for report in [
            sample::open_loop(),
            sample::both_ends(),
            sample::find_max(),
            sample::invalid(),
        ] {
            let text = plain(&report);
            assert!(
                text.lines().count() <= 24,
                "{} lines:\n{text}",
                text.lines().count()
            );
        }
    }

    #[test]
    fn an_invalid_run_says_so_first_and_in_red_with_its_reasons() {
        let text = summary(&sample::invalid());
        assert!(text.starts_with("\u{1b}[1m\u{1b}[31mINVALID"), "{text:?}");
        let text = plain(&sample::invalid());
        let place = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("no '{part}' in\n{text}"))
        };
        assert!(place("the generator was late") < place("echo of 64 B"));
        assert!(place("61 of 64 connections") < place("echo of 64 B"));
        assert!(text.contains("11 reset, 2 timeout, 1 closed"), "{text}");
    }

    #[test]
    fn an_open_loop_shows_latency_beside_service_time_and_a_closed_one_is_labelled() {
        let open = plain(&sample::open_loop());
        for part in [
            "open loop: 10,000/s, constant",
            "from when it was due",
            "service time",
            "send lag",
        ] {
            assert!(open.contains(part), "no '{part}' in\n{open}");
        }
        let closed = plain(&sample::closed_loop());
        assert!(closed.contains("latency, closed loop"), "{closed}");
        assert!(!closed.contains("service time"), "{closed}");
    }

    #[test]
    fn a_percentile_that_is_not_known_is_a_dash_and_the_reason_stands_below() {
        let silent = plain(&sample::silent());
        assert!(
            silent.contains("latency, from when it was due         –"),
            "{silent}"
        );
        let few = plain(&sample::invalid());
        assert!(few.contains("p99.99 100,000"), "{few}");
        let mut enough = sample::open_loop();
        enough.connect.count = 0;
        assert!(
            !plain(&enough).contains("too few to tell"),
            "{}",
            plain(&enough)
        );
    }

    #[test]
    fn broken_thresholds_and_a_found_rate_are_told_in_words() {
        let text = plain(&sample::open_loop());
        assert!(
            text.contains("BROKEN        p99>5ms: p99 is 904 ms"),
            "{text}"
        );
        assert!(
            text.contains("kept          errors>0: errors is 0"),
            "{text}"
        );
        let text = plain(&sample::find_max());
        assert!(
            text.contains("p99<5ms holds at 84,000/s, not at 88,000/s"),
            "{text}"
        );
        assert!(text.contains("2.45 ms (2.30 ms to 3.90 ms)"), "{text}");
    }

    #[test]
    fn what_others_have_chosen_is_shown_and_not_obeyed() {
        let text = plain(&sample::hostile());
        let styled = summary(&sample::hostile());
        for obeyed in ["\u{1b}[2J", "\u{202e}"] {
            assert!(
                !styled.contains(obeyed) && !text.contains(obeyed),
                "{styled:?}"
            );
        }
        assert!(text.contains(r"\u{1b}[2J\u{202e}"), "{text}");
    }
}
