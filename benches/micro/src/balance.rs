//! Choosing an endpoint and giving it back, and what its breaker does with the result.

use std::{rc::Rc, sync::Arc, time::Duration};

use pillion_api::model::{CircuitBreaker, Endpoint, TrafficPolicy, USUAL_WEIGHT};
use pillion_proxy::balance::{
    Balancer, Here, Wanted,
    breaker::{Breaker, Change},
    verdict::{Call, Verdict},
};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use crate::Case;

/// How long ago the last request was: as at a thousand per second.
const PAUSE: Duration = Duration::from_millis(1);

/// A pick among so many endpoints, its first byte, and its success.
#[derive(Debug)]
pub struct Pick {
    balancer: Rc<Balancer<()>>,
    random: SmallRng,
    now: Instant,
}

impl Pick {
    /// All of them ready.
    pub fn among(count: usize) -> Self {
        let endpoint = |index: usize| Endpoint {
            uid: format!("instance-{index}"),
            workload: format!("backend-{index}"),
            address: ([127, 0, 0, 1], 15006).into(),
            identity: Some("spiffe://bench.local/ns/bench/sa/backend".parse().expect("a valid SPIFFE ID")),
            ready: true,
            zone: String::new(),
            weight: USUAL_WEIGHT,
        };
        let balancer = Rc::new(Balancer::new(Arc::new(TrafficPolicy::default()), Here::default()));
        let list: Vec<_> = (0..count).map(endpoint).collect();
        balancer.update(&list, |_| ());
        Self { balancer, random: SmallRng::seed_from_u64(1), now: Instant::now() }
    }
}

impl Case for Pick {
    type Output = ();

    fn run(&mut self) {
        self.now += PAUSE;
        let picked = self.balancer.pick(self.now, &mut self.random, &Wanted::default());
        let mut pick = picked.expect("all are ready");
        pick.first_byte(self.now + PAUSE);
        pick.settle(Verdict::Good, self.now);
    }
}

/// A closed breaker that is told of one result in ten being a failure: below what opens it.
#[derive(Debug)]
pub struct Record {
    breaker: Breaker,
    now: Instant,
    number: u32,
}

impl Record {
    /// With the default policy.
    pub fn new() -> Self {
        Self { breaker: Breaker::new(CircuitBreaker::default()), now: Instant::now(), number: 0 }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Case for Record {
    type Output = Option<Change>;

    fn run(&mut self) -> Option<Change> {
        self.now += PAUSE;
        self.number += 1;
        let permit = self.breaker.admit(self.now);
        let verdict = if self.number.is_multiple_of(10) { Verdict::Failed } else { Verdict::Good };
        self.breaker.record(self.now, permit, Call { verdict, took: Duration::ZERO }, || true, 0.0)
    }
}
