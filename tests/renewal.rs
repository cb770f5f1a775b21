//! A sidecar's stream to the control plane goes on beyond the end of the certificate that it was opened with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pillion_api::wire::{Health, Hello, WorkloadPort};
use pillion_certs::{Identity, RenewalStatus};
use pillion_proxy::control::directory::Directory;
use pillion_proxy::control::own::OwnPolicies;
use pillion_proxy::control::stream::{Known, Stream};
use pillion_proxy::drain;
use pillion_proxy::net::resolve::Resolver;
use pillion_proxy::telemetry::gather::Gathered;
use pillion_proxy::telemetry::prometheus::Registry;
use pillion_proxy::telemetry::tap::Taps;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

use crate::support::eventually;
use crate::support::mesh::Mesh;

fn hello() -> Hello {
    Hello {
        instance_uid: "app-1-0".into(),
        workload: "app-1".into(),
        labels: [("app".to_owned(), "app".to_owned())].into(),
        ports: vec![WorkloadPort { port: 8080, ..WorkloadPort::default() }],
        inbound_address: "127.0.0.1:1".into(),
        admin_address: "127.0.0.1:2".into(),
        weight: 1,
        ..Hello::default()
    }
}

/// Asks the control plane.
async fn ask(mesh: &Mesh, path: &str) -> reqwest::Response {
    let token = std::fs::read_to_string(mesh.file("server/admin.token")).expect("the server made one");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}{path}", mesh.api.base());
    client.get(url).bearer_auth(token.trim()).send().await.expect("an answer")
}

/// The one workload, as the control plane shows it.
async fn workload(mesh: &Mesh) -> Value {
    let text = ask(mesh, "/v1/mesh/workloads").await.text().await.expect("a body");
    let mut all: Value = serde_json::from_str(&text).expect("a document");
    all[0].take()
}

/// How many updates the control plane has sent.
async fn updates(mesh: &Mesh) -> String {
    let metrics = ask(mesh, "/metrics").await.text().await.expect("a body");
    let line = metrics.lines().find(|line| line.starts_with("pillion_server_updates_sent_total "));
    line.expect("it is counted").to_owned()
}

/// Attempts to connect with that result.
fn attempts(registry: &Registry, result: &str) -> bool {
    let line = format!("pillion_control_plane_connects_total{{result=\"{result}\"}} 1");
    registry.render().lines().any(|shown| shown == line)
}

#[tokio::test]
async fn a_new_certificate_gets_a_stream_of_its_own_and_nobody_hears_of_a_loss() {
    let mut mesh = Mesh::start().await;
    mesh.apply_service("app", "http").await;
    let identity = mesh.identity("app");
    let registry = Arc::new(Registry::new());
    let (health, healths) = watch::channel(Health { ready: true, ..Health::default() });
    let (policies, mut own) = watch::channel(OwnPolicies::default());
    let (_trigger, drain) = drain::channel();
    let (_directory, wishes) = Directory::new(Duration::from_secs(1));
    let (_renewed, renewals) = watch::channel(RenewalStatus::new(&identity));
    let taps = Taps::new(registry.clone());
    let mut watched = taps.follow();
    let stream = Stream {
        address: mesh.control_plane.to_string(),
        resolver: Resolver::system(),
        identity: Identity::clone(&identity),
        hello: hello(),
        registry: registry.clone(),
        health: healths,
        drain,
        wishes,
        gathered: Rc::new(RefCell::new(Gathered::new(registry.clone()))),
        renewals,
        mesh: watch::Sender::new(None),
        policies,
        known: Known::new(Instant::now()),
        taps,
    };
    let test = async {
        spawn_local(stream.run());
        eventually("its services are known", async || own.borrow().serves(8080, &name()).then_some(())).await;
        let watcher = ask(&mesh, "/v1/mesh/tap?resource=svc/app.demo").await;
        assert_eq!(watcher.status(), 200);
        eventually("it is watched", async || watched.borrow_and_update().is_some().then_some(())).await;
        let before = workload(&mesh).await;
        assert_eq!(before["connected"], true, "{before}");
        let sent = updates(&mesh).await;

        let next = mesh.credential_for("app", Duration::from_secs(7200));
        identity.replace_credential(next).expect("it is of the same workload");
        eventually("there is another stream", async || attempts(&registry, "replaced").then_some(())).await;
        eventually("the former one has ended", async || {
            let metrics = ask(&mesh, "/metrics").await.text().await.expect("a body");
            metrics.contains("pillion_server_sidecars_connected 1\n").then_some(())
        })
        .await;
        // What is said and heard goes the new way.
        health.send_replace(Health { ready: false, reason: "busy".into(), ..Health::default() });
        eventually("its health is heard of", async || {
            (workload(&mesh).await["reason"] == "busy").then_some(())
        })
        .await;
        assert_eq!(updates(&mesh).await, sent, "nothing that it has is sent again");
        own.mark_unchanged();
        mesh.apply_service("app", "kubernetes.io/h2c").await;
        eventually("its configuration comes", async || own.has_changed().expect("it runs").then_some(()))
            .await;

        let after = workload(&mesh).await;
        assert_eq!(
            (&after["connected"], &after["connectedMs"]),
            (&before["connected"], &before["connectedMs"])
        );
        assert!(!watched.has_changed().expect("it runs"), "whoever watches goes on without a gap");
        assert!(attempts(&registry, "ok") && !attempts(&registry, "failed"), "it was no reconnect");
    };
    LocalSet::new().run_until(test).await;
    let log = mesh.server().log();
    assert!(!log.contains("WARN"), "{log}");
}

fn name() -> pillion_api::name::ServiceName {
    "app.demo".parse().expect("a name")
}
