//! How many requests at a time: the gradient of latencies, as Envoy's adaptive concurrency and Netflix's limits have it.
//! Pure: time and chance are arguments.
//!
//! Now and then few requests are let through, and the latency that those have is taken for the best there is (minRTT).
//! From then on each window's median is held against it: `limit × (minRTT + buffer) / median + √limit`. The root lets the
//! limit grow while latency stays, and is what the queue in the application may hold.

use std::time::Duration;

use pillion_api::model::Adaptive;
use tokio::time::Instant;

/// Requests that are let through while the best latency is measured.
const MEASURING: f64 = 3.0;
/// A measurement that sees fewer requests than it is to see ends after so long with those that it has.
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
            let took = u32::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(u32::MAX);
            match self.samples.len() {
                MOST_SAMPLES => self.samples[self.seen % MOST_SAMPLES] = took,
                _ => self.samples.push(took),
            }
            self.seen += 1;
        }
    }

    /// Ends a window or a measurement that is over. `chance`: 0 to 1.
    pub(super) fn turn(&mut self, now: Instant, chance: f64) {
        match self.phase {
            Phase::Measures(since) => {
                let enough = self.seen >= self.settings.min_rtt_requests as usize;
                let over = now.saturating_duration_since(since) >= MEASURE_AT_MOST && self.seen > 0;
                if enough || over {
                    self.min_rtt = self.median().map(|rtt| rtt.max(Duration::from_micros(1)));
                    let interval = self.settings.min_rtt_interval.mul_f64(1.0 + JITTER * chance);
                    self.phase = Phase::Adapts { window: now, measure: now + interval };
                    self.begin();
                }
            }
            Phase::Adapts { measure, .. } if now >= measure => {
                self.phase = Phase::Measures(now);
                self.begin();
            }
            Phase::Adapts { window, measure } if now >= window + self.settings.window => {
                self.adapt();
                self.phase = Phase::Adapts { window: now, measure };
                self.begin();
            }
            Phase::Adapts { .. } => {}
        }
    }

    fn adapt(&mut self) {
        let (Some(best), Some(median)) = (self.min_rtt, self.median()) else { return };
        let allowed = best.as_secs_f64() * (1.0 + self.settings.buffer);
        let gradient = (allowed / median.as_secs_f64().max(1e-6)).clamp(GRADIENT.0, GRADIENT.1);
        let next = self.limit * gradient + self.limit.sqrt();
        // While half of it is not used, latencies do not say that more would do.
        if next > self.limit && f64::from(self.busiest) < self.limit / 2.0 {
            return;
        }
        self.limit = next.clamp(1.0, f64::from(self.settings.max_limit));
    }

    fn median(&mut self) -> Option<Duration> {
        let middle = self.samples.len() / 2;
        if self.samples.is_empty() {
            return None;
        }
        let (_, median, _) = self.samples.select_nth_unstable(middle);
        Some(Duration::from_micros((*median).into()))
    }

    fn begin(&mut self) {
        self.samples.clear();
        self.seen = 0;
        self.busiest = 0;
    }
}
