//! What may still come in between: faults in force, and what callers' and callees' sidecars hold against a request that is sent.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pillion_api::{
    ejection,
    model::{self, On, Rate, RateLimit},
    own,
    route::{RequestHead, fits_any, restricts_any},
};
use pillion_certs::SpiffeId;

use super::{
    candidates,
    view::{BackendView, CandidateView, CaveatView},
    words::time,
};
use crate::history;

/// How far back connections are looked at that were not HTTP, seconds.
const NOT_HTTP_S: i64 = 300;

/// A caller's workload.
pub(super) struct Client {
    /// What people call it.
    pub workload: String,
    /// What others see as the source of its requests.
    pub source: String,
    /// By its certificate.
    pub identity: Option<SpiffeId>,
}

/// What is asked, by whom, and when.
pub(super) struct Circumstances<'a> {
    pub head: RequestHead<'a>,
    /// The rule that the request takes.
    pub rule: Option<&'a model::RouteRule>,
    /// The connection is not looked into.
    pub opaque: bool,
    pub now: SystemTime,
    pub clients: &'a [Client],
}

impl Circumstances<'_> {
    /// What becomes of requests for backends by faults that every such request sees, and whatever may come in between besides, each
    /// once. `own`: the services that a workload belongs to.
    pub(super) fn come_between(
        &self,
        called: &model::Service,
        backends: &mut [BackendView],
        taking: &[model::Service],
        named: bool,
        timeout: Option<Duration>,
        own: &dyn Fn(&str) -> Vec<model::Service>,
    ) -> Vec<CaveatView> {
        let mut caveats = Vec::new();
        for backend in backends.iter_mut().filter(|backend| backend.outcome != candidates::NO_BACKEND) {
            let Some(found) = taking.iter().find(|found| *found.name.as_str() == *backend.service) else {
                continue;
            };
            // As sidecars do it: once a backend is chosen, and before one of its endpoints is.
            let request = self.changed(backend);
            let sent =
                RequestHead { method: request.method(), uri: request.uri(), headers: request.headers() };
            // Of the one that is called by what the caller has sent, of another one by what that gets.
            let others = Some((found, sent)).filter(|(found, _)| found.name != called.name);
            let faulty = || [(called, self.head)].into_iter().chain(others);
            let certain = faulty().find_map(|(service, head)| self.certain_fault(service, head, timeout));
            if let Some((reason, text)) = certain {
                (backend.outcome, backend.text) = (reason.to_owned(), text);
                continue;
            }
            caveats.extend(faulty().flat_map(|(service, head)| self.faulty(service, head)));
            if ![candidates::SENT, candidates::DEPENDS].contains(&backend.outcome.as_str()) {
                continue;
            }
            let port = found.port(backend.port).map_or(0, |port| port.target_port);
            for endpoint in backend.endpoints.iter().filter(|endpoint| endpoint.ready) {
                caveats.extend(self.held(&own(&endpoint.uid), found, port, sent));
            }
            if !named {
                caveats.extend(breakers(found, &backend.endpoints, self.clients));
            }
        }
        if backends.iter().any(|backend| backend.outcome == candidates::SENT) {
            caveats.extend(self.bounded(called, backends));
        }
        for backend in backends.iter().filter(|backend| backend.outcome == candidates::SENT) {
            let found = taking.iter().find(|found| *found.name.as_str() == *backend.service);
            let other = found.filter(|found| found.name != called.name);
            caveats.extend(other.into_iter().flat_map(|it| self.bounded(it, std::slice::from_ref(backend))));
        }
        let mut told = BTreeSet::new();
        caveats.retain(|caveat| told.insert(caveat.text.clone()));
        caveats
    }

    /// The request as a backend gets it.
    fn changed(&self, backend: &BackendView) -> http::Request<()> {
        let Some(rule) = self.rule else { return self.head.to_request() };
        let named =
            |it: &&model::Backend| *it.service.as_str() == *backend.service && it.port == backend.port;
        rule.changed(self.head, rule.backends.iter().find(named))
    }

    /// A service's faults that the request may be made to see, each with the clients whose requests are. As `Injector` chooses them.
    fn faults<'a>(
        &'a self,
        policy: &'a model::TrafficPolicy,
        head: RequestHead<'a>,
    ) -> impl Iterator<Item = (&'a model::InjectedFault, Vec<&'a Client>)> {
        let now = policy.faults.iter().filter(|fault| !self.opaque && self.now < fault.until);
        now.filter(move |fault| fits_any(&fault.matches, head)).filter_map(|fault| {
            let clients: Vec<_> = self.clients.iter().filter(|client| fault.is_for(&client.source)).collect();
            (!clients.is_empty()).then_some((fault, clients))
        })
    }

    /// The refusal that the faults of a service make of every such request.
    fn certain_fault(
        &self,
        service: &model::Service,
        head: RequestHead<'_>,
        timeout: Option<Duration>,
    ) -> Option<(&'static str, String)> {
        let policy = &service.policy;
        let all = |clients: &[&Client]| clients.len() == self.clients.len();
        for (fault, _) in self.faults(policy, head).filter(|(_, clients)| all(clients)) {
            let named = || format!("{}, until {}", named(fault, policy), until(fault));
            match (fault.delay, timeout) {
                (Some((delay, percent)), Some(timeout)) if percent.is_all() && delay >= timeout => {
                    let text = format!("refused with 504 after {}: delayed by {}", time(timeout), named());
                    return Some(("request-timeout", text));
                }
                _ => {}
            }
            if let Some((abort, _)) = fault.abort.filter(|(_, percent)| percent.is_all()) {
                let text = format!("refused with {}: {}", abort.status.as_u16(), named());
                return Some(("fault-injected", text));
            }
        }
        None
    }

    /// Faults that some requests to a service are made to see.
    fn faulty(&self, service: &model::Service, head: RequestHead<'_>) -> Vec<CaveatView> {
        let policy = &service.policy;
        let caveats = self.faults(policy, head).flat_map(|(fault, clients)| {
            let of = match clients.len() == self.clients.len() {
                true => "such requests".to_owned(),
                false => format!("such requests of {}", names(&clients)),
            };
            let (named, until) = (named(fault, policy), until(fault));
            let caveat = |reason: &str, percent: model::Percent, what: String| CaveatView {
                reason: reason.to_owned(),
                percent: Some(percent.percent()),
                text: format!("{named}: {percent} % of {of} {what}, until {until}"),
            };
            let delay = fault
                .delay
                .map(|(delay, percent)| caveat("", percent, format!("wait for {} first", time(delay))));
            let abort = fault.abort.map(|(abort, percent)| {
                let what = format!("are answered with {} by the caller's sidecar", abort.status.as_u16());
                caveat("fault-injected", percent, what)
            });
            [delay, abort].into_iter().flatten().collect::<Vec<_>>()
        });
        caveats.collect()
    }

    /// What a workload's own sidecar holds against requests for a port of it. `own`: the services that it belongs to.
    fn held(
        &self,
        own: &[model::Service],
        called: &model::Service,
        port: u16,
        head: RequestHead<'_>,
    ) -> Vec<CaveatView> {
        let leads = |service: &&model::Service| service.ports.iter().any(|it| it.target_port == port);
        let services = || own::meant_first(own.iter().filter(leads), Some(&called.name));
        let mut caveats = Vec::new();
        if let Some(service) = services().find(|service| !service.policy.rate_limits.is_empty()) {
            let is_for = |limit: &&RateLimit| match self.opaque {
                true => limit.matches.is_empty(),
                false => restricts_any(&limit.matches, head),
            };
            let source = named_policy(&service.policy);
            for limit in service.policy.rate_limits.iter().filter(is_for) {
                caveats.extend(self.limited(limit, &source));
            }
        }
        let concurrency =
            services().find_map(|service| Some((service, service.policy.concurrency.as_ref()?)));
        if let Some((service, it)) = concurrency.filter(|_| !self.opaque) {
            let follows = match &it.adaptive {
                Some(adaptive) => {
                    format!(" at first, and up to {} while that makes them no slower", adaptive.max_limit)
                }
                None => String::new(),
            };
            caveats.push(CaveatView {
                reason: "overloaded".to_owned(),
                percent: None,
                text: format!(
                    "concurrency of {}: each workload works on {} requests at a time{follows}; {} more wait for {} at most, others \
                     are refused with 503",
                    named_policy(&service.policy),
                    it.limit,
                    it.max_queue,
                    time(it.queue_timeout)
                ),
            });
        }
        caveats
    }

    /// What a limit has for the clients: one caveat for each rate.
    fn limited(&self, limit: &RateLimit, source: &str) -> Vec<CaveatView> {
        let total = limit.total.map(|rate| format!("{} of all clients together", words(rate)));
        let mut texts = BTreeSet::new();
        for client in self.clients {
            let own = limit.of_client(client.identity.as_ref()).map(|rate| {
                let who = client.identity.as_ref().map_or("whoever has no identity".to_owned(), |identity| {
                    format!("the client {}.{}", identity.service_account(), identity.namespace())
                });
                format!("{} of {who}", words(rate))
            });
            let rates: Vec<String> = own.into_iter().chain(total.clone()).collect();
            if !rates.is_empty() {
                texts.insert(rates.join(" and "));
            }
        }
        let caveat = |rates: String| CaveatView {
            reason: "rate-limited".to_owned(),
            percent: None,
            text: format!(
                "limit {} of {source}: each workload takes {rates}; more are refused with 429",
                limit.name
            ),
        };
        texts.into_iter().map(caveat).collect()
    }

    /// What each caller's sidecar holds against more requests to a service, which is called or serves, with who serves it.
    fn bounded(&self, service: &model::Service, backends: &[BackendView]) -> Vec<CaveatView> {
        let policy = &service.policy;
        let then = |reason: &str| match &policy.fallback {
            Some(fallback) if fallback.on.contains(&On::LimitReached) => "the fallback takes over".to_owned(),
            _ => format!("more are refused with 503, {reason}"),
        };
        let of = named_policy(policy);
        let (most, whose) = match policy.max_requests {
            Some(most) => (most, format!("of {of}")),
            None => (model::MAX_REQUESTS, "by default".to_owned()),
        };
        let mut caveats = Vec::new();
        for client in self.clients {
            let sights = backends.iter().flat_map(|backend| &backend.endpoints).flat_map(|it| &it.seen_by);
            let under_way: u32 =
                sights.filter(|sight| sight.workload == client.workload).map(|sight| sight.in_flight).sum();
            // Far from it, the bound is a value of the policy like any other.
            if u64::from(under_way) * 5 >= u64::from(most) * 4 {
                caveats.push(CaveatView {
                    reason: "too-many-requests".to_owned(),
                    percent: None,
                    text: format!(
                        "connections.maxRequests {whose}: {under_way} requests of {} are under way of {most} that may be; {}",
                        client.workload,
                        then("too-many-requests")
                    ),
                });
            }
        }
        let serves = backends.iter().any(|backend| *backend.service == *service.name.as_str());
        if let Some(most) = policy.max_connections.filter(|_| serves) {
            caveats.push(CaveatView {
                reason: "connection-limit".to_owned(),
                percent: None,
                text: format!(
                    "connections.maxConnections of {of}: each caller's sidecar opens {most} at most; a request that needs one more \
                     waits for {}, then {}",
                    time(policy.queue_timeout),
                    then("connection-limit")
                ),
            });
        }
        caveats
    }
}

/// What breakers cannot do now, as each caller's sidecar last saw them.
fn breakers(service: &model::Service, endpoints: &[CandidateView], clients: &[Client]) -> Vec<CaveatView> {
    let Some(breaker) = &service.policy.breaker else { return Vec::new() };
    let (name, usual) = (&service.name, model::CircuitBreaker::default());
    // What is as without any policy is no policy's word.
    let of = |differs: bool| {
        if differs { format!(" of {}", named_policy(&service.policy)) } else { String::new() }
    };
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready).count();
    let caveats = clients.iter().filter(|_| ready > 0).filter_map(|client| {
        let broken = broken(endpoints, &client.workload);
        let text = if ejection::panics(breaker, ready, broken) {
            format!(
                "circuitBreaker.panicPercent{}: at {} {broken} of {ready} breakers of {name} are not closed, so that all are \
                 ignored, and broken endpoints are called as well",
                of(breaker.panic_share != usual.panic_share),
                client.workload
            )
        } else if !ejection::may_eject(breaker, ready, broken) {
            format!(
                "circuitBreaker.maxEjectedPercent{}: at {} no other breaker of {name} may open: of {ready} ready endpoints, \
                 {broken} are left alone, which is as many as may be",
                of(breaker.max_ejected_share != usual.max_ejected_share),
                client.workload
            )
        } else {
            return None;
        };
        Some(CaveatView { reason: String::new(), percent: None, text })
    });
    caveats.collect()
}

/// Connections of the caller that routes and other policies of requests could not hold for, because they were not HTTP.
pub(super) fn not_http(
    service: &model::Service,
    port: &model::Port,
    namespace: &str,
    clients: &[Client],
    history: &history::State,
    now: SystemTime,
) -> Option<String> {
    if port.protocol != model::Protocol::Detect {
        return None;
    }
    let now_ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let edges = history.edges().iter().filter(|(key, _)| {
        key.to == *service.name.as_str() && clients.iter().any(|client| client.source == key.from)
    });
    let (mut carried, mut refused) = (0, 0);
    for (counts, _) in edges.map(|(_, series)| series.recent(now_ms, NOT_HTTP_S)) {
        carried += counts.connections;
        refused += counts.refusals.get("opaque-refused").copied().unwrap_or_default();
    }
    let routed = service.has_routes(port.port, namespace);
    match (carried, refused) {
        (_, 1..) if routed => Some(format!(
            "The port declares no appProtocol, and {refused} connections of the last five minutes were refused (opaque-refused): \
             they did not begin like HTTP, and the service has routes."
        )),
        (1.., _) => Some(format!(
            "The port declares no appProtocol, and {carried} connections of the last five minutes did not begin like HTTP: they are \
             carried as bytes, and routes, retries and what else is for requests does not hold for them. If the port is not for \
             HTTP, declare appProtocol: tcp."
        )),
        _ => None,
    }
}

/// How many of the ready endpoints have a breaker that is not closed, by what a caller's sidecar last reported.
pub(super) fn broken(endpoints: &[CandidateView], caller: &str) -> usize {
    let broken = |endpoint: &&CandidateView| {
        endpoint.ready
            && endpoint.seen_by.iter().any(|sight| sight.workload == caller && sight.breaker != "closed")
    };
    endpoints.iter().filter(broken).count()
}

fn named_policy(policy: &model::TrafficPolicy) -> String {
    match policy.source.as_str() {
        "" => "the defaults".to_owned(),
        source => format!("TrafficPolicy {source}"),
    }
}

fn named(fault: &model::InjectedFault, policy: &model::TrafficPolicy) -> String {
    format!("fault {} of {}", fault.name, named_policy(policy))
}

fn until(fault: &model::InjectedFault) -> String {
    humantime::format_rfc3339_seconds(fault.until).to_string()
}

fn names(clients: &[&Client]) -> String {
    clients.iter().map(|client| client.workload.as_str()).collect::<Vec<_>>().join(", ")
}

/// `200 per 1s (100 at once)`.
fn words(Rate { requests, per, burst }: Rate) -> String {
    format!("{requests} requests per {} ({burst} at once)", time(per))
}

#[cfg(test)]
#[path = "caveats_tests.rs"]
mod tests;
