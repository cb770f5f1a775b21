//! Tests by table, against files of what must come out, and by property.

use std::path::Path;

use proptest::prelude::*;

use super::{Injected, Node, Options, inject, text, uninject};

/// Set to write the files of what comes out anew, to be read before they are committed.
const UPDATE: &str = "PILLION_UPDATE_TESTDATA";

fn documents(text: &str) -> Vec<Node> {
    text::read(text).expect("YAML")
}

fn with_control_plane() -> Options {
    Options {
        proxy_image: "proxy:1".into(),
        redirect_image: "redirect:1".into(),
        control_plane_image: "control-plane:1".into(),
        with_control_plane: true,
        ..Options::default()
    }
}

fn elsewhere() -> Options {
    Options {
        control_plane: Some("control.example:15010".into()),
        join_token_file: Some("tokens/{service}".into()),
        with_control_plane: false,
        ..with_control_plane()
    }
}

fn faults(text: &str, options: &Options) -> Vec<String> {
    match inject(documents(text), options) {
        Ok(injected) => panic!("expected faults, not {}", text::write(&injected.documents)),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

fn injected(text: &str, options: &Options) -> Injected {
    inject(documents(text), options).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

#[expect(clippy::disallowed_methods, reason = "an order to the test, not a setting of the product")]
fn compare(file: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inject/testdata").join(file);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, text).expect("the folder is there");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == expected, "{} is another:\n{text}", file.display());
}

#[test]
fn kubernetes_manifests() {
    let before = include_str!("testdata/kubernetes.yaml");
    // Kubernetes' options are what is left where nothing is said.
    let options = Options { with_control_plane: false, ..with_control_plane() };
    let result = injected(before, &options);
    compare("kubernetes.injected.yaml", &text::write(&result.documents));
    assert_eq!(
        result.notes,
        [
            "Deployment shop/web: terminationGracePeriodSeconds is now 45, so that pillion.dev/drain-timeout fits in it",
            "Pod agent: not injected: with hostNetwork, redirecting its traffic would redirect the node's",
            "Pod plain: not injected: pillion.dev/inject is disabled",
        ]
    );
    assert_eq!(uninject(result.documents).expect("ours"), documents(before));
}

#[test]
fn compose_files() {
    let before = include_str!("testdata/compose.yaml");
    let result = injected(before, &with_control_plane());
    compare("compose.injected.yaml", &text::write(&result.documents));
    assert_eq!(
        result.notes,
        [
            "debug: not injected: it shares the network of \"web\", and its sidecar if that has one",
            "backup: not injected: pillion.dev/inject is disabled",
        ]
    );
    assert_eq!(uninject(result.documents).expect("ours"), documents(before));
    let elsewhere = injected(before, &elsewhere());
    compare("compose.elsewhere.yaml", &text::write(&elsewhere.documents));
    compare("compose.services.yaml", &text::write(&elsewhere.services));
}

#[test]
fn what_is_injected_again_is_as_if_it_were_once() {
    for (before, options) in [
        (include_str!("testdata/kubernetes.yaml"), elsewhere()),
        (include_str!("testdata/compose.yaml"), with_control_plane()),
        (include_str!("testdata/compose.yaml"), elsewhere()),
    ] {
        let once = injected(before, &options).documents;
        let written = text::write(&once);
        assert_eq!(documents(&written), once, "what is written says the same");
        let twice = inject(once.clone(), &options).expect("no faults");
        assert_eq!(twice.documents, once);
        // Another version, or other options, replace what there was.
        let newer = Options { proxy_image: "proxy:2".into(), ..options.clone() };
        assert_eq!(inject(once, &newer).expect("no faults").documents, injected(before, &newer).documents);
    }
}

#[test]
fn a_pods_own_annotations_for_collectors_stay() {
    let own = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {prometheus.io/scrape: 'true', prometheus.io/port: '9090'}}\n\
               spec: {containers: [{name: a}]}\n";
    let result = injected(own, &elsewhere());
    assert!(result.notes.iter().any(|note| note.contains("the port pillion-admin")), "{:?}", result.notes);
    let annotations = result.documents[0].at(&["metadata", "annotations"]).expect("they are there");
    assert_eq!(annotations.get("prometheus.io/port").and_then(Node::text), Some("9090"));
    assert_eq!(annotations.get("prometheus.io/path"), None);
    assert_eq!(uninject(result.documents).expect("ours"), documents(own));

    let plain = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n";
    let mut injected = injected(plain, &elsewhere()).documents;
    let annotations =
        injected[0].at_mut(&["metadata", "annotations"]).and_then(Node::object_mut).expect("ours");
    assert_eq!(annotations.get("prometheus.io/port").and_then(Node::text), Some("15020"));
    // Somebody else's word goes before ours.
    annotations.set("prometheus.io/path", "/other");
    let left = uninject(injected).expect("ours");
    let annotations = left[0].at(&["metadata", "annotations"]).and_then(Node::object).expect("one is left");
    assert_eq!(annotations.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["prometheus.io/path"]);
}

#[test]
fn what_is_no_workload_stays_as_it_is() {
    for text in [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: null}\n",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: {template: {spec: {containers: []}}}\n",
        "apiVersion: example.com/v1\nkind: Deployment\nmetadata: {name: a}\n",
        "just text\n",
        "- 1\n- 2\n",
        "version: \"3\"\n",
    ] {
        let before = documents(text);
        assert_eq!(inject(before.clone(), &elsewhere()).expect("no faults").documents, before, "{text}");
        assert_eq!(uninject(before.clone()).expect("no faults"), before, "{text}");
    }
}

#[test]
fn every_fault_of_a_manifest_at_once() {
    let text = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop, annotations: {pillion.dev/inject: disabled}}
spec:
  template:
    metadata: {annotations: {pillion.dev/injekt: enabled, pillion.dev/plaintext-ports: 0}}
    spec:
      securityContext: {runAsUser: 15000}
      containers:
      - {name: pillion-proxy, ports: [{containerPort: 15006}, {containerPort: 0, name: much-too-long-a-name}]}
      - {name: a, readinessProbe: {httpGet: {port: nowhere}}, livenessProbe: {httpGet: {port: 80, path: '/a,b'}}}
      volumes: [{name: pillion-token}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: empty}
---
apiVersion: v1
kind: Pod
metadata: {name: odd, annotations: [1]}
spec: {containers: {a: 1}, volumes: [x]}
---
apiVersion: v1
kind: Pod
metadata: {name: labelled, labels: {app: a b, 'a,b': c, d: 1}}
spec: {containers: [{name: a}]}
";
    let found = faults(text, &elsewhere());
    let expected = [
        "StatefulSet shop/db: metadata.annotations[\"pillion.dev/inject\"]: does nothing here",
        "StatefulSet shop/db: spec.template.metadata.annotations[\"pillion.dev/injekt\"]: is not known; there are inject,",
        "StatefulSet shop/db: spec.template.metadata.annotations[\"pillion.dev/plaintext-ports\"]: must be a text",
        "StatefulSet shop/db: spec.template.spec.securityContext.runAsUser: 15000 is the sidecar's user",
        "StatefulSet shop/db: spec.template.spec.containers[0].name: \"pillion-proxy\" is the name",
        "StatefulSet shop/db: spec.template.spec.containers[0].ports[0].containerPort: 15006 is a port of the sidecar's",
        "StatefulSet shop/db: spec.template.spec.containers[0].ports[1].name: must be the name of a port",
        "StatefulSet shop/db: spec.template.spec.containers[0].ports[1].containerPort: must be a number",
        "StatefulSet shop/db: spec.template.spec.containers[1].livenessProbe.httpGet.path: cannot be exempted",
        "StatefulSet shop/db: spec.template.spec.containers[1].readinessProbe.httpGet.port: must be a port's number",
        "StatefulSet shop/db: spec.template.spec.volumes[0].name: \"pillion-token\" is the name",
        "Job empty: spec.template.spec: is missing",
        "Pod odd: metadata.annotations: must be an object",
        "Pod odd: spec.containers: must be a list of objects",
        "Pod odd: spec.volumes: must be a list of objects",
        "Pod labelled: metadata.labels.app: the value must be",
        "Pod labelled: metadata.labels[\"a,b\"]: the key must be",
        "Pod labelled: metadata.labels.d: must be a text",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (fault, start) in found.iter().zip(expected) {
        assert!(fault.starts_with(start), "{fault}\nis not\n{start}");
    }
}

#[test]
fn every_fault_of_a_compose_file_at_once() {
    let text = "
volumes: {web-pillion-token: {}, pillion-data: {}, other: {}}
services:
  web: {image: a, ports: ['80:x', '80:15020'], deploy: {replicas: 2}, labels: {pillion.dev/log: debug}}
  WEB: {image: a, networks: 1, user: '15000', extends: {service: web}}
  web-pillion: {image: a, expose: [80], labels: {pillion.dev/inject: disabled}}
  pillion: {image: a, network_mode: host}
  bad name: {image: a}
  nothing:
";
    let found = faults(text, &with_control_plane());
    let expected = [
        "services.web.labels[\"pillion.dev/log\"]: is not known",
        "services.web.deploy.replicas: Compose cannot",
        "services.web.ports[0]: is not understood",
        "services.web.ports[1]: 15020 is a port of the sidecar's",
        "services.WEB.extends: hides",
        "services.WEB.user: 15000 is the sidecar's user",
        "services.WEB.networks: must be a list or an object",
        "services.nothing: must be an object",
        "services.web-pillion: is a name",
        "services.WEB: is \"web\" to the mesh, as \"web\" is",
        "services[\"bad name\"]: cannot be a service of the mesh",
        "services.pillion: is a name that the control plane takes",
        "volumes.pillion-data: is a name that",
        "volumes.web-pillion-token: is a name that",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (fault, start) in found.iter().zip(expected) {
        assert!(fault.starts_with(start), "{fault}\nis not\n{start}");
    }
    let unsaid = faults("services: {a: {image: a}}", &Options::default());
    assert_eq!(unsaid.len(), 2, "how it joins, and whom: {unsaid:?}");
}

/// Who has another's token can become that service.
#[test]
fn a_sidecar_sees_no_token_but_its_own() {
    let result = injected(include_str!("testdata/compose.yaml"), &with_control_plane()).documents.remove(0);
    let services = result.get("services").and_then(Node::object).expect("services");
    for service in ["web", "cart", "data_base"] {
        let volume = format!("{service}-pillion-token");
        let seeing: Vec<&str> = services
            .iter()
            .filter(|(_, it)| {
                let mounts = it.get("volumes").map(Node::items).unwrap_or_default();
                mounts.iter().filter_map(Node::text).any(|mount| mount.starts_with(&format!("{volume}:")))
            })
            .map(|(name, _)| name)
            .collect();
        assert_eq!(seeing, ["pillion-join", &format!("{service}-pillion")]);
    }
}

#[test]
fn containers_of_a_pod_may_name_their_ports_alike() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, ports: [{containerPort: 80, name: \
                http}]}, {name: b, ports: [{containerPort: 81, name: http}]}]}\n";
    let result = injected(text, &elsewhere());
    assert_eq!(result.notes, ["Pod a: port 81 goes without its name: \"http\" is that of port 80"]);
    let sidecar = &result.documents[0].at(&["spec", "initContainers"]).expect("ours").items()[1];
    let told = sidecar.get("env").expect("settings").items();
    let ports = told.iter().find(|it| it.get("name").and_then(Node::text) == Some("PILLION_PORTS"));
    assert_eq!(ports.and_then(|it| it.get("value")?.text()), Some("80:http,81"));
}

#[test]
fn an_injection_that_somebody_has_changed_is_told() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {pillion.dev/injected: 'yes?'}}\nspec: {}\n";
    assert_eq!(uninject(documents(pod)).expect_err("not ours").len(), 1);
    let compose = "services: {a: {image: a, x-pillion: 1}}\n";
    assert_eq!(uninject(documents(compose)).expect_err("not ours").len(), 1);
}

#[test]
fn what_was_added_after_an_injection_stays() {
    let before = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n";
    let mut documents = injected(before, &elsewhere()).documents;
    let volumes = documents[0].at_mut(&["spec", "volumes"]).and_then(Node::list_mut).expect("the token's");
    volumes.push(super::node::object([("name", "mine".into())]));
    let after = uninject(documents).expect("ours");
    let volumes = after[0].at(&["spec", "volumes"]).expect("there is one").items();
    assert_eq!(volumes.len(), 1, "{volumes:?}");
}

#[test]
fn times_fit_into_each_other() {
    for (spec, annotation, drain, period) in [
        ("", "", "25s", None),
        ("terminationGracePeriodSeconds: 10, ", "", "5s", Some(10)),
        ("terminationGracePeriodSeconds: 0, ", "", "1s", Some(0)),
        ("terminationGracePeriodSeconds: 600, ", "", "30s", Some(600)),
        ("terminationGracePeriodSeconds: 600, ", "2m", "120s", Some(600)),
        ("", "1500ms", "1500ms", None),
        ("", "1m", "60s", Some(65)),
    ] {
        let annotations = if annotation.is_empty() {
            String::new()
        } else {
            format!("pillion.dev/drain-timeout: {annotation}")
        };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n\
             spec: {{{spec}containers: [{{name: a}}]}}\n"
        );
        let result = injected(&text, &elsewhere()).documents.remove(0);
        let sidecar = &result.at(&["spec", "initContainers"]).expect("ours").items()[1];
        let told = sidecar.get("env").expect("settings").items();
        let found =
            told.iter().find(|it| it.get("name").and_then(Node::text) == Some("PILLION_DRAIN_TIMEOUT"));
        assert_eq!(found.and_then(|it| it.get("value")?.text()), Some(drain), "{text}");
        let found = result.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Node::whole);
        assert_eq!(found, period, "{text}");
    }
}

/// Any one of some texts.
fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(texts).prop_map(str::to_owned)
}

/// Some of these members, in JSON, in any order.
fn members(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    prop::sample::subsequence(texts, 0..=texts.len())
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn any_pod() -> impl Strategy<Value = String> {
    let metadata = members(&[
        r#""labels": {"app": "a", "b": ""}"#,
        r#""annotations": {"pillion.dev/drain-timeout": "1m", "other": "1"}"#,
        r#""name": "n""#,
    ]);
    let spec = members(&[
        r#""containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 3}}, {"name": "b"}]"#,
        r#""initContainers": []"#,
        r#""volumes": [{"name": "v", "emptyDir": {}}]"#,
        r#""terminationGracePeriodSeconds": 7"#,
        r#""hostNetwork": false"#,
        r#""serviceAccountName": "x""#,
    ]);
    let kind = one_of(&["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"]);
    (kind, metadata, spec).prop_map(|(kind, metadata, spec)| {
        format!(
            r#"{{"apiVersion": "apps/v1", "kind": "{kind}", "metadata": {{"name": "w"}}, "spec": {{"template": {{"metadata": {metadata}, "spec": {spec}}}}}}}"#
        )
    })
}

fn any_compose() -> impl Strategy<Value = String> {
    let service = members(&[
        r#""image": "i""#,
        r#""ports": ["80:8080", {"target": 90}]"#,
        r#""expose": [7]"#,
        r#""networks": {"n": {"aliases": ["x"], "ipv4_address": "10.0.0.9"}, "m": null}"#,
        r#""depends_on": ["z"]"#,
        r#""links": ["b:c", "z"]"#,
        r#""hostname": "h""#,
        r#""dns": "1.1.1.1""#,
        r#""sysctls": ["net.a=1", "kernel.b=2"]"#,
        r#""environment": {"A": null}"#,
        r#""x-pillion-other": 1"#,
    ]);
    let shared = one_of(&[
        r#"{"image": "i", "network_mode": "service:a"}"#,
        r#"{"image": "i", "network_mode": "host"}"#,
        r#"{"image": "i", "network_mode": "bridge", "profiles": ["p"]}"#,
        r#"{"image": "i", "links": ["a"], "labels": ["pillion.dev/inject=disabled"]}"#,
    ]);
    let top = one_of(&["", r#", "volumes": {"v": null}"#, r#", "volumes": {}"#, r#", "x-other": 1"#]);
    (service.clone(), service, shared, top)
        .prop_map(|(a, b, z, top)| format!(r#"{{"services": {{"a": {a}, "b": {b}, "z": {z}}}{top}}}"#))
}

proptest! {
    #[test]
    fn injecting_twice_is_injecting_once_and_can_be_undone(
        text in prop_oneof![any_pod(), any_compose()], inside in any::<bool>()
    ) {
        let options = if inside { with_control_plane() } else { elsewhere() };
        let before = documents(&text);
        let once = inject(before.clone(), &options).map_err(|faults| TestCaseError::fail(format!("{faults:?}")))?;
        let again = inject(once.documents.clone(), &options).map_err(|faults| TestCaseError::fail(format!("{faults:?}")))?;
        prop_assert_eq!(&again.documents, &once.documents);
        prop_assert_eq!(documents(&text::write(&once.documents)), once.documents.clone());
        prop_assert_eq!(uninject(once.documents).expect("ours"), before);
    }
}
