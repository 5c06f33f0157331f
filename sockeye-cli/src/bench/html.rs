//! A page with charts, in one file that needs nothing else. Pure.

mod chart;

use std::fmt::Write;

use crate::bench::figure::{UNKNOWN, count, number, option, per_s, time, trimmed};
use crate::bench::html::chart::{Chart, Curve};
use crate::bench::report::{Latency, Point, Report, TcpPoint, TcpSummary};
use crate::bench::text::{found_rate, load, timed, what};
use crate::bench::threshold::{Threshold, shown_us};
use crate::exit::markup as safe;

/// Writes a value with its unit.
type Shown = fn(f64) -> String;

const STYLE: &str = include_str!("html/page.css");

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let title = safe(&what(report));
    let mut page = format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1><p class='soft'>{}</p>",
        safe(&load(report))
    );
    findings(&mut page, report);
    let _ = write!(
        page,
        "<p><strong>{}</strong> answered, <strong>{}</strong>; {} errors, {} unanswered; {} of {} connections served</p>",
        count(report.messages),
        per_s(report.messages_per_s),
        count(report.errors.values().sum()),
        count(report.unanswered),
        report.connections.served,
        report.connections.asked
    );
    latencies(&mut page, report);
    trials(&mut page, report);
    over_time(&mut page, report);
    tcp(&mut page, report);
    pairs(&mut page, report);
    rest(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

fn findings(page: &mut String, report: &Report) {
    for (word, found) in [("invalid", &report.invalid), ("note", &report.warnings)] {
        for finding in found {
            let text = safe(&finding.text);
            // Writing to a string cannot fail, here and below.
            let _ = write!(page, "<p class='bad'><strong>{word}</strong> {text}</p>");
        }
    }
    for verdict in &report.thresholds {
        let word = if verdict.broken { "broken" } else { "kept" };
        let _ = write!(
            page,
            "<p>{word}: {} ({})</p>",
            safe(&verdict.threshold),
            safe(&verdict.text)
        );
    }
    if let Some(found) = &report.found {
        let _ = write!(page, "<p><strong>{}</strong></p>", safe(&found_rate(found)));
    }
}

/// Each rate that was tried, in the order of trying.
fn trials(page: &mut String, report: &Report) {
    let Some(found) = &report.found else { return };
    let objective = found.objective.parse::<Threshold>().ok();
    let shown = |value: Option<f64>| match (value, &objective) {
        (None, _) => UNKNOWN.to_owned(),
        (Some(value), Some(objective)) => objective.metric().shown(value),
        (Some(value), None) => number(value),
    };
    let _ = write!(
        page,
        "<h2>What was tried</h2><div class='wide'><table><tr><th></th><th>messages per second</th><th>{}</th><th></th></tr>",
        safe(&found.objective)
    );
    for trial in &found.trials {
        let what = if trial.confirms { "confirm" } else { "try" };
        let verdict = match (trial.held, trial.valid) {
            (true, _) => "holds",
            (false, true) => "does not hold",
            (false, false) => "does not count",
        };
        let _ = write!(
            page,
            "<tr><td>{what}</td><td>{}</td><td>{}</td><td>{verdict}</td></tr>",
            count(trial.rate_per_s.round() as u64),
            safe(&shown(trial.value))
        );
    }
    page.push_str("</table></div>");
}

fn latencies(page: &mut String, report: &Report) {
    page.push_str("<h2>Latency by percentile</h2>");
    let curves = timed(report)
        .into_iter()
        .take(3)
        .map(|(name, latency)| Curve {
            name,
            points: by_percentile(latency),
        });
    let ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
    let chart = Chart {
        title: "Latency by percentile",
        curves: curves.collect(),
        ticks: ticks
            .map(|percent| (nines(percent), format!("{percent}")))
            .to_vec(),
        shaded_to: None,
        shown: shown_us,
    };
    page.push_str(&chart.svg());
    page.push_str("<div class='wide'><table><tr><th></th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th><th>mean</th></tr>");
    for (name, latency) in timed(report) {
        let known = latency.count > 0;
        let row = [
            latency.p50_us,
            latency.p90_us,
            latency.p99_us,
            latency.p99_9_us,
            latency.p99_99_us,
            known.then_some(latency.max_us),
            known.then_some(latency.mean_us),
        ];
        let cells: String = row.map(|us| format!("<td>{}</td>", time(us))).concat();
        let _ = write!(page, "<tr><td>{name}</td>{cells}</tr>");
    }
    page.push_str("</table></div>");
}

/// As the plots of HdrHistogram have it: each nine as far from the last as that one from the one before.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

fn by_percentile(latency: &Latency) -> Vec<(f64, Option<f64>)> {
    let Some(distribution) = latency.distribution() else {
        return Vec::new();
    };
    let all = distribution.len() as f64;
    let mut below = 0_u64;
    let mut points = Vec::new();
    for value in distribution.iter_recorded() {
        let us = value.value_iterated_to() as f64 / 1e3;
        // The last value of all is at no percentile.
        let share = (below as f64 / all).min(1.0 - 1.0 / (all + 1.0));
        points.push((nines(100.0 * share), Some(us)));
        below += value.count_since_last_iteration();
    }
    thinned(points)
}

/// More points than pixels are only a larger file.
fn thinned(points: Vec<(f64, Option<f64>)>) -> Vec<(f64, Option<f64>)> {
    const LEAST_STEP: f64 = 0.005;
    let last = points.len().saturating_sub(1);
    let mut kept: Vec<(f64, Option<f64>)> = Vec::new();
    for (index, point) in points.into_iter().enumerate() {
        let is_far = kept
            .last()
            .is_none_or(|before| point.0 - before.0 >= LEAST_STEP);
        if is_far || index == last {
            kept.push(point);
        }
    }
    kept
}

fn over_time(page: &mut String, report: &Report) {
    let ticks = ticks(report);
    for (title, mut curves, shown) in curves_over_time(&report.timeline) {
        curves.retain(|curve| curve.points.iter().any(|(_, value)| value.is_some()));
        let chart = Chart {
            title,
            curves,
            ticks: ticks.clone(),
            shaded_to: Some(0.0),
            shown,
        };
        let svg = chart.svg();
        if !svg.is_empty() {
            let _ = write!(page, "<h2>{title}</h2>{svg}");
        }
    }
}

fn curves_over_time(timeline: &[Point]) -> Vec<(&'static str, Vec<Curve>, Shown)> {
    let curve = |name, value: &dyn Fn(&Point) -> Option<f64>| Curve {
        name,
        points: timeline
            .iter()
            .map(|point| ((point.at_ms + point.length_ms / 2.0) / 1e3, value(point)))
            .collect(),
    };
    let tcp =
        |name, value: fn(&TcpPoint) -> f64| curve(name, &|point| point.tcp.as_ref().map(value));
    let plain: Shown = |value| format!("{value:.0}");
    let mut charts: Vec<(&str, Vec<Curve>, Shown)> = vec![
        (
            "Messages per second",
            vec![curve("answered", &|point| Some(point.messages_per_s))],
            per_s,
        ),
        (
            "Latency over time",
            vec![
                curve("p50", &|point| point.p50_us),
                curve("p99", &|point| point.p99_us),
                curve("max", &|point| point.max_us),
            ],
            shown_us,
        ),
        (
            "Round trip time, as the kernel has it",
            vec![
                tcp("our side", |tcp| tcp.rtt_us),
                curve("the server's side", &|point| {
                    point.server_tcp.map(|tcp| tcp.rtt_us)
                }),
            ],
            shown_us,
        ),
        (
            "Congestion window and segments sent again",
            vec![
                tcp("window, segments", |tcp| tcp.cwnd),
                tcp("sent again so far", |tcp| tcp.retransmitted as f64),
            ],
            plain,
        ),
    ];
    if timeline.iter().any(|point| point.errors > 0) {
        let errors = curve("in each piece", &|point| Some(point.errors as f64));
        charts.push(("Errors", vec![errors], plain));
    }
    charts
}

/// About ten places on the axis of time.
fn ticks(report: &Report) -> Vec<(f64, String)> {
    const STEPS_S: [f64; 11] = [
        0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86_400.0,
    ];
    let last = report.timeline.last();
    let end = last.map_or(0.0, |point| (point.at_ms + point.length_ms) / 1e3);
    let step = STEPS_S.into_iter().find(|step| end / step <= 10.0);
    let step = step.unwrap_or(end / 10.0);
    let places = (0..=10).map(|number| f64::from(number) * step);
    places
        .map(|place| (place, format!("{} s", trimmed(place, 1))))
        .collect()
}

fn tcp(page: &mut String, report: &Report) {
    let servers = report
        .both_ends
        .as_ref()
        .and_then(|ends| ends.server_tcp.as_ref());
    let sides = [
        ("our side", report.tcp.as_ref()),
        ("the server's side", servers),
    ];
    if report.tcp.is_none() {
        return;
    }
    page.push_str("<h2>What the kernel knew in the end</h2><div class='wide'><table><tr><th></th><th>connections</th><th>segments</th><th>sent again</th><th>RTT</th><th>window</th></tr>");
    for (name, summary) in sides {
        let Some(summary) = summary else { continue };
        let TcpSummary {
            connections,
            sent_segments,
            retransmitted,
            rtt_us,
            cwnd,
            ..
        } = summary;
        let rtt = time(rtt_us.map(|spread| spread.median));
        let cwnd = cwnd.map_or(0.0, |spread| spread.median);
        let _ = write!(
            page,
            "<tr><td>{name}</td><td>{connections}</td><td>{}</td><td>{}</td><td>{rtt}</td><td>{cwnd:.0}</td></tr>",
            count(*sent_segments),
            count(*retransmitted)
        );
    }
    page.push_str("</table></div>");
}

/// A few connections, with both their sockets.
fn pairs(page: &mut String, report: &Report) {
    let pairs = report.both_ends.as_ref().map(|ends| &ends.pairs);
    let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty()) else {
        return;
    };
    page.push_str(
        "<h2>Both sockets of some connections</h2><div class='wide'><table><tr><th></th><th></th><th>state</th><th>RTT</th>\
         <th>least RTT</th><th>window</th><th>segments</th><th>sent again</th></tr>",
    );
    for pair in pairs {
        for (side, socket, tcp) in [
            ("our side", &pair.client, &pair.client_tcp),
            ("the server's side", &pair.server, &pair.server_tcp),
        ] {
            let state = tcp["state"].as_str().unwrap_or(UNKNOWN);
            let known = |field: &str| tcp[field].as_u64();
            let us = |field: &str| time(known(field).map(|us| us as f64));
            let plain = |field: &str| known(field).map_or_else(|| UNKNOWN.to_owned(), count);
            let cells = [
                state.to_owned(),
                us("rtt_us"),
                us("min_rtt_us"),
                plain("snd_cwnd"),
                plain("data_segs_out"),
                plain("total_retrans"),
            ];
            let cells = cells.map(|cell| format!("<td>{}</td>", safe(&cell)));
            let _ = write!(
                page,
                "<tr><td>{side}</td><td>{}</td>{}</tr>",
                safe(socket),
                cells.concat()
            );
        }
    }
    page.push_str("</table></div>");
}

fn rest(page: &mut String, report: &Report) {
    page.push_str("<h2>CPU, errors and what was asked for</h2><div class='wide'><table>");
    let mut row = |name: &str, value: &str| {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td></tr>",
            safe(name),
            safe(value)
        );
    };
    for (name, cost) in [
        ("our CPU per message", Some(report.own)),
        ("the server's CPU per message", report.server),
    ] {
        if let Some(cost) = cost {
            row(name, &time(cost.cpu_ns_per_message.map(|ns| ns / 1e3)));
        }
    }
    for (kind, number) in &report.errors {
        row(kind, &count(*number));
    }
    if let Ok(serde_json::Value::Object(asked)) = serde_json::to_value(&report.asked) {
        for (field, value) in asked.iter().filter(|(_, value)| !value.is_null()) {
            let (name, text) = option(field, value);
            row(&name, &text);
        }
    }
    row("sockeye", &report.sockeye);
    page.push_str("</table></div>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample;

    #[test]
    fn every_report_makes_a_page_without_a_number_that_is_none() {
        for report in sample::all() {
            let page = page(&report);
            assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
            assert!(!page.contains("NaN") && !page.contains("inf "), "{page}");
            assert!(!page.contains("http://") && !page.contains("https://"));
        }
    }

    #[test]
    fn a_hostile_address_or_error_is_text() {
        let page = page(&sample::hostile());
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
    }

    #[test]
    fn an_invalid_run_says_so_before_its_figures() {
        let page = page(&sample::invalid());
        let place = |text: &str| page.find(text).expect("there");
        assert!(place("<strong>invalid") < place("answered"));
    }

    #[test]
    fn a_search_shows_its_trials_and_both_ends_their_sockets() {
        let page_of_search = page(&sample::find_max());
        assert!(
            page_of_search
                .contains("<td>try</td><td>88,000</td><td>7.10 ms</td><td>does not hold</td>")
        );
        assert!(
            page_of_search
                .contains("<td>confirm</td><td>84,000</td><td>2.30 ms</td><td>holds</td>")
        );
        let page_of_both = page(&sample::both_ends());
        assert!(
            page_of_both.contains("<td>127.0.0.1:41000</td><td>established</td><td>31.0 µs</td>")
        );
        assert!(!page(&sample::open_loop()).contains("Both sockets"));
    }

    #[test]
    fn a_run_without_a_timeline_has_a_page_as_well() {
        let mut report = sample::open_loop();
        report.timeline.clear();
        assert!(!page(&report).contains("Latency over time"));
    }
}
