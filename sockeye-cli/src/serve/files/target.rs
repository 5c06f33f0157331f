//! What a request asks for, as a path below the folder that is served. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// A file or folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    /// Relative, and without a segment that is `.` or `..`; empty for the folder that is served.
    pub(crate) path: PathBuf,
    /// It ended in a slash, as the addresses of folders do.
    pub(crate) is_folder: bool,
}

/// Why there is no such target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unusable {
    /// No client that means well asks for it: 400.
    Bad,
    /// What is not shown: 404, as if it were not there.
    Hidden,
}

/// Hidden files are not served; of those this one is for everybody (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

impl Target {
    /// Takes the path of a request target, without its query. Slashes that follow each other are one, as in a file system.
    pub(crate) fn of(path: &str) -> Result<Self, Unusable> {
        let bytes: Vec<u8> = percent_decode_str(path).collect();
        if bytes.first() != Some(&b'/') || bytes.contains(&0) {
            return Err(Unusable::Bad);
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        let segments = bytes.split(|byte| *byte == b'/');
        for segment in segments.filter(|segment| !segment.is_empty() && *segment != b".") {
            match segment {
                // Clients resolve it themselves (RFC 3986, section 5.2.4), so this one does not mean well.
                b".." => return Err(Unusable::Bad),
                WELL_KNOWN if kept.is_empty() => {}
                [b'.', ..] => return Err(Unusable::Hidden),
                _ => {}
            }
            kept.push(segment);
        }
        Ok(Self {
            path: PathBuf::from(OsString::from_vec(kept.join(&b'/'))),
            is_folder: bytes.ends_with(b"/") || bytes.ends_with(b"/."),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn path(target: &str) -> String {
        let target = Target::of(target).expect("usable");
        target.path.to_str().expect("UTF-8 here").to_owned()
    }

    #[test]
    fn slashes_dots_and_escapes_come_to_one_path() {
        assert_eq!(path("/"), "");
        assert_eq!(path("/a/b.txt"), "a/b.txt");
        assert_eq!(path("//a///./b.txt"), "a/b.txt");
        assert_eq!(path("/%61%20b%2Fc"), "a b/c");
        assert_eq!(path("/100%"), "100%");
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_folder() {
        for (target, is_folder) in [("/", true), ("/a/", true), ("/a/.", true), ("/a", false)] {
            assert_eq!(
                Target::of(target).map(|target| target.is_folder),
                Ok(is_folder)
            );
        }
    }

    #[test]
    fn what_leads_out_or_is_no_path_is_bad() {
        for target in [
            "/..",
            "/../a",
            "/a/..",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a/%2e%2e%2fb",
            "/a%00b",
            "a",
            "*",
            "",
        ] {
            assert_eq!(Target::of(target), Err(Unusable::Bad), "{target}");
        }
    }

    #[test]
    fn hidden_files_are_not_there_but_for_the_well_known() {
        for target in ["/.git/config", "/a/.env", "/%2eenv", "/a/.well-known/b"] {
            assert_eq!(Target::of(target), Err(Unusable::Hidden), "{target}");
        }
        assert_eq!(
            path("/.well-known/acme-challenge/x"),
            ".well-known/acme-challenge/x"
        );
    }

    proptest! {
        #[test]
        fn no_text_leads_out_of_the_folder(text in "[/.%a-c0-9eEfF\\\\\u{e9}-]{0,40}") {
            if let Ok(target) = Target::of(&text) {
                prop_assert!(target.path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
