//! SIGTERM loses nothing: what is under way is finished, and what still comes goes elsewhere.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::{App, HttpApp, Version};
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

#[tokio::test]
async fn idle_connections_of_callers_do_not_hold_up_a_shutdown() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    // Callers keep theirs for longer than this test waits.
    let mut pair = Pair::with(app.address(), "http", &[], &["--drain-timeout", "1h"]).await;
    assert_eq!(raw::status(&pair.get("/who").await), 200);
    let began = std::time::Instant::now();
    pair.callee.process.terminate();
    let status = pair.callee.process.wait(Duration::from_secs(15)).await.expect("it ends");
    assert!(status.success(), "it ended with {status} after {:?}", began.elapsed());
}

#[tokio::test]
async fn opaque_connections_go_on_until_they_end() {
    let app = App::tcp_echo().await;
    let mut pair = Pair::with(app.address, "tcp", &[], &["--drain-timeout", "6s"]).await;
    let connect = "CONNECT app.demo.mesh:80 HTTP/1.1\r\nhost: app.demo.mesh:80\r\n\r\n";
    let mut tunnel = raw::begin(pair.caller.outbound(), connect).await;
    let mut head = vec![0; 1024];
    let length = soon("a tunnel", tunnel.read(&mut head)).await.expect("an answer");
    assert!(head[..length].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head[..length]));
    let mut echo = async || {
        tunnel.write_all(b"word").await.expect("it is open");
        let mut word = [0; 4];
        soon("an echo", tunnel.read_exact(&mut word)).await.expect("it is open");
        assert_eq!(&word, b"word");
    };
    echo().await;
    pair.callee.process.terminate();
    let inbound = pair.callee.addresses.inbound;
    eventually("no new connections are taken", async || {
        tokio::net::TcpStream::connect(inbound).await.is_err().then_some(())
    })
    .await;
    echo().await;
    assert!(pair.callee.process.ended().is_none());
    drop(tunnel);
    let status = pair.callee.process.wait(Duration::from_secs(10)).await.expect("it ends");
    assert!(status.success() && !pair.callee.process.log().contains("time is up"), "{status}");
}

#[tokio::test]
async fn outbound_stays_open_for_as_long_as_the_application_has_connections() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let mut pair = Pair::around(app.address(), "http").await;
    let request = "GET /who HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n";
    let mut kept = raw::begin(pair.caller.outbound(), request).await;
    let mut answered = async |begin: bool| {
        if begin {
            kept.write_all(request.as_bytes()).await.expect("it is open");
        }
        let mut answer = String::new();
        while !answer.ends_with("app-1") {
            let mut piece = [0; 1024];
            let length = soon("an answer", kept.read(&mut piece)).await.expect("it is open");
            assert_ne!(length, 0, "it is open: {answer:?}");
            answer += &String::from_utf8_lossy(&piece[..length]);
        }
        assert_eq!(raw::header(&answer, "connection"), None, "{answer}");
    };
    answered(false).await;
    pair.caller.process.terminate();
    eventually("it is shutting down", async || {
        let ready = raw::exchange(pair.caller.addresses.admin, &raw::get("x", "/ready")).await;
        (raw::status(&ready) == 503).then_some(())
    })
    .await;
    answered(true).await;
    assert_eq!(raw::status(&pair.get("/who").await), 200, "new connections are taken, too");
    answered(true).await;
    drop(kept);
    let status = pair.caller.process.wait(Duration::from_secs(10)).await.expect("it ends");
    assert!(status.success(), "it ended with {status}");
}
