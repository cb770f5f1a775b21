//! Sends a request: to an endpoint of the service, and to another one while that is safe. Each attempt is [`Outbound::attempt`];
//! what follows a failed one is decided in [`again`], and what goes beside one in [`hedge`].

mod again;
mod budget;
mod hedge;
mod outgoing;
mod plan;
mod pushback;
mod quantile;
mod tried;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use ::http::{Method, Request, uri::Authority};
use pillion_api::{
    model::Fallback,
    retry::{self, Ended, Verdict, Why},
};
use smallvec::SmallVec;
use tokio::time::Instant;

use self::{
    again::Next,
    outgoing::Outgoing,
    tried::{Tried, ended, is_too_late, last, refused},
};
pub use self::{
    budget::{Budgets, Kind},
    quantile::Quantiles,
};
pub(super) use self::{
    plan::{Plan, Times},
    tried::told,
};
use super::{Outbound, reach::Reach, services::Service};
use crate::{
    balance::{Endpoint, Pick, Verdict as Health, Wanted},
    error::{Reason, Refusal},
    http::{Body, InterimSink, Version, deadline, headers},
    middleware::{Served, limit::Place, record::End},
    telemetry::{
        edge::{Edge, Outcome},
        hops::Timeline,
        repeats::Repeat,
    },
};

/// Endpoints to stay away from.
type Avoid = SmallVec<[Rc<Endpoint<Reach>>; retry::UNPROCESSED_ATTEMPTS as usize]>;

/// An endpoint held until its response's last byte.
pub(super) struct Held {
    pick: Pick<Reach>,
    /// Among the requests of who serves, where that is not whom the caller has named.
    place: Option<Place>,
}

impl Held {
    pub(super) fn endpoint(&self) -> &Endpoint<Reach> {
        self.pick.endpoint()
    }

    /// Holds a place, too.
    pub(super) fn keep(&mut self, place: Option<Place>) {
        self.place = place;
    }
}

impl End for Held {
    fn begun(&mut self, outcome: Outcome) {
        if is_impatience(outcome) {
            self.pick.given_up(Instant::now());
        } else {
            self.pick.begun(self.pick.verdict(outcome));
        }
    }

    fn ended(mut self, outcome: Outcome, now: Instant) {
        if is_impatience(outcome) {
            return;
        }
        self.pick.settle(self.pick.verdict(outcome), now);
    }
}

/// Whether the caller would not wait any longer, which is no fault of the endpoint: as if it had gone away.
fn is_impatience(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Reason::DeadlineExceeded))
}

/// Which HTTP version carries a request between sidecars. The one place where this is decided.
///
/// HTTP/2 for everything it can carry, whichever version the message came in: with 64 requests under way a pair of
/// sidecars spends 25.6 µs of CPU on each where it spends 38.4 with HTTP/1 between, because many share a system call; at
/// 1,000 requests/s, one or two at a time, neither is ahead (132 and 130 µs; three turns each, benches/README.md). What
/// HTTP/2 has no words for, names' case and order, goes along ([`headers::NAMES`]). Upgrades need a connection of their
/// own, which is HTTP/1's way.
///
/// To what is outside the mesh, in the version that it came in.
fn carry(request: &Request<Body>, outside: bool) -> Version {
    if outside {
        return if request.version() == ::http::Version::HTTP_2 { Version::Http2 } else { Version::Http1 };
    }
    if headers::is_upgrade(request.headers()) { Version::Http1 } else { Version::Http2 }
}

/// Who gets a request.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) called: &'a Service,
    pub(super) backend: &'a Service,
    /// The application's.
    pub(super) port: u16,
    /// The one that the caller has named.
    pub(super) endpoint: Option<&'a str>,
    /// For a balancer that hashes.
    pub(super) key: Option<u64>,
    /// The endpoint that the client keeps to, by its token.
    pub(super) session: Option<u64>,
    /// What takes over where nobody can be had.
    pub(super) fallback: Option<&'a Fallback>,
}

/// Why there was no attempt.
struct Refused {
    refusal: Refusal,
    edge: Option<Rc<Edge>>,
}

impl Refused {
    fn served(self) -> Served<Held> {
        Served { result: Err(self.refusal), edge: self.edge, end: None }
    }
}

/// What all attempts of a request have in common.
struct Sending<'a> {
    to: Destination<'a>,
    plan: Plan<'a>,
    method: Method,
    carry: Version,
    outside: bool,
    interim: &'a dyn InterimSink,
}

/// Whom an attempt is for.
#[derive(Clone, Copy)]
struct Whom<'a> {
    avoid: &'a [Rc<Endpoint<Reach>>],
    /// Notes who was chosen.
    chosen: Option<&'a RefCell<Avoid>>,
    /// Whether it must be none of those avoided: it goes beside another attempt.
    beside: bool,
    timeline: &'a Timeline,
    /// What the attempt before came to; let go of as soon as there is somebody else to ask.
    failed: Option<&'a Cell<Option<Served<Held>>>>,
}

impl Outbound {
    /// Sends a request to one endpoint; to others as the plan says.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        authority: Authority,
        to: Destination<'_>,
        plan: Plan<'_>,
        interim: &dyn InterimSink,
    ) -> Served<Held> {
        let outside = to.backend.is_outside();
        let carry = carry(&request, outside);
        match carry {
            Version::Http1 => headers::to_http1(&mut request),
            Version::Http2 => {
                headers::to_http2(&mut request, authority);
                // What is noted there means nothing to HTTP/2, and would be copied with the request.
                request.extensions_mut().clear();
            }
        }
        // Not when the request came: it may have been held up since.
        let mut now = Instant::now();
        to.backend.budgets.request(now);
        let sending = Sending { to, plan, method: request.method().clone(), carry, outside, interim };
        let (mut request, outgoing) = Outgoing::of(request, &sending, &self.kept);
        let mut avoid = Avoid::new();
        let failed = Cell::new(None::<Served<Held>>);
        let mut number = 1;
        loop {
            let before = (number > 1).then_some(&failed);
            let whom =
                Whom { avoid: &avoid, chosen: None, beside: false, failed: before, timeline: plan.timeline };
            let tried = match sending.plan.hedge {
                None => self.attempt(request, &sending, now, whom).await,
                Some(hedge) => Box::pin(self.hedged(request, &outgoing, &sending, hedge, now, whom)).await,
            };
            let mut tried = match tried {
                Ok(tried) => tried,
                // The first failure says more than that nobody else was left.
                Err(refused) => {
                    let Some(failed) = failed.take() else { return refused.served() };
                    plan.timeline.given_up(Instant::now());
                    return failed;
                }
            };
            if tried.may_tell_more(&sending) {
                Box::pin(tried.look_ahead()).await;
                tried.note(plan.timeline, Instant::now());
            }
            let verdict = retry::decide(sending.plan.rules.as_ref(), &sending.method, number, tried.ended);
            let next = match verdict {
                Verdict::Answer(Why::NotAFailure | Why::NoPolicy) if number == 1 => return tried.served(),
                Verdict::Answer(why) => {
                    if why == Why::Attempts {
                        tried.edge.repeat(Repeat::Attempts);
                    }
                    None
                }
                Verdict::Again => self.again(&tried, &outgoing, &sending, number),
            };
            match next {
                None => return last(tried, number),
                Some(Next { request: next, wait, why }) => {
                    avoid.push(tried.pick.endpoint().clone());
                    request = next.unwrap_or_else(|| tried.unsent.take().expect("it was not sent"));
                    // Before the wait, during which the caller may go away.
                    let edge = tried.edge.clone();
                    failed.set(Some(tried.give_up()));
                    // What is waited for from here on is ours.
                    plan.timeline.attempt(Instant::now());
                    if !wait.is_zero() {
                        Box::pin(tokio::time::sleep(wait)).await;
                    }
                    edge.repeat(why);
                    now = Instant::now();
                    number += 1;
                }
            }
        }
    }

    /// Sends a request to one endpoint and waits for the head of its response.
    ///
    /// # Errors
    /// When there is nobody to send it to.
    async fn attempt(
        &self,
        mut request: Request<Body>,
        sending: &Sending<'_>,
        now: Instant,
        whom: Whom<'_>,
    ) -> Result<Tried, Refused> {
        let Destination { called, backend, port, endpoint, key, session, fallback } = sending.to;
        let carry = sending.carry;
        let wanted = Wanted { key, session, avoid: whom.avoid };
        let picked = backend.pick(&self.random, now, endpoint, fallback, &wanted).await;
        let mut pick = picked.map_err(|refusal| Refused { refusal, edge: None })?;
        if whom.beside && whom.avoid.iter().any(|avoided| Rc::ptr_eq(avoided, pick.endpoint())) {
            return Err(Refused { refusal: Reason::NoEndpoints.into(), edge: None });
        }
        if let Some(chosen) = whom.chosen {
            chosen.borrow_mut().push(pick.endpoint().clone());
        }
        let reach = pick.endpoint().reach();
        let edge = reach.edge(&called.name);
        let client = reach.client(port);
        let waiting = match client.is_connected(carry) {
            true => None,
            false => match backend.pending.enter() {
                Ok(place) => Some(place),
                Err(refusal) => return Err(Refused { refusal, edge: Some(edge) }),
            },
        };
        drop(whom.failed.and_then(Cell::take));
        whom.timeline.attempt(now);
        sending.plan.timeline.chose(&edge);
        let noted = sending.plan.timeline.try_began(pick.endpoint().callee(), whom.beside, now);
        // What goes along with each try is put on the request here.
        sending.plan.timeline.note(|exchange| {
            if let Some(trace) = &mut exchange.trace {
                trace.attempt(request.headers_mut());
            }
        });
        let splits = edge.splits() && !sending.outside;
        if splits {
            headers::ask_hops(request.headers_mut());
        }
        // It may have been waited for.
        let now = pick.began();
        let until = sending.plan.times.of_an_attempt(now);
        if let Some((at, _)) = until
            && !sending.outside
        {
            deadline::tell(request.headers_mut(), at.saturating_duration_since(now));
        }
        let answer = client.send_waiting(request, carry, sending.interim, whom.timeline, waiting);
        let result = match until {
            None => Ok(answer.await),
            Some((at, whole)) => tokio::time::timeout_at(at, answer).await.map_err(|_| whole),
        };
        let now = Instant::now();
        let result = match until {
            // The caller's own sidecar says when it is over. Where it has had no time to look, the peer's word may be here, too.
            Some((at, whole)) if now >= at && !sending.outside && is_too_late(&result) => Err(whole),
            _ => result,
        };
        let tried = match result {
            Ok(Ok(mut response)) => {
                pick.first_byte(now);
                let report = if splits { headers::take_report(response.headers_mut()) } else { None };
                let stalled = if splits { self.needs.stalls.before(now) } else { Duration::ZERO };
                whom.timeline.answered(now, report, stalled);
                // Only sidecars speak as sidecars.
                if sending.outside {
                    headers::strip_private(response.headers_mut(), carry == Version::Http1);
                }
                // Only the peer's sidecar says what is not its application's answer.
                let told = if sending.outside { None } else { told(response.headers()) };
                if let Some(reason) = told {
                    edge.refusal_by_callee(reason);
                }
                match told {
                    // It spares its application, of whose health this shows nothing.
                    Some(Reason::Overloaded | Reason::TooManyConnections | Reason::RateLimited) => {
                        pick.settle(Health::Untried, now);
                    }
                    Some(Reason::DeadlineExceeded) => pick.given_up(now),
                    _ => {}
                }
                let ended = ended(&response, told, sending);
                Tried { result: Ok(response), ended, edge, pick, unsent: None, counts: true, noted }
            }
            Ok(Err(failure)) => {
                let ended = refused(failure.refusal.reason).unwrap_or(Ended::Final);
                let (unsent, counts) = (failure.unsent, !failure.shared);
                Tried { result: Err(failure.refusal), ended, edge, pick, unsent, counts, noted }
            }
            Err(whole) => {
                pick.first_byte(now);
                let refusal = sending.plan.late(whole, pick.endpoint().workload());
                let ended = if whole { Ended::Final } else { Ended::Timeout };
                Tried { result: Err(refusal), ended, edge, pick, unsent: None, counts: true, noted }
            }
        };
        tried.note(sending.plan.timeline, now);
        Ok(tried)
    }
}
