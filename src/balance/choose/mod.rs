//! The algorithms, one file each, on positions of a list: what they need of an endpoint is its weight and a hash. What they
//! build, they build when the list changes; a choice allocates nothing.

pub mod maglev;
pub mod ring;
pub mod turns;
pub mod weighted;

use pillion_api::model::Algorithm;

use self::{
    maglev::Maglev,
    ring::Ring,
    turns::{Phase, Turns},
    weighted::Weighted,
};

/// One endpoint as the algorithms see it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// The same in every sidecar, and for as long as the workload goes by its name.
    pub hash: u64,
    /// Not zero.
    pub weight: u32,
    /// When its next turn is due.
    pub phase: Phase,
}

/// An algorithm, ready for one list.
#[derive(Debug)]
pub enum Chooser {
    /// The less loaded of two.
    PeakEwma(Weighted),
    /// The one of two with fewer requests.
    LeastRequest(Weighted),
    /// One after the other.
    RoundRobin(Turns),
    /// Any.
    Random(Weighted),
    /// By key. Without one: any.
    Ring(Ring, Weighted),
    /// By key. Without one: any.
    Maglev(Maglev, Weighted),
}

impl Chooser {
    /// For a list.
    pub fn new(algorithm: &Algorithm, list: &[Candidate]) -> Self {
        let weights: Vec<u32> = list.iter().map(|candidate| candidate.weight).collect();
        let hashed =
            || -> Vec<_> { list.iter().map(|candidate| (candidate.hash, candidate.weight)).collect() };
        match algorithm {
            Algorithm::PeakEwma => Self::PeakEwma(Weighted::new(&weights)),
            Algorithm::LeastRequest => Self::LeastRequest(Weighted::new(&weights)),
            Algorithm::RoundRobin => {
                Self::RoundRobin(Turns::new(&weights, list.iter().map(|candidate| candidate.phase)))
            }
            Algorithm::Random => Self::Random(Weighted::new(&weights)),
            Algorithm::RingHash(_, size) => Self::Ring(Ring::new(&hashed(), *size), Weighted::new(&weights)),
            Algorithm::Maglev(_, size) => {
                Self::Maglev(Maglev::new(&hashed(), *size), Weighted::new(&weights))
            }
        }
    }
}

/// What both hashes promise.
#[cfg(test)]
mod tests {
    use pillion_api::{hash::hash, model::RingSize};
    use proptest::prelude::*;

    use super::*;

    const KEYS: usize = 20_000;

    fn owners(maglev: bool, endpoints: &[(u64, u32)]) -> Vec<u64> {
        let keys = (0..KEYS).map(|key| hash(format!("key-{key}").as_bytes()));
        let first = |walk: Option<usize>| endpoints[walk.expect("somebody")].0;
        if maglev {
            let table = Maglev::new(endpoints, 16381);
            keys.map(|key| first(table.walk(key).next())).collect()
        } else {
            let ring = Ring::new(endpoints, RingSize { minimum: 1, maximum: 65536 });
            keys.map(|key| first(ring.walk(key).next())).collect()
        }
    }

    fn endpoint(number: u32, weight: u32) -> (u64, u32) {
        (hash(format!("payments-{number}").as_bytes()), weight)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Each has the keys that its weight is worth, within a tenth (Maglev) or a third (ring), but for chance.
        #[test]
        fn keys_are_spread_by_weight(maglev in any::<bool>(), weights in proptest::collection::vec(100u32..=400, 1..12)) {
            let endpoints: Vec<_> = weights.iter().zip(0..).map(|(weight, number)| endpoint(number, *weight)).collect();
            let owners = owners(maglev, &endpoints);
            let sum: u32 = weights.iter().sum();
            for (owner, weight) in &endpoints {
                let count = owners.iter().filter(|found| *found == owner).count() as f64;
                let expected = KEYS as f64 * f64::from(*weight) / f64::from(sum);
                let allowed = expected * if maglev { 0.1 } else { 0.33 } + 4.0 * expected.sqrt();
                prop_assert!((count - expected).abs() <= allowed, "{} for {}", count, expected);
            }
        }

        /// Who goes takes its own keys along, and few others move: none on a ring of its natural size.
        #[test]
        fn few_keys_move_when_one_goes(maglev in any::<bool>(), count in 2u32..20, gone in 0u32..20) {
            let before: Vec<_> = (0..count).map(|number| endpoint(number, 100)).collect();
            let mut after = before.clone();
            let gone = after.remove((gone % count) as usize).0;
            let moved = owners(maglev, &before).into_iter().zip(owners(maglev, &after));
            let moved = moved.filter(|(before, after)| *before != gone && before != after).count();
            prop_assert!(moved <= if maglev { KEYS / 20 } else { 0 }, "{} of {} keys", moved, KEYS);
        }

        /// The order of the list says nothing on a ring.
        #[test]
        fn every_caller_has_the_same_ring(count in 1u32..10, turn in 0usize..10) {
            let list: Vec<_> = (0..count).map(|number| endpoint(number, 100 + number)).collect();
            let mut turned = list.clone();
            turned.rotate_left(turn % list.len());
            prop_assert_eq!(owners(false, &list), owners(false, &turned));
        }
    }

    #[test]
    fn a_table_and_a_ring_may_be_small() {
        for number in 1..5 {
            let list: Vec<_> = (0..number).map(|number| endpoint(number, 1000)).collect();
            assert!(Maglev::new(&list, 2).walk(7).all(|position| position < list.len()));
            assert!(Ring::new(&list, RingSize { minimum: 1, maximum: 1 }).walk(7).count() >= list.len());
        }
    }
}
