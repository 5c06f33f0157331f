//! Times on the command line.

use std::time::Duration;

/// A time limit that can be switched off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

/// `500ms`, `10s`, `1m30s`; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write 500ms, 10s or 1m30s"))?,
    };
    if duration > LONGEST {
        return Err("more than 10 years".to_owned());
    }
    Ok(duration)
}

/// Well below what the arithmetic of clocks can take.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// As [`duration`], or `off`; 0 is off, too.
pub(crate) fn timeout(text: &str) -> Result<Timeout, String> {
    if text == "off" {
        return Ok(Timeout(None));
    }
    let duration = duration(text)?;
    Ok(Timeout((!duration.is_zero()).then_some(duration)))
}
