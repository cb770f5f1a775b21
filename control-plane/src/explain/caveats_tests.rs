//! What is told of faults, limits and breakers, and what not.

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
    ask(&Circumstances { head, rule: None, opaque, now, clients: &clients })
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
    let abort = |fault, percent: u32| wire::InjectedFault {
        abort_status: 503,
        abort_per_million: percent * 10_000,
        ..fault
    };
    let delay = |fault, percent: u32| wire::InjectedFault {
        delay_ms: 200,
        delay_per_million: percent * 10_000,
        ..fault
    };
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
    let (said, certain) =
        asked(false, |it| (it.faulty(&pay, it.head), it.certain_fault(&pay, it.head, None)));
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
    assert_eq!((said[0].reason.as_str(), said[0].percent), ("", Some(50.0)));
    assert_eq!((said[1].reason.as_str(), said[1].percent), ("fault-injected", Some(30.0)));
    assert_eq!(certain, None, "the others get through");
    assert_eq!(asked(true, |it| it.faulty(&pay, it.head).len()), 0, "bytes are let pass");

    let certain = |fault, timeout: Option<u64>| {
        let pay = service(wire::TrafficPolicy { faults: vec![fault], ..Default::default() });
        asked(false, |it| it.certain_fault(&pay, it.head, timeout.map(Duration::from_millis)))
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
        ..Default::default()
    };
    let rate_limits = vec![limit("all", None), limit("slow", Some("/slow")), limit("fast", Some("/fast"))];
    let concurrency = Some(wire::Concurrency::default());
    let pay = service(wire::TrafficPolicy { rate_limits, concurrency, ..Default::default() });
    let own = [pay.clone()];
    let said = asked(false, |it| it.held(&own, &pay, 8080, it.head));
    let reasons: Vec<&str> = said.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["rate-limited", "rate-limited", "rate-limited", "rate-limited", "overloaded"]);
    assert_eq!(
        said[1].text,
        "limit all of TrafficPolicy demo/pay: each workload takes 10 requests per 1s (5 at once) of the client web-1.demo and \
         200 requests per 1s (5 at once) of all clients together; more are refused with 429"
    );
    assert!(said[0].text.contains("takes 1 requests per 1s (5 at once) of the client job-1.demo"));
    assert!(said[2].text.starts_with("limit slow of"), "{said:#?}");
    assert_eq!(asked(true, |it| it.held(&own, &pay, 8080, it.head).len()), 2, "what is for every request");
    assert_eq!(asked(false, |it| it.held(&own, &pay, 9090, it.head).len()), 0, "another port");

    // Another service of the same workload says what the one that is called leaves open.
    let quiet = wire::ServiceConfig {
        service: "pay-v1.demo".into(),
        ports: vec![wire::ServicePort { port: 80, target_port: 8080, ..Default::default() }],
        ..Default::default()
    };
    let quiet = model::Service::try_from(quiet).expect("a valid configuration");
    let both = [pay, quiet.clone()];
    assert_eq!(asked(false, |it| it.held(&both, &quiet, 8080, it.head).len()), 5);
    assert_eq!(asked(false, |it| it.held(std::slice::from_ref(&quiet), &quiet, 8080, it.head).len()), 0);
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
    let circuit_breaker =
        |panic| wire::CircuitBreaker { max_ejected_percent: 50, panic_percent: panic, ..Default::default() };
    let ejected = "circuitBreaker.maxEjectedPercent of TrafficPolicy demo/pay: ";
    for (panic, states, expected) in [
        (None, &["closed", "closed"][..], None),
        (None, &["open", "closed"], Some(ejected)),
        (Some(0), &["open", "half-open", "closed", "closed"], Some(ejected)),
        (Some(0), &["open", "closed", "closed", "closed"], None),
        (
            Some(80),
            &["open", "closed", "closed"],
            Some("circuitBreaker.panicPercent of TrafficPolicy demo/pay: "),
        ),
        // Of which the policy says nothing.
        (None, &["open", "open", "closed"], Some("circuitBreaker.panicPercent: ")),
        (Some(0), &["closed"], Some(ejected)),
    ] {
        let policy = wire::TrafficPolicy {
            source: "demo/pay".into(),
            circuit_breaker: Some(circuit_breaker(panic)),
            ..Default::default()
        };
        let endpoints: Vec<_> = states.iter().map(|state| endpoint("pay-1", state, 0)).collect();
        let said = breakers(&service(policy), &endpoints, &[client("web-1", "web.demo")]);
        let found = said.first().map(|it| it.text.as_str());
        assert_eq!(found.is_some(), expected.is_some(), "{states:?}: {found:?}");
        let field = expected.is_none_or(|field| found.is_some_and(|text| text.starts_with(field)));
        assert!(field, "{states:?}: {found:?}");
    }
}

#[test]
fn bounds_are_told_when_they_are_near() {
    let said = |max_requests, in_flight| {
        let connections = wire::Connections { max_requests, max_connections: 3, ..Default::default() };
        let policy = wire::TrafficPolicy {
            source: "demo/pay".into(),
            connections: Some(connections),
            ..Default::default()
        };
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
        let caveats = asked(false, |it| it.bounded(&service(policy.clone()), std::slice::from_ref(&backend)));
        caveats.into_iter().map(|it| (it.reason, it.text)).unzip::<_, _, Vec<_>, Vec<_>>()
    };
    assert_eq!(said(10, 3).0, ["connection-limit"]);
    let (reasons, texts) = said(10, 4);
    assert_eq!(reasons, ["too-many-requests", "connection-limit"]);
    assert!(texts[0].starts_with("connections.maxRequests of TrafficPolicy demo/pay: 8"), "{texts:?}");
    // The policy has no word of its own.
    let (_, texts) = said(0, 1000);
    assert!(texts[0].starts_with("connections.maxRequests by default: 1004"), "{texts:?}");
}

#[test]
fn what_another_service_is_sent_is_what_its_faults_and_limits_are_for() {
    let change = Some(wire::path_change::Change::ReplaceFull("/quick".into()));
    let rewrite = wire::Rewrite { path: Some(wire::PathChange { change }), ..Default::default() };
    let rule = wire::RouteRule { rewrite: Some(rewrite), ..Default::default() };
    let config =
        wire::ServiceConfig { service: "shop.demo".into(), routes: vec![rule], ..Default::default() };
    let shop = model::Service::try_from(config).expect("a valid configuration");
    let backend = BackendView {
        service: "pay.demo".into(),
        port: 80,
        weight: 1,
        share_percent: 100.0,
        outcome: "sent".into(),
        text: String::new(),
        effects: Vec::new(),
        endpoints: Vec::new(),
    };
    asked(false, |it| {
        let Circumstances { head, now, clients, .. } = *it;
        let routed = Circumstances { head, rule: shop.routes.first(), opaque: false, now, clients };
        assert_eq!(it.changed(&backend).uri(), "/slow/x");
        assert_eq!(routed.changed(&backend).uri(), "/quick");
    });
    let fault =
        wire::InjectedFault { abort_status: 503, abort_per_million: 1_000_000, ..fault("f", 3600, "/quick") };
    let pay = service(wire::TrafficPolicy { faults: vec![fault], ..Default::default() });
    asked(false, |it| {
        let Circumstances { head, now, clients, .. } = *it;
        let routed = Circumstances { head, rule: shop.routes.first(), opaque: false, now, clients };
        let mut backends = [backend.clone()];
        routed.come_between(&shop, &mut backends, std::slice::from_ref(&pay), false, None, &|_| Vec::new());
        assert_eq!(backends[0].outcome, "fault-injected");
    });
}
