//! When requests are due. Pure: time is an argument.

use std::time::{Duration, Instant};

/// One connection's share of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    first: Instant,
    end: Instant,
    /// Between two requests; `None`: the next one is due as soon as the last one is answered.
    interval: Option<Duration>,
}

impl Schedule {
    /// The share of connection `index` of `count`: at a rate, connections take turns.
    pub(crate) fn new(
        start: Instant,
        length: Duration,
        rate: Option<f64>,
        index: usize,
        count: usize,
    ) -> Self {
        let between = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let first = start + between.unwrap_or_default() * index as u32;
        Self { first, end: start + length, interval: between.map(|between| between * count as u32) }
    }

    /// When the request of this number is due; `None`: no more. With a rate this does not depend on `now`, so that a
    /// slow answer delays none of those that follow it without being seen in their latency.
    pub(crate) fn due(&self, number: u32, now: Instant) -> Option<Instant> {
        let due = self.interval.map_or(now, |interval| self.first + interval * number);
        (due < self.end).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_whatever_the_answers_do() {
        let start = Instant::now();
        let length = Duration::from_secs(1);
        let late = start + Duration::from_secs(100);
        let mut all: Vec<Duration> = Vec::new();
        for index in 0..4 {
            let schedule = Schedule::new(start, length, Some(100.0), index, 4);
            all.extend((0..).map_while(|number| schedule.due(number, late)).map(|due| due - start));
        }
        all.sort();
        let expected: Vec<Duration> = (0..100).map(|k| Duration::from_millis(10 * k)).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn without_a_rate_the_next_is_due_at_once_until_the_end() {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_secs(1), None, 3, 4);
        let later = start + Duration::from_millis(999);
        assert_eq!(schedule.due(7, later), Some(later));
        assert_eq!(schedule.due(8, start + Duration::from_secs(1)), None);
    }
}
