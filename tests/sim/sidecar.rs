//! A caller's sidecar: the product's decisions, with the network between replaced by the [`World`].

use std::{cell::RefCell, pin::pin, rc::Rc, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use pillion_api::{
    model::{self, TrafficPolicy},
    retry::{self, Ended, Rules},
};
use pillion_proxy::balance::{Balancer, Endpoint, Here, Verdict, Wanted};
use pillion_proxy::error::Reason;
use pillion_proxy::outbound::{Budgets, Kind, Quantiles};
use rand::{Rng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    figures::{Outcome, Record, Seen},
    world::{self, Answer, Replica, World},
};

/// An endpoint, and the replica that it is.
type Known = Rc<Endpoint<Rc<Replica>>>;

/// What an attempt came to.
struct Tried {
    endpoint: Known,
    ended: Ended,
    outcome: Outcome,
}

/// A sidecar with its application, which calls the service at a steady rate.
#[derive(Debug)]
pub(super) struct Sidecar {
    world: Rc<World>,
    pub(super) balancer: Rc<Balancer<Rc<Replica>>>,
    policy: Arc<TrafficPolicy>,
    budgets: Budgets,
    answers: Quantiles,
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
            answers: Quantiles::default(),
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
    async fn keep_calling(self: Rc<Self>, arrivals: Arrivals, per_second: f64) {
        let mut random = self.world.random();
        let even = Duration::from_secs_f64(1.0 / per_second);
        let mut next = Instant::now() + even.mul_f64(random.random());
        loop {
            next += match arrivals {
                Arrivals::Independent => world::gap(&mut random, per_second),
                Arrivals::Even => even,
            };
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

    /// One GET. The product chooses, judges, and decides whether and when another attempt follows or goes beside; the order of these
    /// steps is that of `src/outbound/attempt`, and is written here once more.
    async fn call(&self) -> Outcome {
        let began = Instant::now();
        let end = self.policy.request_timeout.map(|after| began + after);
        let rules = Rules::of(None, self.policy.retry.as_ref());
        let mut avoid = Vec::new();
        let mut last = None;
        self.budgets.request(began);
        for attempt in 1.. {
            let tried = match self.hedged(&avoid, end).await {
                Ok(tried) => tried,
                Err(_) if self.policy.fallback.is_some() => return Outcome::FellBack,
                Err(reason) => return last.unwrap_or(Outcome::Refused(reason.as_str())),
            };
            let Tried { endpoint, ended, outcome } = tried;
            let decided = retry::decide(rules.as_ref(), &Method::GET, attempt, ended);
            if decided != retry::Verdict::Again {
                return outcome;
            }
            if let Some(rules) = rules.filter(|_| ended != Ended::Unprocessed) {
                let now = Instant::now();
                let wait = rules.backoff(attempt + 1, self.random.borrow_mut().random());
                let late = end.is_some_and(|end| now + wait >= end);
                if late || !self.budgets.take(Kind::Retry, rules.budget(), now) {
                    return outcome;
                }
                tokio::time::sleep(wait).await;
            }
            last = Some(outcome);
            avoid.push(endpoint);
        }
        unreachable!("attempts are bounded")
    }

    /// An attempt, and another one beside it if it takes long.
    async fn hedged(&self, avoid: &[Known], end: Option<Instant>) -> Result<Tried, Reason> {
        let chosen = RefCell::new(avoid.to_vec());
        let first = self.attempt(avoid, &chosen, end);
        let hedge = self.policy.hedge.as_ref().and_then(|hedge| Some((hedge, self.answers.patience(hedge)?)));
        let Some((hedge, patience)) = hedge else { return first.await };
        let mut first = pin!(first);
        if let Ok(tried) = tokio::time::timeout(patience, &mut first).await {
            return tried;
        }
        if !self.budgets.take(Kind::Hedge, &hedge.budget, Instant::now()) {
            return first.await;
        }
        let others = chosen.borrow().clone();
        let mut second = pin!(self.attempt(&others, &chosen, end));
        let good = |tried: &Result<Tried, Reason>| tried.as_ref().is_ok_and(|it| it.outcome == Outcome::Good);
        tokio::select! {
            biased;
            tried = &mut first => if good(&tried) { tried } else { second.await.or(tried) },
            tried = &mut second => if good(&tried) { tried } else { first.await.or(tried) },
        }
    }

    async fn attempt(
        &self,
        avoid: &[Known],
        chosen: &RefCell<Vec<Known>>,
        end: Option<Instant>,
    ) -> Result<Tried, Reason> {
        let now = Instant::now();
        let wanted = Wanted { avoid, ..Wanted::default() };
        let mut pick = self.balancer.pick(now, &mut *self.random.borrow_mut(), &wanted)?;
        let endpoint = pick.endpoint().clone();
        chosen.borrow_mut().push(endpoint.clone());
        let each = self.policy.attempt_timeout.map(|each| (now + each, Ended::Timeout));
        let whole = end.map(|end| (end, Ended::Final));
        let answer = endpoint.reach().call();
        let answer = match [whole, each].into_iter().flatten().min_by_key(|(at, _)| *at) {
            None => Ok(answer.await),
            Some((at, ended)) => tokio::time::timeout_at(at, answer).await.map_err(|_| ended),
        };
        let now = Instant::now();
        let (verdict, ended, outcome) = match answer {
            Ok(Answer::Good) => (Verdict::Good, Ended::Status(StatusCode::OK), Outcome::Good),
            Ok(Answer::Failed) => {
                (Verdict::Failed, Ended::Status(StatusCode::SERVICE_UNAVAILABLE), Outcome::Failed)
            }
            Ok(Answer::NoConnection) => {
                (Verdict::Unreached, Ended::Unprocessed, Outcome::Refused("connect-failed"))
            }
            Err(ended) => (Verdict::Failed, ended, Outcome::Refused("request-timeout")),
        };
        if answer != Ok(Answer::NoConnection) {
            pick.first_byte(now);
        }
        if answer.is_ok() && self.policy.hedge.as_ref().is_some_and(|hedge| hedge.percentile.is_some()) {
            self.answers.observe((now - pick.began()).as_micros() as u64);
        }
        pick.settle(verdict, now);
        Ok(Tried { endpoint, ended, outcome })
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

/// When calls come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arrivals {
    /// As from many users.
    Independent,
    /// One after the other, so that all stretches of time are alike.
    Even,
}

/// Sidecars that share one service, each with its part of the calls, until the end of the story.
pub(super) struct Callers {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Callers {
    pub(super) fn start(sidecars: Vec<Rc<Sidecar>>, arrivals: Arrivals, per_second: f64) -> Self {
        let each = per_second / sidecars.len() as f64;
        let start = |sidecar: Rc<Sidecar>| tokio::task::spawn_local(sidecar.keep_calling(arrivals, each));
        Self { tasks: sidecars.into_iter().map(start).collect() }
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
