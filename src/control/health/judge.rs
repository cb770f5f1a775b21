//! When an application counts as ready, and when no more. Pure.

use pillion_api::model::Pace;

/// What the answers so far have decided.
#[derive(Debug)]
pub(super) struct Judge {
    pace: Pace,
    /// `None`: nothing yet.
    ready: Option<bool>,
    /// In a row.
    failures: u32,
    successes: u32,
}

impl Judge {
    /// `ready`: what it was until now; `None`: nothing is known.
    pub(super) fn new(pace: Pace, ready: Option<bool>) -> Self {
        Self { pace, ready, failures: 0, successes: 0 }
    }

    /// Takes in an answer. Gives what it has decided, where that is new.
    pub(super) fn take(&mut self, well: bool) -> Option<bool> {
        let (count, other) = if well {
            (&mut self.successes, &mut self.failures)
        } else {
            (&mut self.failures, &mut self.successes)
        };
        *count = count.saturating_add(1);
        *other = 0;
        let enough = match (well, self.ready) {
            (true, _) => *count >= self.pace.healthy,
            // One that was never ready has nothing to lose: the first failure tells what it is waiting for.
            (false, None) => true,
            (false, Some(_)) => *count >= self.pace.unhealthy,
        };
        let decided = enough && self.ready != Some(well);
        if decided {
            self.ready = Some(well);
        }
        decided.then_some(well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_a_row_decide() {
        // Answers, and what each decides: + ready, - unready, . nothing new.
        for (healthy, unhealthy, answers, decisions) in [
            (1, 2, "+--+", "+.-+"),
            (1, 2, "-+-+--", "-+...-"),
            (1, 2, "---+", "-..+"),
            (3, 1, "++++", "..+."),
            (3, 1, "-++-+++-", "-.....+-"),
            (2, 3, "++-+--+---", ".+.......-"),
        ] {
            let mut judge = Judge::new(Pace { healthy, unhealthy, ..Pace::default() }, None);
            let decided: String = answers
                .chars()
                .map(|answer| match judge.take(answer == '+') {
                    Some(true) => '+',
                    Some(false) => '-',
                    None => '.',
                })
                .collect();
            assert_eq!(decided, decisions, "{answers} with {healthy} and {unhealthy}");
        }
    }

    #[test]
    fn what_was_known_to_be_ready_has_all_its_failures_to_come() {
        let mut judge = Judge::new(Pace { unhealthy: 3, ..Pace::default() }, Some(true));
        assert_eq!([judge.take(false), judge.take(false), judge.take(false)], [None, None, Some(false)]);
        assert_eq!(judge.take(true), Some(true));
    }
}
