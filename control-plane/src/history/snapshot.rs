//! The form in which the history is on disk, and back: blocks, each of one series' coarse or fine figures, or of all events.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    EdgeKey, Series, State,
    events::Events,
    hops::HopSeries,
    packed::{put, put_bytes, take, take_text},
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

/// What a block begins with: of what it is.
const EVENTS: u64 = 0;
const SERVICE: u64 = 1;
const EDGE: u64 = 2;
const POLICIES: u64 = 3;
const INSTANCE: u64 = 4;

impl Key {
    pub(super) fn find<'a>(&self, state: &'a State) -> Option<&'a Series> {
        match self {
            Self::Service(name) => state.services.get(name),
            Self::Edge(key) => state.edges.get(key),
            Self::Policies(name) => state.policies.get(name),
            Self::Instance(uid) => state.instances.get(uid),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        let (kind, names): (_, &[&String]) = match self {
            Self::Service(name) => (SERVICE, &[name]),
            Self::Edge(EdgeKey { from, to, backend }) => (EDGE, &[from, to, backend]),
            Self::Policies(name) => (POLICIES, &[name]),
            Self::Instance(uid) => (INSTANCE, &[uid]),
        };
        put(to, kind);
        names.iter().for_each(|name| put_bytes(to, name.as_bytes()));
    }

    fn read(kind: u64, from: &mut &[u8]) -> Option<Self> {
        let mut name = || take_text(from).map(str::to_owned);
        Some(match kind {
            SERVICE => Self::Service(name()?),
            EDGE => Self::Edge(EdgeKey { from: name()?, to: name()?, backend: name()? }),
            POLICIES => Self::Policies(name()?),
            INSTANCE => Self::Instance(name()?),
            _ => return None,
        })
    }
}

/// What happened lately. Nothing is written where nothing did.
pub(super) fn write_events(state: &State, to: &mut Vec<u8>) {
    if !state.events.is_empty() {
        put(to, EVENTS);
        state.events.write(to);
    }
}

/// A part of a series. Nothing is written where there is nothing in it.
pub(super) fn write_series(key: &Key, series: &Series, part: Part, to: &mut Vec<u8>) {
    let hops = series.hops.as_deref();
    let empty = match part {
        Part::Coarse => {
            series.coarse.is_empty() && hops.is_none_or(|hops| hops.coarse.is_empty() && hops.sums.is_empty())
        }
        Part::Fine => series.fine.is_empty() && hops.is_none_or(|hops| hops.fine.is_empty()),
    };
    if empty {
        return;
    }
    key.write(to);
    put(to, part as u64);
    put(to, series.first_s.unsigned_abs());
    match part {
        Part::Coarse => {
            series.coarse.write(to);
            // Where no time was split the block ends here.
            hops.inspect(|hops| {
                hops.coarse.write(to);
                hops.sums.write(to);
            });
        }
        Part::Fine => {
            series.fine.write(to);
            hops.inspect(|hops| hops.fine.write(to));
        }
    }
}

/// Puts back a block: of figures, those that are still within the kept span at `now_ms`. `None`: it is no such block.
pub(super) fn restore(mut block: &[u8], state: &mut State, now_ms: i64) -> Option<()> {
    let from = &mut block;
    let kind = take(from)?;
    if kind == EVENTS {
        state.events = Events::read(from)?;
        return from.is_empty().then_some(());
    }
    let key = Key::read(kind, from)?;
    let part = take(from)?;
    let now = now_ms.div_euclid(1000);
    let mut series = Series::new(now_ms);
    series.first_s = i64::try_from(take(from)?).ok()?.min(now);
    let mut hops = HopSeries::new();
    if part == Part::Coarse as u64 {
        series.coarse.restore(now, from)?;
        if !from.is_empty() {
            hops.coarse.restore(now, from)?;
            hops.sums.restore(now, from)?;
        }
    } else if part == Part::Fine as u64 {
        series.fine.restore(now, from)?;
        if !from.is_empty() {
            hops.fine.restore(now, from)?;
        }
    } else {
        return None;
    }
    if !from.is_empty() {
        return None;
    }
    series.hops = (!hops.is_empty()).then(|| Box::new(hops));
    if series.is_empty() {
        return Some(());
    }
    match key {
        Key::Service(name) => merge(&mut state.services, name, series),
        Key::Edge(key) => merge(&mut state.edges, key, series),
        Key::Policies(name) => merge(&mut state.policies, name, series),
        Key::Instance(uid) => merge(&mut state.instances, uid, series),
    }
    Some(())
}

/// The two parts of a series come one after the other.
fn merge<K: Ord>(all: &mut BTreeMap<K, Series>, key: K, part: Series) {
    match all.entry(key) {
        Entry::Vacant(free) => {
            free.insert(part);
        }
        Entry::Occupied(known) => known.into_mut().take_missing(part),
    }
}
