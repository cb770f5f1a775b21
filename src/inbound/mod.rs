//! What comes for the application: from other sidecars over mutual TLS, the caller's identity proven; and, where
//! connections are redirected here, from anybody else as far as the mesh lets them.

mod forward;
pub mod policies;
mod redirected;

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use pillion_api::name::ServiceName;
use pillion_certs::SpiffeId;
use tokio::{net::TcpStream, sync::watch, time::Instant};
use tokio_rustls::rustls::ServerConfig;

use self::{
    forward::{Admits, FromPeer, ToApplication, TurnedAway},
    policies::{Held, Policies},
};
use crate::{
    config::{AppPort, Probe},
    control::{self, Mesh, own::OwnPolicies},
    drain::{self, Drain},
    error::{Hop, Reason, Refusal},
    http::{
        Version,
        client::{Client, Connect},
        headers,
        refusal::Voice,
        serve,
    },
    net::{
        copy,
        io::Io,
        listen::{Open, OpenGuard},
        sniff::{Detected, Patience, Prefixed, sniff},
    },
    telemetry::{
        detections::Detections,
        edge::{Edge, EdgeKey, Edges},
        exchange::{self, Caller},
        listeners::Carried,
        names::Metric,
        prometheus::Registry,
        stalls::Stalls,
    },
    tls::{
        Carries,
        accept::{self, Accepted},
        opening,
    },
};

/// What inbound needs from the rest of the worker.
#[derive(Debug, Clone)]
pub struct Needs {
    /// What people call this workload.
    pub workload: Arc<str>,
    /// What the application serves.
    pub ports: Vec<AppPort>,
    /// Who we are, once it is known.
    pub mesh: watch::Receiver<Option<Mesh>>,
    /// What our services say of our ports.
    pub policies: watch::Receiver<OwnPolicies>,
    /// What all workers count of it together.
    pub shared: Arc<policies::Shared>,
    /// Where requests are counted.
    pub edges: Rc<Edges>,
    /// Where connections are counted.
    pub registry: Arc<Registry>,
    /// Whether this thread runs as it should.
    pub stalls: Rc<Stalls>,
    /// The shutdown.
    pub drain: Drain,
    /// Ports that take plaintext in any mode.
    pub plaintext_ports: Vec<u16>,
    /// Requests that are taken in plaintext in any mode.
    pub probes: Vec<Probe>,
    /// For a first byte.
    pub detection_timeout: Duration,
    /// For who we are to become known.
    pub discovery_timeout: Duration,
}

/// One worker's inbound side.
#[derive(Debug)]
pub struct Inbound {
    needs: Needs,
    voice: Voice,
    /// By port, as the mesh knows it.
    applications: HashMap<u16, Client<ToApplication>>,
    policies: Rc<Policies>,
    tls: RefCell<Option<Arc<ServerConfig>>>,
    open: Open,
    detections: Detections,
}

impl Inbound {
    /// Connects to the application when the first request comes.
    pub fn new(needs: Needs) -> Rc<Self> {
        let applications = needs
            .ports
            .iter()
            .map(|port| (port.port, Client::new(ToApplication(port.address), forward::IDLE_TIMEOUT)))
            .collect();
        Rc::new(Self {
            voice: Voice { hop: Hop::Inbound, workload: needs.workload.clone() },
            applications,
            policies: Policies::follow(needs.policies.clone(), needs.shared.clone()),
            tls: RefCell::default(),
            open: Open::default(),
            detections: Detections::new(needs.registry.clone(), Hop::Inbound),
            needs,
        })
    }

    /// Connections of other sidecars that are open.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub fn sweep(&self) {
        for client in self.applications.values() {
            client.sweep();
        }
    }

    /// Serves one connection, to its end: that of another sidecar, or one that was redirected here on its way to `destination`.
    pub async fn serve(
        self: Rc<Self>,
        stream: TcpStream,
        caller: SocketAddr,
        destination: Option<SocketAddr>,
        _open: OpenGuard,
    ) {
        let began = Instant::now();
        let served = match destination {
            None => self.direct(stream, caller).await,
            Some(destination) => Box::pin(self.redirected(stream, caller, destination)).await,
        };
        let Err(Closed { reason, why, told }) = served else { return };
        tracing::info!(reason, why, peer = %caller, "inbound connection refused");
        if !told {
            // Handshakes fail for more reasons than a caller is told.
            let refusal = match Reason::from_name(reason) {
                Some(reason) => Refusal::new(reason, why),
                None => Refusal::new(Reason::TlsHandshake, format_args!("{reason}: {why}")),
            };
            let edge = self.strangers_edge();
            let caller = Caller { identity: None, address: caller };
            edge.tell_refused(Carried::begin(edge.listeners(), Some(&caller), began), &refusal);
        }
    }

    /// A connection to the port that only sidecars use.
    async fn direct(self: &Rc<Self>, stream: TcpStream, caller: SocketAddr) -> Result<(), Closed> {
        let within = self.needs.detection_timeout;
        let Ok((detected, mut io)) = sniff(stream, Patience { silent: Some(within), partial: within }).await
        else {
            return Ok(());
        };
        match detected {
            Detected::Tls => {}
            Detected::Nothing => return Ok(()),
            other => {
                self.handshake(Reason::PlaintextRefused.as_str());
                let refusal = Refusal::from(Reason::PlaintextRefused);
                if matches!(other, Detected::Http1) {
                    self.voice.end_http1(&mut io, &refusal).await;
                }
                return Err(refusal.into());
            }
        }
        self.from_sidecar(io, caller).await
    }

    /// A connection that begins as TLS of the mesh.
    async fn from_sidecar(
        self: &Rc<Self>,
        io: Prefixed<TcpStream>,
        address: SocketAddr,
    ) -> Result<(), Closed> {
        let tls = self.tls().await?;
        let accepted = accept::accept(io, tls).await.and_then(|accepted| {
            // A resumed session is verified anew: roots and clock may have changed since it began.
            let mesh = self.needs.mesh.borrow();
            let mesh = mesh.as_ref().expect("there is a server configuration, so there is an identity");
            mesh.identity.verify_peer(accepted.io.get_ref().1)?;
            Ok(accepted)
        });
        let Accepted { mut io, peer, carries, port, service, resumed } = match accepted {
            Ok(accepted) => accepted,
            Err(fault) => {
                self.handshake(fault.reason());
                return Err(Closed { reason: fault.reason(), why: fault.to_string(), told: false });
            }
        };
        self.handshake(if resumed { "resumed" } else { "full" });
        let called = Some(&service).filter(|service| self.policies.serves(port, service));
        let edge = self.peers_edge(&peer, called);
        let caller = Caller { identity: Some(peer.to_string().into()), address };
        let held = Held::new(self.policies.slot(port, Some(&service)), Some(peer.clone()));
        let version = match carries {
            Carries::Http1 => Version::Http1,
            Carries::Http2 => Version::Http2,
            Carries::Tcp => {
                let mut carried = Carried::begin(edge.listeners(), Some(&caller), Instant::now());
                carried.note(|noted, _| exchange::put(&mut noted.authority, &format!("{service}:{port}")));
                let connected = held.connect_opaque();
                let application = match self.applications.get(&port) {
                    Some(_) if connected.is_err() => Err(connected.as_ref().expect_err("it is one").clone()),
                    Some(application) => application.connector().connect(Version::Http1).await,
                    None => {
                        Err(Refusal::new(Reason::PortNotServed, format_args!("{peer} wants port {port}")))
                    }
                };
                let _under_way = edge.enter();
                let joined = match application {
                    Ok(mut application) => {
                        // A caller that is gone already is no fault of anybody.
                        if opening::go_ahead(&mut io).await.is_ok() {
                            let copied = copy::both_ways(&mut io, &mut application).await;
                            copied.count(&edge, carried);
                        }
                        Ok(())
                    }
                    Err(refusal) => {
                        edge.refuse(carried, &refusal);
                        let _ = opening::refuse(&mut io, refusal.reason).await;
                        Err(Closed::told(refusal))
                    }
                };
                return joined;
            }
        };
        let application = self.applications.get(&port).cloned();
        let own = self.needs.mesh.borrow().as_ref().map(|mesh| mesh.identity.spiffe_id().clone());
        let client_certificate = own.map(|own| headers::client_certificate(&own, &peer));
        let handler = FromPeer {
            inbound: self.clone(),
            port,
            application,
            edge,
            caller,
            client_certificate,
            admits: Admits::Anybody,
            held,
            turned_away: None,
        };
        self.serve_http(Prefixed::fresh(Io::Accepted(io)), version, handler).await
    }

    /// Serves HTTP, unless there are too many connections: then all that comes is told so, and the connection ends.
    async fn serve_http(
        &self,
        io: Prefixed<Io>,
        version: Version,
        mut handler: FromPeer,
    ) -> Result<(), Closed> {
        match handler.held.connect() {
            Ok(_connected) => {
                let (handler, began) = (Rc::new(handler), Instant::now());
                let served = serve::serve(io, version, handler.clone(), self.needs.drain.clone()).await;
                served.map_err(|refusal| {
                    let FromPeer { edge, caller, .. } = &*handler;
                    edge.tell_refused(Carried::begin(edge.listeners(), Some(caller), began), &refusal);
                    Closed::told(refusal)
                })
            }
            Err(refusal) => {
                let (trigger, drain) = drain::channel();
                handler.turned_away = Some(TurnedAway { refusal: refusal.clone(), trigger });
                let telling = Box::pin(serve::serve(io, version, Rc::new(handler), drain));
                let _ = tokio::time::timeout(self.needs.detection_timeout, telling).await;
                Err(refusal.into())
            }
        }
    }

    /// The server's side of handshakes; waits, bounded, while we have no certificate yet.
    async fn tls(&self) -> Result<Arc<ServerConfig>, Refusal> {
        if let Some(config) = &*self.tls.borrow() {
            return Ok(config.clone());
        }
        let config = self
            .mesh()
            .await?
            .identity
            .server_config(&Carries::ALPN)
            .map_err(|error| Refusal::new(Reason::NoIdentity, error))?;
        Ok(self.tls.borrow_mut().get_or_insert(config).clone())
    }

    /// Who we are; waits, bounded, while it is not known yet.
    async fn mesh(&self) -> Result<Mesh, Refusal> {
        control::mesh(&self.needs.mesh, self.needs.discovery_timeout).await
    }

    fn handshake(&self, result: &str) {
        self.needs.registry.counter(Metric::Handshakes, &["server", result]).increment(1);
    }

    /// Where a sidecar's requests are counted that calls one of our services.
    fn peers_edge(&self, peer: &SpiffeId, called: Option<&ServiceName>) -> Rc<Edge> {
        self.edge(&format!("{}.{}", peer.service_account(), peer.namespace()), called, true)
    }

    /// Where requests are counted of those that have not proven who they are.
    fn strangers_edge(&self) -> Rc<Edge> {
        self.edge("outside", None, false)
    }

    /// `called`: the one of our services that is meant, where that is said.
    fn edge(&self, source: &str, called: Option<&ServiceName>, mtls: bool) -> Rc<Edge> {
        let mesh = self.needs.mesh.borrow();
        let target = match (called, mesh.as_ref()) {
            (Some(called), _) => called.as_str().into(),
            (None, Some(mesh)) => mesh.source.clone(),
            (None, None) => self.needs.workload.clone(),
        };
        self.needs.edges.edge(EdgeKey {
            direction: Hop::Inbound,
            source: source.into(),
            backend: target.clone(),
            target,
            workload: self.needs.workload.clone(),
            mtls,
        })
    }
}

/// Why a connection was not served to its end, for the log.
struct Closed {
    /// Of a closed set.
    reason: &'static str,
    why: String,
    /// Those who listen have heard of it.
    told: bool,
}

impl Closed {
    fn told(refusal: Refusal) -> Self {
        Self { told: true, ..refusal.into() }
    }
}

impl From<Refusal> for Closed {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason.as_str(), why: refusal.to_string(), told: false }
    }
}
