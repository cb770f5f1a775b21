//! How many requests at a time: the gradient of latencies, as Envoy's adaptive concurrency and Netflix's limits have it.
//! Pure: time and chance are arguments.
//!
//! The latency of requests that are few at a time is taken for the best there is (minRTT): of quiet times, and where there were
//! none for long, of a measurement that lets only few through.
//! From then on each window's median is held against it: `limit × (minRTT + buffer) / median + √limit`. The root lets the
//! limit grow while latency stays, and is what the queue in the application may hold.

use std::time::Duration;

use pillion_api::model::Adaptive;
use tokio::time::Instant;

/// Requests that are let through while the best latency is measured.
const MEASURING: f64 = 3.0;
/// A measurement that sees fewer requests than it is to see ends after so long with those that it has; with none, the best
/// latency known before stays.
const MEASURE_AT_MOST: Duration = Duration::from_secs(2);
/// Measurements begin up to this share of their interval later, so that not all workloads measure at once.
const JITTER: f64 = 0.15;
/// A window changes the limit by these factors at most.
const GRADIENT: (f64, f64) = (0.5, 2.0);
/// Latencies kept of one window; more say nothing new.
const MOST_SAMPLES: usize = 512;

/// Finds a limit.
#[derive(Debug)]
pub(super) struct Controller {
    settings: Adaptive,
    /// In force when nothing is being measured.
    limit: f64,
    min_rtt: Option<Duration>,
    phase: Phase,
    /// Microseconds.
    samples: Vec<u32>,
    seen: usize,
    /// Those of windows in which no more were under way than while the best latency is measured: enough of them make a
    /// measurement needless, which would hold requests up.
    quiet: Vec<u32>,
    /// The most requests under way in this window.
    busiest: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The best latency, since then.
    Measures(Instant),
    /// The window and the next measurement begin then.
    Adapts { window: Instant, measure: Instant },
}

impl Controller {
    /// Begins by measuring.
    pub(super) fn new(settings: Adaptive, limit: u32, now: Instant) -> Self {
        let limit = f64::from(limit.min(settings.max_limit));
        Self {
            settings,
            limit,
            min_rtt: None,
            phase: Phase::Measures(now),
            samples: Vec::new(),
            seen: 0,
            quiet: Vec::new(),
            busiest: 0,
        }
    }

    /// Requests that may be under way now.
    pub(super) fn limit(&self) -> u32 {
        match self.phase {
            Phase::Measures(_) => self.limit.min(MEASURING) as u32,
            Phase::Adapts { .. } => self.limit as u32,
        }
    }

    /// The best latency, once it is known.
    pub(super) fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// Goes on with other settings.
    pub(super) fn set(&mut self, settings: Adaptive) {
        self.limit = self.limit.min(f64::from(settings.max_limit));
        self.settings = settings;
    }

    /// So many requests are under way.
    pub(super) fn under_way(&mut self, requests: u32) {
        self.busiest = self.busiest.max(requests);
    }

    /// A request that began at `began` was answered at `now`.
    pub(super) fn answered(&mut self, began: Instant, now: Instant) {
        let counts = match self.phase {
            // One that began before was among many.
            Phase::Measures(since) => began >= since,
            Phase::Adapts { .. } => true,
        };
        if counts {
            self.sample(now.saturating_duration_since(began));
        }
    }

    /// A request that began at `began` was given up at `now` without an answer: it would have taken longer than that.
    /// Overload whose callers all give up shows in nothing else. One that was given up early says nothing.
    pub(super) fn given_up(&mut self, began: Instant, now: Instant) {
        let waited = now.saturating_duration_since(began);
        let slow = self.min_rtt.is_some_and(|best| waited > best.mul_f64(1.0 + self.settings.buffer));
        if slow && matches!(self.phase, Phase::Adapts { .. }) {
            self.sample(waited);
        }
    }

    fn sample(&mut self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match self.samples.len() {
            MOST_SAMPLES => self.samples[self.seen % MOST_SAMPLES] = took,
            _ => self.samples.push(took),
        }
        self.seen += 1;
    }

    /// Ends a window or a measurement that is over. `chance`: 0 to 1.
    pub(super) fn turn(&mut self, now: Instant, chance: f64) {
        match self.phase {
            Phase::Measures(since) => {
                let enough = self.seen >= self.settings.min_rtt_requests as usize;
                let over = now.saturating_duration_since(since) >= MEASURE_AT_MOST;
                if enough || over {
                    self.min_rtt = median(&mut self.samples).or(self.min_rtt);
                    self.phase = Phase::Adapts { window: now, measure: self.next_measurement(now, chance) };
                    self.begin();
                }
            }
            Phase::Adapts { measure, .. } if now >= measure => {
                self.quiet.clear();
                self.phase = Phase::Measures(now);
                self.begin();
            }
            Phase::Adapts { window, measure } if now >= window + self.settings.window => {
                self.adapt();
                let measure = if self.was_quiet_long_enough() {
                    self.min_rtt = median(&mut self.quiet);
                    self.quiet.clear();
                    self.next_measurement(now, chance)
                } else {
                    measure
                };
                self.phase = Phase::Adapts { window: now, measure };
                self.begin();
            }
            Phase::Adapts { .. } => {}
        }
    }

    /// Soon, where nothing is known yet: until then the limit stays what it was at first.
    fn next_measurement(&self, now: Instant, chance: f64) -> Instant {
        let interval = if self.min_rtt.is_none() { MEASURE_AT_MOST } else { self.settings.min_rtt_interval };
        now + interval.mul_f64(1.0 + JITTER * chance)
    }

    /// Keeps this window's samples if it was a quiet one. Whether there are as many by now as a measurement asks for.
    fn was_quiet_long_enough(&mut self) -> bool {
        if f64::from(self.busiest) <= MEASURING {
            self.quiet.extend_from_slice(&self.samples);
        }
        self.quiet.len() >= self.settings.min_rtt_requests as usize
    }

    fn adapt(&mut self) {
        let (Some(best), Some(median)) = (self.min_rtt, median(&mut self.samples)) else { return };
        let allowed = best.as_secs_f64() * (1.0 + self.settings.buffer);
        let gradient = (allowed / median.as_secs_f64().max(1e-6)).clamp(GRADIENT.0, GRADIENT.1);
        let next = self.limit * gradient + self.limit.sqrt();
        // While half of it is not used, latencies do not say that more would do.
        if next > self.limit && f64::from(self.busiest) < self.limit / 2.0 {
            return;
        }
        self.limit = next.clamp(1.0, f64::from(self.settings.max_limit));
    }

    fn begin(&mut self) {
        self.samples.clear();
        self.seen = 0;
        self.busiest = 0;
    }
}

/// Of samples in microseconds; at least one, as it is divided by.
fn median(samples: &mut [u32]) -> Option<Duration> {
    let middle = samples.len() / 2;
    if samples.is_empty() {
        return None;
    }
    let (_, median, _) = samples.select_nth_unstable(middle);
    Some(Duration::from_micros((*median).max(1).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many requests at a time, of this latency, for so long. Whether anything was measured meanwhile.
    fn run(
        controller: &mut Controller,
        now: &mut Instant,
        at_a_time: u32,
        took: Duration,
        long: Duration,
    ) -> bool {
        let end = *now + long;
        let mut measured = false;
        while *now < end {
            controller.under_way(at_a_time);
            for _ in 0..at_a_time {
                controller.answered(*now, *now + took);
            }
            *now += took;
            controller.turn(*now, 0.0);
            measured |= matches!(controller.phase, Phase::Measures(_));
        }
        measured
    }

    #[test]
    fn quiet_times_make_measurements_needless_and_busy_ones_do_not() {
        let (mut now, settings) = (Instant::now(), Adaptive::default());
        let long = settings.min_rtt_interval * 3;
        for (at_a_time, measured) in [(2, false), (20, true)] {
            let mut controller = Controller::new(settings.clone(), 100, now);
            run(&mut controller, &mut now, 2, Duration::from_millis(5), Duration::from_secs(2));
            assert_eq!(controller.min_rtt(), Some(Duration::from_millis(5)));
            let latency = Duration::from_millis(7);
            assert_eq!(run(&mut controller, &mut now, at_a_time, latency, long), measured, "{at_a_time}");
            assert_eq!(controller.min_rtt(), Some(latency));
        }
    }

    #[test]
    fn a_measurement_that_saw_nothing_is_made_again_soon() {
        let mut now = Instant::now();
        let mut controller = Controller::new(Adaptive::default(), 100, now);
        now += Duration::from_secs(3);
        controller.turn(now, 0.0);
        assert_eq!((controller.limit(), controller.min_rtt()), (100, None), "nobody is held up by it");
        run(&mut controller, &mut now, 20, Duration::from_millis(5), Duration::from_secs(3));
        assert_eq!(controller.min_rtt(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn what_was_given_up_early_says_nothing() {
        let mut now = Instant::now();
        let mut controller = Controller::new(Adaptive::default(), 100, now);
        run(&mut controller, &mut now, 2, Duration::from_millis(10), Duration::from_secs(1));
        for (waited, seen) in [(1, 0), (10, 0), (100, 1)] {
            controller.begin();
            controller.given_up(now, now + Duration::from_millis(waited));
            assert_eq!(controller.seen, seen, "{waited} ms");
        }
    }
}
