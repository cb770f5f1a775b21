//! What the application sends: accepted on a forward-proxy port (absolute-form, `Host`, CONNECT) or on ports that
//! stand for one service each, and carried to a peer's sidecar over mutual TLS, or untouched to the outside.

mod http;
mod opaque;
mod outside;
mod route;
mod services;
mod target;

use std::{cell::RefCell, future::Future, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use pillion_api::{model::Protocol, name::ServiceName};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{sync::watch, time::Instant};

use self::{outside::Outside, services::Services};
use crate::{
    control::{Mesh, directory::Directory},
    drain,
    error::{Hop, Reason, Refusal},
    http::{Version, refusal::Voice, serve},
    net::{
        io::Io,
        listen::{Open, OpenGuard},
        resolve::Resolver,
        sniff::{Detected, Prefixed, sniff},
    },
    telemetry::{
        edge::{Edge, EdgeKey, Edges},
        names::Metric,
        prometheus::Registry,
        report::EndpointStatus,
    },
};

/// What outbound needs from the rest of the worker.
#[derive(Debug, Clone)]
pub struct Needs {
    /// What people call this workload.
    pub workload: Arc<str>,
    /// Who we are, once it is known.
    pub mesh: watch::Receiver<Option<Mesh>>,
    /// How services become known.
    pub directory: Directory,
    /// Where requests are counted.
    pub edges: Rc<Edges>,
    /// Where connections are counted.
    pub registry: Arc<Registry>,
    /// Our own listeners: never a destination.
    pub own: Arc<[SocketAddr]>,
    /// How hosts outside are looked up.
    pub resolver: Resolver,
    /// For a first byte.
    pub detection_timeout: Duration,
    /// For who we are to become known.
    pub discovery_timeout: Duration,
}

/// One worker's outbound side.
#[derive(Debug)]
pub struct Outbound {
    needs: Needs,
    voice: Voice,
    services: Services,
    outside: Outside,
    random: RefCell<SmallRng>,
    open: Open,
}

/// A port of a service: where a connection is known to go before it has said anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which service.
    pub service: ServiceName,
    /// Its port, as callers see it.
    pub port: u16,
}

impl Outbound {
    /// Knows nobody yet.
    pub fn new(needs: Needs) -> Rc<Self> {
        Rc::new(Self {
            voice: Voice { hop: Hop::Outbound, workload: needs.workload.clone() },
            services: Services::new(needs.clone()),
            outside: Outside::new(&needs),
            random: RefCell::new(SmallRng::from_os_rng()),
            open: Open::default(),
            needs,
        })
    }

    /// Connections from the application that are open.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// The services that this worker follows.
    pub fn services(&self) -> Vec<Arc<str>> {
        self.services.names()
    }

    /// How this worker sees every endpoint.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.services.endpoints()
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub fn sweep(&self) {
        self.services.sweep();
        self.outside.sweep();
    }

    /// Serves one connection of the application, to its end. `target` where it is known.
    ///
    /// Boxed, because a CONNECT inside a connection is served like a connection.
    pub fn serve(
        self: Rc<Self>,
        io: Io,
        target: Option<Target>,
        open: OpenGuard,
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let _open = open;
            let name = target.as_ref().map(|target| target.service.to_string());
            if let Err(refusal) = self.clone().connection(io, target).await {
                let target = name.as_deref().unwrap_or("?");
                tracing::info!(reason = refusal.reason.as_str(), %refusal, target, "outbound connection refused");
                self.refused_edge().refusal(refusal.reason);
            }
        })
    }

    async fn connection(self: Rc<Self>, io: Io, target: Option<Target>) -> Result<(), Refusal> {
        let declared = match &target {
            Some(target) => {
                self.services.get(&target.service, Instant::now()).await?.protocol(target.port)?
            }
            None => Protocol::Detect,
        };
        let (version, io) = match declared {
            Protocol::Http1 => (Some(Version::Http1), Prefixed::fresh(io)),
            Protocol::Http2 | Protocol::Grpc => (Some(Version::Http2), Prefixed::fresh(io)),
            Protocol::Tcp => (None, Prefixed::fresh(io)),
            Protocol::Detect => {
                // Only HTTP can say where it goes, so there is nothing else to take silence for: clients like to
                // connect early and speak later.
                let within = if target.is_some() { self.needs.detection_timeout } else { Duration::MAX };
                let sniffed = sniff(io, within).await;
                let Ok((detected, io)) = sniffed else { return Ok(()) };
                let labels = [Hop::Outbound.as_str(), detected.as_str()];
                self.needs.registry.counter(Metric::Detections, &labels).increment(1);
                match detected {
                    Detected::Nothing => return Ok(()),
                    Detected::Http1 => (Some(Version::Http1), io),
                    Detected::Http2 => (Some(Version::Http2), io),
                    Detected::Tls | Detected::Opaque | Detected::Undecided => (None, io),
                }
            }
        };
        match (version, target) {
            (Some(version), target) => {
                let handler =
                    http::FromApplication { outbound: self.clone(), target, last: Default::default() };
                // The application may need others until its very end: nothing is closed before the process ends.
                let (_, never) = drain::channel();
                serve::serve(io, version, Rc::new(handler), never).await
            }
            (None, Some(target)) => Box::pin(self.forward_opaque(io, &target)).await,
            (None, None) => {
                let detail = "the connection is not HTTP, and its destination is not known";
                Err(Refusal::new(Reason::NoTarget, detail))
            }
        }
    }

    /// Who we are; waits, bounded, while it is not known yet.
    async fn mesh(&self) -> Result<Mesh, Refusal> {
        mesh(&self.needs.mesh, self.needs.discovery_timeout).await
    }

    /// For what is refused before its destination is known. Nothing of it is carried, so nothing in plaintext.
    fn refused_edge(&self) -> Rc<Edge> {
        self.edge("unknown", true)
    }

    /// For destinations that are no services.
    fn edge(&self, target: &str, mtls: bool) -> Rc<Edge> {
        let source = self.needs.mesh.borrow().as_ref().map(|mesh| mesh.source.clone());
        self.needs.edges.edge(EdgeKey {
            direction: Hop::Outbound,
            source: source.unwrap_or_else(|| self.needs.workload.clone()),
            target: target.into(),
            backend: target.into(),
            workload: "".into(),
            mtls,
        })
    }
}

async fn mesh(mesh: &watch::Receiver<Option<Mesh>>, patience: Duration) -> Result<Mesh, Refusal> {
    if let Some(mesh) = mesh.borrow().as_ref() {
        return Ok(mesh.clone());
    }
    let mut mesh = mesh.clone();
    let known = tokio::time::timeout(patience, mesh.wait_for(Option::is_some)).await;
    match known {
        Ok(Ok(known)) => Ok(known.clone().expect("waited for")),
        _ => Err(Refusal::new(Reason::NoIdentity, format_args!("waited {patience:?}"))),
    }
}
