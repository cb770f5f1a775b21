//! The circuit breaker of one endpoint: closed → open → half-open. A pure state machine; time and chance are
//! arguments.

use std::time::Duration;

use pillion_api::model::CircuitBreaker;
use tokio::time::Instant;

use crate::telemetry::report::BreakerState;

/// Buckets of the window; the oldest is dropped as time goes on.
const BUCKETS: usize = 10;
/// Up to this much is added to an open time, so that many sidecars do not probe at once.
const JITTER: f64 = 0.1;

/// How a request got past a breaker; to be given back with its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    way: Way,
    /// The breaker's episode at the time: results of an earlier one say nothing about this one.
    episode: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As usual.
    Pass,
    /// To see whether the endpoint has recovered.
    Probe,
    /// Although the breaker is open, because too many are.
    Panic,
}

impl Permit {
    /// For an endpoint without a breaker.
    pub const UNGUARDED: Self = Self { way: Way::Pass, episode: 0 };

    /// Whether its result decides if the endpoint is let back in.
    pub fn is_probe(self) -> bool {
        self.way == Way::Probe
    }
}

/// A breaker's change, for logs and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It opened.
    Opened,
    /// It closed.
    Closed,
}

/// One endpoint's breaker.
#[derive(Debug)]
pub struct Breaker {
    config: CircuitBreaker,
    state: State,
    consecutive: u32,
    window: Window,
    /// Openings in a row without a lasting recovery; sets the open time.
    streak: u32,
    closed_at: Option<Instant>,
    /// Grows with every opening and closing.
    episode: u64,
    opened: u64,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { probes: u32 },
}

impl Breaker {
    /// Closed.
    pub fn new(config: CircuitBreaker) -> Self {
        Self {
            window: Window::new(config.window),
            config,
            state: State::Closed,
            consecutive: 0,
            streak: 0,
            closed_at: None,
            episode: 0,
            opened: 0,
            reason: String::new(),
        }
    }

    /// Takes a new configuration; state stays, counts begin anew if the window changes.
    pub fn reconfigure(&mut self, config: CircuitBreaker) {
        if config.window != self.config.window {
            self.window = Window::new(config.window);
        }
        self.config = config;
    }

    /// Whether a request would be let through now.
    pub fn available(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen { probes } => probes < self.config.half_open_requests,
        }
    }

    /// Lets a request through. To be called only where [`Self::available`], or in panic.
    pub fn admit(&mut self, now: Instant) -> Permit {
        let way = match &mut self.state {
            State::Closed => Way::Pass,
            State::Open { until } if now >= *until => {
                self.state = State::HalfOpen { probes: 1 };
                Way::Probe
            }
            State::HalfOpen { probes } if *probes < self.config.half_open_requests => {
                *probes += 1;
                Way::Probe
            }
            State::Open { .. } | State::HalfOpen { .. } => Way::Panic,
        };
        Permit { way, episode: self.episode }
    }

    /// Takes in a request's result. `random` is in 0..1.
    pub fn record(&mut self, now: Instant, permit: Permit, success: bool, random: f64) -> Option<Change> {
        if permit.episode != self.episode {
            return None;
        }
        match (self.state, permit.way) {
            (State::Closed, _) => self.count(now, success, random),
            (State::HalfOpen { .. }, Way::Probe) if success => {
                self.close(now);
                Some(Change::Closed)
            }
            (State::HalfOpen { .. }, Way::Probe) => {
                self.open(now, random, "the probe failed".into());
                Some(Change::Opened)
            }
            // What was under way when it opened says nothing new.
            (State::Open { .. } | State::HalfOpen { .. }, _) => None,
        }
    }

    /// A request ended without a result, after `waited`: its caller went away. A probe that kept its caller waiting
    /// for longer than the open time has told enough; any other frees its place.
    pub fn cancel(&mut self, now: Instant, permit: Permit, waited: Duration, random: f64) -> Option<Change> {
        if permit.episode != self.episode || !permit.is_probe() {
            return None;
        }
        if waited >= self.config.base_open {
            return self.record(now, permit, false, random);
        }
        if let State::HalfOpen { probes } = &mut self.state {
            *probes = probes.saturating_sub(1);
        }
        None
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Times that it opened, and why it last did (empty if never).
    pub fn history(&self) -> (u64, &str) {
        (self.opened, &self.reason)
    }

    fn count(&mut self, now: Instant, success: bool, random: f64) -> Option<Change> {
        self.window.add(now, success);
        if success {
            self.consecutive = 0;
            return None;
        }
        self.consecutive += 1;
        if self.consecutive >= self.config.consecutive_failures {
            let reason = format!("{} consecutive failures", self.consecutive);
            self.open(now, random, reason);
            return Some(Change::Opened);
        }
        let (failed, total) = self.window.totals(now);
        if total >= self.config.minimum_requests
            && f64::from(failed) >= self.config.failure_ratio * f64::from(total)
        {
            let reason = format!("{failed} of {total} requests failed within {:?}", self.config.window);
            self.open(now, random, reason);
            return Some(Change::Opened);
        }
        None
    }

    fn open(&mut self, now: Instant, random: f64, reason: String) {
        // A recovery that did not last as long as the last open time was none.
        let lasted = self.closed_at.is_none_or(|at| now - at > self.open_time());
        self.streak = if matches!(self.state, State::Closed) && lasted { 1 } else { self.streak + 1 };
        let time = self.open_time().mul_f64(1.0 + JITTER * random);
        self.state = State::Open { until: now + time };
        self.episode += 1;
        self.opened += 1;
        self.reason = reason;
    }

    fn open_time(&self) -> Duration {
        let doublings = self.streak.saturating_sub(1).min(20);
        self.config.base_open.saturating_mul(1 << doublings).min(self.config.max_open)
    }

    fn close(&mut self, now: Instant) {
        self.state = State::Closed;
        self.episode += 1;
        self.closed_at = Some(now);
        self.consecutive = 0;
        self.window = Window::new(self.config.window);
    }
}

/// Exact counts of the last while, in buckets.
#[derive(Debug)]
struct Window {
    bucket: Duration,
    start: Option<Instant>,
    /// Number of the newest bucket since `start`.
    newest: u64,
    counts: [(u32, u32); BUCKETS],
}

impl Window {
    fn new(length: Duration) -> Self {
        let bucket = (length / BUCKETS as u32).max(Duration::from_millis(1));
        Self { bucket, start: None, newest: 0, counts: Default::default() }
    }

    fn advance(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let number = (now.saturating_duration_since(start).as_nanos() / self.bucket.as_nanos()) as u64;
        let passed = number.saturating_sub(self.newest).min(BUCKETS as u64);
        for step in 1..=passed {
            self.counts[((number - passed + step) % BUCKETS as u64) as usize] = (0, 0);
        }
        self.newest = self.newest.max(number);
    }

    fn add(&mut self, now: Instant, success: bool) {
        self.advance(now);
        let bucket = &mut self.counts[(self.newest % BUCKETS as u64) as usize];
        bucket.0 += u32::from(!success);
        bucket.1 += 1;
    }

    /// Failed and all.
    fn totals(&mut self, now: Instant) -> (u32, u32) {
        self.advance(now);
        self.counts.iter().fold((0, 0), |sum, bucket| (sum.0 + bucket.0, sum.1 + bucket.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Instant {
        Instant::from_std(std::time::Instant::now())
    }

    fn breaker(change: impl FnOnce(&mut CircuitBreaker)) -> Breaker {
        let mut config = CircuitBreaker::default();
        change(&mut config);
        Breaker::new(config)
    }

    /// A result of a request that was admitted just now.
    fn result(breaker: &mut Breaker, now: Instant, success: bool, random: f64) -> Option<Change> {
        let permit = breaker.admit(now);
        breaker.record(now, permit, success, random)
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 3), start());
        for success in [false, false, true, false, false] {
            assert_eq!(result(&mut breaker, now, success, 0.0), None);
        }
        assert_eq!(result(&mut breaker, now, false, 0.0), Some(Change::Opened));
        assert_eq!(breaker.history(), (1, "3 consecutive failures"));
        assert!(!breaker.available(now));
        assert!(breaker.available(now + seconds(1)));
    }

    #[test]
    fn opens_on_a_failure_ratio_with_enough_requests_in_the_window() {
        let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 100), start());
        // Half of nine is too few to tell.
        for i in 0..9 {
            assert_eq!(result(&mut breaker, now, i % 2 == 0, 0.0), None);
        }
        // Old failures are forgotten with their buckets.
        let later = now + seconds(30);
        for i in 0..9 {
            assert_eq!(result(&mut breaker, later, i % 2 == 0, 0.0), None);
        }
        assert_eq!(result(&mut breaker, later, false, 0.0), Some(Change::Opened));
        assert_eq!(breaker.history().1, "5 of 10 requests failed within 10s");
    }

    #[test]
    fn a_burst_of_success_long_ago_does_not_hide_failures() {
        let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 1000), start());
        for _ in 0..10_000 {
            result(&mut breaker, now, true, 0.0);
        }
        let later = now + seconds(11);
        let opened = (0..10).filter_map(|_| result(&mut breaker, later, false, 0.0)).count();
        assert_eq!(opened, 1);
    }

    #[test]
    fn half_open_lets_a_bounded_number_through() {
        let (mut breaker, now) =
            (breaker(|c| (c.consecutive_failures, c.half_open_requests) = (1, 2)), start());
        let early = breaker.admit(now);
        result(&mut breaker, now, false, 0.0);
        let later = now + seconds(1);
        let probes = [breaker.admit(later), breaker.admit(later)];
        assert!(probes.iter().all(|permit| permit.is_probe()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(!breaker.available(later));
        breaker.cancel(later, probes[0], Duration::ZERO, 0.0);
        assert!(breaker.available(later), "a cancelled probe frees its place");
        assert_eq!(breaker.record(later, early, false, 0.0), None, "old results say nothing");
        assert_eq!(breaker.record(later, probes[1], true, 0.0), Some(Change::Closed));
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..10 {
            assert_eq!(breaker.record(later, early, false, 0.0), None, "nor do they after it closed");
        }
    }

    #[test]
    fn a_probe_that_waited_in_vain_has_failed() {
        let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 1), start());
        result(&mut breaker, now, false, 0.0);
        let later = now + seconds(1);
        let probe = breaker.admit(later);
        let change = breaker.cancel(later + seconds(3), probe, seconds(3), 0.0);
        assert_eq!(change, Some(Change::Opened));
        assert!(!breaker.available(later + seconds(4)));
    }

    #[test]
    fn open_time_doubles_until_a_recovery_lasts() {
        let (mut breaker, mut now) =
            (breaker(|c| (c.consecutive_failures, c.max_open) = (1, seconds(5))), start());
        let fail = |breaker: &mut Breaker, now: Instant| {
            result(breaker, now, false, 0.0);
            let State::Open { until } = breaker.state else { panic!("{:?}", breaker.state) };
            until - now
        };
        assert_eq!(fail(&mut breaker, now), seconds(1));
        for expected in [2, 4, 5, 5] {
            now += seconds(6);
            assert_eq!(fail(&mut breaker, now), seconds(expected));
        }
        // A recovery of a moment goes on where it was; one that lasts starts over.
        now += seconds(6);
        result(&mut breaker, now, true, 0.0);
        assert_eq!(fail(&mut breaker, now + seconds(1)), seconds(5));
        now += seconds(10);
        result(&mut breaker, now, true, 0.0);
        assert_eq!(fail(&mut breaker, now + seconds(60)), seconds(1));
    }

    #[test]
    fn open_time_has_jitter() {
        let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 1), start());
        result(&mut breaker, now, false, 0.5);
        assert!(!breaker.available(now + Duration::from_millis(1049)));
        assert!(breaker.available(now + Duration::from_millis(1051)));
    }

    proptest! {
        /// The window's counts are those of a plain list of everything that happened.
        #[test]
        fn the_window_counts_exactly(events in proptest::collection::vec((0u64..400, any::<bool>()), 1..200)) {
            let begin = start();
            let mut window = Window::new(seconds(10));
            let (mut now, mut all) = (begin, Vec::new());
            for (ms, success) in events {
                now += Duration::from_millis(ms);
                window.add(now, success);
                all.push((now, success));
                let bucket_of = |at: Instant| (at - all[0].0).as_millis() / 1000;
                let kept: Vec<_> = all.iter().filter(|(at, _)| bucket_of(*at) + 10 > bucket_of(now)).collect();
                let failed = kept.iter().filter(|(_, success)| !success).count() as u32;
                prop_assert_eq!(window.totals(now), (failed, kept.len() as u32));
            }
        }

        /// Whatever happens, it is never stuck: some time later a request is let through.
        #[test]
        fn never_stuck(steps in proptest::collection::vec((0u64..3000, 0u8..4), 1..300)) {
            let mut breaker = breaker(|c| c.consecutive_failures = 2);
            let mut now = start();
            let mut permits = Vec::new();
            for (ms, action) in steps {
                now += Duration::from_millis(ms);
                match (action, permits.pop()) {
                    (0, held) => { permits.extend(held); if breaker.available(now) { permits.push(breaker.admit(now)); } }
                    (1, Some(permit)) => { breaker.record(now, permit, true, 0.3); }
                    (2, Some(permit)) => { breaker.record(now, permit, false, 0.3); }
                    (_, Some(permit)) => { breaker.cancel(now, permit, Duration::from_millis(ms), 0.3); }
                    (_, None) => {}
                }
            }
            for permit in permits { breaker.cancel(now, permit, Duration::ZERO, 0.3); }
            prop_assert!(breaker.available(now + seconds(70)));
        }
    }
}
