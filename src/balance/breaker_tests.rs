//! The circuit breaker, with time as an argument.

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use pillion_api::model;

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
    breaker.record(now, permit, answer(success), || true, random)
}

/// Quick.
fn answer(success: bool) -> Call {
    call(if success { Verdict::Good } else { Verdict::Failed }, 1)
}

fn call(verdict: Verdict, ms: u64) -> Call {
    Call { verdict, took: Duration::from_millis(ms) }
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
    let (mut breaker, now) = (
        breaker(|c| {
            (c.consecutive_failures, c.failure_ratio, c.minimum_requests, c.window) =
                (100, 0.5, 10, seconds(10));
        }),
        start(),
    );
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
    let later = now + seconds(31);
    let opened = (0..30).filter_map(|_| result(&mut breaker, later, false, 0.0)).count();
    assert_eq!(opened, 1);
}

#[test]
fn half_open_lets_a_bounded_number_through() {
    let (mut breaker, now) = (breaker(|c| (c.consecutive_failures, c.half_open_requests) = (1, 2)), start());
    let early = breaker.admit(now);
    result(&mut breaker, now, false, 0.0);
    let later = now + seconds(1);
    let probes = [breaker.admit(later), breaker.admit(later)];
    assert!(probes.iter().all(|permit| permit.is_probe()));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(!breaker.available(later));
    breaker.cancel(later, probes[0], Duration::ZERO, 0.0);
    assert!(breaker.available(later), "a cancelled probe frees its place");
    assert_eq!(breaker.record(later, early, answer(false), || true, 0.0), None, "old results say nothing");
    assert_eq!(breaker.record(later, probes[1], answer(true), || true, 0.0), Some(Change::Closed));
    assert_eq!(breaker.state(), BreakerState::Closed);
    for _ in 0..10 {
        assert_eq!(
            breaker.record(later, early, answer(false), || true, 0.0),
            None,
            "nor do they after it closed"
        );
    }
}

#[test]
fn a_probe_that_is_never_answered_does_not_keep_its_place_for_ever() {
    let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 1), start());
    result(&mut breaker, now, false, 0.0);
    let first = now + seconds(1);
    let stuck = breaker.admit(first);
    assert!(!breaker.available(first + Duration::from_millis(999)));
    let second = first + seconds(1);
    assert!(breaker.available(second), "as long as it was open is long enough");
    let probe = breaker.admit(second);
    assert!(probe.is_probe());
    assert!(!breaker.available(second), "one more each time, no more");
    assert!(!breaker.admit(second).is_probe());
    // The late one's going away makes no place beyond the one that there is.
    breaker.cancel(second, stuck, Duration::ZERO, 0.0);
    assert!(!breaker.available(second));
    assert_eq!(breaker.record(second, probe, answer(true), || true, 0.0), Some(Change::Closed));
    assert_eq!(breaker.record(second, stuck, answer(false), || true, 0.0), None, "its time is over");
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

/// What happened, and why it opened, if it did.
fn opening(config: CircuitBreaker, calls: &[Call]) -> Option<String> {
    let (mut breaker, now) = (Breaker::new(config), start());
    for call in calls {
        let permit = breaker.admit(now);
        breaker.record(now, permit, *call, || true, 0.0);
    }
    (breaker.state() == BreakerState::Open).then(|| breaker.history().1.to_owned())
}

#[test]
fn each_way_of_opening_has_its_reason() {
    use Verdict::{Failed, Good, Unreached};
    let config = CircuitBreaker {
        consecutive_failures: 3,
        consecutive_connect_failures: 2,
        minimum_requests: 4,
        slow_calls: Some(model::SlowCalls { threshold: Duration::from_millis(500), share: 0.5 }),
        ..CircuitBreaker::default()
    };
    let (good, failed, unreached) = (call(Good, 1), call(Failed, 1), call(Unreached, 1));
    let slow = call(Good, 500);
    let table: &[(&[Call], Option<&str>)] = &[
        (&[failed, failed, good, failed, failed], Some("3 of 4 requests failed within 30s")),
        (&[failed, failed, failed], Some("3 consecutive failures")),
        // Attempts to connect are counted by themselves.
        (&[unreached, failed, unreached, failed, unreached], None),
        (&[failed, failed, unreached, unreached], Some("2 attempts in a row could not connect")),
        (&[unreached, good, unreached], None),
        // A slow success does not end a row of failures, and is none itself.
        (&[failed, failed, slow, failed], Some("3 consecutive failures")),
        (&[slow, slow, slow], None),
        (&[good, good, slow, slow], Some("2 of 4 requests took 500ms or longer within 30s")),
        (&[good, good, good, slow, call(Good, 499)], None),
    ];
    for (calls, expected) in table {
        assert_eq!(opening(config.clone(), calls).as_deref(), *expected, "{calls:?}");
    }
    let quick = CircuitBreaker { slow_calls: None, ..config };
    assert_eq!(opening(quick, &[slow; 20]), None, "nothing is slow where nobody says so");
}

#[test]
fn a_slow_probe_has_failed() {
    let slow_calls = Some(model::SlowCalls { threshold: Duration::from_millis(500), share: 0.5 });
    let (mut breaker, now) = (breaker(|c| (c.consecutive_failures, c.slow_calls) = (1, slow_calls)), start());
    result(&mut breaker, now, false, 0.0);
    for (at, last, expected) in [
        (1, call(Verdict::Good, 600), "the probe took 600ms"),
        (4, call(Verdict::Unreached, 1), "the probe could not connect"),
    ] {
        let probe = breaker.admit(now + seconds(at));
        assert_eq!(breaker.record(now + seconds(at), probe, last, || true, 0.0), Some(Change::Opened));
        assert_eq!(breaker.history().1, expected);
    }
}

#[test]
fn one_too_many_is_spared_until_there_is_room() {
    let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 2), start());
    let mut fail = |room: bool| {
        let permit = breaker.admit(now);
        breaker.record(now, permit, answer(false), || room, 0.0)
    };
    assert_eq!([fail(false), fail(false), fail(false)], [None, Some(Change::Spared), Some(Change::Spared)]);
    assert_eq!(fail(true), Some(Change::Opened));
}

#[test]
fn the_latest_part_is_judged_by_itself() {
    let (mut breaker, mut now) = (breaker(|c| c.consecutive_failures = 1000), start());
    let mut request = |success| {
        now += Duration::from_millis(50);
        result(&mut breaker, now, success, 0.0)
    };
    // A minute that went well; then every other one fails. The whole window would need 18 s for its 30 %.
    assert_eq!((0..1200).find_map(|_| request(true)), None);
    let opened = (0..).position(|number| request(number % 2 == 1).is_some());
    assert_eq!(opened, Some(20), "after a second");
    assert_eq!(breaker.history().1, "11 of 21 requests failed within the last 2s of the 30s window");
}

#[test]
fn too_few_requests_mean_nothing() {
    let (mut breaker, now) = (breaker(|c| c.consecutive_failures = 1000), start());
    let mut opened =
        (0..29).filter_map(|i| result(&mut breaker, now + Duration::from_millis(1000 * i), false, 0.0));
    assert_eq!(opened.next(), None);
    assert_eq!(result(&mut breaker, now + seconds(29), false, 0.0), Some(Change::Opened));
}

/// Requests that come independently of each other; each fails with this probability.
struct Steady {
    random: SmallRng,
    per_second: f64,
    failing: f64,
}

impl Steady {
    /// How long until the breaker opens, if it does in this time; from `now` on, which moves on.
    fn opens(&self, breaker: &mut Breaker, now: &mut Instant, within: Duration) -> Option<Duration> {
        let (mut random, began) = (self.random.clone(), *now);
        while *now - began < within {
            let gap = -(1.0 - random.random::<f64>()).ln() / self.per_second;
            *now += Duration::from_secs_f64(gap);
            if result(breaker, *now, random.random::<f64>() >= self.failing, 0.0).is_some() {
                return Some(*now - began);
            }
        }
        None
    }
}

/// How often the default breaker opens in an hour.
fn openings(seed: u64, per_second: f64, failing: f64) -> u32 {
    let (mut now, end) = (start(), start() + seconds(3600));
    let mut opened = 0;
    loop {
        let random = SmallRng::seed_from_u64(seed + 1000 * u64::from(opened));
        let left = end.saturating_duration_since(now);
        match (Steady { random, per_second, failing }).opens(&mut breaker(|_| {}), &mut now, left) {
            Some(_) => opened += 1,
            None => return opened,
        }
    }
}

/// What a service may always have does not open the default breaker, at no rate.
#[test]
fn a_steady_small_part_of_failures_is_borne() {
    for per_second in [1.0, 3.0, 20.0, 40.0, 100.0] {
        for (failing, most) in [(0.01, 0), (0.02, 0), (0.05, 0), (0.1, 1), (0.15, 3)] {
            let opened = openings(1, per_second, failing);
            println!(
                "{per_second:3} requests/s, {:2} % fail: opens {opened} times in an hour",
                100.0 * failing
            );
            assert!(opened <= most, "{per_second} requests/s, {failing}: {opened}");
        }
    }
}

#[test]
fn what_fails_half_of_the_time_is_noticed_within_two_seconds() {
    for (per_second, within) in [(20.0, 0.85), (30.0, 0.95), (100.0, 0.99), (1000.0, 0.99)] {
        let mut took: Vec<_> = (0..200)
            .map(|seed| {
                let (mut breaker, mut now) = (breaker(|_| {}), start());
                let random = SmallRng::seed_from_u64(seed);
                let well = Steady { random, per_second, failing: 0.01 };
                assert_eq!(
                    well.opens(&mut breaker, &mut now, Duration::from_millis(30_000 + 5 * seed)),
                    None
                );
                let bad = Steady { random: SmallRng::seed_from_u64(seed + 1000), failing: 0.5, ..well };
                bad.opens(&mut breaker, &mut now, seconds(60)).expect("it opens at last")
            })
            .collect();
        took.sort_unstable();
        let quick = took.iter().filter(|took| **took <= seconds(2)).count() as f64 / took.len() as f64;
        println!(
            "{per_second:4} requests/s: {:.1} % within 2 s, half within {:?}",
            100.0 * quick,
            took[took.len() / 2]
        );
        assert!(quick >= within, "{per_second} requests/s: {quick}");
    }
}

proptest! {
    /// The window's counts are those of a plain list of everything that happened.
    #[test]
    fn the_window_counts_exactly(events in proptest::collection::vec((0u64..1200, any::<bool>(), any::<bool>()), 1..200)) {
        let begin = start();
        let mut window = Window::new(seconds(30));
        let (mut now, mut all) = (begin, Vec::new());
        for (ms, success, slow) in events {
            now += Duration::from_millis(ms);
            window.add(now, !success, slow);
            all.push((now, success, slow));
            let bucket_of = |at: Instant| (at - all[0].0).as_millis() / 1000;
            let kept: Vec<_> = all.iter().filter(|(at, ..)| bucket_of(*at) + 30 > bucket_of(now)).collect();
            let failed = kept.iter().filter(|(_, success, _)| !success).count() as u32;
            let slow = kept.iter().filter(|(.., slow)| *slow).count() as u32;
            prop_assert_eq!(window.whole(), Counts { failed, slow, total: kept.len() as u32 });
        }
    }

    /// Whatever happens, it is never stuck: some time later a request is let through.
    #[test]
    fn never_stuck(steps in proptest::collection::vec((0u64..3000, 0u8..8), 1..300)) {
        let slow_calls = Some(model::SlowCalls { threshold: Duration::from_millis(500), share: 0.1 });
        let mut breaker = breaker(|c| {
            (c.consecutive_failures, c.consecutive_connect_failures, c.minimum_requests) = (2, 2, 2);
            c.slow_calls = slow_calls;
        });
        let mut now = start();
        let mut permits = Vec::new();
        for (ms, action) in steps {
            now += Duration::from_millis(ms);
            match (action, permits.pop()) {
                (0, held) => { permits.extend(held); if breaker.available(now) { permits.push(breaker.admit(now)); } }
                (1, Some(permit)) => { breaker.record(now, permit, answer(true), || true, 0.3); }
                (2, Some(permit)) => { breaker.record(now, permit, answer(false), || true, 0.3); }
                (3, Some(permit)) => { breaker.record(now, permit, call(Verdict::Unreached, ms), || true, 0.3); }
                (4, Some(permit)) => { breaker.record(now, permit, call(Verdict::Untried, ms), || true, 0.3); }
                (5, Some(permit)) => { breaker.record(now, permit, call(Verdict::Good, 500), || true, 0.3); }
                (6, Some(permit)) => { breaker.record(now, permit, answer(false), || false, 0.3); }
                (_, Some(permit)) => { breaker.cancel(now, permit, Duration::from_millis(ms), 0.3); }
                (_, None) => {}
            }
        }
        for permit in permits { breaker.cancel(now, permit, Duration::ZERO, 0.3); }
        prop_assert!(breaker.available(now + seconds(70)));
    }
}
