//! What operators are told: of what has no effect, of who refuses, of what holds, and of what they may have meant.

use std::process::Command;

use serde_json::Value;

use crate::limits::until_told;
use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec, pillion, service};
use crate::support::pair::{Pair, policy};
use crate::support::{eventually, raw};

/// Runs the command line with the administrator's token: whether it succeeded, its result, and what it says beside.
fn run(mesh: &Mesh, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(pillion());
    let output = command
        .args(["--server", mesh.api.base(), "--token-file"])
        .arg(mesh.file("server/admin.token"))
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Its result.
fn said(mesh: &Mesh, arguments: &[&str]) -> String {
    match run(mesh, arguments) {
        (true, result, _) => result,
        (false, _, error) => panic!("{arguments:?}: {error}"),
    }
}

#[tokio::test]
async fn what_the_callees_sidecar_refuses_is_shown_at_the_edge_and_for_the_service_called() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let mesh = Mesh::start().await;
    // Of the workload's two services the other one is the first by name.
    let documents =
        service("app", "http") + "---\n" + &service("aaa", "http").replace("app: aaa", "app: app");
    let limits = policy(&["rateLimits:", "- total: { requests: 1, per: 1h, burst: 1 }"]);
    mesh.apply(&(documents + &limits)).await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    until_told(&callee).await;
    let get = async || raw::exchange(caller.outbound(), &raw::get("app.demo.mesh", "/who")).await;
    eventually("the limit holds", async || (raw::refusal(&get().await) == "rate-limited").then_some(()))
        .await;
    eventually("the edge tells of it", async || {
        let edges = said(&mesh, &["stat", "edges", "--to", "app.demo"]);
        edges.contains("rate-limited: 1 (by app.demo's sidecar)").then_some(())
    })
    .await;
    let edges: Value =
        serde_json::from_str(&said(&mesh, &["stat", "edges", "-o", "json"])).expect("a document");
    assert_eq!(edges["rows"][0]["refusalsByCallee"]["rate-limited"], 1, "{edges:#}");
    assert_eq!(edges["rows"][0]["refusals"]["rate-limited"], Value::Null, "{edges:#}");
    eventually("the callee's sidecar tells of it", async || {
        let metrics = callee.metrics().await;
        let refused = |target| {
            let labels = [("direction", "inbound"), ("target", target), ("reason", "rate-limited")];
            metrics.sum("pillion_refusals_total", &labels)
        };
        (refused("app.demo") == 1.0).then(|| assert_eq!(refused("aaa.demo"), 0.0))
    })
    .await;
}

#[tokio::test]
async fn a_health_check_that_sidecars_have_of_their_own_is_told() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let file = pair.mesh.file("check.yaml");
    std::fs::write(&file, policy(&["healthCheck: { http: { path: /up } }"])).expect("a file");
    let file = file.to_str().expect("a name");
    let expected = format!(
        "warning: {file}:7:16: TrafficPolicy demo/app: spec.healthCheck: is not for app-1, of Service demo/app: --health of their \
         own goes before it\n"
    );
    for arguments in [&["apply", "-f", file, "--dry-run"][..], &["apply", "-f", file]] {
        let (done, _, warned) = run(&pair.mesh, arguments);
        assert!(done);
        assert_eq!(warned, expected, "{arguments:?}");
    }
    let described = said(&pair.mesh, &["describe", "policy", "app", "-n", "demo"]);
    assert!(
        described.contains("HealthCheckOverridden (pillion.dev/Effective): spec.healthCheck: "),
        "{described}"
    );
    assert!(said(&pair.mesh, &["get", "policy", "-n", "demo"]).contains("HealthCheckOverridden"));
}

#[tokio::test]
async fn of_a_routed_request_it_is_told_whose_policy_holds() {
    const ROUTED: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: pay, namespace: demo }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: pay }]
  rules: [{ backendRefs: [{ name: app, port: 80 }], timeouts: { request: 7s } }]
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: patience, namespace: demo }
spec:
  targetRefs: [{ group: \"\", kind: Service, name: pay }]
  timeouts: { attempt: 900ms }
  retry: { attempts: 3, codes: [429, 500] }
  circuitBreaker: { consecutiveFailures: 99 }
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: app, namespace: demo }
spec:
  targetRefs: [{ group: \"\", kind: Service, name: app }]
  rateLimits: [{ name: all, total: { requests: 1000 } }]
";
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    pair.mesh.apply(&(service("pay", "http") + ROUTED)).await;
    let explain = ["explain", "--from", "client.demo", "--to", "pay.demo"];
    let text = said(&pair.mesh, &explain);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        ["timeouts.request", "7s", "rule", "0", "of", "route", "demo/pay"].as_slice(),
        &["timeouts.attempt", "900ms", "TrafficPolicy", "demo/patience"],
        &["retry.attempts", "3", "TrafficPolicy", "demo/patience"],
        &["retry.codes", "429,", "500", "TrafficPolicy", "demo/patience"],
        &["rateLimits[0].total.requests", "1000", "TrafficPolicy", "demo/app"],
    ] {
        assert!(rows.iter().any(|cells| cells == row), "{row:?} is missing in\n{text}");
    }
    assert!(!text.contains("consecutiveFailures"), "the breaker is that of who serves it:\n{text}");
    assert!(
        text.contains(
            "app.demo: TrafficPolicy demo/app; and of pay.demo, which is called: TrafficPolicy demo/patience"
        ),
        "{text}"
    );
    let all = said(&pair.mesh, &[&explain[..], &["--all"]].concat());
    let longest = all.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(170) && all.contains("consecutiveFailures"), "{longest:?}:\n{all}");
}

#[tokio::test]
async fn one_service_is_shown_with_its_edges_and_a_name_without_its_namespace_is_asked_about() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    assert_eq!(raw::status(&pair.get("/who").await), 200);
    eventually("the requests are counted", async || {
        let text = said(&pair.mesh, &["stat", "app.demo"]);
        let lines: Vec<&str> = text.lines().collect();
        let both = lines.iter().any(|line| line.starts_with("app.demo "))
            && lines.iter().any(|line| line.starts_with("client.demo ") && line.contains("app.demo"));
        both.then(|| assert!(!text.contains("\nclient.demo  1/1"), "only that service:\n{text}"))
    })
    .await;
    let hops = said(&pair.mesh, &["stat", "--hops", "app", "-n", "demo"]);
    assert!(hops.starts_with("SERVICE") && hops.contains("\nFROM"), "{hops}");
    assert!(hops.lines().any(|line| line.starts_with("app.demo")), "{hops}");
    let json: Value =
        serde_json::from_str(&said(&pair.mesh, &["stat", "app.demo", "-o", "json"])).expect("a document");
    assert_eq!(json["service"]["rows"][0]["name"], "app.demo");
    assert_eq!(json["edges"]["rows"][0]["from"], "client.demo");
    for (arguments, expected) in [
        (&["stat", "app"][..], "did you mean app.demo?"),
        (&["stat", "--from", "client"], "did you mean client.demo?"),
        (&["endpoints", "app"], "did you mean app.demo?"),
        (&["explain", "--from", "client", "--to", "app.demo"], "did you mean client.demo?"),
        (&["explain", "--from", "client.demo", "--to", "app.other"], "did you mean app.demo?"),
        (
            &["describe", "service", "app"],
            "there is no Service default/app; did you mean demo/app (-n demo)?",
        ),
        (&["delete", "service", "app"], "there is no Service default/app; did you mean demo/app (-n demo)?"),
    ] {
        let (done, result, error) = run(&pair.mesh, arguments);
        assert!(!done && error.contains(expected), "{arguments:?}: {error}{result}");
    }
}
