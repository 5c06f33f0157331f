#![no_main]

/// Of the program, which has no library: its files are read from where they are.
#[path = "../../sockeye-cli/src/http"]
mod http {
    mod chunked;
    mod error;
    mod head;
    mod response;

    pub(crate) use self::error::BadResponse;
    pub(crate) use self::response::{Progress, Response, ResponseReader};
}

#[path = "../checks/http.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
