//! What other sidecars send: mutual TLS only, the caller's identity proven, to ports that the application serves.

mod forward;

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use pillion_certs::SpiffeId;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::watch};
use tokio_rustls::rustls::ServerConfig;

use self::forward::{FromPeer, ToApplication};
use crate::{
    config::AppPort,
    control::Mesh,
    drain::Drain,
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
        sniff::{Detected, Prefixed, sniff},
    },
    telemetry::{
        edge::{Edge, EdgeKey, Edges},
        names::Metric,
        prometheus::Registry,
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
    /// Where requests are counted.
    pub edges: Rc<Edges>,
    /// Where connections are counted.
    pub registry: Arc<Registry>,
    /// The shutdown.
    pub drain: Drain,
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
    tls: RefCell<Option<Arc<ServerConfig>>>,
    open: Open,
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
            tls: RefCell::default(),
            open: Open::default(),
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

    /// Serves one connection of another sidecar, to its end.
    pub async fn serve(self: Rc<Self>, stream: TcpStream, address: SocketAddr, _open: OpenGuard) {
        if let Err((reason, refusal)) = self.connection(stream).await {
            tracing::info!(reason, %refusal, peer = %address, "inbound connection refused");
        }
    }

    async fn connection(self: &Rc<Self>, stream: TcpStream) -> Result<(), (&'static str, String)> {
        let named = |refusal: Refusal| (refusal.reason.as_str(), refusal.to_string());
        let tls = self.tls().await.map_err(named)?;
        let Ok((detected, mut io)) = sniff(stream, self.needs.detection_timeout).await else { return Ok(()) };
        match detected {
            Detected::Tls => {}
            Detected::Nothing => return Ok(()),
            other => {
                self.handshake(Reason::PlaintextRefused.as_str());
                let refusal = Refusal::from(Reason::PlaintextRefused);
                if matches!(other, Detected::Http1) {
                    let answer = self.voice.http1_text(refusal.reason.status(), &refusal);
                    let _ = io.write_all(&answer).await;
                    let _ = io.shutdown().await;
                }
                return Err(named(refusal));
            }
        }
        let accepted = accept::accept(io, tls).await.and_then(|accepted| {
            // A resumed session is verified anew: roots and clock may have changed since it began.
            let mesh = self.needs.mesh.borrow();
            let mesh = mesh.as_ref().expect("there is a server configuration, so there is an identity");
            mesh.identity.verify_peer(accepted.io.get_ref().1)?;
            Ok(accepted)
        });
        let Accepted { mut io, peer, carries, port, resumed } = match accepted {
            Ok(accepted) => accepted,
            Err(fault) => {
                self.handshake(fault.reason());
                return Err((fault.reason(), fault.to_string()));
            }
        };
        self.handshake(if resumed { "resumed" } else { "full" });
        let edge = self.edge(&peer);
        let version = match carries {
            Carries::Http1 => Version::Http1,
            Carries::Http2 => Version::Http2,
            Carries::Tcp => {
                let application = match self.applications.get(&port) {
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
                            edge.connection(copied.sent, copied.received);
                        }
                        Ok(())
                    }
                    Err(refusal) => {
                        edge.refusal(refusal.reason);
                        let _ = opening::refuse(&mut io, refusal.reason).await;
                        Err(named(refusal))
                    }
                };
                return joined;
            }
        };
        let application = self.applications.get(&port).cloned();
        let own = self.needs.mesh.borrow().as_ref().map(|mesh| mesh.identity.spiffe_id().clone());
        let client_certificate = own.map(|own| headers::client_certificate(&own, &peer));
        let handler = FromPeer { inbound: self.clone(), port, application, edge, client_certificate };
        let io = Prefixed::fresh(Io::Accepted(io));
        serve::serve(io, version, Rc::new(handler), self.needs.drain.clone()).await.map_err(named)
    }

    /// The server's side of handshakes; waits, bounded, while we have no certificate yet.
    async fn tls(&self) -> Result<Arc<ServerConfig>, Refusal> {
        if let Some(config) = &*self.tls.borrow() {
            return Ok(config.clone());
        }
        let mut mesh = self.needs.mesh.clone();
        let patience = self.needs.discovery_timeout;
        let known = match tokio::time::timeout(patience, mesh.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => known.clone().expect("waited for"),
            _ => return Err(Refusal::new(Reason::NoIdentity, format_args!("waited {patience:?}"))),
        };
        let config = known
            .identity
            .server_config(&Carries::ALPN)
            .map_err(|error| Refusal::new(Reason::NoIdentity, error))?;
        Ok(self.tls.borrow_mut().get_or_insert(config).clone())
    }

    fn handshake(&self, result: &str) {
        self.needs.registry.counter(Metric::Handshakes, &["server", result]).increment(1);
    }

    fn edge(&self, peer: &SpiffeId) -> Rc<Edge> {
        let mesh = self.needs.mesh.borrow();
        let target = mesh.as_ref().map_or_else(|| self.needs.workload.clone(), |mesh| mesh.source.clone());
        self.needs.edges.edge(EdgeKey {
            direction: Hop::Inbound,
            source: format!("{}.{}", peer.service_account(), peer.namespace()).into(),
            backend: target.clone(),
            target,
            workload: self.needs.workload.clone(),
            mtls: true,
        })
    }
}
