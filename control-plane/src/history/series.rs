//! Golden figures over time: counts in time buckets, fine for the last two minutes and coarse for thirty.
//!
//! Empty buckets are not kept, histograms are sparse and reasons few, so a series has a fixed upper size and an idle
//! one costs nothing.

use std::ops::Range;

use super::{
    counts::Counts,
    hops::{HopSeries, Spent, SpentSums},
    ring::Ring,
};

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
/// Of what was measured in a longer interval, what is older is spread in steps of [`COARSE_STEP_S`] also over the finer buckets:
/// figures of the last ten seconds do not show it.
const SPREAD_BY_SECOND_S: i64 = 20;

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
    /// over its last seconds, and over tens of seconds before, so that it does not show as a spike of now.
    pub fn add(&mut self, now_ms: i64, interval_ms: u32, counts: &Counts) {
        let now = now_ms.div_euclid(1000);
        let seconds = (i64::from(interval_ms) + 499).div_euclid(1000).clamp(1, FINE_SPAN_S);
        if seconds == 1 {
            self.fine.add(now, counts);
            self.coarse.add(now, counts);
            return;
        }
        // Whoever was cut off together tells it together, and everybody waits meanwhile: some 45 shares are the most.
        let span = now + 1 - seconds..now + 1;
        let late = (span.end - SPREAD_BY_SECOND_S).max(span.start);
        let mut fine = |last, share: &_| self.fine.add(last, share);
        shares(&span, span.start..late, COARSE_STEP_S, counts, &mut fine);
        shares(&span, late..span.end, 1, counts, &mut fine);
        shares(&span, span.clone(), COARSE_STEP_S, counts, |last, share| self.coarse.add(last, share));
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
        let existed = (until - self.first_s).clamp(1, seconds);
        (ring.sum(until - seconds, until), existed as f64)
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
                Some((_, counts)) => (start, counts),
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
        self.coarse.newest().unwrap_or(self.first_s)
    }

    /// Whether nothing was counted for `seconds`; then it can be forgotten.
    pub fn idle_for(&self, now_ms: i64, seconds: i64) -> bool {
        let newest = self.coarse.newest().map_or(self.first_s, |start| start + COARSE_STEP_S);
        now_ms.div_euclid(1000) - newest > seconds
    }
}

/// Cuts what was counted in a span of seconds, of those `within`, at each multiple of `step`: gives each share's last second and
/// the share.
fn shares(
    span: &Range<i64>,
    within: Range<i64>,
    step: i64,
    counts: &Counts,
    mut add: impl FnMut(i64, &Counts),
) {
    let part = |second: i64| (second - span.start).unsigned_abs();
    let mut start = within.start;
    while start < within.end {
        let end = (start - start.rem_euclid(step) + step).min(within.end);
        add(end - 1, &counts.share(part(start)..part(end), part(span.end)));
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::{latency, wire::EdgeDelta};

    use super::*;

    fn delta(requests: u64, failures: u64, latency_us: u64) -> Counts {
        Counts::of(&EdgeDelta {
            requests,
            failures,
            workload: "web-1".into(),
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
        assert_eq!(sum.encrypted(), Some(true));
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
        series.add(START_MS + 60_000, 20_000, &delta(70, 1, 100));
        let points = series.points(START_MS + 61_000, 1, 60);
        let requests: Vec<u64> = points.iter().map(|(_, counts)| counts.requests).collect();
        assert_eq!(requests.iter().sum::<u64>(), 70);
        assert_eq!(requests.iter().filter(|count| (3..=4).contains(*count)).count(), 20);
        assert_eq!(points.iter().map(|(_, counts)| counts.failures).sum::<u64>(), 1);
    }

    #[test]
    fn a_late_report_is_little_work_and_ten_seconds_have_what_falls_to_them() {
        for (seconds, offset) in (2..=150).flat_map(|seconds| [(seconds, 0), (seconds, 7)]) {
            let mut counts = delta(1000 * seconds.min(120), 60, 10_000);
            counts.refusals.insert("no-endpoints".into(), 13);
            let now = 120 + offset;
            let mut series = Series::new(START_MS);
            series.add(START_MS + now * 1000, (seconds * 1000) as u32, &counts);
            assert!(series.fine.len() <= 31, "{seconds} s are {} shares", series.fine.len());
            assert_eq!(series.fine.sum(0, i64::MAX), counts, "{seconds} s");
            assert_eq!(series.coarse.sum(0, i64::MAX), counts, "{seconds} s");
            for (_, ten) in series.points(START_MS + 140_000, COARSE_STEP_S, 14) {
                assert!(ten.requests <= 10_000, "{seconds} s: {}", ten.requests);
            }
            // Nor later, while it moves through the last ten seconds.
            for later in now..now + 15 {
                let (ten, _) = series.recent(START_MS + later * 1000, 10);
                assert!(ten.requests <= 10_000, "{seconds} s: {}", ten.requests);
            }
        }
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut series = Series::new(START_MS);
        for second in 0..10_000 {
            series.add(START_MS + second * 1000, 1000, &delta(1, 0, 100));
        }
        assert_eq!((series.fine.len(), series.coarse.len()), (120, 180));
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
}
