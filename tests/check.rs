//! `pillion check` on real meshes: what it finds, in words, as a document, and by its exit code.

use std::process::Command;

use serde_json::Value;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec, pillion, service};
use crate::support::{eventually, raw};

/// Its exit code, and what it prints.
fn check(mesh: &Mesh, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(pillion());
    let output = command.args(["--server", mesh.api.base(), "check"]).args(arguments).output();
    let output = output.expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_mesh_is_well_until_it_is_not() {
    let mesh = Mesh::start().await;
    let (code, said) = check(&mesh, &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("warning   installation   the control plane answers, but no sidecar"), "{said}");

    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply(&service("app", "http")).await;
    let sidecar = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    mesh.until_ready(&[&sidecar]).await;
    eventually("all is well", async || {
        let (code, said) = check(&mesh, &[]);
        (code == Some(0)).then(|| assert!(!said.contains('→'), "{said}"))
    })
    .await;
    let (_, said) = check(&mesh, &["--output", "json"]);
    let said: Value = serde_json::from_str(&said).expect("a document");
    assert_eq!(said["severity"], "ok");
    let topics: Vec<&str> =
        said["findings"].as_array().expect("a list").iter().filter_map(|it| it["topic"].as_str()).collect();
    assert_eq!(topics.len(), 10, "{topics:?}");

    // A service that nobody serves, and a workload that is not well.
    mesh.apply(&service("gone", "http")).await;
    let ill = SidecarSpec::serving("ill-1", "app", app.address()).health("tcp://127.0.0.1:1");
    let _ill = mesh.sidecar(ill).await;
    eventually("both are found", async || {
        let (code, said) = check(&mesh, &[]);
        let found =
            said.contains("no workload serves gone.demo") && said.contains("ill-1.demo is not ready: ");
        found.then(|| assert_eq!(code, Some(3), "{said}"))
    })
    .await;
    drop(sidecar);
}

#[tokio::test]
async fn spans_that_nobody_takes_are_found_until_they_are_taken() {
    let mesh = Mesh::start().await;
    let receiver = HttpApp::start("receiver", Version::Http1).await;
    receiver.set_failing(true);
    let endpoint = format!("http://{}", receiver.address());
    let flags =
        ["--tracing-endpoint", &endpoint, "--tracing-protocol", "http/protobuf", "--tracing-sampling", "100"];
    let client = mesh.sidecar(SidecarSpec::caller("client").flags(&flags)).await;
    mesh.until_ready(&[&client]).await;
    // A request that is refused has its span, too.
    let ask = async || raw::exchange(client.outbound(), &raw::get("nobody.demo.mesh", "/")).await;
    ask().await;
    let expected = format!("telemetry      spans of client.demo do not reach {endpoint}: 500 Internal");
    eventually("the receiver that takes nothing is found", async || {
        let (code, said) = check(&mesh, &[]);
        (code == Some(3) && said.contains(&expected)).then(|| assert!(said.contains(", 1 lost\n"), "{said}"))
    })
    .await;
    receiver.set_failing(false);
    ask().await;
    eventually("what it takes again is no finding", async || {
        let (_, said) = check(&mesh, &[]);
        said.contains("ok        telemetry ").then_some(())
    })
    .await;
}
