//! An attempt that takes long gets company: the first good answer is taken, and whoever is slower is given up.

use std::{cell::RefCell, future::Future, pin::Pin};

use ::http::Request;
use futures_util::{StreamExt, stream::FuturesUnordered};
use pillion_api::{
    model::Hedge,
    retry::{self, Ended, Verdict},
};
use tokio::time::{Instant, sleep_until};

use super::{Avoid, Kind, Outgoing, Refused, Sending, Tried, Whom};
use crate::{
    error::Reason,
    http::Body,
    outbound::Outbound,
    telemetry::{hops::Timeline, repeats::Repeat},
};

/// Its number, what was noted of it where it was not the first, and what it came to.
type Attempt<'a> = Pin<Box<dyn Future<Output = (u32, Option<Timeline>, Result<Tried, Refused>)> + 'a>>;

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
        let patience = service.answers.patience(hedge).filter(|_| allowed && sending.to.endpoint.is_none());
        let Some(patience) = patience else {
            let tried = self.attempt(request, sending, now, whom).await;
            if let Ok(tried) = &tried {
                learn(sending, hedge, tried, tried.pick.began());
            }
            return tried;
        };

        let edge = &sending.to.called.edge;
        let chosen = RefCell::new(Avoid::from(whom.avoid));
        let began = now;
        let mut running: FuturesUnordered<Attempt<'_>> = FuturesUnordered::new();
        let first = Whom { chosen: Some(&chosen), ..whom };
        running.push(Box::pin(async move { (0, None, self.attempt(request, sending, now, first).await) }));
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
                Some((number, timeline, mut tried)) = running.next() => {
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
                        if let (Some(timeline), Ok(_)) = (timeline, &tried) {
                            sending.plan.timeline.take_over(&timeline);
                        }
                        let won = u32::from(number > 0 && tried.is_ok());
                        count(sending, Repeat::Hedged, met);
                        count(sending, Repeat::HedgeWon, won);
                        count(sending, Repeat::HedgeLost, met - won);
                        if let Ok(tried) = &tried {
                            // Of the others it is known that they take longer than so.
                            learn(sending, hedge, tried, if number == 0 { tried.pick.began() } else { began });
                        }
                        // That there was no other endpoint says less than how the first has failed.
                        return tried.or_else(|refused| failed.ok_or(refused));
                    }
                    // Somebody else may do better, which makes no success of it.
                    if let Ok(tried) = &mut tried {
                        tried.settle();
                    }
                    failed = tried.ok().or(failed);
                }
                () = due => {
                    let now = Instant::now();
                    let avoid = chosen.borrow().clone();
                    if avoid.len() == whom.avoid.len() {
                        // There is nobody for the first one, either.
                        next = Some(now + patience);
                        continue;
                    }
                    let late = sending.plan.times.whole.is_some_and(|(end, _)| now >= end);
                    let request = if late { None } else { outgoing.next(beside + 2) };
                    let Some(request) = request else {
                        next = None;
                        continue;
                    };
                    if !service.balancer.has_other(now, &avoid) {
                        edge.repeat(Repeat::HedgeEndpoint);
                        next = None;
                        continue;
                    }
                    if !service.budgets.take(Kind::Hedge, &hedge.budget, now) {
                        edge.repeat(Repeat::HedgeBudget);
                        next = None;
                        continue;
                    }
                    beside += 1;
                    met += 1;
                    next = (beside < hedge.attempts).then(|| now + patience);
                    let number = beside;
                    let chosen = &chosen;
                    running.push(Box::pin(async move {
                        let timeline = Timeline::new(now);
                        let whom = Whom {
                            avoid: &avoid,
                            chosen: Some(chosen),
                            other: true,
                            timeline: &timeline,
                            ..whom
                        };
                        let tried = self.attempt(request, sending, now, whom).await;
                        (number, Some(timeline), tried)
                    }));
                }
            }
        }
    }
}

/// Takes in how long an answer was waited for since the first attempt began, or a wait in vain.
fn learn(sending: &Sending<'_>, hedge: &Hedge, tried: &Tried, since: Instant) {
    let says = match &tried.result {
        Ok(_) => !failed_well(sending, tried),
        Err(refusal) => matches!(refusal.reason, Reason::RequestTimeout | Reason::DeadlineExceeded),
    };
    if hedge.percentile.is_some() && says {
        sending.to.backend.answers.observe(since.elapsed().as_micros() as u64);
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
