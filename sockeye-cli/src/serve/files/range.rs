//! Which parts of a file are asked for (RFC 9110, section 14). Pure.

use std::ops::Range;

/// What is to be sent of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Parts {
    All,
    /// At least one, none of them empty, as they were asked for.
    Some(Vec<Range<u64>>),
    /// 416.
    None,
}

/// More are not worth their heads: all of it is sent.
const MOST_RANGES: usize = 32;

/// Reads a `Range` header. What is no range of bytes is as if it were not there, as the RFC has it; and so is what would
/// come to more bytes than there are (CVE-2011-3192).
pub(crate) fn parts(header: &str, length: u64) -> Parts {
    let Some((unit, specs)) = header.split_once('=') else {
        return Parts::All;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || specs.split(',').count() > MOST_RANGES {
        return Parts::All;
    }
    let mut ranges = Vec::new();
    for spec in specs.split(',').map(str::trim) {
        match range(spec, length) {
            Some(range) if !range.is_empty() => ranges.push(range),
            Some(_) => {}
            None => return Parts::All,
        }
    }
    let sum = ranges.iter().map(|range| range.end - range.start);
    match sum.fold(0, u64::saturating_add) {
        0 => Parts::None,
        sum if sum > length => Parts::All,
        _ => Parts::Some(ranges),
    }
}

/// One range: empty if nothing of it is there, `None` if it is none.
fn range(spec: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        // The last so many.
        (true, false) => Some(length.saturating_sub(number(last)?)..length),
        (false, true) => Some(number(first)?.min(length)..length),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            let end = last.saturating_add(1).min(length);
            (first <= last).then_some(first.min(end)..end)
        }
    }
}

/// More than a file can have is as good as that.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some(ranges: &[Range<u64>]) -> Parts {
        Parts::Some(ranges.to_vec())
    }

    #[test]
    fn the_forms_of_the_rfc() {
        for (header, expected) in [
            ("bytes=0-499", some(&[0..500])),
            ("bytes=500-999", some(&[500..1000])),
            ("bytes=-500", some(&[500..1000])),
            ("bytes=9000-", Parts::None),
            ("bytes=990-", some(&[990..1000])),
            ("bytes=990-2000", some(&[990..1000])),
            ("bytes=-2000", some(&[0..1000])),
            ("bytes=0-0,-1", some(&[0..1, 999..1000])),
            ("bytes= 0-0 , 5-6", some(&[0..1, 5..7])),
            ("BYTES=0-0", some(&[0..1])),
            ("bytes=1000-1001,1-1", some(&[1..2])),
            ("bytes=0-99999999999999999999999", some(&[0..1000])),
        ] {
            assert_eq!(parts(header, 1000), expected, "{header}");
        }
    }

    #[test]
    fn what_is_no_range_is_as_if_it_were_not_there() {
        for header in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=1-2-3",
            "bytes=1",
            "lines=0-1",
            "bytes=0-1,",
            "bytes=+1-2",
            "bytes=0x1-2",
        ] {
            assert_eq!(parts(header, 1000), Parts::All, "{header}");
        }
    }

    #[test]
    fn more_than_the_file_has_is_all_of_it() {
        assert_eq!(parts("bytes=0-,0-,0-", 1000), Parts::All);
        let many = format!("bytes={}", vec!["0-0"; 33].join(","));
        assert_eq!(parts(&many, 1000), Parts::All);
    }

    #[test]
    fn of_an_empty_file_there_is_no_part() {
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"] {
            assert_eq!(parts(header, 0), Parts::None, "{header}");
        }
        assert_eq!(parts("bytes=-0", 1000), Parts::None);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_lies_in_the_file(
            header in "(bytes=)?[0-9, -]{0,60}",
            length in 0_u64..3000,
        ) {
            if let Parts::Some(ranges) = parts(&header, length) {
                let sum: u64 = ranges.iter().map(|range| range.end - range.start).sum();
                prop_assert!(sum <= length && !ranges.is_empty());
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
            }
        }
    }
}
