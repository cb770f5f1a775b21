//! The outbound tail: which policy holds for a request, which backend gets it by the service's routes, and what is done to it
//! and to its response on the way.

use std::{rc::Rc, sync::Arc};

use ::http::{Request, Response, uri::Authority};
use pillion_api::{
    holds::Policies,
    model::{self, Backend, BackendFilters, Fallback, Filters, HeaderModifier, Percent, RouteRule},
    route::{self, Decision, RequestHead},
};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Outbound, Target,
    attempt::{Destination, Held, Plan},
    fallback::{covers, stepped_in},
    fault::{Fate, Mark},
    filters,
    services::Service,
    session::{self, Token},
    steer::Steering,
};
use crate::{
    error::{Reason, Refusal},
    http::{Body, InterimSink, deadline, path},
    middleware::{self, Policy, Served, Timeout, idle::Idle, limit::Place, record::Recorded},
    telemetry::hops::Timeline,
};

/// One request, and what was found to hold for it.
struct Call<'a> {
    /// Whom the caller has named.
    service: &'a Rc<Service>,
    /// As it was when the request came.
    config: &'a model::Service,
    target: &'a Target,
    decision: Decision<'a>,
    /// Until when it may take, and which limit that is.
    whole: Option<(Instant, Timeout)>,
    timeline: &'a Timeline,
    interim: &'a dyn InterimSink,
}

impl Outbound {
    /// Takes a request for a service down the chain.
    #[expect(clippy::manual_async_fn, reason = "an async fn has memory for its arguments twice")]
    pub(super) fn call(
        self: &Rc<Self>,
        mut request: Request<Body>,
        authority: Authority,
        target: &Target,
        interim: &dyn InterimSink,
    ) -> impl Future<Output = Response<Recorded<Held>>> {
        async move {
            let now = Instant::now();
            let found = self.services.get(&target.service, now).await;
            let found = found.and_then(|service| service.config().map(|config| (service, config)));
            let (service, config) = match found {
                Ok(found) => found,
                Err(refusal) => {
                    return Box::pin(self.refuse(request, self.refused_edge(), refusal, now)).await;
                }
            };
            if let Err(refusal) = path::normalise(&mut request) {
                return Box::pin(self.refuse(request, service.edge.clone(), refusal, now)).await;
            }
            // Routes are for the service; whoever names an endpoint means that one.
            let decision = match target.endpoint {
                None => route::choose(&config, target.port, self.namespace(), head(&request)),
                Some(_) => Decision::Direct,
            };
            let rule = rule(decision);
            if let Some(rule) = rule {
                service.routed.count(&config.routes, rule);
            }
            let called = Policies { called: &config.policy, serving: &config.policy };
            let timeout = Timeout::of(called.request_timeout(rule), deadline::asked(request.headers()));
            let (place, limited) = enter(&service, target);
            let changes =
                |changes: fn(&RouteRule) -> &HeaderModifier| rule.map(changes).filter(|it| !it.is_empty());
            let timeline = Timeline::new(now);
            let policy = Policy {
                voice: &self.voice,
                timeline: &timeline,
                edge: service.edge.clone(),
                place,
                guard: None,
                report: None,
                caller: None,
                rule,
                policies: Some(called),
                timeout,
                idle: config.policy.stream_idle_timeout.map(|most| Idle::new(most, config.clone(), now)),
                open: &self.open,
                request_headers: changes(|rule| &rule.request_headers),
                response_headers: changes(|rule| &rule.response_headers),
            };
            // Its matches are about what the caller has sent.
            let mut fate = None;
            self.fate(&mut fate, &service, &request);
            let whole = timeout.map(|timeout| (now + timeout.after, timeout));
            let timeline = &timeline;
            let call =
                Call { service: &service, config: &config, target, decision, whole, timeline, interim };
            let tail = |request| self.tail(request, authority, &call, limited, fate);
            middleware::run(request, policy, tail).await
        }
    }

    /// What is asked of routes first, then who gets the request, then the sending.
    #[expect(clippy::manual_async_fn, reason = "an async fn has memory for its arguments twice")]
    fn tail(
        self: &Rc<Self>,
        mut request: Request<Body>,
        mut authority: Authority,
        call: &Call<'_>,
        limited: Option<Box<Instead>>,
        mut fate: Option<Box<Fate>>,
    ) -> impl Future<Output = Served<Held>> {
        async move {
            if let Some(refusal) = call.refusal() {
                return Served::refused(refusal);
            }
            if let Some(answer) = call.redirect(&request, &authority) {
                return Served { result: Ok(answer), edge: None, end: None };
            }
            call.rewrite(&mut request, &mut authority);
            if let Some(limited) = limited {
                let Instead { fallback, refusal } = *limited;
                let plan = call.plan(&call.config.policy, &request);
                let answer =
                    self.fall_back(&fallback, refusal, request, authority, call.service, plan, call.interim);
                return Box::pin(answer).await;
            }

            let had = call.token(&request);
            let chosen = match self.choose(call, had).await {
                Ok(chosen) => chosen,
                Err(refusal) => return Served::refused(refusal),
            };
            let backend = &chosen.backend;
            let place = match backend.place_beside(call.service) {
                Ok(place) => place,
                Err(refusal) => {
                    return Box::pin(self.too_many(refusal, request, authority, call, backend)).await;
                }
            };
            if let Some((_, Filters { mirrors, .. })) = call.filters() {
                let within = call.whole.map(|(_, it)| it.after);
                request = self.mirror(mirrors, request, &authority, within, call.timeline);
            }
            chosen.change_request(&mut request);
            if !Rc::ptr_eq(backend, call.service) {
                self.fate(&mut fate, backend, &request);
            }
            let mark = match fate {
                None => Ok(Mark::NONE),
                Some(fate) => Box::pin(fate.befall(call.whole.map(|(at, it)| (at, it.reason)))).await,
            };
            let mark = match mark {
                Ok(mark) => mark,
                Err(refusal) => return Served::refused(refusal),
            };

            let steering =
                Steering::of(backend, &request, &self.needs.workload, &mut *self.random.borrow_mut());
            let fallback = if call.target.endpoint.is_none() { backend.fallback() } else { None };
            let to = Destination {
                called: call.service,
                backend,
                port: chosen.port,
                endpoint: call.target.endpoint.as_deref(),
                key: steering.key,
                session: had.map(Token::endpoint),
                fallback: fallback.as_deref(),
            };
            let other = if Rc::ptr_eq(backend, call.service) { None } else { backend.config().ok() };
            let plan =
                call.plan(other.as_ref().map_or(&call.config.policy, |config| &config.policy), &request);
            let mut served = match &fallback {
                None => self.send(request, authority, to, plan, call.interim).await,
                Some(fallback) => {
                    let sent = self.send_or_fall_back(fallback, request, authority, to, plan, call.interim);
                    Box::pin(sent).await
                }
            };
            if place.is_some()
                && !stepped_in(&served)
                && let Some(end) = &mut served.end
            {
                end.keep(place);
            }
            chosen.change_response(&mut served);
            let mut served = steering.mark(served);
            mark.put(&mut served.result);
            call.keep(had, chosen.session, served)
        }
    }

    /// The backend that was chosen has as many requests under way as it may.
    async fn too_many(
        &self,
        refusal: Refusal,
        request: Request<Body>,
        authority: Authority,
        call: &Call<'_>,
        backend: &Service,
    ) -> Served<Held> {
        let fallback = backend.fallback().filter(|fallback| covers(fallback, refusal.reason));
        let (Some(fallback), Ok(config)) = (fallback, backend.config()) else {
            return Served::refused(refusal);
        };
        let plan = call.plan(&config.policy, &request);
        self.fall_back(&fallback, refusal, request, authority, call.service, plan, call.interim).await
    }

    /// What of the faults of a service falls to a request.
    fn fate(&self, fate: &mut Option<Box<Fate>>, service: &Service, request: &Request<Body>) {
        if let Some(faults) = service.faults() {
            let mut random = self.random.borrow_mut();
            let fate = fate.get_or_insert_default();
            fate.add(&faults, head(request), Instant::now(), || random.random_range(0..Percent::OF));
        }
    }

    /// Who gets the request: the backend that its session is with, as long as that can go on, else one by weight.
    async fn choose<'a>(&self, call: &Call<'a>, had: Option<Token>) -> Result<Chosen<'a>, Refusal> {
        let Some(rule) = rule(call.decision) else {
            let port = call.target.port;
            let known = call.config.port(port).map(|port| Chosen {
                backend: call.service.clone(),
                port: port.target_port,
                session: 0,
                changes: None,
            });
            let name = &call.service.name;
            return known.ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{name}:{port}")));
        };
        if let Some(token) = had
            && let Some(kept) = rule.backends.iter().find(|it| it.weight > 0 && token.is_with(it))
            && let Ok(chosen) = Box::pin(self.chosen(call.service, rule, kept)).await
            && chosen.backend.balancer.keeps(token.endpoint(), Instant::now())
        {
            return Ok(chosen);
        }
        let chosen = route::backend(&rule.backends, |total| self.random.borrow_mut().random_range(0..total));
        let chosen = chosen.ok_or_else(|| {
            Refusal::new(Reason::NoBackend, format_args!("rule {} of route {}", rule.rule, rule.route))
        })?;
        self.chosen(call.service, rule, chosen).await
    }

    /// The service that a backend of a rule means, and the application port there.
    async fn chosen<'rule>(
        &self,
        called: &Rc<Service>,
        rule: &RouteRule,
        chosen: &'rule Backend,
    ) -> Result<Chosen<'rule>, Refusal> {
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
        let port = target_port.ok_or_else(|| absent(&format_args!("{}:{}", chosen.service, chosen.port)))?;
        let session = if rule.session.is_some() { session::backend(chosen) } else { 0 };
        Ok(Chosen { backend, port, session, changes: chosen.filters.as_deref() })
    }
}

/// What routing looks at.
fn head(request: &Request<Body>) -> RequestHead<'_> {
    RequestHead { method: request.method(), uri: request.uri(), headers: request.headers() }
}

fn rule(decision: Decision<'_>) -> Option<&RouteRule> {
    match decision {
        Decision::Rule(rule) => Some(rule),
        Decision::Direct | Decision::NoMatch => None,
    }
}

impl<'a> Call<'a> {
    /// Why nobody is to be asked.
    fn refusal(&self) -> Option<Refusal> {
        if matches!(self.decision, Decision::NoMatch) {
            return Some(Refusal::new(Reason::RouteNotMatched, &self.target.service));
        }
        let (_, timeout) = self.whole?;
        timeout.after.is_zero().then(|| timeout.reason.into())
    }

    /// The rule, and its filters.
    fn filters(&self) -> Option<(&'a RouteRule, &'a Filters)> {
        let rule = rule(self.decision)?;
        Some((rule, rule.filters.as_deref()?))
    }

    fn redirect(&self, request: &Request<Body>, authority: &Authority) -> Option<Response<Body>> {
        let (rule, filters) = self.filters()?;
        let redirect = filters.redirect.as_ref()?;
        Some(filters::redirect(redirect, rule, request, authority, self.target.port))
    }

    fn rewrite(&self, request: &mut Request<Body>, authority: &mut Authority) {
        if let Some((rule, Filters { rewrite: Some(rewrite), .. })) = self.filters() {
            filters::rewrite(rewrite, rule, request, authority);
        }
    }

    /// What the request says of its session, if the rule keeps any.
    fn token(&self, request: &Request<Body>) -> Option<Token> {
        let session = rule(self.decision)?.session.as_ref()?;
        Token::of(session, request.headers(), session::now())
    }

    /// Has the client keep to who has served it.
    fn keep(&self, had: Option<Token>, with: u64, served: Served<Held>) -> Served<Held> {
        match rule(self.decision).and_then(|rule| rule.session.as_ref()) {
            // Who has stepped in is not whom the client is to come back to.
            Some(session) if !stepped_in(&served) => session::mark(session, had, with, served),
            _ => served,
        }
    }

    /// `own`: the policy of who gets the request.
    fn plan<'b>(&self, own: &'b model::TrafficPolicy, request: &Request<Body>) -> Plan<'b>
    where
        'a: 'b,
    {
        let policies = Policies { called: &self.config.policy, serving: own };
        Plan::of(rule(self.decision), policies, request, self.whole, self.timeline)
    }
}

/// Who gets a request.
struct Chosen<'rule> {
    backend: Rc<Service>,
    /// The application's.
    port: u16,
    /// What sessions know the backend by, where the rule keeps any.
    session: u64,
    /// What is changed for that one alone.
    changes: Option<&'rule BackendFilters>,
}

impl Chosen<'_> {
    fn change_request(&self, request: &mut Request<Body>) {
        if let Some(changes) = self.changes {
            changes.request_headers.apply(request.headers_mut());
        }
    }

    fn change_response(&self, served: &mut Served<Held>) {
        if let (Some(changes), Ok(response)) = (self.changes, &mut served.result) {
            changes.response_headers.apply(response.headers_mut());
        }
    }
}

/// What answers where a service has as many requests under way as it may.
struct Instead {
    fallback: Arc<Fallback>,
    /// Of what.
    refusal: Refusal,
}

/// A place among a service's requests. Where there is none, but a fallback is there for that, it needs none.
fn enter(service: &Service, target: &Target) -> (Result<Option<Place>, Refusal>, Option<Box<Instead>>) {
    // Asked once only: whoever asks before whether there is one may find that another worker has taken it since.
    let refusal = match service.requests.enter() {
        Ok(place) => return (Ok(Some(place)), None),
        Err(refusal) => refusal,
    };
    let fallback = if target.endpoint.is_none() { service.fallback() } else { None };
    match fallback.filter(|fallback| covers(fallback, refusal.reason)) {
        Some(fallback) => (Ok(None), Some(Box::new(Instead { fallback, refusal }))),
        None => (Err(refusal), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<'a, F: Future>(
        _: impl Fn(&'a Rc<Outbound>, Request<Body>, Authority, &'a Target, &'a dyn InterimSink) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_kept_for_a_request_is_small() {
        let size = size(Outbound::call);
        assert!(size <= 8600, "a request's future takes {size} bytes");
    }
}
