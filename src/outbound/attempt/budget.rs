//! How many retries and hedges a service's requests may have: a share of the requests of the last seconds.

use std::cell::RefCell;

use pillion_api::model::Budget;
use tokio::time::Instant;

/// Seconds that are looked back on, and the one under way.
const SLOTS: usize = 64;
const _: () = assert!(SLOTS > Budget::MAX_WINDOW as usize);

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attempts after one that failed.
    Retry,
    /// Attempts beside one that is under way.
    Hedge,
}

/// What one worker has sent to one service, by seconds. Each worker keeps to the share of its own requests, so all of them
/// together do, too.
#[derive(Debug)]
pub struct Budgets {
    base: Instant,
    /// Among whom the least number is divided.
    workers: u32,
    slots: RefCell<Box<[Slot; SLOTS]>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u32,
    requests: u32,
    beyond: [u32; 2],
}

impl Budgets {
    /// Nothing sent yet; the least number of a budget is divided among so many workers.
    pub fn new(workers: usize, now: Instant) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        Self { base: now, workers, slots: RefCell::new(Box::new([Slot::default(); SLOTS])) }
    }

    /// A request begins.
    pub fn request(&self, now: Instant) {
        self.with_slot(now, |slot| slot.requests = slot.requests.saturating_add(1));
    }

    /// Takes one attempt out of a budget. Whether there was one.
    pub fn take(&self, kind: Kind, budget: &Budget, now: Instant) -> bool {
        let allowed = self.left(kind, budget, now) >= 1;
        if allowed {
            self.with_slot(now, |slot| slot.beyond[kind as usize] += 1);
        }
        allowed
    }

    /// How many attempts a budget allows at this moment.
    ///
    /// What a whole window allows must not come within one second of it: an outage would begin with a burst of retries as large as
    /// the load itself. So the second under way has its own part, rounded up, beside what the window has left.
    pub fn left(&self, kind: Kind, budget: &Budget, now: Instant) -> u64 {
        let second = self.second(now);
        let (mut requests, mut taken) = (0u64, 0u64);
        let (mut requests_now, mut taken_now) = (0u64, 0u64);
        for slot in self.slots.borrow().iter() {
            if slot.second <= second && second - slot.second < budget.window {
                requests += u64::from(slot.requests);
                taken += u64::from(slot.beyond[kind as usize]);
                if slot.second == second {
                    requests_now += u64::from(slot.requests);
                    taken_now += u64::from(slot.beyond[kind as usize]);
                }
            }
        }
        let percent = u64::from(budget.percent);
        let (least, workers) = (u64::from(budget.min_per_second), u64::from(self.workers));
        let whole = (requests * percent / 100).max(least * u64::from(budget.window) / workers);
        let part = (requests_now * percent).div_ceil(100).max(least.div_ceil(workers));
        whole.saturating_sub(taken).min(part.saturating_sub(taken_now))
    }

    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.base).as_secs() as u32
    }

    fn with_slot(&self, now: Instant, change: impl FnOnce(&mut Slot)) {
        let second = self.second(now);
        let slot = &mut self.slots.borrow_mut()[second as usize % SLOTS];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        change(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_of_requests_but_at_least_so_many() {
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        let budget = Budget { percent: 20, min_per_second: 1, window: 10 };
        for _ in 0..100 {
            budgets.request(start);
        }
        let taken = |kind, at| (0..1000).take_while(|_| budgets.take(kind, &budget, at)).count();
        assert_eq!(taken(Kind::Retry, start), 20);
        assert_eq!(taken(Kind::Hedge, start), 20, "hedges have their own");
        let later = start + Duration::from_secs(9);
        assert_eq!(taken(Kind::Retry, later), 0);
        let later = start + Duration::from_secs(10);
        for second in 0..20 {
            assert_eq!(taken(Kind::Retry, later + Duration::from_secs(second)), 1, "one per second");
        }
        assert_eq!(budgets.left(Kind::Retry, &budget, later + Duration::from_secs(3600)), 1);
    }

    #[test]
    fn a_second_gets_its_own_share_of_the_windows() {
        let start = Instant::now();
        let budgets = Budgets::new(1, start);
        let budget = Budget { percent: 20, min_per_second: 0, window: 10 };
        let mut now = start;
        for _ in 0..10 {
            (0..100).for_each(|_| budgets.request(now));
            now += Duration::from_secs(1);
        }
        (0..11).for_each(|_| budgets.request(now));
        let taken = (0..1000).take_while(|_| budgets.take(Kind::Retry, &budget, now)).count();
        assert_eq!(taken, 3, "20 % of 11, rounded up, not of all that came in ten seconds");
    }

    #[test]
    fn workers_divide_what_is_granted_without_requests() {
        let start = Instant::now();
        let budgets = Budgets::new(4, start);
        let budget = Budget { percent: 20, min_per_second: 10, window: 10 };
        assert_eq!(budgets.left(Kind::Retry, &budget, start), 3, "of 10, rounded up");
        let taken = |second| {
            (0..1000)
                .take_while(|_| budgets.take(Kind::Retry, &budget, start + Duration::from_secs(second)))
                .count()
        };
        assert_eq!((0..10).map(taken).sum::<usize>(), 25, "a quarter of what a whole window has");
        let none = Budget { percent: 0, min_per_second: 0, window: 10 };
        assert!(!budgets.take(Kind::Retry, &none, start));
    }

    proptest! {
        /// In any run of seconds as long as the window, nobody gets more than the larger of the two.
        #[test]
        fn is_never_exceeded(
            percent in 0u32..=100, min_per_second in 0u32..5, window in 1u32..=20,
            events in proptest::collection::vec((0u64..700, 0u32..10, 0u32..10), 1..200),
        ) {
            let start = Instant::now();
            let budgets = Budgets::new(1, start);
            let budget = Budget { percent, min_per_second, window };
            let mut now = start;
            let mut history: Vec<(u64, u64, u64)> = Vec::new();
            for (wait, requests, wanted) in events {
                now += Duration::from_millis(wait);
                for _ in 0..requests { budgets.request(now); }
                let taken = (0..wanted).filter(|_| budgets.take(Kind::Retry, &budget, now)).count() as u64;
                let second = (now - start).as_secs();
                history.push((second, requests.into(), taken));
                let recent = || history.iter().filter(|(at, ..)| second - at < window.into());
                let (requests, taken) =
                    (recent().map(|entry| entry.1).sum::<u64>(), recent().map(|entry| entry.2).sum::<u64>());
                let share = requests * u64::from(percent) / 100;
                let least = u64::from(min_per_second * window);
                // A window that moves on may leave more behind than it still allows; then nothing was taken just now.
                let last = history.last().map_or(0, |entry| entry.2);
                prop_assert!(last == 0 || taken <= share.max(least), "{taken} of {requests}");
                let now_only = || history.iter().filter(|(at, ..)| *at == second);
                let (requests, taken) =
                    (now_only().map(|entry| entry.1).sum::<u64>(), now_only().map(|entry| entry.2).sum::<u64>());
                let part = (requests * u64::from(percent)).div_ceil(100).max(min_per_second.into());
                prop_assert!(taken <= part, "{taken} of {requests} in a second");
            }
        }
    }
}
