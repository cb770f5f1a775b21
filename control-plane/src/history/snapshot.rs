//! The form in which a series is on disk, and back: messages of Protocol Buffers, of nobody's but this file.
//!
//! Each series is two records, so that the coarse figures of all can go before the fine ones of any.

use pillion_api::{hops::SEGMENTS, latency};
use prost::Message;

use super::{
    Action, Counts, EdgeKey, SpentSums, State,
    hops::{HopSeries, Spent},
    series::{Ring, Series},
};

/// Which series it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Service(String),
    Edge(EdgeKey),
    Policies(String),
    Instance(String),
}

/// Which of a series' buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The thirty minutes.
    Coarse,
    /// The last two minutes.
    Fine,
}

/// What is on disk of one series. A part that is empty takes no room.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    /// A number of [`Key`].
    #[prost(uint32, tag = "1")]
    kind: u32,
    /// The name; of an edge, where it begins.
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    to: String,
    #[prost(string, tag = "4")]
    backend: String,
    #[prost(int64, tag = "5")]
    first_s: i64,
    #[prost(message, repeated, tag = "6")]
    coarse: Vec<CountsRecord>,
    #[prost(message, repeated, tag = "7")]
    fine: Vec<CountsRecord>,
    #[prost(message, repeated, tag = "8")]
    hops_coarse: Vec<SpentRecord>,
    #[prost(message, repeated, tag = "9")]
    hops_fine: Vec<SpentRecord>,
    #[prost(message, repeated, tag = "10")]
    hop_sums: Vec<SumsRecord>,
}

/// One bucket.
#[derive(Clone, PartialEq, Message)]
struct CountsRecord {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(uint64, tag = "2")]
    requests: u64,
    #[prost(uint64, tag = "3")]
    failures: u64,
    #[prost(uint64, tag = "4")]
    encrypted: u64,
    #[prost(uint64, tag = "5")]
    connections: u64,
    #[prost(btree_map = "string, uint64", tag = "6")]
    refusals: std::collections::BTreeMap<String, u64>,
    #[prost(btree_map = "string, uint64", tag = "7")]
    refusals_by_callee: std::collections::BTreeMap<String, u64>,
    #[prost(message, repeated, tag = "8")]
    actions: Vec<ActionRecord>,
    #[prost(bytes = "vec", tag = "9")]
    latency_buckets: Vec<u8>,
    #[prost(uint32, repeated, tag = "10")]
    latency_counts: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct ActionRecord {
    #[prost(uint32, tag = "1")]
    action: u32,
    #[prost(string, tag = "2")]
    about: String,
    #[prost(uint64, tag = "3")]
    count: u64,
}

/// One bucket of where time went.
#[derive(Clone, PartialEq, Message)]
struct SpentRecord {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(uint64, tag = "2")]
    requests: u64,
    #[prost(uint64, repeated, tag = "3")]
    sums_us: Vec<u64>,
    #[prost(bytes = "vec", tag = "4")]
    segments: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    buckets: Vec<u8>,
    #[prost(uint32, repeated, tag = "6")]
    counts: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct SumsRecord {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(uint32, tag = "2")]
    requests: u32,
    #[prost(float, repeated, tag = "3")]
    sums_us: Vec<f32>,
}

impl Key {
    pub(super) fn find<'a>(&self, state: &'a State) -> Option<&'a Series> {
        match self {
            Self::Service(name) => state.services.get(name),
            Self::Edge(key) => state.edges.get(key),
            Self::Policies(name) => state.policies.get(name),
            Self::Instance(uid) => state.instances.get(uid),
        }
    }
}

impl Record {
    /// `None`: there is nothing in this part.
    pub(super) fn of(key: &Key, series: &Series, part: Part) -> Option<Self> {
        let mut record = Self { first_s: series.first_s, ..Self::default() };
        (record.kind, record.name) = match key {
            Key::Service(name) => (1, name.clone()),
            Key::Edge(edge) => {
                (record.to, record.backend) = (edge.to.clone(), edge.backend.clone());
                (2, edge.from.clone())
            }
            Key::Policies(name) => (3, name.clone()),
            Key::Instance(uid) => (4, uid.clone()),
        };
        let hops = series.hops.as_deref();
        match part {
            Part::Coarse => {
                record.coarse = all(&series.coarse, CountsRecord::of);
                record.hops_coarse = hops.map(|hops| all(&hops.coarse, SpentRecord::of)).unwrap_or_default();
                record.hop_sums = hops.map(|hops| all(&hops.sums, SumsRecord::of)).unwrap_or_default();
            }
            Part::Fine => {
                record.fine = all(&series.fine, CountsRecord::of);
                record.hops_fine = hops.map(|hops| all(&hops.fine, SpentRecord::of)).unwrap_or_default();
            }
        }
        (!record.is_empty()).then_some(record)
    }

    fn is_empty(&self) -> bool {
        self.coarse.is_empty()
            && self.fine.is_empty()
            && self.hops_coarse.is_empty()
            && self.hops_fine.is_empty()
            && self.hop_sums.is_empty()
    }

    /// Puts back what is still within the kept span at `now_ms`. Whether there was anything of it.
    pub(super) fn restore(self, state: &mut State, now_ms: i64) -> bool {
        let mut series = Series::new(now_ms);
        let now = now_ms.div_euclid(1000);
        series.first_s = self.first_s.min(now);
        let had_hops =
            !(self.hops_coarse.is_empty() && self.hops_fine.is_empty() && self.hop_sums.is_empty());
        let mut hops = HopSeries::new();
        series.coarse.restore(now, self.coarse.into_iter().map(CountsRecord::into_counts));
        series.fine.restore(now, self.fine.into_iter().map(CountsRecord::into_counts));
        hops.coarse.restore(now, self.hops_coarse.into_iter().map(SpentRecord::into_spent));
        hops.fine.restore(now, self.hops_fine.into_iter().map(SpentRecord::into_spent));
        hops.sums.restore(now, self.hop_sums.into_iter().map(SumsRecord::into_sums));
        series.hops = (had_hops && !hops.is_empty()).then(|| Box::new(hops));
        if series.is_empty() {
            return false;
        }
        match self.kind {
            1 => merge(&mut state.services, self.name, series),
            2 => {
                let key = EdgeKey { from: self.name, to: self.to, backend: self.backend };
                merge(&mut state.edges, key, series);
            }
            3 => merge(&mut state.policies, self.name, series),
            4 => merge(&mut state.instances, self.name, series),
            _ => return false,
        }
        true
    }
}

/// The two parts of a series come one after the other.
fn merge<K: Ord>(all: &mut std::collections::BTreeMap<K, Series>, key: K, part: Series) {
    use std::collections::btree_map::Entry;
    match all.entry(key) {
        Entry::Vacant(free) => {
            free.insert(part);
        }
        Entry::Occupied(known) => known.into_mut().take_missing(part),
    }
}

fn all<T, R>(ring: &Ring<T>, record: impl Fn(i64, &T) -> R) -> Vec<R>
where
    T: super::Tally,
{
    ring.all().map(|(start, counts)| record(*start, counts)).collect()
}

impl CountsRecord {
    fn of(start: i64, counts: &Counts) -> Self {
        let action = |((action, about), count): (&(Action, String), &u64)| ActionRecord {
            action: *action as u32,
            about: about.clone(),
            count: *count,
        };
        let (latency_buckets, latency_counts) = counts.latency.iter().copied().unzip();
        Self {
            start,
            requests: counts.requests,
            failures: counts.failures,
            encrypted: counts.encrypted,
            connections: counts.connections,
            refusals: counts.refusals.clone(),
            refusals_by_callee: counts.refusals_by_callee.clone(),
            actions: counts.actions.0.iter().map(action).collect(),
            latency_buckets,
            latency_counts,
        }
    }

    fn into_counts(self) -> (i64, Counts) {
        let mut counts = Counts {
            requests: self.requests,
            failures: self.failures,
            encrypted: self.encrypted,
            connections: self.connections,
            refusals: self.refusals,
            refusals_by_callee: self.refusals_by_callee,
            ..Counts::default()
        };
        for told in self.actions {
            // What only a later release knows is left out.
            if let Some(action) = Action::ALL.get(told.action as usize) {
                counts.actions.0.insert((*action, told.about), told.count);
            }
        }
        let latencies = self.latency_buckets.into_iter().zip(self.latency_counts);
        counts.latency = latencies.filter(|(bucket, _)| usize::from(*bucket) < latency::BUCKETS).collect();
        (self.start, counts)
    }
}

impl SpentRecord {
    fn of(start: i64, spent: &Spent) -> Self {
        Self {
            start,
            requests: spent.requests,
            sums_us: spent.sums_us.to_vec(),
            segments: spent.counts.iter().map(|((segment, _), _)| *segment).collect(),
            buckets: spent.counts.iter().map(|((_, bucket), _)| *bucket).collect(),
            counts: spent.counts.iter().map(|(_, count)| *count).collect(),
        }
    }

    fn into_spent(self) -> (i64, Spent) {
        let mut spent = Spent { requests: self.requests, ..Spent::default() };
        spent.sums_us.iter_mut().zip(self.sums_us).for_each(|(sum, kept)| *sum = kept);
        let possible = |((segment, bucket), _): &((u8, u8), u32)| {
            usize::from(*segment) < SEGMENTS && usize::from(*bucket) < latency::BUCKETS
        };
        let keys = self.segments.into_iter().zip(self.buckets);
        spent.counts = keys.zip(self.counts).filter(possible).collect();
        (self.start, spent)
    }
}

impl SumsRecord {
    fn of(start: i64, sums: &SpentSums) -> Self {
        Self { start, requests: sums.requests, sums_us: sums.sums_us.to_vec() }
    }

    fn into_sums(self) -> (i64, SpentSums) {
        let mut sums = SpentSums { requests: self.requests, ..SpentSums::default() };
        sums.sums_us.iter_mut().zip(self.sums_us).for_each(|(sum, kept)| *sum = kept);
        (self.start, sums)
    }
}
