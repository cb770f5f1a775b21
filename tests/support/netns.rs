//! A world of network namespaces: workloads as they are in pods. Each has an address and a sidecar of its own, to which all its
//! traffic is redirected; its application is any program, with no settings for a proxy.
//!
//! A test runs on a thread inside the bridge's namespace, together with the control plane: it reaches all workloads, and
//! nothing outside does.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pillion::demo::children::Child;
use pillion::demo::guard::Guard;
use pillion::demo::network::{Hub, Network, Place};
use pillion::demo::scrape::Samples;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::mesh::{Mesh, NAMESPACE, pillion, pillion_proxy};
use super::{PATIENCE, Shared, eventually, raw, shared, soon};

/// Sidecars run as this user, whose own connections are not redirected.
const SIDECAR_UID: &str = "15000";
const ADMIN_PORT: u16 = 15020;
const OUTBOUND_PORT: u16 = 15001;
const DNS_ADDRESS: &str = "127.0.0.1:15053";
/// Excluded from redirection everywhere: what shows that a capture sees what is plain.
const PLAIN_PORT: u16 = 9;

/// Namespaces around one control plane.
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    network: Network,
    /// The sidecar's program, where [`SIDECAR_UID`] may run it.
    sidecar: PathBuf,
    _machine: Option<Shared>,
}

/// Runs a test in a world of its own, beside other tests.
pub(crate) fn in_world(test: impl AsyncFnOnce(&World) + Send + 'static) {
    // A thread of its own: the test's may go on with another test, and could not come back.
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let guard = Guard::start(&pillion()).expect("`pillion demo-guard` starts");
        let network = Network::start(Hub::Bridge, &guard).unwrap_or_else(|error| panic!("{error}"));
        network.bridge().enter().expect("we have just made it");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let machine = shared().await;
            let world = World::new(network, machine).await;
            Box::pin(test(&world)).await;
        });
    });
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    async fn new(network: Network, machine: Shared) -> Self {
        let mesh = Mesh::start_at(network.hub().0.into(), &[]).await;
        // The folder that the programs were built in may be closed to other users, as root's home is.
        let sidecar = mesh.file("pillion-proxy");
        if std::fs::hard_link(pillion_proxy(), &sidecar).is_err() {
            std::fs::copy(pillion_proxy(), &sidecar).expect("the folder is ours");
        }
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(mesh.file("."), open).expect("the folder is ours");
        Self { mesh, network, sidecar, _machine: Some(machine) }
    }

    /// The address that every place's default route leads to, where the test and the control plane are.
    pub(crate) fn hub(&self) -> Ipv4Addr {
        self.network.hub().0
    }

    /// A namespace with nothing in it, whose programs look for a name server at the [hub](Self::hub).
    pub(crate) fn place(&self, label: &str) -> Place {
        let place = self.network.place(label).unwrap_or_else(|error| panic!("{error}"));
        let written = place.write_file("resolv.conf", &format!("nameserver {}\n", self.hub()));
        let written = written.and_then(|()| place.write_file("nsswitch.conf", "hosts: files dns\n"));
        written.expect("files in /etc/netns");
        place
    }

    /// Redirects everything in a place to a sidecar, and waits until that one is ready.
    pub(crate) async fn workload(&self, place: Place, spec: WorkloadSpec) -> Workload {
        self.redirect(&place).await;
        let mut workload = self.sidecar(place, spec).await;
        workload.until_ready().await;
        workload
    }

    /// Starts a sidecar.
    pub(crate) async fn sidecar(&self, place: Place, spec: WorkloadSpec) -> Workload {
        let token = self.mesh.api.join_token(NAMESPACE, &spec.app).await.expect("a join token");
        let mut arguments: Vec<OsString> = vec![
            format!("--reuid={SIDECAR_UID}").into(),
            format!("--regid={SIDECAR_UID}").into(),
            "--clear-groups".into(),
            self.sidecar.clone().into(),
        ];
        let mut settings = vec![
            ("--workload", spec.workload.clone()),
            ("--labels", format!("app={}", spec.app)),
            ("--control-plane", self.mesh.control_plane.to_string()),
            ("--join-token", token),
            ("--redirected", "true".into()),
            ("--dns-listen", DNS_ADDRESS.into()),
            ("--admin-listen", format!("0.0.0.0:{ADMIN_PORT}")),
            (
                "--health",
                if spec.ports.is_empty() {
                    "none".into()
                } else {
                    format!("tcp://127.0.0.1:{}", spec.ports[0])
                },
            ),
        ];
        if !spec.ports.is_empty() {
            let ports: Vec<String> = spec.ports.iter().map(u16::to_string).collect();
            settings.push(("--ports", ports.join(",")));
        }
        for (flag, value) in settings {
            arguments.extend([flag.into(), value.into()]);
        }
        arguments.extend(spec.flags.iter().map(OsString::from));
        let (program, arguments) = place.command("setpriv", arguments);
        let process = self.mesh.child(&spec.workload, program.into(), arguments);
        Workload { name: spec.workload, place, process, api: self.mesh.api.clone() }
    }

    /// Installs the redirection (again).
    pub(crate) async fn redirect(&self, place: &Place) {
        let plain = PLAIN_PORT.to_string();
        let arguments = [
            "redirect",
            "--redirect-dns",
            "--exclude-inbound-ports",
            &plain,
            "--exclude-outbound-ports",
            &plain,
        ];
        self.must(place, &pillion_proxy().display().to_string(), &arguments).await;
    }

    /// Runs a program in a place to its end, which must come soon.
    pub(crate) async fn run(&self, place: &Place, program: &str, arguments: &[&str]) -> Ran {
        self.run_within(PATIENCE, place, program, arguments).await
    }

    /// The same, with more or less patience.
    pub(crate) async fn run_within(
        &self,
        patience: Duration,
        place: &Place,
        program: &str,
        arguments: &[&str],
    ) -> Ran {
        let (ip, arguments) = place.command(program, arguments.iter().map(OsString::from).collect());
        let mut command = tokio::process::Command::new(ip);
        // What our own shell has set is for another network.
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        let run = command.args(&arguments).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(patience, run).await;
        let output = output
            .unwrap_or_else(|_| panic!("not within {} s: the end of {arguments:?}", patience.as_secs()));
        let output = output
            .unwrap_or_else(|error| panic!("cannot run {arguments:?}: {error}; see `make setup-tests`"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { succeeded: output.status.success(), output: text(&output.stdout), errors: text(&output.stderr) }
    }

    /// The same, which must succeed; gives its output.
    pub(crate) async fn must(&self, place: &Place, program: &str, arguments: &[&str]) -> String {
        let ran = self.run(place, program, arguments).await;
        assert!(ran.succeeded, "{program} {arguments:?} in {}: {}{}", place.name(), ran.output, ran.errors);
        ran.output
    }

    /// Runs `nft` where all cables meet.
    pub(crate) async fn nft(&self, arguments: &[&str]) {
        let run = tokio::process::Command::new("nft").args(arguments).output();
        let output = soon("the end of nft", run).await.expect("nft is there; see `make setup-tests`");
        assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a program in a place; it ends with the test.
    pub(crate) fn start(&self, name: &str, place: &Place, program: &str, arguments: &[&str]) -> Child {
        let (ip, arguments) = place.command(program, arguments.iter().map(OsString::from).collect());
        self.mesh.child(name, ip.into(), arguments)
    }

    /// What `curl` prints for these arguments in a place; it must succeed.
    pub(crate) async fn curl(&self, place: &Place, arguments: &[&str]) -> String {
        self.must(place, "curl", &[&["--silent", "--show-error", "--max-time", "15"], arguments].concat())
            .await
    }

    /// The virtual address of a service of the tests' namespace.
    pub(crate) async fn virtual_address(&self, service: &str) -> IpAddr {
        self.mesh.api.virtual_address(NAMESPACE, service).await.expect("the service has an address")
    }

    /// Waits until the control plane knows these workloads as ready.
    pub(crate) async fn until_registered(&self, workloads: &[&Workload]) {
        eventually("all workloads are registered and ready", async || {
            let known = self.mesh.api.workloads().await.ok()?;
            let ready = |name: &str| known.iter().any(|it| it.workload == name && it.connected && it.ready);
            workloads.iter().all(|workload| ready(&workload.name)).then_some(())
        })
        .await;
    }

    /// Records what goes through a place's cable from now on.
    pub(crate) async fn capture(&self, place: &Place) -> Capture {
        let file = self.mesh.file(&format!("{}.pcap", place.cable));
        let name = format!("tcpdump-{}", place.cable);
        // By default it gives up root, and may not write here any more.
        let arguments =
            ["-i", &place.cable, "-U", "--immediate-mode", "-Z", "root", "-w", &file.display().to_string()];
        let mut process = self.mesh.child(&name, "tcpdump".into(), arguments.map(OsString::from).into());
        let listens = process.until("listen", PATIENCE, async || {
            std::fs::metadata(&file).is_ok_and(|it| it.len() > 0).then_some(())
        });
        listens.await.expect("tcpdump records");
        Capture { file, _process: process }
    }

    /// Fails if a capture of `from`'s or `to`'s cable holds any of `secrets`, or lacks what must be in it: sidecars'
    /// handshakes, and words that go from one to the other as they are.
    pub(crate) async fn assert_mutual_tls(
        &self,
        capture: &Capture,
        from: &Place,
        to: &Place,
        secrets: &[&str],
    ) {
        const CONTROL: &[u8] = b"plain-control-marker";
        let listener = listen(to, (Ipv4Addr::UNSPECIFIED, PLAIN_PORT).into());
        let mut plain = connect(from, (to.v4, PLAIN_PORT).into()).await.expect("that port is not redirected");
        plain.write_all(CONTROL).await.expect("somebody listens");
        // What was sent before is in the file as soon as this is.
        eventually("the capture shows what is plain", async || capture.holds(CONTROL).then_some(())).await;
        drop(listener);
        assert!(capture.holds(b"pillion/"), "no handshake between sidecars was captured");
        for secret in secrets {
            assert!(!capture.holds(secret.as_bytes()), "{secret:?} went over the network as it is");
        }
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) succeeded: bool,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// What went through a cable.
pub(crate) struct Capture {
    file: PathBuf,
    _process: Child,
}

impl Capture {
    /// Whether these bytes went by in one packet.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        let file = std::fs::read(&self.file).expect("tcpdump made it");
        memchr::memmem::find(&file, bytes).is_some()
    }
}

/// What a workload is.
pub(crate) struct WorkloadSpec {
    workload: String,
    app: String,
    ports: Vec<u16>,
    flags: Vec<String>,
}

impl WorkloadSpec {
    /// One that serves nothing.
    pub(crate) fn caller(workload: &str) -> Self {
        let workload = workload.to_owned();
        Self { app: workload.clone(), workload, ports: Vec::new(), flags: Vec::new() }
    }

    /// One labelled `app: <app>`, whose application listens on `ports`.
    pub(crate) fn serving(workload: &str, app: &str, ports: &[u16]) -> Self {
        Self { app: app.into(), ports: ports.into(), ..Self::caller(workload) }
    }

    /// Further flags for the sidecar.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }
}

/// A place with a sidecar.
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) process: Child,
    api: pillion::demo::api::Api,
}

impl Deref for Workload {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Workload {
    /// Its operators' port, as the test reaches it.
    pub(crate) fn admin(&self) -> SocketAddr {
        (self.v4, ADMIN_PORT).into()
    }

    /// What it says on `/ready`: the whole answer.
    pub(crate) async fn ready(&self) -> String {
        raw::exchange(self.admin(), &raw::get("sidecar", "/ready")).await
    }

    async fn until_ready(&mut self) {
        let admin = self.admin();
        let ready = self.process.until("become ready", PATIENCE, async || {
            TcpStream::connect(admin).await.ok()?;
            let answer = raw::exchange(admin, &raw::get("sidecar", "/ready")).await;
            answer.starts_with("HTTP/1.1 200").then_some(())
        });
        ready.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// What it exposes on `/metrics` now.
    pub(crate) async fn metrics(&self) -> Samples {
        self.api.metrics(&self.admin().to_string()).await.expect("well-formed metrics")
    }

    /// A sum over its metrics.
    pub(crate) async fn count(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.sum(metric, labels)
    }

    /// Waits until it knows `count` ready endpoints of a service; asks for a port that the service does not have, so that it
    /// learns of the service and no application is reached.
    pub(crate) async fn until_endpoints(&self, service: &str, count: usize) {
        #[derive(serde::Deserialize)]
        struct Endpoint {
            service: String,
            ready: bool,
        }
        let name = format!("{service}.{NAMESPACE}");
        let mut asking =
            connect(self, (Ipv4Addr::LOCALHOST, OUTBOUND_PORT).into()).await.expect("the sidecar listens");
        asking
            .write_all(raw::get(&format!("{name}.mesh:1"), "/").as_bytes())
            .await
            .expect("the sidecar reads");
        eventually(&format!("{} knows {count} ready endpoints of {name}", self.name), async || {
            let answer = raw::exchange(self.admin(), &raw::get("sidecar", "/endpoints")).await;
            let endpoints: Vec<Endpoint> = serde_json::from_str(raw::body(&answer)).ok()?;
            let ready = endpoints.iter().filter(|it| it.service == name && it.ready).count();
            (ready == count).then_some(())
        })
        .await;
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that it has, in bytes.
    pub(crate) fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kilobytes");
        kilobytes * 1024
    }
}

/// A listener in a place.
pub(crate) fn listen(place: &Place, address: SocketAddr) -> TcpListener {
    let listener = place.inside(|| std::net::TcpListener::bind(address)).expect("the place is there");
    let listener = listener.unwrap_or_else(|error| panic!("listening on {address}: {error}"));
    listener.set_nonblocking(true).expect("a listener");
    TcpListener::from_std(listener).expect("the runtime runs")
}

/// On all IPv4 addresses of a place.
pub(crate) fn listen_on(place: &Place, port: u16) -> TcpListener {
    listen(place, (Ipv4Addr::UNSPECIFIED, port).into())
}

/// A connection from a place. It stays there, whoever uses it.
pub(crate) async fn connect(place: &Place, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => place.inside(TcpSocket::new_v4),
        SocketAddr::V6(_) => place.inside(TcpSocket::new_v6),
    };
    let socket = socket.expect("the place is there")?;
    soon(&format!("a connection to {to}"), socket.connect(to)).await
}
