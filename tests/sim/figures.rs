//! What is measured of a story, and how it is shown.

use std::{cell::RefCell, ops::Range, time::Duration};

use tokio::time::Instant;

/// Something counted, by the tenth of a second since the beginning.
#[derive(Debug)]
pub(super) struct Counts {
    began: Instant,
    by_tenth: RefCell<Vec<u32>>,
}

impl Counts {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, by_tenth: RefCell::default() }
    }

    pub(super) fn count(&self) {
        let tenth = (self.began.elapsed().as_millis() / 100) as usize;
        let mut by_tenth = self.by_tenth.borrow_mut();
        if by_tenth.len() <= tenth {
            by_tenth.resize(tenth + 1, 0);
        }
        by_tenth[tenth] += 1;
    }

    /// Of all of these together.
    pub(super) fn tenths<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<u32> {
        let mut sum = Vec::new();
        for counts in all {
            let counts = counts.by_tenth.borrow();
            sum.resize(sum.len().max(counts.len()), 0);
            counts.iter().enumerate().for_each(|(tenth, count)| sum[tenth] += count);
        }
        sum
    }

    /// The same by the second.
    pub(super) fn seconds<'a>(all: impl Iterator<Item = &'a Self>) -> Vec<f64> {
        Self::tenths(all).chunks(10).map(|second| f64::from(second.iter().sum::<u32>())).collect()
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
#[derive(Debug, Default, PartialEq)]
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

    /// What users asked for in each tenth of a second.
    pub(super) fn asked(&self) -> Vec<u32> {
        let mut asked = Vec::new();
        for seen in self.0.borrow().iter() {
            let tenth = (seen.at.as_millis() / 100) as usize;
            asked.resize(asked.len().max(tenth + 1), 0);
            asked[tenth] += 1;
        }
        asked
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

    /// How many took at least so long.
    pub(super) fn slower(&self, than: Duration) -> usize {
        self.0.iter().filter(|seen| seen.took >= than).count()
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

/// What was offered as a multiple of what was asked for, in any run of so many tenths of a second, from one of these on: the most. An
/// attempt after the first comes up to a quarter of a second after its request, so that a run has some attempts of requests from before
/// it, and lacks some of its last ones'.
pub(super) fn most_offered(offered: &[u32], asked: &[u32], from: Range<usize>, tenths: usize) -> f64 {
    let sum = |all: &[u32], from: usize| all[from..from + tenths].iter().sum::<u32>();
    highest(from.map(|from| f64::from(sum(offered, from)) / f64::from(sum(asked, from))))
}

/// The highest of a series.
pub(super) fn highest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::MIN, f64::max)
}
