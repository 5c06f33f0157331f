//! The help texts, word for word: golden files in docs/help. `SNAPSHOTS=overwrite cargo test` writes them anew.

use std::path::Path;

use snapbox::{Assert, Data};

use crate::support::{run, sockeye, text};

fn golden(arguments: &[&str], file: &str) -> String {
    let output = run(sockeye(arguments), b"");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let help = text(&output.stdout);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/help")
        .join(file);
    Assert::new()
        .action_env("SNAPSHOTS")
        // A backslash in a help text is no Windows path.
        .normalize_paths(false)
        .eq(help.clone(), Data::read_from(&path, None));
    help
}

#[test]
fn the_help_of_the_program_is_as_documented() {
    golden(&["--help"], "sockeye.txt");
}

#[test]
fn the_help_of_serve_is_as_documented_and_the_short_one_fits_a_screen() {
    golden(&["serve", "--help"], "serve.txt");
    let short = golden(&["serve", "-h"], "serve-short.txt");
    assert!(short.lines().count() <= 45);
}

#[test]
fn the_help_of_connect_is_as_documented_and_the_short_one_fits_a_screen() {
    golden(&["connect", "--help"], "connect.txt");
    let short = golden(&["connect", "-h"], "connect-short.txt");
    assert!(short.lines().count() <= 45);
}

#[test]
fn the_help_of_bench_is_as_documented_and_the_short_one_fits_a_screen() {
    golden(&["bench", "--help"], "bench.txt");
    let short = golden(&["bench", "-h"], "bench-short.txt");
    assert!(short.lines().count() <= 45);
}

#[test]
fn help_is_a_verb_as_well() {
    let help = |arguments: &[&str]| text(&run(sockeye(arguments), b"").stdout);
    assert_eq!(help(&["help"]), help(&["--help"]));
    assert_eq!(help(&["help", "bench"]), help(&["bench", "--help"]));
}

#[test]
fn colour_is_for_terminals_unless_it_is_asked_for() {
    let error = |arguments: &[&str]| text(&run(sockeye(arguments), b"").stderr);
    let plain = error(&["connect", "127.0.0.1:0"]);
    assert!(
        plain.starts_with("error: ") && !plain.contains('\x1b'),
        "{plain}"
    );
    let coloured = error(&["--color", "always", "connect", "127.0.0.1:0"]);
    assert!(coloured.contains("\x1b["), "{coloured}");
}

/// Every option that the help names is used by a test somewhere in this folder: none is there for show.
#[test]
fn every_option_of_the_help_is_used_by_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let tests: String = std::fs::read_dir(folder)
        .expect("the tests are here")
        .map(|entry| std::fs::read_to_string(entry.expect("readable").path()).expect("text"))
        .collect();
    for verb in ["serve", "connect", "bench"] {
        let help = text(&run(sockeye(&[verb, "--help"]), b"").stdout);
        // An option's line is `  -l, --listen <ADDRESS>` or `      --json`; all else is set further in.
        let options: Vec<&str> = help
            .lines()
            .filter(|line| line.starts_with("  -") || line.starts_with("      --"))
            .filter_map(|line| line.split_once("--")?.1.split([' ', '=', '[']).next())
            .collect();
        assert!(options.contains(&"json"), "not parsed: {options:?}");
        let used = |option: &str| {
            let ends = ["\"", "="];
            ends.iter()
                .any(|end| tests.contains(&format!("\"--{option}{end}")))
        };
        let unused: Vec<&&str> = options.iter().filter(|option| !used(option)).collect();
        assert!(unused.is_empty(), "of {verb}: {unused:?}");
    }
}
