//! How long certificates live and when they are renewed: pure decisions.

use std::time::Duration;

use rand::Rng;

/// How long a workload's certificate is good for, counted from when it is issued.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root that we make is good for: ten years.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// How far NotBefore lies before the time of issue, for peers whose clocks are behind.
pub const BACKDATE: Duration = Duration::from_secs(2 * 60);
/// The longest wait between two tries to renew.
pub const MAX_RETRY: Duration = Duration::from_secs(5 * 60);

const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long to keep a certificate that is good for `issued_for` before renewing it: half of that, give or take a
/// tenth, so that workloads that started together do not renew together.
pub fn renew_after(issued_for: Duration, rng: &mut impl Rng) -> Duration {
    (issued_for / 2).mul_f64(rng.random_range(0.9..=1.1))
}

/// How long to wait after the `failures`th failure in a row (from 1): doubling from one second up to
/// [`MAX_RETRY`], of which a random half is taken away at most.
pub fn retry_after(failures: u32, rng: &mut impl Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_RETRY * 2u32.pow(doublings)).min(MAX_RETRY).mul_f64(rng.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn renewal_is_at_half_of_life_within_a_tenth() {
        let mut rng = SmallRng::seed_from_u64(1);
        let hours = |h: f64| Duration::from_secs_f64(h * 3600.0);
        let waits: Vec<_> = (0..1000).map(|_| renew_after(LEAF_LIFETIME, &mut rng)).collect();
        assert!(waits.iter().all(|w| (hours(10.8)..=hours(13.2)).contains(w)));
        assert!(waits.iter().any(|w| *w < hours(11.2)) && waits.iter().any(|w| *w > hours(12.8)));
    }

    #[test]
    fn retries_back_off_to_a_limit() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (u32::MAX, 300)] {
            let wait = retry_after(failures, &mut rng);
            let longest = Duration::from_secs(longest);
            assert!(wait <= longest && wait >= longest / 2, "{failures}: {wait:?}");
        }
    }
}
