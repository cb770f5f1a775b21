//! Precedence, selection, versions, and that changes add up.

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

/// A route's name, when it was made, and its match.
type Written = (&'static str, &'static str, &'static str);

/// Each row: two rules as (route, when it was made, match); the first must win over the second.
#[test]
fn precedence_is_that_of_the_gateway_api() {
    let old = "2026-01-01T00:00:00Z";
    let new = "2026-02-01T00:00:00Z";
    let cases: [(Written, Written, &str); 12] = [
        (
            ("z", new, "{path: {type: Exact, value: /a}}"),
            ("a", old, "{path: {value: /a/longer}, method: GET}"),
            "exact path",
        ),
        (
            ("z", new, "{path: {value: /abc}}"),
            ("a", old, "{path: {value: /ab}, method: GET}"),
            "longest prefix",
        ),
        (
            ("z", new, "{path: {type: RegularExpression, value: '/v[0-9]+'}}"),
            ("a", old, "{path: {value: /v1}, method: GET}"),
            "a regular expression before prefixes",
        ),
        (
            ("z", new, "{path: {type: RegularExpression, value: '/v[0-9]+'}}"),
            ("a", old, "{}"),
            "a regular expression before what fits everything",
        ),
        (
            ("z", new, "{path: {type: Exact, value: /v1}}"),
            ("a", old, "{path: {type: RegularExpression, value: '/v[0-9]+'}, method: GET}"),
            "an exact path before regular expressions",
        ),
        (
            ("z", new, "{method: GET}"),
            ("a", old, "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}"),
            "method before headers",
        ),
        (
            ("z", new, "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}"),
            ("a", old, "{headers: [{name: x, value: '1'}], queryParams: [{name: q, value: '1'}]}"),
            "more headers",
        ),
        (
            ("z", new, "{queryParams: [{name: q, value: '1'}, {name: r, value: '1'}]}"),
            ("a", old, "{queryParams: [{name: q, value: '1'}]}"),
            "more query parameters",
        ),
        (("z", old, "{path: {value: /ab}}"), ("a", new, "{path: {value: /cd}}"), "the oldest route"),
        (("a", old, "{path: {value: /ab}}"), ("z", old, "{path: {value: /cd}}"), "the alphabetically first"),
        (
            ("a", old, "{path: {value: /ab/}}"),
            ("z", old, "{path: {value: /abc}}"),
            "a trailing slash counts for nothing",
        ),
        (("a", old, "{}"), ("z", old, "{path: {value: /}}"), "no match is a prefix of /"),
    ];
    for (winner, loser, why) in cases {
        // The one exception to "the first row wins": the longer prefix in the row about trailing slashes.
        let expected = if why.starts_with("a trailing slash") { loser.0 } else { winner.0 };
        for order in [[winner, loser], [loser, winner]] {
            let routes: String = order
                .iter()
                .map(|(name, created, one)| route(name, created, &format!("[{{matches: [{one}]}}]")))
                .collect();
            let (compiled, faults) =
                compile(&documents(&(service("web", "[{port: 80}]", "{}") + &routes)), &[]);
            assert_eq!(faults, []);
            let rules = config(&compiled, "web.demo").routes;
            assert_eq!(rules.len(), 2, "{why}");
            assert_eq!(rules[0].route, format!("demo/{expected}"), "{why}");
        }
    }
}

/// Each row: two matches of a GRPCRoute; the first must win over the second, which is of the older route.
#[test]
fn precedence_of_grpc_is_that_of_the_gateway_api() {
    let cases = [
        (
            "{method: {service: aa.B}}",
            "{method: {service: a.B, method: LongName}}",
            "characters of a service",
        ),
        ("{method: {service: a.B, method: Get}}", "{method: {service: a.B}}", "characters of a method"),
        ("{method: {method: Get}}", "{headers: [{name: x, value: '1'}]}", "a method before headers"),
        (
            "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}",
            "{headers: [{name: x, value: '1'}]}",
            "more headers",
        ),
        (
            "{method: {method: Get}}",
            "{method: {type: RegularExpression, service: 'long.+'}}",
            "exact names before expressions",
        ),
        ("{method: {type: RegularExpression, method: 'G.*'}}", "{}", "an expression before anything"),
    ];
    for (winner, loser, why) in cases {
        let grpc = |name: &str, created: &str, one: &str| {
            route(name, created, &format!("[{{matches: [{one}]}}]")).replace("HTTPRoute", "GRPCRoute")
        };
        let routes = grpc("z", "2026-02-01T00:00:00Z", winner) + &grpc("a", "2026-01-01T00:00:00Z", loser);
        let (compiled, faults) = compile(&documents(&(service("web", "[{port: 80}]", "{}") + &routes)), &[]);
        assert_eq!(faults, []);
        let rules = config(&compiled, "web.demo").routes;
        assert_eq!(rules[0].route, "demo/z", "{why}");
        assert!(rules.iter().all(|rule| rule.grpc), "{why}");
    }
}

#[test]
fn grpc_methods_are_paths() {
    use wire::string_match::Type::{Exact, PathPrefix, RegularExpression};
    for (method, expected) in [
        ("{service: a.B, method: Get}", (Exact, "/a.B/Get")),
        ("{service: a.B}", (PathPrefix, "/a.B")),
        ("{method: Get}", (RegularExpression, "/(?:[^/]+)/(?:Get)")),
        ("{type: RegularExpression, service: 'a|b'}", (RegularExpression, "/(?:a|b)/(?:[^/]+)")),
    ] {
        let rules = format!("[{{matches: [{{method: {method}}}]}}]");
        let grpc = route("r", "", &rules).replace("HTTPRoute", "GRPCRoute");
        let (compiled, _) = compile(&documents(&(service("web", "[{port: 80}]", "{}") + &grpc)), &[]);
        let rule = config(&compiled, "web.demo").routes.remove(0);
        let path = rule.r#match.unwrap().path.unwrap();
        assert_eq!((path.r#type(), path.value.as_str()), expected, "{method}");
    }
}

#[test]
fn consumers_go_first_and_grpc_takes_its_port() {
    let route_of = |kind: &str, name: &str, namespace: &str, more: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{parentRefs: [{{group: '', kind: Service, name: web, namespace: demo{more}}}], rules: [{{backendRefs: [{{name: \
             v1, port: 80}}]}}]}}}}\n"
        )
    };
    let text = service("web", "[{name: a, port: 80}, {name: b, port: 81}]", "{}")
        + &route_of("HTTPRoute", "producer", "demo", "")
        + &route_of("GRPCRoute", "grpc", "demo", ", port: 80")
        + &route_of("HTTPRoute", "loser", "demo", ", port: 80")
        + &route_of("HTTPRoute", "consumer", "other", "");
    let (compiled, faults) = compile(&documents(&text), &[]);
    let told: Vec<_> = config(&compiled, "web.demo")
        .routes
        .into_iter()
        .map(|rule| (rule.route, rule.parent_port, rule.consumer_namespace, rule.backends[0].service.clone()))
        .collect();
    let expected = [
        ("other/consumer", 0, "other", "v1.other"),
        ("demo/grpc", 80, "", "v1.demo"),
        ("demo/producer", 81, "", "v1.demo"),
    ];
    let mut told: Vec<_> =
        told.iter().map(|(route, port, of, to)| (route.as_str(), *port, of.as_str(), to.as_str())).collect();
    assert_eq!(told[0], expected[0], "consumers first");
    told.sort_unstable_by_key(|it| std::cmp::Reverse(it.2));
    told[1..].sort_unstable();
    assert_eq!(told, expected);
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "HTTPRoute demo/loser: spec.parentRefs[0]: is not used: GRPCRoute demo/grpc is for the same port of Service demo/web, \
          and a GRPCRoute goes before an HTTPRoute",
            "HTTPRoute demo/producer: spec.parentRefs[0]: not for port 80 of Service demo/web, which GRPCRoute demo/grpc has: a \
          GRPCRoute goes before an HTTPRoute"
        ]
    );
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
fn equal_input_gives_equal_versions_and_only_what_changed_changes() {
    let documents =
        documents(&(service("a", "[{port: 80}]", "{app: a}") + &service("b", "[{port: 80}]", "{app: b}")));
    let labels: Vec<(String, String)> = (0..20).map(|number| (format!("l{number}"), "x".into())).collect();
    let mut labels: Vec<(&str, &str)> =
        labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    labels.push(("app", "a"));
    let one = workload("1", "demo", &labels, &[]);
    let two = workload("2", "demo", &[("app", "a")], &[]);
    let (first, _) = compile(&documents, &[one.clone(), two.clone()]);
    let (second, _) = compile(&documents, &[two.clone(), one.clone()]);
    assert_eq!(first, second, "the order of workloads means nothing");

    let (third, _) = compile(&documents, &[one]);
    assert_eq!(first["a.demo"].config, third["a.demo"].config);
    assert_ne!(first["a.demo"].endpoints.version, third["a.demo"].endpoints.version);
    assert_eq!(first["b.demo"], third["b.demo"]);
    assert_eq!(first["a.demo"].config.version.len(), 16);
}

/// What a subscriber of everything would know.
#[derive(Debug, Default, PartialEq)]
struct Told {
    services: Compiled,
    memberships: BTreeMap<String, Arc<[Name]>>,
}

impl Told {
    fn take(&mut self, changed: Changed) {
        for (name, service) in changed.services {
            match service {
                Some(service) => drop(self.services.insert(name, service)),
                None => drop(self.services.remove(&name).expect("it was there")),
            }
        }
        for (uid, services) in changed.memberships {
            if services.is_empty() {
                self.memberships.remove(&uid);
            } else {
                self.memberships.insert(uid, services);
            }
        }
    }
}

/// Three sets of documents that differ in selectors, named ports and routes.
fn some_documents() -> [Documents; 3] {
    let a = service("a", "[{port: 80, targetPort: http}]", "{app: a}");
    let b = service("b", "[{port: 80}]", "{app: b, tier: x}");
    let all = service("all-of-it", "[{port: 81, targetPort: http}]", "{tier: x}");
    let web =
        service("web", "[{port: 80}]", "{}") + &route("r", "", "[{backendRefs: [{name: a, port: 80}]}]");
    [
        documents(&(a.clone() + &b)),
        documents(&(a + &all + &web)),
        documents(&(service("a", "[{port: 90}]", "{tier: x}") + &b + &all)),
    ]
}

proptest::proptest! {
    /// Whatever happens in whatever order: what was told change by change is what compiling from nothing gives.
    #[test]
    fn changes_add_up_to_what_compiling_everything_gives(
        steps in proptest::collection::vec((0..8_usize, 0..3_usize, 0..2_usize, 0..2_u32, proptest::bool::weighted(0.8)), 1..40)
    ) {
        let documents = some_documents();
        let mut now = 0;
        let mut workloads: BTreeMap<String, Workload> = BTreeMap::new();
        let mut assembly = Assembly::new(&documents[now], []);
        let mut told = Told::default();
        told.take(assembly.everything());
        for (number, app, tier, port, there) in steps {
            let uid = format!("w{number}");
            let labels = [("app", ["a", "b", "c"][app]), ("tier", ["x", "y"][tier])];
            let workload = workload(&uid, "demo", &labels, &[("http", 8080 + port)]);
            let member = there.then(|| Arc::new(workload.clone()));
            if there {
                workloads.insert(uid.clone(), workload);
            } else {
                workloads.remove(&uid);
            }
            // Now and then the documents change along with it.
            let changed = if number == 0 {
                now = app;
                assembly.replace(&documents[now], [(uid, member)])
            } else {
                assembly.change([(uid, member)])
            };
            told.take(changed);

            let all: Vec<Workload> = workloads.values().cloned().collect();
            let (compiled, faults) = compile(&documents[now], &all);
            proptest::prop_assert_eq!(&told.services, &compiled);
            proptest::prop_assert_eq!(assembly.faults(), faults);
            let serving: BTreeMap<String, Arc<[Name]>> = all
                .iter()
                .filter_map(|workload| {
                    let mut services: Vec<Name> = compiled
                        .keys()
                        .filter(|name| endpoints(&compiled, name).contains(&workload.hello.instance_uid))
                        .cloned()
                        .collect();
                    services.sort_by_key(|name| name.split('.').next().map(str::to_owned));
                    (!services.is_empty()).then(|| (workload.hello.instance_uid.clone(), services.into()))
                })
                .collect();
            proptest::prop_assert_eq!(&told.memberships, &serving);
        }
    }
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

#[test]
fn a_change_touches_its_own_services_and_says_nothing_where_nothing_is_new() {
    let documents =
        documents(&(service("a", "[{port: 80}]", "{app: a}") + &service("b", "[{port: 80}]", "{app: b}")));
    let one = Arc::new(workload("1", "demo", &[("app", "a")], &[]));
    let mut assembly = Assembly::new(&documents, [Arc::clone(&one)]);
    let before = assembly.everything();
    assert_eq!(assembly.change([("1".to_owned(), Some(Arc::clone(&one)))]), Changed::default());

    let mut unready = (*one).clone();
    unready.hello.health = Some(wire::Health { reason: "slow".into(), ..Default::default() });
    let changed = assembly.change([("1".to_owned(), Some(Arc::new(unready.clone())))]);
    assert_eq!(changed.services.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a.demo"]);
    assert_eq!(changed.memberships, [], "it serves the same services");
    // Others are told whether it is ready, not why.
    unready.hello.health = Some(wire::Health { reason: "slower".into(), ..Default::default() });
    assert_eq!(assembly.change([("1".to_owned(), Some(Arc::new(unready)))]), Changed::default());

    assembly.change([("1".to_owned(), Some(one))]);
    assert_eq!(assembly.everything(), before);
    assert_eq!(assembly.replace(&documents, []), Changed::default(), "the same documents are no news");
}
