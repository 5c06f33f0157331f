//! What a proxy says means the same in every cut, nothing of it can panic or reach a terminal, and no byte beyond it is
//! read.

use sockeye::hop::{Credentials, Destination, HopError, Negotiation, Protocol, Step};

pub(crate) fn check(data: &[u8]) {
    let destination = Destination::Address(([192, 0, 2, 1], 80).into());
    for protocol in Protocol::ALL {
        // SOCKS4 has no password.
        let credentials = Credentials::new("user", "");
        for credentials in [None, Some(&credentials)] {
            let begin = || Negotiation::begin(protocol, &destination, credentials).expect("valid");
            let whole = hold(begin(), data, &[usize::MAX]);
            if let Err(error) = &whole.outcome {
                assert!(!error.to_string().chars().any(char::is_control), "{error}");
            }
            for pieces in [&[1][..], &[2, 3, 5], &pieces_of(data)] {
                assert_eq!(hold(begin(), data, pieces), whole);
            }
            assert_eq!(read_as_needed(begin(), data), whole);
        }
    }
}

/// What came of a conversation.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Found {
    /// Each message of ours.
    pub(crate) said: Vec<Vec<u8>>,
    pub(crate) outcome: Result<(), HopError>,
    /// How much of what came belongs to the conversation, if it ended well.
    pub(crate) used: usize,
}

/// A conversation with a proxy that says these bytes and closes, in pieces of these sizes.
pub(crate) fn hold(
    (negotiation, step): (Negotiation, Step),
    data: &[u8],
    sizes: &[usize],
) -> Found {
    let mut sizes = sizes.iter().cycle();
    converse(negotiation, step, data, |_, left| {
        sizes.next().map_or(left, |size| left.min(*size))
    })
}

/// The same as a reader has it that takes what is needed and no more: all of that must be used.
fn read_as_needed((negotiation, step): (Negotiation, Step), data: &[u8]) -> Found {
    converse(negotiation, step, data, |negotiation, left| {
        let needs = negotiation.needs();
        assert!(needs > 0, "it waits for nothing");
        left.min(needs)
    })
}

fn converse(
    mut negotiation: Negotiation,
    mut step: Step,
    data: &[u8],
    mut size: impl FnMut(&Negotiation, usize) -> usize,
) -> Found {
    let mut found = Found {
        said: Vec::new(),
        outcome: Ok(()),
        used: 0,
    };
    loop {
        match step {
            Step::Open => {
                assert_eq!(negotiation.needs(), 0);
                return found;
            }
            Step::Send(bytes) => found.said.push(bytes),
            Step::Receive => {}
        }
        let rest = &data[found.used..];
        let (needs, size) = (negotiation.needs(), size(&negotiation, rest.len()));
        if rest.is_empty() {
            found.outcome = Err(negotiation.ended());
            found.used = 0;
            return found;
        }
        step = match negotiation.receive(&rest[..size]) {
            Ok((used, step)) => {
                assert!(0 < used && used <= size);
                assert!(used == size || step != Step::Receive);
                assert!(used >= needs.min(size), "less is used than was needed");
                found.used += used;
                step
            }
            Err(error) => {
                assert_eq!(negotiation.receive(b"x"), Err(error.clone()));
                found.outcome = Err(error);
                found.used = 0;
                return found;
            }
        };
    }
}

/// Sizes that depend on the data, so that the fuzzer can look for the cut that matters.
fn pieces_of(data: &[u8]) -> Vec<usize> {
    let sizes = data.iter().rev().take(4);
    sizes
        .map(|byte| usize::from(*byte) + 1)
        .chain([7])
        .collect()
}
