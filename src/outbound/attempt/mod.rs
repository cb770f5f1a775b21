//! Sends a request: to an endpoint of the service, and to another one while that is safe. Each attempt is [`Outbound::attempt`];
//! what follows a failed one is decided in [`again`], and what goes beside one in [`hedge`].

mod again;
mod budget;
mod hedge;
mod outgoing;
mod pushback;
mod quantile;

use std::{cell::RefCell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use ::http::{HeaderMap, Method, Request, Response, StatusCode, uri::Authority};
use pillion_api::{
    model::{Hedge, RouteRule, TrafficPolicy},
    retry::{self, Ended, Rules, Verdict, Why},
};
use smallvec::SmallVec;
use tokio::time::Instant;

pub use self::budget::{Budgets, Kind};
use self::outgoing::Outgoing;
pub(super) use self::quantile::Quantiles;
use super::{Outbound, reach::Reach, services::Service};
use crate::{
    balance::{Endpoint, Pick, Verdict as Health, Wanted},
    error::{Reason, Refusal},
    http::{
        Body, InterimSink, Version, deadline,
        headers::{self, ATTEMPT, ATTEMPTS, ERROR},
        replay,
    },
    middleware::{Served, Timeout, record::End},
    telemetry::{
        edge::{Edge, Outcome},
        repeats::Repeat,
    },
};

/// Endpoints to stay away from.
type Avoid = SmallVec<[Rc<Endpoint<Reach>>; retry::UNPROCESSED_ATTEMPTS as usize]>;

/// An endpoint held until its response's last byte.
pub(super) struct Held(Pick<Reach>);

impl Held {
    pub(super) fn endpoint(&self) -> &Endpoint<Reach> {
        self.0.endpoint()
    }
}

impl End for Held {
    fn begun(&mut self, outcome: Outcome) {
        if is_impatience(outcome) {
            return;
        }
        // A failure is one however its body goes on; and a probe has shown what it was to show.
        let health = self.0.verdict(outcome);
        if health != Health::Good || self.0.is_probe() {
            self.0.settle(health, Instant::now());
        }
    }

    fn ended(mut self, outcome: Outcome, now: Instant) {
        if is_impatience(outcome) {
            return;
        }
        self.0.settle(self.0.verdict(outcome), now);
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
}

/// How long a request may take.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// Until when, and which limit that is.
    pub(super) whole: Option<(Instant, Timeout)>,
    /// For each attempt.
    pub(super) each: Option<Duration>,
}

impl Times {
    /// Until when an attempt that begins now may take. The second: whether that is the end of the whole request.
    fn of_an_attempt(self, now: Instant) -> Option<(Instant, bool)> {
        let whole = self.whole.map(|(at, _)| (at, true));
        let each = self.each.map(|each| (now + each, false));
        [whole, each].into_iter().flatten().min()
    }
}

/// What may follow an attempt, or go beside it.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) times: Times,
    pub(super) rules: Option<Rules<'a>>,
    pub(super) hedge: Option<&'a Hedge>,
}

impl<'a> Plan<'a> {
    /// `policies`: that of the service that serves the request, then that of the one called.
    pub(super) fn of(
        rule: Option<&'a RouteRule>,
        policies: [&'a TrafficPolicy; 2],
        request: &Request<Body>,
        whole: Option<(Instant, Timeout)>,
    ) -> Self {
        let each = rule.and_then(|rule| rule.backend_request_timeout);
        let each = policies.into_iter().fold(each, |each, policy| each.or(policy.attempt_timeout));
        let times = Times { whole, each };
        let rule = rule.and_then(|rule| rule.retry.as_ref());
        let rules = Rules::of(rule, policies.map(|policy| policy.retry.as_ref()));
        let hedge = policies.into_iter().find_map(|policy| policy.hedge.as_ref());
        // Whoever makes a request for one that is an attempt after the first has it repeated there, not here, too.
        if (rules.is_some() || hedge.is_some()) && request.headers().contains_key(ATTEMPT) {
            return Self { times, rules: None, hedge: None };
        }
        Self { times, rules, hedge }
    }

    /// The most of a request's body that is kept to be sent again, bytes.
    pub(super) fn kept(&self) -> usize {
        let most = self.rules.map_or(replay::USUAL, |rules| rules.policy().max_body);
        if self.hedge.is_some() { most.max(replay::USUAL) } else { most }
    }

    /// Whether there is nothing but to send again what was surely not processed.
    fn is_plain(&self) -> bool {
        self.rules.is_none() && self.hedge.is_none()
    }
}

/// What an attempt came to.
struct Tried {
    result: Result<Response<Body>, Refusal>,
    ended: Ended,
    edge: Rc<Edge>,
    pick: Pick<Reach>,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<Body>>,
    /// One failed attempt to connect is one failure, however many requests waited for it.
    counts: bool,
}

impl Tried {
    fn served(self) -> Served<Held> {
        Served { result: self.result, edge: Some(self.edge), end: self.counts.then(|| Held(self.pick)) }
    }

    /// Whether it is gRPC's answer, and its status, which is not in its head, may matter.
    fn may_tell_more(&self, sending: &Sending<'_>) -> bool {
        let Ok(response) = &self.result else { return false };
        self.ended == Ended::Status(StatusCode::OK)
            && sending.plan.rules.is_some()
            && headers::is_grpc(response.headers())
    }

    /// Looks at how an answer of gRPC goes on, as far as that has come together with its head.
    ///
    /// Servers that have taken a call say UNAVAILABLE in trailers right after their headers, seldom in headers alone. A client does
    /// not try again once it has had headers, because its application may have acted on them (gRFC A6, "When Retries are Valid");
    /// of this answer nobody has had anything yet. Envoy goes by the headers, and so leaves these failures to the caller; to
    /// wait for the first frame, as others do, would hold up a stream that begins with silence. So nothing is waited for here but
    /// one turn of the connection, which may have more to hand on.
    async fn look_ahead(&mut self) {
        let Ok(response) = &mut self.result else { return };
        let mut waited = false;
        poll_fn(|cx| {
            let first = response.body_mut().poll_first(cx);
            if first.is_pending() && !std::mem::replace(&mut waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        if let Some(code) = response.body().trailers().and_then(grpc_status) {
            self.ended = Ended::Grpc(code);
        }
    }

    /// Nobody waits for it any more; gives what is left to say if there is no other.
    fn give_up(mut self, now: Instant) -> Served<Held> {
        if self.counts {
            let outcome = match (&self.result, self.ended) {
                (_, Ended::Grpc(code)) => Outcome::Grpc(u8::try_from(code).unwrap_or(2)),
                (Ok(response), _) => Outcome::Status(response.status()),
                (Err(refusal), _) => Outcome::Refused(refusal.reason),
            };
            self.pick.settle(self.pick.verdict(outcome), now);
        }
        Served { result: self.result, edge: Some(self.edge), end: None }
    }
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
    /// Whether it must be none of those avoided.
    other: bool,
}

impl Outbound {
    /// Sends a request to one endpoint; to others as the plan says.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        authority: Authority,
        mut now: Instant,
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
        to.backend.budgets.request(now);
        let sending = Sending { to, plan, method: request.method().clone(), carry, outside, interim };
        let (mut request, outgoing) = Outgoing::of(request, &sending, &self.kept);
        let mut avoid = Avoid::new();
        let mut failed = None;
        let mut number = 1;
        loop {
            let whom = Whom { avoid: &avoid, chosen: None, other: false };
            let tried = match sending.plan.hedge {
                None => self.attempt(request, &sending, now, whom).await,
                Some(hedge) => Box::pin(self.hedged(request, &outgoing, &sending, hedge, now, whom)).await,
            };
            let mut tried = match tried {
                Ok(tried) => tried,
                // The first failure says more than that nobody else was left.
                Err(refused) => return failed.unwrap_or_else(|| refused.served()),
            };
            if tried.may_tell_more(&sending) {
                Box::pin(tried.look_ahead()).await;
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
                Verdict::Again => Box::pin(self.again(&tried, &outgoing, &sending, number)).await,
            };
            match next {
                None => return last(tried, number),
                Some(next) => {
                    now = Instant::now();
                    avoid.push(tried.pick.endpoint().clone());
                    request = next.unwrap_or_else(|| tried.unsent.take().expect("it was not sent"));
                    failed = Some(tried.give_up(now));
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
        let Destination { called, backend, port, endpoint, key, session } = sending.to;
        let carry = sending.carry;
        let wanted = Wanted { key, session, avoid: whom.avoid };
        let picked = backend.pick(&self.random, now, endpoint, &wanted).await;
        let mut pick = picked.map_err(|refusal| Refused { refusal, edge: None })?;
        if whom.other && whom.avoid.iter().any(|avoided| Rc::ptr_eq(avoided, pick.endpoint())) {
            return Err(Refused { refusal: Reason::NoEndpoints.into(), edge: None });
        }
        if let Some(chosen) = whom.chosen {
            chosen.borrow_mut().push(pick.endpoint().clone());
        }
        let reach = pick.endpoint().reach();
        let edge = reach.edge(&called.name);
        let client = reach.client(port);
        let waiting = if client.is_connected(carry) { None } else { Some(backend.pending.enter()) };
        if let Some(Err(refusal)) = waiting {
            return Err(Refused { refusal, edge: Some(edge) });
        }
        let until = sending.plan.times.of_an_attempt(now);
        if let Some((at, _)) = until
            && !sending.outside
        {
            deadline::tell(request.headers_mut(), at.saturating_duration_since(now));
        }
        let answer = client.send(request, carry, sending.interim);
        let result = match until {
            None => Ok(answer.await),
            Some((at, whole)) => tokio::time::timeout_at(at, answer).await.map_err(|_| whole),
        };
        drop(waiting);
        let now = Instant::now();
        Ok(match result {
            Ok(Ok(mut response)) => {
                pick.first_byte(now);
                // Only sidecars speak as sidecars.
                if sending.outside {
                    headers::strip_private(response.headers_mut(), carry == Version::Http1);
                }
                let ended = ended(&response, sending);
                if let Some(Hedge { percentile: Some(_), .. }) = sending.plan.hedge {
                    backend.answers.observe(pick.age(now).as_micros() as u64);
                }
                Tried { result: Ok(response), ended, edge, pick, unsent: None, counts: true }
            }
            Ok(Err(failure)) => {
                let ended = match failure.refusal.reason {
                    reason if reason.unprocessed() => Ended::Unprocessed,
                    Reason::Reset => Ended::Reset,
                    _ => Ended::Final,
                };
                let (unsent, counts) = (failure.unsent, !failure.shared);
                Tried { result: Err(failure.refusal), ended, edge, pick, unsent, counts }
            }
            Err(whole) => {
                pick.first_byte(now);
                let limit = match sending.plan.times {
                    Times { whole: Some((_, timeout)), .. } if whole => timeout,
                    Times { each, .. } => {
                        Timeout { after: each.unwrap_or_default(), reason: Reason::RequestTimeout }
                    }
                };
                let Timeout { after, reason } = limit;
                let detail = format_args!("{} has not answered within {after:?}", pick.endpoint().workload());
                let refusal = Refusal::new(reason, detail);
                let ended = if whole { Ended::Final } else { Ended::Timeout };
                Tried { result: Err(refusal), ended, edge, pick, unsent: None, counts: true }
            }
        })
    }
}

/// What is given to the caller after several attempts, or instead of another.
fn last(mut tried: Tried, number: u32) -> Served<Held> {
    let good = match tried.ended {
        Ended::Status(status) => !status.is_server_error(),
        Ended::Grpc(code) => code == 0,
        Ended::Unprocessed | Ended::Reset | Ended::Timeout | Ended::Final => false,
    };
    if number > 1 {
        if good {
            tried.edge.repeat(Repeat::Recovered);
        } else {
            match &mut tried.result {
                Ok(response) => drop(response.headers_mut().insert(ATTEMPTS, number.into())),
                Err(refusal) => refusal.attempts = number,
            }
        }
    }
    tried.served()
}

/// What an answer says of the attempt.
fn ended(response: &Response<Body>, sending: &Sending<'_>) -> Ended {
    let headers = response.headers();
    // Only the peer's sidecar says that its application saw nothing of the request.
    if let Some(error) = headers.get(ERROR).filter(|_| !sending.outside) {
        let reason = error.to_str().ok().and_then(|text| text.split(';').next()).unwrap_or_default();
        match Reason::from_name(reason) {
            Some(reason) if reason.unprocessed() => return Ended::Unprocessed,
            Some(Reason::Reset) => return Ended::Reset,
            Some(Reason::DeadlineExceeded) => return Ended::Final,
            _ => {}
        }
    }
    if !sending.plan.is_plain()
        && headers::is_grpc(headers)
        && let Some(code) = grpc_status(headers)
    {
        return Ended::Grpc(code);
    }
    Ended::Status(response.status())
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
