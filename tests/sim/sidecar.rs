//! A caller's sidecar: the product's decisions, with the network between replaced by the [`World`].

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use pillion_api::model::{self, TrafficPolicy};
use pillion_proxy::balance::Balancer;
use rand::rngs::SmallRng;
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
    random: RefCell<SmallRng>,
    record: Rc<Record>,
}

impl Sidecar {
    pub(super) fn new(world: &Rc<World>, policy: TrafficPolicy, record: &Rc<Record>) -> Rc<Self> {
        let policy = Arc::new(policy);
        let balancer = Rc::new(Balancer::new(policy.clone()));
        let sidecar = Self {
            world: world.clone(),
            balancer,
            policy,
            random: RefCell::new(world.random()),
            record: record.clone(),
        };
        sidecar.endpoints(|_| true);
        Rc::new(sidecar)
    }

    /// What the control plane says: those replicas are there.
    pub(super) fn endpoints(&self, there: impl Fn(&Replica) -> bool) {
        let replicas = self.world.replicas.iter().enumerate().filter(|(_, replica)| there(replica));
        let list: Vec<_> = replicas.map(|(index, _)| endpoint(index)).collect();
        self.balancer.update(&list, |endpoint| self.world.replicas[usize::from(endpoint.address.port())].clone());
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
                let outcome = sidecar.call(began).await;
                let (at, took) = (began - sidecar.world.began, began.elapsed());
                sidecar.record.add(Seen { at, took, outcome });
            });
        }
    }

    async fn call(&self, began: Instant) -> Outcome {
        let tries = async {
            let mut avoid = None;
            let mut last = None;
            for _ in 0..3 {
                let picked = self.balancer.pick(Instant::now(), &mut *self.random.borrow_mut(), avoid.as_deref());
                let mut pick = match picked {
                    Ok(pick) => pick,
                    Err(reason) => return last.unwrap_or(Outcome::Refused(reason.as_str())),
                };
                let answer = pick.endpoint().reach().call().await;
                let now = Instant::now();
                if answer != Answer::NoConnection {
                    pick.first_byte(now);
                }
                pick.settle(answer == Answer::Good, now);
                match answer {
                    Answer::Good => return Outcome::Good,
                    Answer::Failed => last = Some(Outcome::Failed),
                    Answer::NoConnection => last = Some(Outcome::Refused("connect-failed")),
                }
                avoid = Some(pick.endpoint().uid().to_owned());
            }
            last.expect("there was a try")
        };
        let Some(limit) = self.policy.request_timeout else { return tries.await };
        tokio::time::timeout_at(began + limit, tries).await.unwrap_or(Outcome::Refused("request-timeout"))
    }
}

fn endpoint(index: usize) -> model::Endpoint {
    model::Endpoint {
        uid: format!("u{index}"),
        workload: format!("app-{index}"),
        address: ([127, 0, 0, 1], index as u16).into(),
        identity: None,
        ready: true,
    }
}

/// Sidecars that share one service, each with its part of the calls, until the end of the story.
pub(super) struct Callers {
    pub(super) sidecars: Vec<Rc<Sidecar>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Callers {
    pub(super) fn start(sidecars: Vec<Rc<Sidecar>>, per_second: f64) -> Self {
        let each = per_second / sidecars.len() as f64;
        let tasks = sidecars.iter().map(|sidecar| tokio::task::spawn_local(sidecar.clone().keep_calling(each)));
        Self { tasks: tasks.collect(), sidecars }
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
