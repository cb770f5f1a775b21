//! An attempt that takes long gets company: the first good answer is taken, and whoever is slower is given up.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
};

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
    telemetry::{edge::Edge, hops::Timeline, repeats::Repeat},
};

/// What was noted of it where it was not the first, and what it came to.
type Attempt<'a> = Pin<Box<dyn Future<Output = (Option<Beside>, Watch, Result<Tried, Refused>)> + 'a>>;

/// What is known of an attempt that goes beside another one.
struct Beside {
    timeline: Timeline,
    /// When the budget had something left for it.
    taken: Instant,
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
        let patience = service.answers.patience(hedge).filter(|_| allowed && sending.to.endpoint.is_none());
        let Some(patience) = patience else {
            let tried = self.attempt(request, sending, now, whom).await;
            if let Ok(tried) = &tried {
                learn(sending, hedge, tried, tried.pick.began());
            }
            return tried;
        };

        let chosen = RefCell::new(Avoid::from(whom.avoid));
        let began = now;
        let mut running: FuturesUnordered<Attempt<'_>> = FuturesUnordered::new();
        let first = Whom { chosen: Some(&chosen), ..whom };
        let watch = Watch::of(&request);
        running.push(Box::pin(async move {
            let tried = self.attempt(request, sending, now, first).await;
            (None, watch, tried)
        }));
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
                Some((hedged, watch, mut tried)) = running.next() => {
                    if let Ok(tried) = &mut tried
                        && tried.may_tell_more(sending)
                    {
                        tried.look_ahead().await;
                        tried.note(sending.plan.timeline, Instant::now());
                    }
                    let whole = watch.whole();
                    if let Ok(tried) = &mut tried
                        && tried.ended == Ended::Reset
                        && !whole
                    {
                        // It is we who have ended that one: it was too slow to get what is not kept.
                        tried.counts = false;
                    }
                    if let (Some(Beside { taken, .. }), Err(_)) = (&hedged, &tried) {
                        service.budgets.give_back(Kind::Hedge, *taken);
                        first_edge(sending, &chosen, whom).repeat(Repeat::HedgeEndpoint);
                        met -= 1;
                    }
                    // To half a request there is half an answer, at most.
                    let good = whole && tried.as_ref().is_ok_and(|tried| !failed_well(sending, tried));
                    if good || running.is_empty() {
                        if let (Some(Beside { timeline, .. }), Ok(_)) = (&hedged, &tried) {
                            sending.plan.timeline.take_over(timeline);
                        }
                        let won = u32::from(hedged.is_some() && tried.is_ok());
                        if met > 0 {
                            // Where the request itself is counted.
                            let edge = match &tried {
                                Ok(tried) => tried.edge.clone(),
                                Err(_) => first_edge(sending, &chosen, whom),
                            };
                            for (repeat, times) in
                                [(Repeat::Hedged, met), (Repeat::HedgeWon, won), (Repeat::HedgeLost, met - won)]
                            {
                                (0..times).for_each(|_| edge.repeat(repeat));
                            }
                        }
                        if let Ok(tried) = &tried {
                            // Of the others it is known that they take longer than so.
                            learn(sending, hedge, tried, if hedged.is_none() { tried.pick.began() } else { began });
                        }
                        return match (tried, failed) {
                            // That there was no other endpoint, or one that we have ended, says less than how another has failed.
                            (Err(_), Some(failed)) => Ok(failed),
                            (Ok(_), Some(failed)) if !good && !whole => Ok(failed),
                            (tried, _) => tried,
                        };
                    }
                    // Somebody else may do better, which makes no success of it.
                    if let Ok(tried) = &mut tried {
                        tried.settle();
                    }
                    failed = match tried {
                        Ok(tried) if whole || failed.is_none() => Some(tried),
                        _ => failed,
                    };
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
                        first_edge(sending, &chosen, whom).repeat(Repeat::HedgeEndpoint);
                        next = None;
                        continue;
                    }
                    if !service.budgets.take(Kind::Hedge, &hedge.budget, now) {
                        first_edge(sending, &chosen, whom).repeat(Repeat::HedgeBudget);
                        next = None;
                        continue;
                    }
                    beside += 1;
                    met += 1;
                    next = (beside < hedge.attempts).then(|| now + patience);
                    let (chosen, watch) = (&chosen, Watch::of(&request));
                    running.push(Box::pin(async move {
                        let timeline = Timeline::new(now);
                        let whom = Whom {
                            avoid: &avoid,
                            chosen: Some(chosen),
                            beside: true,
                            timeline: &timeline,
                            ..whom
                        };
                        let tried = self.attempt(request, sending, now, whom).await;
                        (Some(Beside { timeline, taken: now }), watch, tried)
                    }));
                }
            }
        }
    }
}

/// Tells whether an attempt cannot have the whole body, as another one beside it is too far ahead.
struct Watch(Option<Rc<Cell<bool>>>);

impl Watch {
    fn of(request: &Request<Body>) -> Self {
        Self(match request.body() {
            Body::Kept(reader) => Some(reader.overtaken()),
            _ => None,
        })
    }

    fn whole(&self) -> bool {
        self.0.as_ref().is_none_or(|overtaken| !overtaken.get())
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

/// That of the endpoint that was asked first: a request is counted where it goes, not at whom it called.
fn first_edge(sending: &Sending<'_>, chosen: &RefCell<Avoid>, whom: Whom<'_>) -> Rc<Edge> {
    let called = sending.to.called;
    let first = chosen.borrow().get(whom.avoid.len()).cloned();
    first.map_or_else(|| called.edge.clone(), |first| first.reach().edge(&called.name))
}
