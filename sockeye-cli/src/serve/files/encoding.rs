//! Which form of a file a client takes: the file, or what was compressed before and lies beside it. Pure.

/// A compressed form, in the order in which one is preferred.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Encoding {
    /// As `Accept-Encoding` and `Content-Encoding` have it.
    pub(crate) name: &'static str,
    pub(crate) extension: &'static str,
}

const ENCODINGS: [Encoding; 3] = [
    Encoding {
        name: "br",
        extension: "br",
    },
    Encoding {
        name: "zstd",
        extension: "zst",
    },
    Encoding {
        name: "gzip",
        extension: "gz",
    },
];

/// The forms that an `Accept-Encoding` takes (RFC 9110, section 12.5.3), the wanted ones first.
pub(crate) fn accepted(header: &str) -> Vec<Encoding> {
    let mut weighed: Vec<(f32, Encoding)> = ENCODINGS
        .into_iter()
        .filter_map(|encoding| {
            let weight = weight(header, encoding.name)?;
            (weight > 0.0).then_some((weight, encoding))
        })
        .collect();
    // Stable: of what weighs the same the smaller comes first.
    weighed.sort_by(|a, b| b.0.total_cmp(&a.0));
    weighed.into_iter().map(|(_, encoding)| encoding).collect()
}

/// What is said of this coding, else of `*`.
fn weight(header: &str, name: &str) -> Option<f32> {
    let mut of_all = None;
    for item in header.split(',') {
        let (coding, parameter) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameter.trim().strip_prefix("q=");
        let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        match coding.trim() {
            coding if coding.eq_ignore_ascii_case(name) => return Some(weight),
            "*" => of_all = Some(weight),
            _ => {}
        }
    }
    of_all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str) -> Vec<&'static str> {
        accepted(header)
            .iter()
            .map(|encoding| encoding.name)
            .collect()
    }

    #[test]
    fn what_a_client_takes_in_the_order_of_its_wishes() {
        assert_eq!(names("gzip, deflate, br, zstd"), ["br", "zstd", "gzip"]);
        assert_eq!(names("gzip;q=1.0, br;q=0.5"), ["gzip", "br"]);
        assert_eq!(names("GZIP"), ["gzip"]);
        assert_eq!(names("*"), ["br", "zstd", "gzip"]);
        assert_eq!(names("br;q=0, *;q=0.1"), ["zstd", "gzip"]);
        assert_eq!(names("gzip;q=0"), [""; 0]);
        assert_eq!(names("gzip;q=much"), [""; 0]);
        assert_eq!(names("identity"), [""; 0]);
        assert_eq!(names(""), [""; 0]);
    }
}
