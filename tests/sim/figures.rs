//! What is measured of a story, and how it is shown.

use std::{cell::RefCell, ops::Range, time::Duration};

use tokio::time::Instant;

/// Something counted, by the second since the beginning.
#[derive(Debug)]
pub(super) struct Counts {
    began: Instant,
    by_second: RefCell<Vec<u32>>,
}

impl Counts {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, by_second: RefCell::default() }
    }

    pub(super) fn count(&self) {
        let second = self.began.elapsed().as_secs() as usize;
        let mut by_second = self.by_second.borrow_mut();
        if by_second.len() <= second {
            by_second.resize(second + 1, 0);
        }
        by_second[second] += 1;
    }

    pub(super) fn get(&self) -> Vec<u32> {
        self.by_second.borrow().clone()
    }

    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<u32> {
        let mut sum = Vec::new();
        for counts in all {
            let counts = counts.get();
            sum.resize(sum.len().max(counts.len()), 0);
            counts.iter().enumerate().for_each(|(second, count)| sum[second] += count);
        }
        sum
    }
}

/// What a user saw of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    /// Since the beginning.
    pub(super) at: Duration,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    /// The application's own failure.
    Failed,
    /// The sidecar's answer, by the reason's name.
    Refused(&'static str),
    /// What the policy's fallback gives.
    FellBack,
}

/// All that users saw.
#[derive(Debug, Default)]
pub(super) struct Record(RefCell<Vec<Seen>>);

impl Record {
    pub(super) fn add(&self, seen: Seen) {
        self.0.borrow_mut().push(seen);
    }

    /// Of the requests that were sent in these seconds.
    pub(super) fn within(&self, seconds: Range<f64>) -> Part {
        let range = Duration::from_secs_f64(seconds.start)..Duration::from_secs_f64(seconds.end);
        Part(self.0.borrow().iter().copied().filter(|seen| range.contains(&seen.at)).collect())
    }

    /// Something of each second, from `0` on.
    pub(super) fn by_second(&self, of: impl Fn(&Part) -> f64) -> Vec<f64> {
        let last = self.0.borrow().iter().map(|seen| seen.at.as_secs()).max().unwrap_or_default();
        (0..=last).map(|second| of(&self.within(second as f64..(second + 1) as f64))).collect()
    }
}

/// Requests of some part of the time.
#[derive(Debug, PartialEq)]
pub(super) struct Part(Vec<Seen>);

impl Part {
    /// Milliseconds that `share` of the requests took at most.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let mut took: Vec<_> = self.0.iter().map(|seen| seen.took).collect();
        took.sort_unstable();
        let rank = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len().max(1));
        took.get(rank - 1).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }

    /// The share of them that ended so.
    pub(super) fn share(&self, is: impl Fn(Outcome) -> bool) -> f64 {
        self.0.iter().filter(|seen| is(seen.outcome)).count() as f64 / self.0.len().max(1) as f64
    }

    /// The share that did not go well.
    pub(super) fn errors(&self) -> f64 {
        self.share(|outcome| outcome != Outcome::Good)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A picture of a series, one letter for each value; logarithmic, from a hundredth of the highest.
pub(super) fn picture(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let level = |value: f64| ((1.0 + (value / highest).log10() / 2.0) * 7.0).round().clamp(0.0, 7.0) as usize;
    values.iter().map(|value| if *value > 0.0 { LEVELS[level(*value)] } else { ' ' }).collect()
}

/// The highest of a series.
pub(super) fn highest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::MIN, f64::max)
}
