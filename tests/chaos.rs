//! kill -9 under 200 requests per second, of each part in turn. Every failed request is counted and printed.

use pillion::demo::children::Child;
use pillion::demo::sample::SampleAddress;
use tokio::sync::RwLockWriteGuard;

use crate::support::load::Load;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion};
use crate::support::{PATIENCE, alone, eventually};

const RATE: u32 = 200;

/// Good answers that are waited for after a blow: at this rate they take 4 s, which is longer than the lease.
const AFTERWARDS: u64 = 800;

/// Three replicas of `app.demo`, each a process behind a sidecar of its own, a caller, and a load.
struct Scene {
    mesh: Mesh,
    replicas: Vec<(Child, Sidecar)>,
    _caller: Sidecar,
    load: Load,
    _alone: RwLockWriteGuard<'static, ()>,
}

async fn scene() -> Scene {
    let alone = alone().await;
    let mut mesh = Mesh::start_with(&["--lease", "3s", "--heartbeat", "1s"]).await;
    mesh.apply_service("app", "http").await;
    let mut replicas = Vec::new();
    for number in 1..=3 {
        let name = format!("app-{number}");
        let file = mesh.file(&format!("{name}.address"));
        let mut arguments: Vec<std::ffi::OsString> = vec!["demo-service".into()];
        for argument in ["--role", "payments", "--name", &name, "--latency", "10ms", "--address-file"] {
            arguments.push(argument.into());
        }
        arguments.push(file.clone().into());
        let mut process = mesh.child(&format!("{name}.app"), pillion(), arguments);
        let SampleAddress { address } = process.until_file(&file, PATIENCE).await.expect("it listens");
        let health = format!("http://{address}/healthz");
        let sidecar = mesh.sidecar(SidecarSpec::serving(&name, "app", address).health(&health)).await;
        replicas.push((process, sidecar));
    }
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    let all: Vec<&Sidecar> = replicas.iter().map(|(_, sidecar)| sidecar).chain([&caller]).collect();
    mesh.until_ready(&all).await;
    caller.until_endpoints("app", 3).await;
    assert!(mesh.server().ended().is_none());
    let load = Load::start(caller.client(), "http://app.demo.mesh/charge", RATE);
    load.until_good(300).await;
    Scene { mesh, replicas, _caller: caller, load, _alone: alone }
}

impl Scene {
    /// Goes on for a while after the blow, then fails if more requests failed than may.
    #[expect(clippy::print_stdout, reason = "the count is a result, also when it is small enough")]
    async fn conclude(self, what: &str, may_fail: usize) {
        self.load.until_good(AFTERWARDS).await;
        let report = self.load.finish().await;
        println!("kill -9 of {what}: {} of {} requests failed", report.failures.len(), report.good);
        assert!(report.failures.len() <= may_fail, "more than {may_fail}: {:#?}", report.failures);
    }
}

/// At 200 requests per second over three replicas that take 10 to 40 ms, this many are with one of them, at the very most.
const IN_FLIGHT: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_replica() {
    let mut scene = scene().await;
    scene.replicas[0].0.kill().await;
    scene.conclude("a replica", IN_FLIGHT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_sidecar() {
    let mut scene = scene().await;
    scene.replicas[0].1.process.kill().await;
    scene.conclude("a replica's sidecar", IN_FLIGHT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_control_plane_and_its_state_is_there_again() {
    let mut scene = scene().await;
    scene.mesh.server().kill().await;
    scene.load.until_good(600).await;
    scene.mesh.start_server().await;
    eventually("every sidecar has found the new control plane", async || {
        let workloads = scene.mesh.api.workloads().await.ok()?;
        (workloads.len() == 4 && workloads.iter().all(|w| w.connected && w.ready)).then_some(())
    })
    .await;
    // The documents are there: applying them again changes nothing, and the service still stands.
    let service =
        scene.mesh.api.document("demo", "services", "app").await.expect("the Service is still there");
    assert_eq!(service["spec"]["selector"]["app"], "app");
    // The lists of endpoints have been the same throughout, and still are when the lease is over.
    scene.conclude("the control plane", 0).await;
}
