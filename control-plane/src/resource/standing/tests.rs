//! Whether documents' standing beside the others is told, and what whoever changes one is warned of.

use super::*;
use crate::resource::{admit, text};

fn documents(yaml: &str) -> Documents {
    let mut documents = Documents::default();
    for (index, written) in text::read(yaml, text::Format::Yaml).unwrap().iter().enumerate() {
        documents.insert(admit::admit(index, written, None).unwrap());
    }
    documents
}

fn service(name: &str, port: u16) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: {port}}}]}}}}\n"
    )
}

fn policy(name: &str, target: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}}}, spec: {{targetRefs: \
         [{{group: '', kind: Service, name: {target}}}]{more}}}}}\n"
    )
}

fn route(kind: &str, name: &str, backend: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{parentRefs: \
         [{{group: '', kind: Service, name: web}}], rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]}}}}\n"
    )
}

/// What is said where one set of documents is followed by another, and these are changed.
fn warned(before: &str, after: &str, changed: &[&Key]) -> Vec<String> {
    let changed: Vec<Key> = changed.iter().map(|key| (*key).clone()).collect();
    let own_checks = [("checked.default".to_owned(), vec!["checked-1".to_owned()])].into();
    let sidecars = FromSidecars {
        own_checks,
        callers: ["job-1.default".to_owned()].into(),
        accounts: ["default/web".to_owned()].into(),
        ..FromSidecars::default()
    };
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let warnings = warnings(&documents(before), &documents(after), &changed, sidecars, now);
    warnings
        .iter()
        .map(|it| format!("{}{it}", it.index.map(|at| format!("{at}: ")).unwrap_or_default()))
        .collect()
}

fn key(kind: &str, name: &str) -> Key {
    Key::new(super::super::Kind::from_word(kind).unwrap(), "default", name)
}

#[test]
fn a_policy_that_another_one_goes_before_is_told_when_it_is_applied() {
    let before = service("web", 80) + &policy("a", "web", "");
    let after = before.clone() + &policy("b", "web", "");
    let expected = "0: TrafficPolicy default/b: spec.targetRefs[0]: has no effect on Service default/web: TrafficPolicy \
                    default/a is for the same Service and as old, and first in the alphabet";
    assert_eq!(warned(&before, &after, &[&key("policy", "b")]), [expected]);
    // Each time, also when it was so before.
    assert_eq!(warned(&after, &after, &[&key("policy", "b")]), [expected]);
    // Others are none of its business.
    assert_eq!(warned(&after, &after, &[&key("service", "web")]), [""; 0]);
}

#[test]
fn what_a_change_does_to_others_is_told_once() {
    let before =
        service("web", 80) + &service("other", 80) + &policy("a", "other", "") + &policy("b", "web", "");
    let after = before.clone() + &policy("a", "web", "");
    let [told] = warned(&before, &after, &[&key("policy", "a")]).try_into().expect("one warning");
    assert!(told.starts_with("TrafficPolicy default/b: spec.targetRefs[0]: has no effect on"), "{told}");
    // A port goes that a route sends requests to.
    let before = service("web", 80) + &service("back", 80) + &route("HTTPRoute", "r", "back");
    let after = before.clone() + &service("back", 81);
    assert_eq!(
        warned(&before, &after, &[&key("service", "back")]),
        [
            "HTTPRoute default/r: spec.rules[0].backendRefs[0].port: Service default/back has no port 80; it has 81"
        ]
    );
    // A GRPCRoute takes what an HTTPRoute had.
    let after = before.clone() + &route("GRPCRoute", "g", "back");
    let [told] = warned(&before, &after, &[&key("grpcroute", "g")]).try_into().expect("one warning");
    assert!(
        told.starts_with("HTTPRoute default/r: spec.parentRefs[0]: has no effect: GRPCRoute default/g"),
        "{told}"
    );
}

#[test]
fn a_health_check_that_sidecars_have_of_their_own_is_told() {
    let check = ", healthCheck: {http: {path: /up}}";
    let before = service("web", 80) + &service("checked", 80);
    let after = before.clone() + &policy("a", "checked", check) + &policy("b", "web", check);
    assert_eq!(
        warned(&before, &after, &[&key("policy", "a"), &key("policy", "b")]),
        [
            "0: TrafficPolicy default/a: spec.healthCheck: is not for checked-1, of Service default/checked: --health of \
             their own goes before it"
        ]
    );
}

#[test]
fn what_a_policy_says_of_requests_that_routes_lead_elsewhere_is_told_with_where_it_belongs() {
    let more = ", fallback: {response: {}}, circuitBreaker: {}, retry: {attempts: 2}, timeouts: {request: 5s}, \
                connections: {maxRequests: 5}, rateLimits: [{total: {requests: 5}}]";
    let before = service("web", 80) + &service("back", 80) + &policy("a", "web", more);
    let after = before.clone() + &route("HTTPRoute", "r", "back");
    let expected = |field: &str, more: &str| {
        format!(
            "TrafficPolicy default/a: spec.{field}: has no effect on calls of web: HTTPRoute default/r sends them to \
             back{more}"
        )
    };
    let put = ["circuitBreaker", "fallback"].map(|field| expected(field, "; put it on that one"));
    assert_eq!(warned(&before, &after, &[&key("httproute", "r")]), put);
    // Its own policy says it, too.
    let both = after.clone() + &policy("b", "back", ", retry: {attempts: 3}");
    let told = warned(&after, &both, &[&key("policy", "b")]);
    assert_eq!(told, [expected("retry", ", whose policy says it itself")]);
    // It serves some of them.
    let own = after.clone()
        + &service("web", 80)
        + &route("HTTPRoute", "s", "web").replace("rules: [{", "rules: [{matches: [{method: GET}], ");
    assert_eq!(warned(&before, &own, &[&key("policy", "a")]), [""; 0]);
    // Nor is it said of a port that no route is for.
    let port = "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{name: a, port: 80}, {name: b, \
                port: 81, appProtocol: tcp}]}}\n";
    assert_eq!(warned(&before, &(after + port), &[&key("policy", "a")]), [""; 0]);
}

#[test]
fn faults_that_are_over_and_timeouts_that_never_come_are_told() {
    let fault = |more: &str| format!(", faults: [{{name: outage, abort: {{}}, {more}}}]");
    let past = "2020-01-01T00:00:00Z";
    let again = fault(&format!("for: 10m, until: '{past}'"));
    let before = service("web", 80);
    let after = before.clone() + &policy("a", "web", &again);
    let expected = format!(
        "0: TrafficPolicy default/a: spec.faults[0]: fault outage is over since {past}, and is not begun anew; delete the \
         policy first"
    );
    assert_eq!(warned(&after, &after, &[&key("policy", "a")]), [expected]);
    // It has the place of another one.
    let other = after.clone() + &policy("b", "web", ", timeouts: {request: 1s, attempt: 1s}");
    let [told, timeout] = warned(&after, &other, &[&key("policy", "b")]).try_into().expect("two warnings");
    assert!(told.ends_with("first in the alphabet; its only fault is over, delete it"), "{told}");
    assert_eq!(
        timeout,
        "0: TrafficPolicy default/b: spec.timeouts.attempt: has no effect: 1s is not less than timeouts.request, 1s"
    );
    let after = before.clone() + &policy("a", "web", &fault(&format!("until: '{past}'")));
    let [told] = warned(&before, &after, &[&key("policy", "a")]).try_into().expect("one warning");
    assert!(told.ends_with(&format!("spec.faults[0].until: is over, {past}: nothing is injected")), "{told}");
    let after = before.clone() + &policy("a", "web", &fault("until: '2025-01-01T00:00:00Z'"));
    assert_eq!(warned(&before, &after, &[&key("policy", "a")]), [""; 0]);
}

#[test]
fn rules_that_nothing_comes_to_or_that_lead_nowhere_are_told() {
    let services = service("web", 80) + &service("back", 80);
    let before = services.clone() + &route("HTTPRoute", "a", "back");
    let after = before.clone() + &route("HTTPRoute", "b", "back");
    assert_eq!(
        warned(&before, &after, &[&key("httproute", "b")]),
        [
            "0: HTTPRoute default/b: spec.rules[0]: is never used: HTTPRoute default/a goes before it and matches the same \
             requests"
        ]
    );
    let rules = |rules: &str| {
        route("HTTPRoute", "b", "back").replace("{backendRefs: [{name: back, port: 80}]}", rules)
    };
    let path = "{matches: [{path: {type: PathPrefix, value: /a}}], backendRefs: [{name: back, port: 80}]}";
    let one = before.clone() + &rules(path);
    assert_eq!(warned(&before, &one, &[&key("httproute", "b")]), [""; 0]);
    let twice = services.clone() + &rules(&format!("{path}, {path}"));
    let [told] = warned(&services, &twice, &[&key("httproute", "b")]).try_into().expect("one warning");
    assert!(
        told.ends_with("spec.rules[1]: is never used: rules before it match the same requests"),
        "{told}"
    );
    let zero = services.clone() + &rules("{backendRefs: [{name: back, port: 80, weight: 0}]}");
    let [told] = warned(&services, &zero, &[&key("httproute", "b")]).try_into().expect("one warning");
    assert!(told.contains("spec.rules[0].backendRefs: have weight 0, all of them"), "{told}");
}

#[test]
fn callers_and_clients_that_nobody_knows_are_told() {
    let more = ", faults: [{abort: {}, until: '2025-01-01T00:00:00Z', callers: [{service: web}, {service: job-1}, \
                {service: wbe}, {namespace: default}, {namespace: other}]}], rateLimits: [{total: {requests: 5}, overrides: \
                [{client: {serviceAccount: web}, rate: {requests: 1}}, {client: {serviceAccount: wbe}, rate: {requests: 1}}, \
                {client: {namespace: other}, rate: {requests: 1}}]}]";
    let before = service("web", 80);
    let after = before.clone() + &policy("a", "web", more);
    let own = "0: TrafficPolicy default/a: spec.";
    assert_eq!(
        warned(&before, &after, &[&key("policy", "a")]),
        [
            "faults[0].callers[2]: is nobody known now: there is neither a Service nor a workload wbe.default",
            "faults[0].callers[4]: is nobody known now: there is nothing in namespace other",
            "rateLimits[0].overrides[1].client: is nobody known now: no sidecar has service account wbe in namespace \
             default",
            "rateLimits[0].overrides[2].client: is nobody known now: no sidecar is in namespace other",
        ]
        .map(|it| format!("{own}{it}"))
    );
}
