//! What the policies of those say who serve a request, where that is not whom the caller has named.

use std::time::{Duration, Instant};

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::{eventually, raw};

/// Two backends that take one request at a time, told apart by a header.
const ROUTE: &str = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: app, namespace: demo}, spec: \
                     {parentRefs: [{group: '', kind: Service, name: app}], rules: [{matches: [{headers: [{name: x-to, value: v1}]}], \
                     backendRefs: [{name: v1, port: 80}]}, {backendRefs: [{name: v2, port: 80}]}]}}\n";

fn policy(service: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {service}, namespace: demo}}, spec: \
         {{targetRefs: [{{group: '', kind: Service, name: {service}}}], {spec}}}}}\n"
    )
}

fn request(to: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: app.demo.mesh\r\nx-to: {to}\r\nconnection: close\r\n\r\n")
}

/// As many have come to who serves.
async fn until_in_flight(callee: &Sidecar, count: f64) {
    eventually(&format!("{count} are under way at {}", callee.workload), async || {
        let metrics = callee.metrics().await;
        (metrics.sum("pillion_requests_in_flight", &[("direction", "inbound")]) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_backend_and_who_takes_over_have_no_more_under_way_than_their_own_policies_allow() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app", Version::Http1).await;
    let names = ["app", "v1", "v2", "spare"];
    let mut documents = names.map(|name| service(name, "http")).join("---\n");
    documents += &policy("v1", "connections: {maxRequests: 1}");
    documents += &policy(
        "v2",
        "connections: {maxRequests: 1}, fallback: {on: [LimitReached], backendRef: {name: spare, port: 80}}",
    );
    documents += &policy("spare", "connections: {maxRequests: 1}");
    mesh.apply(&(documents + "---\n" + ROUTE)).await;
    let mut sidecars = Vec::new();
    for name in &names[1..] {
        let spec = SidecarSpec::serving(&format!("{name}-1"), name, app.address());
        sidecars.push(mesh.sidecar(spec).await);
    }
    let [v1, v2, spare] = &sidecars[..] else { panic!("there are three") };
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    for name in &names[1..] {
        caller.until_endpoints(name, 1).await;
    }
    let to = caller.outbound();
    let ask = async |backend: &str| raw::exchange(to, &request(backend, "/who")).await;

    let slow = raw::begin(to, &request("v1", "/after-ms/30000")).await;
    until_in_flight(v1, 1.0).await;
    let answer = ask("v1").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (503, "too-many-requests"), "{answer}");
    let by = "v1.demo: 1 at a time, connections.maxRequests of TrafficPolicy demo/v1";
    assert!(answer.contains(by), "{answer}");
    assert_eq!(raw::status(&ask("v2").await), 200, "the other one has its own");
    drop(slow);
    eventually("it is free again", async || (raw::status(&ask("v1").await) == 200).then_some(())).await;

    // Until the last byte.
    let body = raw::begin(to, &request("v1", "/bytes/100000000")).await;
    eventually("its place is taken", async || {
        (raw::refusal(&ask("v1").await) == "too-many-requests").then_some(())
    })
    .await;
    drop(body);
    eventually("it is free again", async || (raw::status(&ask("v1").await) == 200).then_some(())).await;

    let _first = raw::begin(to, &request("v2", "/after-ms/30000")).await;
    until_in_flight(v2, 1.0).await;
    let answer = ask("v2").await;
    let fallback = raw::header(&answer, "pillion-fallback");
    assert_eq!((raw::status(&answer), fallback), (200, Some("too-many-requests; to=spare.demo")), "{answer}");
    let _second = raw::begin(to, &request("v2", "/after-ms/30000")).await;
    until_in_flight(spare, 1.0).await;
    let answer = ask("v2").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (503, "too-many-requests"), "{answer}");
    assert!(answer.contains("nor could the fallback spare.demo"), "{answer}");
}

/// Nobody is there, and nobody comes; only who has nothing else waits for that.
#[tokio::test]
async fn a_fallback_does_not_wait_for_who_is_not_there() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app", Version::Http1).await;
    let answers = "connections: {queueTimeout: 50s}, fallback: {response: {status: 218}}";
    mesh.apply(&(service("empty", "http") + &policy("empty", answers))).await;
    let short = "connections: {queueTimeout: 2s}, fallback: {response: {status: 218}}";
    mesh.apply(&(service("unwell", "http") + &policy("unwell", short))).await;
    let health = format!("http://{}/healthz", app.address());
    let unwell = SidecarSpec::serving("unwell-1", "unwell", app.address()).health(&health);
    app.set_unhealthy(true);
    let _unwell = mesh.sidecar(unwell).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    let ask = async |host: &str| {
        let began = Instant::now();
        let answer = raw::exchange(caller.outbound(), &raw::get(host, "/who")).await;
        (raw::header(&answer, "pillion-fallback").unwrap_or_default().to_owned(), began.elapsed())
    };
    let (fallback, took) = ask("empty.demo.mesh").await;
    assert_eq!(fallback, "no-endpoints; to=response");
    assert!(took < Duration::from_secs(25), "{took:?}");

    // Who is there may be well in a moment. That is waited for once, not by each request.
    crate::support::eventually("it is registered, and unwell", async || {
        let (fallback, _) = ask("unwell.demo.mesh").await;
        (fallback == "no-ready-endpoints; to=response").then_some(())
    })
    .await;
    let began = Instant::now();
    for _ in 0..20 {
        let (fallback, _) = ask("unwell.demo.mesh").await;
        assert_eq!(fallback, "no-ready-endpoints; to=response");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
