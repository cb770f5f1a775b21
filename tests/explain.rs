//! What `pillion explain` says of requests, and what really becomes of them.

use std::process::Command;

use serde_json::Value;

use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion, service};
use crate::support::pair::Pair;
use crate::support::{eventually, raw};

const ROUTE: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: pay, namespace: demo }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: pay, port: 80 }]
  rules:
  - name: beta
    matches: [{ headers: [{ name: x-beta, value: \"1\" }] }]
    backendRefs: [{ name: two, port: 80 }]
  - name: nobody
    matches: [{ path: { type: Exact, value: /empty } }]
    backendRefs: [{ name: empty, port: 80 }]
  - name: weightless
    matches: [{ path: { type: Exact, value: /weightless } }]
    backendRefs: [{ name: two, port: 80, weight: 0 }]
  - name: reads
    matches: [{ method: GET, path: { type: PathPrefix, value: /who } }]
    timeouts: { request: 7s }
    backendRefs: [{ name: one, port: 80, weight: 3 }, { name: two, port: 80, weight: 1 }]
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: pay, namespace: demo }
spec:
  targetRefs: [{ group: \"\", kind: Service, name: one }]
  circuitBreaker: { consecutiveFailures: 4 }
";

struct Shop {
    mesh: Mesh,
    caller: Sidecar,
    _callees: [Sidecar; 2],
    _apps: [HttpApp; 2],
}

impl Shop {
    async fn open() -> Self {
        let mesh = Mesh::start().await;
        let apps =
            [HttpApp::start("one-1", Version::Http1).await, HttpApp::start("two-1", Version::Http1).await];
        let services = ["pay", "one", "two", "empty"].map(|name| service(name, "http")).join("---\n");
        mesh.apply(&(services + ROUTE)).await;
        let one = mesh.sidecar(SidecarSpec::serving("one-1", "one", apps[0].address())).await;
        let two = mesh.sidecar(SidecarSpec::serving("two-1", "two", apps[1].address())).await;
        let caller = mesh.sidecar(SidecarSpec::caller("web")).await;
        mesh.until_ready(&[&caller, &one, &two]).await;
        caller.until_endpoints("one", 1).await;
        caller.until_endpoints("two", 1).await;
        Self { mesh, caller, _callees: [one, two], _apps: apps }
    }

    /// Runs the command line; its output, or what it says where it fails.
    fn pillion(&self, arguments: &[&str]) -> Result<String, String> {
        said(&self.mesh, arguments)
    }

    fn explained(&self, request: &Request) -> Value {
        let Request { method, host, path, header } = *request;
        let mut arguments = vec![
            "explain", "--from", "web.demo", "--to", host, "--method", method, "--path", path, "-o", "json",
        ];
        header.iter().for_each(|header| arguments.extend(["-H", header]));
        let text = self.pillion(&arguments).unwrap_or_else(|said| panic!("{request:?}: {said}"));
        serde_json::from_str(&text).expect("a document")
    }

    async fn sent(&self, request: &Request) -> String {
        let Request { method, host, path, header } = request;
        let header = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{header}connection: close\r\n\r\n");
        raw::exchange(self.caller.outbound(), &request).await
    }
}

/// Runs the command line; its output, or what it says where it fails.
fn said(mesh: &Mesh, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(pillion())
        .args(["--server", mesh.api.base()])
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[derive(Clone, Copy, Debug)]
struct Request {
    method: &'static str,
    host: &'static str,
    path: &'static str,
    header: Option<&'static str>,
}

const fn request(
    method: &'static str,
    host: &'static str,
    path: &'static str,
    header: Option<&'static str>,
) -> Request {
    Request { method, host, path, header }
}

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let shop = Shop::open().await;
    let table = [
        (request("GET", "pay.demo.mesh", "/who", None), "sent", "reads"),
        // The longer path goes before any header (Gateway API).
        (request("GET", "pay", "/who?x=1", Some("x-beta: 1")), "sent", "reads"),
        (request("POST", "pay.demo", "/who", Some("x-beta: 1")), "sent", "beta"),
        (request("POST", "pay.demo", "/who", None), "refused", ""),
        (request("GET", "pay.demo", "/other", Some("x-beta: 2")), "refused", ""),
        (request("GET", "pay.demo", "/empty", None), "refused", "nobody"),
        (request("GET", "pay.demo", "/weightless", None), "refused", "weightless"),
        (request("GET", "two.demo.svc.cluster.local", "/who", None), "sent", ""),
        (request("GET", "empty.demo:80", "/who", None), "refused", ""),
    ];
    for (request, outcome, rule) in table {
        let said = shop.explained(&request);
        assert_eq!(said["verdict"]["outcome"], outcome, "{request:?}: {said:#}");
        let taken = said["rules"].as_array().expect("a list").iter().find(|rule| rule["taken"] == true);
        assert_eq!(taken.map_or("", |taken| taken["rule"].as_str().unwrap_or("?")), rule, "{request:?}");
        let answer = shop.sent(&request).await;
        if outcome == "sent" {
            assert_eq!(raw::status(&answer), 200, "{request:?}: {answer}");
            let served = raw::body(&answer);
            let backends = said["backends"].as_array().expect("a list").iter();
            let workloads: Vec<&str> = backends
                .filter(|backend| backend["weight"].as_u64() > Some(0))
                .flat_map(|backend| backend["endpoints"].as_array().expect("a list"))
                .filter_map(|endpoint| endpoint["workload"].as_str())
                .collect();
            assert!(workloads.iter().any(|workload| served.contains(workload)), "{served} of {workloads:?}");
        } else {
            assert_eq!(said["verdict"]["reasons"][0], raw::refusal(&answer), "{request:?}: {answer}");
            let status = format!("with {}", raw::status(&answer));
            let text = said["verdict"]["text"].as_str().expect("a text");
            assert!(text.contains(&status), "{request:?}: {text}, not {status}");
        }
    }
}

#[tokio::test]
async fn the_steps_are_told_to_people() {
    let shop = Shop::open().await;
    let text = shop
        .pillion(&["explain", "--from", "web.demo", "--to", "pay", "--path", "/who"])
        .expect("it is explained");
    for line in [
        "Caller: web.demo, decided by the sidecar of web",
        "pay is pay.demo: a bare name is of the caller's namespace, demo; port 80, since none is named",
        "Port: 80 → 8080 of its workloads, http/1.1",
        "✗ demo/pay rule nobody (port is 80 and path is /empty): no: path /who is not one that is /empty",
        "✓ demo/pay rule reads (port is 80 and method is GET and path is /who or below): taken",
        "→ the request may take 7s (this rule)",
        "75 % (weight 3) one.demo:80: sent to one of 1 ready of 1 endpoints of one.demo",
        "25 % (weight 1) two.demo:80: sent to",
        "one.demo: TrafficPolicy demo/pay",
        "circuitBreaker.consecutiveFailures  4      TrafficPolicy demo/pay",
        "Authorization: not restricted",
        "SENT: 75 %: ",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    let all = ["explain", "--from", "web.demo", "--to", "one.demo", "--all"];
    let all = shop.pillion(&all).expect("it is explained");
    for field in ["loadBalancer.decay", "circuitBreaker.openTime.max", "connections.maxPending"] {
        assert!(all.contains(field), "{field} is missing in\n{all}");
    }
    for (arguments, expected) in [
        (["--from", "web.demo", "--to", "pay.demo:81"], "pay.demo has no port 81; it has 80"),
        (["--from", "web.demo", "--to", "nobody.demo.mesh"], "404, unknown-service"),
        (["--from", "web.demo", "--to", "example.com"], "take it for a host outside"),
        (["--from", "ghost.demo", "--to", "pay.demo"], "neither a Service nor a workload ghost"),
        (["--from", "empty.demo", "--to", "pay.demo"], "empty.demo has no workloads"),
        (["--from", "web", "--to", "pay demo"], "to: must be a host and perhaps a port"),
    ] {
        let said =
            shop.pillion(&[&["explain"], &arguments[..]].concat()).expect_err("it cannot be explained");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn figures_and_endpoints_are_shown_as_they_are() {
    let shop = Shop::open().await;
    let request = request("GET", "two.demo", "/who", None);
    for _ in 0..5 {
        assert_eq!(raw::status(&shop.sent(&request).await), 200);
    }
    eventually("the requests are counted", async || {
        let edges = shop.pillion(&["stat", "edges", "--to", "two.demo", "-o", "json"]).ok()?;
        let edges: Value = serde_json::from_str(&edges).ok()?;
        (edges["rows"][0]["rps"].as_f64()? > 0.0).then_some(())
    })
    .await;
    let edges = shop.pillion(&["stat", "edges", "--from", "web.demo", "--to", "two.demo"]).expect("figures");
    let cells: Vec<Vec<&str>> = edges.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        cells[0],
        ["FROM", "TO", "SERVED-BY", "SECURED", "SUCCESS", "RPS", "P50", "P95", "P99", "TCP-CONN", "REFUSED"]
    );
    assert_eq!(cells[1][..5], ["web.demo", "two.demo", "-", "mTLS", "100%"], "{edges}");
    let services = shop.pillion(&["stat", "-n", "demo"]).expect("figures");
    assert!(
        services.lines().any(|line| line.starts_with("empty.demo") && line.contains("0/0")),
        "{services}"
    );
    let workloads = shop.pillion(&["stat", "workloads", "--window", "5m"]).expect("figures");
    assert!(workloads.contains("two-1.demo"), "{workloads}");
    // Not on a terminal: one table, and it ends.
    let top = shop.pillion(&["top", "edges", "--sort", "p99"]).expect("figures");
    assert!(top.starts_with("FROM") && top.contains("two.demo"), "{top}");
    eventually("the caller's sidecar tells of its endpoint", async || {
        let endpoints = shop.pillion(&["endpoints", "two.demo"]).ok()?;
        let row = endpoints.lines().find(|line| line.starts_with("two-1"))?;
        let cells: Vec<&str> = row.split_whitespace().collect();
        (cells[1] == "yes" && cells[8] == "web" && cells[10] == "closed" && cells[14] == "never")
            .then_some(())
    })
    .await;
    for (arguments, expected) in [
        (&["stat", "workloads", "--from", "web.demo"][..], "from and to are for services and edges"),
        (&["stat", "--window", "2h"], "must be from 1s to 30m"),
        (&["endpoints", "ghost.demo"], "neither a Service nor a workload ghost"),
        (&["endpoints", "two.demo", "-n", "other"], "two.demo is of namespace demo"),
    ] {
        let said = shop.pillion(arguments).expect_err("that cannot be shown");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn faults_and_limits_are_told_as_they_are_met() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = [
        "faults:",
        "- { name: outage, matches: [{ path: { value: /broken } }], abort: { status: 418 }, for: 10m }",
        "- { name: rain, matches: [{ path: { value: /rain } }], abort: { status: 502, percent: 40 }, for: 10m }",
        "- { name: late, matches: [{ path: { value: /late } }], delay: { duration: 30s }, for: 10m }",
        "- { name: not-ours, callers: [{ service: other }], abort: { status: 503 }, for: 10m }",
        "timeouts: { request: 1s }",
        "rateLimits:",
        "- name: exports",
        "  matches: [{ path: { value: /export } }]",
        "  perClient: { requests: 2, per: 1h, burst: 2 }",
        "circuitBreaker: { maxEjectedPercent: 50 }",
    ];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    let explained = |path: &str, output: &str| {
        let host = "app.demo.mesh";
        said(
            &pair.mesh,
            &["explain", "--from", "client.demo", "--to", host, "--path", path, "--output", output],
        )
        .expect("it is explained")
    };
    let json = |path: &str| -> Value { serde_json::from_str(&explained(path, "json")).expect("a document") };
    for (path, status) in [("/broken/x", 418), ("/late", 504)] {
        let (said, answer) = (json(path), pair.get(path).await);
        assert_eq!(raw::status(&answer), status, "{path}: {answer}");
        assert_eq!(said["verdict"]["outcome"], "refused", "{path}: {said:#}");
        assert_eq!(said["verdict"]["reasons"][0], raw::refusal(&answer), "{path}");
        let text = said["verdict"]["text"].as_str().unwrap_or_default();
        assert!(text.starts_with(&format!("refused with {status}")), "{path}: {text}");
    }
    let said = json("/rain");
    let caveat = &said["verdict"]["caveats"][0];
    assert_eq!((&said["verdict"]["outcome"], &caveat["reason"]), (&"sent".into(), &"fault-injected".into()));
    assert_eq!(caveat["percent"], 40.0);
    assert_eq!(json("/who")["verdict"]["caveats"].as_array().map(Vec::len), Some(1), "the breaker");

    let text = explained("/export", "table");
    for line in [
        "SENT: sent to one of 1 ready of 1 endpoints of app.demo\n",
        "but [rate-limited]: limit exports of TrafficPolicy demo/app: each workload takes 2 requests per 1h (2 at once) of the \
         client client.demo; more are refused with 429\n",
        "but: circuitBreaker.maxEjectedPercent of TrafficPolicy demo/app: at client no other breaker of app.demo may open: of 1 \
         ready endpoints, 0 are left alone, which is as many as may be\n",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    eventually("the third export is refused", async || {
        let answer = pair.get("/export").await;
        (raw::status(&answer) == 429).then(|| assert_eq!(raw::refusal(&answer), "rate-limited"))
    })
    .await;
}

#[tokio::test]
async fn bytes_on_a_port_that_declares_nothing_are_told() {
    const TARGET: &str = "store.demo:6379";
    let app = App::tcp_echo().await;
    let mesh = Mesh::start().await;
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: store, namespace: demo }\nspec:\n  selector: { app: store }\n  \
         ports: [{ port: 6379, targetPort: 8080 }]\n",
    )
    .await;
    let callee = mesh.sidecar(SidecarSpec::serving("store-1", "store", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener(TARGET)).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("store", 1).await;
    let explain = ["explain", "--from", "client.demo", "--to", TARGET];
    let before = said(&mesh, &explain).expect("it is explained");
    assert!(!before.contains("did not begin like HTTP"), "{before}");
    const PING: &str = "*1\r\n$4\r\nPING\r\n";
    let listener = caller.addresses.listeners[TARGET];
    let answer = raw::exchange_until(listener, PING.as_bytes(), |answer| answer == PING).await;
    assert_eq!(answer, PING);
    eventually("it is told", async || {
        let text = said(&mesh, &explain).ok()?;
        text.contains("note: The port declares no appProtocol, and 1 connections of the last five minutes did not begin").then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_of_the_api_is_described() {
    let mesh = Mesh::start().await;
    let get = async |path: &str| {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        client.get(format!("{}{path}", mesh.api.base())).send().await.expect("an answer")
    };
    let described: Value = get("/openapi.json").await.json().await.expect("a document");
    let paths = described["paths"].as_object().expect("paths");
    // What the server routes is only ever routed with its description; a path that is missing here is new, or was lost.
    let found: Vec<&str> = paths.keys().map(String::as_str).collect();
    let mut expected = [
        "/v1/apply",
        "/v1/explain",
        "/v1/mesh",
        "/v1/mesh/control-plane",
        "/v1/mesh/edges/{from}/{to}",
        "/v1/mesh/events",
        "/v1/mesh/prometheus-targets",
        "/v1/mesh/services/{namespace}/{name}",
        "/v1/mesh/stat",
        "/v1/mesh/tap",
        "/v1/mesh/workloads",
        "/v1/mesh/workloads/{uid}",
        "/v1/namespaces/{namespace}/{kind}",
        "/v1/namespaces/{namespace}/{kind}/{name}",
        "/v1/tokens",
        "/v1/tokens/{id}",
        "/v1/{kind}",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{method} {path} says nothing of itself");
            assert!(
                operation["responses"]["200"].is_object() || operation["responses"]["201"].is_object(),
                "{method} {path}"
            );
        }
        let plain = methods["get"].is_object() && !path.contains('{') && *path != "/v1/mesh/events";
        if plain && !methods["get"]["security"].is_array() {
            assert_eq!(get(path).await.status(), 200, "{path}");
        }
    }
    for schema in ["Explanation", "StatView", "MeshView", "ServiceView", "WorkloadView", "ControlPlaneView"] {
        assert!(described["components"]["schemas"][schema].is_object(), "{schema}");
    }
    let kind = &described["paths"]["/v1/mesh/stat"]["get"]["parameters"];
    let names: Vec<&str> =
        kind.as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["kind", "window", "namespace", "of", "from", "to"]);
}
