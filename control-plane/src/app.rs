//! The server: the only place where all parts meet.

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::Router;
use pillion_certs::{Authority, Identity};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use crate::{
    authority,
    clock::{unix_ms, unix_ms_of},
    config::ServerConfig,
    error::Error,
    history::{EventKind, History, Snapshots},
    mesh_api::{self, MeshState, Ticker, mesh_router, view::TrustAnchor},
    publish::Compiler,
    registry::{Member, Registry},
    resource::{Kind, cache::DocumentCache, claims},
    serve::{Listener, Mesh},
    shutdown::{self, Shutdown, Trigger},
    store::{Store, embedded::EmbeddedStore},
    tap::Taps,
    telemetry::Telemetry,
    token::{ADMIN_TOKEN_FILE, Tokens},
    web::{self, Outcome, WebParts, WebState},
};

/// Where tools of this machine find a running server.
pub const SERVER_FILE: &str = "server.json";

/// How often idle series are looked for, and the figures written to disk.
const HISTORY_SWEEP: Duration = Duration::from_secs(60);
/// Both listeners have this long to finish at shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(4);

/// A server whose ports are bound and whose state is read, ready to run.
pub struct Server {
    config: ServerConfig,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    listener: Listener,
    http: Http,
    identity: Identity,
    mesh: Arc<Mesh>,
    state: Arc<MeshState>,
    snapshots: Arc<Snapshots>,
    ticker: Arc<Ticker>,
    shutdown: Trigger,
    ending: Shutdown,
}

/// The port of people and tools with what it serves.
struct Http {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
}

/// What [`SERVER_FILE`] says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerFile<'a> {
    pid: u32,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    admin_token_file: &'a Path,
    trust_anchors: &'a Path,
}

/// Runs a server until `shutdown` completes.
///
/// # Errors
/// Whatever keeps it from starting; afterwards only the failure of one of its own parts.
pub async fn run(config: ServerConfig, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let store = open_store(&config.data_dir).await?;
    Server::bind(config, store).await?.run(shutdown).await
}

impl Server {
    /// Reads the store, loads or makes the authority, compiles once and binds both ports.
    ///
    /// # Errors
    /// Whatever keeps the server from starting, with what to do about it where that is known.
    pub async fn bind(config: ServerConfig, store: Arc<dyn Store>) -> Result<Self, Error> {
        let telemetry = Arc::new(Telemetry::new());
        let now = SystemTime::now();
        let authority =
            authority::load(config.authority.as_ref(), store.as_ref(), &config.trust_domain, now).await?;
        let authority = Arc::new(authority);
        telemetry.authority_ends(authority.not_after());
        authority::write_trust_anchors(&authority, &config.data_dir)?;
        let identity = authority::own_identity(&authority, config.leaf_ttl, now)?;

        let cache = Arc::new(DocumentCache::new(Arc::clone(&store)));
        let tokens = Tokens::new(Arc::clone(&store));
        tokens
            .ensure_admin(&config.data_dir, now)
            .await
            .map_err(|error| Error::failed("provide the administrator's token", error))?;
        let read_failed = |error| Error::failed("read the store", error);
        let completed = claims::complete(store.as_ref()).await;
        let completed = completed.map_err(|error| Error::failed("give addresses to services", error))?;
        if completed > 0 {
            info!(
                services = completed,
                "gave addresses to services that an earlier release has left without"
            );
        }
        let registry = Arc::new(Registry::load(Arc::clone(&store), config.lease).await.map_err(read_failed)?);
        let (compiler, publisher) = Compiler::start(
            Arc::clone(&store),
            Arc::clone(&cache),
            Arc::clone(&registry),
            Arc::clone(&telemetry),
        )
        .await
        .map_err(read_failed)?;
        info!(
            workloads = registry.len(),
            documents = compiler.documents().len(),
            services = publisher.compiled().len(),
            "state read"
        );

        let (grpc_socket, grpc_address) = bind(config.grpc_listen, "sidecars")?;
        let (http_socket, http_address) = bind(config.http_listen, "the API and the dashboard")?;
        let (shutdown, ending) = shutdown::channel();
        let snapshots = Arc::new(Snapshots::new(&config.data_dir));
        let kept = Arc::clone(&snapshots);
        let history = tokio::task::spawn_blocking(move || Arc::new(kept.load(unix_ms()))).await;
        let history = history.expect("reading the figures does not panic, and the runtime outlives it");
        let taps = Arc::new(Taps::new(Arc::clone(&telemetry)));
        let mesh = Arc::new(Mesh {
            authority: Arc::clone(&authority),
            tokens,
            registry: Arc::clone(&registry),
            publisher: Arc::clone(&publisher),
            compiler,
            history: Arc::clone(&history),
            taps: Arc::clone(&taps),
            telemetry: Arc::clone(&telemetry),
            leaf_ttl: config.leaf_ttl,
            lease: config.lease,
            heartbeat: config.heartbeat,
            shutdown: ending.clone(),
        });
        let state = Arc::new(MeshState {
            registry,
            publisher,
            history,
            documents: Arc::clone(&cache),
            telemetry: Arc::clone(&telemetry),
            trust_domain: config.trust_domain.to_string(),
            started_ms: unix_ms(),
            authority_not_after_ms: unix_ms_of(mesh.authority.not_after()),
            trust_anchors: trust_anchors(&mesh.authority),
            leaf_ttl: config.leaf_ttl,
            compiler: Arc::clone(&mesh.compiler),
        });
        let ticker = Arc::new(Ticker::new(ending.clone()));
        let web = WebState::new(WebParts {
            store,
            documents: cache,
            listens_on: http_address,
            root_fingerprint: Arc::new(move || root_fingerprint(&authority)),
            metrics: Arc::new({
                let publisher = Arc::clone(&mesh.publisher);
                move || {
                    telemetry.refusals.set(publisher.refusals.count() as f64);
                    telemetry.render()
                }
            }),
            sidecars: mesh_api::from_sidecars(Arc::clone(&mesh.publisher), Arc::clone(&mesh.registry)),
            on_change: on_change(Arc::clone(&mesh.history)),
            published: mesh.publisher.revisions(),
            taps,
            registry: Arc::clone(&mesh.registry),
            publisher: Arc::clone(&mesh.publisher),
            shutdown: ending.clone(),
        });
        let router = web::router(web, mesh_router(Arc::clone(&state), Arc::clone(&ticker)));
        let listener = Listener::new(grpc_socket, &identity, Arc::clone(&mesh))?;
        let files = config.http_tls.as_ref();
        let files = files.map(|files| (files.certificate.as_path(), files.key.as_path()));
        let tls =
            web::listen::tls(http_address, files).map_err(|error| Error::failed("serve the API", error))?;
        let http = Http { socket: http_socket, tls, router };
        Ok(Self {
            config,
            grpc_address,
            http_address,
            listener,
            http,
            identity,
            mesh,
            state,
            snapshots,
            ticker,
            shutdown,
            ending,
        })
    }

    /// Where sidecars connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where the API and the dashboard are.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Serves until `shutdown` completes, then ends every stream and writes what is not yet written.
    ///
    /// # Errors
    /// When one of the server's own parts fails, which ends the others too.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let file = self.write_server_file()?;
        info!(
            sidecars = %self.grpc_address,
            api = %self.http_address,
            data_dir = %self.config.data_dir.display(),
            trust_domain = %self.config.trust_domain,
            "pillion server is up"
        );
        let (mesh, state, ticker) = (self.mesh, self.state, self.ticker);
        let mut upkeep = JoinSet::new();
        let registry = Arc::clone(&mesh.registry);
        upkeep.spawn(async move { registry.keep_saved().await });
        let lease_mesh = Arc::clone(&mesh);
        upkeep.spawn(async move {
            let registry = Arc::clone(&lease_mesh.registry);
            registry.watch_leases(|member| expired(&lease_mesh, member)).await;
        });
        let compile_mesh = Arc::clone(&mesh);
        upkeep.spawn(async move { compile_mesh.compiler.run(&compile_mesh.publisher).await });
        upkeep.spawn(authority::keep_own_identity(
            Arc::clone(&mesh.authority),
            self.identity,
            self.config.leaf_ttl,
        ));
        let fault_state = Arc::clone(&state);
        upkeep.spawn(async move { mesh_api::tell(&fault_state).await });
        upkeep.spawn(async move { ticker.run(&state).await });
        upkeep.spawn(keep_history(Arc::clone(&mesh.history), Arc::clone(&self.snapshots)));

        let mut listeners = JoinSet::new();
        listeners.spawn(self.listener.run());
        let Http { socket, tls, router } = self.http;
        let ending = self.ending.watch();
        listeners.spawn(async move {
            if let Err(error) = web::listen::serve(socket, tls, router, ending).await {
                error!(%error, "the API is not served any more");
            }
        });

        // None of these tasks ends by itself: one that does has failed.
        let failed = tokio::select! {
            () = shutdown => None,
            Some(ended) = upkeep.join_next() => Some(ended),
            Some(ended) = listeners.join_next() => Some(ended),
        };
        info!("shutting down");
        self.shutdown.pull();
        let ended =
            timeout(SHUTDOWN_DEADLINE, async { while listeners.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            warn!("connections were still open at the deadline; closing them");
        }
        upkeep.shutdown().await;
        if let Err(error) = mesh.registry.save().await {
            error!(%error, "the last changes of the registry were not stored");
        }
        save_history(&mesh.history, &self.snapshots).await;
        if let Err(error) = fs::remove_file(&file) {
            warn!(%error, file = %file.display(), "cannot be removed");
        }
        match failed {
            None => Ok(()),
            Some(Ok(())) => Err(Error::failed("go on", "one of the server's tasks ended")),
            Some(Err(error)) => Err(Error::failed("go on", error)),
        }
    }

    /// Whole or not at all, as others may read it at any moment.
    fn write_server_file(&self) -> Result<PathBuf, Error> {
        let folder = &self.config.data_dir;
        let contents = ServerFile {
            pid: std::process::id(),
            grpc_address: self.grpc_address,
            http_address: self.http_address,
            admin_token_file: &folder.join(ADMIN_TOKEN_FILE),
            trust_anchors: &folder.join(authority::TRUST_ANCHORS_FILE),
        };
        let (path, draft) = (folder.join(SERVER_FILE), folder.join(format!("{SERVER_FILE}.new")));
        // A home directory need not be UTF-8, but this file must be.
        serde_json::to_string_pretty(&contents)
            .map_err(std::io::Error::from)
            .and_then(|text| fs::write(&draft, text))
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(|cause| Error::failed(format!("write {}", path.display()), cause))?;
        Ok(path)
    }
}

/// The embedded store in the data directory. Opening may have to repair it after a crash, which blocks.
///
/// # Errors
/// When the file cannot be opened, or another process has it.
pub async fn open_store(data_dir: &Path) -> Result<Arc<dyn Store>, Error> {
    let folder = data_dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder)).await;
    let store = opened
        .expect("opening the store does not panic, and the runtime outlives it")
        .map_err(|error| Error::failed("open the store", error))?;
    Ok(Arc::new(store))
}

fn bind(address: SocketAddr, purpose: &str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |cause| Error::failed(format!("listen on {address} for {purpose}"), cause);
    let socket = listen(address).map_err(failed)?;
    let actual = socket.local_addr().map_err(failed)?;
    Ok((socket, actual))
}

/// Connections that wait to be accepted: no more than can be served before they give up. After a restart all sidecars
/// come at once; one that finds no room tries again after one second, three, seven.
const BACKLOG: u32 = 1024;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // After a restart the port is the same, with connections of before on it that are not quite over.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn expired(mesh: &Mesh, member: &Member) {
    info!(workload = member.name(), uid = member.uid(), "a lost workload's lease ended");
    mesh.history.workload_left(member.uid());
    let service = mesh.publisher.services_of(member.uid()).first().map(ToString::to_string);
    let text = format!("{} left: its sidecar was lost and did not come back in time", member.name());
    let name = Some(member.name().to_owned());
    mesh.history.happened(EventKind::WorkloadLeft, service, name, text, unix_ms());
}

async fn keep_history(history: Arc<History>, snapshots: Arc<Snapshots>) {
    let mut ticks = interval_at(Instant::now() + HISTORY_SWEEP, HISTORY_SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        history.forget_idle(unix_ms());
        save_history(&history, &snapshots).await;
    }
}

/// On a thread that may block. One that was begun is finished, also when nobody waits for it any more.
async fn save_history(history: &Arc<History>, snapshots: &Arc<Snapshots>) {
    let (history, snapshots) = (Arc::clone(history), Arc::clone(snapshots));
    if let Err(error) = tokio::task::spawn_blocking(move || snapshots.save(&history)).await {
        error!(%error, "the figures were not written");
    }
}

/// By which sidecars know the control plane on their first call.
fn root_fingerprint(authority: &Authority) -> String {
    let bundle = authority.trust_bundle();
    bundle.fingerprints().next().expect("an authority has a root").to_string()
}

fn trust_anchors(authority: &Authority) -> Vec<TrustAnchor> {
    let bundle = authority.trust_bundle();
    let ends = bundle.not_after().map(unix_ms_of);
    bundle
        .fingerprints()
        .zip(ends)
        .map(|(fingerprint, not_after_ms)| TrustAnchor { fingerprint: fingerprint.to_string(), not_after_ms })
        .collect()
}

/// Tells the mesh's page of every change that people make.
fn on_change(history: Arc<History>) -> web::OnChange {
    Arc::new(move |key, outcome| {
        let (kind, verb) = match outcome {
            Outcome::Created => (EventKind::DocumentApplied, "was created"),
            Outcome::Configured => (EventKind::DocumentApplied, "was changed"),
            Outcome::Deleted => (EventKind::DocumentDeleted, "was deleted"),
            Outcome::Unchanged => return,
        };
        let service = matches!(key.kind, Kind::Service | Kind::ExternalService).then(|| key.to_wire());
        history.happened(kind, service, None, format!("{key} {verb}"), unix_ms());
    })
}
