//! What is refused, and in which words: each case is a document and every fault expected of it.

mod routes;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::resource::text::{Format, read};

fn faults_of(yaml: &str) -> Vec<String> {
    let documents = read(yaml, Format::Yaml).unwrap();
    let admitted = documents.iter().enumerate().map(|(index, written)| admit(index, written, None));
    admitted
        .filter_map(Result::err)
        .flatten()
        .map(|fault| format!("{}: {}", fault.field, fault.message))
        .collect()
}

fn admitted(yaml: &str) -> Document {
    admit(0, &read(yaml, Format::Yaml).unwrap()[0], None).unwrap()
}

fn service(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: demo}}, spec: {spec}}}")
}

fn route(rule: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: web, namespace: demo}}, spec: \
         {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{rule}]}}}}"
    )
}

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: web, namespace: demo}}, spec: \
         {{targetRefs: [{{group: '', kind: Service, name: web}}], {spec}}}}}"
    )
}

#[track_caller]
fn check(cases: &[(String, &[&str])]) {
    for (yaml, expected) in cases {
        assert_eq!(faults_of(yaml), *expected, "{yaml}");
    }
}

#[test]
fn the_envelope_is_checked() {
    check(&[
        ("just text".into(), &[": must be an object with apiVersion, kind, metadata and spec"]),
        (
            "{metadata: {name: x}}".into(),
            &["kind: is required: one of MeshConfig (pillion.dev/v1alpha1), Service (v1), ExternalService \
                 (pillion.dev/v1alpha1), HTTPRoute (gateway.networking.k8s.io/v1), GRPCRoute (gateway.networking.k8s.io/v1), TrafficPolicy (pillion.dev/v1alpha1)"],
        ),
        (
            "{kind: Pod}".into(),
            &["kind: must be one of MeshConfig (pillion.dev/v1alpha1), Service (v1), ExternalService \
                 (pillion.dev/v1alpha1), HTTPRoute (gateway.networking.k8s.io/v1), GRPCRoute (gateway.networking.k8s.io/v1), TrafficPolicy (pillion.dev/v1alpha1), is \
                 \"Pod\""],
        ),
        (
            "{kind: Service, apiVersion: v2, metadata: {name: Web_1, labels: {tier: 1}}, spce: {}}".into(),
            &[
                "spec: is required",
                "apiVersion: must be \"v1\", is \"v2\"",
                "metadata.labels.tier: must be a string, is 1",
                "spce: is not a known field; did you mean \"spec\"?",
                "metadata.name: must be 1 to 63 lower-case letters, digits or \"-\", with no \"-\" at either end, is \
                 \"Web_1\"",
            ],
        ),
    ]);
}

#[test]
fn services_are_checked() {
    check(&[
        (service("{ports: [{port: 80}], selector: {app: web}}"), &[]),
        (service("{ports: [{port: 80, targetPort: http, appProtocol: http, protocol: TCP}]}"), &[]),
        (service("{}"), &["spec.ports: is required"]),
        (service("{ports: []}"), &["spec.ports: must have at least one port"]),
        (
            service(
                "{ports: [{port: 80}, {name: a, port: 80}, {name: a, port: 0}], clusterIP: none, type: NodePort, \
                 selektor: {}}",
            ),
            &[
                "spec.selektor: is not a known field; did you mean \"selector\"?",
                "spec.type: is not supported yet",
                "spec.ports[0].name: is required where a service has several ports",
                "spec.ports[1].port: 80 is in the list already",
                "spec.ports[2].port: must be between 1 and 65535, is 0",
                "spec.ports[2].name: \"a\" is the name of another port already",
                "spec.clusterIP: must be an IPv4 address, or \"None\" for a service without one, is \"none\"",
            ],
        ),
        (
            service("{ports: [{port: 70000, targetPort: true, protocol: UDP, appProtocol: mysql}]}"),
            &[
                "spec.ports[0].port: must be at most 65535, is 70000",
                "spec.ports[0].targetPort: must be a whole number or a string, is true",
                "spec.ports[0].protocol: only TCP is supported, is \"UDP\"",
                "spec.ports[0].appProtocol: must be one of http, https, grpc, tcp, kubernetes.io/h2c, \
                 kubernetes.io/ws, is \"mysql\"",
            ],
        ),
    ]);
}

#[test]
fn external_services_are_checked() {
    let external = |spec: &str| {
        format!(
            "{{apiVersion: pillion.dev/v1alpha1, kind: ExternalService, metadata: {{name: api}}, spec: {spec}}}"
        )
    };
    let host = |host: &str| external(&format!("{{host: '{host}', ports: [{{port: 443}}]}}"));
    check(&[
        (
            external(
                "{host: api.example.com, ports: [{name: a, port: 443, targetPort: 8443, appProtocol: https}, {name: b, port: \
                 80}], clusterIP: None}",
            ),
            &[],
        ),
        (host("example.com"), &[]),
        (host("mysql"), &[]),
        (
            external("{ports: [{port: 0, targetPort: https, protocol: TCP}], clusterIP: 'fd00::1'}"),
            &[
                "spec.host: is required",
                "spec.ports[0].targetPort: must be a whole number, is the string \"https\"",
                "spec.ports[0].protocol: is not a known field",
                "spec.ports[0].port: must be between 1 and 65535, is 0",
                "spec.clusterIP: must be an IPv4 address, or \"None\" for a service without one, is \"fd00::1\"",
            ],
        ),
        (host("*.example.com"), &["spec.host: must be one name, not a wildcard, is \"*.example.com\""]),
        (host("10.0.0.1"), &["spec.host: must be a DNS name, not an address, is \"10.0.0.1\""]),
        (host("::1"), &["spec.host: must be a DNS name, not an address, is \"::1\""]),
        (host("10.0.300.1"), &["spec.host: must be a DNS name, not an address, is \"10.0.300.1\""]),
        (
            host("Example.com"),
            &[
                "spec.host: must be a DNS name: labels of 1 to 63 lower-case letters, digits or \"-\" with \".\" between \
               them, at most 253 characters, is \"Example.com\"",
            ],
        ),
        (host("localhost"), &["spec.host: must be outside the workload that calls it, is \"localhost\""]),
        (
            host("pay.shop.mesh"),
            &["spec.host: must be outside the mesh, whose names end with \".mesh\", is \"pay.shop.mesh\""],
        ),
        (
            host("pay.shop.svc.cluster.local"),
            &[
                "spec.host: must be outside the mesh, is \"pay.shop.svc.cluster.local\", the name of a Service",
            ],
        ),
    ]);
}

#[test]
fn there_is_one_mesh_config() {
    let config = |metadata: &str, spec: &str| {
        format!("{{apiVersion: pillion.dev/v1alpha1, kind: MeshConfig, metadata: {metadata}, spec: {spec}}}")
    };
    check(&[
        (config("{name: mesh}", "{}"), &[]),
        (
            config(
                "{name: mesh, namespace: pillion-system}",
                "{outbound: registryOnly, inbound: strict, serviceCidr: 10.7.0.0/16}",
            ),
            &[],
        ),
        (
            config(
                "{name: other, namespace: demo}",
                "{outbound: deny, inbound: strict, serviceCidr: 10.7.0.1/16}",
            ),
            &[
                "spec.outbound: must be one of \"allowAny\", \"registryOnly\", is the string \"deny\"",
                "metadata.name: must be \"mesh\", is \"other\": a mesh has one MeshConfig, pillion-system/mesh",
                "metadata.namespace: must be \"pillion-system\", is \"demo\": a mesh has one MeshConfig, \
                 pillion-system/mesh",
                "spec.serviceCidr: must begin with the block's first address, \"10.7.0.0/16\", is \"10.7.0.1/16\"",
            ],
        ),
    ]);
    check(&[
        (config("{name: mesh}", "{tap: {enabled: false, headers: [x-request-id, X-Tenant]}}"), &[]),
        (
            config("{name: mesh}", "{tap: {headers: [Authorization, 'a b', cookie], all: true}}"),
            &[
                "spec.tap.all: is not a known field",
                "spec.tap.headers[0]: is never shown, as it carries credentials (authorization, cookie, \
                 proxy-authorization, set-cookie)",
                "spec.tap.headers[1]: must be the name of a header (RFC 9110), is \"a b\"",
                "spec.tap.headers[2]: is never shown, as it carries credentials (authorization, cookie, \
                 proxy-authorization, set-cookie)",
            ],
        ),
    ]);
    assert_eq!(admitted(&config("{name: mesh}", "{}")).key().namespace, "pillion-system");
}

#[test]
fn a_policy_can_be_for_an_external_service_and_a_route_cannot() {
    let target = |target: &str| policy("").replace("{group: '', kind: Service, name: web}", target);
    check(&[
        (target("{group: pillion.dev, kind: ExternalService, name: api}"), &[]),
        (
            target("{group: '', kind: ExternalService, name: api}"),
            &["spec.targetRefs[0].group: must be \"pillion.dev\", the group of ExternalService, is \"\""],
        ),
        (
            target("{group: x, kind: Pod, name: api}"),
            &[
                "spec.targetRefs[0].kind: must be \"Service\" or \"ExternalService\", is \"Pod\"",
                "spec.targetRefs[0].group: must be \"\", the group of Service, or \"pillion.dev\", the group of \
                 ExternalService, is \"x\"",
            ],
        ),
        (
            route("{backendRefs: [{group: pillion.dev, kind: ExternalService, name: api, port: 80}]}"),
            &[
                "spec.rules[0].backendRefs[0].group: must be \"\", the group of Service, is \"pillion.dev\"",
                "spec.rules[0].backendRefs[0].kind: must be \"Service\", is \"ExternalService\": an ExternalService \
                 cannot be routed yet; a TrafficPolicy can be for one",
            ],
        ),
    ]);
}

#[test]
fn limits_without_effect_are_refused() {
    check(&[
        (
            policy("rateLimits: [{overrides: []}]"),
            &["spec.rateLimits[0]: must have total, perClient or overrides"],
        ),
        (policy("concurrency: {limit: 20, maxLimit: 20}"), &[]),
        (policy("concurrency: {maxLimit: 5}"), &[]),
        (
            policy("concurrency: {limit: 21, maxLimit: 20}"),
            &["spec.concurrency.limit: must not be above maxLimit, which is 20, is 21"],
        ),
        (
            policy("concurrency: {limit: 1001}"),
            &["spec.concurrency.limit: must not be above maxLimit, which is 1000, is 1001"],
        ),
        (policy("concurrency: {type: fixed, limit: 1001}"), &[]),
    ]);
}

#[test]
fn traffic_policies_are_checked() {
    check(&[
        (
            policy(
                "loadBalancer: {type: PeakEwma, decay: 10s}, circuitBreaker: {consecutiveFailures: 5, failureRatio: \
                 {percent: 50, window: 10s, minimumRequests: 10}, openTime: {base: 1s, max: 60s}, halfOpenRequests: 1, \
                 panicPercent: 50, disabled: false}, connections: {connectTimeout: 1s, idleTimeout: 60s, maxRequests: \
                 1024, maxPending: 128}, timeouts: {request: 15s}",
            ),
            &[],
        ),
        (
            policy(
                "loadBalancer: {type: Fastest, decay: soon}, circuitBreaker: {consecutiveFailures: 0, failureRatio: \
                 {percent: 101}, openTime: {base: 5s, max: 1s}}, connections: {connectTimeout: 2m, maxRequests: -1}",
            ),
            &[
                "spec.connections.maxRequests: must not be negative, is -1",
                "spec.loadBalancer.type: must be \"PeakEwma\", \"LeastRequest\", \"RoundRobin\", \"Random\", \"RingHash\" or \
                 \"Maglev\", is \"Fastest\"",
                "spec.loadBalancer.decay: must be a duration such as \"10s\", \"250ms\" or \"1h30m\", is \"soon\"",
                "spec.circuitBreaker.consecutiveFailures: must be between 1 and 1000000, is 0",
                "spec.circuitBreaker.failureRatio.percent: must be between 1 and 100, is 101",
                "spec.circuitBreaker.openTime.max: must not be less than base",
                "spec.connections.connectTimeout: must be between 1ms and 1m, is \"2m\"",
            ],
        ),
    ]);
}

#[test]
fn faults_say_which_document_and_line() {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata:\n  name: ok\nspec:\n  ports:\n  - port: 80\n---\napiVersion: \
                v1\nkind: Service\nmetadata:\n  name: bad\n  namespace: demo\nspec:\n  ports:\n  - port: 80\n    prot: 1\n";
    let documents = read(yaml, Format::Yaml).unwrap();
    assert!(admit(0, &documents[0], None).is_ok());
    let faults = admit(1, &documents[1], None).unwrap_err();
    assert_eq!(
        faults,
        [Fault {
            field: "spec.ports[0].prot".into(),
            message: "is not a known field; did you mean \"port\"?".into(),
            document: Some("Service demo/bad".into()),
            index: Some(1),
            line: Some(17),
            column: Some(11),
        }]
    );
}

#[test]
fn the_path_of_a_request_fills_in_and_binds() {
    let expected = Key::new(Kind::Service, "demo", "web");
    let bare = Written::from_value(json!({"spec": {"ports": [{"port": 80}]}, "status": {"anything": 1}}));
    let document = admit(0, &bare, Some(&expected)).unwrap();
    assert_eq!(document.key(), expected);
    assert_eq!(document.to_value()["apiVersion"], "v1");
    assert!(document.to_value().get("status").is_none());

    let other = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "b"},
                       "spec": {"ports": [{"port": 80}]}});
    let faults = admit(0, &Written::from_value(other), Some(&expected)).unwrap_err();
    let text: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
    assert_eq!(
        text,
        [
            "metadata.name: must be \"web\" as in the path, is \"a\"",
            "metadata.namespace: must be \"demo\" as in the path, is \"b\""
        ]
    );
}

#[test]
fn what_is_stored_reads_back() {
    for yaml in [
        service(
            "{ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: http}], selector: {app: x}}",
        ),
        route(
            "{matches: [{method: GET, path: {type: Exact, value: /x}}], backendRefs: [{name: v1, port: 80, weight: 0}], \
               timeouts: {request: 1s}}",
        ),
        policy("circuitBreaker: {disabled: true}"),
    ] {
        let document = admitted(&yaml);
        let stored = serde_json::to_vec(&document.to_value()).unwrap();
        assert_eq!(serde_json::from_slice::<Document>(&stored).unwrap(), document);
    }
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-zA-Z/.-]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![
            Just("ports"),
            Just("port"),
            Just("name"),
            Just("rules"),
            Just("backendRefs"),
            Just("matches"),
            Just("path"),
            Just("value"),
            Just("parentRefs"),
            Just("targetRefs"),
            Just("circuitBreaker"),
            Just("openTime"),
            Just("host"),
            Just("clusterIP"),
            Just("serviceCidr"),
            Just("outbound"),
            Just("x y"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    /// Whatever is written, the answer is a document or at least one fault, each with words.
    #[test]
    fn nothing_crashes_and_nothing_is_refused_silently(kind in 0..Kind::ALL.len(), spec in any_value()) {
        let kind = Kind::ALL[kind];
        let document = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {"name": "x"}, "spec": spec});
        match admit(0, &Written::from_value(document), None) {
            Ok(document) => prop_assert_eq!(document.kind(), kind),
            Err(faults) => {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|fault| !fault.message.is_empty()));
            }
        }
    }

    /// What is admitted is admitted again after it was shown, and is the same.
    #[test]
    fn apply_and_get_round_trip(
        ports in prop::collection::btree_map(1_u16.., (1_u16.., 0_usize..7), 1..5),
        selector in prop::collection::btree_map("[a-z]{1,8}", "[a-z0-9]{0,8}", 0..3),
    ) {
        let ports: Vec<_> = ports.iter().map(|(port, (target, protocol))| {
            let mut it = json!({"name": format!("p{port}"), "port": port, "targetPort": target});
            if let Some(protocol) = crate::resource::service::APP_PROTOCOLS.get(*protocol) {
                it["appProtocol"] = (*protocol).into();
            }
            it
        }).collect();
        let document = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "demo"},
                              "spec": {"ports": ports, "selector": selector}});
        let once = admit(0, &Written::from_value(document.clone()), None).unwrap();
        let yaml = serde_saphyr::to_string(&once.to_value()).unwrap();
        let again = admit(0, &read(&yaml, Format::Yaml).unwrap()[0], None).unwrap();
        prop_assert_eq!(&once, &again);
        prop_assert_eq!(&once.to_value()["spec"]["ports"], &document["spec"]["ports"]);
    }
}
