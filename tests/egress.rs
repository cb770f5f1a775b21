//! Hosts outside the mesh: called whether or not the control plane is there, and no burden for it.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::{eventually, raw};

#[tokio::test]
async fn outside_hosts_are_called_while_the_control_plane_is_down() {
    const DISCOVERY: Duration = Duration::from_secs(3);
    let outside = HttpApp::start("outside", Version::Http1).await;
    let mut mesh = Mesh::start().await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").flags(&["--discovery-timeout", "3s"])).await;
    mesh.until_ready(&[&caller]).await;
    mesh.server().kill().await;
    let port = outside.address().port();
    let call = async |host: &str| {
        let began = Instant::now();
        let answer = raw::exchange(caller.outbound(), &raw::get(&format!("{host}:{port}"), "/who")).await;
        (answer, began.elapsed())
    };
    for host in ["127.0.0.1", "localhost"] {
        let (answer, took) = call(host).await;
        assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "outside"), "{host}: {answer}");
        assert!(took < DISCOVERY, "{host} can be no service, and yet it took {took:?}");
    }
    // Might be a service. It is 127.0.0.1 as inet_aton(3) has it, so no name server is needed.
    let (answer, _) = call("0x7f.1").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "outside"), "{answer}");
    // One that nobody knows (RFC 6761, 6.4) fails as a host outside does, whatever this machine's name servers say.
    let (answer, _) = call("nobody.invalid").await;
    assert_eq!(raw::refusal(&answer), "no-address", "{answer}");
}

#[tokio::test]
async fn many_outside_names_break_the_control_stream_neither_at_once_nor_when_it_begins_anew() {
    const NAMES: u32 = 4200;
    let mut mesh = Mesh::start().await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller]).await;
    let streams =
        async || caller.metrics().await.sum("pillion_control_plane_connects_total", &[("result", "ok")]);
    // `127.5` might be a service to the mesh, and is an address of loopback to the resolver. Nobody listens there.
    let (_held, nobody) = crate::support::apps::refusing();
    let all: Vec<u32> = (2..2 + NAMES).collect();
    for names in all.chunks(100) {
        let calls = names.iter().map(|number| {
            let request = raw::get(&format!("127.{number}:{}", nobody.port()), "/");
            let to = caller.outbound();
            async move { raw::exchange(to, &request).await }
        });
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(raw::refusal(&answer), "connect-failed", "{answer}");
        }
    }
    assert_eq!(streams().await, 1.0, "still the first stream");

    mesh.server().kill().await;
    mesh.start_server().await;
    eventually("there is a second stream", async || (streams().await >= 2.0).then_some(())).await;
    // It is heard of after all names that were followed already.
    mesh.apply_service("late", "http").await;
    eventually("a service that is new becomes known", async || {
        let answer = raw::exchange(caller.outbound(), &raw::get("late.demo.mesh", "/")).await;
        (raw::refusal(&answer) == "no-endpoints").then_some(())
    })
    .await;
    assert_eq!(streams().await, 2.0, "the second stream has lasted");
}
