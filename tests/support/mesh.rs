//! A control plane and sidecars, each a real process, ended when the test ends.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pillion::demo::api::Api;
use pillion::demo::children::{Child, Spec};
use pillion::demo::guard::Guard;
use pillion::demo::scrape::Samples;
use pillion::demo::sidecar::Addresses;
use pillion_certs::authority::Authority;
use pillion_certs::credential::Credential;
use pillion_certs::spiffe::{SpiffeId, TrustDomain};
use pillion_certs::tls::Identity;
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, Shared, eventually, shared};

/// Of every test's mesh.
pub(crate) const TRUST_DOMAIN: &str = "test.local";
/// Of every test's workloads and services.
pub(crate) const NAMESPACE: &str = "demo";

/// The two programs, built by whoever runs the tests.
pub(crate) fn pillion_proxy() -> PathBuf {
    env!("CARGO_BIN_EXE_pillion-proxy").into()
}

/// Beside the sidecar's program. Cargo builds it together with the whole workspace's tests.
pub(crate) fn pillion() -> PathBuf {
    let program = pillion_proxy().with_file_name("pillion");
    assert!(program.exists(), "{} is missing: build it with `cargo build --workspace`", program.display());
    program
}

/// One test's mesh.
pub(crate) struct Mesh {
    /// The control plane; `None` while a test has it down.
    server: Option<Child>,
    pub(crate) api: Api,
    pub(crate) control_plane: SocketAddr,
    http: SocketAddr,
    /// The root that the control plane signs with, so that a test can be any peer it likes.
    authority: Authority,
    // Before the guard, who removes it: a failing test prints what is in it.
    folder: Folder,
    guard: Guard,
    settings: Vec<String>,
    _machine: Option<Shared>,
}

/// A folder for one test, gone with it. A failing test prints the logs in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("pillion-test-").tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    #[expect(clippy::print_stderr, reason = "it is for whoever reads why a test failed")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(self.path()) else { return };
        let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for log in logs {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("──── {}\n{last}", log.file_name().unwrap_or_default().display());
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerFile {
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    admin_token_file: PathBuf,
}

impl Mesh {
    /// A control plane with nothing in it.
    pub(crate) async fn start() -> Self {
        let machine = shared().await;
        Self { _machine: Some(machine), ..Self::start_with(&[]).await }
    }

    /// The same, with further flags for `pillion server`, in a test that has the machine [alone](super::alone).
    pub(crate) async fn start_with(settings: &[&str]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), settings).await
    }

    /// The same, with sidecars finding the control plane at `address`.
    pub(crate) async fn start_at(address: IpAddr, settings: &[&str]) -> Self {
        let folder = Folder::new();
        let guard = Guard::start(&pillion()).expect("`pillion demo-guard` starts");
        guard.remove_folder(folder.path());
        let trust_domain: TrustDomain = TRUST_DOMAIN.parse().expect("a valid name");
        let authority = Authority::generate(trust_domain, SystemTime::now()).expect("a fresh authority");
        let pem = authority.to_pem();
        std::fs::write(folder.path().join("ca.crt"), pem.chain).expect("the folder is ours");
        std::fs::write(folder.path().join("ca.key"), pem.key).expect("the folder is ours");
        let mut mesh = Self {
            server: None,
            api: Api::new("http://127.0.0.1:0", ""),
            control_plane: (address, 0).into(),
            http: (Ipv4Addr::LOCALHOST, 0).into(),
            authority,
            guard,
            folder,
            settings: settings.iter().map(ToString::to_string).collect(),
            _machine: None,
        };
        mesh.start_server().await;
        mesh
    }

    /// Starts the control plane: at first on free ports, then on those it had.
    pub(crate) async fn start_server(&mut self) {
        let data = self.file("server");
        let server_file = data.join("server.json");
        // One that was killed left its own behind.
        let _ = std::fs::remove_file(&server_file);
        let mut arguments: Vec<OsString> = vec!["server".into(), "--data-dir".into(), data.into()];
        let settings = [
            ("--grpc-listen", self.control_plane.to_string()),
            ("--http-listen", self.http.to_string()),
            ("--trust-domain", TRUST_DOMAIN.into()),
            ("--ca-cert", self.file("ca.crt").display().to_string()),
            ("--ca-key", self.file("ca.key").display().to_string()),
        ];
        for (flag, value) in settings {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.extend(self.settings.iter().map(OsString::from));
        let mut server = self.child("control-plane", pillion(), arguments);
        let file: ServerFile = server.until_file(&server_file, PATIENCE).await.expect("the server starts");
        let token = std::fs::read_to_string(&file.admin_token_file).expect("the server made an admin token");
        self.api = Api::new(&format!("http://{}", file.http_address), &token);
        (self.control_plane, self.http) = (file.grpc_address, file.http_address);
        self.server = Some(server);
    }

    /// The control plane's process.
    pub(crate) fn server(&mut self) -> &mut Child {
        self.server.as_mut().expect("the control plane runs")
    }

    /// It answers, and nothing in it has panicked.
    pub(crate) async fn server_is_well(&self) -> bool {
        let log = self.server.as_ref().expect("the control plane runs").log();
        self.api.mesh().await.is_ok() && !log.contains("panicked")
    }

    /// A file of this name in the test's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts any program with its log in the test's folder.
    pub(crate) fn child(&self, name: &str, program: PathBuf, arguments: Vec<OsString>) -> Child {
        self.start_child(Spec { name: name.into(), program, arguments, environment: Vec::new() })
    }

    fn start_child(&self, spec: Spec) -> Child {
        Child::start(spec, self.folder.path(), &self.guard).expect("the program starts")
    }

    /// Applies documents that must be accepted.
    pub(crate) async fn apply(&self, yaml: &str) {
        self.api.apply(yaml).await.expect("the documents are accepted");
    }

    /// A service that selects `app: <name>`, port 80 to 8080.
    pub(crate) async fn apply_service(&self, name: &str, app_protocol: &str) {
        self.apply(&service(name, app_protocol)).await;
    }

    /// Starts a sidecar and waits until it listens.
    pub(crate) async fn sidecar(&self, spec: SidecarSpec) -> Sidecar {
        let addresses_file = self.file(&format!("{}.json", spec.workload));
        let _ = std::fs::remove_file(&addresses_file);
        let token = self.api.join_token(&spec.namespace, &spec.app).await.expect("a join token");
        let mut arguments: Vec<OsString> = Vec::new();
        let mut settings = vec![
            ("--workload", spec.workload.clone()),
            ("--labels", spec.labels.join(",")),
            ("--control-plane", self.control_plane.to_string()),
            ("--join-token", token),
            ("--addresses-file", addresses_file.display().to_string()),
            ("--inbound-listen", "127.0.0.1:0".into()),
            ("--outbound-listen", "127.0.0.1:0".into()),
            ("--admin-listen", "127.0.0.1:0".into()),
        ];
        settings.extend(spec.health.map(|health| ("--health", health)));
        if !spec.ports.is_empty() {
            let ports: Vec<_> =
                spec.ports.iter().map(|(port, address)| format!("{port}={address}")).collect();
            settings.push(("--ports", ports.join(",")));
        }
        if !spec.listeners.is_empty() {
            let listeners: Vec<_> =
                spec.listeners.iter().map(|target| format!("127.0.0.1:0={target}")).collect();
            settings.push(("--listeners", listeners.join(",")));
        }
        for (flag, value) in settings {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.extend(spec.further.iter().map(OsString::from));
        if !spec.command.is_empty() {
            arguments.insert(0, "run".into());
            arguments.push("--".into());
            arguments.extend(spec.command.iter().map(OsString::from));
        }
        let mut process = self.start_child(Spec {
            name: spec.workload.clone(),
            program: pillion_proxy(),
            arguments,
            environment: spec.environment,
        });
        let addresses = process.until_file(&addresses_file, PATIENCE).await.expect("the sidecar listens");
        Sidecar { workload: spec.workload, process, addresses, api: self.api.clone() }
    }

    /// Waits until the control plane has exactly these workloads, connected and ready.
    pub(crate) async fn until_ready(&self, workloads: &[&Sidecar]) {
        let mut wanted: Vec<&str> = workloads.iter().map(|sidecar| sidecar.workload.as_str()).collect();
        wanted.sort_unstable();
        let what = format!("{wanted:?} are registered and ready");
        eventually(&what, async || {
            let mut ready = self.api.workloads().await.ok()?;
            ready.retain(|workload| workload.connected && workload.ready);
            let mut names: Vec<&str> = ready.iter().map(|workload| workload.workload.as_str()).collect();
            names.sort_unstable();
            (names == wanted).then_some(())
        })
        .await;
    }

    /// A certificate as the control plane would sign it.
    pub(crate) fn credential(&self, service_account: &str) -> Credential {
        self.credential_for(service_account, Duration::from_secs(3600))
    }

    /// One that is good for so long.
    pub(crate) fn credential_for(&self, service_account: &str, validity: Duration) -> Credential {
        let id = spiffe_id(service_account);
        self.authority.issue(&id, validity, SystemTime::now()).expect("a fresh certificate")
    }

    /// The identity of a workload that a test plays itself.
    pub(crate) fn identity(&self, service_account: &str) -> Identity {
        Identity::new(self.credential(service_account), self.authority.trust_bundle())
    }
}

/// `spiffe://test.local/ns/demo/sa/<service account>`.
pub(crate) fn spiffe_id(service_account: &str) -> SpiffeId {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{service_account}").parse().expect("a valid SPIFFE ID")
}

/// A `Service` document that selects `app: <name>`, port 80 to 8080.
pub(crate) fn service(name: &str, app_protocol: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\nspec:\n  \
         selector: {{ app: {name} }}\n  \
         ports: [{{ name: main, port: 80, targetPort: 8080, appProtocol: {app_protocol} }}]\n"
    )
}

/// How a sidecar is to be started.
pub(crate) struct SidecarSpec {
    workload: String,
    namespace: String,
    app: String,
    labels: Vec<String>,
    ports: Vec<(u16, SocketAddr)>,
    listeners: Vec<String>,
    health: Option<String>,
    further: Vec<String>,
    environment: Vec<(String, OsString)>,
    command: Vec<String>,
}

impl SidecarSpec {
    /// A workload of the service account and label `app`, that serves nothing and calls whom it likes.
    pub(crate) fn caller(workload: &str) -> Self {
        Self {
            workload: workload.into(),
            namespace: NAMESPACE.into(),
            app: workload.into(),
            labels: vec![format!("app={workload}")],
            ports: Vec::new(),
            listeners: Vec::new(),
            health: Some("none".into()),
            further: Vec::new(),
            environment: Vec::new(),
            command: Vec::new(),
        }
    }

    /// A workload labelled `app: <app>` whose port 8080 is `application`.
    pub(crate) fn serving(workload: &str, app: &str, application: SocketAddr) -> Self {
        let labels = vec![format!("app={app}")];
        Self { app: app.into(), labels, ports: vec![(8080, application)], ..Self::caller(workload) }
    }

    /// It is of another namespace.
    pub(crate) fn of_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Another port that it serves.
    pub(crate) fn port(mut self, port: u16, application: SocketAddr) -> Self {
        self.ports.push((port, application));
        self
    }

    /// An explicit listener that leads to `<service>:<port>`.
    pub(crate) fn listener(mut self, target: &str) -> Self {
        self.listeners.push(target.into());
        self
    }

    /// How its application's health is told.
    pub(crate) fn health(mut self, health: &str) -> Self {
        self.health = Some(health.into());
        self
    }

    /// Its application's health is told as its services' policies say.
    pub(crate) fn health_by_policy(mut self) -> Self {
        self.health = None;
        self
    }

    /// It is started as one with this program.
    pub(crate) fn running(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(ToString::to_string).collect();
        self
    }

    /// A variable of its environment.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Further flags.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.further.extend(flags.iter().map(ToString::to_string));
        self
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    pub(crate) workload: String,
    pub(crate) process: Child,
    pub(crate) addresses: Addresses,
    api: Api,
}

impl Sidecar {
    /// What it exposes on `/metrics` now.
    pub(crate) async fn metrics(&self) -> Samples {
        self.api.metrics(&self.addresses.admin.to_string()).await.expect("well-formed metrics")
    }

    /// Waits until it knows `count` ready endpoints of a service of ours.
    ///
    /// The control plane's registry knows of a workload a moment before callers are told. It asks for a port that the service
    /// does not have: then the sidecar learns of the service, and nothing reaches the application.
    pub(crate) async fn until_endpoints(&self, service: &str, count: usize) {
        #[derive(serde::Deserialize)]
        struct Endpoint {
            service: String,
            ready: bool,
        }
        let host = format!("{service}.{NAMESPACE}");
        let request = format!("GET / HTTP/1.1\r\nhost: {host}.mesh:1\r\nconnection: close\r\n\r\n");
        super::raw::exchange(self.outbound(), &request).await;
        let admin = format!("http://{}/endpoints", self.addresses.admin);
        eventually(&format!("{} knows {count} ready endpoints of {host}", self.workload), async || {
            let text = reqwest::Client::builder().no_proxy().build().ok()?.get(&admin).send().await.ok()?;
            let endpoints: Vec<Endpoint> = serde_json::from_str(&text.text().await.ok()?).ok()?;
            let ready = endpoints.iter().filter(|e| e.service == host && e.ready).count();
            (ready == count).then_some(())
        })
        .await;
    }

    /// SIGTERM to this one process, as most supervisors send it; an application that it runs has to be told by it.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(self.process.pid().cast_signed()).expect("a process has a number");
        kill_process(pid, Signal::TERM).expect("it is our child");
    }

    /// Where its application finds it.
    pub(crate) fn outbound(&self) -> SocketAddr {
        self.addresses.outbound
    }

    /// An HTTP client that has it in `http_proxy`.
    pub(crate) fn client(&self) -> reqwest::Client {
        pillion::demo::sample::client_through(self.outbound()).expect("a valid proxy address")
    }
}
