//! Golden figures over time: counts in time buckets, fine for the last two minutes and coarse for thirty.
//!
//! Empty buckets are not kept, histograms are sparse and reasons few, so a series has a fixed upper size and an idle
//! one costs nothing.

use std::collections::{BTreeMap, VecDeque};

use pillion_api::{latency, wire::EdgeDelta};

use super::{
    actions::Actions,
    hops::{HopSeries, Spent, SpentSums},
};

/// Reasons of refusal kept apart in one bucket; more count as `other`.
const MAX_REASONS: usize = 16;

/// What was counted in some span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests answered, by the application or by a sidecar.
    pub requests: u64,
    /// Those that failed for the server's sake.
    pub failures: u64,
    /// Those that went over mutual TLS.
    pub encrypted: u64,
    /// Opaque connections.
    pub connections: u64,
    /// Refusals by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Those of an edge that the callee's sidecar made.
    pub refusals_by_callee: BTreeMap<String, u64>,
    /// What policies did.
    pub actions: Actions,
    /// Counts by latency bucket, ascending; only those that are not zero.
    pub(super) latency: Sparse<u8>,
}

/// Counts by key, ascending. Where there are few, this is a fraction of what a map takes.
pub(super) type Sparse<K> = Vec<(K, u32)>;

/// Adds to the count of a key.
pub(super) fn bump<K: Ord + Copy>(counts: &mut Sparse<K>, key: K, count: u32) {
    match counts.binary_search_by_key(&key, |(known, _)| *known) {
        Ok(at) => counts[at].1 = counts[at].1.saturating_add(count),
        Err(at) => counts.insert(at, (key, count)),
    }
}

impl Counts {
    /// From what a sidecar measured. Buckets beyond the histogram count as the last.
    pub fn of(delta: &EdgeDelta) -> Self {
        let mut counts = Self {
            requests: delta.requests,
            failures: delta.failures.min(delta.requests),
            encrypted: if delta.mtls { delta.requests.saturating_add(delta.connections) } else { 0 },
            connections: delta.connections,
            actions: Actions::of_edge(delta),
            ..Self::default()
        };
        counts.refuse(&delta.refusals, &delta.refusals_by_callee);
        for (&bucket, &count) in delta.latency_buckets.iter().zip(&delta.latency_counts) {
            let bucket = (bucket as usize).min(latency::BUCKETS - 1);
            let bucket = u8::try_from(bucket).expect("there are fewer than 256 latency buckets");
            bump(&mut counts.latency, bucket, u32::try_from(count).unwrap_or(u32::MAX));
        }
        counts
    }

    /// The `part`-th of `parts` nearly equal shares; all shares together are the whole.
    fn share(&self, part: u64, parts: u64) -> Self {
        let share = |total: u64| {
            let cut = |part: u64| u64::try_from(u128::from(total) * u128::from(part) / u128::from(parts));
            let invariant = "a part is no greater than the whole";
            cut(part + 1).expect(invariant) - cut(part).expect(invariant)
        };
        let share_of =
            |count: u32| u32::try_from(share(count.into())).expect("a share is no more than the whole");
        Self {
            requests: share(self.requests),
            failures: share(self.failures),
            encrypted: share(self.encrypted),
            connections: share(self.connections),
            refusals: of_reasons(&self.refusals, share),
            refusals_by_callee: of_reasons(&self.refusals_by_callee, share),
            actions: self.actions.map(share),
            latency: self.latency.iter().map(|&(bucket, count)| (bucket, share_of(count))).collect(),
        }
    }

    /// The share of requests that did not fail; `None` without requests.
    pub fn success_rate(&self) -> Option<f64> {
        let failed = self.failures as f64 / self.requests as f64;
        // Shares of a spread interval are rounded each on its own.
        (self.requests > 0).then_some((1.0 - failed).max(0.0))
    }

    /// A quantile of latency in milliseconds; `None` without requests.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let mut counts = [0; latency::BUCKETS];
        for &(bucket, count) in &self.latency {
            counts[usize::from(bucket)] = u64::from(count);
        }
        latency::quantile(&counts, q).map(|us| us / 1000.0)
    }

    /// How many requests took how long: buckets of [`pillion_api::latency`], ascending, with their counts.
    pub fn latency(&self) -> impl Iterator<Item = (u8, u32)> {
        self.latency.iter().copied().filter(|(_, count)| *count > 0)
    }

    /// Whether anything at all was counted of requests and connections.
    pub fn any(&self) -> bool {
        self.requests > 0
            || self.connections > 0
            || !self.refusals.is_empty()
            || !self.refusals_by_callee.is_empty()
    }

    /// Whether everything counted was encrypted, and anything was counted.
    pub fn all_encrypted(&self) -> bool {
        let all = self.requests.saturating_add(self.connections);
        all > 0 && self.encrypted >= all
    }

    fn refuse<'a>(
        &mut self,
        own: impl IntoIterator<Item = (&'a String, &'a u64)>,
        by_callee: impl IntoIterator<Item = (&'a String, &'a u64)>,
    ) {
        own.into_iter().for_each(|(reason, &count)| refuse(&mut self.refusals, reason, count));
        by_callee
            .into_iter()
            .for_each(|(reason, &count)| refuse(&mut self.refusals_by_callee, reason, count));
    }
}

fn refuse(refusals: &mut BTreeMap<String, u64>, reason: &str, count: u64) {
    let known = refusals.contains_key(reason) || refusals.len() < MAX_REASONS;
    let reason = if known && reason.len() <= 64 { reason } else { "other" };
    add(refusals.entry(reason.to_owned()).or_default(), count);
}

fn of_reasons(refusals: &BTreeMap<String, u64>, share: impl Fn(u64) -> u64) -> BTreeMap<String, u64> {
    refusals.iter().map(|(reason, &count)| (reason.clone(), share(count))).collect()
}

fn add(to: &mut u64, count: u64) {
    *to = to.saturating_add(count);
}

/// What can be summed over spans of time.
pub trait Tally: Clone {
    /// Adds another span's counts.
    fn add(&mut self, other: &Self);
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        add(&mut self.requests, other.requests);
        add(&mut self.failures, other.failures);
        add(&mut self.encrypted, other.encrypted);
        add(&mut self.connections, other.connections);
        self.refuse(&other.refusals, &other.refusals_by_callee);
        self.actions.add(&other.actions);
        other.latency().for_each(|(bucket, count)| bump(&mut self.latency, bucket, count));
    }
}

/// Buckets of one width over a span that moves with the clock. Times are whole seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ring<T> {
    width: i64,
    length: i64,
    /// By start, ascending; each start is a multiple of `width`.
    buckets: VecDeque<(i64, T)>,
}

impl<T: Tally> Ring<T> {
    pub(super) fn new(width: i64, length: i64) -> Self {
        Self { width, length, buckets: VecDeque::new() }
    }

    pub(super) fn add(&mut self, at: i64, counts: &T) {
        let start = at - at.rem_euclid(self.width);
        let newest = self.buckets.back().map_or(start, |(newest, _)| (*newest).max(start));
        self.forget(newest);
        if start <= newest - self.width * self.length {
            return;
        }
        let place = self.buckets.partition_point(|(other, _)| *other < start);
        match self.buckets.get_mut(place) {
            Some((other, bucket)) if *other == start => bucket.add(counts),
            _ => self.buckets.insert(place, (start, counts.clone())),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Takes another's buckets if it has none itself.
    pub(super) fn take_missing(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        }
    }

    /// Everything kept, ascending.
    pub(super) fn all(&self) -> impl Iterator<Item = &(i64, T)> {
        self.buckets.iter()
    }

    /// Puts back what was kept before a restart and is not too old at `now`. Nothing from later than that, as after a clock was set back: it would
    /// push out what is counted next.
    pub(super) fn restore(&mut self, now: i64, kept: impl IntoIterator<Item = (i64, T)>) {
        let oldest = now - now.rem_euclid(self.width) - self.width * self.length;
        for (start, counts) in kept {
            let follows = self.buckets.back().is_none_or(|(newest, _)| *newest < start);
            if follows && start > oldest && start <= now && start.rem_euclid(self.width) == 0 {
                self.buckets.push_back((start, counts));
            }
        }
    }

    fn forget(&mut self, now: i64) {
        let oldest = now - self.width * self.length;
        while self.buckets.front().is_some_and(|(start, _)| *start <= oldest) {
            self.buckets.pop_front();
        }
    }

    /// Whether nothing at or after `from` was forgotten yet.
    pub(super) fn reaches(&self, from: i64) -> bool {
        self.buckets.back().is_none_or(|(newest, _)| from > newest - self.width * self.length)
    }

    pub(super) fn between(&self, from: i64, until: i64) -> impl Iterator<Item = &(i64, T)> {
        let first = self.buckets.partition_point(|(start, _)| *start < from);
        self.buckets.range(first..).take_while(move |(start, _)| *start < until)
    }
}

/// One thing's figures over the last thirty minutes.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub(super) fine: Ring<Counts>,
    pub(super) coarse: Ring<Counts>,
    /// `None`: nobody has split anything.
    pub(super) hops: Option<Box<HopSeries>>,
    pub(super) first_s: i64,
}

/// The finer buckets' span, seconds.
pub const FINE_SPAN_S: i64 = 120;
/// The coarser buckets' width, seconds.
pub const COARSE_STEP_S: i64 = 10;
/// Everything kept, seconds.
pub const SPAN_S: i64 = 1800;

impl Series {
    /// Empty, of something first heard of at `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        Self {
            fine: Ring::new(1, FINE_SPAN_S),
            coarse: Ring::new(COARSE_STEP_S, SPAN_S / COARSE_STEP_S),
            hops: None,
            first_s: now_ms.div_euclid(1000),
        }
    }

    /// Counts what was measured in the `interval_ms` before `now_ms`. A long interval (a sidecar that was cut off) is spread
    /// over its seconds, so that it shows as what it was and not as a spike.
    pub fn add(&mut self, now_ms: i64, interval_ms: u32, counts: &Counts) {
        let now = now_ms.div_euclid(1000);
        let seconds = (i64::from(interval_ms) + 499).div_euclid(1000).clamp(1, FINE_SPAN_S);
        if seconds == 1 {
            self.fine.add(now, counts);
            self.coarse.add(now, counts);
            return;
        }
        for second in 0..seconds {
            let part = counts.share(second.unsigned_abs(), seconds.unsigned_abs());
            let at = now - (seconds - 1 - second);
            self.fine.add(at, &part);
            self.coarse.add(at, &part);
        }
    }

    /// Counts where the time of requests went that have ended by `now_ms`.
    pub fn add_hops(&mut self, now_ms: i64, spent: &Spent) {
        self.hops.get_or_insert_with(|| Box::new(HopSeries::new())).add(now_ms.div_euclid(1000), spent);
    }

    /// Where the time of requests went in about the last `seconds`.
    pub fn hops(&self, now_ms: i64, seconds: i64) -> Spent {
        self.hops.as_ref().map(|hops| hops.recent(now_ms.div_euclid(1000), seconds)).unwrap_or_default()
    }

    /// Where the time of requests went, in points of [`COARSE_STEP_S`], for the last `points` that were complete then: their starts in seconds since the Unix epoch, oldest first.
    pub fn hop_points(&self, at_ms: i64, points: i64) -> Vec<(i64, SpentSums)> {
        let at = at_ms.div_euclid(1000);
        match &self.hops {
            Some(hops) => hops.points(at, points),
            None => Vec::new(),
        }
    }

    /// The sum over the `seconds` whole seconds before some moment, and how many of them it has existed for. Beyond
    /// [`FINE_SPAN_S`], or where that is longer ago, it is of whole spans of [`COARSE_STEP_S`].
    pub fn recent(&self, at_ms: i64, seconds: i64) -> (Counts, f64) {
        let at = at_ms.div_euclid(1000);
        let fine = seconds.clamp(1, FINE_SPAN_S - 1);
        let (ring, until, seconds) = if seconds <= FINE_SPAN_S && self.fine.reaches(at - fine) {
            (&self.fine, at, fine)
        } else {
            (
                &self.coarse,
                at - at.rem_euclid(COARSE_STEP_S),
                seconds.clamp(COARSE_STEP_S, SPAN_S - COARSE_STEP_S),
            )
        };
        let mut sum = Counts::default();
        ring.between(until - seconds, until).for_each(|(_, counts)| sum.add(counts));
        let existed = (until - self.first_s).clamp(1, seconds);
        (sum, existed as f64)
    }

    /// Points of `step` seconds (1 or [`COARSE_STEP_S`]), each the sum of its span, for the last `points` that are complete:
    /// their starts in seconds since the Unix epoch, oldest first.
    pub fn points(&self, now_ms: i64, step: i64, points: i64) -> Vec<(i64, Counts)> {
        let ring = if step == 1 { &self.fine } else { &self.coarse };
        let now = now_ms.div_euclid(1000);
        let until = now - now.rem_euclid(ring.width);
        let from = until - ring.width * points.clamp(1, ring.length);
        let mut buckets = ring.between(from, until).peekable();
        let starts = (0..).map(|index| from + index * ring.width).take_while(|start| *start < until);
        starts
            .map(|start| match buckets.next_if(|(at, _)| *at == start) {
                Some((_, counts)) => (start, counts.clone()),
                None => (start, Counts::default()),
            })
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fine.is_empty() && self.coarse.is_empty() && self.hops.is_none()
    }

    /// Takes what another has of the same thing and this one does not.
    pub(super) fn take_missing(&mut self, other: Self) {
        self.fine.take_missing(other.fine);
        self.coarse.take_missing(other.coarse);
        match (&mut self.hops, other.hops) {
            (Some(hops), Some(other)) => hops.take_missing(*other),
            (hops @ None, other) => *hops = other,
            (Some(_), None) => {}
        }
    }

    /// When something was last counted, to about ten seconds.
    pub(super) fn last_s(&self) -> i64 {
        self.coarse.buckets.back().map_or(self.first_s, |(start, _)| *start)
    }

    /// Whether nothing was counted for `seconds`; then it can be forgotten.
    pub fn idle_for(&self, now_ms: i64, seconds: i64) -> bool {
        let newest = self.coarse.buckets.back().map_or(self.first_s, |(start, _)| start + COARSE_STEP_S);
        now_ms.div_euclid(1000) - newest > seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(requests: u64, failures: u64, latency_us: u64) -> Counts {
        Counts::of(&EdgeDelta {
            requests,
            failures,
            mtls: true,
            latency_buckets: vec![u32::try_from(latency::index(latency_us)).expect("small")],
            latency_counts: vec![requests],
            ..EdgeDelta::default()
        })
    }

    const START_MS: i64 = 1_000_000_000_000;

    #[test]
    fn rates_success_and_quantiles_over_the_recent_seconds() {
        let mut series = Series::new(START_MS);
        for second in 0..30 {
            series.add(START_MS + second * 1000, 1000, &delta(20, 5, 10_000));
        }
        let (sum, seconds) = series.recent(START_MS + 30_000, 10);
        assert_eq!((sum.requests, sum.failures, seconds), (200, 50, 10.0));
        assert_eq!(sum.success_rate(), Some(0.75));
        assert!(sum.all_encrypted());
        let p50 = sum.quantile_ms(0.5).expect("requests were counted");
        assert!((7.5..=12.5).contains(&p50), "{p50}");
    }

    #[test]
    fn the_current_second_does_not_count_yet_and_old_ones_no_more() {
        let mut series = Series::new(START_MS);
        series.add(START_MS, 1000, &delta(7, 0, 100));
        assert_eq!(series.recent(START_MS + 500, 10).0.requests, 0);
        assert_eq!(series.recent(START_MS + 1000, 10).0.requests, 7);
        assert_eq!(series.recent(START_MS + 10_000, 10).0.requests, 7);
        assert_eq!(series.recent(START_MS + 11_000, 10).0, Counts::default());
    }

    #[test]
    fn a_long_window_is_summed_from_the_coarse_buckets() {
        let mut series = Series::new(START_MS);
        for second in 0..600 {
            series.add(START_MS + second * 1000, 1000, &delta(2, 1, 10_000));
        }
        let (sum, seconds) = series.recent(START_MS + 600_000, 300);
        assert_eq!((sum.requests, sum.failures, seconds), (600, 300, 300.0));
        let (sum, seconds) = series.recent(START_MS + 600_000, 1800);
        assert_eq!((sum.requests, seconds), (1200, 600.0));
    }

    #[test]
    fn what_was_long_ago_is_summed_from_the_coarse_buckets_too() {
        let mut series = Series::new(START_MS);
        for second in 0..600 {
            series.add(START_MS + second * 1000, 1000, &delta(if second < 300 { 2 } else { 7 }, 0, 10_000));
        }
        let requests = |at: i64, seconds: i64| series.recent(START_MS + at * 1000, seconds).0.requests;
        assert_eq!((requests(600, 10), requests(595, 10)), (70, 70), "still in the fine ones");
        assert_eq!((requests(200, 10), requests(209, 10)), (20, 20));
        assert_eq!(requests(310, 20), 10 * 7 + 10 * 2);
        assert_eq!(requests(-50, 10), 0);
    }

    #[test]
    fn a_young_series_is_not_diluted() {
        let mut series = Series::new(START_MS);
        series.add(START_MS, 1000, &delta(50, 0, 100));
        assert_eq!(series.recent(START_MS + 1000, 10).1, 1.0);
    }

    #[test]
    fn a_long_interval_is_spread_and_nothing_is_lost() {
        let mut series = Series::new(START_MS);
        series.add(START_MS + 60_000, 30_000, &delta(100, 1, 100));
        let points = series.points(START_MS + 61_000, 1, 60);
        let requests: Vec<u64> = points.iter().map(|(_, counts)| counts.requests).collect();
        assert_eq!(requests.iter().sum::<u64>(), 100);
        assert_eq!(requests.iter().filter(|count| (3..=4).contains(*count)).count(), 30);
        assert_eq!(points.iter().map(|(_, counts)| counts.failures).sum::<u64>(), 1);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut series = Series::new(START_MS);
        for second in 0..10_000 {
            series.add(START_MS + second * 1000, 1000, &delta(1, 0, 100));
        }
        assert_eq!(series.fine.buckets.len(), 120);
        assert_eq!(series.coarse.buckets.len(), 180);
        let mut counts = Counts::default();
        (0..100).for_each(|index| refuse(&mut counts.refusals, &format!("reason-{index}"), 1));
        assert_eq!(counts.refusals.len(), MAX_REASONS + 1);
        assert_eq!(counts.refusals["other"], 84);
    }

    #[test]
    fn points_have_no_gaps() {
        let mut series = Series::new(START_MS);
        series.add(START_MS, 1000, &delta(1, 0, 100));
        series.add(START_MS + 40_000, 1000, &delta(2, 0, 100));
        let points = series.points(START_MS + 60_000, COARSE_STEP_S, 6);
        let requests: Vec<u64> = points.iter().map(|(_, counts)| counts.requests).collect();
        assert_eq!(requests, [1, 0, 0, 0, 2, 0]);
        assert!(!series.idle_for(START_MS + 60_000, 60));
        assert!(series.idle_for(START_MS + 120_000, 60));
    }

    #[test]
    fn a_strange_histogram_is_survived() {
        let counts = Counts::of(&EdgeDelta {
            requests: 3,
            failures: 9,
            latency_buckets: vec![5000, 1],
            latency_counts: vec![u64::MAX],
            ..EdgeDelta::default()
        });
        assert_eq!((counts.requests, counts.failures), (3, 3));
        assert!(counts.quantile_ms(0.99).is_some());
    }
}
