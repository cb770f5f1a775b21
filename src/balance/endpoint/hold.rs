//! A request's hold on an endpoint, and what the endpoint learns from it.

use std::{rc::Rc, time::Duration};

use tokio::time::Instant;

use super::Endpoint;
use crate::{
    balance::{
        Balancer,
        breaker::{Breaker, Change, Permit},
        verdict::{Call, Verdict},
    },
    telemetry::edge::Outcome,
};

/// One request's hold on an endpoint, for as long as it is under way. Its result is told by [`Pick::settle`]; dropped
/// without, its caller went away.
#[derive(Debug)]
pub struct Pick<T> {
    balancer: Rc<Balancer<T>>,
    endpoint: Rc<Endpoint<T>>,
    permit: Option<Permit>,
    began: Instant,
    /// Until the head of the answer.
    took: Option<Duration>,
    /// Whether the endpoint has been told that.
    told: bool,
}

impl<T> Pick<T> {
    pub(in crate::balance) fn new(
        balancer: Rc<Balancer<T>>,
        endpoint: Rc<Endpoint<T>>,
        now: Instant,
    ) -> Self {
        endpoint.in_flight.set(endpoint.in_flight.get() + 1);
        balancer.in_flight.set(balancer.in_flight.get() + 1);
        let was_closed = endpoint.is_closed();
        let permit =
            endpoint.breaker.borrow_mut().as_mut().map_or(Permit::UNGUARDED, |breaker| breaker.admit(now));
        if was_closed != endpoint.is_closed() {
            balancer.recount();
        }
        Self { balancer, endpoint, permit: Some(permit), began: now, took: None, told: false }
    }

    /// The chosen one.
    pub fn endpoint(&self) -> &Rc<Endpoint<T>> {
        &self.endpoint
    }

    /// Whether this request decides if the endpoint is let back in. Its result is to be told as soon as there is a
    /// sign of life: a probe may be a stream that goes on for hours.
    pub fn is_probe(&self) -> bool {
        self.permit.is_some_and(Permit::is_probe)
    }

    /// Since when it is under way.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Notes that the first answer has come now, or would have been due. What that says, the verdict tells.
    pub fn first_byte(&mut self, now: Instant) {
        self.took = Some(now.saturating_duration_since(self.began));
    }

    /// Takes in what the head of the answer says; the request goes on. A failure is one however its body goes on, and a probe has
    /// shown what it was to show.
    pub fn begun(&mut self, verdict: Verdict) {
        if verdict != Verdict::Good || self.is_probe() {
            self.settle(verdict, Instant::now());
        } else if self.permit.is_some() {
            self.answered();
        }
    }

    /// A quick failure is no good news, so only a good answer's time is that of the endpoint.
    fn answered(&mut self) {
        if let Some(took) = self.took
            && !std::mem::replace(&mut self.told, true)
        {
            self.endpoint.answered(took, self.began + took, self.balancer.decay());
        }
    }

    /// What an outcome says about the endpoint, by its service's policy.
    pub fn verdict(&self, outcome: Outcome) -> Verdict {
        Verdict::of(outcome, self.endpoint.breaker.borrow().as_ref().map(Breaker::config))
    }

    /// Takes in the result, once; the request may go on.
    pub fn settle(&mut self, verdict: Verdict, now: Instant) {
        let Some(permit) = self.permit.take() else { return };
        match verdict {
            Verdict::Good => self.answered(),
            // Nor is it as good as no news: what it is thought to take does not sink.
            Verdict::Failed | Verdict::Untried => {
                let usual = Duration::from_secs_f64(self.endpoint.latency_us() / 1e6);
                let waited = if verdict == Verdict::Failed { self.waited(now) } else { Duration::ZERO };
                self.endpoint.observe(waited.max(usual), now, self.balancer.decay());
            }
            Verdict::Unreached => self.took_at_least(now),
        }
        let took = self.waited(now);
        self.change(now, |breaker| {
            // Only the rare failure draws a random number.
            let random = if verdict == Verdict::Good { 0.0 } else { self.balancer.chance() };
            let call = Call { verdict, took };
            breaker.record(now, permit, call, || self.balancer.may_eject(), random)
        });
    }

    /// Takes in that its caller, or the caller's own one, would wait no longer. That says nothing, unless it was longer than
    /// anybody should have had to.
    pub fn given_up(&mut self, now: Instant) {
        if self.waited(now) >= self.endpoint.in_vain() {
            self.settle(Verdict::Failed, now);
        } else {
            self.cancel(now);
        }
    }

    fn cancel(&mut self, now: Instant) {
        let Some(permit) = self.permit.take() else { return };
        self.took_at_least(now);
        let waited = now.saturating_duration_since(self.began);
        self.change(now, |breaker| breaker.cancel(now, permit, waited, self.balancer.chance()));
    }

    /// For the head of the answer.
    fn waited(&self, now: Instant) -> Duration {
        self.took.unwrap_or_else(|| now.saturating_duration_since(self.began))
    }

    /// Whoever waited in vain has learned that it takes at least so long.
    fn took_at_least(&self, now: Instant) {
        let waited = self.waited(now);
        let decay = self.balancer.decay();
        if waited.as_secs_f64() * 1e6 > self.endpoint.latency.get().current(now, decay) {
            self.endpoint.observe(waited, now, decay);
        }
    }

    fn change(&self, now: Instant, update: impl FnOnce(&mut Breaker) -> Option<Change>) {
        let change = self.endpoint.breaker.borrow_mut().as_mut().and_then(update);
        let (workload, (_, _, reason)) = match change {
            None => return,
            Some(_) => (self.endpoint.workload(), self.endpoint.breaker()),
        };
        match change {
            Some(Change::Opened) => tracing::info!(%workload, reason, "circuit breaker opened"),
            Some(Change::Closed) => {
                let ramp = self.endpoint.breaker.borrow().as_ref().map(Breaker::ramp);
                self.endpoint.set_recovered(ramp.map(|ramp| (now, ramp)));
                tracing::info!(%workload, "circuit breaker closed");
            }
            Some(Change::Spared) => {
                self.balancer.counts.spare();
                return tracing::debug!(%workload, "circuit breaker kept closed: too many are open");
            }
            None => {}
        }
        self.balancer.recount();
    }
}

impl<T> Drop for Pick<T> {
    fn drop(&mut self) {
        self.endpoint.in_flight.set(self.endpoint.in_flight.get() - 1);
        self.balancer.in_flight.set(self.balancer.in_flight.get() - 1);
        if self.permit.is_some() {
            self.cancel(Instant::now());
        }
    }
}
