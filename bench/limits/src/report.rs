//! One JSON object on standard output. Names carry their unit last.

use std::fmt::Write;

#[derive(Debug, Default)]
pub struct Report(String);

impl Report {
    #[must_use]
    pub fn count(mut self, name: &str, value: u64) -> Self {
        self.put(name, &value.to_string());
        self
    }

    /// JSON knows no infinity, which a ratio to nothing would be.
    #[must_use]
    pub fn figure(mut self, name: &str, value: f64) -> Self {
        let text = if value.is_finite() {
            format!("{value:.3}")
        } else {
            "null".to_owned()
        };
        self.put(name, &text);
        self
    }

    /// Rust's escapes for printable text are JSON's.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.put(name, &format!("{value:?}"));
        self
    }

    /// Prints the object, with the verdict on the run: without an objection it counts.
    pub fn print(mut self, objection: Option<&str>) {
        self.put("valid", &objection.is_none().to_string());
        if let Some(objection) = objection {
            self = self.text("objection", objection);
        }
        println!("{{{}}}", self.0);
    }

    fn put(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{comma}\"{name}\": {value}");
    }
}

/// Round trips, to say of each share of them how long they took at most.
#[derive(Debug)]
pub struct Latencies(Vec<u64>);

impl From<Vec<u64>> for Latencies {
    fn from(mut ns: Vec<u64>) -> Self {
        ns.sort_unstable();
        Self(ns)
    }
}

impl Latencies {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// In microseconds; not a number if there was none.
    #[must_use]
    pub fn us(&self, share: f64) -> f64 {
        let place = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1);
        self.0.get(place).map_or(f64::NAN, |&ns| ns as f64 / 1000.0)
    }
}

/// Why a run does not count, if so. A server that did nothing for some connections is fast for the others, which has
/// made figures worthless elsewhere; so the number really served is part of every figure.
#[must_use]
pub fn objection(
    served: usize,
    connections: usize,
    errors: u64,
    first: Option<&str>,
) -> Option<String> {
    if errors > 0 {
        let first = first.unwrap_or("unknown");
        Some(format!("failed connections: {errors}, the first: {first}"))
    } else if served < connections {
        Some(format!("served {served} of {connections} connections"))
    } else {
        None
    }
}
