//! The demo's mesh, and beside its shop a drill: workloads of the test's own with whatever policies the dashboard shows
//! and the shop does not need.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pillion::demo::api::Api;
use pillion::demo::children::{Child, Spec};
use pillion::demo::guard::Guard;
use pillion::demo::sidecar::Addresses;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::support::apps::{App, HttpApp, Version, refusing};
use crate::support::mesh::{pillion, pillion_proxy};
use crate::support::{PATIENCE, soon};

/// `drill` has every policy, `busy` works on one request at a time, `nowhere` has no workload. All requests are traced, and nobody takes
/// the spans at RECEIVER.
const DOCUMENTS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: drill, namespace: demo}, spec: {selector: {app: drill}, ports: [{name: http,
  port: 80, targetPort: 8080, appProtocol: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: nowhere, namespace: demo}, spec: {selector: {app: nowhere}, ports: [{name: http,
  port: 80, targetPort: 8080, appProtocol: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: busy, namespace: demo}, spec: {selector: {app: drill}, ports: [{name: http,
  port: 80, targetPort: 8080, appProtocol: http}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: MeshConfig, metadata: {name: mesh}, spec: {accessLog: {successPercent: 100},
  tracing: {endpoint: 'http://RECEIVER', sampling: 100}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: drill, namespace: demo}, spec: {
  parentRefs: [{group: '', kind: Service, name: drill}],
  rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: catalog, port: 80}}}],
           backendRefs: [{name: drill, port: 80}]}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: drill, namespace: demo}, spec: {
  targetRefs: [{group: '', kind: Service, name: drill}],
  circuitBreaker: {consecutiveFailures: 3, openTime: {base: 1s, max: 2s}, panicPercent: 100},
  retry: {attempts: 2, codes: [500], backoff: {base: 1ms, max: 1ms}},
  hedge: {after: 20ms},
  rateLimits: [{name: exports, matches: [{path: {value: /limited}}], perClient: {requests: 1}}],
  concurrency: {type: adaptive},
  faults: [{name: outage, matches: [{path: {value: /faulty}}], abort: {status: 503, percent: 100}, for: 10m}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: busy, namespace: demo}, spec: {
  targetRefs: [{group: '', kind: Service, name: busy}],
  concurrency: {type: fixed, limit: 1, queue: {maxRequests: 0}}}}
---
{apiVersion: pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: nowhere, namespace: demo}, spec: {
  targetRefs: [{group: '', kind: Service, name: nowhere}],
  fallback: {on: [NoEndpoints], response: {status: 200, contentType: text/plain, body: later}}}}
";

/// What the drill's caller asks for, again and again; what comes of it is for the metrics to say.
const REQUESTS: [&str; 10] = [
    "GET /who HTTP/1.1\r\nhost: drill.demo.mesh\r\n",
    "GET /after-ms/40 HTTP/1.1\r\nhost: drill.demo.mesh\r\n",
    // An error, whoever is asked.
    "GET /status/500 HTTP/1.1\r\nhost: drill.demo.mesh\r\n",
    "GET /faulty HTTP/1.1\r\nhost: drill.demo.mesh\r\n",
    "GET /limited HTTP/1.1\r\nhost: drill.demo.mesh\r\n",
    "GET / HTTP/1.1\r\nhost: nowhere.demo.mesh\r\n",
    // At once, so that there is more than each instance may work on.
    "GET /after-ms/40 HTTP/1.1\r\nhost: busy.demo.mesh\r\n",
    "GET /after-ms/40 HTTP/1.1\r\nhost: busy.demo.mesh\r\n",
    "GET /after-ms/40 HTTP/1.1\r\nhost: busy.demo.mesh\r\n",
    // In two ways readable, so malformed.
    "GET / HTTP/1.1\r\nhost: drill.demo.mesh\r\nhost: catalog.demo.mesh\r\n",
];
/// Asks mesh DNS for the IPv4 address of `drill.demo.mesh` (RFC 1035).
const QUESTION: &[u8] =
    b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05drill\x04demo\x04mesh\x00\x00\x01\x00\x01";

pub(super) struct Shop {
    demo: tokio::process::Child,
    api: Api,
    drill: Drill,
    _nobody: TcpSocket,
}

struct Drill {
    traffic: JoinHandle<()>,
    sidecars: Vec<Child>,
    _apps: Vec<HttpApp>,
    _echo: App,
    _folder: tempfile::TempDir,
    _guard: Guard,
}

impl Shop {
    /// Starts everything, and traffic.
    pub(super) async fn open() -> Self {
        let (demo, url, token_file) = demo().await;
        let token = std::fs::read_to_string(&token_file).expect("the demo has its token in a file");
        let api = Api::new(&url, token.trim());
        let (nobody, receiver) = refusing();
        api.apply(&DOCUMENTS.replace("RECEIVER", &receiver.to_string()))
            .await
            .expect("the documents are accepted");
        let server = token_file.with_file_name("server.json");
        let drill = Drill::start(&api, &server).await;
        Self { demo, api, drill, _nobody: nobody }
    }

    /// Where the control plane's API is.
    pub(super) fn api(&self) -> &str {
        self.api.base().trim_start_matches("http://")
    }

    /// Ends everything, the control plane among it.
    pub(super) async fn close(&mut self) {
        self.drill.traffic.abort();
        for sidecar in &mut self.drill.sidecars {
            sidecar.kill().await;
        }
        let pid = self.demo.id().expect("it runs").cast_signed();
        kill_process(Pid::from_raw(pid).expect("a valid number"), Signal::INT).expect("it is our child");
        soon("the demo ends", self.demo.wait()).await.expect("it is our child");
    }
}

/// The demo, the address of its API, and the file with its token.
async fn demo() -> (tokio::process::Child, String, PathBuf) {
    let mut command = Command::new(pillion());
    command.args(["demo", "--dashboard-port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut demo = command.kill_on_drop(true).spawn().expect("it starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("it is piped")).lines();
    let (mut url, mut said) = (String::new(), Vec::new());
    let token_file = tokio::time::timeout(PATIENCE * 3, async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if let Some((_, address)) = line.split_once("The dashboard: ") {
                url = address.trim_end_matches('/').to_owned();
            }
            if let Some((_, rest)) = line.split_once("PILLION_TOKEN_FILE=") {
                return PathBuf::from(rest.split(' ').next().expect("a name"));
            }
            said.push(line);
        }
        panic!("it ended before it was up:\n{}", said.join("\n"));
    });
    let token_file = token_file.await.expect("it comes up");
    // Read on, as a terminal would.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (demo, url, token_file)
}

impl Drill {
    async fn start(api: &Api, server_file: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("pillion-drill-").tempdir().expect("a temporary folder");
        let guard = Guard::start(&pillion()).expect("`pillion demo-guard` starts");
        guard.remove_folder(folder.path());
        let server: serde_json::Value =
            serde_json::from_slice(&std::fs::read(server_file).expect("it runs")).expect("JSON");
        let control_plane = server["grpcAddress"].as_str().expect("an address");

        let (well, failing) = (
            HttpApp::start("drill-1", Version::Http1).await,
            HttpApp::start("drill-2", Version::Http1).await,
        );
        failing.set_failing(true);
        let apps = vec![well, failing];
        let mut sidecars = Vec::new();
        let mut callers = Vec::new();
        let workloads = apps.iter().map(|app| (app.name(), "drill", Some(app.address())));
        for (name, app, application) in workloads.chain([("driller-1", "driller", None)]) {
            let token = api.join_token("demo", app).await.expect("a join token");
            let (sidecar, addresses) =
                sidecar(folder.path(), &guard, name, app, application, control_plane, &token).await;
            sidecars.push(sidecar);
            callers.push(addresses);
        }
        let caller = callers.pop().expect("it is the last");
        let echo = App::tcp_echo().await;
        let traffic = tokio::spawn(traffic(caller, echo.address));
        Self { traffic, sidecars, _apps: apps, _echo: echo, _folder: folder, _guard: guard }
    }
}

async fn sidecar(
    folder: &Path,
    guard: &Guard,
    name: &str,
    app: &str,
    application: Option<SocketAddr>,
    control_plane: &str,
    token: &str,
) -> (Child, Addresses) {
    let file = folder.join(format!("{name}.json"));
    let mut settings = vec![
        ("--workload", name.to_owned()),
        ("--labels", format!("app={app}")),
        ("--control-plane", control_plane.to_owned()),
        ("--join-token", token.to_owned()),
        ("--addresses-file", file.display().to_string()),
        ("--dns-listen", "127.0.0.1:0".to_owned()),
        ("--health", "none".to_owned()),
    ];
    settings.extend(
        ["--inbound-listen", "--outbound-listen", "--admin-listen"]
            .map(|flag| (flag, "127.0.0.1:0".to_owned())),
    );
    settings.extend(application.map(|address| ("--ports", format!("8080={address}"))));
    let arguments =
        settings.into_iter().flat_map(|(flag, value)| [OsString::from(flag), value.into()]).collect();
    let spec = Spec { name: name.into(), program: pillion_proxy(), arguments, environment: Vec::new() };
    let mut child = Child::start(spec, folder, guard).expect("the sidecar starts");
    let addresses = child.until_file(&file, PATIENCE).await.expect("the sidecar listens");
    (child, addresses)
}

/// For ever. Nothing of it is waited for long: what comes of it is for the metrics to say.
async fn traffic(caller: Addresses, echo: SocketAddr) {
    let dns = caller.dns.expect("it answers for names");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let tunnel = format!("CONNECT {echo} HTTP/1.1\r\nhost: {echo}\r\n\r\n");
    loop {
        let requests =
            REQUESTS.map(|request| send(caller.outbound, format!("{request}connection: close\r\n\r\n")));
        let _ = socket.send_to(QUESTION, dns).await;
        tokio::join!(
            futures_util::future::join_all(requests),
            send(caller.outbound, tunnel.clone() + "words")
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends it, and reads for a while what comes back.
async fn send(to: SocketAddr, request: String) {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut buffer = vec![0; 4096];
        while stream.read(&mut buffer).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(Duration::from_millis(300), exchange).await;
}
