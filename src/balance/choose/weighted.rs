//! Random draws by weight, in constant time: Vose's alias method.

use rand::Rng;

/// Draws positions of a list by the weights there.
#[derive(Debug)]
pub struct Weighted {
    count: usize,
    /// For each position: the chance to keep it, else which to take instead. Empty: all weigh the same.
    slots: Vec<(f64, u32)>,
}

impl Weighted {
    /// Of at least one weight, none of them zero.
    pub fn new(weights: &[u32]) -> Self {
        let count = weights.len();
        let mut slots = Vec::new();
        if weights.iter().any(|weight| *weight != weights[0]) {
            let mean = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>() / count as f64;
            slots = weights.iter().zip(0..).map(|(weight, at)| (f64::from(*weight) / mean, at)).collect();
            let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
                (0..count).partition(|at| slots[*at].0 < 1.0);
            while let (Some(below), Some(above)) = (light.pop(), heavy.pop()) {
                slots[below].1 = above as u32;
                slots[above].0 -= 1.0 - slots[below].0;
                if slots[above].0 < 1.0 { light.push(above) } else { heavy.push(above) }
            }
        }
        Self { count, slots }
    }

    /// One.
    pub fn one(&self, rng: &mut impl Rng) -> usize {
        let at = rng.random_range(0..self.count);
        match self.slots.get(at) {
            Some((keep, instead)) if rng.random::<f64>() >= *keep => *instead as usize,
            _ => at,
        }
    }

    /// Two, which differ where there are two.
    pub fn two(&self, rng: &mut impl Rng) -> (usize, usize) {
        let first = self.one(rng);
        if self.count == 1 {
            return (first, first);
        }
        // Of one that outweighs all others, luck may want it again and again.
        const TRIES: usize = 3;
        if !self.slots.is_empty() {
            for _ in 0..TRIES {
                let second = self.one(rng);
                if second != first {
                    return (first, second);
                }
            }
        }
        (first, (first + rng.random_range(1..self.count)) % self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    proptest! {
        #[test]
        fn draws_are_as_often_as_they_weigh(weights in proptest::collection::vec(1u32..=1000, 1..20), seed in any::<u64>()) {
            const DRAWS: usize = 20_000;
            let mut rng = SmallRng::seed_from_u64(seed);
            let weighted = Weighted::new(&weights);
            let mut counts = vec![0_usize; weights.len()];
            for _ in 0..DRAWS {
                counts[weighted.one(&mut rng)] += 1;
            }
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = f64::from(*weight) / f64::from(sum);
                let deviation = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
                let found = *count as f64 / DRAWS as f64;
                prop_assert!((found - expected).abs() <= 6.0 * deviation + 1e-9, "{} for {}", found, expected);
            }
        }

        #[test]
        fn two_differ(weights in proptest::collection::vec(1u32..=1000, 2..10), seed in any::<u64>()) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let weighted = Weighted::new(&weights);
            for _ in 0..100 {
                let (first, second) = weighted.two(&mut rng);
                prop_assert!(first != second && first < weights.len() && second < weights.len());
            }
        }
    }
}
