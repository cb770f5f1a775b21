//! Live requests: what somebody watches is told as it ends, as far as a rate allows.
//!
//! [`Taps`], on the main thread, is told by the control plane what is watched, and hands the workers a list that is swapped as a
//! whole ([`Watched`]). A worker asks each tap of the list whether a request is for it, and passes what is on to the main thread,
//! without waiting: what is beyond the rate, or finds no room, is counted. A tap ends when it is told so, with the stream that it came
//! by, and when nobody renews it.

mod told;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, Request};
use pillion_api::{
    gcra::{Arrival, Pace, nanos},
    hops::Side,
    tap::{Facts, Filter, MAX_HEADERS, RATES, Who, is_secret},
    wire::{StartTap, TapAnswer, TapEvent, TapEvents},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{edge::EdgeKey, exchange::Exchange, listeners::End, names::Metric, prometheus::Registry};

/// Taps at once.
const MAX_TAPS: usize = 16;
/// Events of all taps that wait for the main thread.
const QUEUE: usize = 1024;
/// Of one message to the control plane.
const BATCH: usize = 128;
/// However long a control plane says that a tap goes on without being renewed.
const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// What is watched, as workers see it. `None`: nothing.
pub type Watched = Option<Arc<[Arc<Tap>]>>;

/// The same as a listener of requests.
#[derive(Debug, Clone)]
pub struct Watching {
    /// At least one.
    pub taps: Arc<[Arc<Tap>]>,
    /// Whose sidecar we are.
    pub workload: Arc<str>,
}

impl Watching {
    /// Fields of requests that are told.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.taps.iter().flat_map(|tap| &tap.headers)
    }

    /// Whether any tap has to hear of the end of a request that begins.
    pub(super) fn may_want<B>(&self, request: &Request<B>, edge: &EdgeKey) -> bool {
        let begun = told::begun(request, edge, &self.workload);
        let wanted = self.taps.iter().any(|tap| tap.filter.awaits(&begun));
        if !wanted {
            // Nobody hears of its end.
            self.taps.iter().for_each(|tap| tap.passes_by(begun.side, begun.to));
        }
        wanted
    }

    /// Tells each tap that asks for it of a request that has ended.
    pub(super) fn tell(&self, exchange: &Exchange, end: &End<'_>) {
        told::tell(&self.taps, &self.workload, exchange, end);
    }
}

/// One tap, for all workers.
#[derive(Debug)]
pub struct Tap {
    filter: Filter,
    headers: Vec<HeaderName>,
    pace: Pace,
    counts: Arc<Counts>,
    events: mpsc::Sender<(Arc<Counts>, TapEvent)>,
}

/// What has come of a tap; outlives changes of what it asks for.
#[derive(Debug)]
pub struct Counts {
    began: Instant,
    arrival: Arrival,
    limited: AtomicU64,
    overflowed: AtomicU64,
    /// It was not for those.
    passed_by: AtomicU64,
}

impl Tap {
    /// Tells of a request, if it is asked for and the rate allows it.
    pub fn tell(
        self: &Arc<Self>,
        facts: &Facts<'_>,
        now: Instant,
        event: impl FnOnce(&[HeaderName]) -> TapEvent,
    ) {
        if !self.filter.matches(facts) {
            self.passes_by(facts.side, Some(facts.to));
            return;
        }
        let counts = &self.counts;
        let at = nanos(now.saturating_duration_since(counts.began));
        if counts.arrival.take(self.pace, at).is_err() {
            counts.limited.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.events.try_reserve() {
            Ok(place) => place.send((counts.clone(), event(&self.headers))),
            Err(_) => {
                counts.overflowed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Tap {
    /// A request is not asked for. It counts where it is one of those that are looked through.
    fn passes_by(&self, side: Side, to: Option<Who<'_>>) {
        if self.filter.is_about(side, to) {
            self.counts.passed_by.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The main thread's side.
#[derive(Debug)]
pub struct Taps {
    open: BTreeMap<u64, Open>,
    watched: watch::Sender<Watched>,
    sender: mpsc::Sender<(Arc<Counts>, TapEvent)>,
    events: mpsc::Receiver<(Arc<Counts>, TapEvent)>,
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Open {
    tap: Arc<Tap>,
    until: Instant,
}

impl Taps {
    /// Nothing is watched.
    pub fn new(registry: Arc<Registry>) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        Self { open: BTreeMap::new(), watched: watch::Sender::default(), sender, events, registry }
    }

    /// Follows what is watched.
    pub fn follow(&self) -> watch::Receiver<Watched> {
        self.watched.subscribe()
    }

    /// Begins one, or renews it.
    pub fn start(&mut self, start: StartTap, now: Instant) -> TapAnswer {
        let id = start.id;
        let refusal = match self.begin(start, now) {
            Ok(()) => String::new(),
            Err(why) => {
                self.stop(id);
                why
            }
        };
        TapAnswer { id, refusal }
    }

    fn begin(&mut self, start: StartTap, now: Instant) -> Result<(), String> {
        let StartTap { id, filter, max_per_second, headers, lease_ms } = start;
        let filter = Filter::try_from(&filter.unwrap_or_default()).map_err(|wrong| {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            format!("this release does not know what is asked for: {}", wrong.join("; "))
        })?;
        let shown = headers.iter().filter(|name| !is_secret(name)).take(MAX_HEADERS);
        let headers = shown.filter_map(|name| HeaderName::try_from(name).ok()).collect();
        let rate = max_per_second.clamp(1, RATES.1);
        let known = self.open.get(&id);
        if known.is_none() && self.open.len() >= MAX_TAPS {
            return Err(format!("it has {MAX_TAPS} taps already"));
        }
        let new_counts = || {
            let [limited, overflowed, passed_by] = <[AtomicU64; 3]>::default();
            Arc::new(Counts { began: now, arrival: Arrival::default(), limited, overflowed, passed_by })
        };
        let tap = Tap {
            filter,
            headers,
            pace: Pace::new(rate, Duration::from_secs(1), rate),
            counts: known.map_or_else(new_counts, |known| known.tap.counts.clone()),
            events: self.sender.clone(),
        };
        let until = now + Duration::from_millis(lease_ms.into()).min(LONGEST_LEASE);
        match self.open.get_mut(&id) {
            Some(known) if known.tap.is_like(&tap) => known.until = until,
            _ => {
                self.open.insert(id, Open { tap: Arc::new(tap), until });
                self.changed();
            }
        }
        Ok(())
    }

    /// Ends one.
    pub fn stop(&mut self, id: u64) {
        if self.open.remove(&id).is_some() {
            self.changed();
        }
    }

    /// Ends those that nobody has renewed, and shows how many there are. To be called about once a second.
    pub fn expire(&mut self, now: Instant) {
        let before = self.open.len();
        self.open.retain(|_, open| now < open.until);
        if self.open.len() != before {
            self.changed();
        }
        self.show();
    }

    /// Ends all: nobody is there to be told.
    pub fn clear(&mut self) {
        if !self.open.is_empty() {
            self.open.clear();
            self.changed();
        }
        while self.events.try_recv().is_ok() {}
    }

    fn changed(&self) {
        let taps = self.open.values().map(|open| open.tap.clone());
        self.watched.send_replace((!self.open.is_empty()).then(|| taps.collect()));
        self.show();
    }

    fn show(&self) {
        self.registry.gauge(Metric::Taps, &[]).set(self.open.len() as f64);
    }

    /// What workers have passed on, a message for each tap; waits until there is anything.
    pub async fn told(&mut self) -> Vec<TapEvents> {
        let mut taken = Vec::new();
        self.events.recv_many(&mut taken, BATCH).await;
        let mut told: BTreeMap<u64, TapEvents> = BTreeMap::new();
        for (counts, event) in taken {
            // What was on its way when its tap ended is for nobody.
            let open = self.open.iter().find(|(_, open)| Arc::ptr_eq(&open.tap.counts, &counts));
            if let Some((id, _)) = open {
                told.entry(*id)
                    .or_insert_with(|| TapEvents { id: *id, ..Default::default() })
                    .events
                    .push(event);
            }
        }
        told.into_values().collect()
    }

    /// They went to the control plane; or there was no room for them.
    pub fn passed_on(&self, events: &TapEvents, taken: bool) {
        let many = events.events.len() as u64;
        if taken {
            self.count("told", many);
        } else if let Some(open) = self.open.get(&events.id) {
            open.tap.counts.overflowed.fetch_add(many, Ordering::Relaxed);
        }
    }

    /// What was left out and what passed by since this was asked last.
    pub fn left_out(&self) -> Vec<TapEvents> {
        let counted = self.open.iter().map(|(id, open)| {
            let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
            let Counts { limited, overflowed, passed_by, .. } = &*open.tap.counts;
            let (limited, overflowed, passed_by) = (take(limited), take(overflowed), take(passed_by));
            TapEvents { id: *id, events: Vec::new(), limited, overflowed, passed_by }
        });
        let left_out: Vec<_> = counted.filter(|it| it.limited + it.overflowed + it.passed_by > 0).collect();
        for TapEvents { limited, overflowed, .. } in &left_out {
            self.count("limited", *limited);
            self.count("overflowed", *overflowed);
        }
        left_out
    }

    fn count(&self, result: &str, many: u64) {
        if many > 0 {
            self.registry.counter(Metric::TapEvents, &[result]).increment(many);
        }
    }
}

impl Tap {
    fn is_like(&self, other: &Self) -> bool {
        (&self.filter, &self.headers, self.pace) == (&other.filter, &other.headers, other.pace)
    }
}

#[cfg(test)]
mod tests;
