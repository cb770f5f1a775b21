//! Weighted round robin: whose turn is due first (earliest deadline first). Turns of an endpoint are evenly spaced, so
//! that a heavy one has them more often but not in a row.

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap};

/// Between two turns of what weighs 1. What weighs 1000 still has a million steps between its turns.
const PERIOD: u64 = 1 << 32;

/// Who has had when its turn. Times are of a clock that only turns move.
#[derive(Debug)]
pub struct Turns {
    periods: Vec<u64>,
    due: RefCell<BinaryHeap<Reverse<(u64, u32)>>>,
}

/// When an endpoint's next turn is due, in parts of its period: what is kept of it while lists change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase(pub f64);

impl Turns {
    /// Positions by weight, each with when its first turn is due.
    pub fn new(weights: &[u32], phases: impl Iterator<Item = Phase>) -> Self {
        let periods: Vec<u64> = weights.iter().map(|weight| PERIOD / u64::from(*weight)).collect();
        let due = periods.iter().zip(phases).zip(0..);
        let due = due.map(|((period, phase), at)| Reverse(((phase.0 * *period as f64) as u64, at))).collect();
        Self { periods, due: RefCell::new(due) }
    }

    /// The next that is wanted. `part`: of its share that it is to have now, `None`: it is passed over, and loses its turn.
    pub fn next(&self, part: impl Fn(usize) -> Option<f64>) -> Option<usize> {
        let mut due = self.due.borrow_mut();
        for _ in 0..due.len() {
            let mut first = due.peek_mut()?;
            let Reverse((at, position)) = *first;
            let position = position as usize;
            let part = part(position);
            let period = self.periods[position] as f64 / part.unwrap_or(1.0).max(1e-3);
            first.0.0 = at.saturating_add(period as u64);
            if part.is_some() {
                return Some(position);
            }
        }
        self.next_of_all(&mut due, part)
    }

    /// The same, however many turns are lost before: a heavy one that is passed over has many.
    fn next_of_all(
        &self,
        due: &mut BinaryHeap<Reverse<(u64, u32)>>,
        part: impl Fn(usize) -> Option<f64>,
    ) -> Option<usize> {
        // The list keeps its memory.
        let mut all = std::mem::take(due).into_vec();
        let wanted = all.iter().filter_map(|Reverse(turn)| part(turn.1 as usize).map(|part| (*turn, part)));
        let next = wanted.min_by_key(|(turn, _)| *turn);
        if let Some(((now, chosen), part)) = next {
            for Reverse((at, position)) in &mut all {
                if *position == chosen {
                    let period = self.periods[chosen as usize] as f64 / part.max(1e-3);
                    *at = at.saturating_add(period as u64);
                } else {
                    *at = (*at).max(now);
                }
            }
        }
        *due = BinaryHeap::from(all);
        next.map(|((_, chosen), _)| chosen as usize)
    }

    /// What is to be kept, by position.
    pub fn phases(&self) -> Vec<(usize, Phase)> {
        let due = self.due.borrow();
        let now = due.peek().map_or(0, |Reverse((at, _))| *at);
        let phase = |Reverse((at, position)): &Reverse<(u64, u32)>| {
            let position = *position as usize;
            (position, Phase((at - now) as f64 / self.periods[position] as f64))
        };
        due.iter().map(phase).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u32], phases: &[f64]) -> Turns {
        Turns::new(weights, phases.iter().map(|phase| Phase(*phase)))
    }

    fn all(_: usize) -> Option<f64> {
        Some(1.0)
    }

    #[test]
    fn equals_take_exact_turns() {
        let turns = turns(&[7; 4], &[0.1, 0.9, 0.3, 0.5]);
        let order: Vec<_> = (0..8).filter_map(|_| turns.next(all)).collect();
        assert_eq!(order, [0, 2, 3, 1, 0, 2, 3, 1]);
    }

    #[test]
    fn who_is_passed_over_has_no_burst_afterwards() {
        let turns = turns(&[1; 3], &[0.0, 0.1, 0.2]);
        for _ in 0..10 {
            assert_ne!(turns.next(|at| (at != 1).then_some(1.0)), Some(1));
        }
        let order: Vec<_> = (0..6).filter_map(|_| turns.next(all)).collect();
        assert_eq!(order.iter().filter(|at| **at == 1).count(), 2, "{order:?}");
        assert_eq!(turns.next(|_| None), None);
    }

    #[test]
    fn a_heavy_one_that_is_passed_over_keeps_nobody_from_his_turn() {
        let turns = turns(&[1000, 3, 1], &[0.0, 0.0, 0.0]);
        let mut counts = [0_u32; 3];
        for _ in 0..400 {
            counts[turns.next(|at| (at != 0).then_some(1.0)).expect("two are there")] += 1;
        }
        assert!(counts[0] == 0 && counts[2].abs_diff(100) <= 1, "{counts:?}");
        // It comes back to its share, not to all that it has lost.
        let next: Vec<_> = (0..1005).filter_map(|_| turns.next(all)).collect();
        assert!(next.iter().filter(|at| **at == 0).count().abs_diff(1000) <= 3);
        assert_eq!(turns.next(|_| None), None);
    }

    #[test]
    fn turns_go_on_over_a_change_of_the_list() {
        let before = turns(&[1; 4], &[0.0, 0.1, 0.2, 0.3]);
        assert_eq!([before.next(all), before.next(all)], [Some(0), Some(1)]);
        let mut kept = before.phases();
        kept.sort_by_key(|(position, _)| *position);
        let after = Turns::new(&[1; 4], kept.into_iter().map(|(_, phase)| phase));
        assert_eq!([after.next(all), after.next(all), after.next(all)], [Some(2), Some(3), Some(0)]);
    }

    #[test]
    fn a_part_of_a_share_is_that_part() {
        let turns = turns(&[1; 2], &[0.0, 0.5]);
        let mut counts = [0_u32; 2];
        for _ in 0..1100 {
            counts[turns.next(|at| Some(if at == 1 { 0.1 } else { 1.0 })).expect("one")] += 1;
        }
        assert!(counts[1].abs_diff(100) <= 1, "{counts:?}");
    }

    proptest! {
        /// At any moment each has had its share, but for a turn or so: nobody gets a burst.
        #[test]
        fn it_is_smooth(
            endpoints in proptest::collection::vec((1u32..=1000, 0.0f64..1.0), 1..10), picks in 1usize..2000,
        ) {
            let (weights, phases): (Vec<_>, Vec<_>) = endpoints.into_iter().unzip();
            let turns = turns(&weights, &phases);
            let mut counts = vec![0_f64; weights.len()];
            for _ in 0..picks {
                counts[turns.next(all).expect("all are wanted")] += 1.0;
            }
            // By the clock that turns move, every count is within one of what is due.
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let off = weights.len() as f64;
            for (count, weight) in counts.iter().zip(&weights) {
                let due = picks as f64 * f64::from(*weight) / sum;
                prop_assert!((count - due).abs() <= 1.0 + off * f64::from(*weight) / sum, "{} for {}", count, due);
            }
        }
    }
}
