//! A rolling restart of every workload, application and sidecar, under load loses no request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pillion::demo::children::Child;

use crate::support::load::Load;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion};
use crate::support::{alone, eventually};

/// Requests per second, from both clients together.
const RATE: u32 = 300;
/// Says how often every workload is restarted; once, where it is not set.
const ROUNDS: &str = "PILLION_ROLLING_ROUNDS";
/// For a whole shutdown; a sixth of it is for word to spread.
const DRAIN: &str = "9s";

/// How an application and its sidecar belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    /// `pillion-proxy run -- <application>`: the sidecar alone is told to end.
    One,
    /// Both are told to end at the same time, as in a pod.
    Two,
}

/// A service's workload, which begins and ends several times.
struct Server {
    how: As,
    role: &'static str,
    name: String,
    /// Its application listens there in every one of its lives.
    address: SocketAddr,
    sidecar: Sidecar,
    application: Option<Child>,
}

impl Server {
    async fn start(mesh: &Mesh, how: As, role: &'static str, number: usize) -> Self {
        let name = format!("{role}-{number}");
        let address = unused();
        let (sidecar, application) = Self::run(mesh, how, role, &name, address).await;
        Self { how, role, name, address, sidecar, application }
    }

    async fn run(
        mesh: &Mesh,
        how: As,
        role: &str,
        name: &str,
        address: SocketAddr,
    ) -> (Sidecar, Option<Child>) {
        let (program, listen) = (pillion().display().to_string(), address.to_string());
        let mut command =
            vec![&*program, "demo-service", "--role", role, "--name", name, "--listen", &listen];
        let health = format!("http://{address}/healthz");
        let spec = SidecarSpec::serving(name, role, address).health(&health);
        let spec = spec.flags(&["--drain-timeout", DRAIN]);
        match how {
            As::One => (mesh.sidecar(spec.running(&command)).await, None),
            As::Two => {
                let sidecar = mesh.sidecar(spec).await;
                let addresses = mesh.file(&format!("{name}.json")).display().to_string();
                command.extend(["--sidecar", &addresses]);
                let arguments = command[1..].iter().map(Into::into).collect();
                let application = mesh.child(&format!("{name}-application"), pillion(), arguments);
                (sidecar, Some(application))
            }
        }
    }

    /// One goes and then, as its successor has the same name and port, that one comes.
    async fn restart(&mut self, mesh: &Mesh) {
        let Self { how, role, name, address, sidecar, application } = self;
        sidecar.terminate();
        if let Some(application) = application {
            application.terminate();
        }
        for process in [&mut sidecar.process].into_iter().chain(application) {
            let status = process.wait(Duration::from_secs(15)).await.expect("it ends");
            assert!(status.success(), "{} ended with {status}:\n{}", process.name(), process.last_words());
        }
        (self.sidecar, self.application) = Self::run(mesh, *how, role, name, *address).await;
    }
}

/// A workload that only calls others: a sidecar, and the test as its application, with a share of the load.
struct Client {
    name: String,
    method: reqwest::Method,
    sidecar: Sidecar,
    load: Load,
    /// Of its earlier lives.
    good: u64,
    failures: Vec<String>,
}

impl Client {
    async fn start(mesh: &Mesh, number: usize, method: reqwest::Method) -> Self {
        let name = format!("client-{number}");
        let (sidecar, load) = Self::run(mesh, &name, &method).await;
        Self { name, method, sidecar, load, good: 0, failures: Vec::new() }
    }

    async fn run(mesh: &Mesh, name: &str, method: &reqwest::Method) -> (Sidecar, Load) {
        let sidecar = mesh.sidecar(SidecarSpec::caller(name).flags(&["--drain-timeout", DRAIN])).await;
        let mut request = sidecar.client().request(method.clone(), "http://web.demo.mesh/");
        if *method == reqwest::Method::POST {
            request = request.body("what must not be sent twice");
        }
        (sidecar, Load::of(request, RATE / 2))
    }

    /// Its sidecar is told to end at the same time as its application, which still has requests under way.
    async fn restart(&mut self, mesh: &Mesh) {
        self.sidecar.process.terminate();
        let (sidecar, load) = Self::run(mesh, &self.name, &self.method).await;
        let ended = std::mem::replace(&mut self.load, load).finish().await;
        let mut old = std::mem::replace(&mut self.sidecar, sidecar);
        let status = old.process.wait(Duration::from_secs(15)).await.expect("it ends");
        assert!(status.success(), "{} ended with {status}", self.name);
        self.good += ended.good;
        self.failures.extend(ended.failures);
    }
}

/// Nobody may send these twice, so none of them may be refused either.
#[tokio::test]
async fn every_workload_that_is_run_as_one_is_restarted_under_load_and_no_request_fails() {
    restart_all(As::One, reqwest::Method::POST).await;
}

/// An application that hears of the end when its sidecar does takes no more connections while callers still send.
#[tokio::test]
async fn every_pair_of_application_and_sidecar_is_restarted_under_load_and_no_request_fails() {
    restart_all(As::Two, reqwest::Method::GET).await;
}

async fn restart_all(how: As, method: reqwest::Method) {
    let _machine = alone().await;
    let mesh = Mesh::start_with(&[]).await;
    mesh.apply_service("web", "http").await;
    mesh.apply_service("catalog", "http").await;
    let mut servers = Vec::new();
    for (role, number) in [("web", 1), ("web", 2), ("catalog", 1), ("catalog", 2), ("catalog", 3)] {
        servers.push(Server::start(&mesh, how, role, number).await);
    }
    for server in &servers {
        until_ready(&mesh, &server.name).await;
    }
    let mut clients =
        [Client::start(&mesh, 1, method).await, Client::start(&mesh, 2, reqwest::Method::GET).await];
    for client in &clients {
        client.load.until_good(100).await;
    }

    for _ in 0..rounds() {
        for server in &mut servers {
            server.restart(&mesh).await;
            until_ready(&mesh, &server.name).await;
            for client in &clients {
                client.load.until_good(50).await;
            }
        }
        for client in &mut clients {
            client.restart(&mesh).await;
            client.load.until_good(50).await;
        }
    }

    let (mut good, mut failures) = (0, Vec::new());
    for client in clients {
        let last = client.load.finish().await;
        good += client.good + last.good;
        failures.extend(client.failures.into_iter().chain(last.failures));
    }
    assert_eq!(failures, [] as [String; 0], "of {} requests", good + failures.len() as u64);
}

/// Callers know of it then, too, or are about to: it would be waited for in the same way before the next one is ended.
async fn until_ready(mesh: &Mesh, name: &str) {
    eventually(&format!("{name} is ready"), async || {
        let workloads = mesh.api.workloads().await.ok()?;
        workloads.iter().any(|workload| workload.workload == name && workload.ready).then_some(())
    })
    .await;
}

#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the programs")]
fn rounds() -> usize {
    std::env::var(ROUNDS).ok().map_or(1, |rounds| rounds.parse().expect("a number of rounds"))
}

/// An address that stays free while nobody listens there: other tests' programs are given ports by the system, but on
/// other addresses of this host.
fn unused() -> SocketAddr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let listener = std::net::TcpListener::bind((Ipv4Addr::new(127, 64 | high, low, last), 0));
    listener.and_then(|listener| listener.local_addr()).expect("loopback has free ports")
}
