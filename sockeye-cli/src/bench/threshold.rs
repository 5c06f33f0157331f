//! What a figure is to be, `p99<5ms`: read, and held against a report. Pure.

use std::fmt;
use std::str::FromStr;

use crate::bench::report::{Report, Verdict};
use crate::cli::quantity;
use crate::cli::time;

/// A condition on one figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    metric: Metric,
    comparison: Comparison,
    /// Microseconds, or messages per second, or a count.
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    Percentile(f64),
    Mean,
    Max,
    Rate,
    Errors,
    Unanswered,
    Retransmitted,
    Cpu,
    ServerCpu,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Threshold {
    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether it is true of the report; `None` if the figure is not known.
    pub(crate) fn holds(&self, report: &Report) -> Option<bool> {
        let value = self.metric.of(report)?;
        Some(match self.comparison {
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
        })
    }

    /// Of a `--fail-if`: it is broken if the condition is true, and if nobody can tell.
    pub(crate) fn verdict(&self, report: &Report) -> Verdict {
        let value = self.metric.of(report);
        Verdict {
            threshold: self.text.clone(),
            value,
            broken: self.holds(report).unwrap_or(true),
            text: match value {
                Some(value) => format!("{} is {}", self.metric, self.metric.shown(value)),
                None => format!("{} is not known", self.metric),
            },
        }
    }

    /// Of a `--find-max`: more load can only break it, or there is nothing to look for.
    pub(crate) fn is_ceiling_of_latency(&self) -> bool {
        let ceiling = matches!(self.comparison, Comparison::Below | Comparison::AtMost);
        ceiling && self.metric.is_time() && !matches!(self.metric, Metric::Cpu | Metric::ServerCpu)
    }
}

impl Metric {
    /// In microseconds, messages per second, or a count.
    pub(crate) fn of(self, report: &Report) -> Option<f64> {
        let latency = &report.latency;
        let is_empty = latency.count == 0;
        let cost = |ns: Option<f64>| ns.map(|ns| ns / 1000.0);
        match self {
            Self::Percentile(percentile) => latency.percentile(percentile),
            Self::Mean | Self::Max if is_empty => None,
            Self::Mean => Some(latency.mean_us),
            Self::Max => Some(latency.max_us),
            Self::Rate => Some(report.messages_per_s),
            Self::Errors => Some(report.errors.values().sum::<u64>() as f64),
            Self::Unanswered => Some(report.unanswered as f64),
            Self::Retransmitted => report.tcp.as_ref().map(|tcp| tcp.retransmitted as f64),
            Self::Cpu => cost(report.own.cpu_ns_per_message),
            Self::ServerCpu => cost(report.server.and_then(|server| server.cpu_ns_per_message)),
        }
    }

    fn is_time(self) -> bool {
        use Metric::{Cpu, Max, Mean, Percentile, ServerCpu};
        matches!(self, Percentile(_) | Mean | Max | Cpu | ServerCpu)
    }

    /// A value with its unit.
    pub(crate) fn shown(self, value: f64) -> String {
        match self {
            _ if self.is_time() => shown_us(value),
            Self::Rate => format!("{value:.0}/s"),
            _ => format!("{value:.0}"),
        }
    }
}

/// A time in the unit that reads best, with three digits.
pub(crate) fn shown_us(us: f64) -> String {
    let (value, unit) = match us {
        _ if us >= 999_500.0 => (us / 1e6, "s"),
        _ if us >= 999.5 => (us / 1e3, "ms"),
        _ => (us, "µs"),
    };
    let digits = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text
            .find(['<', '>'])
            .ok_or("write a figure, < or >, and a value: 'p99>5ms'")?;
        let (name, rest) = text.split_at(place);
        let (sign, value) = match rest.get(1..2) {
            Some("=") => rest.split_at(2),
            _ => rest.split_at(1),
        };
        let comparison = match sign {
            ">" => Comparison::Above,
            ">=" => Comparison::AtLeast,
            "<" => Comparison::Below,
            _ => Comparison::AtMost,
        };
        let metric: Metric = name.trim().parse()?;
        let value = value.trim();
        let limit = match metric {
            _ if metric.is_time() => us(value)?,
            Metric::Rate => quantity::rate(value)?,
            _ => value
                .parse::<u32>()
                .map(f64::from)
                .map_err(|_| format!("'{value}' is not a count"))?,
        };
        Ok(Self {
            text: text.to_owned(),
            metric,
            comparison,
            limit,
        })
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let percentile = name.strip_prefix('p').and_then(|digits| {
            let percentile: f64 = digits.parse().ok()?;
            // Beyond, no run is long enough; and 'p-1' or 'pnan' are none.
            (0.0..=99.9999).contains(&percentile).then_some(percentile)
        });
        Ok(match name {
            "mean" => Self::Mean,
            "max" => Self::Max,
            "rate" => Self::Rate,
            "errors" => Self::Errors,
            "unanswered" => Self::Unanswered,
            "retransmitted" => Self::Retransmitted,
            "cpu" => Self::Cpu,
            "server-cpu" => Self::ServerCpu,
            _ => Self::Percentile(percentile.ok_or_else(|| {
                format!(
                    "'{name}' is no figure; there are p50, p99, p99.9 and so on, mean, max, rate, errors, \
                     unanswered, retransmitted, cpu, server-cpu"
                )
            })?),
        })
    }
}

/// `5ms`, `0.5ms`, `250us`, `1s`.
fn us(text: &str) -> Result<f64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let factor = match unit {
        "ns" => Some(1e-3),
        "us" | "µs" => Some(1.0),
        "ms" => Some(1e3),
        "s" => Some(1e6),
        _ => None,
    };
    if let (Some(factor), Ok(number)) = (factor, number.parse::<f64>())
        && number >= 0.0
        && number.is_finite()
    {
        return Ok(number * factor);
    }
    // 1m30s
    if unit.is_empty() {
        return Err(format!("'{text}' has no unit; write 5ms, 250us or 1s"));
    }
    Ok(time::duration(text)?.as_secs_f64() * 1e6)
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(percentile) => write!(f, "p{percentile}"),
            Self::Mean => f.write_str("mean"),
            Self::Max => f.write_str("max"),
            Self::Rate => f.write_str("rate"),
            Self::Errors => f.write_str("errors"),
            Self::Unanswered => f.write_str("unanswered"),
            Self::Retransmitted => f.write_str("retransmitted"),
            Self::Cpu => f.write_str("cpu"),
            Self::ServerCpu => f.write_str("server-cpu"),
        }
    }
}
