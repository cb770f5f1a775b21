//! Chooses an endpoint for one request.

use std::{rc::Rc, time::Duration};

use pillion_api::hash;
use rand::Rng;
use tokio::time::Instant;

use super::{Balancer, Endpoint, Pick, counts::By, group::Ask};
use crate::error::Reason;

/// What is known of a request that matters for the choice.
#[derive(Debug)]
pub struct Wanted<'a, T> {
    /// For algorithms that hash.
    pub key: Option<u64>,
    /// The endpoint that its session is with, by [`Endpoint::token`]; kept to while that is ready.
    pub session: Option<u64>,
    /// Passed over while there is any other choice.
    pub avoid: &'a [Rc<Endpoint<T>>],
}

impl<T> Default for Wanted<'_, T> {
    fn default() -> Self {
        Self { key: None, session: None, avoid: &[] }
    }
}

impl<T> Balancer<T> {
    /// Chooses for one request.
    ///
    /// # Errors
    /// [`Reason::NoEndpoints`], [`Reason::NoReadyEndpoints`], [`Reason::BreakersOpen`].
    pub fn pick(
        self: &Rc<Self>,
        now: Instant,
        rng: &mut impl Rng,
        wanted: &Wanted<'_, T>,
    ) -> Result<Pick<T>, Reason> {
        let (by, chosen) = self.choose(now, rng, wanted)?;
        self.counts.count(by, self.is_own(&chosen));
        Ok(Pick::new(self.clone(), chosen, now))
    }

    fn choose(
        &self,
        now: Instant,
        rng: &mut impl Rng,
        wanted: &Wanted<'_, T>,
    ) -> Result<(By, Rc<Endpoint<T>>), Reason> {
        let ready = self.ready.borrow();
        if ready.is_empty() {
            return Err(if self.all.borrow().is_empty() {
                Reason::NoEndpoints
            } else {
                Reason::NoReadyEndpoints
            });
        }
        let policy = self.policy.borrow();
        let balancer = &policy.load_balancer;
        let panic = self.panics(&policy, ready.len());
        if panic {
            self.counts.panic();
        }
        let mut ask = Ask {
            now,
            key: wanted.key,
            panic,
            avoid: wanted.avoid,
            decay: balancer.decay,
            slow_start: balancer.slow_start,
            bound: None,
        };
        if let Some(token) = wanted.session
            && let Ok(at) = ready.binary_search_by_key(&token, |endpoint| endpoint.token())
            && ask.takes(&ready[at])
        {
            return Ok((By::Session, ready[at].clone()));
        }
        let groups = self.groups.borrow();
        let own_share = self.own_share.get();
        let own_first = own_share > 0.0 && {
            // One key is always of one side, so that it keeps to its endpoint.
            let luck = wanted.key.map_or_else(|| rng.random(), |key| hash::fraction(hash::mix(!key)));
            luck < own_share
        };
        let bounded_load = balancer.algorithm.hashing().and_then(|hashing| hashing.bounded_load);
        let sides = if own_first { [&groups.own, &groups.others] } else { [&groups.others, &groups.own] };
        for side in sides {
            ask.bound = bounded_load.map(|factor| {
                let share = if std::ptr::eq(side, &groups.own) { own_share } else { 1.0 - own_share };
                factor * f64::from(self.in_flight.get() + 1) * share / side.weight().max(1) as f64
            });
            if let Some(chosen) = side.choose(&ask, rng) {
                return Ok((By::Algorithm, chosen.clone()));
            }
        }
        // Who is to be avoided is better than nobody.
        let start = rng.random_range(0..ready.len());
        let mut rest = ready[start..].iter().chain(&ready[..start]);
        let chosen = rest.find(|endpoint| ask.may_take(endpoint)).ok_or(Reason::BreakersOpen)?;
        Ok((By::Algorithm, chosen.clone()))
    }

    /// Whether there is one beside these that would be chosen.
    pub fn has_other(&self, now: Instant, avoid: &[Rc<Endpoint<T>>]) -> bool {
        let ready = self.ready.borrow();
        let panic = self.panics(&self.policy.borrow(), ready.len());
        let mut others = ready.iter().filter(|it| !avoid.iter().any(|avoided| Rc::ptr_eq(avoided, it)));
        others.any(|other| panic || other.available(now))
    }

    /// Takes the one endpoint that the caller has named itself. Its breaker does not matter: there is no other to call instead.
    ///
    /// # Errors
    /// [`Reason::NoEndpoints`]: it is not there (any more); [`Reason::NoReadyEndpoints`].
    pub fn pick_named(self: &Rc<Self>, now: Instant, uid: &str) -> Result<Pick<T>, Reason> {
        let endpoint = self.all.borrow().get(uid).cloned().ok_or(Reason::NoEndpoints)?;
        if endpoint.is_ready() {
            self.counts.count(By::Name, self.is_own(&endpoint));
            Ok(Pick::new(self.clone(), endpoint, now))
        } else {
            Err(Reason::NoReadyEndpoints)
        }
    }

    /// Whether a session with an endpoint can go on: it is ready, and its breaker lets it be called.
    pub fn keeps(&self, session: u64, now: Instant) -> bool {
        let ready = self.ready.borrow();
        let at = ready.binary_search_by_key(&session, |endpoint| endpoint.token());
        at.is_ok_and(|at| ready[at].available(now) || self.panics(&self.policy.borrow(), ready.len()))
    }

    /// Every endpoint with the share of the service's requests, 0 to 1, that it is to have now.
    pub fn shares(&self, now: Instant) -> Vec<(Rc<Endpoint<T>>, f64)> {
        let (policy, ready) = (self.policy.borrow(), self.ready.borrow());
        let ask = Ask {
            now,
            key: None,
            panic: self.panics(&policy, ready.len()),
            avoid: &[],
            decay: Duration::ZERO,
            slow_start: policy.load_balancer.slow_start,
            bound: None,
        };
        let (groups, own) = (self.groups.borrow(), self.own_share.get());
        let mut shares = Vec::with_capacity(ready.len());
        for (group, share) in [(&groups.own, own), (&groups.others, 1.0 - own)] {
            let of_all = |(endpoint, part): (&Rc<Endpoint<T>>, f64)| (endpoint.clone(), part * share);
            shares.extend(group.shares(&ask).into_iter().map(of_all));
        }
        let unready = |endpoint: &&Rc<Endpoint<T>>| !endpoint.is_ready();
        shares.extend(self.all.borrow().values().filter(unready).map(|endpoint| (endpoint.clone(), 0.0)));
        shares
    }
}
