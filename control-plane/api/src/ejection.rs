//! How many of a service's endpoints circuit breakers may leave alone, and when they are ignored. Pure.

use crate::model::CircuitBreaker;

/// Whether breakers are ignored: with too few left, breaking would only push the load onto those until they break too. `broken`: how
/// many of the `ready` have a breaker that is not closed.
pub fn panics(breaker: &CircuitBreaker, ready: usize, broken: usize) -> bool {
    let closed = ready.saturating_sub(broken);
    (closed as f64) < breaker.panic_share * ready as f64
}

/// Whether one more may be left alone.
pub fn may_eject(breaker: &CircuitBreaker, ready: usize, broken: usize) -> bool {
    broken < most_ejected(breaker.max_ejected_share, ready)
}

/// How many of the ready endpoints may be left alone at a time. `None`: all but one of several, and one that is the only one (it is
/// called in panic anyway, and its breaker shows that it fails); else a share, but one of several always.
pub fn most_ejected(share: Option<f64>, ready: usize) -> usize {
    match share {
        None if ready > 1 => ready - 1,
        None => ready,
        Some(share) => ((share * ready as f64) as usize).max(usize::from(ready > 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_may_be_left_alone() {
        for (share, ready, most) in [
            (None, 0, 0),
            (None, 1, 1),
            (None, 2, 1),
            (None, 10, 9),
            (Some(0.0), 1, 0),
            (Some(0.0), 2, 1),
            (Some(0.1), 10, 1),
            (Some(0.5), 5, 2),
            (Some(0.1), 2, 1),
            (Some(0.34), 3, 1),
            (Some(0.67), 3, 2),
            (Some(1.0), 1, 1),
            (Some(1.0), 10, 10),
        ] {
            assert_eq!(most_ejected(share, ready), most, "{share:?} of {ready}");
            let breaker = CircuitBreaker { max_ejected_share: share, ..CircuitBreaker::default() };
            assert!(!may_eject(&breaker, ready, most), "{share:?} of {ready}");
            assert!(most == 0 || may_eject(&breaker, ready, most - 1), "{share:?} of {ready}");
        }
    }

    #[test]
    fn breakers_are_ignored_below_the_panic_share_only() {
        for (share, ready, broken, ignored) in [
            (0.5, 0, 0, false),
            (0.5, 4, 2, false),
            (0.5, 4, 3, true),
            (0.5, 1, 1, true),
            (0.0, 4, 4, false),
            (1.0, 4, 1, true),
            // One that is not ready any more may still be counted.
            (0.5, 1, 2, true),
        ] {
            let breaker = CircuitBreaker { panic_share: share, ..CircuitBreaker::default() };
            assert_eq!(panics(&breaker, ready, broken), ignored, "{share}: {broken} of {ready}");
        }
    }
}
