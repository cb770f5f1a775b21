//! A bound on requests under way at a time.

use std::{cell::Cell, rc::Rc};

use crate::error::{Reason, Refusal};

/// Counts requests under way against a bound.
#[derive(Debug)]
pub struct Limit {
    most: Cell<u32>,
    now: Rc<Cell<u32>>,
}

/// A request's place; free again when dropped.
#[derive(Debug)]
pub struct Place(Rc<Cell<u32>>);

impl Limit {
    /// With nothing under way.
    pub fn new(most: u32) -> Self {
        Self { most: Cell::new(most), now: Rc::default() }
    }

    /// Changes the bound; what is under way stays.
    pub fn set(&self, most: u32) {
        self.most.set(most);
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Reason::TooManyRequests`].
    pub fn enter(&self) -> Result<Option<Place>, Refusal> {
        let now = self.now.get();
        if now >= self.most.get() {
            return Err(Refusal::new(Reason::TooManyRequests, format_args!("{} at a time", self.most.get())));
        }
        self.now.set(now + 1);
        Ok(Some(Place(self.now.clone())))
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
        let limit = Limit::new(2);
        let held = (limit.enter().expect("one"), limit.enter().expect("two"));
        let refused = limit.enter().expect_err("no third");
        assert_eq!(refused.reason, Reason::TooManyRequests);
        drop(held.0);
        assert!(limit.enter().is_ok());
        limit.set(0);
        assert!(limit.enter().is_err());
    }
}
