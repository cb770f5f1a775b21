//! Is it the application, the network or the mesh? Three services that are slow, each for another cause, and dashboard and
//! `pillion stat --hops` tell them apart.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::apps::{HttpApp, Version};
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion, service};
use crate::support::relay::Relay;
use crate::support::starved::Starved;

/// What every application takes.
const USUAL: Duration = Duration::from_millis(5);
/// What the slow replica's takes.
const SLOW: Duration = Duration::from_millis(300);
/// Of the slow network, there and back.
const WAY: Duration = Duration::from_millis(60);
/// Requests per second to each service.
const RATE: u32 = 20;
/// The browser's tests, all together.
const BROWSER: Duration = Duration::from_secs(120);

/// A caller and three services: `payments`, of whose three workloads the third is slow; `catalog`, behind a slow network; and `cart`,
/// whose sidecar is short of CPU.
struct Scene {
    // The first to go, so that what it did to a sidecar is over when that ends.
    starved: Starved,
    loads: Vec<Load>,
    _sidecars: Vec<Sidecar>,
    _apps: Vec<HttpApp>,
    _network: Relay,
    mesh: Mesh,
}

impl Scene {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        // In turns: a balancer that looks at latency would give the slow one hardly anything, and nobody would call at 3 a.m.
        let policy = "---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: payments, namespace: demo }\nspec:\n  \
                      targetRefs: [{ group: \"\", kind: Service, name: payments }]\n  loadBalancer: { type: RoundRobin }\n";
        let services = ["payments", "catalog", "cart"].map(|name| service(name, "http")).join("---\n");
        mesh.apply(&(services + policy)).await;
        let network = Relay::start().await;
        let advertise = network.address().to_string();
        let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
        for workload in ["payments-1", "payments-2", "payments-3", "catalog-1", "cart-1"] {
            let app = HttpApp::start(workload, Version::Http1).await;
            app.set_late(if workload == "payments-3" { SLOW } else { USUAL });
            let (name, _) = workload.split_once('-').expect("they are numbered");
            let mut spec = SidecarSpec::serving(workload, name, app.address());
            if workload == "catalog-1" {
                spec = spec.flags(&["--advertise", &advertise]);
            }
            let sidecar = mesh.sidecar(spec).await;
            if workload == "catalog-1" {
                network.leads_to(sidecar.addresses.inbound);
            }
            apps.push(app);
            sidecars.push(sidecar);
        }
        let web = mesh.sidecar(SidecarSpec::caller("web")).await;
        mesh.until_ready(&sidecars.iter().chain([&web]).collect::<Vec<_>>()).await;
        let client = web.client();
        for (name, count) in [("payments", 3), ("catalog", 1), ("cart", 1)] {
            web.until_endpoints(name, count).await;
            let answer = client.get(url(name)).send().await.expect("all of it is well still");
            assert!(answer.status().is_success(), "{answer:?}");
        }
        network.set_delay(WAY / 2);
        let starved = Starved::start(&mesh, sidecars.last().expect("cart-1 is the last"));
        let loads = ["payments", "catalog", "cart"].map(|name| Load::start(client.clone(), &url(name), RATE));
        sidecars.push(web);
        let loads = loads.into();
        Self { starved, loads, _sidecars: sidecars, _apps: apps, _network: network, mesh }
    }

    /// What `pillion stat --hops` answers first: the sentence by service.
    async fn answers(&self) -> Vec<(String, String)> {
        let mut command = Command::new(pillion());
        command.args(["--server", self.mesh.api.base(), "stat", "edges", "--from", "web.demo", "--hops"]);
        let ran = timeout(BROWSER, command.output()).await.expect("it ends").expect("the program runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let text = String::from_utf8(ran.stdout).expect("text");
        let (answers, _) = text.split_once("\n\n").unwrap_or_default();
        let line = |line: &str| {
            let (_, rest) = line.split_once("web.demo")?;
            let (service, answer) = rest.trim().split_once("  ")?;
            Some((service.to_owned(), answer.trim().to_owned()))
        };
        answers.lines().skip(1).filter_map(line).collect()
    }
}

fn url(service: &str) -> String {
    format!("http://{service}.demo.mesh/who")
}

/// How the answer for each service begins.
const ANSWERS: [(&str, &str); 3] = [
    ("cart.demo", "the sidecar of cart-1 is short of CPU: "),
    ("catalog.demo", "most of the time is in the network between web and catalog-1, "),
    ("payments.demo", "payments-3 is slow: its application takes "),
];

#[tokio::test]
#[ignore = "drives Chromium, and wants the machine for itself: `make test-e2e` runs it"]
async fn a_slow_replica_a_slow_network_and_a_starved_sidecar_are_told_apart() {
    let scene = Scene::start().await;
    eprintln!("cart-1: {}", scene.starved.how());
    let last = std::sync::Mutex::new(Vec::new());
    eventually("`pillion stat --hops` tells the three apart", async || {
        let answers = scene.answers().await;
        let told = ANSWERS.len() == answers.len()
            && ANSWERS
                .iter()
                .zip(&answers)
                .all(|((service, begins), (of, answer))| service == of && answer.starts_with(begins));
        *last.lock().expect("nobody panics with it") = answers;
        told.then_some(())
    })
    .await;
    eprintln!("{:#?}", last.lock().expect("nobody panics with it"));

    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("control-plane/dashboard");
    let mut browser = Command::new("npm");
    browser
        .args(["run", "test:e2e:causes"])
        .current_dir(dashboard)
        .env("PILLION_DASHBOARD_URL", scene.mesh.api.base())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(BROWSER, browser.status()).await.expect("the browser's tests end").expect("npm runs");
    assert!(ended.success(), "what the browser saw is above: {ended}");
    for load in scene.loads {
        let report = load.finish().await;
        assert!(report.good > 0, "{:?}", report.failures.first());
    }
}
