//! What the cases are sent through: a pair of sidecars; Envoy and HAProxy as plain reverse proxies, as they come.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use pillion::demo::children::Child;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::upstream::{Kept, Upstream};
use crate::support::pair::Pair;
use crate::support::{eventually, soon};

/// A connection to a proxy.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// One way to the application.
#[derive(Clone)]
pub(super) struct Proxy {
    /// With its version.
    pub(super) name: String,
    entrance: Entrance,
    /// What has come out of it.
    pub(super) kept: Kept,
}

#[derive(Clone)]
enum Entrance {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Proxy {
    pub(super) async fn connect(&self) -> Box<dyn Stream> {
        let connecting = async {
            match &self.entrance {
                Entrance::Tcp(address) => Box::new(TcpStream::connect(address).await.expect("it listens")),
                Entrance::Unix(path) => {
                    Box::new(UnixStream::connect(path).await.expect("it listens")) as Box<dyn Stream>
                }
            }
        };
        soon("a connection to a proxy", connecting).await
    }
}

/// All of them, pillion first, with what they need to live.
pub(super) struct Proxies {
    /// With an application behind that speaks HTTP/1.
    pub(super) http1: Vec<Proxy>,
    /// With one that speaks HTTP/2 behind the sidecars; the others translate.
    pub(super) http2: Vec<Proxy>,
    _pairs: [Pair; 2],
    _upstreams: [Upstream; 4],
    _processes: [Child; 2],
}

impl Proxies {
    /// Starts all of them.
    pub(super) async fn start() -> Self {
        let upstreams = [
            Upstream::http1().await,
            Upstream::http2().await,
            Upstream::http1().await,
            Upstream::http1().await,
        ];
        let pairs = [
            Pair::around(upstreams[0].address, "http").await,
            Pair::around(upstreams[1].address, "kubernetes.io/h2c").await,
        ];
        let [first, second] = [0, 1].map(|index: usize| Proxy {
            name: "pillion".into(),
            entrance: Entrance::Tcp(pairs[index].caller.outbound()),
            kept: upstreams[index].kept.clone(),
        });
        let (envoy, envoy_process) = envoy(&pairs[0], &upstreams[2]).await;
        let (haproxy, haproxy_process) = haproxy(&pairs[0], &upstreams[3]).await;
        Self {
            http1: vec![first, envoy.clone(), haproxy.clone()],
            http2: vec![second, envoy, haproxy],
            _pairs: pairs,
            _upstreams: upstreams,
            _processes: [envoy_process, haproxy_process],
        }
    }
}

/// What `make setup-tests` installs.
fn program(path: &Path) -> &Path {
    let found = Command::new(path).arg("-v").output().is_ok();
    assert!(found, "{} is missing: `make setup-tests` installs it", path.display());
    path
}

/// The first word that looks like a version in what a program says of itself.
fn version(program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output().expect("it has just been found");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split([' ', '/', '-']);
    let version =
        words.find(|word| word.split('.').count() == 3 && word.starts_with(|c: char| c.is_ascii_digit()));
    version.unwrap_or_else(|| panic!("{} says no version: {text}", program.display())).to_owned()
}

async fn envoy(pair: &Pair, behind: &Upstream) -> (Proxy, Child) {
    const TYPE: &str = "type.googleapis.com/envoy.extensions.filters";
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let path = tools.join("bin/envoy");
    let version = version(program(&path), "--version");
    let entrance = pair.mesh.file("envoy.socket");
    let address =
        json!({ "socket_address": { "address": "127.0.0.1", "port_value": behind.address.port() } });
    let endpoint = json!({ "endpoint": { "address": address } });
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "next" } });
    let router = json!({ "@type": format!("{TYPE}.http.router.v3.Router") });
    let manager = json!({
        "@type": format!("{TYPE}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": router }],
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let bootstrap = json!({ "static_resources": {
        "listeners": [{
            "name": "in", "address": { "pipe": { "path": entrance } }, "filter_chains": [{ "filters": [filter] }],
        }],
        "clusters": [{
            "name": "next", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": { "cluster_name": "next", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        }],
    } });
    let file = pair.mesh.file("envoy.json");
    std::fs::write(&file, bootstrap.to_string()).expect("the folder is ours");
    let flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"].map(Into::into);
    let arguments = [vec!["-c".into(), file.into()], flags.to_vec()].concat();
    let process = pair.mesh.child("envoy", path, arguments);
    (listening(format!("Envoy {version}"), entrance, behind).await, process)
}

async fn haproxy(pair: &Pair, behind: &Upstream) -> (Proxy, Child) {
    // Debian has it where not everybody's shell looks.
    let path = ["haproxy", "/usr/sbin/haproxy"].map(PathBuf::from).into_iter();
    let mut there = path.filter(|path| Command::new(path).arg("-v").output().is_ok());
    let path = there.next().expect("HAProxy is missing: `make setup-tests` installs it");
    let version = version(&path, "-v");
    let entrance = pair.mesh.file("haproxy.socket");
    let file = pair.mesh.file("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend in\n  bind unix@{}\n  default_backend out\nbackend out\n  server next {}\n",
        entrance.display(),
        behind.address,
    );
    std::fs::write(&file, text).expect("the folder is ours");
    let process = pair.mesh.child("haproxy", path, vec!["-db".into(), "-q".into(), "-f".into(), file.into()]);
    (listening(format!("HAProxy {version}"), entrance, behind).await, process)
}

async fn listening(name: String, entrance: PathBuf, behind: &Upstream) -> Proxy {
    eventually(&format!("{name} listens"), async || UnixStream::connect(&entrance).await.ok()).await;
    Proxy { name, entrance: Entrance::Unix(entrance), kept: behind.kept.clone() }
}
