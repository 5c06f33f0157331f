//! Why there is no connection, in words that name what was tried.

use std::fmt;
use std::io;
use std::time::Duration;

use super::through::fmt_answer;
use super::{Attempt, Report, Target};
use crate::hop::RequestError;

/// There is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectError {
    /// What was to be connected to.
    pub target: Target,
    /// The proxy on the way to it.
    pub proxy: Option<Target>,
    /// Why not.
    pub failure: Failure,
    /// What was tried.
    pub report: Report,
}

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The name could not be resolved.
    Resolve(io::Error),
    /// The name has no address of the family asked for, or of the source address.
    NoUsableAddress,
    /// Every address said no: see [`Report::attempts`].
    AllFailed,
    /// The Unix socket said no.
    Unix(io::Error),
    /// The proxy did not connect us: the last of [`Report::hops`] says why.
    Proxy,
    /// The target is nothing that the proxy could be asked for.
    Request(RequestError),
    /// [`Connector::timeout`](super::Connector::timeout) was up.
    TimedOut(Duration),
}

impl ConnectError {
    /// Whether it was the proxy that could not be reached, and the failure is about its name and addresses.
    pub fn is_of_proxy(&self) -> bool {
        self.report.is_of_proxy
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match &self.proxy {
            Some(proxy) if self.is_of_proxy() => {
                write!(f, "the proxy of {} is not there: ", self.target)?;
                proxy
            }
            _ => &self.target,
        };
        if fmt_answer(self, f)? {
            return Ok(());
        }
        match (&self.failure, self.report.attempts.as_slice()) {
            (Failure::Resolve(_), _) => write!(f, "cannot resolve the host of {target}"),
            (Failure::Request(_), _) => write!(f, "the proxy cannot be asked for {target}"),
            (Failure::NoUsableAddress, _) => {
                write!(f, "{target} has no address of the family asked for")
            }
            (Failure::TimedOut(after), []) if matches!(target, Target::Host(..)) => {
                write!(f, "{target} was not resolved within {after:?}")
            }
            (Failure::TimedOut(after), attempts) => {
                write!(f, "cannot connect to {target} within {after:?}")?;
                fmt_attempts(attempts, f)
            }
            // The proxy's answer is told above.
            (Failure::Proxy, _) => write!(f, "cannot connect to {target}"),
            (Failure::AllFailed | Failure::Unix(_), []) => write!(f, "cannot connect to {target}"),
            (Failure::AllFailed | Failure::Unix(_), [only])
                if only.address.to_string() == target.to_string() =>
            {
                write!(f, "cannot connect to {target}: ")?;
                only.fmt_outcome(f)
            }
            (Failure::AllFailed | Failure::Unix(_), attempts) => {
                write!(f, "cannot connect to {target}")?;
                fmt_attempts(attempts, f)
            }
        }
    }
}

fn fmt_attempts(attempts: &[Attempt], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, attempt) in attempts.iter().enumerate() {
        f.write_str(if index == 0 { ": " } else { ", " })?;
        fmt::Display::fmt(attempt, f)?;
    }
    Ok(())
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            Failure::Resolve(error) | Failure::Unix(error) => Some(error),
            Failure::Request(error) => Some(error),
            _ => None,
        }
    }
}
