//! A small language of conversations, for tests and mocks at either end of a connection: what is sent, what is expected,
//! and what is done then. docs/script.md is its manual.

mod error;
mod failed;
mod flow;
mod line;
mod matcher;
mod parse;
mod quoted;
mod run;
mod syntax;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::exit::Failure;
use crate::script::parse::{SCRIPT_BYTES, parse};
use crate::script::syntax::{Action, Data, Pattern, Step};
use crate::tls_files::read_at_most;

pub(crate) use self::failed::{Failed, Kind};
pub(crate) use self::quoted::Quoted;
pub(crate) use self::run::{Cut, Last, Told, run};
pub(crate) use self::syntax::Statement;
#[cfg(test)]
use self::{
    matcher::{Goal, HELD_BYTES, Held, Matcher, Mismatch, Rest, Search, Verdict},
    run::Wire,
    syntax::Part,
};

/// All files of a script together.
const FILES_BYTES: u64 = 64 * 1024 * 1024;

/// A script with the files that it names, ready to be followed any number of times.
#[derive(Debug, PartialEq)]
pub(crate) struct Script {
    /// The path that it was given by.
    name: String,
    steps: Vec<Step>,
    files: BTreeMap<String, Vec<u8>>,
    /// With the comments, which are counted as lines.
    source: Vec<u8>,
}

impl Script {
    /// Reads a script and all its files.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let source = read_at_most(path, SCRIPT_BYTES as u64)
            .with_context(|| format!("cannot read the script '{name}'"))
            .map_err(Failure::usage)?;
        let steps = parse(&source).map_err(|error| {
            let hint = error.problem.hint();
            let failure = Failure::usage(anyhow!("{name}:{error}"));
            match hint {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            }
        })?;
        let mut script = Self {
            name,
            steps,
            files: BTreeMap::new(),
            source,
        };
        script.files = script.read_files(path.parent().unwrap_or_else(|| Path::new("")))?;
        Ok(script)
    }

    fn read_files(&self, folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let mut named = Vec::new();
        files_of(&self.steps, &mut named);
        let mut files = BTreeMap::new();
        let mut left = FILES_BYTES;
        for (line, name) in named {
            if files.contains_key(name) {
                continue;
            }
            let path = folder.join(name);
            let cannot = || format!("{}:{line}: cannot read '{}'", self.name, path.display());
            let bytes = read_at_most(&path, left).with_context(cannot);
            let bytes = bytes.map_err(Failure::usage)?;
            if bytes.is_empty() {
                let error = anyhow!("{}:{line}: '{}' is empty", self.name, path.display());
                return Err(Failure::usage(error));
            }
            left -= bytes.len() as u64;
            files.insert(name.to_owned(), bytes);
        }
        Ok(files)
    }

    fn file(&self, name: &str) -> &[u8] {
        self.files.get(name).map_or(&[], Vec::as_slice)
    }
}

/// The files that are named, each with the line.
fn files_of<'a>(steps: &'a [Step], named: &mut Vec<(usize, &'a str)>) {
    for step in steps {
        match &step.action {
            Action::Send(Data::File(name)) | Action::Expect(Pattern::Exactly(Data::File(name))) => {
                named.push((step.line, name));
            }
            Action::Loop { body, .. } => files_of(body, named),
            Action::Choose(branches) => {
                for branch in branches {
                    if let Pattern::Exactly(Data::File(name)) = &branch.pattern {
                        named.push((branch.line, name));
                    }
                    files_of(&branch.body, named);
                }
            }
            _ => {}
        }
    }
}
