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
pub struct Counts([[Cell<u64>; 3]; 3]);

impl Counts {
    /// One more. `own`: whether it is of the caller's zone, where both zones are known.
    pub(super) fn count(&self, by: By, own: Option<bool>) {
        let cell = &self.0[by as usize][own.map_or(2, |own| usize::from(!own))];
        cell.set(cell.get() + 1);
    }

    /// Takes what there is, but zeros: by what, of which zone (`own`, `other` or `unknown`), how often.
    pub fn take(&self) -> impl Iterator<Item = (By, &'static str, u64)> {
        [By::Algorithm, By::Session, By::Name].into_iter().flat_map(|by| {
            let zones = ["own", "other", "unknown"].into_iter().zip(&self.0[by as usize]);
            zones.map(move |(zone, cell)| (by, zone, cell.take())).filter(|(_, _, count)| *count > 0)
        })
    }
}
