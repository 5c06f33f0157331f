//! Figures as people read them: thousands apart, units that fit, a dash for what is not known.

use serde_json::Value;

use crate::bench::threshold::shown_us;

/// What is not known.
pub(crate) const UNKNOWN: &str = "–";

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number that need not be whole: three digits, or all those before the point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => UNKNOWN.to_owned(),
        size if size >= 99.5 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", count(size.round() as u64))
        }
        size if size >= 9.95 => trimmed(value, 1),
        size if size >= 0.01 || value == 0.0 => trimmed(value, 2),
        _ => trimmed(value, 5),
    }
}

/// `9,998/s`.
pub(crate) fn per_s(rate: f64) -> String {
    format!("{}/s", number(rate))
}

/// Bytes, in powers of 1000, as lines and disks are counted.
pub(crate) fn bytes(bytes: f64) -> String {
    let (value, unit) = match bytes {
        _ if bytes >= 999.5e6 => (bytes / 1e9, "GB"),
        _ if bytes >= 999.5e3 => (bytes / 1e6, "MB"),
        _ if bytes >= 999.5 => (bytes / 1e3, "kB"),
        _ => (bytes, "B"),
    };
    format!("{} {unit}", number(value))
}

/// `12.5 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// A time in microseconds, if it is known.
pub(crate) fn time(us: Option<f64>) -> String {
    match us {
        Some(us) if us.is_finite() => shown_us(us),
        _ => UNKNOWN.to_owned(),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}

/// A field of what was asked for as the option that asked for it, and its value: the unit at the end of the field's name
/// goes to the value.
pub(crate) fn option(field: &str, value: &Value) -> (String, String) {
    let (name, show): (&str, fn(f64) -> String) = match field {
        _ if field.ends_with("_per_s") => (field.trim_end_matches("_per_s"), per_s),
        _ if field.ends_with("_ms") => (field.trim_end_matches("_ms"), |ms| shown_us(ms * 1e3)),
        _ if field.ends_with("_us") => (field.trim_end_matches("_us"), shown_us),
        _ if field.ends_with("_bytes") => (field.trim_end_matches("_bytes"), |bytes| {
            format!("{} B", number(bytes))
        }),
        // It names a sequence and is no amount.
        "seed" => (field, |seed| format!("{seed:.0}")),
        _ => (field, number),
    };
    let shown = match value {
        Value::Null => UNKNOWN.to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        // As a float the last digits of a seed would be lost.
        Value::Number(seed) if field == "seed" => seed.to_string(),
        Value::Number(value) => value.as_f64().map_or_else(|| value.to_string(), show),
        other => other.to_string(),
    };
    (format!("--{}", name.replace('_', "-")), shown)
}

/// At most so many digits behind the point, without zeros at the end.
pub(crate) fn trimmed(value: f64, digits: usize) -> String {
    let shown = format!("{value:.digits$}");
    if !shown.contains('.') {
        return shown;
    }
    shown.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_their_thousands_apart() {
        let shown = [0.0, 0.5, 1.0, 12.34, 99.96, 1234.6, 1e9].map(number);
        let expected = ["0", "0.5", "1", "12.3", "100", "1,235", "1,000,000,000"];
        assert_eq!(shown, expected);
        assert_eq!(number(f64::NAN), UNKNOWN);
        assert_eq!(number(-1234.6), "-1,235");
        assert_eq!(number(0.000_01), "0.00001");
    }

    #[test]
    fn bytes_take_the_unit_that_fits() {
        let shown = [0.0, 999.0, 1000.0, 1.5e6, 2e9].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1 kB", "1.5 MB", "2 GB"]);
    }

    #[test]
    fn a_field_that_was_asked_for_is_shown_as_its_option() {
        let shown = |field, value| {
            let (name, value) = option(field, &value);
            format!("{name} {value}")
        };
        assert_eq!(shown("rate_per_s", json!(20000.0)), "--rate 20,000/s");
        assert_eq!(shown("duration_ms", json!(10000.0)), "--duration 10.0 s");
        assert_eq!(shown("size_bytes", json!(1_048_576)), "--size 1,048,576 B");
        assert_eq!(shown("tls", json!(true)), "--tls yes");
        assert_eq!(shown("messages", Value::Null), "--messages –");
        let seed = u64::MAX;
        assert_eq!(shown("seed", json!(seed)), format!("--seed {seed}"));
    }
}
