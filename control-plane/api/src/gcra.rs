//! GCRA (ITU-T I.371): so many in a time, and a burst, by one number that only moves forward.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::model::Rate;

/// A rate, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two.
    pub interval: u64,
    /// How far ahead of the clock an arrival may be.
    pub tolerance: u64,
}

impl Pace {
    /// Of a policy's rate.
    pub fn of(rate: Rate) -> Self {
        Self::new(rate.requests, rate.per, rate.burst)
    }

    /// How many more there may be at once, where what has been had is to be paid for so long from now.
    pub fn left(self, ahead: u64) -> u64 {
        let most = self.tolerance.saturating_add(self.interval);
        most.saturating_sub(ahead) / self.interval.max(1)
    }

    /// So many in a time, of which `burst` may come at once.
    pub fn new(many: u32, per: Duration, burst: u32) -> Self {
        let interval = nanos(per) / u64::from(many.max(1));
        Self { interval, tolerance: interval.saturating_mul(u64::from(burst.max(1)) - 1) }
    }
}

/// A duration as a number of nanoseconds.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When the next one is due, nanoseconds since whatever its owner begins to count at. One atomic, so that threads share it.
#[derive(Debug, Default)]
pub struct Arrival(AtomicU64);

impl Arrival {
    /// Lets one in, and says for how long from now what has been had is to be paid for.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take(&self, pace: Pace, now: u64) -> Result<u64, u64> {
        let mut arrival = self.0.load(Ordering::Relaxed);
        loop {
            let next = arrival.max(now);
            let ahead = next - now;
            if ahead > pace.tolerance {
                return Err(ahead - pace.tolerance);
            }
            let moved = next.saturating_add(pace.interval);
            match self.0.compare_exchange_weak(arrival, moved, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(moved - now),
                Err(other) => arrival = other,
            }
        }
    }

    /// One that was let in here was not let in elsewhere.
    pub fn give_back(&self, pace: Pace) {
        self.0.fetch_sub(pace.interval, Ordering::Relaxed);
    }

    /// When the next one is due.
    pub fn due(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_and_then_the_rate_and_no_more() {
        let (pace, arrival) = (Pace::new(10, Duration::from_secs(1), 5), Arrival::default());
        let admitted = |from: u64, until: u64| {
            (from..until).step_by(1_000_000).filter(|now| arrival.take(pace, *now).is_ok()).count()
        };
        assert_eq!(admitted(0, SECOND), 5 + 9, "a burst of five, and one each 100 ms");
        assert_eq!(admitted(SECOND, 11 * SECOND), 100);
        assert_eq!(admitted(21 * SECOND, 22 * SECOND), 5 + 9, "what was not used comes to one burst");
    }

    #[test]
    fn who_is_too_early_hears_when_to_come() {
        let (pace, arrival) = (Pace::new(1, Duration::from_secs(1), 1), Arrival::default());
        assert_eq!(arrival.take(pace, SECOND), Ok(SECOND));
        assert_eq!(arrival.take(pace, SECOND + SECOND / 4), Err(SECOND * 3 / 4));
        arrival.give_back(pace);
        assert_eq!(arrival.due(), SECOND);
        assert!(arrival.take(pace, SECOND + SECOND / 4).is_ok());
    }
}
