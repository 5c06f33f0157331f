#![no_main]

/// Of the program, which has no library: its files are read from where they are.
#[allow(dead_code, reason = "what only a connection needs is not checked")]
#[path = "../../sockeye-cli/src/script"]
mod script {
    mod error;
    mod line;
    mod matcher;
    mod parse;
    mod quoted;
    mod syntax;

    pub(crate) use self::matcher::{
        Goal, HELD_BYTES, Held, Matcher, Mismatch, Rest, Search, Verdict,
    };
    pub(crate) use self::parse::{SCRIPT_BYTES, parse};
    pub(crate) use self::syntax::{Action, Data, Part, Pattern, Statement, Step};
}

#[allow(dead_code, reason = "the other times of the command line")]
#[path = "../../sockeye-cli/src/cli"]
mod cli {
    pub(crate) mod time;
}

#[path = "../checks/script.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
