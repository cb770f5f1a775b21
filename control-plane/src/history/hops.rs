//! Where requests' time went, kept in ten-second and one-minute buckets, and for the picture over time as sums alone in
//! ten-second ones.

use pillion_api::{
    hops::{SEGMENTS, Segment},
    latency,
    wire::EdgeDelta,
};

use super::{
    counts::{Sparse, Tally, bump},
    packed::{self, Packed},
    ring::Ring,
    series::{COARSE_STEP_S, SPAN_S},
};

/// What was counted in some span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    pub(super) requests: u64,
    pub(super) sums_us: [u64; SEGMENTS],
    /// By segment and latency bucket, ascending.
    pub(super) counts: Sparse<(u8, u8)>,
}

impl Spent {
    /// From what a sidecar measured. `None`: it split nothing.
    pub fn of(delta: &EdgeDelta) -> Option<Self> {
        if delta.split_requests == 0 {
            return None;
        }
        let mut spent = Self { requests: delta.split_requests, ..Self::default() };
        for told in delta.segments.iter().take(SEGMENTS) {
            // A segment that a later release tells apart.
            let Some(segment) = usize::try_from(told.segment).ok().filter(|segment| *segment < SEGMENTS)
            else {
                continue;
            };
            let sum = &mut spent.sums_us[segment];
            *sum = sum.saturating_add(told.sum_us);
            for (&bucket, &count) in told.buckets.iter().zip(&told.counts).take(latency::BUCKETS) {
                let bucket = (bucket as usize).min(latency::BUCKETS - 1);
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                bump(&mut spent.counts, (segment as u8, bucket as u8), count);
            }
        }
        Some(spent)
    }

    /// Requests whose time was split.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The mean over all requests, milliseconds: those of all segments add up to the whole requests'.
    pub fn mean_ms(&self, segment: Segment) -> f64 {
        mean_ms(self.sums_us[segment as usize], self.requests)
    }

    /// A quantile over all requests, those included that spent no time there; milliseconds.
    pub fn quantile_ms(&self, segment: Segment, q: f64) -> f64 {
        let mut counts = [0u64; latency::BUCKETS];
        let of_segment = self.counts.iter().filter(|((of, _), _)| usize::from(*of) == segment as usize);
        for ((_, bucket), count) in of_segment {
            counts[usize::from(*bucket)] += u64::from(*count);
        }
        let without = self.requests.saturating_sub(counts.iter().sum());
        if q * self.requests as f64 <= without as f64 {
            return 0.0;
        }
        counts[0] += without;
        latency::quantile(&counts, q).unwrap_or_default() / 1000.0
    }
}

impl Tally for Spent {
    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        for (sum, more) in self.sums_us.iter_mut().zip(other.sums_us) {
            *sum = sum.saturating_add(more);
        }
        other.counts.iter().for_each(|(key, count)| bump(&mut self.counts, *key, *count));
    }
}

impl Packed for Spent {
    fn pack(&self, to: &mut Vec<u8>) {
        packed::put(to, self.requests);
        for (segment, &sum) in self.sums_us.iter().enumerate() {
            let of_segment = self.counts.iter().filter(move |((of, _), _)| usize::from(*of) == segment);
            packed::put(to, sum);
            packed::put_histogram(to, of_segment.map(|((_, bucket), count)| (*bucket, *count)));
        }
    }

    fn add_packed(&mut self, from: &mut &[u8]) -> Option<()> {
        self.requests = self.requests.saturating_add(packed::take(from)?);
        for segment in 0..SEGMENTS {
            let sum = &mut self.sums_us[segment];
            *sum = sum.saturating_add(packed::take(from)?);
            let counts = &mut self.counts;
            packed::take_histogram(from, latency::BUCKETS, |bucket, count| {
                bump(counts, (segment as u8, bucket), count);
            })?;
        }
        Some(())
    }
}

/// The same without the spread: sums are enough for a picture over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpentSums {
    requests: u32,
    sums_us: [u64; SEGMENTS],
}

impl SpentSums {
    pub(super) fn of(spent: &Spent) -> Self {
        let requests = u32::try_from(spent.requests).unwrap_or(u32::MAX);
        Self { requests, sums_us: spent.sums_us }
    }

    /// Requests whose time was split.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// The mean over all requests, milliseconds.
    pub fn mean_ms(&self, segment: Segment) -> f64 {
        mean_ms(self.sums_us[segment as usize], self.requests.into())
    }
}

impl Tally for SpentSums {
    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        for (sum, more) in self.sums_us.iter_mut().zip(other.sums_us) {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Packed for SpentSums {
    fn pack(&self, to: &mut Vec<u8>) {
        packed::put(to, self.requests.into());
        self.sums_us.iter().for_each(|sum| packed::put(to, *sum));
    }

    fn add_packed(&mut self, from: &mut &[u8]) -> Option<()> {
        let requests = u32::try_from(packed::take(from)?).ok()?;
        let mut more = Self { requests, ..Self::default() };
        for sum in &mut more.sums_us {
            *sum = packed::take(from)?;
        }
        self.add(&more);
        Some(())
    }
}

fn mean_ms(sum_us: u64, requests: u64) -> f64 {
    sum_us as f64 / requests.max(1) as f64 / 1000.0
}

/// One thing's, over the last thirty minutes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HopSeries {
    pub(super) fine: Ring<Spent>,
    pub(super) coarse: Ring<Spent>,
    pub(super) sums: Ring<SpentSums>,
}

/// Spans that the finer buckets reach, seconds.
const FINE_SPAN_S: i64 = 120;

/// Empty buckets of ten seconds.
pub(super) fn fine<T: Packed>() -> Ring<T> {
    Ring::new(10, FINE_SPAN_S / 10 + 1)
}

/// Empty buckets of a minute.
pub(super) fn coarse<T: Packed>() -> Ring<T> {
    Ring::new(60, SPAN_S / 60 + 1)
}

/// Of about the last `seconds` before some moment: a bucket that they reach into counts whole. Shares and means are the
/// same for that, and what had just happened is among them.
pub(super) fn recent<T: Packed>(fine: &Ring<T>, coarse: &Ring<T>, at_s: i64, seconds: i64) -> T {
    let from = |width: i64| at_s - seconds - width + 1;
    let is_fine = seconds <= FINE_SPAN_S && fine.reaches(from(10));
    let (ring, from) = if is_fine { (fine, from(10)) } else { (coarse, from(60)) };
    ring.sum(from, at_s + 1)
}

impl HopSeries {
    pub(super) fn new() -> Self {
        Self { fine: fine(), coarse: coarse(), sums: Ring::new(COARSE_STEP_S, SPAN_S / COARSE_STEP_S + 1) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fine.is_empty() && self.coarse.is_empty() && self.sums.is_empty()
    }

    /// Takes what another has of the same thing and this one does not.
    pub(super) fn take_missing(&mut self, other: Self) {
        self.fine.take_missing(other.fine);
        self.coarse.take_missing(other.coarse);
        self.sums.take_missing(other.sums);
    }

    pub(super) fn add(&mut self, now_s: i64, spent: &Spent) {
        self.fine.add(now_s, spent);
        self.coarse.add(now_s, spent);
        self.sums.add(now_s, &SpentSums::of(spent));
    }

    pub(super) fn recent(&self, at_s: i64, seconds: i64) -> Spent {
        recent(&self.fine, &self.coarse, at_s, seconds)
    }

    /// Of so many ten seconds each, the last ones that were complete at `at_s`; only where there are any.
    pub(super) fn points(&self, at_s: i64, points: i64) -> Vec<(i64, SpentSums)> {
        let until = at_s - at_s.rem_euclid(COARSE_STEP_S);
        self.sums.between(until - points * COARSE_STEP_S, until).collect()
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::SegmentDelta;

    use super::*;

    fn delta(requests: u64, segments: &[(Segment, u64, u64)]) -> EdgeDelta {
        let segment = |(segment, us, count): &(Segment, u64, u64)| SegmentDelta {
            segment: *segment as i32,
            sum_us: us * count,
            buckets: vec![latency::index(*us) as u32],
            counts: vec![*count],
        };
        EdgeDelta {
            split_requests: requests,
            segments: segments.iter().map(segment).collect(),
            ..EdgeDelta::default()
        }
    }

    #[test]
    fn means_add_up_and_quantiles_are_of_all_requests() {
        let told = delta(100, &[(Segment::Network, 10_000, 100), (Segment::Retries, 500_000, 2)]);
        let mut spent = Spent::of(&told).expect("it is split");
        let near = |found: f64, expected: f64| (found - expected).abs() <= expected * 0.25;
        assert_eq!((spent.mean_ms(Segment::Network), spent.mean_ms(Segment::Retries)), (10.0, 10.0));
        assert!(near(spent.quantile_ms(Segment::Network, 0.5), 10.0));
        assert_eq!(spent.quantile_ms(Segment::Retries, 0.5), 0.0);
        assert!(near(spent.quantile_ms(Segment::Retries, 0.99), 500.0));
        assert_eq!(spent.quantile_ms(Segment::Application, 0.99), 0.0);
        spent.add(&spent.clone());
        assert_eq!((spent.requests(), spent.mean_ms(Segment::Network)), (200, 10.0));
    }

    #[test]
    fn what_is_recent_has_what_just_happened_and_not_what_was_long_ago() {
        let mut series = HopSeries::new();
        let spent =
            |requests| Spent::of(&delta(requests, &[(Segment::Client, 1000, requests)])).expect("split");
        let now = 1_000_000_000;
        series.add(now - 100, &spent(1));
        series.add(now - 15, &spent(2));
        series.add(now, &spent(4));
        for (seconds, requests) in [(1, 4), (20, 6), (110, 7), (1800, 7)] {
            assert_eq!(series.recent(now, seconds).requests(), requests, "{seconds} s");
        }
        assert_eq!(series.recent(now + 1000, 120).requests(), 0);
        series.add(now + 600, &spent(9));
        assert_eq!(
            series.recent(now, 60).requests(),
            7,
            "from the minutes, what is longer ago than the fine ones reach"
        );
        let points = |at, count| -> Vec<(i64, u32)> {
            series.points(at, count).iter().map(|(start, sums)| (start - now, sums.requests())).collect()
        };
        assert_eq!(points(now + 9, 3), [(-20, 2)]);
        assert_eq!(points(now + 10, 3), [(-20, 2), (0, 4)]);
        assert_eq!(series.points(now + 610, 1)[0].1.mean_ms(Segment::Client), 1.0);
    }

    #[test]
    fn strange_reports_are_survived() {
        let mut told = delta(3, &[(Segment::Client, 1000, u64::MAX >> 12)]);
        told.segments[0].segment = 99;
        told.segments.push(SegmentDelta { segment: -1, sum_us: 1, buckets: vec![1], counts: vec![] });
        let long = SegmentDelta {
            segment: 1,
            sum_us: u64::MAX,
            buckets: vec![9999; 500],
            counts: vec![u64::MAX; 500],
        };
        told.segments.extend([long.clone(), long]);
        let mut spent = Spent::of(&told).expect("it is split");
        spent.add(&spent.clone());
        assert_eq!(spent.counts.len(), 1);
        assert!(spent.quantile_ms(Segment::Client, 0.99).is_finite());
        assert_eq!(Spent::of(&EdgeDelta::default()), None);
    }
}
