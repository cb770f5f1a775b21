//! Which endpoint gets a request. Endpoints are kept by their UID: load estimates, breakers, turns and connections survive every
//! update of the list.
//!
//! [`pick`] is the way of one choice: a session's endpoint, else the caller's zone or the others' ([`locality`]), there the
//! algorithm ([`group`], [`choose`]), past whoever is not to be taken.

pub mod breaker;
pub mod choose;
pub mod counts;
pub mod endpoint;
pub mod ewma;
mod group;
pub mod locality;
pub mod pick;
pub mod slow_start;
pub mod verdict;

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use pillion_api::{
    ejection, hash,
    model::{self, TrafficPolicy},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{sync::Notify, time::Instant};

use self::{choose::turns::Phase, counts::Counts, group::Group, locality::Zone};
pub use self::{
    endpoint::{Endpoint, Pick},
    pick::Wanted,
    verdict::Verdict,
};

/// The share of requests that looks for somebody in the own zone first even if nobody is well there. Where all breakers are open
/// that finds nobody, and goes on to the other zones; but once one of them lets a probe through, only a request that comes there can
/// close it again.
const TRY_OWN_ZONE: f64 = 0.02;

/// The endpoints of one service. `T` is what reaches an endpoint: the balancer only keeps it.
#[derive(Debug)]
pub struct Balancer<T> {
    here: Here,
    policy: RefCell<Arc<TrafficPolicy>>,
    all: RefCell<HashMap<String, Rc<Endpoint<T>>>>,
    /// In the order of their tokens.
    ready: RefCell<Vec<Rc<Endpoint<T>>>>,
    groups: RefCell<Groups<T>>,
    /// The share of requests that stays in the own zone. Kept up to date by [`Self::recount`], as is how many of the ready ones have
    /// a breaker that is not closed.
    own_share: Cell<f64>,
    broken: Cell<usize>,
    /// Requests under way to all of them.
    in_flight: Cell<u32>,
    /// Since when none has been ready.
    nobody_since: Cell<Option<Instant>>,
    counts: Counts,
    /// What is left to chance once somebody has been chosen.
    random: RefCell<SmallRng>,
    changed: Notify,
}

/// Where the choice is made.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Empty: unknown.
    pub zone: Arc<str>,
    /// Whose turn is first; else all callers would begin with the same endpoint. And what is left to chance.
    pub seed: u64,
}

/// The ready ones. Where zones do not matter, all are `others`.
#[derive(Debug)]
struct Groups<T> {
    own: Group<T>,
    others: Group<T>,
}

impl<T> Balancer<T> {
    /// Without endpoints yet.
    pub fn new(policy: Arc<TrafficPolicy>, here: Here) -> Self {
        Self {
            policy: RefCell::new(policy),
            all: RefCell::default(),
            ready: RefCell::default(),
            groups: RefCell::new(Groups { own: Group::empty(), others: Group::empty() }),
            own_share: Cell::default(),
            broken: Cell::default(),
            in_flight: Cell::default(),
            nobody_since: Cell::default(),
            counts: Counts::default(),
            random: RefCell::new(SmallRng::seed_from_u64(here.seed)),
            changed: Notify::new(),
            here,
        }
    }

    /// Replaces the list. Known endpoints keep their state, also through a change of readiness; `reach` makes what
    /// reaches a new one, or one whose address or identity has changed.
    pub fn update(&self, list: &[model::Endpoint], reach: impl Fn(&model::Endpoint) -> T) {
        let now = Instant::now();
        let mut all = self.all.borrow_mut();
        let mut old = std::mem::take(&mut *all);
        let typical = typical_latency(&old);
        let policy = self.policy.borrow().clone();
        // Where nobody was before, nobody is slower than the others.
        let appeared = (!self.ready.borrow().is_empty()).then_some(now);
        for model in list {
            let kept = old.remove(&model.uid).filter(|endpoint| endpoint.is_same_place(model));
            let endpoint = kept.unwrap_or_else(|| {
                let phase =
                    Phase(hash::fraction(hash::mix(hash::hash(model.uid.as_bytes()) ^ self.here.seed)));
                Rc::new(Endpoint::new(model, reach(model), policy.breaker.clone(), typical, phase))
            });
            endpoint.take(model, appeared);
            all.insert(model.uid.clone(), endpoint);
        }
        drop(all);
        self.rebuild();
        self.changed.notify_waiters();
    }

    /// Makes the algorithm ready for those endpoints that are ready.
    fn rebuild(&self) {
        let all = self.all.borrow();
        let mut ready: Vec<_> = all.values().filter(|endpoint| endpoint.is_ready()).cloned().collect();
        ready.sort_by_key(|endpoint| endpoint.token());
        name(&ready);
        let policy = self.policy.borrow();
        let balancer = &policy.load_balancer;
        let (own, others): (Vec<_>, Vec<_>) = ready
            .iter()
            .cloned()
            .partition(|endpoint| balancer.locality.is_some() && self.is_own(endpoint) == Some(true));
        let mut groups = self.groups.borrow_mut();
        groups.own.rebuild(&balancer.algorithm, own);
        groups.others.rebuild(&balancer.algorithm, others);
        let since = || self.nobody_since.get().unwrap_or_else(Instant::now);
        self.nobody_since.set(ready.is_empty().then(since));
        *self.ready.borrow_mut() = ready;
        drop((groups, policy, all));
        self.recount();
    }

    /// Waits for the next update of the list.
    pub async fn updated(&self) {
        self.changed.notified().await;
    }

    /// Takes a new policy. Breakers keep what they know.
    pub fn set_policy(&self, policy: Arc<TrafficPolicy>) {
        for endpoint in self.all.borrow().values() {
            endpoint.set_breaker(policy.breaker.clone());
        }
        let before = self.policy.replace(policy);
        if before.load_balancer == self.policy.borrow().load_balancer {
            self.recount();
        } else {
            self.rebuild();
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Ref<'_, TrafficPolicy> {
        Ref::map(self.policy.borrow(), |policy| &**policy)
    }

    /// Since when none has been ready; `None`: one is.
    pub fn nobody_since(&self) -> Option<Instant> {
        self.nobody_since.get()
    }

    /// Requests under way to any of them.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// What has been chosen.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every endpoint, in no order.
    pub fn endpoints(&self) -> Vec<Rc<Endpoint<T>>> {
        self.all.borrow().values().cloned().collect()
    }

    /// Whether there is such an endpoint, ready or not.
    pub fn has(&self, uid: &str) -> bool {
        self.all.borrow().contains_key(uid)
    }

    /// Whether breakers are ignored now.
    fn panics(&self, policy: &TrafficPolicy, ready: usize) -> bool {
        policy.breaker.as_ref().is_some_and(|breaker| ejection::panics(breaker, ready, self.broken.get()))
    }

    /// Whether one more may be left alone by its breaker.
    fn may_eject(&self) -> bool {
        let (policy, ready) = (self.policy.borrow(), self.ready.borrow().len());
        policy.breaker.as_ref().is_none_or(|breaker| ejection::may_eject(breaker, ready, self.broken.get()))
    }

    /// Whether an endpoint is of our zone. `None`: one of the two is not known.
    fn is_own(&self, endpoint: &Endpoint<T>) -> Option<bool> {
        let zone = endpoint.zone();
        (!self.here.zone.is_empty() && !zone.is_empty()).then(|| **zone == *self.here.zone)
    }

    /// 0 to 1.
    fn chance(&self) -> f64 {
        self.random.borrow_mut().random()
    }

    fn decay(&self) -> std::time::Duration {
        self.policy.borrow().load_balancer.decay
    }

    fn recount(&self) {
        let ready = self.ready.borrow();
        self.broken.set(ready.iter().filter(|endpoint| !endpoint.is_closed()).count());
        let locality = self.policy.borrow().load_balancer.locality;
        self.own_share.set(if locality.is_none() || self.here.zone.is_empty() {
            0.0
        } else {
            let (mut own, mut others) = self.zones(Endpoint::is_closed);
            if own.well == 0 && others.well == 0 || self.panics(&self.policy.borrow(), ready.len()) {
                // Where breakers are ignored, or none is well, they are no reason to prefer anybody.
                (own, others) = self.zones(|_| true);
            }
            let share = locality::own_share(locality, own, others);
            if own.all > 0 { share.max(TRY_OWN_ZONE) } else { share }
        });
    }

    /// What there is of the own zone, and of all others; well is who is ready and passes `well`.
    fn zones(&self, well: impl Fn(&Endpoint<T>) -> bool) -> (Zone, Zone) {
        let (mut own, mut others) = (Zone::default(), Zone::default());
        for endpoint in self.all.borrow().values() {
            let zone = if self.is_own(endpoint) == Some(true) { &mut own } else { &mut others };
            let weight = u64::from(endpoint.weight());
            zone.all += weight;
            zone.well += if endpoint.is_ready() && well(endpoint) { weight } else { 0 };
        }
        (own, others)
    }
}

/// Gives each endpoint the hash by which it is found: of its workload's name, which a restart does not change, where it is the
/// only one of that name.
fn name<T>(ready: &[Rc<Endpoint<T>>]) {
    let mut counts = HashMap::new();
    for endpoint in ready {
        *counts.entry(endpoint.workload().clone()).or_insert(0) += 1;
    }
    for endpoint in ready {
        let unique = counts[endpoint.workload()] == 1;
        endpoint.set_hash(if unique { hash::hash(endpoint.workload().as_bytes()) } else { endpoint.token() });
    }
}

/// What a newcomer is taken to be like until it is known: the middle of the others. Zero would draw all traffic to it.
fn typical_latency<T>(known: &HashMap<String, Rc<Endpoint<T>>>) -> f64 {
    let mut latencies: Vec<f64> =
        known.values().map(|endpoint| endpoint.latency_us()).filter(|us| *us > 0.0).collect();
    latencies.sort_by(f64::total_cmp);
    latencies.get(latencies.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests;
