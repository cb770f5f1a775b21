//! Figures over time: for charts, the heatmap of latencies, and the bars of where time went.

use std::collections::BTreeMap;

use pillion_api::{hops::Segment, latency};
use serde::Serialize;
use utoipa::ToSchema;

use super::view::{rounded, rounded_share};
use crate::history::{COARSE_STEP_S, Counts, FINE_SPAN_S, SPAN_S, Series, SpentSums, Tally};

/// What part of the history is asked for: so many seconds until some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) seconds: i64,
    pub(super) until_ms: i64,
    pub(super) now_ms: i64,
}

impl Span {
    /// The finer step where all of it is kept so.
    fn step(&self) -> i64 {
        let from = self.until_ms.div_euclid(1000) - self.seconds;
        let finest = self.now_ms.div_euclid(1000) - FINE_SPAN_S;
        if self.seconds < FINE_SPAN_S && from > finest { 1 } else { COARSE_STEP_S }
    }
}

/// Columns of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeriesView {
    /// Between points.
    pub step_seconds: i64,
    /// The start of each point's span, milliseconds since the Unix epoch.
    pub times_ms: Vec<i64>,
    /// Requests per second.
    pub rps: Vec<f64>,
    /// Null without requests.
    pub success_rate: Vec<Option<f64>>,
    /// Null without requests.
    pub p50_ms: Vec<Option<f64>>,
    /// Null without requests.
    pub p90_ms: Vec<Option<f64>>,
    /// Null without requests.
    pub p99_ms: Vec<Option<f64>>,
    /// Requests per second that failed for the server's or the mesh's sake.
    pub failed: Vec<f64>,
    /// Refusals by sidecars per second, by reason; only reasons that there were.
    pub refusals: BTreeMap<String, Vec<f64>>,
    /// Of edges: those by the callee's sidecar, also of attempts after which another was made.
    pub refusals_by_callee: BTreeMap<String, Vec<f64>>,
    /// How many requests took how long: by point, pairs of a bucket and its count.
    pub latency: Vec<Vec<(u8, u32)>>,
    /// The upper end of each such bucket, milliseconds; the last one has none, and stands for all that took longer.
    pub latency_bounds_ms: Vec<f64>,
    /// Where the time went.
    pub hops: HopSeriesView,
}

/// Where requests' time went over time. Columns of equal length; points without any are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HopSeriesView {
    /// Each point's span.
    pub step_seconds: i64,
    /// Its start, milliseconds since the Unix epoch.
    pub times_ms: Vec<i64>,
    /// Whose time was split.
    pub requests: Vec<u32>,
    /// Mean milliseconds by segment, in the order of the way; only segments that had any.
    pub segments: Vec<HopColumn>,
}

/// One segment over time.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HopColumn {
    /// As in the split itself.
    pub segment: String,
    /// Over all requests, milliseconds.
    pub mean_ms: Vec<f64>,
}

/// Of several series together. Of where the time went, `hops` tell, which may be others.
pub(super) fn series(measured: &[&Series], hops: &[&Series], span: Span) -> SeriesView {
    let step = span.step();
    let count = (span.seconds / step).clamp(1, SPAN_S / step);
    let mut points = Series::new(span.until_ms).points(span.until_ms, step, count);
    for series in measured {
        let counted = series.points(span.until_ms, step, count);
        points.iter_mut().zip(&counted).for_each(|((_, sum), (_, counts))| sum.add(counts));
    }
    let mut view = SeriesView {
        step_seconds: step,
        latency_bounds_ms: (0..latency::BUCKETS).map(|at| latency::bound_us(at) as f64 / 1000.0).collect(),
        hops: hop_series(hops, span),
        ..SeriesView::default()
    };
    let per_second = |count: u64| rounded(count as f64 / step as f64);
    for (index, (start, counts)) in points.iter().enumerate() {
        view.times_ms.push(start * 1000);
        view.rps.push(per_second(counts.requests));
        view.success_rate.push(counts.success_rate().map(rounded_share));
        view.p50_ms.push(counts.quantile_ms(0.5).map(rounded));
        view.p90_ms.push(counts.quantile_ms(0.9).map(rounded));
        view.p99_ms.push(counts.quantile_ms(0.99).map(rounded));
        view.failed.push(per_second(counts.failures));
        view.latency.push(counts.latency().collect());
        let length = points.len();
        let told = |columns: &mut BTreeMap<String, Vec<f64>>, refusals: &BTreeMap<String, u64>| {
            for (reason, &count) in refusals.iter().filter(|(_, count)| **count > 0) {
                let column = columns.entry(reason.clone()).or_insert_with(|| vec![0.0; length]);
                column[index] = per_second(count);
            }
        };
        told(&mut view.refusals, &counts.refusals);
        told(&mut view.refusals_by_callee, &counts.refusals_by_callee);
    }
    view
}

fn hop_series(measured: &[&Series], span: Span) -> HopSeriesView {
    let mut points: BTreeMap<i64, SpentSums> = BTreeMap::new();
    for series in measured {
        for (start, sums) in series.hop_points(span.until_ms, (span.seconds / COARSE_STEP_S).max(1)) {
            points.entry(start).or_default().add(&sums);
        }
    }
    let column = |segment: Segment| HopColumn {
        segment: segment.name().to_owned(),
        mean_ms: points.values().map(|sums| rounded(sums.mean_ms(segment))).collect(),
    };
    let any = |column: &HopColumn| column.mean_ms.iter().any(|mean| *mean > 0.0);
    HopSeriesView {
        step_seconds: COARSE_STEP_S,
        times_ms: points.keys().map(|start| start * 1000).collect(),
        requests: points.values().map(SpentSums::requests).collect(),
        segments: Segment::ALL.into_iter().map(column).filter(any).collect(),
    }
}

/// All series' last `seconds` before some moment, and how long the oldest of them has existed.
pub(super) fn summed<'a>(
    measured: impl IntoIterator<Item = &'a Series>,
    seconds: i64,
    at_ms: i64,
) -> (Counts, f64) {
    let (mut sum, mut existed) = (Counts::default(), 1.0_f64);
    for (counts, seconds) in measured.into_iter().map(|series| series.recent(at_ms, seconds)) {
        sum.add(&counts);
        existed = existed.max(seconds);
    }
    (sum, existed)
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::{EdgeDelta, SegmentDelta};

    use super::*;
    use crate::history::Spent;

    const START_MS: i64 = 1_000_000_000_000;

    fn measured() -> Series {
        let mut series = Series::new(START_MS);
        for second in 0..300 {
            let delta = EdgeDelta {
                requests: 10,
                failures: 2,
                refusals: if second >= 290 { [("no-endpoints".to_owned(), 1)].into() } else { [].into() },
                latency_buckets: vec![3, 7],
                latency_counts: vec![9, 1],
                split_requests: 10,
                segments: vec![SegmentDelta {
                    segment: Segment::Network as i32,
                    sum_us: 20_000,
                    ..SegmentDelta::default()
                }],
                ..EdgeDelta::default()
            };
            series.add(START_MS + second * 1000, 1000, &Counts::of(&delta));
            series.add_hops(START_MS + second * 1000, &Spent::of(&delta).expect("it is split"));
        }
        series
    }

    fn span(seconds: i64, until: i64) -> Span {
        Span { seconds, until_ms: START_MS + until * 1000, now_ms: START_MS + 300_000 }
    }

    #[test]
    fn columns_are_of_one_length_and_the_step_is_as_fine_as_what_is_kept() {
        let series = measured();
        for (seconds, until, step, points) in
            [(60, 300, 1, 60), (300, 300, 10, 30), (60, 200, 10, 6), (1800, 300, 10, 180), (15, 299, 1, 15)]
        {
            let view = super::series(&[&series], &[&series], span(seconds, until));
            assert_eq!((view.step_seconds, view.times_ms.len()), (step, points), "{seconds} s until {until}");
            for length in [view.rps.len(), view.failed.len(), view.latency.len(), view.p99_ms.len()] {
                assert_eq!(length, points);
            }
            assert_eq!(view.times_ms[0], START_MS + (until - points as i64 * step) * 1000);
        }
    }

    #[test]
    fn failures_reasons_latencies_and_hops_are_told_by_time() {
        let series = measured();
        let view = super::series(&[&series, &series], &[&series], span(300, 300));
        assert_eq!((view.rps[0], view.failed[0]), (20.0, 4.0));
        assert_eq!(view.latency[0], [(3, 180), (7, 20)]);
        assert_eq!(view.latency_bounds_ms.len(), latency::BUCKETS);
        let refused = &view.refusals["no-endpoints"];
        assert_eq!((refused.len(), refused[0], refused[29]), (30, 0.0, 2.0));
        let hops = &view.hops;
        assert_eq!((hops.segments.len(), hops.segments[0].segment.as_str()), (1, "network"));
        assert_eq!((hops.segments[0].mean_ms[3], hops.requests[3]), (2.0, 100));
        assert_eq!(hops.times_ms.len(), hops.segments[0].mean_ms.len());
    }
}
