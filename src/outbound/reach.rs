//! How one endpoint of a service is reached: by its sidecar or as it is, with connections to each of its ports.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use pillion_api::name::ServiceName;

use super::connections::{Connections, Placed};
use crate::{
    balance::Balancer,
    error::{Hop, Reason, Refusal},
    http::{
        Version,
        client::{Client, Connect},
    },
    net::io::Io,
    telemetry::{
        edge::{Edge, EdgeKey, Edges},
        names::Metric,
        prometheus::Registry,
    },
    tls::{self, Carries, connect::Peer},
};

/// What holds for all connections to a service; changes with its policy.
#[derive(Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Cell<Duration>,
    pub(super) idle: Cell<Duration>,
    pub(super) queue: Cell<Duration>,
    /// Not a time, but of connections, too.
    pub(super) most_requests: Cell<Option<u32>>,
}

/// How an endpoint is reached.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// By its sidecar, over mutual TLS.
    Mesh(Rc<Peer>),
    /// As it is: it is outside the mesh.
    Outside(IpAddr),
}

/// What reaches one endpoint of one service: its sidecar, connections to each of its ports, and where requests to it
/// are counted.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) service: ServiceName,
    pub(super) workload: Arc<str>,
    pub(super) way: Way,
    pub(super) source: Arc<str>,
    pub(super) timeouts: Rc<Timeouts>,
    pub(super) connections: Arc<Connections>,
    pub(super) all: Weak<Balancer<Self>>,
    pub(super) edges: Rc<Edges>,
    pub(super) registry: Arc<Registry>,
    /// By port; a service has few.
    pub(super) clients: RefCell<Vec<(u16, Client<ToPeer>)>>,
    /// By the service that was called, which a route may have led here.
    pub(super) known_edges: RefCell<Vec<(ServiceName, Rc<Edge>)>>,
}

impl Reach {
    /// Sends to an application port.
    pub(super) fn client(&self, port: u16) -> Client<ToPeer> {
        let mut clients = self.clients.borrow_mut();
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == port) {
            return client.clone();
        }
        let client = Client::new(self.to_peer(port), self.timeouts.idle.get());
        client.set_most_requests(self.timeouts.most_requests.get());
        clients.push((port, client.clone()));
        client
    }

    /// Connects to an application port.
    pub(super) fn to_peer(&self, port: u16) -> ToPeer {
        ToPeer {
            way: self.way.clone(),
            service: self.service.clone(),
            port,
            timeouts: self.timeouts.clone(),
            connections: self.connections.clone(),
            all: self.all.clone(),
            registry: self.registry.clone(),
        }
    }

    /// Where requests that called `called` and came here are counted.
    pub(super) fn edge(&self, called: &ServiceName) -> Rc<Edge> {
        let mut known = self.known_edges.borrow_mut();
        if let Some((_, edge)) = known.iter().find(|(known, _)| known == called) {
            return edge.clone();
        }
        let edge = self.edges.edge(EdgeKey {
            direction: Hop::Outbound,
            source: self.source.clone(),
            target: called.as_str().into(),
            backend: self.service.as_str().into(),
            workload: self.workload.clone(),
            mtls: matches!(self.way, Way::Mesh(_)),
        });
        known.push((called.clone(), edge.clone()));
        edge
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        for (_, client) in &*self.clients.borrow() {
            client.set_idle_timeout(idle_timeout);
            client.set_most_requests(self.timeouts.most_requests.get());
            client.sweep();
        }
    }

    fn close_idle(&self) {
        for (_, client) in &*self.clients.borrow() {
            client.close_idle();
        }
    }
}

/// Closes connections to any of a service's endpoints that are only kept for later.
pub(super) fn close_idle(all: &Balancer<Reach>) {
    all.endpoints().iter().for_each(|endpoint| endpoint.reach().close_idle());
}

/// Connects to one port of one endpoint.
#[derive(Debug)]
pub(super) struct ToPeer {
    way: Way,
    service: ServiceName,
    port: u16,
    timeouts: Rc<Timeouts>,
    connections: Arc<Connections>,
    all: Weak<Balancer<Reach>>,
    registry: Arc<Registry>,
}

impl ToPeer {
    /// Connects for what is to be carried, as soon as the service may have one more connection.
    pub(super) async fn open(&self, carries: Carries) -> Result<Io, Refusal> {
        let place = match self.connections.try_enter() {
            Some(place) => place,
            None => {
                // What is kept for later, to any of the endpoints, is less worth than what is needed now.
                let make_room = || self.all.upgrade().iter().for_each(|all| close_idle(all));
                Box::pin(self.connections.enter(self.timeouts.queue.get(), make_room)).await?
            }
        };
        let io = self.connect_to(carries).await?;
        Ok(Io::Tunnel(Box::new(Placed { io, _place: place })))
    }

    async fn connect_to(&self, carries: Carries) -> Result<Io, Refusal> {
        let timeout = self.timeouts.connect.get();
        let peer = match &self.way {
            Way::Mesh(peer) => peer,
            Way::Outside(address) => {
                let address = SocketAddr::new(*address, self.port);
                return crate::net::connect::tcp(address, timeout).await.map(Io::Tcp);
            }
        };
        let connected = peer.connect(carries, &self.service, self.port, timeout).await;
        let result = match &connected {
            Ok((_, true)) => "resumed",
            Ok((_, false)) => "full",
            Err(refusal) => refusal.reason.as_str(),
        };
        self.registry.counter(Metric::Handshakes, &["client", result]).increment(1);
        connected.map(|(io, _)| io)
    }

    /// Connects for bytes, all the way to the application.
    pub(super) async fn open_opaque(&self) -> Result<Io, Refusal> {
        let mut io = self.open(Carries::Tcp).await?;
        if matches!(self.way, Way::Outside(_)) {
            return Ok(io);
        }
        let timeout = self.timeouts.connect.get();
        match tokio::time::timeout(timeout, tls::opening::read(&mut io)).await {
            Ok(opened) => opened.map(|()| io),
            Err(_) => Err(Refusal::new(Reason::ConnectTimeout, format_args!("no word within {timeout:?}"))),
        }
    }
}

impl Connect for ToPeer {
    async fn connect(&self, version: Version) -> Result<Io, Refusal> {
        match version {
            Version::Http1 => self.open(Carries::Http1).await,
            Version::Http2 => self.open(Carries::Http2).await,
        }
    }
}
