//! Chooses the endpoint for a request: of two ready ones picked at random, the less loaded (power of two choices,
//! peak EWMA), passing over those whose circuit breaker is open.
//!
//! Endpoints are kept by their UID: load estimates, breakers and connections survive every update of the list.

pub mod breaker;
pub mod endpoint;
pub mod ewma;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use pillion_api::model::{self, TrafficPolicy};
use rand::Rng;
use tokio::{sync::Notify, time::Instant};

pub use endpoint::{Endpoint, Pick};

use crate::error::Reason;

/// Samples before giving up on luck and looking at every endpoint.
const TRIES: usize = 4;

/// The endpoints of one service. `T` is what reaches an endpoint: the balancer only keeps it.
#[derive(Debug)]
pub struct Balancer<T> {
    policy: RefCell<Arc<TrafficPolicy>>,
    all: RefCell<HashMap<String, Rc<Endpoint<T>>>>,
    ready: RefCell<Vec<Rc<Endpoint<T>>>>,
    /// How many of the ready ones have a breaker that is not closed. Kept up to date by [`Self::recount`].
    broken: Cell<usize>,
    changed: Notify,
}

impl<T> Balancer<T> {
    /// Without endpoints yet.
    pub fn new(policy: Arc<TrafficPolicy>) -> Self {
        Self {
            policy: RefCell::new(policy),
            all: RefCell::default(),
            ready: RefCell::default(),
            broken: Cell::default(),
            changed: Notify::new(),
        }
    }

    /// Replaces the list. Known endpoints keep their state, also through a change of readiness; `reach` makes what
    /// reaches a new one, or one whose address or identity has changed.
    pub fn update(&self, list: &[model::Endpoint], reach: impl Fn(&model::Endpoint) -> T) {
        let mut all = self.all.borrow_mut();
        let mut old = std::mem::take(&mut *all);
        let typical = typical_latency(&old);
        let policy = self.policy.borrow().clone();
        for model in list {
            let kept = old.remove(&model.uid).filter(|endpoint| endpoint.is_same_place(model));
            let endpoint = kept.unwrap_or_else(|| {
                Rc::new(Endpoint::new(model, reach(model), policy.breaker.clone(), typical))
            });
            endpoint.set_ready(model.ready);
            all.insert(model.uid.clone(), endpoint);
        }
        let mut ready: Vec<_> = all.values().filter(|endpoint| endpoint.is_ready()).cloned().collect();
        ready.sort_by(|a, b| a.uid().cmp(b.uid()));
        *self.ready.borrow_mut() = ready;
        drop(all);
        self.recount();
        self.changed.notify_waiters();
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
        *self.policy.borrow_mut() = policy;
        self.recount();
    }

    /// Every endpoint, in no order.
    pub fn endpoints(&self) -> Vec<Rc<Endpoint<T>>> {
        self.all.borrow().values().cloned().collect()
    }

    /// Chooses for one request. `avoid` is passed over while there is any other choice.
    ///
    /// # Errors
    /// [`Reason::NoEndpoints`], [`Reason::NoReadyEndpoints`], [`Reason::BreakersOpen`].
    pub fn pick(
        self: &Rc<Self>,
        now: Instant,
        rng: &mut impl Rng,
        avoid: Option<&str>,
    ) -> Result<Pick<T>, Reason> {
        let ready = self.ready.borrow();
        let policy = self.policy.borrow();
        let count = ready.len();
        if count == 0 {
            return Err(if self.all.borrow().is_empty() {
                Reason::NoEndpoints
            } else {
                Reason::NoReadyEndpoints
            });
        }
        // With too few left, breaking would only push the load onto those until they break too.
        let panic = policy
            .breaker
            .as_ref()
            .is_some_and(|b| ((count - self.broken.get()) as f64) < b.panic_share * count as f64);
        let usable = |endpoint: &Endpoint<T>| panic || endpoint.available(now);
        let avoided = |endpoint: &Endpoint<T>| count > 1 && avoid == Some(endpoint.uid());
        let mut chosen = None;
        for _ in 0..TRIES {
            let a = rng.random_range(0..count);
            let b = if count > 1 { (a + rng.random_range(1..count)) % count } else { a };
            let (a, b) = (&ready[a], &ready[b]);
            chosen = match (usable(a) && !avoided(a), usable(b) && !avoided(b)) {
                (true, true) => Some(lighter(a, b, now, &policy)),
                (true, false) => Some(a),
                (false, true) => Some(b),
                (false, false) => continue,
            };
            break;
        }
        let chosen = chosen.or_else(|| {
            let start = rng.random_range(0..count);
            let mut others = (0..count).map(|i| &ready[(start + i) % count]);
            others.clone().find(|e| usable(e) && !avoided(e)).or_else(|| others.find(|e| usable(e)))
        });
        let Some(chosen) = chosen.cloned() else { return Err(Reason::BreakersOpen) };
        drop(ready);
        drop(policy);
        Ok(Pick::new(self.clone(), chosen, now))
    }

    /// Whether there is such an endpoint, ready or not.
    pub fn has(&self, uid: &str) -> bool {
        self.all.borrow().contains_key(uid)
    }

    /// Takes the one endpoint that the caller has named itself. Its breaker does not matter: there is no other to call instead.
    ///
    /// # Errors
    /// [`Reason::NoEndpoints`]: it is not there (any more); [`Reason::NoReadyEndpoints`].
    pub fn pick_named(self: &Rc<Self>, now: Instant, uid: &str) -> Result<Pick<T>, Reason> {
        let endpoint = self.all.borrow().get(uid).cloned().ok_or(Reason::NoEndpoints)?;
        if endpoint.is_ready() {
            Ok(Pick::new(self.clone(), endpoint, now))
        } else {
            Err(Reason::NoReadyEndpoints)
        }
    }

    fn decay(&self) -> std::time::Duration {
        self.policy.borrow().decay
    }

    fn recount(&self) {
        let ready = self.ready.borrow();
        self.broken.set(ready.iter().filter(|endpoint| !endpoint.is_closed()).count());
    }
}

/// Of two, the one with less to do; one that waits to be probed first, or it would never come back.
fn lighter<'a, T>(
    a: &'a Rc<Endpoint<T>>,
    b: &'a Rc<Endpoint<T>>,
    now: Instant,
    policy: &TrafficPolicy,
) -> &'a Rc<Endpoint<T>> {
    match (a.is_closed(), b.is_closed()) {
        (false, true) if a.available(now) => a,
        (true, false) if b.available(now) => b,
        _ if b.load(now, policy.decay) < a.load(now, policy.decay) => b,
        _ => a,
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn model(uid: usize, ready: bool) -> model::Endpoint {
        model::Endpoint {
            uid: format!("u{uid}"),
            workload: format!("w{uid}"),
            address: ([127, 0, 0, 1], 1000).into(),
            identity: Some("spiffe://mesh.local/ns/demo/sa/a".parse().expect("an identity")),
            ready,
        }
    }

    fn balancer(count: usize) -> Rc<Balancer<()>> {
        let balancer = Rc::new(Balancer::new(Arc::new(TrafficPolicy::default())));
        let list: Vec<_> = (0..count).map(|uid| model(uid, true)).collect();
        balancer.update(&list, |_| ());
        balancer
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_gets_little() {
        let balancer = balancer(4);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = HashMap::new();
        for _ in 0..4000 {
            let mut pick = balancer.pick(Instant::now(), &mut rng, None).expect("ready ones");
            let uid = pick.endpoint().uid().to_owned();
            let took = Duration::from_millis(if uid == "u0" { 100 } else { 5 });
            *counts.entry(uid).or_insert(0) += 1;
            pick.first_byte(Instant::now() + took);
            pick.settle(true, Instant::now());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(counts["u0"] < 100, "{counts:?}");
        assert!(counts["u1"] > 800, "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn state_survives_updates_by_uid_only() {
        let balancer = balancer(2);
        let before = balancer.endpoints();
        balancer.update(&[model(0, true), model(1, false), model(2, true)], |_| ());
        let after = balancer.all.borrow();
        let same = |uid: &str| before.iter().any(|endpoint| Rc::ptr_eq(endpoint, &after[uid]));
        assert!(same("u0") && same("u1") && !same("u2"));
        // The same UID at another address is another place.
        drop(after);
        let moved = model::Endpoint { address: ([127, 0, 0, 1], 2000).into(), ..model(0, true) };
        balancer.update(&[moved], |_| ());
        assert!(!before.iter().any(|endpoint| Rc::ptr_eq(endpoint, &balancer.all.borrow()["u0"])));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_apart() {
        let mut rng = SmallRng::seed_from_u64(1);
        let none = balancer(0);
        assert_eq!(none.pick(Instant::now(), &mut rng, None).err(), Some(Reason::NoEndpoints));
        none.update(&[model(0, false)], |_| ());
        assert_eq!(none.pick(Instant::now(), &mut rng, None).err(), Some(Reason::NoReadyEndpoints));
    }

    fn fail(balancer: &Rc<Balancer<()>>, uid: &str, times: usize) {
        let endpoint = balancer.all.borrow()[uid].clone();
        for _ in 0..times {
            Pick::new(balancer.clone(), endpoint.clone(), Instant::now()).settle(false, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn broken_ones_are_passed_over_then_probed_then_back() {
        let balancer = balancer(3);
        let mut rng = SmallRng::seed_from_u64(7);
        fail(&balancer, "u1", 7);
        for _ in 0..200 {
            let mut pick = balancer.pick(Instant::now(), &mut rng, None).expect("two are left");
            assert_ne!(pick.endpoint().uid(), "u1");
            pick.settle(true, Instant::now());
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let mut held = Vec::new();
        let mut probes = 0;
        for _ in 0..50 {
            let pick = balancer.pick(Instant::now(), &mut rng, None).expect("some are left");
            probes += usize::from(pick.endpoint().uid() == "u1");
            held.push(pick);
        }
        assert_eq!(probes, 1, "one probe at a time");
        for pick in &mut held {
            pick.settle(true, Instant::now());
        }
        assert!(balancer.all.borrow()["u1"].is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_hangs_is_left_alone_although_its_callers_gave_up() {
        let balancer = balancer(2);
        let mut rng = SmallRng::seed_from_u64(5);
        let mut to_the_hanging_one = 0;
        for _ in 0..100 {
            let mut pick = balancer.pick(Instant::now(), &mut rng, None).expect("ready ones");
            if pick.endpoint().uid() == "u0" {
                to_the_hanging_one += 1;
                tokio::time::advance(Duration::from_millis(200)).await;
            } else {
                tokio::time::advance(Duration::from_millis(1)).await;
                pick.first_byte(Instant::now());
                pick.settle(true, Instant::now());
            }
        }
        assert!(to_the_hanging_one <= 3, "{to_the_hanging_one} of 100");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_goes_on_does_not_keep_its_endpoint_out() {
        let balancer = balancer(2);
        let mut rng = SmallRng::seed_from_u64(5);
        fail(&balancer, "u0", 7);
        tokio::time::advance(Duration::from_secs(2)).await;
        let mut probe = Pick::new(balancer.clone(), balancer.all.borrow()["u0"].clone(), Instant::now());
        assert!(probe.is_probe());
        probe.settle(true, Instant::now());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(balancer.all.borrow()["u0"].is_closed());
        assert_eq!(balancer.all.borrow()["u0"].in_flight(), 1);
        assert!(balancer.pick(Instant::now(), &mut rng, Some("u1")).expect("u0").endpoint().uid() == "u0");
    }

    #[tokio::test(start_paused = true)]
    async fn panic_keeps_balancing_and_can_be_switched_off() {
        let balancer = balancer(3);
        let mut rng = SmallRng::seed_from_u64(7);
        for uid in ["u0", "u1", "u2"] {
            fail(&balancer, uid, 7);
        }
        assert!(balancer.pick(Instant::now(), &mut rng, None).is_ok(), "panic: breakers are ignored");
        let mut policy = TrafficPolicy::default();
        policy.breaker.as_mut().expect("on by default").panic_share = 0.0;
        balancer.set_policy(Arc::new(policy));
        assert_eq!(balancer.pick(Instant::now(), &mut rng, None).err(), Some(Reason::BreakersOpen));
    }

    #[tokio::test(start_paused = true)]
    async fn the_avoided_one_is_the_last_resort() {
        let mut rng = SmallRng::seed_from_u64(3);
        let two = balancer(2);
        for _ in 0..50 {
            let pick = two.pick(Instant::now(), &mut rng, Some("u0")).expect("another one");
            assert_eq!(pick.endpoint().uid(), "u1");
        }
        let one = balancer(1);
        assert_eq!(
            one.pick(Instant::now(), &mut rng, Some("u0")).expect("better than none").endpoint().uid(),
            "u0"
        );
    }

    proptest! {
        #[test]
        fn a_pick_is_ready_and_counts_return_to_zero(
            ready in proptest::collection::vec(any::<bool>(), 1..20), seed in any::<u64>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let _entered = runtime.enter();
            let balancer = Rc::new(Balancer::new(Arc::new(TrafficPolicy::default())));
            let list: Vec<_> = ready.iter().enumerate().map(|(uid, ready)| model(uid, *ready)).collect();
            balancer.update(&list, |_| ());
            let mut rng = SmallRng::seed_from_u64(seed);
            let picks: Vec<_> = (0..20).filter_map(|_| balancer.pick(Instant::now(), &mut rng, None).ok()).collect();
            prop_assert_eq!(picks.is_empty(), !ready.contains(&true));
            for pick in &picks { prop_assert!(pick.endpoint().is_ready()); }
            drop(picks);
            for endpoint in balancer.endpoints() { prop_assert_eq!(endpoint.in_flight(), 0); }
        }
    }
}
