//! `sockeye bench`: many connections, to measure a server.
//!
//! In the order in which a run goes: what is to be done, when, with which bytes and to whom; the threads and their
//! connections; what is recorded; what is made of it.

mod interrupt;
mod setup;

mod both_ends;
mod cycle;
mod dial;
mod plan;
mod schedule;

mod measure;

mod worker;

mod connection;
mod pacer;
mod talk;
mod tcp_account;

mod account;
mod cpu;
mod recorder;
mod timeline;

pub(crate) mod report;
mod sum_up;
pub(crate) mod threshold;
mod verdict;

mod find_max;

mod compare;
mod figure;
mod hgrm;
mod html;
mod live;
#[cfg(test)]
mod sample;
mod text;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;

use crate::bench::compare::Comparison;
use crate::bench::find_max::find_max;
use crate::bench::live::Live;
use crate::bench::measure::{Watched, measure};
use crate::bench::report::Report;
use crate::bench::setup::Setup;
use crate::bench::sum_up::Frame;
use crate::bench::threshold::Metric;
use crate::cli::bench::{Bench, Mode};
use crate::exit::{Code, Failure};
use crate::output::{data, result};

pub(crate) fn run(arguments: &Bench) -> Result<Code, Failure> {
    // Before there are threads. Without it fewer connections fit, which is said in the setup.
    let limit = sockeye::raise_descriptor_limit().ok().flatten();
    let old = arguments
        .compare
        .as_deref()
        .map(compare::read)
        .transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot start")))?;
    let ended = runtime.block_on(async {
        let setup = Setup::new(arguments, limit).await?;
        let report = match &arguments.find_max {
            Some(objective) => find_max(&setup, objective).await,
            None => setup.measure(arguments.rate, setup.duration()).await,
        };
        setup.end();
        report
    });
    // A lookup that nobody waits for any more is not waited for.
    runtime.shutdown_background();
    let report = ended?;
    tell(arguments, &report, old.as_ref())?;
    Ok(code(arguments, &report))
}

impl Setup<'_> {
    /// One run, at a rate or in a closed loop.
    async fn measure(&self, rate: Option<f64>, duration: Duration) -> Result<Report, Failure> {
        let arguments = self.arguments;
        let plan = self.plan(rate, duration);
        let asked = sum_up::asked(&plan, arguments, self.tls);
        let watched = match (arguments.pid, &self.here) {
            (Some(pid), _) => Watched::Process(pid),
            (None, Some(_)) => Watched::Ourselves,
            (None, None) => Watched::Nobody,
        };
        let live = Live::start(!arguments.quiet);
        let tried = rate.filter(|_| arguments.find_max.is_some());
        let measured = measure(plan, watched, self.interrupts.clone(), &live, tried).await;
        live.end();
        let measured = measured?;
        if measured.opened == 0 && self.mode != Mode::Connect {
            let error = anyhow!("no connection to {} could be opened", self.target);
            return Err(Failure::new(Code::Connect, error));
        }
        let frame = Frame {
            target: &self.target,
            both_ends: self.here.is_some(),
            fail_if: &arguments.fail_if,
            percentiles: &percentiles(arguments),
        };
        let ports = self.dialer.ports().map(|ports| ports.text());
        Ok(sum_up::report(&frame, self.mode, asked, ports, measured))
    }
}

/// Those that somebody asks for.
fn percentiles(arguments: &Bench) -> Vec<f64> {
    let asked = arguments.fail_if.iter().chain(&arguments.find_max);
    let percentiles = asked.filter_map(|threshold| match threshold.metric() {
        Metric::Percentile(percentile) => Some(percentile),
        _ => None,
    });
    percentiles.collect()
}

/// The report, with a comparison if there is one.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Comparison>,
}

/// Writes what was asked for.
fn tell(arguments: &Bench, report: &Report, old: Option<&Report>) -> Result<(), Failure> {
    if let Some(path) = &arguments.hgrm {
        let distribution = report
            .latency
            .distribution()
            .unwrap_or_else(recorder::histogram);
        write(path, &hgrm::hgrm(&distribution))?;
    }
    if let Some(path) = &arguments.html {
        write(path, &html::page(report))?;
    }
    let comparison = old.map(|old| compare::compare(old, report));
    // A closed pipe is success.
    let _ = if arguments.json {
        let told = Told {
            report,
            comparison: comparison.as_ref(),
        };
        let json = serde_json::to_string(&told);
        data(&json.map_err(|error| Failure::usage(anyhow!(error)))?)
    } else {
        let mut text = text::summary(report);
        if let Some(comparison) = &comparison {
            text.push_str(&format!("\n{comparison}"));
        }
        result(text.trim_end())
    };
    Ok(())
}

fn code(arguments: &Bench, report: &Report) -> Code {
    let asks = !arguments.fail_if.is_empty() || arguments.find_max.is_some();
    let broken = report.thresholds.iter().any(|verdict| verdict.broken);
    let found = report.found.as_ref();
    let nothing_found = found.is_some_and(|found| found.rate_per_s.is_none());
    match () {
        () if report.has_warning("interrupted") => Code::Interrupted,
        () if broken || nothing_found || asks && !report.valid => Code::No,
        () => Code::Done,
    }
}

/// Writes a file that was asked for.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = fs::write(path, text);
    let cannot = || format!("cannot write '{}'", path.display());
    written.with_context(cannot).map_err(Failure::usage)
}
