//! Peak EWMA: a moving average of latency that believes bad news at once and good news slowly.

use std::time::Duration;

use tokio::time::Instant;

/// An estimate of latency. Rises to any higher value at once, sinks towards lower ones with a time constant.
#[derive(Debug, Clone, Copy)]
pub struct PeakEwma {
    us: f64,
    at: Instant,
}

impl PeakEwma {
    /// An estimate to start from, in microseconds.
    pub fn new(us: f64, at: Instant) -> Self {
        Self { us, at }
    }

    /// Takes in one measured latency.
    pub fn observe(&mut self, us: f64, now: Instant, decay: Duration) {
        self.us = if us > self.us { us } else { us + (self.us - us) * self.fade(now, decay) };
        self.at = now;
    }

    /// The estimate now. Without news it sinks, so that a slow endpoint is tried again.
    pub fn current(&self, now: Instant, decay: Duration) -> f64 {
        self.us * self.fade(now, decay)
    }

    /// The estimate when it was last changed, microseconds.
    pub fn last(&self) -> f64 {
        self.us
    }

    fn fade(&self, now: Instant, decay: Duration) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (-passed / decay.as_secs_f64().max(1e-3)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_at_once_and_down_with_time() {
        let start = Instant::from_std(std::time::Instant::now());
        let decay = Duration::from_secs(10);
        let mut ewma = PeakEwma::new(100.0, start);
        ewma.observe(1000.0, start, decay);
        assert_eq!(ewma.last(), 1000.0);
        ewma.observe(100.0, start + decay, decay);
        assert!((ewma.last() - (100.0 + 900.0 / std::f64::consts::E)).abs() < 1e-6);
        let rested = ewma.current(start + decay * 2, decay);
        assert!((rested - ewma.last() / std::f64::consts::E).abs() < 1e-6);
    }
}
