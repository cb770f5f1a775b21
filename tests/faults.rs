//! Faults that callers are made to see: who, what, how it is marked, and that it ends.

use std::time::{Duration, Instant};

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec, service};
use crate::support::pair::{Pair, policy};
use crate::support::{eventually, raw};

#[tokio::test]
async fn what_is_injected_is_seen_by_whom_it_is_for_and_named() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = [
        "faults:",
        "- name: outage",
        "  matches: [{ path: { value: /broken } }]",
        "  callers: [{ service: client }]",
        "  abort: { status: 418, grpcStatus: 9 }",
        "  for: 10m",
        "- name: molasses",
        "  matches: [{ path: { type: Exact, value: /slow } }]",
        "  delay: { duration: 300ms }",
        "  for: 10m",
        "- name: late",
        "  matches: [{ path: { type: Exact, value: /late } }]",
        "  delay: { duration: 30s }",
        "  for: 10m",
        "timeouts: { request: 2s }",
    ];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    let before = app.requests();
    let answer = pair.get("/broken/a").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (418, "fault-injected"), "{answer}");
    assert_eq!(raw::header(&answer, "pillion-fault"), Some("outage; policy=demo/app; abort=418"));
    assert_eq!(app.requests(), before, "it reached nobody");
    let grpc = "POST /broken HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = pair.exchange(grpc).await;
    assert_eq!(raw::header(&answer, "grpc-status"), Some("9"), "{answer}");

    let began = Instant::now();
    let answer = pair.get("/slow").await;
    assert_eq!(raw::status(&answer), 200);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(raw::header(&answer, "pillion-fault"), Some("molasses; policy=demo/app; delay=300ms"));
    let answer = pair.get("/late").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (504, "request-timeout"), "{answer}");
    let answer = pair.get("/who").await;
    assert_eq!((raw::status(&answer), raw::header(&answer, "pillion-fault")), (200, None));

    let other = pair.mesh.sidecar(SidecarSpec::caller("other")).await;
    let broken = raw::get("app.demo.mesh", "/broken");
    let answer = raw::exchange(other.outbound(), &broken).await;
    assert_eq!(raw::status(&answer), 200, "it is not for this caller: {answer}");

    eventually("it is counted", async || {
        let metrics = pair.caller.metrics().await;
        let count =
            |fault, kind| metrics.sum("pillion_faults_injected_total", &[("fault", fault), ("kind", kind)]);
        (count("outage", "abort") == 2.0 && count("molasses", "delay") == 1.0).then_some(())
    })
    .await;
    let mesh = pair.mesh.api.mesh().await.expect("the mesh's state");
    let names: Vec<&str> = mesh.faults.iter().map(|fault| fault.name.as_str()).collect();
    assert_eq!(names, ["outage", "molasses", "late"]);
    eventually("it is told as an event", async || {
        let events = pair.mesh.api.mesh().await.ok()?.events;
        events.iter().any(|it| it.kind == "fault-injected" && it.text.contains("outage")).then_some(())
    })
    .await;
}

/// Whoever keeps documents in a repository applies them again and again.
#[tokio::test]
async fn a_fault_is_not_prolonged_by_applying_it_again() {
    let mut mesh = Mesh::start().await;
    let document =
        service("app", "http") + &policy(&["faults: [{ name: drill, abort: { percent: 0.1 }, for: 1h }]"]);
    mesh.apply(&document).await;
    let end = async |mesh: &Mesh| {
        let faults = mesh.api.mesh().await.expect("the mesh's state").faults;
        assert_eq!((faults.len(), faults[0].abort_percent), (1, 0.1));
        faults[0].until_ms
    };
    let first = end(&mesh).await;
    let unix_ms = || {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later").as_millis()
    };
    // It is kept in whole seconds.
    let next_second = unix_ms() / 1000 + 1;
    eventually("time has passed", async || (unix_ms() / 1000 > next_second).then_some(())).await;
    mesh.apply(&document).await;
    assert_eq!(end(&mesh).await, first);
    mesh.server().kill().await;
    mesh.start_server().await;
    mesh.apply(&document).await;
    assert_eq!(end(&mesh).await, first);
    mesh.apply(&document.replace("0.1", "0.1, status: 418")).await;
    assert!(end(&mesh).await > first, "it is another fault");
}

#[tokio::test]
async fn a_fault_ends_by_itself() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = |time: &str| [format!("faults: [{{ abort: {{}}, for: {time} }}]")];
    let pair = Pair::with(app.address(), "http", &[], &[]).await;
    let apply = async |time: &str| {
        let lines = lines(time);
        pair.mesh.apply(&policy(&lines.each_ref().map(String::as_str))).await;
    };
    // Long enough to be seen also where the machine is busy.
    apply("10m").await;
    eventually("it begins", async || (raw::status(&pair.get("/who").await) == 503).then_some(())).await;
    eventually("it is told as begun", async || {
        let events = pair.mesh.api.mesh().await.ok()?.events;
        events.iter().any(|it| it.kind == "fault-injected").then_some(())
    })
    .await;
    apply("1s").await;
    eventually("it ends", async || (raw::status(&pair.get("/who").await) == 200).then_some(())).await;
    // The control plane has let go of it, too.
    eventually("it is told as over", async || {
        let mesh = pair.mesh.api.mesh().await.ok()?;
        let over = mesh.events.iter().any(|it| it.kind == "fault-over");
        (over && mesh.faults.is_empty()).then_some(())
    })
    .await;
}
