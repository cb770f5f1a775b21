//! A caller's sidecar: the product's decisions, with the network between replaced by the [`World`].

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use pillion_api::{
    model::{self, TrafficPolicy},
    retry::{self, Ended, Rules},
};
use pillion_proxy::balance::{Balancer, Endpoint, Here, Verdict, Wanted};
use pillion_proxy::outbound::{Budgets, Kind};
use rand::{Rng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    figures::{Outcome, Record, Seen},
    world::{self, Answer, Replica, World},
};

/// A sidecar with its application, which calls the service at a steady rate.
#[derive(Debug)]
pub(super) struct Sidecar {
    world: Rc<World>,
    pub(super) balancer: Rc<Balancer<Rc<Replica>>>,
    policy: Arc<TrafficPolicy>,
    budgets: Budgets,
    random: RefCell<SmallRng>,
    record: Rc<Record>,
}

impl Sidecar {
    /// In a zone; empty where zones do not matter.
    pub(super) fn new(
        world: &Rc<World>,
        policy: &TrafficPolicy,
        zone: &str,
        record: &Rc<Record>,
    ) -> Rc<Self> {
        let policy = Arc::new(policy.clone());
        let mut random = world.random();
        let here = Here { zone: zone.into(), seed: random.random() };
        let sidecar = Self {
            world: world.clone(),
            balancer: Rc::new(Balancer::new(policy.clone(), here)),
            policy,
            budgets: Budgets::new(1, world.began),
            random: RefCell::new(random),
            record: record.clone(),
        };
        sidecar.endpoints(|_| true);
        Rc::new(sidecar)
    }

    /// What the control plane says: these replicas are ready.
    pub(super) fn endpoints(&self, ready: impl Fn(&Replica) -> bool) {
        let replicas = self.world.replicas.iter().enumerate();
        let list: Vec<_> =
            replicas.map(|(index, replica)| endpoint(index, replica, ready(replica))).collect();
        self.balancer
            .update(&list, |endpoint| self.world.replicas[usize::from(endpoint.address.port())].clone());
    }

    /// Calls at this rate until it is told to stop, by being dropped.
    pub(super) async fn keep_calling(self: Rc<Self>, per_second: f64) {
        let mut random = self.world.random();
        let mut next = Instant::now();
        loop {
            next += world::gap(&mut random, per_second);
            tokio::time::sleep_until(next).await;
            let sidecar = self.clone();
            tokio::task::spawn_local(async move {
                let began = Instant::now();
                let outcome = sidecar.call().await;
                let (at, took) = (began - sidecar.world.began, began.elapsed());
                sidecar.record.add(Seen { at, took, outcome });
            });
        }
    }

    /// One GET: the product chooses, judges, and decides whether and when another attempt follows. Only the order of these steps
    /// is the simulation's.
    async fn call(&self) -> Outcome {
        let rules = Rules::of(None, [self.policy.retry.as_ref(), None]);
        let mut avoid: Vec<Rc<Endpoint<Rc<Replica>>>> = Vec::new();
        let mut last = None;
        self.budgets.request(Instant::now());
        for attempt in 1.. {
            let wanted = Wanted { avoid: &avoid, ..Wanted::default() };
            let picked = self.balancer.pick(Instant::now(), &mut *self.random.borrow_mut(), &wanted);
            let mut pick = match picked {
                Ok(pick) => pick,
                Err(_) if self.policy.fallback.is_some() => return Outcome::FellBack,
                Err(reason) => return last.unwrap_or(Outcome::Refused(reason.as_str())),
            };
            let answer = pick.endpoint().reach().call().await;
            let now = Instant::now();
            let (verdict, ended, outcome) = match answer {
                Answer::Good => (Verdict::Good, Ended::Status(StatusCode::OK), Outcome::Good),
                Answer::Failed => {
                    (Verdict::Failed, Ended::Status(StatusCode::SERVICE_UNAVAILABLE), Outcome::Failed)
                }
                Answer::NoConnection => {
                    (Verdict::Unreached, Ended::Unprocessed, Outcome::Refused("connect-failed"))
                }
            };
            if answer != Answer::NoConnection {
                pick.first_byte(now);
            }
            pick.settle(verdict, now);
            let decided = retry::decide(rules.as_ref(), &Method::GET, attempt, ended);
            if decided != retry::Verdict::Again {
                return outcome;
            }
            if let Some(rules) = rules.filter(|_| ended != Ended::Unprocessed) {
                if !self.budgets.take(Kind::Retry, rules.budget(), now) {
                    return outcome;
                }
                let random = self.random.borrow_mut().random();
                tokio::time::sleep(rules.backoff(attempt + 1, random)).await;
            }
            last = Some(outcome);
            avoid.push(pick.endpoint().clone());
        }
        unreachable!("attempts are bounded")
    }
}

fn endpoint(index: usize, replica: &Replica, ready: bool) -> model::Endpoint {
    model::Endpoint {
        uid: format!("u{index}"),
        workload: format!("app-{index}"),
        address: ([127, 0, 0, 1], index as u16).into(),
        identity: None,
        ready,
        zone: replica.zone.to_owned(),
        weight: 100,
    }
}

/// Sidecars that share one service, each with its part of the calls, until the end of the story.
pub(super) struct Callers {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Callers {
    pub(super) fn start(sidecars: Vec<Rc<Sidecar>>, per_second: f64) -> Self {
        let each = per_second / sidecars.len() as f64;
        let tasks =
            sidecars.iter().map(|sidecar| tokio::task::spawn_local(sidecar.clone().keep_calling(each)));
        Self { tasks: tasks.collect() }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Until so many seconds after the story's beginning.
pub(super) async fn until(world: &World, second: u64) {
    tokio::time::sleep_until(world.began + Duration::from_secs(second)).await;
}
