//! A bound on requests under way at a time.

use std::{cell::Cell, rc::Rc};

use crate::error::{Reason, Refusal};

/// Counts requests under way against a bound.
#[derive(Debug)]
pub struct Limit {
    most: Cell<u32>,
    now: Rc<Cell<u32>>,
    reason: Reason,
}

/// A request's place; free again when dropped.
#[derive(Debug)]
pub struct Place(Rc<Cell<u32>>);

impl Limit {
    /// With nothing under way. `reason` is that of a refusal.
    pub fn new(most: u32, reason: Reason) -> Self {
        Self { most: Cell::new(most), now: Rc::default(), reason }
    }

    /// Requests under way.
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Changes the bound; what is under way stays.
    pub fn set(&self, most: u32) {
        self.most.set(most);
    }

    /// Why there is no place left; `None`: there is one.
    pub fn full(&self) -> Option<Refusal> {
        (self.now.get() >= self.most.get())
            .then(|| Refusal::new(self.reason, format_args!("{} at a time", self.most.get())))
    }

    /// Takes a place.
    ///
    /// # Errors
    /// With the limit's reason, when all are taken.
    pub fn enter(&self) -> Result<Place, Refusal> {
        if let Some(refusal) = self.full() {
            return Err(refusal);
        }
        self.now.set(self.now.get() + 1);
        Ok(Place(self.now.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_and_returned() {
        let limit = Limit::new(2, Reason::TooManyRequests);
        let held = (limit.enter().expect("one"), limit.enter().expect("two"));
        let refused = limit.enter().expect_err("no third");
        assert_eq!(refused.reason, Reason::TooManyRequests);
        drop(held.0);
        assert!(limit.enter().is_ok());
        limit.set(0);
        assert!(limit.enter().is_err());
    }
}
