//! A script from its text. Pure: files are named in it and not read here.
//!
//! Blocks are told by indentation, as people read them: what belongs to a `loop` or an `on` stands further in.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};

use crate::script::error::{DATA, PATTERN, ParseError, Problem};
use crate::script::line::Line;
use crate::script::syntax::{Action, Branch, Data, Part, Pattern, Step, Text};

/// The largest script. Long data is for files.
pub(crate) const SCRIPT_BYTES: usize = 256 * 1024;

/// Statements in a script, branches among them.
const STEPS: usize = 1000;

/// Blocks within blocks.
const DEPTH: usize = 16;

/// Names that are captured under.
const CAPTURES: usize = 32;

/// Rounds of a loop with an end.
const ROUNDS: u32 = 1_000_000;

/// Reads a script.
pub(crate) fn parse(script: &[u8]) -> Result<Vec<Step>, ParseError> {
    let nowhere = |problem| ParseError {
        line: 1,
        column: 1,
        problem,
        text: String::new(),
    };
    if script.len() > SCRIPT_BYTES {
        return Err(nowhere(Problem::TooLarge(SCRIPT_BYTES)));
    }
    let text = str::from_utf8(script).map_err(|error| not_utf8(script, error.valid_up_to()))?;
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = Line::new(index + 1, text);
        if let Some(indent) = line.indent()? {
            lines.push((indent, line));
        }
    }
    let mut parser = Parser {
        lines: &lines,
        steps: 0,
        captures: BTreeSet::new(),
        loops: 0,
    };
    let steps = parser.block(0, 0)?;
    if steps.is_empty() {
        return Err(nowhere(Problem::Empty));
    }
    Ok(steps)
}

/// Where the first byte stands that is no text.
fn not_utf8(script: &[u8], at: usize) -> ParseError {
    let before = String::from_utf8_lossy(&script[..at]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    ParseError {
        line: before.matches('\n').count() + 1,
        column: line.chars().count() + 1,
        problem: Problem::NotUtf8,
        text: line.to_owned(),
    }
}

struct Parser<'a> {
    /// Those that are left, with their indentation.
    lines: &'a [(usize, Line<'a>)],
    steps: usize,
    /// Names that something above captures under.
    captures: BTreeSet<String>,
    /// How many loops are around.
    loops: usize,
}

impl<'a> Parser<'a> {
    /// All lines that stand this far in, with what stands further in below them.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Vec<Step>, ParseError> {
        let mut steps: Vec<Step> = Vec::new();
        while let Some((here, mut line)) = self.lines.first().copied() {
            if here < indent {
                break;
            }
            line.peek();
            if here > indent {
                return Err(line.fault(Problem::Indented));
            }
            if depth > DEPTH {
                return Err(line.fault(Problem::TooDeep(DEPTH)));
            }
            self.lines = &self.lines[1..];
            if let Some(problem) = out_of_place(&steps, &line) {
                return Err(line.fault(problem));
            }
            self.count(&line)?;
            if line.takes("on") {
                let branch = self.branch(line, indent, depth)?;
                match steps.last_mut().map(|step| &mut step.action) {
                    Some(Action::Choose(branches)) => branches.push(branch),
                    _ => steps.push(Step {
                        line: line.number,
                        action: Action::Choose(vec![branch]),
                    }),
                }
            } else if line.takes("loop") {
                steps.push(self.repetition(line, indent, depth)?);
            } else {
                steps.push(self.simple(&mut line)?);
            }
        }
        Ok(steps)
    }

    fn count(&mut self, line: &Line<'_>) -> Result<(), ParseError> {
        self.steps += 1;
        if self.steps > STEPS {
            return Err(line.fault(Problem::TooManySteps(STEPS)));
        }
        Ok(())
    }

    /// What stands further in below a line.
    fn below(
        &mut self,
        line: Line<'_>,
        indent: usize,
        depth: usize,
    ) -> Result<Vec<Step>, ParseError> {
        match self.lines.first() {
            Some((below, _)) if *below > indent => self.block(*below, depth + 1),
            _ => Err(line.fault(Problem::NoBlock)),
        }
    }

    /// `on PATTERN`, and one statement on the same line or more below it.
    fn branch(
        &mut self,
        mut line: Line<'a>,
        indent: usize,
        depth: usize,
    ) -> Result<Branch, ParseError> {
        let number = line.number;
        let pattern = self.pattern(&mut line)?;
        let body = match line.peek() {
            None => self.below(line, indent, depth)?,
            Some(_) => {
                for block in ["on", "loop"] {
                    if line.begins(block) {
                        return Err(line.fault(Problem::NeedsBlock(block)));
                    }
                }
                self.count(&line)?;
                vec![self.simple(&mut line)?]
            }
        };
        Ok(Branch {
            line: number,
            pattern,
            body,
        })
    }

    fn repetition(
        &mut self,
        mut line: Line<'a>,
        indent: usize,
        depth: usize,
    ) -> Result<Step, ParseError> {
        let number = line.number;
        let rounds = match line.peek() {
            None => None,
            Some(_) => {
                let start = line;
                let word = line.word();
                let rounds = word.parse().ok().and_then(NonZeroU32::new);
                let rounds = rounds.filter(|rounds| rounds.get() <= ROUNDS);
                let bad = || start.fault(Problem::BadRounds(word.to_owned()));
                Some(rounds.ok_or_else(bad)?)
            }
        };
        line.finish()?;
        self.loops += 1;
        let body = self.below(line, indent, depth)?;
        self.loops -= 1;
        if rounds.is_none() && !expects(&body) {
            return Err(line.fault_of_all(Problem::EndlessLoop));
        }
        Ok(Step {
            line: number,
            action: Action::Loop { rounds, body },
        })
    }

    /// A statement that is one line.
    fn simple(&mut self, line: &mut Line<'a>) -> Result<Step, ParseError> {
        line.peek();
        let start = *line;
        let word = line.word();
        let action = match word {
            "send" => Action::Send(self.data(line, DATA)?),
            "expect" if line.takes("nothing") => {
                if !line.takes("for") {
                    line.peek();
                    return Err(line.fault(Problem::Expected("'for' and a time")));
                }
                Action::ExpectNothing(line.time()?)
            }
            "expect" => Action::Expect(self.pattern(line)?),
            "delay" => Action::Delay(line.time()?),
            "timeout" => Action::Timeout(line.time()?),
            "break" if self.loops == 0 => return Err(start.fault(Problem::NoLoop("break"))),
            "continue" if self.loops == 0 => return Err(start.fault(Problem::NoLoop("continue"))),
            "break" => Action::Break,
            "continue" => Action::Continue,
            "shutdown" => Action::Shutdown,
            "close" => Action::Close,
            "reset" => Action::Reset,
            _ => {
                let word = match word {
                    "" => line.peek().map_or_else(String::new, String::from),
                    word => word.to_owned(),
                };
                return Err(start.fault(Problem::UnknownStatement(word)));
            }
        };
        line.finish()?;
        Ok(Step {
            line: line.number,
            action,
        })
    }

    /// `"TEXT"`, `hex 0d0a` or `file "NAME"`.
    fn data(&self, line: &mut Line<'a>, what: &'static str) -> Result<Data, ParseError> {
        if line.peek() == Some('"') {
            Ok(Data::Text(self.text(line)?))
        } else if line.takes("hex") {
            Ok(Data::Hex(line.hex()?))
        } else if line.takes("file") {
            Ok(Data::File(line.name()?))
        } else {
            Err(line.fault(Problem::Expected(what)))
        }
    }

    /// A text that says something, with captures that there can be.
    fn text(&self, line: &mut Line<'a>) -> Result<Text, ParseError> {
        let start = *line;
        let text = line.text()?;
        if text.parts().is_empty() {
            return Err(start.fault(Problem::EmptyText));
        }
        for part in text.parts() {
            if let Part::Capture(name) = part
                && !self.captures.contains(name)
            {
                return Err(start.fault(Problem::UnknownCapture(name.clone())));
            }
        }
        Ok(text)
    }

    fn pattern(&mut self, line: &mut Line<'a>) -> Result<Pattern, ParseError> {
        if line.peek() == Some('/') {
            return Err(line.fault(Problem::BareExpression));
        }
        let start = *line;
        if line.takes("line") {
            if line.peek() != Some('/') {
                return Ok(Pattern::Line(None));
            }
            let expression = line.expression()?;
            self.captures
                .extend(expression.names().map(ToOwned::to_owned));
            if self.captures.len() > CAPTURES {
                return Err(start.fault(Problem::TooManyCaptures(CAPTURES)));
            }
            Ok(Pattern::Line(Some(expression)))
        } else if line.takes("until") {
            match line.peek() {
                Some('"') => Ok(Pattern::Until(self.text(line)?)),
                _ => Err(line.fault(Problem::Expected("a text in quotes"))),
            }
        } else if line.takes("close") {
            Ok(Pattern::Close)
        } else if line.takes("reset") {
            Ok(Pattern::Reset)
        } else if let Ok(count) = line.word().parse::<NonZeroU64>() {
            if line.takes("bytes") || line.takes("byte") {
                Ok(Pattern::Bytes(count))
            } else {
                line.peek();
                Err(line.fault(Problem::Expected("'bytes'")))
            }
        } else {
            *line = start;
            self.data(line, PATTERN).map(Pattern::Exactly)
        }
    }
}

/// What is wrong with this line after these.
fn out_of_place(steps: &[Step], line: &Line<'_>) -> Option<Problem> {
    let before = match steps.last()?.action {
        Action::Break => Some("break"),
        Action::Continue => Some("continue"),
        Action::Close => Some("close"),
        Action::Reset => Some("reset"),
        _ => None,
    };
    if before.is_some() {
        return before.map(Problem::Unreachable);
    }
    let shut = || {
        let mut before = steps.iter();
        before.any(|step| step.action == Action::Shutdown)
    };
    (line.begins("send") && shut()).then_some(Problem::SendAfterShutdown)
}

/// Whether it waits for the peer in every round.
fn expects(body: &[Step]) -> bool {
    body.iter().any(|step| match &step.action {
        Action::Expect(_) | Action::ExpectNothing(_) | Action::Choose(_) => true,
        Action::Loop { body, .. } => expects(body),
        _ => false,
    })
}
