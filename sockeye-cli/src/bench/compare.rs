//! Two runs side by side: what has changed, whether they are the same measurement at all, and what one run each can tell.

use std::fmt;
use std::fs;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::Value;

use crate::bench::figure::{UNKNOWN, bytes, count, number, option, per_s, time};
use crate::bench::report::{Point, Report};
use crate::exit::{Failure, escaped};

/// An old run beside a new one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) old: Side,
    pub(crate) new: Side,
    /// What was asked differently: with any of it, the two are different measurements.
    pub(crate) different: Vec<Difference>,
    pub(crate) figures: Vec<Change>,
    /// Of the rate and of p99, how they vary within each run.
    pub(crate) within: Vec<Within>,
}

/// One of the two.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Side {
    /// The version of the program.
    pub(crate) sockeye: String,
    pub(crate) valid: bool,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// `--connections`, or `ADDRESS`.
    pub(crate) option: String,
    pub(crate) old: String,
    pub(crate) new: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    /// Where it stands in the report: `latency.p99_us`.
    pub(crate) figure: &'static str,
    pub(crate) old: Option<f64>,
    pub(crate) new: Option<f64>,
    /// Of the old one; `None` if one of them is not known, or the old one is 0.
    pub(crate) change_percent: Option<f64>,
}

/// A figure of the pieces of the measured time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Within {
    /// Where it stands in a piece of the timeline: `p99_us`.
    pub(crate) figure: &'static str,
    pub(crate) old: Option<Quartiles>,
    pub(crate) new: Option<Quartiles>,
    /// Whether the middle halves have something in common; `None` if there are too few pieces, or they are not as long as
    /// one another.
    pub(crate) overlap: Option<bool>,
}

/// The middle half of some pieces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quartiles {
    pub(crate) pieces: usize,
    pub(crate) first: f64,
    pub(crate) median: f64,
    pub(crate) third: f64,
}

/// Reads what `--json` has written.
pub(crate) fn read(path: &Path) -> Result<Report, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the run to compare with, '{shown}'"))
        .map_err(Failure::usage)?;
    parse(&text)
        .with_context(|| format!("cannot compare with '{shown}'"))
        .map_err(|error| {
            Failure::usage(error).with_hint("it takes the output of 'sockeye bench --json'")
        })
}

/// Fields that we do not know are left out: a newer version may have more. One that is missing is an error, for what is not
/// there cannot be compared.
fn parse(text: &str) -> anyhow::Result<Report> {
    let value: Value = serde_json::from_str(text).context("it is not JSON")?;
    let version = value.get("sockeye").and_then(Value::as_str);
    let Some(version) = version.map(str::to_owned) else {
        return Err(anyhow!(
            "it is JSON, but no run of sockeye: it has no field `sockeye`"
        ));
    };
    serde_json::from_value(value).with_context(|| {
        let ours = env!("CARGO_PKG_VERSION");
        format!("it is of sockeye {version}, this is {ours}, and a field is not as it is here")
    })
}

pub(crate) fn compare(old: &Report, new: &Report) -> Comparison {
    let side = |report: &Report| Side {
        sockeye: report.sockeye.clone(),
        valid: report.valid,
    };
    let change = |(figure, of): &(&'static str, Figure)| {
        let (old, new) = (of(old), of(new));
        let change_percent = match (old, new) {
            (Some(old), Some(new)) if old != 0.0 => Some((new - old) / old * 100.0),
            _ => None,
        };
        Change {
            figure,
            old,
            new,
            change_percent,
        }
    };
    Comparison {
        old: side(old),
        new: side(new),
        different: differences(old, new),
        figures: FIGURES.iter().map(change).collect(),
        within: vec![
            within("messages_per_s", old, new, |point| {
                Some(point.messages_per_s)
            }),
            within("p99_us", old, new, |point| point.p99_us),
        ],
    }
}

type Figure = fn(&Report) -> Option<f64>;

/// What is compared, under the name that it has in the report.
const FIGURES: &[(&str, Figure)] = &[
    ("messages_per_s", |r| Some(r.messages_per_s)),
    ("latency.mean_us", |r| {
        (r.latency.count > 0).then_some(r.latency.mean_us)
    }),
    ("latency.p50_us", |r| r.latency.p50_us),
    ("latency.p90_us", |r| r.latency.p90_us),
    ("latency.p99_us", |r| r.latency.p99_us),
    ("latency.p99_9_us", |r| r.latency.p99_9_us),
    ("latency.p99_99_us", |r| r.latency.p99_99_us),
    ("latency.max_us", |r| {
        (r.latency.count > 0).then_some(r.latency.max_us)
    }),
    ("service.p50_us", |r| r.service.p50_us),
    ("service.p99_us", |r| r.service.p99_us),
    ("connect.p50_us", |r| r.connect.p50_us),
    ("errors", |r| Some(r.errors.values().sum::<u64>() as f64)),
    ("unanswered", |r| Some(r.unanswered as f64)),
    ("sent_bytes_per_s", |r| Some(r.sent_bytes_per_s)),
    ("received_bytes_per_s", |r| Some(r.received_bytes_per_s)),
    ("own.cpu_ns_per_message", |r| r.own.cpu_ns_per_message),
    ("server.cpu_ns_per_message", |r| {
        r.server.and_then(|cost| cost.cpu_ns_per_message)
    }),
    ("tcp.retransmitted", |r| {
        r.tcp.as_ref().map(|tcp| tcp.retransmitted as f64)
    }),
];

/// Everything that was asked, whatever options there are.
fn differences(old: &Report, new: &Report) -> Vec<Difference> {
    let (before, after) = (asked(old), asked(new));
    let mut different: Vec<Difference> = Vec::new();
    for (option, old) in &before {
        let new = after
            .iter()
            .find(|(name, _)| name == option)
            .map(|(_, value)| value);
        if let Some(new) = new.filter(|new| *new != old) {
            different.push(Difference {
                option: option.clone(),
                old: old.clone(),
                new: new.clone(),
            });
        }
    }
    different
}

fn asked(report: &Report) -> Vec<(String, String)> {
    let named = |name: &str, value: Value| option(name, &value);
    let mode = serde_json::to_value(report.mode).unwrap_or_default();
    let loop_kind = serde_json::to_value(report.loop_kind).unwrap_or_default();
    let mut asked = vec![
        ("ADDRESS".to_owned(), report.target.clone()),
        named("mode", mode),
        ("loop".to_owned(), named("loop", loop_kind).1),
        named("serve", report.both_ends.is_some().into()),
        named(
            "find-max",
            report
                .found
                .as_ref()
                .map(|found| found.objective.clone())
                .into(),
        ),
    ];
    if let Ok(Value::Object(fields)) = serde_json::to_value(&report.asked) {
        // Unless it was given, the seed is another one each time.
        let compared = fields.iter().filter(|(field, _)| *field != "seed");
        asked.extend(compared.map(|(field, value)| option(field, value)));
    }
    asked
}

/// Quartiles of fewer are made of single pieces.
const LEAST_PIECES: usize = 8;

fn within(
    figure: &'static str,
    old: &Report,
    new: &Report,
    of: fn(&Point) -> Option<f64>,
) -> Within {
    let quartiles = |report: &Report| {
        let mut values: Vec<f64> = measured(report).filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| values.get(values.len() * quarter / 4).copied();
        let enough = values.len() >= LEAST_PIECES;
        enough.then_some(())?;
        Some(Quartiles {
            pieces: values.len(),
            first: at(1)?,
            median: at(2)?,
            third: at(3)?,
        })
    };
    let length = |report: &Report| measured(report).next().map(|point| point.length_ms);
    // A long piece varies less than a short one.
    let alike = match (length(old), length(new)) {
        (Some(old), Some(new)) => (0.8..=1.25).contains(&(new / old)),
        _ => false,
    };
    let (old, new) = (quartiles(old), quartiles(new));
    let overlap = match (old, new) {
        (Some(old), Some(new)) if alike => Some(old.first <= new.third && new.first <= old.third),
        _ => None,
    };
    Within {
        figure,
        old,
        new,
        overlap,
    }
}

/// Without the warm-up.
fn measured(report: &Report) -> impl Iterator<Item = &Point> {
    report.timeline.iter().filter(|point| point.at_ms >= 0.0)
}

impl fmt::Display for Comparison {
    /// A table, and what it can tell, for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yellow = Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold();
        let mut warn = |text: &str| writeln!(f, "{yellow}warning:{yellow:#} {text}");
        for (side, name) in [(&self.old, "old"), (&self.new, "new")] {
            if !side.valid {
                warn(&format!(
                    "the {name} run is invalid: its figures tell nothing"
                ))?;
            }
        }
        if !self.different.is_empty() {
            warn("these are different measurements:")?;
        }
        for Difference { option, old, new } in &self.different {
            writeln!(f, "  {option}: {}, now {}", escaped(old), escaped(new))?;
        }
        writeln!(f, "{:24}{:>14}{:>14}{:>11}", "", "old", "new", "change")?;
        for change in &self.figures {
            // Nobody measured it.
            if change.old.is_some() || change.new.is_some() {
                writeln!(f, "{change}")?;
            }
        }
        for within in &self.within {
            writeln!(f, "{within}")?;
        }
        write!(
            f,
            "One run each does not tell a small difference from noise: run both several times, in turn."
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Option<f64>| {
            value.map_or_else(|| UNKNOWN.to_owned(), |value| shown(self.figure, value))
        };
        let change = match self.change_percent {
            // A thousandth of a percent is no change.
            Some(percent) if percent.abs() < 0.05 => "0 %".to_owned(),
            Some(percent) => format!("{percent:+.1} %"),
            None => UNKNOWN.to_owned(),
        };
        let (name, old, new) = (words(self.figure), show(self.old), show(self.new));
        write!(f, "{name:24}{old:>14}{new:>14}{change:>11}")
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = words(self.figure);
        let show = |quartiles: Quartiles| {
            let ends = [quartiles.first, quartiles.third].map(|value| shown(self.figure, value));
            let pieces = count(quartiles.pieces as u64);
            format!("{} to {} in half of {pieces} pieces", ends[0], ends[1])
        };
        let (Some(old), Some(new)) = (self.old, self.new) else {
            return write!(
                f,
                "{name} within the runs: too few pieces to tell how it varies"
            );
        };
        write!(
            f,
            "{name} within the runs: {}, now {}:\n  ",
            show(old),
            show(new)
        )?;
        f.write_str(match self.overlap {
            Some(true) => "they overlap, so a difference cannot be told from noise",
            Some(false) => {
                "they do not overlap, so the difference is larger than the noise within a run"
            }
            None => "the pieces are not equally long and cannot be compared",
        })
    }
}

/// `latency.p99_us` as `latency p99`.
fn words(figure: &str) -> String {
    match figure {
        "messages_per_s" => return "rate".to_owned(),
        "own.cpu_ns_per_message" => return "own CPU per message".to_owned(),
        "server.cpu_ns_per_message" => return "server CPU per message".to_owned(),
        _ => {}
    }
    let name = figure.trim_end_matches("_us").replace('.', " ");
    name.replace("_9", ".9").replace("_bytes_per_s", " bytes")
}

/// With the unit at the end of its name.
fn shown(figure: &str, value: f64) -> String {
    match figure {
        _ if figure.ends_with("_us") => time(Some(value)),
        _ if figure.ends_with("_ns_per_message") => time(Some(value / 1e3)),
        _ if figure.ends_with("_bytes_per_s") => format!("{}/s", bytes(value)),
        _ if figure.ends_with("_per_s") => per_s(value),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample;

    fn plain(comparison: &Comparison) -> String {
        anstream::adapter::strip_str(&comparison.to_string()).to_string()
    }

    fn why(text: &str) -> String {
        format!("{:#}", parse(text).expect_err("not a report"))
    }

    #[test]
    fn a_run_with_itself_differs_in_nothing_and_overlaps() {
        let comparison = compare(&sample::open_loop(), &sample::open_loop());
        assert_eq!(comparison.different, []);
        let known = comparison
            .figures
            .iter()
            .filter_map(|change| change.change_percent);
        assert!(known.clone().count() > 10, "{comparison:?}");
        assert!(
            known.clone().all(|percent| percent == 0.0),
            "{comparison:?}"
        );
        assert!(
            comparison
                .within
                .iter()
                .all(|within| within.overlap == Some(true))
        );
        let text = plain(&comparison);
        assert!(!text.contains("warning"), "{text}");
        assert!(text.contains("One run each"), "{text}");
    }

    #[test]
    fn a_change_is_in_percent_of_the_old_run() {
        let old = sample::open_loop();
        let mut new = old.clone();
        new.messages_per_s = old.messages_per_s * 1.5;
        new.latency.p99_us = None;
        let comparison = compare(&old, &new);
        let change = |figure| {
            comparison
                .figures
                .iter()
                .find(|change| change.figure == figure)
                .expect("there")
        };
        let percent = change("messages_per_s").change_percent.expect("there");
        assert!((percent - 50.0).abs() < 1e-9, "{percent}");
        assert_eq!(change("latency.p99_us").change_percent, None);
        // It was 0.
        assert_eq!(change("errors").change_percent, None);
        assert!(plain(&comparison).contains("+50.0 %"), "{comparison}");
    }

    #[test]
    fn different_options_and_invalid_runs_are_warned_of() {
        let comparison = compare(&sample::open_loop(), &sample::closed_loop());
        let different = |option: &str| comparison.different.iter().find(|d| d.option == option);
        let connections = different("--connections").expect("there");
        assert_eq!((&*connections.old, &*connections.new), ("64", "4"));
        let names: Vec<&str> = comparison.different.iter().map(|d| &*d.option).collect();
        assert_eq!(
            names,
            [
                "loop",
                "--arrivals",
                "--connections",
                "--duration",
                "--rate"
            ]
        );
        let text = plain(&compare(&sample::invalid(), &sample::open_loop()));
        assert!(
            text.starts_with("warning: the old run is invalid"),
            "{text}"
        );
    }

    #[test]
    fn another_seed_is_not_another_measurement() {
        let old = sample::open_loop();
        let mut new = old.clone();
        new.asked.seed = Some(8);
        new.sockeye = "9.9.9".to_owned();
        assert_eq!(compare(&old, &new).different, []);
    }

    #[test]
    fn the_middle_halves_tell_a_difference_from_noise() {
        let old = sample::open_loop();
        let mut new = old.clone();
        for point in &mut new.timeline {
            point.messages_per_s *= 1.02;
            point.p99_us = point.p99_us.map(|us| us * 100.0);
        }
        let comparison = compare(&old, &new);
        assert_eq!(comparison.within[1].overlap, Some(false));
        assert!(
            plain(&comparison).contains("larger than the noise"),
            "{comparison}"
        );
        new.timeline.truncate(12);
        let comparison = compare(&old, &new);
        assert_eq!(comparison.within[0].new, None);
        assert_eq!(comparison.within[0].overlap, None);
        let mut longer = old.clone();
        for point in &mut longer.timeline {
            point.length_ms *= 2.0;
        }
        let comparison = compare(&old, &longer);
        assert!(
            plain(&comparison).contains("not equally long"),
            "{comparison}"
        );
    }

    #[test]
    fn every_report_survives_json_and_unknown_fields_are_left_out() {
        for report in sample::all() {
            let mut value = serde_json::to_value(&report).expect("there");
            value["from_the_future"] = 1.into();
            value["asked"]["too"] = 2.into();
            let read = parse(&value.to_string()).expect("there");
            assert_eq!(read.latency.histogram, report.latency.histogram);
            assert_eq!(compare(&report, &read).different, []);
        }
    }

    #[test]
    fn what_is_not_ours_is_an_error_that_says_why() {
        assert!(why("{\"a\":").contains("not JSON"), "{}", why("{\"a\":"));
        assert!(why("[1]").contains("no field `sockeye`"), "{}", why("[1]"));
        let mut old = serde_json::to_value(sample::open_loop()).expect("there");
        old["sockeye"] = "0.0.9".into();
        old.as_object_mut().expect("there").remove("unanswered");
        let error = why(&old.to_string());
        assert!(
            error.contains("0.0.9") && error.contains("missing field `unanswered`"),
            "{error}"
        );
        let failure = read(Path::new("/nowhere/at/all.json")).expect_err("not a report");
        assert!(
            failure.to_string().contains("'/nowhere/at/all.json'"),
            "{failure}"
        );
    }
}
