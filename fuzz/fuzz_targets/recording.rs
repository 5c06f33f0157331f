#![no_main]

/// Of the program, which has no library: its files are read from where they are.
#[path = "../../sockeye-cli/src/connect"]
mod connect {
    pub(crate) mod recording;
}

#[path = "../checks/recording.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
