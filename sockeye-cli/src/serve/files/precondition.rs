//! Whether a request wants what there is (RFC 9110, section 13). Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headers::{
    ETag, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince,
};
use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

use crate::serve::files::range::{Parts, parts};
use crate::serve::files::tree::About;

/// By what a client tells one state of a file from another.
#[derive(Clone, Debug)]
pub(crate) struct Validators {
    pub(crate) etag: ETag,
    /// `None` if no date of HTTP can tell it: before 1970, after 9999.
    pub(crate) modified: Option<SystemTime>,
}

/// What is to be answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Send(Parts),
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Validators {
    /// From time and size, to the nanosecond: a file that is written anew has another one.
    pub(crate) fn of(about: &About) -> Self {
        let since = about
            .modified
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let etag = format!("\"{:x}-{:x}\"", since.as_nanos(), about.bytes);
        Self {
            etag: etag
                .parse()
                .unwrap_or_else(|_| unreachable!("only hexadecimal digits")),
            modified: about
                .modified
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| (since < YEAR_10000).then_some(about.modified)),
        }
    }

    /// For a request that gets something: GET or HEAD.
    pub(crate) fn verdict(&self, headers: &HeaderMap, length: u64, is_get: bool) -> Verdict {
        if !self.matches(headers) {
            return Verdict::Failed;
        }
        let not_modified = match headers.typed_get::<IfNoneMatch>() {
            Some(tags) => !tags.precondition_passes(&self.etag),
            // A date counts only where no tags are named, even if those cannot be read.
            None if headers.contains_key(IF_NONE_MATCH) => false,
            None => headers
                .typed_get::<IfModifiedSince>()
                .zip(self.modified)
                .is_some_and(|(since, modified)| !since.is_modified(modified)),
        };
        if not_modified {
            return Verdict::NotModified;
        }
        let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
        // A range of something that has no body is nothing.
        Verdict::Send(match range {
            Some(range) if is_get && self.is_that_of_the_part(headers) => parts(range, length),
            _ => Parts::All,
        })
    }

    /// Whether it is still what the client has a part of. A date has to be the one that was told, to the second, and what cannot
    /// be read is no state of it (RFC 9110, section 13.1.5).
    fn is_that_of_the_part(&self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(IF_RANGE) {
            return true;
        }
        headers.typed_get::<IfRange>().is_some_and(|range| {
            !range.is_modified(Some(&self.etag), None)
                || self.modified.map(IfRange::date) == Some(range)
        })
    }

    /// For a request that puts something in its place.
    pub(crate) fn passes_for_change(&self, headers: &HeaderMap) -> bool {
        let none_match = headers.typed_get::<IfNoneMatch>();
        self.matches(headers) && none_match.is_none_or(|tags| tags.precondition_passes(&self.etag))
    }

    /// Whether it is what the client thinks it is.
    fn matches(&self, headers: &HeaderMap) -> bool {
        match headers.typed_get::<IfMatch>() {
            Some(tags) => tags.precondition_passes(&self.etag),
            None => headers
                .typed_get::<IfUnmodifiedSince>()
                .zip(self.modified)
                .is_none_or(|(since, modified)| since.precondition_passes(modified)),
        }
    }
}

/// The years of a date have four digits (RFC 9110, section 5.6.7).
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const ETAG: &str = "\"7e8-64\"";
    const DATE: &str = "Thu, 01 Jan 1970 00:00:02 GMT";
    const BEFORE: &str = "Thu, 01 Jan 1970 00:00:01 GMT";
    const AFTER: &str = "Thu, 01 Jan 1970 00:00:03 GMT";

    fn verdict(given: &[(&'static str, &str)]) -> Verdict {
        let about = About {
            bytes: 100,
            // More than a date can tell.
            modified: UNIX_EPOCH + Duration::from_nanos(2024) + Duration::from_secs(0),
        };
        let validators = Validators {
            modified: Some(UNIX_EPOCH + Duration::from_millis(2500)),
            ..Validators::of(&about)
        };
        assert_eq!(validators.etag, ETAG.parse().expect("a tag"));
        let headers: HeaderMap = given
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).expect("a value");
                (HeaderName::from_static(name), value)
            })
            .collect();
        validators.verdict(&headers, 100, true)
    }

    const ALL: Verdict = Verdict::Send(Parts::All);

    #[test]
    fn each_precondition_alone() {
        for (name, value, expected) in [
            ("if-none-match", ETAG, Verdict::NotModified),
            ("if-none-match", "\"x\", W/\"7e8-64\"", Verdict::NotModified),
            ("if-none-match", "*", Verdict::NotModified),
            ("if-none-match", "\"x\"", ALL),
            ("if-modified-since", DATE, Verdict::NotModified),
            ("if-modified-since", AFTER, Verdict::NotModified),
            ("if-modified-since", BEFORE, ALL),
            ("if-modified-since", "yesterday", ALL),
            ("if-match", ETAG, ALL),
            ("if-match", "*", ALL),
            ("if-match", "\"x\"", Verdict::Failed),
            ("if-match", "W/\"7e8-64\"", Verdict::Failed),
            ("if-unmodified-since", DATE, ALL),
            ("if-unmodified-since", BEFORE, Verdict::Failed),
        ] {
            assert_eq!(verdict(&[(name, value)]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn a_time_that_no_date_tells_is_none() {
        for (modified, is_told) in [
            (UNIX_EPOCH - Duration::from_secs(1), false),
            (UNIX_EPOCH, true),
            (UNIX_EPOCH + YEAR_10000 - Duration::from_secs(1), true),
            (UNIX_EPOCH + YEAR_10000, false),
        ] {
            let about = About { bytes: 0, modified };
            let told = Validators::of(&about).modified;
            assert_eq!(told, is_told.then_some(modified), "{modified:?}");
        }
    }

    #[test]
    fn tags_count_before_dates() {
        let since = ("if-modified-since", DATE);
        assert_eq!(verdict(&[("if-none-match", "\"x\""), since]), ALL);
        assert_eq!(verdict(&[("if-none-match", "x"), since]), ALL);
        let unmodified = ("if-unmodified-since", BEFORE);
        assert_eq!(verdict(&[("if-match", ETAG), unmodified]), ALL);
        let failed = verdict(&[("if-match", "\"x\""), ("if-none-match", ETAG)]);
        assert_eq!(failed, Verdict::Failed);
    }

    #[test]
    fn a_range_is_of_the_state_that_the_client_has_a_part_of() {
        let range = ("range", "bytes=0-9");
        let part = Verdict::Send(Parts::Some(vec![0..10]));
        assert_eq!(verdict(&[range]), part);
        assert_eq!(verdict(&[range, ("if-range", ETAG)]), part);
        assert_eq!(verdict(&[range, ("if-range", DATE)]), part);
        for other in ["\"x\"", "W/\"7e8-64\"", BEFORE, AFTER, "yesterday", ""] {
            assert_eq!(verdict(&[range, ("if-range", other)]), ALL, "{other}");
        }
        assert_eq!(
            verdict(&[range, ("if-none-match", ETAG)]),
            Verdict::NotModified
        );
    }
}
