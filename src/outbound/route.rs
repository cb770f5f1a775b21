//! The outbound tail's first half: which policy holds for a request, and which backend by the service's routes.

use std::{rc::Rc, sync::Arc, time::Duration};

use ::http::{Request, Response, uri::Authority};
use pillion_api::{
    model::{self, Backend, BackendFilters, Fallback, RouteRule},
    route::{self, Decision, RequestHead},
};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Outbound, Target,
    attempt::{Destination, Held, Plan},
    fallback::{covers, stepped_in},
    filters,
    services::Service,
    session::{self, Token},
    steer::Steering,
};
use crate::{
    error::{Reason, Refusal},
    http::{Body, InterimSink, deadline},
    middleware::{self, Policy, Served, Timeout, fault, idle::Idle, record::Recorded},
};

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
            None => route::choose(&config, target.port, self.namespace(), head),
            Some(_) => Decision::Direct,
        };
        let rule = match decision {
            Decision::Rule(rule) => Some(rule),
            Decision::Direct | Decision::NoMatch => None,
        };
        // As many requests as may be are under way, but a fallback is there for that.
        let limited = if target.endpoint.is_none() { instead_of_limit(&service) } else { None };
        let faults = service.faults();
        let policy = Policy {
            voice: &self.voice,
            edge: service.edge.clone(),
            limit: limited.is_none().then_some(&service.requests),
            faults: faults.as_deref(),
            guard: None,
            timeout: Timeout::of(
                model::timeout(rule.and_then(|rule| rule.request_timeout), config.policy.request_timeout),
                deadline::asked(request.headers()),
            ),
            idle: config.policy.stream_idle_timeout.map(|most| Idle::new(most, now)),
            open: &self.open,
            request_headers: rule.map(|rule| &rule.request_headers).filter(|changes| !changes.is_empty()),
            response_headers: rule.map(|rule| &rule.response_headers).filter(|changes| !changes.is_empty()),
        };
        let whole = policy.timeout.map(|timeout| (now + timeout.after, timeout));
        let idle = policy.idle.clone();
        let tail = |mut request: Request<Body>| async {
            if matches!(decision, Decision::NoMatch) {
                return Served::refused(Refusal::new(Reason::RouteNotMatched, &target.service));
            }
            if let Some((_, Timeout { after: Duration::ZERO, reason })) = whole {
                return Served::refused(reason);
            }
            if let Some(idle) = idle {
                request = request.map(|body| idle.watch(body));
            }
            if let Some((fallback, refusal)) = limited {
                let plan = Plan::of(rule, [&config.policy, &config.policy], &request, whole);
                let answer = self.fall_back(&fallback, refusal, request, authority, &service, plan, interim);
                return Box::pin(answer).await;
            }
            let mut authority = authority;
            let filtered = rule.and_then(|rule| Some((rule, rule.filters.as_deref()?)));
            if let Some((rule, filters)) = filtered
                && let Some(redirect) = &filters.redirect
            {
                let answer = filters::redirect(redirect, rule, &request, &authority, target.port);
                return Served { result: Ok(answer), edge: None, end: None };
            }
            let session = rule.and_then(|rule| rule.session.as_ref());
            let had = session.and_then(|session| Token::of(session, request.headers(), session::now()));
            match self.backend(&service, &config, target.port, rule, had).await {
                Ok(Chosen { backend, port, session: with, changes }) => {
                    if let Some((rule, filters)) = filtered {
                        if let Some(rewrite) = &filters.rewrite {
                            filters::rewrite(rewrite, rule, &mut request, &mut authority);
                        }
                        request =
                            self.mirror(&filters.mirrors, request, &authority, whole.map(|(_, it)| it.after));
                    }
                    if let Some(changes) = changes {
                        changes.request_headers.apply(request.headers_mut());
                    }
                    let mark = match backend.faults().filter(|_| !Rc::ptr_eq(&backend, &service)) {
                        None => None,
                        // Those of the service called have been seen already.
                        Some(faults) => {
                            match Box::pin(
                                faults.inject(&request, whole.map(|(at, timeout)| (at, timeout.reason))),
                            )
                            .await
                            {
                                Ok(mark) => mark,
                                Err(refusal) => return Served::refused(refusal),
                            }
                        }
                    };
                    let endpoint = target.endpoint.as_deref();
                    let source = &*self.needs.workload;
                    let steering = Steering::of(&backend, &request, source, &mut *self.random.borrow_mut());
                    let (key, kept) = (steering.key, had.map(Token::endpoint));
                    let to = Destination {
                        called: &service,
                        backend: &backend,
                        port,
                        endpoint,
                        key,
                        session: kept,
                    };
                    let other = if Rc::ptr_eq(&backend, &service) { None } else { backend.config().ok() };
                    let own = other.as_ref().map_or(&config.policy, |config| &config.policy);
                    let plan = Plan::of(rule, [own, &config.policy], &request, whole);
                    let fallback = if endpoint.is_none() { backend.fallback() } else { None };
                    let mut served = match fallback {
                        None => self.send(request, authority, now, to, plan, interim).await,
                        Some(fallback) => {
                            let sent =
                                self.send_or_fall_back(fallback, request, authority, now, to, plan, interim);
                            Box::pin(sent).await
                        }
                    };
                    if let (Some(changes), Ok(response)) = (changes, &mut served.result) {
                        changes.response_headers.apply(response.headers_mut());
                    }
                    let mut served = steering.mark(served);
                    fault::mark(mark, &mut served.result);
                    match session {
                        // Who has stepped in is not whom the client is to come back to.
                        Some(_) if stepped_in(&served) => served,
                        Some(session) => session::mark(session, had, with, served),
                        None => served,
                    }
                }
                Err(refusal) => Served::refused(refusal),
            }
        };
        middleware::run(request, now, policy, tail).await
    }

    /// Who gets the request: the backend that its session is with, as long as that can go on, else one by weight.
    async fn backend<'rule>(
        &self,
        called: &Rc<Service>,
        config: &model::Service,
        port: u16,
        rule: Option<&'rule RouteRule>,
        had: Option<Token>,
    ) -> Result<Chosen<'rule>, Refusal> {
        let Some(rule) = rule else {
            let known = config.port(port).map(|port| Chosen {
                backend: called.clone(),
                port: port.target_port,
                session: 0,
                changes: None,
            });
            return known
                .ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{}:{port}", called.name)));
        };
        if let Some(token) = had
            && let Some(kept) = rule.backends.iter().find(|it| it.weight > 0 && token.is_with(it))
            && let Ok(chosen) = Box::pin(self.chosen(called, rule, kept)).await
            && chosen.backend.balancer.keeps(token.endpoint(), Instant::now())
        {
            return Ok(chosen);
        }
        let chosen = route::backend(&rule.backends, |total| self.random.borrow_mut().random_range(0..total));
        let chosen = chosen.ok_or_else(|| {
            Refusal::new(Reason::NoBackend, format_args!("rule {} of route {}", rule.rule, rule.route))
        })?;
        self.chosen(called, rule, chosen).await
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

/// What answers where a service has as many requests under way as it may, and the refusal that it is instead of.
fn instead_of_limit(service: &Service) -> Option<(Arc<Fallback>, Refusal)> {
    let refusal = service.requests.full()?;
    let fallback = service.fallback().filter(|fallback| covers(fallback, refusal.reason))?;
    Some((fallback, refusal))
}
