//! The small services of the early Internet: each is whole, useful for testing, and short enough to be read as an
//! example.

mod chargen;
mod daytime;
mod discard;
mod echo;
mod time;

pub use chargen::{Chargen, chargen};
pub use daytime::{Daytime, daytime};
pub use discard::{Discard, discard};
pub use echo::{Echo, echo};
pub use time::{Time, time};
