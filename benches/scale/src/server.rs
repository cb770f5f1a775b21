//! The control plane under measure: a process of its own, seen as its operators and the kernel see it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{time::ClockId, unistd::Pid};
use reqwest::{Client, RequestBuilder, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    Error,
    mesh::{NAMESPACE, TRUST_DOMAIN, name, policy},
};

/// For the server to come up, and for each of its answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks at something that has no other way to tell.
const LOOK: Duration = Duration::from_millis(5);

/// A running `pillion server`.
pub(crate) struct Server {
    program: PathBuf,
    folder: PathBuf,
    child: Child,
    pid: Pid,
    places: Places,
    client: Client,
    token: String,
}

/// What the server says of itself once it is up.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Places {
    pid: u32,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    admin_token_file: PathBuf,
}

impl Server {
    /// Starts one with an empty folder, on free ports.
    pub(crate) async fn start(program: &Path, folder: &Path) -> Result<Self, Error> {
        let free = "127.0.0.1:0".parse()?;
        let (child, places) = spawn(program, folder, free, free).await?;
        let token = fs::read_to_string(&places.admin_token_file)?.trim().to_owned();
        Ok(Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            pid: pid(&places)?,
            child,
            places,
            client: Client::builder().timeout(PATIENCE).build()?,
            token,
        })
    }

    /// Where sidecars connect, as text.
    pub(crate) fn address(&self) -> String {
        self.places.grpc_address.to_string()
    }

    /// As by a crash or the kernel's out-of-memory killer; then starts it anew over what it left. Gives how long it took
    /// from its start until it was up.
    pub(crate) async fn crash_and_restart(&mut self) -> Result<Duration, Error> {
        self.child.kill().await?;
        fs::remove_file(self.folder.join("server.json"))?;
        let started = Instant::now();
        let Places { grpc_address, http_address, .. } = self.places;
        (self.child, self.places) = spawn(&self.program, &self.folder, grpc_address, http_address).await?;
        self.pid = pid(&self.places)?;
        Ok(started.elapsed())
    }

    /// Brings the mesh to these documents.
    pub(crate) async fn apply(&self, yaml: String) -> Result<(), Error> {
        let request = self.client.post(self.url("/v1/apply")).header(CONTENT_TYPE, "application/yaml");
        self.send(request.body(yaml)).await.map(drop)
    }

    /// Replaces the policy of a service.
    pub(crate) async fn set_timeout(&self, service: usize, timeout_ms: u64) -> Result<(), Error> {
        let url = self.url(&format!("/v1/namespaces/{NAMESPACE}/trafficpolicies/{}", name(service)));
        let request = self.client.put(url).header(CONTENT_TYPE, "application/yaml");
        self.send(request.body(policy(service, timeout_ms))).await.map(drop)
    }

    /// A token with which workloads of a service account may join.
    pub(crate) async fn join_token(&self, service_account: &str) -> Result<String, Error> {
        self.join_token_in(NAMESPACE, service_account).await
    }

    /// The same of another namespace.
    pub(crate) async fn join_token_in(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> Result<String, Error> {
        let wanted = json!({ "kind": "join", "namespace": namespace, "serviceAccount": service_account });
        let answer = self.send(self.client.post(self.url("/v1/tokens")).json(&wanted)).await?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["token"].as_str().ok_or("the answer has no token")?.to_owned())
    }

    /// The server's own metrics; those without labels.
    pub(crate) async fn metrics(&self) -> Result<Metrics, Error> {
        let text = self.send(self.client.get(self.url("/metrics"))).await?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or_default() as u64
        };
        Ok(Metrics {
            connected: value("pillion_server_sidecars_connected"),
            subscriptions: value("pillion_server_subscriptions"),
            updates_sent: value("pillion_server_updates_sent_total"),
            updates_refused: value("pillion_server_updates_refused_total"),
        })
    }

    /// Where the dashboard and the API are.
    pub(crate) fn dashboard(&self) -> String {
        self.url("/")
    }

    /// Its file of the token that may change things.
    pub(crate) fn token_file(&self) -> &Path {
        &self.places.admin_token_file
    }

    /// How many services and edges the dashboard's first page has.
    pub(crate) async fn shows(&self) -> Result<(usize, usize), Error> {
        let page: Value = serde_json::from_str(&self.send(self.client.get(self.url("/v1/mesh"))).await?)?;
        let many = |name: &str| page[name].as_array().map_or(0, Vec::len);
        Ok((many("services"), many("edges")))
    }

    /// User and system time of all its threads so far, from the scheduler's own nanoseconds.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        Ok(Duration::from(ClockId::pid_cpu_clock_id(self.pid)?.now()?))
    }

    /// Resident memory now and at its most, MB (10⁶ bytes).
    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
            let number: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
            Ok::<_, Error>(number * 1024.0 / 1e6)
        };
        Ok(Memory { resident: kib("VmRSS")?, peak: kib("VmHWM")? })
    }

    async fn send(&self, request: RequestBuilder) -> Result<String, Error> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(format!("the control plane says {status}: {text}").into())
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.places.http_address)
    }
}

/// What the server counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metrics {
    pub(crate) connected: u64,
    pub(crate) subscriptions: u64,
    pub(crate) updates_sent: u64,
    pub(crate) updates_refused: u64,
}

/// Of a process, MB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) peak: f64,
}

async fn spawn(
    program: &Path,
    folder: &Path,
    grpc: SocketAddr,
    http: SocketAddr,
) -> Result<(Child, Places), Error> {
    let log = fs::File::options().create(true).append(true).open(folder.join("server.log"))?;
    // With the limit of open files that a login shell or a service manager gives: the server has to see to that itself.
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -S -n 1024; exec \"$0\" \"$@\""])
        .arg(program)
        .args(["server", "--log-level", "warn", "--trust-domain", TRUST_DOMAIN])
        .args(["--grpc-listen", &grpc.to_string(), "--http-listen", &http.to_string()])
        .arg("--data-dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let file = folder.join("server.json");
    let up = async {
        loop {
            if let Some(places) = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                return Ok(places);
            }
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
                return Err(format!("the server ended with {status}: {log}").into());
            }
            sleep(LOOK).await;
        }
    };
    let places: Result<Places, Error> =
        timeout(PATIENCE, up).await.map_err(|_| "the server does not come up")?;
    Ok((child, places?))
}

fn pid(places: &Places) -> Result<Pid, Error> {
    Ok(Pid::from_raw(i32::try_from(places.pid)?))
}
