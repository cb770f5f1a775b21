//! Selection, and what reaches the wire.

mod changes;
mod precedence;

use prost::Message as _;

use super::*;
use crate::resource::{Document, admit, text};

fn documents(yaml: &str) -> Documents {
    let mut documents = Documents::default();
    for (index, written) in text::read(yaml, text::Format::Yaml).unwrap().iter().enumerate() {
        let mut document: Document = admit::admit(index, written, None).unwrap();
        if document.metadata().creation_timestamp.is_empty() {
            document.metadata_mut().creation_timestamp = "2026-01-01T00:00:00Z".into();
        }
        documents.insert(document);
    }
    documents
}

fn service(name: &str, ports: &str, selector: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: demo}}, spec: {{ports: {ports}, selector: \
         {selector}}}}}\n"
    )
}

fn route(name: &str, created: &str, rules: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: demo, \
         creationTimestamp: '{created}'}}, spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: {rules}}}}}\n"
    )
}

fn workload(uid: &str, namespace: &str, labels: &[(&str, &str)], ports: &[(&str, u32)]) -> Workload {
    Workload {
        hello: wire::Hello {
            instance_uid: uid.into(),
            workload: format!("{uid}-name"),
            labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ports: ports
                .iter()
                .map(|(name, port)| wire::WorkloadPort { name: (*name).into(), port: *port })
                .collect(),
            inbound_address: "127.0.0.1:15006".into(),
            health: Some(wire::Health { ready: true, ..Default::default() }),
            ..wire::Hello::default()
        },
        spiffe_id: format!("spiffe://mesh.local/ns/{namespace}/sa/{uid}"),
        namespace: namespace.into(),
    }
}

fn config(compiled: &Compiled, service: &str) -> wire::ServiceConfig {
    wire::ServiceConfig::decode(compiled[service].config.bytes.clone()).unwrap()
}

fn endpoints(compiled: &Compiled, service: &str) -> Vec<String> {
    let list = wire::EndpointList::decode(compiled[service].endpoints.bytes.clone()).unwrap();
    list.endpoints.into_iter().map(|endpoint| endpoint.uid).collect()
}

#[test]
fn filters_reach_the_wire() {
    let rules = "[{matches: [{path: {value: /a}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: \
                 ReplacePrefixMatch, replacePrefixMatch: /b}}}]}, {filters: [{type: URLRewrite, urlRewrite: {hostname: a.example}}, \
                 {type: RequestMirror, requestMirror: {backendRef: {name: m, namespace: other, port: 81}, fraction: {numerator: \
                 1, denominator: 3}}}], backendRefs: [{name: v1, port: 80, filters: [{type: ResponseHeaderModifier, \
                 responseHeaderModifier: {remove: [X-A]}}]}]}]";
    let (compiled, _) =
        compile(&documents(&(service("web", "[{port: 80}]", "{}") + &route("r", "", rules))), &[]);
    let routes = config(&compiled, "web.demo").routes;
    let redirect = routes[0].redirect.clone().unwrap();
    assert_eq!((redirect.scheme.as_str(), redirect.status, redirect.port), ("https", 302, 0));
    let change = redirect.path.unwrap().change.unwrap();
    assert_eq!(change, wire::path_change::Change::ReplacePrefix("/b".into()));
    assert_eq!(routes[1].rewrite.clone().unwrap().hostname, "a.example");
    let mirror = wire::Mirror { service: "m.other".into(), port: 81, numerator: 1, denominator: 3 };
    assert_eq!(routes[1].mirrors, [mirror]);
    assert_eq!(routes[1].backends[0].response_headers.clone().unwrap().remove, ["x-a"]);
}

#[test]
fn rules_and_matches_keep_their_order_where_nothing_else_decides() {
    let rules = "[{name: first, matches: [{path: {value: /a}}, {path: {value: /b}}]}, {matches: [{path: {value: /c}}]}]";
    let (compiled, _) =
        compile(&documents(&(service("web", "[{port: 80}]", "{}") + &route("r", "", rules))), &[]);
    let order: Vec<_> = config(&compiled, "web.demo")
        .routes
        .into_iter()
        .map(|rule| (rule.rule, rule.r#match.unwrap().path.unwrap().value))
        .collect();
    assert_eq!(
        order,
        [("first".into(), "/a".into()), ("first".into(), "/b".into()), ("1".to_owned(), "/c".to_owned())]
    );
}

#[test]
fn a_rule_carries_its_consequences() {
    let rules = "[{backendRefs: [{name: v1, port: 80, weight: 0}, {name: gone, port: 81}], timeouts: {request: 2s, \
                 backendRequest: 500ms}, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, \
                 value: b}], remove: [X-C]}}], retry: {codes: [503], attempts: 2, backoff: 1s}, sessionPersistence: {idleTimeout: \
                 1m}}]";
    let (compiled, _) =
        compile(&documents(&(service("web", "[{port: 80}]", "{}") + &route("r", "", rules))), &[]);
    let rule = config(&compiled, "web.demo").routes.remove(0);
    let backends: Vec<_> = rule.backends.iter().map(|it| (it.service.as_str(), it.port, it.weight)).collect();
    assert_eq!(
        backends,
        [("v1.demo", 80, 0), ("gone.demo", 81, 1)],
        "weight 0 and a missing backend are kept"
    );
    assert_eq!((rule.request_timeout_ms, rule.backend_request_timeout_ms), (Some(2000), Some(500)));
    let headers = rule.request_headers.unwrap();
    assert_eq!((headers.set[0].name.as_str(), headers.remove), ("x-a", vec!["x-c".to_owned()]));
    assert_eq!(rule.response_headers, None);
    assert_eq!(rule.retry, Some(wire::Retry { codes: vec![503], attempts: Some(2), backoff_ms: 1000 }));
    let session = rule.session.unwrap();
    assert!(session.name.starts_with("mesh-session-"), "{}", session.name);
    assert_eq!((session.idle_timeout_ms, session.permanent), (60_000, false));
}

#[test]
fn a_rule_that_lifts_a_limit_is_not_one_that_says_nothing() {
    let rules = "[{timeouts: {request: 0s}}, {timeouts: {backendRequest: 0s}}, {}]";
    let (compiled, _) =
        compile(&documents(&(service("web", "[{port: 80}]", "{}") + &route("r", "", rules))), &[]);
    let limits: Vec<_> = (config(&compiled, "web.demo").routes.into_iter())
        .map(|rule| (rule.request_timeout_ms, rule.backend_request_timeout_ms))
        .collect();
    assert_eq!(limits, [(Some(0), None), (None, Some(0)), (None, None)]);
}

#[test]
fn a_service_is_served_by_workloads_of_its_namespace_with_all_its_labels() {
    let documents = documents(
        &(service("web", "[{port: 80, targetPort: http}]", "{app: web, tier: front}")
            + &service("all", "[{port: 80}]", "{app: web}")
            + &service("none", "[{port: 80}]", "{}")),
    );
    let workloads = [
        workload("b", "demo", &[("app", "web"), ("tier", "front"), ("more", "x")], &[("http", 8080)]),
        workload("a", "demo", &[("app", "web")], &[("http", 9090)]),
        workload("c", "other", &[("app", "web"), ("tier", "front")], &[]),
        workload("d", "demo", &[("app", "lone")], &[]),
    ];
    let (compiled, faults) = compile(&documents, &workloads);
    assert_eq!(faults, []);
    assert_eq!(endpoints(&compiled, "web.demo"), ["b"]);
    assert_eq!(endpoints(&compiled, "all.demo"), ["a", "b"]);
    assert_eq!(endpoints(&compiled, "none.demo"), [""; 0]);
    assert_eq!(config(&compiled, "web.demo").ports[0].target_port, 8080, "a name is the workloads' number");

    assert_eq!(services_of(&workloads[0], &documents), ["all.demo", "web.demo"]);
    let source = |workload| source_of(workload, &services_of(workload, &documents));
    assert_eq!(source(&workloads[0]), "all.demo", "alphabetically the first");
    assert_eq!(source(&workloads[3]), "d-name.demo");
    assert_eq!(source(&workloads[2]), "c-name.other");
}

#[test]
fn workloads_that_disagree_on_a_named_port_are_a_fault() {
    let documents = documents(&service("web", "[{port: 80, targetPort: http}]", "{app: web}"));
    let workloads = [
        workload("a", "demo", &[("app", "web")], &[("http", 8080)]),
        workload("b", "demo", &[("app", "web")], &[("http", 9090)]),
    ];
    let (compiled, faults) = compile(&documents, &workloads);
    assert_eq!(config(&compiled, "web.demo").ports[0].target_port, 8080);
    assert_eq!(
        faults[0].to_string(),
        "Service demo/web: spec.ports[0].targetPort: workloads disagree on the number of port \"http\": {8080, 9090}; the \
         first is used"
    );
}

#[test]
fn a_named_port_that_nobody_has_leaves_a_configuration_that_sidecars_take() {
    let documents = documents(&service("web", "[{port: 80, targetPort: http}]", "{app: web}"));
    let model = |compiled: &Compiled| pillion_api::model::Service::try_from(config(compiled, "web.demo"));
    let (compiled, faults) = compile(&documents, &[]);
    assert_eq!(faults, [], "nobody is there yet");
    assert_eq!(model(&compiled).expect("taken").ports[0].target_port, 80);

    let (compiled, faults) =
        compile(&documents, &[workload("a", "demo", &[("app", "web")], &[("web", 8080)])]);
    assert!(model(&compiled).is_ok());
    assert_eq!(
        faults[0].to_string(),
        "Service demo/web: spec.ports[0].targetPort: none of its workloads has a port \"http\"; 80 is used"
    );
}

#[test]
fn the_oldest_of_two_policies_is_used_and_the_other_is_told() {
    let policy = |name: &str, created: &str, failures: u32| {
        format!(
            "---\n{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: demo, \
             creationTimestamp: '{created}'}}, spec: {{targetRefs: [{{group: '', kind: Service, name: web}}], \
             circuitBreaker: {{consecutiveFailures: {failures}, openTime: {{base: 250ms}}}}}}}}\n"
        )
    };
    let documents = documents(
        &(service("web", "[{port: 80}]", "{}")
            + &policy("a", "2026-02-01T00:00:00Z", 1)
            + &policy("b", "2026-01-01T00:00:00Z", 2)),
    );
    let (compiled, faults) = compile(&documents, &[]);
    let used = config(&compiled, "web.demo").policy.unwrap();
    assert_eq!(used.source, "demo/b");
    let breaker = used.circuit_breaker.unwrap();
    assert_eq!((breaker.consecutive_failures, breaker.base_open_ms, breaker.window_ms), (2, 250, 0));
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "TrafficPolicy demo/a: spec.targetRefs[0]: is not used: TrafficPolicy demo/b is for the same Service and older"
        ]
    );
}

#[test]
fn a_route_of_a_parent_that_is_not_there_is_a_fault_and_no_more() {
    let (compiled, faults) = compile(&documents(&route("r", "", "[{}]")), &[]);
    assert!(compiled.is_empty());
    assert_eq!(
        faults[0].to_string(),
        "HTTPRoute demo/r: spec.parentRefs[0]: is not used: there is no Service demo/web"
    );
}

#[test]
fn all_that_is_said_of_balancing_comes_out_as_it_is_meant() {
    use pillion_api::model::{Algorithm, HashOn, Hashing, LoadBalancer, Locality, RingSize, SlowStart};
    let balancer = |yaml: &str| {
        let policy = format!(
            "---\n{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: demo}}, spec: \
             {{targetRefs: [{{group: '', kind: Service, name: web}}], loadBalancer: {yaml}}}}}\n"
        );
        let documents = documents(&(service("web", "[{port: 80}]", "{app: web}") + &policy));
        let compiled = compile(&documents, &[]).0;
        let model = pillion_api::model::Service::try_from(config(&compiled, "web.demo")).unwrap();
        model.policy.load_balancer
    };
    let ten = std::time::Duration::from_secs(10);
    let on = vec![
        HashOn::Header("x-user".parse().unwrap()),
        HashOn::Cookie { name: "a".into(), ttl: None },
        HashOn::QueryParameter("q".into()),
        HashOn::Cookie { name: "sid".into(), ttl: Some(std::time::Duration::ZERO) },
    ];
    let keys = "hashOn: [{type: Header, name: X-User}, {type: Cookie, name: a}, {type: QueryParameter, name: q}, {type: \
                Cookie, name: sid, ttl: 0s}]";
    for (yaml, expected) in [
        ("{}".to_owned(), LoadBalancer::default()),
        (
            "{type: LeastRequest, slowStart: {window: 10s, minimumPercent: 20}}".to_owned(),
            LoadBalancer {
                algorithm: Algorithm::LeastRequest,
                slow_start: Some(SlowStart { window: ten, minimum: 0.2 }),
                ..LoadBalancer::default()
            },
        ),
        (
            "{type: Random, slowStart: {}, locality: {mode: PreferZone, overprovisioningPercent: 200}}"
                .to_owned(),
            LoadBalancer {
                algorithm: Algorithm::Random,
                slow_start: Some(SlowStart::default()),
                locality: Some(Locality { overprovisioning: 2.0 }),
                ..LoadBalancer::default()
            },
        ),
        (
            format!(
                "{{type: RingHash, {keys}, boundedLoadPercent: 150, ringHash: {{minimumSize: 5, maximumSize: 9}}}}"
            ),
            LoadBalancer {
                algorithm: Algorithm::RingHash(
                    Hashing { on: on.clone(), bounded_load: Some(1.5) },
                    RingSize { minimum: 5, maximum: 9 },
                ),
                ..LoadBalancer::default()
            },
        ),
        (
            format!("{{type: Maglev, {keys}, maglev: {{tableSize: 251}}, locality: {{mode: Off}}}}"),
            LoadBalancer {
                algorithm: Algorithm::Maglev(Hashing { on, bounded_load: None }, 251),
                ..LoadBalancer::default()
            },
        ),
        (
            "{type: RoundRobin, decay: 10s, locality: {mode: PreferZone}}".to_owned(),
            LoadBalancer {
                algorithm: Algorithm::RoundRobin,
                locality: Some(Locality::default()),
                ..LoadBalancer::default()
            },
        ),
    ] {
        assert_eq!(balancer(&yaml), expected, "{yaml}");
    }
}
