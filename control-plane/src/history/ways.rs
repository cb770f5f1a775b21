//! Where requests' time went by the workload that served them, as their callers' sidecars see it: one slow replica of three would
//! be hidden in what they come to together. Sums alone, some 4 KB for each that is always busy.

use std::collections::BTreeMap;

use tracing::warn;

use super::{
    EdgeKey, SPAN_S, SpentSums, Tally,
    hops::{coarse, fine, recent},
    packed::{self, Packed},
    ring::Ring,
};
use crate::said;

/// Kept apart, of all callers together; what is beyond is known by edge only.
const MAX_WAYS: usize = 8 * 1024;
/// Of one caller, so that none leaves nothing for the others.
const MAX_OF_ONE: usize = 2048;
/// Where there is no room, one that had nothing for so long gives way.
const IDLE_S: i64 = 120;
/// Whether there is one is looked after no more often.
const LOOK_S: i64 = 10;
/// A workload's name.
const MAX_NAME: usize = 253;

/// What one workload was asked, as its callers see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Where the requests' time went.
    pub spent: SpentSums,
    /// Those that were not answered as asked.
    pub failed: u32,
}

impl Tally for Served {
    fn add(&mut self, other: &Self) {
        self.spent.add(&other.spent);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

impl Packed for Served {
    fn pack(&self, to: &mut Vec<u8>) {
        packed::put(to, self.failed.into());
        self.spent.pack(to);
    }

    fn add_packed(&mut self, from: &mut &[u8]) -> Option<()> {
        let failed = u32::try_from(packed::take(from)?).ok()?;
        self.failed = self.failed.saturating_add(failed);
        self.spent.add_packed(from)
    }
}

/// One caller's requests that one workload served.
#[derive(Debug)]
struct Way {
    fine: Ring<Served>,
    coarse: Ring<Served>,
}

impl Way {
    fn is_idle(&self, now_s: i64, seconds: i64) -> bool {
        self.coarse.newest().is_none_or(|newest| newest + self.coarse.width <= now_s - seconds)
    }
}

/// All of them, by caller, then by edge and the workload's name.
#[derive(Debug, Default)]
pub(super) struct Ways {
    of: BTreeMap<String, BTreeMap<(EdgeKey, String), Way>>,
    count: usize,
    /// There was no room, and none will be looked for before.
    full_until_s: Option<i64>,
}

impl Ways {
    pub(super) fn add(&mut self, edge: &EdgeKey, workload: &str, now_ms: i64, served: &Served) {
        if workload.is_empty() || !said::is_name(workload, MAX_NAME) {
            return;
        }
        let now_s = now_ms.div_euclid(1000);
        let key = (edge.clone(), workload.to_owned());
        let is_known = self.of.get(&edge.from).is_some_and(|ways| ways.contains_key(&key));
        if !is_known && !self.makes_room(&edge.from, now_s) {
            return;
        }
        self.count += usize::from(!is_known);
        let ways = self.of.entry(edge.from.clone()).or_default();
        let way = ways.entry(key).or_insert_with(|| Way { fine: fine(), coarse: coarse() });
        way.fine.add(now_s, served);
        way.coarse.add(now_s, served);
    }

    fn has_room(&self, caller: &str) -> bool {
        self.count < MAX_WAYS && self.of.get(caller).is_none_or(|ways| ways.len() < MAX_OF_ONE)
    }

    fn makes_room(&mut self, caller: &str, now_s: i64) -> bool {
        if self.has_room(caller) {
            return true;
        }
        // Said again where it has been well for as long as anything is idle.
        let is_told = self.full_until_s.is_some_and(|until| now_s < until + IDLE_S);
        if self.full_until_s.is_some_and(|until| now_s < until) {
            return false;
        }
        self.forget(now_s, IDLE_S);
        let has_room = self.has_room(caller);
        if !has_room && !is_told {
            warn!(
                caller,
                "it calls, or all together call, so many workloads that new ones are not told apart"
            );
        }
        if !has_room {
            self.full_until_s = Some(now_s + LOOK_S);
        }
        has_room
    }

    /// Who served the requests of an edge in about the last `seconds` before some moment.
    pub(super) fn of(
        &self,
        edge: &EdgeKey,
        at_ms: i64,
        seconds: i64,
    ) -> impl Iterator<Item = (&str, Served)> {
        let at_s = at_ms.div_euclid(1000);
        let of_caller = self.of.get(&edge.from).into_iter();
        let from = (edge.clone(), String::new());
        let ways = of_caller.flat_map(move |ways| ways.range(from.clone()..));
        ways.take_while(move |((of, _), _)| of == edge)
            .map(move |((_, workload), way)| {
                (workload.as_str(), recent(&way.fine, &way.coarse, at_s, seconds))
            })
            .filter(|(_, served): &(_, Served)| served.spent.requests() > 0)
    }

    pub(super) fn forget_idle(&mut self, now_ms: i64) {
        self.forget(now_ms.div_euclid(1000), SPAN_S);
    }

    fn forget(&mut self, now_s: i64, seconds: i64) {
        self.of.retain(|_, ways| {
            ways.retain(|_, way| !way.is_idle(now_s, seconds));
            !ways.is_empty()
        });
        self.count = self.of.values().map(BTreeMap::len).sum();
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

/// With less time looked at, nothing is known: a sidecar looks only while it has requests.
const LITTLE_US: u64 = 1_000_000;

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

    /// The share of the time in which it did not run; 0 where hardly anybody looked.
    pub(super) fn share(&self, now_ms: i64) -> f64 {
        let now_s = now_ms.div_euclid(1000);
        let sum = self.0.sum(now_s - 60, now_s + 1);
        if sum.watched_us < LITTLE_US {
            0.0
        } else {
            (sum.stalled_us as f64 / sum.watched_us as f64).min(1.0)
        }
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

    fn sums(requests: u64) -> Served {
        Served { spent: SpentSums::of(&Spent { requests, ..Spent::default() }), failed: 1 }
    }

    fn served(ways: &Ways, to: &str, at_ms: i64, seconds: i64) -> Vec<(String, u32)> {
        let edge = edge(to);
        ways.of(&edge, at_ms, seconds).map(|(name, it)| (name.to_owned(), it.spent.requests())).collect()
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
        let failed = ways.of(&edge("a.demo"), NOW_MS, 60).map(|(_, it)| it.failed).sum::<u32>();
        assert_eq!(failed, 1);
        ways.forget_idle(NOW_MS + 2 * SPAN_S * 1000);
        assert!(ways.of.is_empty() && ways.count == 0);
    }

    #[test]
    fn they_are_bounded() {
        let mut ways = Ways::default();
        let add = |ways: &mut Ways, from: &str, index: usize, at_s: i64| {
            let edge = EdgeKey { from: from.into(), ..edge("b.demo") };
            ways.add(&edge, &format!("b-{index}"), NOW_MS + at_s * 1000, &sums(1));
        };
        for index in 0..MAX_OF_ONE + 5 {
            add(&mut ways, "web.demo", index, 0);
        }
        add(&mut ways, "web.demo", 0, 0);
        assert_eq!(ways.count, MAX_OF_ONE, "of one caller");
        assert!(served(&ways, "b.demo", NOW_MS, 60).contains(&("b-0".into(), 2)));
        for index in MAX_OF_ONE..MAX_WAYS + 5 {
            add(&mut ways, &format!("caller-{}", index % 100), index, 150);
        }
        assert_eq!(ways.count, MAX_WAYS - MAX_OF_ONE + 5, "who has nothing to tell has given way");
        for index in 0..MAX_OF_ONE {
            add(&mut ways, "late.demo", index, 200);
        }
        assert_eq!(ways.count, MAX_WAYS, "of all");
        for (at_s, expected) in [(205, MAX_WAYS), (200 + LOOK_S, MAX_WAYS), (500, 1)] {
            add(&mut ways, "later.demo", 0, at_s);
            assert_eq!(ways.count, expected, "after {at_s} s");
        }
    }

    #[test]
    fn a_stalled_share_is_of_the_time_in_which_somebody_looked() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.share(NOW_MS), 0.0);
        for second in 0..5 {
            stalls.add(NOW_MS + second * 1000, Stalled { watched_us: 400_000, stalled_us: 100_000 });
            stalls.add(NOW_MS + second * 1000, Stalled::default());
        }
        assert_eq!(stalls.share(NOW_MS + 5000), 0.25);
        assert_eq!(stalls.share(NOW_MS + 100_000), 0.0);
        stalls.add(NOW_MS, Stalled { watched_us: 1, stalled_us: u64::MAX });
        assert_eq!(stalls.share(NOW_MS), 1.0);
        let mut hardly = Stalls::default();
        hardly.add(NOW_MS, Stalled { watched_us: 40_000, stalled_us: 30_000 });
        assert_eq!(hardly.share(NOW_MS), 0.0);
    }
}
