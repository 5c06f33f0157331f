//! Which statement is next: blocks, loops and branches. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::script::syntax::{Action, Step};

/// How long a statement waits for the peer unless `timeout` says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// The blocks that are being run, the innermost last.
#[derive(Debug)]
pub(crate) struct Flow<'a> {
    blocks: Vec<Block<'a>>,
}

#[derive(Debug)]
struct Block<'a> {
    steps: &'a [Step],
    next: usize,
    rounds: Rounds,
    /// What holds at the beginning of each round, and what holds now.
    timeout_around: Duration,
    timeout: Duration,
    /// Bytes that had been consumed when the round began.
    began_at: u64,
}

#[derive(Debug)]
enum Rounds {
    /// The script itself, or a branch: no loop.
    Once,
    Left(u32),
    /// Until the peer closes.
    Endless,
}

/// How far the stream has been consumed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) consumed: u64,
    /// The peer has closed, and all that came is consumed.
    pub(crate) at_end: bool,
}

impl<'a> Flow<'a> {
    pub(crate) fn new(steps: &'a [Step]) -> Self {
        let mut flow = Self { blocks: Vec::new() };
        flow.enter(steps, Rounds::Once, 0);
        flow
    }

    fn enter(&mut self, steps: &'a [Step], rounds: Rounds, consumed: u64) {
        let timeout = self.timeout();
        self.blocks.push(Block {
            steps,
            next: 0,
            rounds,
            timeout_around: timeout,
            timeout,
            began_at: consumed,
        });
    }

    /// Goes into the branch that was chosen.
    pub(crate) fn branch(&mut self, body: &'a [Step]) {
        // Only the rounds of endless loops ask where they began.
        self.enter(body, Rounds::Once, 0);
    }

    pub(crate) fn repeat(&mut self, rounds: Option<NonZeroU32>, body: &'a [Step], consumed: u64) {
        let rounds = rounds.map_or(Rounds::Endless, |rounds| Rounds::Left(rounds.get()));
        self.enter(body, rounds, consumed);
    }

    /// The next statement; `None` at the end of the script.
    pub(crate) fn next(&mut self, position: Position) -> Option<&'a Step> {
        loop {
            let block = self.blocks.last_mut()?;
            if let Some(step) = block.steps.get(block.next) {
                block.next += 1;
                return Some(step);
            }
            let again = match &mut block.rounds {
                Rounds::Once => false,
                Rounds::Endless => !position.at_end,
                Rounds::Left(rounds) => {
                    *rounds -= 1;
                    *rounds > 0
                }
            };
            if again {
                block.next = 0;
                block.timeout = block.timeout_around;
                block.began_at = position.consumed;
            } else {
                self.blocks.pop();
            }
        }
    }

    /// Whether the next statement begins another round of an endless loop in which nothing is expected first.
    pub(crate) fn begins_round_unseeing(&self) -> bool {
        for block in self.blocks.iter().rev() {
            match block.rounds {
                _ if block.next < block.steps.len() => return false,
                Rounds::Once | Rounds::Left(..=1) => {}
                Rounds::Left(_) => return false,
                Rounds::Endless => return begins_unseeing(block.steps),
            }
        }
        false
    }

    /// Ends the innermost loop.
    pub(crate) fn leave_loop(&mut self) {
        self.leave_branches();
        self.blocks.pop();
    }

    /// Ends the round of the innermost loop.
    pub(crate) fn end_round(&mut self) {
        self.leave_branches();
        if let Some(block) = self.blocks.last_mut() {
            block.next = block.steps.len();
        }
    }

    /// The parser lets `break` and `continue` stand only within loops.
    fn leave_branches(&mut self) {
        let is_loop = |block: &Block<'_>| !matches!(block.rounds, Rounds::Once);
        let innermost = self.blocks.iter().rposition(is_loop);
        self.blocks.truncate(innermost.map_or(0, |index| index + 1));
    }

    /// What holds for the statement that was last told.
    pub(crate) fn timeout(&self) -> Duration {
        self.blocks.last().map_or(TIMEOUT, |block| block.timeout)
    }

    /// Changes it for what stands below in the same block.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        if let Some(block) = self.blocks.last_mut() {
            block.timeout = timeout;
        }
    }

    /// The peer has closed where something was expected. If nothing had come in this round of the innermost endless loop
    /// this is the end of the loop, and no failure.
    #[must_use]
    pub(crate) fn ends_loop(&mut self, consumed: u64) -> bool {
        let mut blocks = self.blocks.iter();
        let innermost = blocks.rposition(|block| matches!(block.rounds, Rounds::Endless));
        match innermost {
            Some(index) if self.blocks[index].began_at == consumed => {
                self.blocks.truncate(index);
                true
            }
            _ => false,
        }
    }
}

/// Whether these statements begin with one that would not notice that the peer has closed. Who expects something does, and
/// may expect just that.
pub(crate) fn begins_unseeing(steps: &[Step]) -> bool {
    !matches!(
        steps.first().map(|step| &step.action),
        Some(Action::Expect(_) | Action::ExpectNothing(_) | Action::Choose(_))
    )
}
