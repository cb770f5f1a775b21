//! Endpoints among which an algorithm chooses: all that are ready, or those of one side of the caller's zone.

use std::rc::Rc;

use pillion_api::model::{Algorithm, SlowStart};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Endpoint,
    choose::{Candidate, Chooser, weighted::Weighted},
    slow_start,
};

/// Draws before giving up on luck and looking at every endpoint.
const TRIES: usize = 4;
/// Steps along a ring or table, likewise.
const STEPS: usize = 1024;

/// Endpoints with an algorithm that is ready for them.
#[derive(Debug)]
pub(super) struct Group<T> {
    endpoints: Vec<Rc<Endpoint<T>>>,
    /// `None`: there are no endpoints.
    chooser: Option<Chooser>,
    /// Of which the chooser was made: that, and each endpoint's hash and weight.
    made_of: (Algorithm, Vec<(u64, u32)>),
    /// Together.
    weight: u64,
}

/// What is asked of a group.
#[derive(Debug)]
pub(super) struct Ask<'a, T> {
    pub(super) now: Instant,
    pub(super) key: Option<u64>,
    /// Breakers do not matter.
    pub(super) panic: bool,
    pub(super) avoid: &'a [Rc<Endpoint<T>>],
    pub(super) decay: std::time::Duration,
    pub(super) slow_start: Option<SlowStart>,
    /// With bounded loads: requests that there may be for each unit of weight.
    pub(super) bound: Option<f64>,
}

impl<T> Ask<'_, T> {
    pub(super) fn takes(&self, endpoint: &Rc<Endpoint<T>>) -> bool {
        self.may_take(endpoint) && !self.avoid.iter().any(|avoided| avoided.uid() == endpoint.uid())
    }

    /// As a last resort.
    pub(super) fn may_take(&self, endpoint: &Endpoint<T>) -> bool {
        self.panic || endpoint.available(self.now)
    }

    /// The part of its share that an endpoint is to have now.
    fn part(&self, endpoint: &Endpoint<T>) -> f64 {
        let since = |at: Instant| self.now.saturating_duration_since(at);
        let new = endpoint.appeared().map_or(1.0, |at| {
            let part = self.slow_start.map_or(1.0, |slow_start| slow_start::part(slow_start, since(at)));
            if part >= 1.0 {
                endpoint.set_appeared(None);
            }
            part
        });
        let Some((at, window)) = endpoint.recovered() else { return new };
        let usual = SlowStart { window, ..SlowStart::default() };
        let recovered = slow_start::part(self.slow_start.unwrap_or(usual), since(at));
        if recovered >= 1.0 {
            endpoint.set_recovered(None);
        }
        new.min(recovered)
    }

    /// The same by chance: how often it is true is the part.
    fn is_warm(&self, endpoint: &Endpoint<T>, rng: &mut impl Rng) -> bool {
        let part = self.part(endpoint);
        part >= 1.0 || rng.random::<f64>() < part
    }

    fn has_room(&self, endpoint: &Endpoint<T>) -> bool {
        let room = |bound: f64| (bound * f64::from(endpoint.weight())).ceil();
        self.bound.is_none_or(|bound| f64::from(endpoint.in_flight() + 1) <= room(bound).max(1.0))
    }
}

impl<T> Group<T> {
    pub(super) fn empty() -> Self {
        Self { endpoints: Vec::new(), chooser: None, made_of: (Algorithm::PeakEwma, Vec::new()), weight: 0 }
    }

    /// Makes the algorithm ready for these endpoints. That takes a while for the large ones, so not where it is already.
    pub(super) fn rebuild(&mut self, algorithm: &Algorithm, mut endpoints: Vec<Rc<Endpoint<T>>>) {
        // In an order that is the same for all callers.
        endpoints.sort_by_key(|endpoint| endpoint.hash());
        let parts = endpoints.iter().map(|endpoint| (endpoint.hash(), endpoint.weight())).collect();
        let made_of = (algorithm.clone(), parts);
        let same = self.made_of == made_of
            && self.endpoints.iter().zip(&endpoints).all(|(before, after)| Rc::ptr_eq(before, after));
        if same {
            return;
        }
        self.keep_turns();
        let list: Vec<_> = endpoints.iter().map(|endpoint| endpoint.candidate()).collect();
        self.chooser = (!list.is_empty()).then(|| Chooser::new(algorithm, &list));
        self.weight = list.iter().map(|candidate| u64::from(candidate.weight)).sum();
        // Of two equally fast ones, one of twice the weight may have twice the requests under way.
        let mean = self.weight as f64 / list.len().max(1) as f64;
        for (endpoint, Candidate { weight, .. }) in endpoints.iter().zip(list) {
            endpoint.set_lightness(mean / f64::from(weight));
        }
        (self.endpoints, self.made_of) = (endpoints, made_of);
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// What is to survive of an algorithm when the list changes.
    fn keep_turns(&self) {
        if let Some(Chooser::RoundRobin(turns)) = &self.chooser {
            for (position, phase) in turns.phases() {
                self.endpoints[position].set_phase(phase);
            }
        }
    }

    /// One of them. `None`: none is taken.
    pub(super) fn choose(&self, ask: &Ask<'_, T>, rng: &mut impl Rng) -> Option<&Rc<Endpoint<T>>> {
        let chosen = match self.chooser.as_ref()? {
            Chooser::PeakEwma(draws) => {
                self.lighter_of_two(draws, ask, rng, |endpoint| endpoint.load(ask.now, ask.decay))
            }
            Chooser::LeastRequest(draws) => self.lighter_of_two(draws, ask, rng, Endpoint::requests),
            Chooser::RoundRobin(turns) => {
                let part = |position: usize| {
                    let endpoint = &self.endpoints[position];
                    ask.takes(endpoint).then(|| ask.part(endpoint))
                };
                turns.next(part).map(|position| &self.endpoints[position])
            }
            Chooser::Random(draws) => self.any(draws, ask, rng),
            Chooser::Ring(ring, draws) => match ask.key {
                Some(key) => self.along(ring.walk(key), ask),
                None => self.any(draws, ask, rng),
            },
            Chooser::Maglev(table, draws) => match ask.key {
                Some(key) => self.along(table.walk(key), ask),
                None => self.any(draws, ask, rng),
            },
        };
        chosen.or_else(|| match ask.key {
            Some(key) => {
                // The same for the same key, for as long as may be.
                let count = self.endpoints.len();
                let mut all = (0..count).map(|step| &self.endpoints[(key as usize % count + step) % count]);
                let with_room = all.clone().find(|it| ask.takes(it) && ask.has_room(it));
                with_room.or_else(|| all.find(|it| ask.takes(it)))
            }
            None => {
                let with_room = self.by_weight(ask, rng, |it| ask.has_room(it));
                with_room.or_else(|| self.by_weight(ask, rng, |_| true))
            }
        })
    }

    /// By chance among those left: looks at every one, so that none gets what its broken neighbours would have had.
    fn by_weight(
        &self,
        ask: &Ask<'_, T>,
        rng: &mut impl Rng,
        fits: impl Fn(&Endpoint<T>) -> bool,
    ) -> Option<&Rc<Endpoint<T>>> {
        let (mut total, mut chosen) = (0.0, None);
        for endpoint in self.endpoints.iter().filter(|it| ask.takes(it) && fits(it)) {
            let worth = (f64::from(endpoint.weight()) * ask.part(endpoint)).max(1e-6);
            total += worth;
            if rng.random::<f64>() * total < worth {
                chosen = Some(endpoint);
            }
        }
        chosen
    }

    fn lighter_of_two(
        &self,
        draws: &Weighted,
        ask: &Ask<'_, T>,
        rng: &mut impl Rng,
        load: impl Fn(&Endpoint<T>) -> f64,
    ) -> Option<&Rc<Endpoint<T>>> {
        for _ in 0..TRIES {
            let (a, b) = draws.two(rng);
            let (a, b) = (&self.endpoints[a], &self.endpoints[b]);
            let mut good = |endpoint| ask.takes(endpoint) && ask.is_warm(endpoint, rng);
            return Some(match (good(a), good(b)) {
                // One that waits to be probed first, or it would never come back.
                (true, true) => match (a.is_closed(), b.is_closed()) {
                    (false, true) if a.available(ask.now) => a,
                    (true, false) if b.available(ask.now) => b,
                    _ if load(b) < load(a) => b,
                    _ => a,
                },
                (true, false) => a,
                (false, true) => b,
                (false, false) => continue,
            });
        }
        None
    }

    fn any(&self, draws: &Weighted, ask: &Ask<'_, T>, rng: &mut impl Rng) -> Option<&Rc<Endpoint<T>>> {
        (0..TRIES).find_map(|_| {
            let endpoint = &self.endpoints[draws.one(rng)];
            (ask.takes(endpoint) && ask.has_room(endpoint) && ask.is_warm(endpoint, rng)).then_some(endpoint)
        })
    }

    /// The first with room, in the order that is the key's own.
    fn along(&self, mut walk: impl Iterator<Item = usize>, ask: &Ask<'_, T>) -> Option<&Rc<Endpoint<T>>> {
        let steps = walk.by_ref().take(STEPS).map(|position| &self.endpoints[position]);
        let mut steps = steps.filter(|endpoint| ask.takes(endpoint) && ask.has_room(endpoint));
        steps.next()
    }

    /// Each endpoint with its share of what comes to this group.
    pub(super) fn shares(&self, ask: &Ask<'_, T>) -> Vec<(&Rc<Endpoint<T>>, f64)> {
        let worth = |endpoint: &Rc<Endpoint<T>>| {
            if ask.takes(endpoint) { f64::from(endpoint.weight()) * ask.part(endpoint) } else { 0.0 }
        };
        let sum: f64 = self.endpoints.iter().map(worth).sum();
        self.endpoints
            .iter()
            .map(|endpoint| (endpoint, worth(endpoint) / sum.max(f64::MIN_POSITIVE)))
            .collect()
    }
}
