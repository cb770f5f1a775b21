//! What balancers have chosen, in plain cells: by what, and whether of the caller's own zone.

use std::cell::Cell;

/// Why an endpoint was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By the service's algorithm.
    Algorithm,
    /// The request's session is with it.
    Session,
    /// The caller has named it.
    Name,
}

/// Counts since they were last taken.
#[derive(Debug, Default)]
pub struct Counts {
    picks: [[Cell<u64>; 3]; 3],
    panics: Cell<u64>,
    spared: Cell<u64>,
}

impl Counts {
    /// One more. `own`: whether it is of the caller's zone, where both zones are known.
    pub(super) fn count(&self, by: By, own: Option<bool>) {
        let cell = &self.picks[by as usize][own.map_or(2, |own| usize::from(!own))];
        cell.set(cell.get() + 1);
    }

    /// One was chosen although breakers may be open.
    pub(super) fn panic(&self) {
        self.panics.set(self.panics.get() + 1);
    }

    /// A breaker would have opened.
    pub(super) fn spare(&self) {
        self.spared.set(self.spared.get() + 1);
    }

    /// Takes how many were chosen in panic, and how often a breaker was kept closed.
    pub fn take_breakers(&self) -> (u64, u64) {
        (self.panics.take(), self.spared.take())
    }

    /// Takes what there is, but zeros: by what, of which zone (`own`, `other` or `unknown`), how often.
    pub fn take(&self) -> impl Iterator<Item = (By, &'static str, u64)> {
        [By::Algorithm, By::Session, By::Name].into_iter().flat_map(|by| {
            let zones = ["own", "other", "unknown"].into_iter().zip(&self.picks[by as usize]);
            zones.map(move |(zone, cell)| (by, zone, cell.take())).filter(|(_, _, count)| *count > 0)
        })
    }
}
