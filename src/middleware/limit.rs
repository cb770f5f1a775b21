//! A bound on requests under way at a time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::error::{Reason, Refusal};

/// Counts requests under way against a bound.
#[derive(Debug)]
pub struct Limit {
    most: Cell<u32>,
    default: u32,
    now: Count,
    reason: Reason,
    /// In a policy: the field, and which policy says so; none does where it is the default.
    of: RefCell<Option<Field>>,
}

/// A field of policies, and which one has it.
type Field = (&'static str, Option<Box<str>>);

/// Requests under way.
#[derive(Debug, Clone)]
enum Count {
    /// Of the one thread that there is, or that it is about.
    Own(Rc<Cell<u32>>),
    /// Of several threads together.
    Shared(Arc<AtomicU32>),
}

/// A request's place; free again when dropped.
#[derive(Debug)]
pub struct Place(Count);

impl Limit {
    /// Of this thread, with nothing under way. `reason` is that of a refusal.
    pub fn new(most: u32, reason: Reason) -> Self {
        Self::of(most, Count::Own(Rc::default()), reason)
    }

    /// Of all `workers` that count in `together`; one that is alone needs no more than a cell.
    pub fn among(workers: usize, together: &Arc<AtomicU32>, most: u32, reason: Reason) -> Self {
        let now = if workers > 1 { Count::Shared(together.clone()) } else { Count::Own(Rc::default()) };
        Self::of(most, now, reason)
    }

    fn of(most: u32, now: Count, reason: Reason) -> Self {
        Self { most: Cell::new(most), default: most, now, reason, of: RefCell::default() }
    }

    /// Requests under way.
    pub fn now(&self) -> u32 {
        match &self.now {
            Count::Own(now) => now.get(),
            Count::Shared(now) => now.load(Relaxed),
        }
    }

    /// Changes the bound; what is under way stays. It is that `field` of a policy, `<namespace>/<name>`. `None`: which has none,
    /// so that the bound is what it was at first.
    pub fn set(&self, most: Option<u32>, field: &'static str, policy: &str) {
        self.most.set(most.unwrap_or(self.default));
        *self.of.borrow_mut() = Some((field, most.map(|_| policy.into())));
    }

    /// Takes a place.
    ///
    /// # Errors
    /// With the limit's reason, when all are taken.
    pub fn enter(&self) -> Result<Place, Refusal> {
        let more = |now: u32| (now < self.most.get()).then_some(now + 1);
        let entered = match &self.now {
            Count::Own(now) => more(now.get()).map(|more| now.set(more)).is_some(),
            // Never above the bound, not even for a moment: another thread would be refused for it.
            Count::Shared(now) => now.fetch_update(Relaxed, Relaxed, more).is_ok(),
        };
        if entered { Ok(Place(self.now.clone())) } else { Err(self.refusal()) }
    }

    fn refusal(&self) -> Refusal {
        let most = self.most.get();
        match &*self.of.borrow() {
            None => Refusal::new(self.reason, format_args!("{most} at a time")),
            Some((field, None)) => {
                Refusal::new(self.reason, format_args!("{most} at a time, {field} by default"))
            }
            Some((field, Some(policy))) => {
                Refusal::new(self.reason, format_args!("{most} at a time, {field}")).of_policy(policy)
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match &self.0 {
            Count::Own(now) => now.set(now.get() - 1),
            Count::Shared(now) => drop(now.fetch_sub(1, Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_and_returned() {
        let together = Arc::default();
        let among = |workers| Limit::among(workers, &together, 2, Reason::TooManyRequests);
        for limit in [Limit::new(2, Reason::TooManyRequests), among(1), among(2)] {
            let held = (limit.enter().expect("one"), limit.enter().expect("two"));
            let refused = limit.enter().expect_err("no third");
            assert_eq!((refused.reason, limit.now()), (Reason::TooManyRequests, 2));
            drop(held.0);
            assert!(limit.enter().is_ok());
            let said = |most| {
                limit.set(most, "connections.maxRequests", "demo/pay");
                let entered: Vec<_> = std::iter::repeat_with(|| limit.enter()).take(2).collect();
                entered.into_iter().find_map(Result::err).expect("no third").detail
            };
            assert_eq!(said(Some(0)), "0 at a time, connections.maxRequests of TrafficPolicy demo/pay");
            // The policy is about something else.
            assert_eq!(said(None), "2 at a time, connections.maxRequests by default");
            drop(held.1);
            assert_eq!(limit.now(), 0);
        }
    }

    #[test]
    fn several_threads_have_no_more_than_one() {
        const MOST: u32 = 3;
        let (together, inside, worst) = (Arc::default(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let limit = Limit::among(4, &together, MOST, Reason::TooManyRequests);
                    for _ in 0..20_000 {
                        if let Ok(_place) = limit.enter() {
                            worst.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                            inside.fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=MOST).contains(&worst.into_inner()));
        assert_eq!(together.load(Relaxed), 0);
    }
}
