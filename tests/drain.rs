//! SIGTERM loses nothing: what is under way is finished, and what still comes goes elsewhere.

use std::time::Duration;

use crate::support::apps::{HttpApp, Version};
use crate::support::load::Load;
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::pair::Pair;
use crate::support::{eventually, raw, soon};

#[tokio::test]
async fn a_sidecar_that_is_told_to_stop_under_load_loses_no_request() {
    let mesh = Mesh::start().await;
    let apps = [HttpApp::start("app-1", Version::Http1).await, HttpApp::start("app-2", Version::Http1).await];
    mesh.apply_service("app", "http").await;
    let first = SidecarSpec::serving("app-1", "app", apps[0].address()).flags(&["--drain-timeout", "10s"]);
    let mut first = mesh.sidecar(first).await;
    let second = mesh.sidecar(SidecarSpec::serving("app-2", "app", apps[1].address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &first, &second]).await;
    caller.until_endpoints("app", 2).await;

    let load = Load::start(caller.client(), "http://app.demo.mesh/after-ms/20", 200);
    load.until_good(200).await;
    assert!(apps[0].requests() > 0, "it is in use");
    first.process.terminate();
    let status = first.process.wait(Duration::from_secs(15)).await.expect("it ends");
    assert!(status.success(), "it ended with {status}:\n{}", first.process.last_words());
    load.until_good(200).await;
    let report = load.finish().await;
    assert_eq!(report.failures, [] as [String; 0], "of {} requests", report.good);
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_the_control_plane_knows_at_once() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let mut callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let slow = tokio::spawn(caller.client().get("http://app.demo.mesh/after-ms/2000").send());
    eventually("the request has reached the application", async || (app.requests() == 1).then_some(())).await;
    callee.process.terminate();
    eventually("the workload is gone from the registry", async || {
        let workloads = mesh.api.workloads().await.ok()?;
        (!workloads.iter().any(|w| w.workload == "app-1" && w.ready)).then_some(())
    })
    .await;
    let response = soon("the answer", slow).await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.expect("a whole body"), "app-1");
    assert!(callee.process.wait(Duration::from_secs(10)).await.expect("it ends").success());
}

#[tokio::test]
async fn requests_that_end_while_the_sidecar_drains_are_counted() {
    const REQUESTS: u64 = 20;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let mut pair = Pair::with(app.address(), "http", &[], &["--drain-timeout", "1m"]).await;
    let client = pair.caller.client();
    let get = |after: u64| tokio::spawn(client.get(format!("http://app.demo.mesh/after-ms/{after}")).send());
    let requests: Vec<_> = (0..REQUESTS).map(|number| get(1000 + 25 * number)).collect();
    // It keeps the sidecar up, so that it can still be asked.
    let endless = "GET /after-ms/600000 HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n";
    let last = raw::begin(pair.caller.outbound(), endless).await;
    eventually("all have reached the application", async || (app.requests() == REQUESTS + 1).then_some(()))
        .await;
    pair.callee.process.terminate();
    for request in requests {
        let response = soon("an answer", request).await.expect("no panic").expect("an answer");
        assert_eq!(response.status(), 200);
    }
    eventually("all are counted", async || {
        let answered = [("direction", "inbound"), ("status", "2xx")];
        let counted = pair.callee.metrics().await.sum("pillion_requests_total", &answered);
        (counted == REQUESTS as f64).then_some(())
    })
    .await;
    drop(last);
}
