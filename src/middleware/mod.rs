//! The chain: what happens to every request, in either direction, in this order. Direction is data; what differs is
//! the policy that the caller found, and the tail.
//!
//! | step | why here |
//! |---|---|
//! | [`record`] begins, and [`listen`] | first, so that every way out is counted, timed and told of, also the caller's going away |
//! | [`limit`] | before any work is done for a request that may not be taken |
//! | [`guard`]: [`rate`], sizes, [`concurrency`] | the callee's own policies, where it has any: as the caller sent it, before anything is done for it |
//! | request headers | private and hop-by-hop fields off, the route's changes on: the tail sends what it gets |
//! | deadline | around all that waits; the tail keeps to it too, and knows whom it was that did not answer |
//! | [`idle`] | hears when the request's body moves |
//! | the tail | chooses who gets the request, and sends it |
//! | refusal → answer | every error becomes an answer that says who, where and why |
//! | response headers | as on the way in; and a report of where the time went, to the caller's sidecar |
//! | [`record`] ends | with the response's last byte |

pub mod concurrency;
pub mod guard;
pub mod idle;
pub mod limit;
mod listen;
mod outlive;
pub mod rate;
pub mod record;

use std::{future::Future, rc::Rc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode};
use pillion_api::{
    holds::Policies,
    hops::{LONGEST_REPORT, Report},
    model::{HeaderModifier, RouteRule},
};
use tokio::time::Instant;

use self::{
    guard::{Admitted, Guard},
    idle::Idle,
    limit::Place,
    record::{End, Ends, Recorded, Recording, UnderWay},
};
use crate::{
    error::{Hop, Reason, Refusal},
    http::{
        Body,
        headers::{self, HOPS},
        refusal::Voice,
        upgrade,
    },
    net::listen::Open,
    telemetry::{
        edge::{Edge, Outcome},
        exchange::{self, Caller},
        hops::Timeline,
    },
};

/// What was found to hold for one request before it enters the chain.
#[derive(Debug)]
pub struct Policy<'a> {
    /// Signs refusals.
    pub voice: &'a Voice,
    /// Where it is noted when what happens to the request, from its head on.
    pub timeline: &'a Timeline,
    /// Where the request is counted, until the tail knows better.
    pub edge: Rc<Edge>,
    /// Its place among the requests that may be under way, or why there is none left; `None`: it needs none.
    pub place: Result<Option<Place>, Refusal>,
    /// The workload's own policies, on its inbound side.
    pub guard: Option<&'a Guard>,
    /// For the whole request.
    pub timeout: Option<Timeout>,
    /// For a response that has begun.
    pub idle: Option<Idle>,
    /// Where connections that outlive HTTP are counted as open.
    pub open: &'a Open,
    /// The caller's sidecar is told where the time went; see [`Timeline::report`] for what stands there.
    pub report: Option<Duration>,
    /// Who calls, where that is another workload.
    pub caller: Option<&'a Caller>,
    /// Which the request takes.
    pub rule: Option<&'a RouteRule>,
    /// Of the service called, outbound.
    pub policies: Option<Policies<'a>>,
    /// The route's.
    pub request_headers: Option<&'a HeaderModifier>,
    /// The route's.
    pub response_headers: Option<&'a HeaderModifier>,
}

impl<'a> Policy<'a> {
    /// Without limits, deadlines or changes.
    pub fn bare(voice: &'a Voice, timeline: &'a Timeline, edge: Rc<Edge>, open: &'a Open) -> Self {
        Self {
            voice,
            timeline,
            edge,
            place: Ok(None),
            guard: None,
            timeout: None,
            idle: None,
            open,
            report: None,
            caller: None,
            rule: None,
            policies: None,
            request_headers: None,
            response_headers: None,
        }
    }
}

/// How long a whole request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// So long.
    pub after: Duration,
    /// What it is then: [`Reason::RequestTimeout`] by policy, [`Reason::DeadlineExceeded`] by the caller's own will.
    pub reason: Reason,
}

impl Timeout {
    /// What a policy grants, and what the caller asks for: the shorter one.
    pub fn of(policy: Option<Duration>, asked: Option<Duration>) -> Option<Self> {
        let policy = policy.map(|after| Self { after, reason: Reason::RequestTimeout });
        let asked = asked.map(|after| Self { after, reason: Reason::DeadlineExceeded });
        [policy, asked].into_iter().flatten().min_by_key(|timeout| timeout.after)
    }
}

/// What a tail comes back with.
#[derive(Debug)]
pub struct Served<E> {
    /// The response, or why there is none.
    pub result: Result<Response<Body>, Refusal>,
    /// Where the request is counted, if the tail found out more.
    pub edge: Option<Rc<Edge>>,
    /// Hears how it ended.
    pub end: Option<E>,
}

impl<E> Served<E> {
    /// A refusal before anybody was chosen.
    pub fn refused(refusal: impl Into<Refusal>) -> Self {
        Self { result: Err(refusal.into()), edge: None, end: None }
    }
}

/// Takes one request down the chain and back.
pub async fn run<T, F, E>(mut request: Request<Body>, policy: Policy<'_>, tail: T) -> Response<Recorded<E>>
where
    T: FnOnce(Request<Body>) -> F,
    F: Future<Output = Served<E>>,
    E: End,
{
    let grpc = headers::is_grpc(request.headers());
    let started = policy.timeline.started();
    if policy.edge.listeners().any() {
        listen::begin(&mut request, &policy, grpc);
    }
    let mut recording = Recording::begin(policy.edge, policy.timeline);

    let deadline = policy.timeout.map(|timeout| (started + timeout.after, timeout.reason));
    let head = request.method() == Method::HEAD;
    let mut upgrade = None;
    let served = match policy.place {
        Err(refusal) => Served::refused(refusal),
        Ok(place) => {
            recording.hold(place);
            let passed = match policy.guard {
                None => Ok(()),
                // Boxed, so that requests without such policies have no memory for it.
                Some(guard) => Box::pin(admit(guard, &mut request, started, deadline))
                    .await
                    .map(|admitted| recording.admitted(admitted)),
            };
            match passed {
                Err(refusal) => Served::refused(refusal),
                Ok(()) => {
                    upgrade = prepare(&mut request, policy.voice.hop, policy.request_headers);
                    if let Some(idle) = &policy.idle {
                        request = request.map(|body| idle.watch(body));
                    }
                    match deadline {
                        None => tail(request).await,
                        // The tail watches the deadline itself once it has chosen somebody: this is for all before that.
                        Some((at, reason)) => {
                            tokio::time::timeout_at(at, tail(request)).await.unwrap_or_else(|_| {
                                let (rule, policies) = (policy.rule, policy.policies);
                                let refusal = late(reason, at - started).by_timeout(policies, rule);
                                Served { edge: policy.timeline.take_chosen(), ..Served::refused(refusal) }
                            })
                        }
                    }
                }
            }
        }
    };

    recording.served_by(served.edge, served.end);
    let result = recording.answered(served.result);
    let result = result.and_then(|response| join_upgrade(upgrade, response, &mut recording, policy.open));
    let mut response = result.unwrap_or_else(|refusal| {
        tracing::debug!(reason = refusal.reason.as_str(), %refusal, hop = policy.voice.hop.as_str(), "refused");
        recording.decided(Outcome::Refused(refusal.reason));
        policy.timeline.note(|exchange| exchange::put(&mut exchange.detail, &refusal.detail));
        let answer = policy.voice.response(&refusal, grpc);
        // What answers HEAD has no content (RFC 9110 9.3.2).
        if head { answer.map(|_| Body::Empty) } else { answer }
    });
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::strip_hop_by_hop(response.headers_mut(), false);
    }
    if let Some(modifier) = policy.response_headers {
        modifier.apply(response.headers_mut());
    }
    if let Some(stalled) = policy.report {
        // Last, so that nobody has to look for it.
        response.headers_mut().insert(HOPS, report(policy.timeline.report(stalled)));
    }
    let ends = Ends { deadline, idle: policy.idle, reports: policy.report.is_some() };
    recording.finish().until_the_last_byte(response, grpc, ends)
}

/// As a field's value. Not to be indexed (RFC 7541 6.2.3): each is another one, and would push out of HPACK's table what is not.
fn report(report: Report) -> HeaderValue {
    let mut buffer = [0; LONGEST_REPORT];
    let mut value = HeaderValue::from_bytes(report.write(&mut buffer)).expect("digits and commas");
    value.set_sensitive(true);
    value
}

/// Lets a request in by the workload's own policies. Nobody waits there for an answer that comes too late.
async fn admit(
    guard: &Guard,
    request: &mut Request<Body>,
    started: Instant,
    deadline: Option<(Instant, Reason)>,
) -> Result<Admitted, Refusal> {
    let admitting = guard.admit(request, started);
    match deadline {
        None => admitting.await,
        Some((at, reason)) => {
            tokio::time::timeout_at(at, admitting).await.unwrap_or_else(|_| Err(late(reason, at - started)))
        }
    }
}

fn late(reason: Reason, after: Duration) -> Refusal {
    Refusal::new(reason, format_args!("not within {after:?}"))
}

/// Makes a request fit to be sent on. Gives the caller's half of an upgrade, if it asks for one.
fn prepare(
    request: &mut Request<Body>,
    hop: Hop,
    changes: Option<&HeaderModifier>,
) -> Option<upgrade::Pending> {
    // Not from HTTP/1.0 (RFC 9110 7.8).
    let upgrade = request.version() != http::Version::HTTP_10 && headers::is_upgrade(request.headers());
    let upgrade = upgrade.then(|| upgrade::Pending::of(request));
    // What comes in from another sidecar was cleaned there; what it says of itself is taken by the tail.
    if hop == Hop::Outbound {
        let http1 = request.version() != http::Version::HTTP_2;
        headers::strip_private(request.headers_mut(), http1);
    }
    headers::strip_hop_by_hop(request.headers_mut(), upgrade.is_some());
    if let Some(changes) = changes {
        changes.apply(request.headers_mut());
    }
    upgrade
}

fn join_upgrade<E: End>(
    upgrade: Option<upgrade::Pending>,
    mut response: Response<Body>,
    recording: &mut UnderWay<'_, E>,
    open: &Open,
) -> Result<Response<Body>, Refusal> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(caller) = upgrade else {
            let detail = "the peer switched protocols although nobody asked for it";
            return Err(Refusal::new(Reason::PeerProtocol, detail));
        };
        // The connection is no longer HTTP's, so it counts as open by itself, and keeps what the request held.
        let held = (open.enter(), recording.hand_over());
        caller.join(&mut response, held, |(_, outliving), copied| {
            outliving.carried(copied.sent, copied.received);
        });
    }
    Ok(response)
}
