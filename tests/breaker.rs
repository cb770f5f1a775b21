//! The circuit breaker of one endpoint: it opens, keeps requests away, tries, and lets the endpoint back in.

use crate::support::apps::{HttpApp, Version};
use crate::support::load::Load;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::{alone, eventually, raw};

const POLICY: &str = "---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: quick, namespace: demo }
spec:
  targetRefs: [{ group: \"\", kind: Service, name: app }]
  # What one slow answer of a busy machine says about an endpoint fades quickly.
  loadBalancer: { type: PeakEwma, decay: 1s }
  circuitBreaker:
    consecutiveFailures: 3
    openTime: { base: 500ms, max: 1s }
    halfOpenRequests: 1
    panicPercent: 10
";

async fn breaker_state(caller: &Sidecar, workload: &str) -> f64 {
    let metrics = caller.metrics().await;
    metrics.max("pillion_breaker_state", &[("target", "app.demo"), ("workload", workload)]).unwrap_or(0.0)
}

#[tokio::test]
async fn opens_keeps_away_and_lets_back_in() {
    let _alone = alone().await;
    let mesh = Mesh::start_with(&[]).await;
    let good = HttpApp::start("app-good", Version::Http1).await;
    let bad = HttpApp::start("app-bad", Version::Http1).await;
    mesh.apply(&(service("app", "http") + POLICY)).await;
    let good_sidecar = mesh.sidecar(SidecarSpec::serving("app-good", "app", good.address())).await;
    let bad_sidecar = mesh.sidecar(SidecarSpec::serving("app-bad", "app", bad.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &good_sidecar, &bad_sidecar]).await;
    caller.until_endpoints("app", 2).await;

    let load = Load::start(caller.client(), "http://app.demo.mesh/who", 100);
    load.until_good(100).await;
    assert!(bad.requests() > 0 && good.requests() > 0, "both are used while both are well");

    bad.set_failing(true);
    eventually("its breaker opens", async || (breaker_state(&caller, "app-bad").await == 1.0).then_some(()))
        .await;
    let before = bad.requests();
    load.until_good(200).await;
    let reached = bad.requests() - before;
    // Two seconds of traffic; a probe or a few, once per open time of half a second and more.
    assert!(reached <= 12, "{reached} requests reached it while its breaker was open");

    bad.set_failing(false);
    eventually("it is let back in", async || (breaker_state(&caller, "app-bad").await == 0.0).then_some(()))
        .await;
    let before = bad.requests();
    // How soon depends on what the balancer thinks of its latency; that it does, not.
    eventually("it carries traffic again", async || (bad.requests() - before >= 100).then_some(())).await;

    let report = load.finish().await;
    assert!(
        report.failures.iter().all(|failure| failure.contains("failing on purpose")),
        "{:?}",
        report.failures
    );
    assert!(caller.metrics().await.sum("pillion_breaker_opened_total", &[("workload", "app-bad")]) >= 1.0);
    let events = mesh.api.mesh().await.expect("the mesh's state").events;
    let told = |kind: &str| events.iter().any(|event| event.kind == kind && event.text.contains("app-bad"));
    assert!(told("breaker-opened") && told("breaker-closed"), "{events:?}");
}

#[tokio::test]
async fn an_unhealthy_application_is_not_called_and_the_refusal_says_so() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let health = format!("http://{}/healthz", app.address());
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address()).health(&health)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let request = "GET /who HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n\r\n";
    assert_eq!(raw::status(&raw::exchange(caller.outbound(), request).await), 200);

    app.set_unhealthy(true);
    eventually("requests are refused for want of a ready endpoint", async || {
        let answer = raw::exchange(caller.outbound(), request).await;
        let reason = raw::header(&answer, "pillion-error")?;
        (raw::status(&answer) == 503 && reason.starts_with("no-ready-endpoints")).then_some(())
    })
    .await;
    app.set_unhealthy(false);
    eventually("it is called again", async || {
        (raw::status(&raw::exchange(caller.outbound(), request).await) == 200).then_some(())
    })
    .await;
}
