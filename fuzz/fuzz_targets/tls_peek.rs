#![no_main]

#[path = "../checks/tls_peek.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
