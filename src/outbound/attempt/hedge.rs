//! An attempt that takes long gets company: the first good answer is taken, and whoever is slower is given up.

use std::{cell::RefCell, future::Future, pin::Pin, time::Duration};

use ::http::Request;
use futures_util::{StreamExt, stream::FuturesUnordered};
use pillion_api::{
    model::Hedge,
    retry::{self, Ended, Verdict},
};
use tokio::time::{Instant, sleep_until};

use super::{Avoid, Kind, Outgoing, Refused, Sending, Tried, Whom};
use crate::{
    http::Body,
    outbound::{Outbound, services::Service},
    telemetry::repeats::Repeat,
};

type Attempt<'a> = Pin<Box<dyn Future<Output = (u32, Result<Tried, Refused>)> + 'a>>;

/// How long the first is waited for. `None`: nobody knows yet how long the service takes.
fn patience(hedge: &Hedge, service: &Service) -> Option<Duration> {
    let usual = match hedge.percentile {
        None => None,
        Some(percentile) => Some(Duration::from_micros(service.answers.percentile(percentile)?)),
    };
    [hedge.after, usual].into_iter().flatten().max()
}

impl Outbound {
    /// Like [`Self::attempt`], with others beside it when it takes long.
    pub(super) async fn hedged(
        &self,
        request: Request<Body>,
        outgoing: &Outgoing,
        sending: &Sending<'_>,
        hedge: &Hedge,
        now: Instant,
        whom: Whom<'_>,
    ) -> Result<Tried, Refused> {
        let service = sending.to.backend;
        let allowed = hedge.non_idempotent || retry::is_idempotent(&sending.method);
        // Whoever names an endpoint means that one.
        let patience = patience(hedge, service).filter(|_| allowed && sending.to.endpoint.is_none());
        let Some(patience) = patience else { return self.attempt(request, sending, now, whom).await };

        let edge = &sending.to.called.edge;
        let chosen = RefCell::new(Avoid::from(whom.avoid));
        let mut running: FuturesUnordered<Attempt<'_>> = FuturesUnordered::new();
        let first = Whom { chosen: Some(&chosen), ..whom };
        running.push(Box::pin(async move { (0, self.attempt(request, sending, now, first).await) }));
        let (mut beside, mut met, mut failed) = (0, 0, None::<Tried>);
        let mut next = Some(now + patience);
        loop {
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((number, mut tried)) = running.next() => {
                    if let Ok(tried) = &mut tried
                        && tried.may_tell_more(sending)
                    {
                        tried.look_ahead().await;
                    }
                    if number > 0 && tried.is_err() {
                        edge.repeat(Repeat::HedgeEndpoint);
                        met -= 1;
                    }
                    let good = tried.as_ref().is_ok_and(|tried| !failed_well(sending, tried));
                    if good || running.is_empty() {
                        let won = u32::from(number > 0 && tried.is_ok());
                        count(sending, Repeat::Hedged, met);
                        count(sending, Repeat::HedgeWon, won);
                        count(sending, Repeat::HedgeLost, met - won);
                        // That there was no other endpoint says less than how the first has failed.
                        return tried.or_else(|refused| failed.ok_or(refused));
                    }
                    // Somebody else may do better.
                    if let Ok(tried) = tried
                        && let Some(earlier) = failed.replace(tried)
                    {
                        drop(earlier.give_up(Instant::now()));
                    }
                }
                () = due => {
                    let now = Instant::now();
                    let late = sending.plan.times.whole.is_some_and(|(end, _)| now >= end);
                    let request = if late { None } else { outgoing.next(beside + 2) };
                    let Some(request) = request else {
                        next = None;
                        continue;
                    };
                    if !service.budgets.take(Kind::Hedge, &hedge.budget, now) {
                        edge.repeat(Repeat::HedgeBudget);
                        next = None;
                        continue;
                    }
                    beside += 1;
                    met += 1;
                    next = (beside < hedge.attempts).then(|| now + patience);
                    let number = beside;
                    let avoid = chosen.borrow().clone();
                    let chosen = &chosen;
                    running.push(Box::pin(async move {
                        let whom = Whom { avoid: &avoid, chosen: Some(chosen), other: true };
                        (number, self.attempt(request, sending, now, whom).await)
                    }));
                }
            }
        }
    }
}

/// Whether an attempt failed in a way that another one might not.
fn failed_well(sending: &Sending<'_>, tried: &Tried) -> bool {
    match tried.ended {
        Ended::Reset | Ended::Timeout | Ended::Unprocessed => true,
        Ended::Status(status) if status.is_server_error() => true,
        ended => retry::decide(sending.plan.rules.as_ref(), &sending.method, 1, ended) == Verdict::Again,
    }
}

fn count(sending: &Sending<'_>, repeat: Repeat, times: u32) {
    for _ in 0..times {
        sending.to.called.edge.repeat(repeat);
    }
}
