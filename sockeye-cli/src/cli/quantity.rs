//! Sizes and rates on the command line.

use std::num::{IntErrorKind, NonZeroU64, ParseIntError};
use std::str::FromStr;

/// A number of things of which there has to be one.
pub(crate) fn at_least_one<N: FromStr<Err = ParseIntError>>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|error: ParseIntError| match error.kind() {
            IntErrorKind::Zero => "must be more than 0".to_owned(),
            _ => error.to_string(),
        })
}

/// `64`, `64B`, `16KiB` or `16k`, `1MiB` or `1m`: bytes of a message, always in powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    match size(text)? {
        bytes if bytes <= MOST_BYTES => Ok(bytes as usize),
        _ => Err("a message has 1 GiB at most".to_owned()),
    }
}

const MOST_BYTES: u64 = 1 << 30;

/// `10KiB/s`, or without the `/s`: bytes per second.
pub(crate) fn byte_rate(text: &str) -> Result<NonZeroU64, String> {
    match size(text.strip_suffix("/s").unwrap_or(text))? {
        bytes if bytes <= MOST_BYTES_PER_S => {
            NonZeroU64::new(bytes).ok_or_else(|| "must be more than 0".to_owned())
        }
        _ => Err("64 GiB/s is the most".to_owned()),
    }
}

/// More than any link has.
const MOST_BYTES_PER_S: u64 = 64 << 30;

/// As [`bytes`], without a limit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; write 64, 16KiB or 1MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// `500`, `0.5`, `20k`, `1.5M`: per second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => match text.strip_suffix(['m', 'M']) {
            Some(number) => (number, 1e6),
            None => (text, 1.0),
        },
    };
    let number = number.parse::<f64>().map(|number| number * factor);
    match number {
        // Once in a day, and more than any generator sends.
        Ok(rate) if (1e-5..=1e7).contains(&rate) => Ok(rate),
        Ok(_) => Err("a rate is from 0.00001 to 10M per second".to_owned()),
        Err(_) => Err(format!("'{text}' is not a rate; write 500, 20k or 1.5M")),
    }
}
