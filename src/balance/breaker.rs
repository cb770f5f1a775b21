//! The circuit breaker of one endpoint: closed → open → half-open. A pure state machine; time and chance are
//! arguments.

use std::time::Duration;

use pillion_api::model::CircuitBreaker;
use tokio::time::Instant;

use super::verdict::{Call, Verdict};
use crate::telemetry::report::BreakerState;

/// Buckets of the window; the oldest is dropped as time goes on.
const BUCKETS: usize = 30;
/// With so many failures the latest part of the window is judged by itself: a minute that went well must not hide what has begun
/// since. Of what fails half of the time, 25 requests are enough on average.
const SUDDEN: u32 = 11;
/// By so many standard deviations (of the binomial distribution) the latest part must be above the share: it is looked at with every
/// failure and in many lengths, and one of so many looks shows nearly anything by chance.
const DEVIATIONS: f64 = 1.5;
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
    /// It would have opened, but as many are left alone already as may be.
    Spared,
}

/// One endpoint's breaker.
#[derive(Debug)]
pub struct Breaker {
    config: CircuitBreaker,
    state: State,
    consecutive: u32,
    /// Attempts in a row that did not reach it.
    unreached: u32,
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
    Open {
        until: Instant,
    },
    /// `since`: when the last probe began.
    HalfOpen {
        probes: u32,
        since: Instant,
    },
}

impl Breaker {
    /// Closed.
    pub fn new(config: CircuitBreaker) -> Self {
        Self {
            window: Window::new(config.window),
            config,
            state: State::Closed,
            consecutive: 0,
            unreached: 0,
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
            State::HalfOpen { probes, since } => self.takes_probe(probes, since, now),
        }
    }

    /// One that has found no answer for as long as the breaker was open does not keep its place for ever.
    fn takes_probe(&self, probes: u32, since: Instant, now: Instant) -> bool {
        probes < self.config.half_open_requests || now.saturating_duration_since(since) >= self.open_time()
    }

    /// Lets a request through. To be called only where [`Self::available`], or in panic.
    pub fn admit(&mut self, now: Instant) -> Permit {
        let way = match self.state {
            State::Closed => Way::Pass,
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen { probes: 1, since: now };
                Way::Probe
            }
            State::HalfOpen { probes, since } if self.takes_probe(probes, since, now) => {
                self.state = State::HalfOpen { probes: probes.saturating_add(1), since: now };
                Way::Probe
            }
            State::Open { .. } | State::HalfOpen { .. } => Way::Panic,
        };
        Permit { way, episode: self.episode }
    }

    /// Takes in a request's result. `may_open`: whether another one may be left alone; `random` is in 0..1.
    pub fn record(
        &mut self,
        now: Instant,
        permit: Permit,
        call: Call,
        may_open: impl FnOnce() -> bool,
        random: f64,
    ) -> Option<Change> {
        if call.verdict == Verdict::Untried {
            return self.cancel(now, permit, Duration::ZERO, random);
        }
        if permit.episode != self.episode {
            return None;
        }
        match (self.state, permit.way) {
            (State::Closed, _) => {
                let reason = self.count(now, call)?;
                if !may_open() {
                    return Some(Change::Spared);
                }
                self.open(now, random, reason);
                Some(Change::Opened)
            }
            (State::HalfOpen { .. }, Way::Probe) => {
                let reason = match call.verdict {
                    Verdict::Failed => "the probe failed".into(),
                    Verdict::Unreached => "the probe could not connect".into(),
                    Verdict::Good if self.is_slow(call) => format!("the probe took {:?}", call.took),
                    Verdict::Good | Verdict::Untried => {
                        self.close(now);
                        return Some(Change::Closed);
                    }
                };
                self.open(now, random, reason);
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
            return self.record(
                now,
                permit,
                Call { verdict: Verdict::Failed, took: waited },
                || true,
                random,
            );
        }
        if let State::HalfOpen { probes, .. } = &mut self.state {
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

    /// What it judges by.
    pub fn config(&self) -> &CircuitBreaker {
        &self.config
    }

    /// Until when it is open.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Over how long an endpoint gets its share back once it has closed: as long as it was open.
    pub fn ramp(&self) -> Duration {
        self.open_time()
    }

    fn is_slow(&self, call: Call) -> bool {
        self.config.slow_calls.is_some_and(|slow| call.took >= slow.threshold)
    }

    /// Counts a result; gives the reason to open, if it is one.
    fn count(&mut self, now: Instant, call: Call) -> Option<String> {
        if call.verdict == Verdict::Unreached {
            // May be the fault of our own side, so it says nothing of what the endpoint would have answered.
            self.unreached = self.unreached.saturating_add(1);
            return (self.unreached >= self.config.consecutive_connect_failures)
                .then(|| format!("{} attempts in a row could not connect", self.unreached));
        }
        self.unreached = 0;
        let (failed, slow) = (call.verdict == Verdict::Failed, self.is_slow(call));
        self.window.add(now, failed, slow);
        if !failed && !slow {
            self.consecutive = 0;
            return None;
        }
        if failed {
            self.consecutive = self.consecutive.saturating_add(1);
            if self.consecutive >= self.config.consecutive_failures {
                return Some(format!("{} consecutive failures", self.consecutive));
            }
        }
        self.judge(format_args!("failed"), self.config.failure_ratio, |counts| counts.failed).or_else(|| {
            let slow = self.config.slow_calls?;
            self.judge(format_args!("took {:?} or longer", slow.threshold), slow.share, |counts| counts.slow)
        })
    }

    /// Whether this share of the window's requests, or of its latest part's, was bad.
    fn judge(
        &self,
        what: std::fmt::Arguments<'_>,
        share: f64,
        bad: impl Fn(Counts) -> u32,
    ) -> Option<String> {
        if self.window.whole().total < self.config.minimum_requests {
            return None;
        }
        let too_many = |(buckets, counts): &(usize, Counts)| {
            let (bad, most) = (bad(*counts), share * f64::from(counts.total));
            if *buckets == BUCKETS {
                return f64::from(bad) >= most;
            }
            // The newest bucket may have begun just now: too short a time to tell anything from.
            let chance = DEVIATIONS * (most * (1.0 - share)).sqrt();
            *buckets > 1 && bad >= SUDDEN && f64::from(bad) >= most + chance
        };
        let (buckets, counts) = self.window.latest().find(too_many)?;
        let whole = self.config.window;
        let part = whole * buckets as u32 / BUCKETS as u32;
        let part = Duration::from_millis(part.as_millis() as u64);
        // A policy names the whole window only: whoever reads of less must see that it is the latest part of that.
        let within = match buckets {
            BUCKETS => format!("within {part:?}"),
            _ => format!("within the last {part:?} of the {whole:?} window"),
        };
        Some(format!("{} of {} requests {what} {within}", bad(counts), counts.total))
    }

    fn open(&mut self, now: Instant, random: f64, reason: String) {
        // A recovery that did not last as long as the last open time, and the window, was none: what fails half of the time passes
        // every other probe.
        let long = self.open_time().max(self.config.window);
        let lasted = self.closed_at.is_none_or(|at| now - at > long);
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
        (self.consecutive, self.unreached) = (0, 0);
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
    counts: [Counts; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    failed: u32,
    slow: u32,
    total: u32,
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
            self.counts[((number - passed + step) % BUCKETS as u64) as usize] = Counts::default();
        }
        self.newest = self.newest.max(number);
    }

    fn add(&mut self, now: Instant, failed: bool, slow: bool) {
        self.advance(now);
        let bucket = &mut self.counts[(self.newest % BUCKETS as u64) as usize];
        bucket.failed += u32::from(failed);
        bucket.slow += u32::from(slow);
        bucket.total += 1;
    }

    fn whole(&self) -> Counts {
        self.latest().last().map_or(Counts::default(), |(_, whole)| whole)
    }

    /// Counts of the newest bucket, of the two newest, and so on.
    fn latest(&self) -> impl Iterator<Item = (usize, Counts)> {
        (1..=BUCKETS).scan(Counts::default(), |sum, buckets| {
            let bucket = self.counts[(self.newest as usize + 1 + BUCKETS - buckets) % BUCKETS];
            sum.failed += bucket.failed;
            sum.slow += bucket.slow;
            sum.total += bucket.total;
            Some((buckets, *sum))
        })
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
