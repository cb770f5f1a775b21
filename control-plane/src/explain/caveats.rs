//! What may still come in between: faults in force, and what callers' and callees' sidecars hold against a request that is sent.

use std::{collections::BTreeSet, time::SystemTime};

use pillion_api::{
    ejection,
    model::{self, On, Rate, RateLimit},
    own,
    route::{RequestHead, fits_any},
};
use pillion_certs::SpiffeId;

use super::{
    view::{BackendView, CandidateView, CaveatView},
    words::time,
};

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
    /// The connection is not looked into.
    pub opaque: bool,
    pub now: SystemTime,
    pub clients: &'a [Client],
}

impl Circumstances<'_> {
    /// A service's faults that the request may be made to see, each with the clients whose requests are. As `Injector` chooses them.
    fn faults<'a>(
        &'a self,
        policy: &'a model::TrafficPolicy,
    ) -> impl Iterator<Item = (&'a model::InjectedFault, Vec<&'a Client>)> {
        let now = policy.faults.iter().filter(|fault| !self.opaque && self.now < fault.until);
        now.filter(|fault| fits_any(&fault.matches, self.head)).filter_map(|fault| {
            let clients: Vec<_> = self.clients.iter().filter(|client| fault.is_for(&client.source)).collect();
            (!clients.is_empty()).then_some((fault, clients))
        })
    }

    /// The refusal that the faults of a service make of every such request.
    pub(super) fn certain_fault(
        &self,
        service: &model::Service,
        timeout: Option<std::time::Duration>,
    ) -> Option<(&'static str, String)> {
        let policy = &service.policy;
        let all = |clients: &[&Client]| clients.len() == self.clients.len();
        for (fault, _) in self.faults(policy).filter(|(_, clients)| all(clients)) {
            let named = || format!("{}, until {}", named(fault, policy), until(fault));
            match (fault.delay, timeout) {
                (Some((delay, 100..)), Some(timeout)) if delay >= timeout => {
                    let text = format!("refused with 504 after {}: delayed by {}", time(timeout), named());
                    return Some(("request-timeout", text));
                }
                _ => {}
            }
            if let Some((abort, 100..)) = fault.abort {
                let text = format!("refused with {}: {}", abort.status.as_u16(), named());
                return Some(("fault-injected", text));
            }
        }
        None
    }

    /// Faults that some requests to a service are made to see.
    pub(super) fn faulty(&self, service: &model::Service) -> Vec<CaveatView> {
        let policy = &service.policy;
        let caveats = self.faults(policy).flat_map(|(fault, clients)| {
            let of = match clients.len() == self.clients.len() {
                true => "such requests".to_owned(),
                false => format!("such requests of {}", names(&clients)),
            };
            let (named, until) = (named(fault, policy), until(fault));
            let caveat = |reason: &str, percent, what: String| CaveatView {
                reason: reason.to_owned(),
                percent: Some(percent),
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
    pub(super) fn held(&self, own: &[model::Service], called: &model::Service, port: u16) -> Vec<CaveatView> {
        let leads = |service: &&model::Service| service.ports.iter().any(|it| it.target_port == port);
        let services = own.iter().filter(leads);
        let source = |name: &pillion_api::name::ServiceName| {
            let service = own.iter().find(|service| service.name == *name).unwrap_or(called);
            named_policy(&service.policy)
        };
        let mut caveats = Vec::new();
        let rates = own::part(services.clone(), Some(&called.name), |policy| {
            (!policy.rate_limits.is_empty()).then_some(&policy.rate_limits)
        });
        if let Some((name, limits)) = rates {
            let is_for = |limit: &&RateLimit| match self.opaque {
                true => limit.matches.is_empty(),
                false => fits_any(&limit.matches, self.head),
            };
            for limit in limits.iter().filter(is_for) {
                caveats.extend(self.limited(limit, &source(name)));
            }
        }
        let concurrency = own::part(services, Some(&called.name), |policy| policy.concurrency.as_ref());
        if let Some((name, it)) = concurrency.filter(|_| !self.opaque) {
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
                    source(name),
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

    /// What each caller's sidecar holds against more requests to the service that is called.
    pub(super) fn bounded(&self, called: &model::Service, backends: &[BackendView]) -> Vec<CaveatView> {
        let policy = &called.policy;
        let then = |reason: &str| match &policy.fallback {
            Some(fallback) if fallback.on.contains(&On::LimitReached) => "the fallback takes over".to_owned(),
            _ => format!("more are refused with 503, {reason}"),
        };
        let of = named_policy(policy);
        let mut caveats = Vec::new();
        for client in self.clients {
            let sights = backends.iter().flat_map(|backend| &backend.endpoints).flat_map(|it| &it.seen_by);
            let under_way: u32 =
                sights.filter(|sight| sight.workload == client.workload).map(|sight| sight.in_flight).sum();
            // Far from it, the bound is a value of the policy like any other.
            if u64::from(under_way) * 5 >= u64::from(policy.max_requests) * 4 {
                caveats.push(CaveatView {
                    reason: "too-many-requests".to_owned(),
                    percent: None,
                    text: format!(
                        "connections.maxRequests of {of}: {under_way} requests of {} are under way of {} that may be; {}",
                        client.workload,
                        policy.max_requests,
                        then("too-many-requests")
                    ),
                });
            }
        }
        if let Some(most) = policy.max_connections {
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
pub(super) fn breakers(
    service: &model::Service,
    endpoints: &[CandidateView],
    clients: &[Client],
) -> Vec<CaveatView> {
    let Some(breaker) = &service.policy.breaker else { return Vec::new() };
    let (name, of) = (&service.name, named_policy(&service.policy));
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready).count();
    let caveats = clients.iter().filter(|_| ready > 0).filter_map(|client| {
        let broken = broken(endpoints, &client.workload);
        let text = if ejection::panics(breaker, ready, broken) {
            format!(
                "circuitBreaker.panicPercent of {of}: at {} {broken} of {ready} breakers of {name} are not closed, so that all are \
                 ignored, and broken endpoints are called as well",
                client.workload
            )
        } else if !ejection::may_eject(breaker, ready, broken) {
            format!(
                "circuitBreaker.maxEjectedPercent of {of}: at {} no other breaker of {name} may open: of {ready} ready endpoints, \
                 {broken} are left alone, which is as many as may be",
                client.workload
            )
        } else {
            return None;
        };
        Some(CaveatView { reason: String::new(), percent: None, text })
    });
    caveats.collect()
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
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderMap, Method, Uri};
    use pillion_api::wire::{self, string_match::Type};

    use super::*;
    use crate::explain::view::SightView;

    fn service(policy: wire::TrafficPolicy) -> model::Service {
        let config = wire::ServiceConfig {
            service: "pay.demo".into(),
            ports: vec![wire::ServicePort { port: 80, target_port: 8080, ..Default::default() }],
            policy: Some(wire::TrafficPolicy { source: "demo/pay".into(), ..policy }),
            ..Default::default()
        };
        model::Service::try_from(config).expect("a valid configuration")
    }

    fn client(workload: &str, source: &str) -> Client {
        let identity = format!("spiffe://t/ns/demo/sa/{workload}").parse().ok();
        Client { workload: workload.into(), source: source.into(), identity }
    }

    fn at(path: &str) -> Vec<wire::RouteMatch> {
        let path = wire::StringMatch { r#type: Type::PathPrefix.into(), value: path.into() };
        vec![wire::RouteMatch { path: Some(path), ..Default::default() }]
    }

    /// What is said of `GET /slow/x` by two clients, a minute after the epoch.
    fn asked<T>(opaque: bool, ask: impl Fn(&Circumstances<'_>) -> T) -> T {
        let uri = Uri::from_static("/slow/x");
        let headers = HeaderMap::new();
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &headers };
        let clients = [client("web-1", "web.demo"), client("job-1", "job.demo")];
        let now = UNIX_EPOCH + Duration::from_secs(60);
        ask(&Circumstances { head, opaque, now, clients: &clients })
    }

    fn fault(name: &str, until_s: i64, path: &str) -> wire::InjectedFault {
        wire::InjectedFault {
            name: name.into(),
            until_ms: until_s * 1000,
            matches: at(path),
            ..Default::default()
        }
    }

    fn texts(caveats: &[CaveatView]) -> Vec<&str> {
        caveats.iter().map(|caveat| caveat.text.as_str()).collect()
    }

    #[test]
    fn faults_are_those_that_the_request_would_see() {
        let abort =
            |fault, percent| wire::InjectedFault { abort_status: 503, abort_percent: percent, ..fault };
        let delay = |fault, percent| wire::InjectedFault { delay_ms: 200, delay_percent: percent, ..fault };
        let of_jobs = |fault| wire::InjectedFault {
            callers: vec![wire::Caller { namespace: "demo".into(), service: "job".into() }],
            ..fault
        };
        let faults = vec![
            abort(fault("over", 59, "/slow"), 100),
            abort(fault("elsewhere", 120, "/fast"), 100),
            delay(abort(fault("outage", 120, "/slow"), 30), 50),
            of_jobs(abort(fault("jobs", 3600, "/"), 100)),
        ];
        let pay = service(wire::TrafficPolicy { faults, ..Default::default() });
        let (said, certain) = asked(false, |it| (it.faulty(&pay), it.certain_fault(&pay, None)));
        assert_eq!(
            texts(&said),
            [
                "fault outage of TrafficPolicy demo/pay: 50 % of such requests wait for 200ms first, until 1970-01-01T00:02:00Z",
                "fault outage of TrafficPolicy demo/pay: 30 % of such requests are answered with 503 by the caller's sidecar, until \
                 1970-01-01T00:02:00Z",
                "fault jobs of TrafficPolicy demo/pay: 100 % of such requests of job-1 are answered with 503 by the caller's sidecar, \
                 until 1970-01-01T01:00:00Z",
            ]
        );
        assert_eq!((said[0].reason.as_str(), said[0].percent), ("", Some(50)));
        assert_eq!((said[1].reason.as_str(), said[1].percent), ("fault-injected", Some(30)));
        assert_eq!(certain, None, "the others get through");
        assert_eq!(asked(true, |it| it.faulty(&pay).len()), 0, "bytes are let pass");

        let certain = |fault, timeout: Option<u64>| {
            let pay = service(wire::TrafficPolicy { faults: vec![fault], ..Default::default() });
            asked(false, |it| it.certain_fault(&pay, timeout.map(Duration::from_millis)))
        };
        for (fault, timeout, reason) in [
            (abort(fault("all", 120, "/"), 100), None, Some("fault-injected")),
            (abort(fault("all", 120, "/"), 99), None, None),
            (delay(fault("late", 120, "/"), 100), None, None),
            (delay(fault("late", 120, "/"), 100), Some(201), None),
            (delay(fault("late", 120, "/"), 100), Some(200), Some("request-timeout")),
        ] {
            assert_eq!(certain(fault.clone(), timeout).map(|(reason, _)| reason), reason, "{fault:?}");
        }
    }

    #[test]
    fn limits_are_those_of_the_client_and_of_the_port() {
        let rate = |requests| Some(wire::Rate { requests, per_ms: 1000, burst: 5 });
        let limit = |name: &str, path: Option<&str>| wire::RateLimit {
            name: name.into(),
            matches: path.map(at).unwrap_or_default(),
            total: rate(200),
            per_client: rate(10),
            overrides: vec![wire::ClientRate {
                client: Some(wire::Client { namespace: "demo".into(), service_account: "job-1".into() }),
                rate: rate(1),
            }],
        };
        let rate_limits =
            vec![limit("all", None), limit("slow", Some("/slow")), limit("fast", Some("/fast"))];
        let concurrency = Some(wire::Concurrency::default());
        let pay = service(wire::TrafficPolicy { rate_limits, concurrency, ..Default::default() });
        let own = [pay.clone()];
        let said = asked(false, |it| it.held(&own, &pay, 8080));
        let reasons: Vec<&str> = said.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(reasons, ["rate-limited", "rate-limited", "rate-limited", "rate-limited", "overloaded"]);
        assert_eq!(
            said[1].text,
            "limit all of TrafficPolicy demo/pay: each workload takes 10 requests per 1s (5 at once) of the client web-1.demo and \
             200 requests per 1s (5 at once) of all clients together; more are refused with 429"
        );
        assert!(said[0].text.contains("takes 1 requests per 1s (5 at once) of the client job-1.demo"));
        assert!(said[2].text.starts_with("limit slow of"), "{said:#?}");
        assert_eq!(asked(true, |it| it.held(&own, &pay, 8080).len()), 2, "what is for every request");
        assert_eq!(asked(false, |it| it.held(&own, &pay, 9090).len()), 0, "another port");

        // Another service of the same workload says what the one that is called leaves open.
        let quiet = wire::ServiceConfig {
            service: "pay-v1.demo".into(),
            ports: vec![wire::ServicePort { port: 80, target_port: 8080, ..Default::default() }],
            ..Default::default()
        };
        let quiet = model::Service::try_from(quiet).expect("a valid configuration");
        let both = [pay, quiet.clone()];
        assert_eq!(asked(false, |it| it.held(&both, &quiet, 8080).len()), 5);
        assert_eq!(asked(false, |it| it.held(&[quiet.clone()], &quiet, 8080).len()), 0);
    }

    fn endpoint(workload: &str, breaker: &str, in_flight: u32) -> CandidateView {
        CandidateView {
            uid: workload.into(),
            workload: workload.into(),
            address: String::new(),
            zone: String::new(),
            weight: 100,
            ready: true,
            reason: String::new(),
            seen_by: vec![SightView {
                workload: "web-1".into(),
                breaker: breaker.into(),
                in_flight,
                share: 0.0,
                latency_ms: 0.0,
                opened_reason: String::new(),
            }],
        }
    }

    #[test]
    fn breakers_that_can_do_no_more_are_told() {
        let circuit_breaker = |panic| wire::CircuitBreaker {
            max_ejected_percent: 50,
            panic_percent: panic,
            ..Default::default()
        };
        for (panic, states, expected) in [
            (None, &["closed", "closed"][..], None),
            (None, &["open", "closed"], Some("maxEjectedPercent")),
            (Some(0), &["open", "half-open", "closed", "closed"], Some("maxEjectedPercent")),
            (Some(0), &["open", "closed", "closed", "closed"], None),
            (Some(80), &["open", "closed", "closed"], Some("panicPercent")),
            (Some(0), &["closed"], Some("maxEjectedPercent")),
        ] {
            let policy =
                wire::TrafficPolicy { circuit_breaker: Some(circuit_breaker(panic)), ..Default::default() };
            let endpoints: Vec<_> = states.iter().map(|state| endpoint("pay-1", state, 0)).collect();
            let said = breakers(&service(policy), &endpoints, &[client("web-1", "web.demo")]);
            let found = said.first().map(|it| it.text.as_str());
            assert_eq!(found.is_some(), expected.is_some(), "{states:?}: {found:?}");
            let field = expected.is_none_or(|field| found.is_some_and(|text| text.contains(field)));
            assert!(field, "{states:?}: {found:?}");
        }
    }

    #[test]
    fn bounds_are_told_when_they_are_near() {
        let connections = wire::Connections { max_requests: 10, max_connections: 3, ..Default::default() };
        let policy = wire::TrafficPolicy { connections: Some(connections), ..Default::default() };
        let said = |in_flight| {
            let backend = BackendView {
                service: "pay.demo".into(),
                port: 80,
                weight: 1,
                share_percent: 100.0,
                outcome: "sent".into(),
                text: String::new(),
                effects: Vec::new(),
                endpoints: vec![endpoint("pay-1", "closed", in_flight), endpoint("pay-2", "closed", 4)],
            };
            let caveats =
                asked(false, |it| it.bounded(&service(policy.clone()), std::slice::from_ref(&backend)));
            caveats.into_iter().map(|it| it.reason).collect::<Vec<_>>()
        };
        assert_eq!(said(3), ["connection-limit"]);
        assert_eq!(said(4), ["too-many-requests", "connection-limit"]);
    }
}
