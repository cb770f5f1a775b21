//! `pillion diagnose` on a real mesh: what the report of a workload holds, and that no secret of the mesh is in it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, pillion};
use crate::support::pair::Pair;

/// In documents, where it must not be told.
const CREDENTIAL: &str = "c0ffee-of-nobody-elses-business";

fn diagnose(mesh: &Mesh, arguments: &[&str]) -> Output {
    let mut command = Command::new(pillion());
    command.args(["--server", mesh.api.base(), "--token", &admin_token(mesh), "diagnose"]).args(arguments);
    command.output().expect("the program starts")
}

fn admin_token(mesh: &Mesh) -> String {
    let text = std::fs::read_to_string(mesh.file("server/admin.token")).expect("the server made one");
    text.trim().to_owned()
}

fn route() -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: app, namespace: demo }}\nspec:\n  \
         parentRefs: [{{ group: '', kind: Service, name: app }}]\n  rules:\n  \
         - filters: [{{ type: RequestHeaderModifier, requestHeaderModifier: {{ set: [\n      \
         {{ name: Authorization, value: 'Bearer {CREDENTIAL}' }}, {{ name: x-api-key, value: {CREDENTIAL} }}, \
         {{ name: x-beta, value: kept-as-it-is }}] }} }}]\n    \
         backendRefs: [{{ name: app, port: 80 }}]\n"
    )
}

#[tokio::test]
async fn a_report_holds_what_is_known_and_no_secret() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::with(app.address(), "http", &["timeouts: { request: 7s }"], &[]).await;
    pair.mesh.apply(&route()).await;

    let file = pair.mesh.file("report.json");
    let ran = diagnose(&pair.mesh, &["app-1", "--output", &file.display().to_string()]);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.starts_with(&format!("{}: ", file.display())), "{said}");
    assert!(said.contains("app-1.demo: connected and ready"), "{said}");
    assert!(said.contains(": /ready, /config, /endpoints, /metrics\n"), "{said}");

    let text = std::fs::read_to_string(&file).expect("the report");
    let report: Value = serde_json::from_str(&text).expect("a document");
    let workload = &report["workload"];
    assert_eq!(workload["labels"]["app"], "app");
    assert_eq!(workload["ports"][0]["port"], 8080);
    assert_eq!(workload["services"][0], "app.demo");
    assert_eq!(workload["adminAddress"], pair.callee.addresses.admin.to_string());
    assert_eq!(report["versions"]["sidecar"], report["versions"]["controlPlane"]);
    let sidecar = &report["sidecar"];
    assert_eq!((&sidecar["ready"]["status"], &sidecar["ready"]["says"]), (&200.into(), &"ready".into()));
    assert_eq!(sidecar["config"]["workload"], "app-1");
    assert!(text.contains("# TYPE pillion_"), "{text}");
    let kinds: Vec<&str> = report["documents"]
        .as_array()
        .expect("documents")
        .iter()
        .filter_map(|document| document["kind"].as_str())
        .collect();
    for kind in ["Service", "HTTPRoute", "TrafficPolicy"] {
        assert!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
    }
    assert!(report["services"][0]["inForce"]["fields"].to_string().contains("7s"), "{text}");
    assert!(report["events"].to_string().contains("app-1"), "{text}");
    assert!(report["findings"].is_array(), "{text}");

    // The other side, which subscribes to it.
    let ran = diagnose(&pair.mesh, &["client.demo", "-o", "-"]);
    let caller = String::from_utf8_lossy(&ran.stdout).into_owned();
    let report: Value = serde_json::from_str(&caller).expect("a document");
    let subscribed = &report["workload"]["subscribed"][0];
    assert_eq!(subscribed["service"], "app.demo");
    assert!(subscribed["configVersion"].is_string(), "{subscribed}");

    let key = std::fs::read_to_string(pair.mesh.file("ca.key")).expect("the authority's key");
    let key = key.lines().nth(1).expect("PEM");
    let admin = admin_token(&pair.mesh);
    for report in [&text, &caller] {
        assert!(report.contains("kept-as-it-is"), "the documents are in it: {report}");
        for secret in [CREDENTIAL, key, &admin, "pillion-join.", "pillion-api."] {
            assert!(!report.contains(secret), "{secret} is in the report");
        }
    }
}

#[tokio::test]
async fn a_workload_that_is_not_there_and_a_sidecar_that_does_not_answer() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    for (asked, hint) in [("app-1.shop", "did you mean app-1.demo?"), ("app", "did you mean app-1.demo?")] {
        let ran = diagnose(&pair.mesh, &[asked]);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("no workload {asked} is registered")) && said.contains(hint),
            "{said}"
        );
    }
    drop(pair.callee);
    let ran = diagnose(&pair.mesh, &["app-1", "-o", "-"]);
    let report: Value = serde_json::from_slice(&ran.stdout).expect("a document");
    assert!(report["sidecar"]["config"]["notRead"].is_string(), "{}", report["sidecar"]);
    assert_eq!(report["workload"]["workload"], "app-1");
}
