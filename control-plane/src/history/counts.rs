//! Golden figures of some span of time.

use std::{collections::BTreeMap, ops::Range};

use pillion_api::{hops, latency, wire::EdgeDelta};

use super::{
    OVERFLOW,
    actions::Actions,
    packed::{self, Packed},
};
use crate::said;

/// Reasons of refusal kept apart in one bucket; more count as `other`.
const MAX_REASONS: usize = 16;

/// What was counted in some span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests answered, by the application or by a sidecar.
    pub requests: u64,
    /// Those that failed for the server's sake.
    pub failures: u64,
    /// Those that went over mutual TLS.
    pub encrypted: u64,
    /// Those of which no callee is known to have been reached: neither encrypted nor in plaintext.
    pub unsent: u64,
    /// Opaque connections.
    pub connections: u64,
    /// Refusals by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Those of an edge that the callee's sidecar made.
    pub refusals_by_callee: BTreeMap<String, u64>,
    /// What policies did.
    pub actions: Actions,
    /// Counts by latency bucket, ascending; only those that are not zero.
    pub(super) latency: Sparse<u8>,
}

/// Counts by key, ascending. Where there are few, this is a fraction of what a map takes.
pub(super) type Sparse<K> = Vec<(K, u32)>;

/// Adds to the count of a key.
pub(super) fn bump<K: Ord + Copy>(counts: &mut Sparse<K>, key: K, count: u32) {
    match counts.binary_search_by_key(&key, |(known, _)| *known) {
        Ok(at) => counts[at].1 = counts[at].1.saturating_add(count),
        Err(at) => counts.insert(at, (key, count)),
    }
}

impl Counts {
    /// From what a sidecar measured. Buckets beyond the histogram count as the last.
    pub fn of(delta: &EdgeDelta) -> Self {
        let all = delta.requests.saturating_add(delta.connections);
        let carried = hops::carried(delta.direction().into(), delta.mtls, &delta.workload);
        let mut counts = Self {
            requests: delta.requests,
            failures: delta.failures.min(delta.requests),
            encrypted: if carried == Some(true) { all } else { 0 },
            unsent: if carried.is_none() { all } else { 0 },
            connections: delta.connections,
            actions: Actions::of_edge(delta),
            ..Self::default()
        };
        counts.refuse(&delta.refusals, &delta.refusals_by_callee);
        for (&bucket, &count) in delta.latency_buckets.iter().zip(&delta.latency_counts) {
            let bucket = (bucket as usize).min(latency::BUCKETS - 1);
            let bucket = u8::try_from(bucket).expect("there are fewer than 256 latency buckets");
            bump(&mut counts.latency, bucket, u32::try_from(count).unwrap_or(u32::MAX));
        }
        counts
    }

    /// What falls to a range of `parts` nearly equal parts; all of them together are the whole.
    pub(super) fn share(&self, range: Range<u64>, parts: u64) -> Self {
        let share = |total: u64| {
            let cut = |part: u64| u64::try_from(u128::from(total) * u128::from(part) / u128::from(parts));
            let invariant = "a part is no greater than the whole";
            cut(range.end).expect(invariant) - cut(range.start).expect(invariant)
        };
        let share_of =
            |count: u32| u32::try_from(share(count.into())).expect("a share is no more than the whole");
        Self {
            requests: share(self.requests),
            failures: share(self.failures),
            encrypted: share(self.encrypted),
            unsent: share(self.unsent),
            connections: share(self.connections),
            refusals: of_reasons(&self.refusals, share),
            refusals_by_callee: of_reasons(&self.refusals_by_callee, share),
            actions: self.actions.map(share),
            latency: self.latency.iter().map(|&(bucket, count)| (bucket, share_of(count))).collect(),
        }
    }

    /// The share of requests that did not fail; `None` without requests.
    pub fn success_rate(&self) -> Option<f64> {
        let failed = self.failures as f64 / self.requests as f64;
        // Shares of a spread interval are rounded each on its own.
        (self.requests > 0).then_some((1.0 - failed).max(0.0))
    }

    /// A quantile of latency in milliseconds; `None` without requests.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let mut counts = [0; latency::BUCKETS];
        for &(bucket, count) in &self.latency {
            counts[usize::from(bucket)] = u64::from(count);
        }
        latency::quantile(&counts, q).map(|us| us / 1000.0)
    }

    /// How many requests took how long: buckets of [`pillion_api::latency`], ascending, with their counts.
    pub fn latency(&self) -> impl Iterator<Item = (u8, u32)> {
        self.latency.iter().copied().filter(|(_, count)| *count > 0)
    }

    /// Whether anything at all was counted of requests and connections.
    pub fn any(&self) -> bool {
        self.requests > 0
            || self.connections > 0
            || !self.refusals.is_empty()
            || !self.refusals_by_callee.is_empty()
    }

    /// Whether everything that was sent was encrypted; `None`: nothing was.
    pub fn encrypted(&self) -> Option<bool> {
        let sent = self.requests.saturating_add(self.connections).saturating_sub(self.unsent);
        (sent > 0).then_some(self.encrypted >= sent)
    }

    fn refuse<'a>(
        &mut self,
        own: impl IntoIterator<Item = (&'a String, &'a u64)>,
        by_callee: impl IntoIterator<Item = (&'a String, &'a u64)>,
    ) {
        own.into_iter().for_each(|(reason, &count)| refuse(&mut self.refusals, reason, count));
        by_callee
            .into_iter()
            .for_each(|(reason, &count)| refuse(&mut self.refusals_by_callee, reason, count));
    }
}

fn refuse(refusals: &mut BTreeMap<String, u64>, reason: &str, count: u64) {
    if let Some(known) = refusals.get_mut(reason) {
        return add(known, count);
    }
    // There is always room for the others together, so that what was packed comes back as it was.
    let apart = refusals.len() - usize::from(refusals.contains_key(OVERFLOW));
    let reason = if apart < MAX_REASONS && said::is_name(reason, 64) { reason } else { OVERFLOW };
    add(refusals.entry(reason.to_owned()).or_default(), count);
}

fn of_reasons(refusals: &BTreeMap<String, u64>, share: impl Fn(u64) -> u64) -> BTreeMap<String, u64> {
    refusals.iter().map(|(reason, &count)| (reason.clone(), share(count))).collect()
}

fn add(to: &mut u64, count: u64) {
    *to = to.saturating_add(count);
}

/// What can be summed over spans of time.
pub trait Tally: Clone {
    /// Adds another span's counts.
    fn add(&mut self, other: &Self);
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        add(&mut self.requests, other.requests);
        add(&mut self.failures, other.failures);
        add(&mut self.encrypted, other.encrypted);
        add(&mut self.unsent, other.unsent);
        add(&mut self.connections, other.connections);
        self.refuse(&other.refusals, &other.refusals_by_callee);
        self.actions.add(&other.actions);
        other.latency().for_each(|(bucket, count)| bump(&mut self.latency, bucket, count));
    }
}

impl Packed for Counts {
    fn pack(&self, to: &mut Vec<u8>) {
        packed::put(to, self.requests);
        packed::put(to, self.failures);
        packed::put(to, self.connections);
        // Nearly always none.
        let open = self.requests.wrapping_add(self.connections).wrapping_sub(self.encrypted);
        packed::put(to, open);
        if open > 0 {
            packed::put(to, self.unsent);
        }
        packed::put_histogram(to, self.latency.iter().copied());
        for refusals in [&self.refusals, &self.refusals_by_callee] {
            let told = refusals.iter().filter(|(_, count)| **count > 0);
            packed::put(to, told.clone().count() as u64);
            for (reason, &count) in told {
                packed::put_word(to, reason);
                packed::put(to, count);
            }
        }
        self.actions.pack(to);
    }

    fn add_packed(&mut self, from: &mut &[u8]) -> Option<()> {
        let (requests, failures) = (packed::take(from)?, packed::take(from)?);
        let (connections, open) = (packed::take(from)?, packed::take(from)?);
        let unsent = if open > 0 { packed::take(from)? } else { 0 };
        add(&mut self.requests, requests);
        add(&mut self.failures, failures);
        add(&mut self.connections, connections);
        add(&mut self.encrypted, requests.wrapping_add(connections).wrapping_sub(open));
        add(&mut self.unsent, unsent);
        packed::take_histogram(from, latency::BUCKETS, |bucket, count| {
            bump(&mut self.latency, bucket, count)
        })?;
        for refusals in [&mut self.refusals, &mut self.refusals_by_callee] {
            for _ in 0..packed::take(from)? {
                refuse(refusals, packed::take_word(from)?, packed::take(from)?);
            }
        }
        self.actions.add_packed(from)
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::edge_delta::Direction;

    use super::*;

    #[test]
    fn what_reached_nobody_is_neither_encrypted_nor_plaintext() {
        let delta = |direction: Direction, workload: &str, mtls: bool, requests| EdgeDelta {
            direction: direction.into(),
            workload: workload.into(),
            mtls,
            requests,
            ..EdgeDelta::default()
        };
        let refused = || delta(Direction::Outbound, "", true, 3);
        let served = || delta(Direction::Outbound, "web-1", true, 5);
        let plain = || delta(Direction::Outbound, "old-1", false, 1);
        for (what, deltas, expected) in [
            ("nothing", vec![], None),
            ("refusals by the caller's own sidecar", vec![refused()], None),
            ("answers", vec![served()], Some(true)),
            ("answers and refusals", vec![served(), refused()], Some(true)),
            ("plaintext", vec![plain()], Some(false)),
            ("plaintext and refusals", vec![plain(), refused()], Some(false)),
            ("plaintext and answers", vec![plain(), served(), refused()], Some(false)),
            ("what goes outside", vec![delta(Direction::Outbound, "", false, 1)], Some(false)),
            ("what a sidecar takes", vec![delta(Direction::Inbound, "", true, 1)], Some(true)),
        ] {
            let (mut sum, mut unpacked) = (Counts::default(), Counts::default());
            for delta in &deltas {
                let (counts, mut bytes) = (Counts::of(delta), Vec::new());
                counts.pack(&mut bytes);
                sum.add(&counts);
                unpacked.add_packed(&mut &bytes[..]).expect("it was packed just now");
            }
            assert_eq!((sum.encrypted(), unpacked.encrypted()), (expected, expected), "{what}");
            assert_eq!(sum.unsent, unpacked.unsent, "{what}");
        }
    }

    #[test]
    fn reasons_are_bounded_whatever_comes_and_come_back_as_they_were() {
        let mut counts = Counts::default();
        (0..100).for_each(|index| refuse(&mut counts.refusals, &format!("reason-{index}"), 1));
        assert_eq!(counts.refusals.len(), MAX_REASONS + 1);
        assert_eq!(counts.refusals[OVERFLOW], 84);
        // One that sorts before the others' name and one behind it.
        (0..40).for_each(|index| {
            refuse(
                &mut counts.refusals_by_callee,
                &format!("{}-{index}", if index % 2 == 0 { "a" } else { "z" }),
                2,
            )
        });
        let mut packed = Vec::new();
        counts.pack(&mut packed);
        assert_eq!(Counts::unpack(&packed), counts);
    }

    #[test]
    fn a_strange_histogram_is_survived() {
        let counts = Counts::of(&EdgeDelta {
            requests: 3,
            failures: 9,
            latency_buckets: vec![5000, 1],
            latency_counts: vec![u64::MAX],
            ..EdgeDelta::default()
        });
        assert_eq!((counts.requests, counts.failures), (3, 3));
        assert!(counts.quantile_ms(0.99).is_some());
    }
}
