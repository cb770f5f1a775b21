//! What is counted of requests that are sent more than once.

use std::cell::Cell;

/// One thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Another attempt, since the one before surely was not processed.
    Unprocessed,
    /// Since its connection ended.
    Reset,
    /// Since its time was over.
    Timeout,
    /// Since its answer was an HTTP error.
    Status,
    /// Since its answer was a gRPC error.
    Grpc,
    /// A request that ended well, and not by its first attempt.
    Recovered,
    /// No other attempt, since the budget was spent.
    Budget,
    /// Since the request's body was no longer there.
    Body,
    /// Since it would have been too late.
    Deadline,
    /// Since there had been as many as there may be.
    Attempts,
    /// Since the callee asked for more time than the policy grants, or for no other attempt.
    Pushback,
    /// A request went to another endpoint as well.
    Hedged,
    /// The other endpoint's answer was taken.
    HedgeWon,
    /// It was not.
    HedgeLost,
    /// There was none, since the budget was spent.
    HedgeBudget,
    /// Since there was no other endpoint.
    HedgeEndpoint,
}

/// How many there are.
const KINDS: usize = 16;

impl Repeat {
    /// Attempts beyond the first, each with its label.
    pub const RETRIES: [(Self, &'static str); 5] = [
        (Self::Unprocessed, "not-processed"),
        (Self::Reset, "reset"),
        (Self::Timeout, "timeout"),
        (Self::Status, "status"),
        (Self::Grpc, "grpc-status"),
    ];
    /// Attempts that were not made.
    pub const REFUSED: [(Self, &'static str); 5] = [
        (Self::Budget, "budget"),
        (Self::Body, "body"),
        (Self::Deadline, "deadline"),
        (Self::Attempts, "attempts"),
        (Self::Pushback, "retry-after"),
    ];
    /// What came of hedges.
    pub const HEDGES: [(Self, &'static str); 4] = [
        (Self::HedgeWon, "won"),
        (Self::HedgeLost, "lost"),
        (Self::HedgeBudget, "budget"),
        (Self::HedgeEndpoint, "no-other-endpoint"),
    ];
}

/// Counts on one thread. Most edges never have any.
#[derive(Debug, Default)]
pub struct Repeats(std::cell::OnceCell<Box<[Cell<u64>; KINDS]>>);

impl Repeats {
    pub(super) fn count(&self, repeat: Repeat) {
        let cell = &self.0.get_or_init(Box::default)[repeat as usize];
        cell.set(cell.get() + 1);
    }

    pub(super) fn take(&self) -> RepeatsDelta {
        RepeatsDelta(self.0.get().map(|cells| std::array::from_fn(|kind| cells[kind].take())))
    }
}

/// What has gathered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepeatsDelta(Option<[u64; KINDS]>);

impl RepeatsDelta {
    /// So many of one kind.
    pub fn of(&self, repeat: Repeat) -> u64 {
        self.0.map_or(0, |counts| counts[repeat as usize])
    }

    /// So many of several kinds.
    pub fn sum(&self, repeats: &[(Repeat, &str)]) -> u64 {
        repeats.iter().map(|(repeat, _)| self.of(*repeat)).sum()
    }

    /// Joins a later one.
    pub fn merge(&mut self, later: Self) {
        match (&mut self.0, later.0) {
            (Some(counts), Some(later)) => {
                for (count, more) in counts.iter_mut().zip(later) {
                    *count += more;
                }
            }
            (None, later) => self.0 = later,
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_joined() {
        let repeats = Repeats::default();
        assert_eq!(repeats.take(), RepeatsDelta(None));
        repeats.count(Repeat::Reset);
        repeats.count(Repeat::HedgeEndpoint);
        let mut delta = repeats.take();
        repeats.count(Repeat::Reset);
        delta.merge(repeats.take());
        delta.merge(RepeatsDelta::default());
        assert_eq!(
            (delta.of(Repeat::Reset), delta.sum(&Repeat::RETRIES), delta.sum(&Repeat::HEDGES)),
            (2, 2, 1)
        );
        assert_eq!(repeats.take().sum(&Repeat::RETRIES), 0);
    }
}
