//! The command line of a load: an address, options with a value, flags.

use std::env;
use std::fmt::Display;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// What has not been asked for yet. Each question takes its words away, so that [`Arguments::finish`] finds the
/// unknown ones.
#[derive(Debug)]
pub struct Arguments(Vec<String>);

impl Arguments {
    #[must_use]
    pub fn from_command_line() -> Self {
        Self(env::args().skip(1).collect())
    }

    /// The first word, which is no option.
    pub fn first<T: FromStr<Err: Display>>(&mut self, name: &str) -> io::Result<T> {
        if self.0.is_empty() {
            return Err(usage(format!("{name} is missing")));
        }
        parse(name, &self.0.remove(0))
    }

    pub fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> io::Result<T> {
        self.optional(name)?
            .ok_or_else(|| usage(format!("{name} is missing")))
    }

    pub fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> io::Result<Option<T>> {
        let Some(place) = self.0.iter().position(|word| word == name) else {
            return Ok(None);
        };
        self.0.remove(place);
        if place == self.0.len() {
            return Err(usage(format!("{name} needs a value")));
        }
        parse(name, &self.0.remove(place)).map(Some)
    }

    /// A time in seconds.
    pub fn seconds(&mut self, name: &str, otherwise: f64) -> io::Result<Duration> {
        let seconds = self.optional(name)?.unwrap_or(otherwise);
        Duration::try_from_secs_f64(seconds).map_err(|error| usage(format!("{name}: {error}")))
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| word != name);
        self.0.len() < before
    }

    pub fn finish(self) -> io::Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => Err(usage(format!("{word} is not an option"))),
        }
    }
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|error| usage(format!("{name} {text}: {error}")))
}

/// A wrong command line.
pub fn usage(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
