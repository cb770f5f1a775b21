//! What the application sends: redirected here on its way to an address, or accepted on a forward-proxy port
//! (absolute-form, `Host`, CONNECT) or on ports that stand for one service each; and carried to a peer's sidecar over mutual TLS, or untouched to the outside.

mod attempt;
pub mod connections;
mod destination;
mod fallback;
mod fault;
mod filters;
mod http;
mod mirror;
mod opaque;
mod outside;
mod reach;
mod route;
mod routed;
mod services;
mod session;
mod steer;
mod target;

use std::{
    cell::{OnceCell, RefCell},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pillion_api::{model::Protocol, name::ServiceName};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{net::TcpStream, sync::watch, time::Instant};

pub use self::attempt::{Budgets, Kind, Quantiles};
use self::{
    mirror::Mirrors,
    opaque::{Opened, Unserved},
    outside::Outside,
    services::Services,
};
use crate::{
    control::{self, Mesh, answers::Answers, directory::Directory},
    drain,
    error::{Hop, Reason, Refusal},
    http::{Version, refusal::Voice, replay::Room, serve},
    net::{
        io::{Abort, Io},
        listen::{Open, OpenGuard},
        resolve::Resolver,
        sniff::{Detected, Patience, Prefixed, Spoken, early, either, sniff},
    },
    telemetry::{
        detections::Detections,
        edge::{Edge, EdgeKey, Edges},
        exchange,
        listeners::Carried,
        prometheus::Registry,
        report::{BudgetStatus, EndpointStatus, LoadStatus},
        stalls::Stalls,
    },
};

/// What outbound needs from the rest of the worker.
#[derive(Debug, Clone)]
pub struct Needs {
    /// What people call this workload.
    pub workload: Arc<str>,
    /// Where it runs; empty: unknown.
    pub zone: Arc<str>,
    /// Who we are, once it is known.
    pub mesh: watch::Receiver<Option<Mesh>>,
    /// How services become known.
    pub directory: Directory,
    /// Where requests are counted.
    pub edges: Rc<Edges>,
    /// Where connections are counted.
    pub registry: Arc<Registry>,
    /// Whether this thread runs as it should.
    pub stalls: Rc<Stalls>,
    /// Our own listeners: never a destination.
    pub own: Arc<[SocketAddr]>,
    /// How many connections each service has, over all workers.
    pub connections: connections::Shared,
    /// How hosts outside are looked up.
    pub resolver: Resolver,
    /// For a first byte.
    pub detection_timeout: Duration,
    /// For who we are to become known.
    pub discovery_timeout: Duration,
    /// How many workers there are.
    pub workers: usize,
}

/// Request bodies kept to be sent again, all together, bytes.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// One worker's outbound side.
#[derive(Debug)]
pub struct Outbound {
    needs: Needs,
    voice: Voice,
    services: Services,
    outside: Outside,
    random: RefCell<SmallRng>,
    /// For request bodies that are kept to be sent again.
    kept: Rc<Room>,
    open: Open,
    /// What destinations are.
    answers: Answers,
    detections: Detections,
    mirrors: Mirrors,
    /// Ours, once it is known.
    namespace: OnceCell<Box<str>>,
}

/// A port of a service, or of one of its endpoints: where a connection is known to go before it has said anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which service.
    pub service: ServiceName,
    /// Its port, as callers see it.
    pub port: u16,
    /// The one endpoint, by UID, that the caller has named by its address. `None`: the balancer's choice.
    pub endpoint: Option<Arc<str>>,
}

impl Outbound {
    /// Knows nobody yet.
    pub fn new(needs: Needs) -> Rc<Self> {
        Rc::new(Self {
            voice: Voice { hop: Hop::Outbound, workload: needs.workload.clone() },
            services: Services::new(needs.clone()),
            outside: Outside::new(&needs),
            random: RefCell::new(SmallRng::from_os_rng()),
            kept: Room::new(MAX_KEPT),
            open: Open::default(),
            mirrors: Mirrors::new(needs.registry.clone()),
            namespace: OnceCell::new(),
            answers: Answers::of(needs.directory.clone()),
            detections: Detections::new(needs.registry.clone(), Hop::Outbound),
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

    /// What may still be sent beyond the requests themselves.
    pub fn budgets(&self) -> Vec<BudgetStatus> {
        self.services.budgets(Instant::now())
    }

    /// What there is to every service.
    pub fn loads(&self) -> Vec<LoadStatus> {
        self.services.loads()
    }

    /// How this worker sees every endpoint.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.services.endpoints()
    }

    /// Adds what has been counted in this worker alone to the registry.
    pub fn count(&self) {
        self.services.count();
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub fn sweep(&self) {
        self.services.sweep();
        self.outside.sweep();
    }

    /// Serves one connection of the application, to its end.
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
            let began = Instant::now();
            let name = target.as_ref().map(|target| target.service.to_string());
            let served = match target {
                Some(target) => self.clone().connection(io, target).await,
                None => self.clone().any(io).await,
            };
            self.log(served, name.as_deref(), began);
        })
    }

    /// Serves one connection that was redirected on its way to `destination`, to its end.
    pub fn serve_redirected(
        self: Rc<Self>,
        stream: TcpStream,
        destination: SocketAddr,
        open: OpenGuard,
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let _open = open;
            let began = Instant::now();
            let served = self.clone().redirected(stream, destination).await;
            self.log(served, Some(&destination.to_string()), began);
        })
    }

    fn log(&self, served: Result<(), Unserved>, target: Option<&str>, began: Instant) {
        let Err(Unserved { refusal, known }) = served else { return };
        let (edge, mut carried) = known.map(|known| *known).unwrap_or_else(|| {
            let edge = self.refused_edge();
            let carried = Carried::begin(edge.listeners(), None, began);
            (edge, carried)
        });
        carried.note(|noted, _| exchange::put(&mut noted.authority, target.unwrap_or_default()));
        let target = target.unwrap_or("?");
        tracing::info!(reason = refusal.reason.as_str(), %refusal, target, "outbound connection refused");
        edge.refuse(carried, &refusal);
    }

    /// A connection that has yet to say whom each of its requests is for.
    async fn any(self: Rc<Self>, io: Io) -> Result<(), Unserved> {
        let began = Instant::now();
        let patience = Patience { silent: None, partial: self.needs.detection_timeout };
        let Ok((detected, io)) = sniff(io, patience).await else { return Ok(()) };
        self.detections.count(detected.as_str(), began, Instant::now());
        self.proxied(detected, io).await
    }

    /// The same once its protocol is known.
    async fn proxied(self: Rc<Self>, detected: Detected, mut io: Prefixed<Io>) -> Result<(), Unserved> {
        match detected {
            Detected::Nothing => Ok(()),
            Detected::Http1 => self.http(io, Version::Http1, None).await,
            Detected::Http2 => self.http(io, Version::Http2, None).await,
            Detected::Tls | Detected::Opaque | Detected::Undecided => {
                io.abort();
                let detail = "the connection is not HTTP, and its destination is not known";
                Err(Refusal::new(Reason::NoTarget, detail).into())
            }
        }
    }

    /// A connection to a service.
    async fn connection(self: Rc<Self>, io: Io, target: Target) -> Result<(), Unserved> {
        let began = Instant::now();
        let found = self.services.get(&target.service, began).await;
        let found =
            found.and_then(|service| Ok((service.config()?, service.protocol(target.port)?, service)));
        let (config, declared, service) = match found {
            Ok(found) => found,
            Err(refusal) => return Err(self.turn_away(io, refusal).await.into()),
        };
        match declared {
            Protocol::Http1 => return self.http(Prefixed::fresh(io), Version::Http1, Some(target)).await,
            Protocol::Http2 | Protocol::Grpc => {
                return self.http(Prefixed::fresh(io), Version::Http2, Some(target)).await;
            }
            Protocol::Tcp => {
                return Box::pin(self.forward_opaque(Prefixed::fresh(io), &target, None)).await;
            }
            Protocol::Detect => {}
        }
        let patience = Patience { silent: None, partial: self.needs.detection_timeout };
        // Routes must hold for every connection, so what is not HTTP is not opened, nor taken, where there are any.
        let routed = target.endpoint.is_none() && config.has_routes(target.port, self.namespace());
        let spoken = match service.early.enter() {
            Ok(_place) if !routed => {
                Box::pin(either(io, patience, early(target.port), self.open_opaque(&target))).await
            }
            // Or where too many are open already to clients that have not said anything.
            _ => sniff(io, patience).await.map(|(detected, io)| Spoken::Client(detected, io, None)),
        };
        // A caller that is gone is no fault of anybody.
        let Ok(spoken) = spoken else { return Ok(()) };
        match spoken {
            Spoken::Server(io, upstream) => {
                self.detections.count("server-first", began, Instant::now());
                Box::pin(self.forward_opaque(io, &target, Some(upstream))).await
            }
            Spoken::Nobody(mut io, unserved) => {
                self.detections.count(Detected::Undecided.as_str(), began, Instant::now());
                io.abort();
                Err(unserved)
            }
            Spoken::Client(detected, mut io, opened) => {
                self.detections.count(detected.as_str(), began, Instant::now());
                match detected {
                    Detected::Nothing if routed => Ok(()),
                    Detected::Http1 => self.http(io, Version::Http1, Some(target)).await,
                    Detected::Http2 => self.http(io, Version::Http2, Some(target)).await,
                    Detected::Tls | Detected::Opaque | Detected::Undecided if routed => {
                        io.abort();
                        let detail = format_args!("{}:{}", target.service, target.port);
                        let refusal = Refusal::new(Reason::OpaqueRefused, detail);
                        let carried = Carried::begin(service.edge.listeners(), None, began);
                        Err(Unserved::of(&service, carried, refusal))
                    }
                    // A client that only listens has ended its side.
                    Detected::Nothing | Detected::Tls | Detected::Opaque | Detected::Undecided => {
                        Box::pin(self.forward_opaque(io, &target, opened)).await
                    }
                }
            }
        }
    }

    async fn http(
        self: Rc<Self>,
        io: Prefixed<Io>,
        version: Version,
        target: Option<Target>,
    ) -> Result<(), Unserved> {
        let handler = http::FromApplication { outbound: self, target, last: Default::default() };
        // The application may need others until its very end: nothing is closed before the process ends.
        let (_, never) = drain::channel();
        Ok(serve::serve(io, version, Rc::new(handler), never).await?)
    }

    /// Carries bytes to a service, on a connection that is there already or a new one.
    async fn forward_opaque(
        &self,
        mut io: Prefixed<Io>,
        target: &Target,
        opened: Option<Prefixed<Opened>>,
    ) -> Result<(), Unserved> {
        let opened = async {
            let now = Instant::now();
            let service = self.services.get(&target.service, now).await?;
            let place = service.requests.enter().map_err(|refusal| {
                let carried = Carried::begin(service.edge.listeners(), None, now);
                Unserved::of(&service, carried, refusal)
            })?;
            match opened {
                Some(opened) => Ok((opened, place)),
                None => self.open_opaque(target).await.map(|opened| (Prefixed::fresh(opened), place)),
            }
        };
        match opened.await {
            Ok((opened, place)) => {
                let (answered, opened) = opened.into_parts();
                opened.carry(io, answered, place).await;
                Ok(())
            }
            Err(unserved) => {
                io.abort();
                Err(unserved)
            }
        }
    }

    /// Ours, which is that of the first certificate; empty before there is one, when no service is known either.
    fn namespace(&self) -> &str {
        if let Some(known) = self.namespace.get() {
            return known;
        }
        match self.needs.mesh.borrow().as_ref() {
            Some(mesh) => self.namespace.get_or_init(|| mesh.identity.spiffe_id().namespace().into()),
            None => "",
        }
    }

    /// Who we are; waits, bounded, while it is not known yet.
    async fn mesh(&self) -> Result<Mesh, Refusal> {
        control::mesh(&self.needs.mesh, self.needs.discovery_timeout).await
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
