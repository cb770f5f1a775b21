//! The outbound tail: which backend by the service's routes, which of its endpoints, and what connection.

use std::{rc::Rc, time::Duration};

use ::http::{Request, Response, uri::Authority};
use pillion_api::{
    model::{self, RouteRule},
    route::{self, Decision, RequestHead},
};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Outbound, Target,
    services::{Reach, Service},
};
use crate::{
    balance::{Endpoint, Pick},
    error::{Reason, Refusal},
    http::{
        Body, InterimSink, Version, client,
        headers::{self, ERROR},
    },
    middleware::{self, Policy, Served, record::End, record::Recorded},
    telemetry::edge::Outcome,
};

/// Endpoints tried for a request of which nobody has processed anything yet.
const TRIES: usize = 3;

/// An endpoint held until its response's last byte.
pub(super) struct Held(Pick<Reach>);

impl End for Held {
    fn begun(&mut self, outcome: Outcome) {
        // A failure is one however its body goes on; and a probe has shown what it was to show.
        if outcome.is_failure() || self.0.is_probe() {
            self.0.settle(!outcome.is_failure(), Instant::now());
        }
    }

    fn ended(mut self, outcome: Outcome, now: Instant) {
        self.0.settle(!outcome.is_failure(), now);
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
struct Destination<'a> {
    called: &'a Service,
    backend: &'a Service,
    /// The application's.
    port: u16,
    /// The one that the caller has named.
    endpoint: Option<&'a str>,
}

/// How long a request may take.
#[derive(Clone, Copy)]
struct Times {
    /// Until when, and how long that is.
    whole: Option<(Instant, Duration)>,
    /// For each try.
    each: Option<Duration>,
}

impl Times {
    /// Until when a try that begins now may take, and the limit that says so.
    fn of_a_try(self, now: Instant) -> Option<(Instant, Duration)> {
        let each = self.each.map(|each| (now + each, each));
        [self.whole, each].into_iter().flatten().min()
    }
}

impl Outbound {
    /// Takes a request for a service down the chain.
    pub(super) async fn call(
        self: &Rc<Self>,
        request: Request<Body>,
        authority: Authority,
        target: &Target,
        interim: &dyn InterimSink,
    ) -> Response<Recorded<Held>> {
        let now = Instant::now();
        let found = self.services.get(&target.service, now).await;
        let found = found.and_then(|service| service.config().map(|config| (service, config)));
        let (service, config) = match found {
            Ok(found) => found,
            Err(refusal) => {
                return Box::pin(self.refuse(request, self.refused_edge(), refusal)).await;
            }
        };
        let head = RequestHead { method: request.method(), uri: request.uri(), headers: request.headers() };
        // Routes are for the service; whoever names an endpoint means that one.
        let decision = match target.endpoint {
            None => route::choose(&config, target.port, head),
            Some(_) => Decision::Direct,
        };
        let rule = match decision {
            Decision::Rule(rule) => Some(rule),
            Decision::Direct | Decision::NoMatch => None,
        };
        let policy = Policy {
            voice: &self.voice,
            edge: service.edge.clone(),
            limit: Some(&service.requests),
            guard: None,
            timeout: rule.and_then(|rule| rule.request_timeout).or(config.policy.request_timeout),
            open: &self.open,
            request_headers: rule.map(|rule| &rule.request_headers).filter(|changes| !changes.is_empty()),
            response_headers: rule.map(|rule| &rule.response_headers).filter(|changes| !changes.is_empty()),
        };
        let times = Times {
            whole: policy.timeout.map(|timeout| (now + timeout, timeout)),
            each: rule.and_then(|rule| rule.backend_request_timeout),
        };
        let tail = |request| async {
            if matches!(decision, Decision::NoMatch) {
                return Served::refused(Refusal::new(Reason::RouteNotMatched, &target.service));
            }
            match self.backend(&service, &config, target.port, rule).await {
                Ok((backend, port)) => {
                    let endpoint = target.endpoint.as_deref();
                    let to = Destination { called: &service, backend: &backend, port, endpoint };
                    self.send(request, authority, now, to, times, interim).await
                }
                Err(refusal) => Served::refused(refusal),
            }
        };
        middleware::run(request, now, policy, tail).await
    }

    /// The service that gets the request, and the application port there.
    async fn backend(
        &self,
        called: &Rc<Service>,
        config: &model::Service,
        port: u16,
        rule: Option<&RouteRule>,
    ) -> Result<(Rc<Service>, u16), Refusal> {
        let Some(rule) = rule else {
            let known = config.port(port).map(|port| (called.clone(), port.target_port));
            return known
                .ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{}:{port}", called.name)));
        };
        let chosen = route::backend(&rule.backends, |total| self.random.borrow_mut().random_range(0..total));
        let chosen = chosen.ok_or_else(|| {
            Refusal::new(Reason::NoBackend, format_args!("rule {} of route {}", rule.rule, rule.route))
        })?;
        let absent = |detail: &dyn std::fmt::Display| {
            Refusal::new(Reason::NoBackend, format_args!("{detail}, named by route {}", rule.route))
        };
        let backend = if chosen.service == called.name {
            called.clone()
        } else {
            self.services.get(&chosen.service, Instant::now()).await.map_err(|refusal| {
                match refusal.reason {
                    Reason::UnknownService => absent(&chosen.service),
                    _ => refusal,
                }
            })?
        };
        let target_port = backend.config()?.port(chosen.port).map(|port| port.target_port);
        let target_port =
            target_port.ok_or_else(|| absent(&format_args!("{}:{}", chosen.service, chosen.port)))?;
        Ok((backend, target_port))
    }

    /// Sends a request to one endpoint; to another one while surely nothing has been processed.
    async fn send(
        &self,
        mut request: Request<Body>,
        authority: Authority,
        mut now: Instant,
        to: Destination<'_>,
        times: Times,
        interim: &dyn InterimSink,
    ) -> Served<Held> {
        let Destination { called, backend, port, endpoint } = to;
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
        let mut avoid: Option<Rc<Endpoint<Reach>>> = None;
        let mut failed = None;
        for tried in 1.. {
            let avoided = avoid.as_ref().map(|endpoint| endpoint.uid());
            let mut pick = match backend.pick(&self.random, now, endpoint, avoided).await {
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
                    failed = Some(Served { result, edge, end: None });
                    avoid = Some(pick.endpoint().clone());
                    if counts {
                        pick.settle(false, now);
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
