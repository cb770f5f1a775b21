//! Sends a request: to an endpoint of the service, and to another one while that is safe.

use std::{rc::Rc, time::Duration};

use ::http::{Request, Response, uri::Authority};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Outbound, reach::Reach, services::Service};
use crate::{
    balance::{Endpoint, Pick, Verdict, Wanted},
    error::{Reason, Refusal},
    http::{
        Body, InterimSink, Version, client,
        headers::{self, ERROR},
    },
    middleware::{Served, record::End},
    telemetry::edge::Outcome,
};

/// Endpoints tried for a request of which nobody has processed anything yet.
const TRIES: usize = 3;

/// An endpoint held until its response's last byte.
pub(super) struct Held(Pick<Reach>);

impl Held {
    pub(super) fn endpoint(&self) -> &Endpoint<Reach> {
        self.0.endpoint()
    }
}

impl End for Held {
    fn begun(&mut self, outcome: Outcome) {
        // A failure is one however its body goes on; and a probe has shown what it was to show.
        let verdict = self.0.verdict(outcome);
        if verdict != Verdict::Good || self.0.is_probe() {
            self.0.settle(verdict, Instant::now());
        }
    }

    fn ended(mut self, outcome: Outcome, now: Instant) {
        self.0.settle(self.0.verdict(outcome), now);
    }
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
    /// Until when, and how long that is.
    pub(super) whole: Option<(Instant, Duration)>,
    /// For each try.
    pub(super) each: Option<Duration>,
}

impl Times {
    /// Until when a try that begins now may take, and the limit that says so.
    fn of_a_try(self, now: Instant) -> Option<(Instant, Duration)> {
        let each = self.each.map(|each| (now + each, each));
        [self.whole, each].into_iter().flatten().min()
    }
}

impl Outbound {
    /// Sends a request to one endpoint; to another one while surely nothing has been processed.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        authority: Authority,
        mut now: Instant,
        to: Destination<'_>,
        times: Times,
        interim: &dyn InterimSink,
    ) -> Served<Held> {
        let Destination { called, backend, port, endpoint, key, session } = to;
        let outside = backend.is_outside();
        let carry = carry(&request, outside);
        match carry {
            Version::Http1 => headers::to_http1(&mut request),
            Version::Http2 => {
                headers::to_http2(&mut request, authority);
                // What is noted there means nothing to HTTP/2, and would be copied with the request.
                request.extensions_mut().clear();
            }
        }
        let again = if carry == Version::Http2 { client::copy(&request) } else { None };
        let mut avoid: SmallVec<[Rc<Endpoint<Reach>>; TRIES]> = SmallVec::new();
        let mut failed = None;
        for tried in 1.. {
            let wanted = Wanted { key, session, avoid: &avoid };
            let mut pick = match backend.pick(&self.random, now, endpoint, &wanted).await {
                Ok(pick) => pick,
                // The first failure says more than that nobody else was left.
                Err(refusal) => return failed.unwrap_or_else(|| Served::refused(refusal)),
            };
            let reach = pick.endpoint().reach();
            let edge = Some(reach.edge(&called.name));
            let client = reach.client(port);
            let waiting = if client.is_connected(carry) { None } else { Some(backend.pending.enter()) };
            if let Some(Err(refusal)) = waiting {
                return Served { result: Err(refusal), edge, end: None };
            }
            let sending = client.send(request, carry, interim);
            let result = match times.of_a_try(now) {
                None => Ok(sending.await),
                Some((at, limit)) => tokio::time::timeout_at(at, sending).await.map_err(|_| limit),
            };
            drop(waiting);
            now = Instant::now();
            let result = match result {
                Ok(result) => result,
                Err(limit) => {
                    pick.first_byte(now);
                    let refusal = Refusal::new(
                        Reason::RequestTimeout,
                        format_args!("{} has not answered within {limit:?}", pick.endpoint().workload()),
                    );
                    return Served { result: Err(refusal), edge, end: Some(Held(pick)) };
                }
            };
            let mut counts = true;
            let (result, next) = match result {
                Ok(mut response) => {
                    pick.first_byte(now);
                    // Only sidecars speak as sidecars.
                    if outside {
                        headers::strip_private(response.headers_mut(), carry == Version::Http1);
                    }
                    let unprocessed = !outside && refused_unprocessed(&response);
                    (Ok(response), if unprocessed { again.as_ref().and_then(client::copy) } else { None })
                }
                Err(failure) => {
                    counts = !failure.shared;
                    let next = if failure.refusal.reason.unprocessed() {
                        failure.unsent.or_else(|| again.as_ref().and_then(client::copy))
                    } else {
                        None
                    };
                    (Err(failure.refusal), next)
                }
            };
            // One failed attempt to connect is one failure, however many requests waited for it.
            match next {
                Some(next) if tried < TRIES => {
                    request = next;
                    let outcome = match &result {
                        Ok(response) => Outcome::Status(response.status()),
                        Err(refusal) => Outcome::Refused(refusal.reason),
                    };
                    failed = Some(Served { result, edge, end: None });
                    avoid.push(pick.endpoint().clone());
                    if counts {
                        pick.settle(pick.verdict(outcome), now);
                    }
                }
                _ => return Served { result, edge, end: counts.then(|| Held(pick)) },
            }
        }
        unreachable!("the loop ends by returning")
    }
}

/// Whether the peer's sidecar says that its application saw nothing of the request.
fn refused_unprocessed(response: &Response<Body>) -> bool {
    let Some(error) = response.headers().get(ERROR) else { return false };
    let reason = error.to_str().ok().and_then(|text| text.split(';').next()).unwrap_or_default();
    Reason::from_name(reason).is_some_and(Reason::unprocessed)
}
