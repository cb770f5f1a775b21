//! How long a service takes to answer, for hedges that are told by a percentile.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use pillion_api::{
    latency::{self, BUCKETS},
    model::Hedge,
};

/// Answers before anything is said.
const ENOUGH: u32 = 100;
/// After so many the counts are halved, so that they are of late.
const MANY: u32 = 4096;
/// Answers between looks at the counts.
const EVERY: u32 = 64;

/// The times of late, roughly.
#[derive(Debug, Default)]
pub struct Quantiles {
    counts: RefCell<Option<Box<[u64; BUCKETS]>>>,
    total: Cell<u32>,
    /// The last percentile asked for, what it was, and at how many answers.
    last: Cell<Option<(u32, u64, u32)>>,
}

impl Quantiles {
    /// Takes in one answer's time, microseconds.
    pub fn observe(&self, took_us: u64) {
        let mut counts = self.counts.borrow_mut();
        let counts = counts.get_or_insert_with(|| Box::new([0; BUCKETS]));
        counts[latency::index(took_us)] += 1;
        self.total.set(self.total.get() + 1);
        if self.total.get() >= MANY {
            counts.iter_mut().for_each(|count| *count /= 2);
            self.total.set(counts.iter().sum::<u64>() as u32);
            self.last.take();
        }
    }

    /// How long a first attempt is waited for before another goes beside it. `None`: nobody knows yet how long the service takes.
    pub fn patience(&self, hedge: &Hedge) -> Option<Duration> {
        let usual = match hedge.percentile {
            None => None,
            Some(percentile) => Some(Duration::from_micros(self.percentile(percentile)?)),
        };
        [hedge.after, usual].into_iter().flatten().max()
    }

    /// What so many percent of the answers took at most, microseconds. `None`: nobody knows yet.
    fn percentile(&self, percentile: u32) -> Option<u64> {
        let total = self.total.get();
        if total < ENOUGH {
            return None;
        }
        if let Some((of, us, at)) = self.last.get()
            && of == percentile
            && total - at < EVERY
        {
            return Some(us);
        }
        let counts = self.counts.borrow();
        let us = latency::quantile(&counts.as_ref()?[..], f64::from(percentile) / 100.0)? as u64;
        self.last.set(Some((percentile, us, total)));
        Some(us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_nothing_at_first_and_forgets_in_the_end() {
        let quantiles = Quantiles::default();
        for _ in 0..99 {
            quantiles.observe(1000);
        }
        assert_eq!(quantiles.percentile(95), None);
        for _ in 0..5 {
            quantiles.observe(100_000);
        }
        let near =
            |us: Option<u64>, expected: u64| us.is_some_and(|us| us.abs_diff(expected) * 4 <= expected);
        assert!(near(quantiles.percentile(50), 1000), "{:?}", quantiles.percentile(50));
        assert!(near(quantiles.percentile(99), 100_000), "{:?}", quantiles.percentile(99));
        for _ in 0..20_000 {
            quantiles.observe(10_000);
        }
        assert!(near(quantiles.percentile(50), 10_000), "{:?}", quantiles.percentile(50));
    }
}
