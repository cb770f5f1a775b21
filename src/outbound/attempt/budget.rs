//! How many retries and hedges a service's requests may have: a share of the requests of the last second, and of the last seconds.
//!
//! What a whole window allows must not come within one second of it: an outage would begin with a burst of retries as large as the
//! load itself. Nor may what a calm second has saved come on top of what the next one earns. So every second has its own part, looked
//! back on from each attempt, and nothing is rounded up. A service that is well can have its part at once; when more is wanted
//! than that, attempts are spread evenly from then on, or each second would begin with a burst as the one before it did.

use std::cell::{Cell, RefCell};

use pillion_api::model::Budget;
use tokio::time::Instant;

/// Parts of a second that are counted by themselves.
const PARTS: u32 = 20;
/// What an attempt costs, and a request earns its percentage of.
const ATTEMPT: u64 = 100;

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attempts after one that failed.
    Retry,
    /// Attempts beside one that is under way.
    Hedge,
}

/// What one worker has sent to one service. Each worker keeps to the share of its own requests, so all of them together do, too.
#[derive(Debug)]
pub struct Budgets {
    base: Instant,
    /// Among whom the least number is divided.
    workers: u32,
    requests: Cell<u64>,
    recent: RefCell<Box<Recent>>,
    paces: [Cell<Pace>; 2],
}

/// The last second, and the last minute.
#[derive(Debug, Default)]
struct Recent {
    parts: Ring<32>,
    seconds: Ring<64>,
}

const _: () = assert!(PARTS < 32 && Budget::MAX_WINDOW < 64);

/// What requests have earned and attempts have not spent, for spreading them.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Requests that have been taken in.
    seen: u64,
    saved: u64,
}

impl Budgets {
    /// Nothing sent yet; the least number of a budget is divided among so many workers.
    pub fn new(workers: usize, now: Instant) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        Self {
            base: now,
            workers,
            requests: Cell::default(),
            recent: RefCell::default(),
            paces: Default::default(),
        }
    }

    /// A request begins.
    pub fn request(&self, now: Instant) {
        self.requests.set(self.requests.get() + 1);
        self.count(now, |slot| slot.requests = slot.requests.saturating_add(1));
    }

    /// Takes one attempt out of a budget. Whether there was one.
    pub fn take(&self, kind: Kind, budget: &Budget, now: Instant) -> bool {
        let mut pace = self.pace(kind, budget);
        let allowed = self.room(kind, budget, now, pace) >= 1;
        if allowed {
            pace.saved = pace.saved.saturating_sub(ATTEMPT);
            self.count(now, |slot| slot.beyond[kind as usize] += 1);
        } else {
            pace.saved = pace.saved.min(ATTEMPT);
        }
        self.paces[kind as usize].set(pace);
        allowed
    }

    /// Gives back an attempt that was taken then and not sent.
    pub fn give_back(&self, kind: Kind, taken: Instant) {
        let (part, second) = self.ticks(taken);
        let mut recent = self.recent.borrow_mut();
        let Recent { parts, seconds } = &mut **recent;
        for slot in [parts.known(part), seconds.known(second)].into_iter().flatten() {
            let beyond = &mut slot.beyond[kind as usize];
            *beyond = beyond.saturating_sub(1);
        }
        let pace = &self.paces[kind as usize];
        let Pace { seen, saved } = pace.get();
        pace.set(Pace { seen, saved: saved + ATTEMPT });
    }

    /// How many attempts a budget allows at this moment.
    pub fn left(&self, kind: Kind, budget: &Budget, now: Instant) -> u64 {
        self.room(kind, budget, now, self.pace(kind, budget))
    }

    fn pace(&self, kind: Kind, budget: &Budget) -> Pace {
        let (Pace { seen, saved }, requests) = (self.paces[kind as usize].get(), self.requests.get());
        Pace { seen: requests, saved: saved.saturating_add((requests - seen) * u64::from(budget.percent)) }
    }

    fn room(&self, kind: Kind, budget: &Budget, now: Instant, pace: Pace) -> u64 {
        let (part, second) = self.ticks(now);
        let recent = self.recent.borrow();
        let share = |requests: u64| requests * u64::from(budget.percent) / 100;
        let (least, workers) = (u64::from(budget.min_per_second), u64::from(self.workers));

        // The oldest part has begun before the second that ends now, so its requests do not count, and its attempts do.
        let earned = share(recent.parts.sum(part, PARTS, |slot| slot.requests));
        let granted = least.div_ceil(workers);
        let taken = recent.parts.sum(part, PARTS + 1, |slot| slot.beyond[kind as usize]);
        // A second cannot have less than one attempt, if its window has any.
        let of_second = earned.max(granted).max(1).saturating_sub(taken);

        let window = budget.window;
        let earned_then = share(recent.seconds.sum(second, window, |slot| slot.requests));
        let granted_then = least * u64::from(window) / workers;
        let taken = recent.seconds.sum(second, window, |slot| slot.beyond[kind as usize]);
        let of_window = earned_then.max(granted_then).saturating_sub(taken);

        let evenly = if earned > granted { pace.saved / ATTEMPT } else { u64::MAX };
        of_second.min(of_window).min(evenly)
    }

    /// Parts and whole seconds since the beginning.
    fn ticks(&self, now: Instant) -> (u32, u32) {
        let passed = now.saturating_duration_since(self.base);
        let second = passed.as_secs() as u32;
        (second.wrapping_mul(PARTS) + passed.subsec_millis() * PARTS / 1000, second)
    }

    fn count(&self, now: Instant, change: impl Fn(&mut Slot)) {
        let (part, second) = self.ticks(now);
        let mut recent = self.recent.borrow_mut();
        change(recent.parts.at(part));
        change(recent.seconds.at(second));
    }
}

/// Counts of the latest stretches of time, all of the same length.
#[derive(Debug)]
struct Ring<const SLOTS: usize>([Slot; SLOTS]);

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    tick: u32,
    requests: u32,
    beyond: [u32; 2],
}

impl<const SLOTS: usize> Default for Ring<SLOTS> {
    fn default() -> Self {
        Self([Slot::default(); SLOTS])
    }
}

impl<const SLOTS: usize> Ring<SLOTS> {
    fn at(&mut self, tick: u32) -> &mut Slot {
        let slot = &mut self.0[tick as usize % SLOTS];
        if slot.tick < tick {
            *slot = Slot { tick, ..Slot::default() };
        }
        slot
    }

    /// Where it is not too long ago.
    fn known(&mut self, tick: u32) -> Option<&mut Slot> {
        Some(&mut self.0[tick as usize % SLOTS]).filter(|slot| slot.tick == tick)
    }

    /// Of so many stretches up to this one.
    fn sum(&self, tick: u32, stretches: u32, of: impl Fn(&Slot) -> u32) -> u64 {
        let ticks = (tick + 1).saturating_sub(stretches)..=tick;
        ticks
            .map(|tick| (tick, &self.0[tick as usize % SLOTS]))
            .filter(|(tick, slot)| slot.tick == *tick)
            .map(|(_, slot)| u64::from(of(slot)))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const RETRIES: Budget = Budget { percent: 20, min_per_second: 0, window: 10 };

    fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// Of as many as are wanted.
    fn taken(budgets: &Budgets, kind: Kind, budget: &Budget, at: Instant) -> usize {
        (0..1000).take_while(|_| budgets.take(kind, budget, at)).count()
    }

    #[test]
    fn what_was_not_sent_is_there_again() {
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        for _ in 0..100 {
            budgets.request(start);
        }
        for _ in 0..1000 {
            assert!(budgets.take(Kind::Hedge, &RETRIES, start));
            budgets.give_back(Kind::Hedge, start);
        }
        assert_eq!(taken(&budgets, Kind::Hedge, &RETRIES, start), 20);
        // Not at the cost of what was taken since.
        let later = start + milliseconds(64_000);
        for _ in 0..100 {
            budgets.request(later);
        }
        assert_eq!(taken(&budgets, Kind::Hedge, &RETRIES, later), 20);
        budgets.give_back(Kind::Hedge, start);
        assert_eq!(budgets.left(Kind::Hedge, &RETRIES, later), 0);
    }

    #[test]
    fn a_share_of_requests_but_at_least_so_many() {
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        let budget = Budget { min_per_second: 1, ..RETRIES };
        for _ in 0..104 {
            budgets.request(start);
        }
        assert_eq!(budgets.left(Kind::Retry, &budget, start), 20);
        assert_eq!(taken(&budgets, Kind::Retry, &budget, start), 20, "nothing is rounded up");
        assert_eq!(taken(&budgets, Kind::Hedge, &budget, start), 20, "hedges have their own");
        assert_eq!(
            taken(&budgets, Kind::Retry, &budget, start + milliseconds(9000)),
            0,
            "the window has had its part"
        );
        for second in 10..30 {
            assert_eq!(
                taken(&budgets, Kind::Retry, &budget, start + milliseconds(1050 * second)),
                1,
                "one per second"
            );
        }
        assert_eq!(budgets.left(Kind::Retry, &budget, start + Duration::from_secs(3600)), 1);
    }

    #[test]
    fn a_service_with_few_requests_gets_what_its_window_earns() {
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        // Two in a second, all of which fail: no second earns an attempt, ten of them earn four.
        let got = (0..120u64).filter(|step| {
            let now = start + milliseconds(500 * step);
            budgets.request(now);
            budgets.take(Kind::Retry, &RETRIES, now)
        });
        let got: Vec<_> = got.collect();
        assert_eq!(got.len(), 24, "of 120: {got:?}");
    }

    #[test]
    fn workers_divide_what_is_granted_without_requests() {
        let start = Instant::now();
        let budgets = Budgets::new(4, start);
        let budget = Budget { min_per_second: 10, ..RETRIES };
        assert_eq!(budgets.left(Kind::Retry, &budget, start), 3, "of 10, rounded up");
        let of = |second: u64| taken(&budgets, Kind::Retry, &budget, start + milliseconds(1050 * second));
        assert_eq!((0..9).map(of).sum::<usize>(), 25, "a quarter of what a whole window has");
        let none = Budget { percent: 0, min_per_second: 0, window: 10 };
        assert!(!budgets.take(Kind::Retry, &none, start));
    }

    /// When attempts were made, of 200 requests/s that all want two more; well before the fifth second.
    fn outage(ends: u64) -> Vec<u64> {
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        let mut attempts = Vec::new();
        for at in (0..ends).step_by(5) {
            let now = start + milliseconds(at);
            budgets.request(now);
            let wanted = if at < 5000 { 0 } else { 2 };
            attempts.extend((0..wanted).filter(|_| budgets.take(Kind::Retry, &RETRIES, now)).map(|_| at));
        }
        attempts
    }

    #[test]
    fn an_outage_has_a_fifth_more_in_no_second_and_evenly() {
        let attempts = outage(65_000);
        let within =
            |from: u64, length: u64| attempts.iter().filter(|at| (from..from + length).contains(at)).count();
        assert!(within(5000, 250) >= 35, "a second's part is there at once");
        for from in (0..64_000).step_by(5) {
            assert!(within(from, 1000) <= 40, "{} from {from} on", within(from, 1000));
        }
        for from in (6200..64_000).step_by(100) {
            assert!((1..=5).contains(&within(from, 100)), "{} from {from} on", within(from, 100));
        }
        let all = within(7000, 58_000);
        assert!(all >= 58 * 38, "of 20 % at most a twentieth is lost: {all}");
    }

    #[test]
    fn failures_here_and_there_find_what_they_need() {
        // One in ten at random, with half of what there is: hardly one of a hundred is refused.
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        let mut runner = 7u64;
        let (mut wanted, mut refused) = (0, 0);
        for at in (0..600_000).step_by(10) {
            let now = start + milliseconds(at);
            budgets.request(now);
            runner = runner.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (runner >> 33).is_multiple_of(10) {
                wanted += 1;
                refused += u32::from(!budgets.take(Kind::Retry, &RETRIES, now));
            }
        }
        assert!(wanted > 5000 && refused * 100 < wanted, "{refused} of {wanted}");
    }

    proptest! {
        /// No attempt is made that is too many for the second that ends with it, or for the window.
        #[test]
        fn is_never_exceeded(
            percent in 0u32..=100, min_per_second in 0u32..5, window in 1u32..=20, workers in 1usize..4,
            events in proptest::collection::vec((0u64..700, 0u32..40, 0u32..10), 1..200),
        ) {
            let start = Instant::now();
            let budgets = Budgets::new(workers, start);
            let budget = Budget { percent, min_per_second, window };
            let (least, workers) = (u64::from(min_per_second), workers as u64);
            let share = |requests: u64| requests * u64::from(percent) / 100;
            let mut at = 0;
            let mut history: Vec<(u64, u64, u64)> = Vec::new();
            for (wait, requests, wanted) in events {
                at += wait;
                let now = start + milliseconds(at);
                for _ in 0..requests { budgets.request(now); }
                let taken = (0..wanted).filter(|_| budgets.take(Kind::Retry, &budget, now)).count() as u64;
                history.push((at, requests.into(), taken));
                if taken == 0 {
                    continue;
                }
                let sums = |counts: &dyn Fn(u64) -> bool| {
                    let those = history.iter().filter(|(at, ..)| counts(*at));
                    those.fold((0, 0), |(requests, taken), it| (requests + it.1, taken + it.2))
                };
                let (requests, taken) = sums(&|then| then + 1000 > at);
                prop_assert!(taken <= share(requests).max(least.div_ceil(workers)).max(1), "{taken} of {requests} in a second");
                let (requests, taken) = sums(&|then| then / 1000 + u64::from(window) > at / 1000);
                let granted = least * u64::from(window) / workers;
                prop_assert!(taken <= share(requests).max(granted), "{taken} of {requests} in a window");
            }
        }
    }
}
