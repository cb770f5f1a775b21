//! Where requests' time went by the workload that served them, as their callers' sidecars see it: one slow replica of three would
//! be hidden in what they come to together. Sums alone, 2 KB for each that is always busy.

use std::collections::BTreeMap;

use super::{
    EdgeKey, SPAN_S, SpentSums, Tally,
    hops::{coarse, fine, recent},
    packed::{self, Packed},
    ring::Ring,
};

/// Kept apart; what is beyond is known by edge only.
const MAX_WAYS: usize = 4096;
/// A workload's name.
const MAX_NAME: usize = 253;

/// One caller's requests that one workload served.
#[derive(Debug)]
struct Way {
    fine: Ring<SpentSums>,
    coarse: Ring<SpentSums>,
}

/// All of them, by edge and then by the workload's name.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<(EdgeKey, String), Way>);

impl Ways {
    pub(super) fn add(&mut self, edge: &EdgeKey, workload: &str, now_ms: i64, spent: &SpentSums) {
        if workload.is_empty() || workload.len() > MAX_NAME {
            return;
        }
        let (key, room) = ((edge.clone(), workload.to_owned()), self.0.len() < MAX_WAYS);
        if !room && !self.0.contains_key(&key) {
            return;
        }
        let way = self.0.entry(key).or_insert_with(|| Way { fine: fine(), coarse: coarse() });
        let now_s = now_ms.div_euclid(1000);
        way.fine.add(now_s, spent);
        way.coarse.add(now_s, spent);
    }

    /// Who served the requests of an edge in about the last `seconds` before some moment.
    pub(super) fn of(
        &self,
        edge: &EdgeKey,
        at_ms: i64,
        seconds: i64,
    ) -> impl Iterator<Item = (&str, SpentSums)> {
        let at_s = at_ms.div_euclid(1000);
        let served = self.0.range((edge.clone(), String::new())..).take_while(move |((of, _), _)| of == edge);
        served
            .map(move |((_, workload), way)| {
                (workload.as_str(), recent(&way.fine, &way.coarse, at_s, seconds))
            })
            .filter(|(_, sums)| sums.requests() > 0)
    }

    pub(super) fn forget_idle(&mut self, now_ms: i64) {
        let oldest = now_ms.div_euclid(1000) - SPAN_S;
        self.0.retain(|_, way| way.coarse.newest().is_some_and(|newest| newest >= oldest));
    }
}

/// For how long a sidecar's threads were looked at, and for how long they did not run when they should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stalled {
    pub(super) watched_us: u64,
    pub(super) stalled_us: u64,
}

impl Tally for Stalled {
    fn add(&mut self, other: &Self) {
        self.watched_us = self.watched_us.saturating_add(other.watched_us);
        self.stalled_us = self.stalled_us.saturating_add(other.stalled_us);
    }
}

impl Packed for Stalled {
    fn pack(&self, to: &mut Vec<u8>) {
        packed::put(to, self.watched_us);
        packed::put(to, self.stalled_us);
    }

    fn add_packed(&mut self, from: &mut &[u8]) -> Option<()> {
        self.add(&Self { watched_us: packed::take(from)?, stalled_us: packed::take(from)? });
        Some(())
    }
}

/// One sidecar's, over the last minute.
#[derive(Debug, Clone)]
pub(super) struct Stalls(Ring<Stalled>);

impl Default for Stalls {
    fn default() -> Self {
        Self(Ring::new(10, 7))
    }
}

impl Stalls {
    pub(super) fn add(&mut self, now_ms: i64, stalled: Stalled) {
        if stalled.watched_us > 0 {
            self.0.add(now_ms.div_euclid(1000), &stalled);
        }
    }

    /// The share of the time in which it did not run; 0 where nobody looked.
    pub(super) fn share(&self, now_ms: i64) -> f64 {
        let now_s = now_ms.div_euclid(1000);
        let sum = self.0.sum(now_s - 60, now_s + 1);
        if sum.watched_us == 0 { 0.0 } else { (sum.stalled_us as f64 / sum.watched_us as f64).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Spent;

    const NOW_MS: i64 = 1_000_000_000_000;

    fn edge(to: &str) -> EdgeKey {
        EdgeKey { from: "web.demo".into(), to: to.into(), backend: String::new() }
    }

    fn sums(requests: u64) -> SpentSums {
        SpentSums::of(&Spent { requests, ..Spent::default() })
    }

    fn served(ways: &Ways, to: &str, at_ms: i64, seconds: i64) -> Vec<(String, u32)> {
        let edge = edge(to);
        ways.of(&edge, at_ms, seconds).map(|(name, sums)| (name.to_owned(), sums.requests())).collect()
    }

    #[test]
    fn those_of_one_edge_are_found_by_name_for_as_long_as_they_are_kept() {
        let mut ways = Ways::default();
        for (to, workload, requests) in
            [("b.demo", "b-2", 2), ("a.demo", "a-1", 9), ("b.demo", "b-1", 1), ("c.demo", "c-1", 9)]
        {
            ways.add(&edge(to), workload, NOW_MS, &sums(requests));
        }
        ways.add(&edge("b.demo"), "", NOW_MS, &sums(5));
        ways.add(&edge("b.demo"), &"x".repeat(300), NOW_MS, &sums(5));
        assert_eq!(served(&ways, "b.demo", NOW_MS, 60), [("b-1".into(), 1), ("b-2".into(), 2)]);
        assert_eq!(served(&ways, "b.demo", NOW_MS + 200_000, 60), []);
        assert_eq!(served(&ways, "b.demo", NOW_MS + 200_000, 600).len(), 2, "from the minutes");
        assert_eq!(served(&ways, "d.demo", NOW_MS, 60), []);
        ways.forget_idle(NOW_MS + 2 * SPAN_S * 1000);
        assert!(ways.0.is_empty());
    }

    #[test]
    fn they_are_bounded() {
        let mut ways = Ways::default();
        for index in 0..MAX_WAYS + 5 {
            ways.add(&edge("b.demo"), &format!("b-{index}"), NOW_MS, &sums(1));
        }
        ways.add(&edge("b.demo"), "b-0", NOW_MS, &sums(1));
        assert_eq!(ways.0.len(), MAX_WAYS);
        assert!(served(&ways, "b.demo", NOW_MS, 60).contains(&("b-0".into(), 2)));
    }

    #[test]
    fn a_stalled_share_is_of_the_time_in_which_somebody_looked() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.share(NOW_MS), 0.0);
        for second in 0..5 {
            stalls.add(NOW_MS + second * 1000, Stalled { watched_us: 400, stalled_us: 100 });
            stalls.add(NOW_MS + second * 1000, Stalled::default());
        }
        assert_eq!(stalls.share(NOW_MS + 5000), 0.25);
        assert_eq!(stalls.share(NOW_MS + 100_000), 0.0);
        stalls.add(NOW_MS, Stalled { watched_us: 1, stalled_us: u64::MAX });
        assert_eq!(stalls.share(NOW_MS), 1.0);
    }
}
