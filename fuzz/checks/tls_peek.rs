//! What is seen of a ClientHello is the same for every cut, and the same that rustls sees.

use rustls::server::Acceptor;
use sockeye::tls_peek::{Guess, Peek, peek};

pub(crate) fn check(data: &[u8]) {
    let whole = peek(data);
    for held in 0..data.len().min(1_000) {
        match peek(&data[..held]) {
            Peek::Incomplete { at_least } => assert!(at_least > held),
            decided => assert_eq!(decided, whole, "decided after {held} bytes"),
        }
    }
    // Only for people, but it must not panic, and can be shown.
    assert!(!Guess::of(data).to_string().is_empty());
    check_against_rustls(data, &whole);
}

/// Each is stricter than the other somewhere: rustls has to answer a hello, and we want a version to begin with 3, as all
/// have it (RFC 8446, section 4.1.2). Of those that both take they say the same.
fn check_against_rustls(data: &[u8], whole: &Peek) {
    let mut acceptor = Acceptor::default();
    let mut rest = data;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(1..) => {}
            _ => return,
        }
        match acceptor.accept() {
            Ok(None) => {}
            Err(_) => return,
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let seen = match whole {
                    Peek::ClientHello(seen) => seen,
                    Peek::Invalid(_) => return,
                    other => panic!("rustls has read a hello, and we say {other:?}"),
                };
                let name = hello.server_name().map(str::to_ascii_lowercase);
                assert_eq!(seen.server_name, name);
                let alpn: Vec<Vec<u8>> = hello
                    .alpn()
                    .into_iter()
                    .flatten()
                    .map(<[u8]>::to_vec)
                    .collect();
                assert_eq!(seen.alpn, alpn);
                return;
            }
        }
    }
}
