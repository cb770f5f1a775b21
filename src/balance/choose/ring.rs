//! A ring of points, several of each endpoint (Ketama): a key belongs to the next point. When an endpoint goes, only its
//! own keys move.

use pillion_api::{
    hash::mix,
    model::{RingSize, USUAL_WEIGHT},
};

/// Of an endpoint of the usual weight.
const POINTS: u32 = 128;

fn points_of(weight: u32) -> f64 {
    f64::from(POINTS) * f64::from(weight) / f64::from(USUAL_WEIGHT)
}

/// Points in order, with whose they are.
#[derive(Debug)]
pub struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// Of endpoints by a hash that is theirs for good, and weight.
    pub fn new(endpoints: &[(u64, u32)], size: RingSize) -> Self {
        // So many for each, however many there are: then nobody's keys move when others come and go. Only where the ring
        // would be too coarse or too large is it a share of its size.
        let natural: f64 = endpoints.iter().map(|(_, weight)| points_of(*weight)).sum();
        let total = natural.max(f64::from(size.minimum)).min(f64::from(size.maximum));
        let scale = total / natural.max(f64::MIN_POSITIVE);
        let mut points = Vec::with_capacity(total as usize + endpoints.len());
        for ((hash, weight), position) in endpoints.iter().zip(0..) {
            let count = (points_of(*weight) * scale).round().max(1.0) as u64;
            points.extend((0..count).map(|number| (mix(hash ^ mix(number.wrapping_add(1))), position)));
        }
        points.sort_unstable();
        Self { points }
    }

    /// Whose a key is, and who would be next, and so on, round the ring once.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|(_, position)| *position as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_kept() {
        let size = |weights: &[u32], minimum, maximum| {
            let endpoints: Vec<_> = weights.iter().zip(0..).map(|(weight, hash)| (hash, *weight)).collect();
            Ring::new(&endpoints, RingSize { minimum, maximum }).points.len()
        };
        assert_eq!(size(&[100; 3], 10, 65536), 3 * 128);
        assert_eq!(size(&[100, 200], 10, 65536), 3 * 128);
        assert_eq!(size(&[1; 4], 1024, 65536), 1024);
        assert_eq!(size(&[1000; 10], 1024, 2000), 2000);
        // Each has a point, however little room there is.
        assert_eq!(size(&[1; 50], 1, 10), 50);
    }
}
