//! Who is let in, on the command line.

use std::time::Duration;

use sockeye::admission::{Handshakes, Rate};
use sockeye::rules::TrustedProxies;

/// `10/s`, `600/min`, `100/h,burst=20`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let forms = || "write N/s, N/min or N/h, and perhaps ,burst=M after it".to_owned();
    let (steady, burst) = match text.split_once(',') {
        None => (text, None),
        Some((steady, burst)) => (
            steady,
            Some(burst.strip_prefix("burst=").ok_or_else(forms)?),
        ),
    };
    let (accepts, unit) = steady.split_once('/').ok_or_else(forms)?;
    let per = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err(forms()),
    };
    let accepts = count(accepts)?;
    Ok(Rate {
        accepts,
        per: Duration::from_secs(per),
        burst: burst.map_or(Ok(accepts), count)?,
    })
}

fn count(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("'{text}' is not a number from 1 to {}", u32::MAX))
}

/// `N`, or `START:PERCENT:FULL` as sshd_config(5) has it.
pub(crate) fn handshakes(text: &str) -> Result<Handshakes, String> {
    let forms = || "write N, or START:PERCENT:FULL".to_owned();
    let number = |text: &str| count(text).map(|number| number as usize);
    let parts: Vec<&str> = text.split(':').collect();
    let [start, percent, full] = parts[..] else {
        return match parts[..] {
            [full] => number(full).map(Handshakes::at_most),
            _ => Err(forms()),
        };
    };
    let handshakes = Handshakes {
        start: number(start)?,
        percent: percent.parse().map_err(|_| forms())?,
        full: number(full)?,
    };
    if handshakes.percent > 100 {
        return Err("PERCENT is at most 100".to_owned());
    }
    if handshakes.start > handshakes.full {
        return Err("START is at most FULL".to_owned());
    }
    Ok(handshakes)
}

/// `from=10.0.0.0/8,192.0.2.1,unix`.
pub(crate) fn trusted_proxies(text: &str) -> Result<TrustedProxies, String> {
    let forms = || "write from=NETWORK[,NETWORK...], or unix in the place of a NETWORK".to_owned();
    let mut trusted = TrustedProxies::default();
    for network in text.strip_prefix("from=").ok_or_else(forms)?.split(',') {
        if network == "unix" {
            trusted.unix = true;
        } else {
            let network = network
                .parse()
                .map_err(|error| format!("'{network}': {error}"))?;
            trusted.networks.push(network);
        }
    }
    Ok(trusted)
}
