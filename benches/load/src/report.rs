//! What came of a load: counts, and exact percentiles.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::exchange::Wrong;

/// Of one connection, or all together.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Of each right answer, nanoseconds.
    latencies: Vec<u64>,
    /// By what was wrong.
    wrong: BTreeMap<String, u64>,
    /// What handshakes came to: key exchange and cipher.
    agreed: BTreeSet<String>,
    pub(crate) seconds: f64,
}

impl Report {
    pub(crate) fn right(&mut self, latency: Duration) {
        self.latencies.push(latency.as_nanos() as u64);
    }

    pub(crate) fn wrong(&mut self, wrong: &Wrong) {
        *self.wrong.entry(wrong.to_string()).or_default() += 1;
    }

    pub(crate) fn agreed(&mut self, what: String) {
        self.agreed.insert(what);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.agreed.extend(other.agreed);
        for (what, count) in other.wrong {
            *self.wrong.entry(what).or_default() += count;
        }
    }

    pub(crate) fn into_json(mut self) -> Value {
        self.latencies.sort_unstable();
        let at = |share| percentile(&self.latencies, share).map(|ns| ns as f64 / 1000.0);
        json!({
            "right": self.latencies.len(),
            "wrong": self.wrong,
            "agreed": self.agreed,
            "seconds": self.seconds,
            "latency_us": { "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": at(1.0) },
        })
    }
}

/// The smallest value that at least this share of all are not above.
fn percentile(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let thousand: Vec<u64> = (1..=1000).collect();
        let of = |share| percentile(&thousand, share);
        assert_eq!([of(0.5), of(0.99), of(0.999), of(1.0)], [Some(500), Some(990), Some(999), Some(1000)]);
        assert_eq!(percentile(&[7], 0.5), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn reports_add_up() {
        let (mut a, mut b) = (Report::default(), Report::default());
        a.right(Duration::from_micros(10));
        b.right(Duration::from_micros(30));
        b.wrong(&Wrong::Status(503));
        b.wrong(&Wrong::Status(503));
        a.merge(b);
        let json = a.into_json();
        assert_eq!(json["right"], 2);
        assert_eq!(json["wrong"]["status 503"], 2);
        assert_eq!(json["latency_us"]["max"], 30.0);
    }
}
