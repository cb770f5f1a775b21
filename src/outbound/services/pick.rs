//! Who of a service's endpoints gets a request; while there is nobody, for how long that is waited for, and what is said then.

use std::{cell::RefCell, time::Duration};

use pillion_api::model::Fallback;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::{Service, outside::Outside};
use crate::{
    balance::{Pick, Wanted},
    error::{Reason, Refusal},
    outbound::{fallback::covers, reach::Reach},
};

/// Endpoints that a refusal names.
const NAMED: usize = 5;

impl Service {
    /// Chooses an endpoint. While there is no ready one at all, waits for one to come, each request by its own deadline, and
    /// bounded in number: a service that is just starting or restarting is worth a moment. Where all breakers are open it does
    /// not wait: that is to be told at once. Nor where a `fallback` is there for it, and there has been nobody for as long as a
    /// request would wait, or there is no endpoint at all. The one that is `named`, where one is.
    ///
    /// # Errors
    /// [`Reason::NoEndpoints`], [`Reason::NoReadyEndpoints`], [`Reason::BreakersOpen`], [`Reason::QueueFull`].
    pub(in crate::outbound) async fn pick(
        &self,
        random: &RefCell<SmallRng>,
        now: Instant,
        named: Option<&str>,
        fallback: Option<&Fallback>,
        wanted: &Wanted<'_, Reach>,
    ) -> Result<Pick<Reach>, Refusal> {
        if let Some(uid) = named {
            let picked = self.balancer.pick_named(now, uid);
            return picked.map_err(|reason| Refusal::new(reason, format_args!("{}, {uid}", self.name)));
        }
        let picked = self.balancer.pick(now, &mut *random.borrow_mut(), wanted);
        match picked {
            Ok(pick) => Ok(pick),
            Err(reason) => Box::pin(self.pick_later(random, now, fallback, wanted, reason)).await,
        }
    }

    async fn pick_later(
        &self,
        random: &RefCell<SmallRng>,
        began: Instant,
        fallback: Option<&Fallback>,
        wanted: &Wanted<'_, Reach>,
        mut reason: Reason,
    ) -> Result<Pick<Reach>, Refusal> {
        let mut place = None;
        loop {
            if reason == Reason::BreakersOpen {
                return Err(Refusal::new(reason, self.all_open(Instant::now())));
            }
            let covered = fallback.is_some_and(|fallback| covers(fallback, reason));
            if covered && reason == Reason::NoEndpoints {
                return Err(self.nobody(reason, Instant::now() - began));
            }
            if place.is_none() {
                place = Some(self.pending.enter().map_err(|refusal| self.full(refusal))?);
            }
            // Each request waits for itself, but where there is something else, no longer than the first one did.
            let since = self.balancer.nobody_since().filter(|_| covered).unwrap_or(began);
            let deadline = since + self.balancer.policy().queue_timeout;
            let updated = tokio::time::timeout_at(deadline, self.balancer.updated()).await;
            let now = Instant::now();
            updated.map_err(|_| self.nobody(reason, now - began))?;
            let picked = self.balancer.pick(now, &mut *random.borrow_mut(), wanted);
            match picked {
                Ok(pick) => return Ok(pick),
                Err(still) => reason = still,
            }
        }
    }

    fn nobody(&self, reason: Reason, waited: Duration) -> Refusal {
        let waited = Duration::from_millis(waited.as_millis() as u64);
        match self.outside.borrow().as_ref() {
            Some(Outside { fault: Some(fault), .. }) => Refusal::new(Reason::NoAddress, fault),
            Some(Outside { host, .. }) => {
                Refusal::new(Reason::NoAddress, format_args!("{host}: no answer yet, waited {waited:?}"))
            }
            None => {
                let unready = self.balancer.endpoints();
                let mut names: Vec<_> = unready.iter().map(|endpoint| &**endpoint.workload()).collect();
                names.sort_unstable();
                let names = listed(names);
                let colon = if names.is_empty() { "" } else { ": " };
                Refusal::new(reason, format_args!("{}{colon}{names}, waited {waited:?}", self.name))
            }
        }
    }

    /// Which breakers are open, why, and until when.
    fn all_open(&self, now: Instant) -> String {
        let endpoints = self.balancer.endpoints();
        let mut ready: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.is_ready()).collect();
        ready.sort_by_key(|endpoint| endpoint.workload());
        let each = ready.iter().map(|endpoint| {
            let (_, _, reason) = endpoint.breaker();
            match endpoint.open_until().map(|until| until.saturating_duration_since(now)) {
                Some(left) => {
                    format!("{} for {} ms more ({reason})", endpoint.workload(), left.as_millis())
                }
                None => format!("{} is being tried ({reason})", endpoint.workload()),
            }
        });
        format!("{}: {}", self.name, listed(each))
    }

    /// The same with whose queue it is.
    fn full(&self, refusal: Refusal) -> Refusal {
        let detail = format_args!("waiting for {}: {}", self.name, refusal.detail);
        Refusal::new(refusal.reason, detail)
    }
}

/// A few of them, and how many there are more.
fn listed<T: std::fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    use std::fmt::Write;
    let (mut text, mut more) = (String::new(), 0);
    for (index, one) in all.into_iter().enumerate() {
        match index {
            0 => write!(text, "{one}"),
            1..NAMED => write!(text, ", {one}"),
            _ => {
                more += 1;
                Ok(())
            }
        }
        .expect("a String takes everything");
    }
    if more > 0 {
        write!(text, " and {more} more").expect("a String takes everything");
    }
    text
}
