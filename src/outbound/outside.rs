//! Requests to hosts that are not of the mesh: passed through as they are, without the mesh's policies.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ::http::{Request, Response, uri::Authority};
use tokio::{net::TcpStream, time::Instant};

use super::{Needs, attempt::Held};
use crate::{
    error::{Hop, Reason, Refusal},
    http::{
        Body, InterimSink, Version,
        client::{Client, Connect},
        headers,
        refusal::Voice,
    },
    middleware::{self, Policy, Served, record::Recorded},
    net::{
        connect,
        io::{Abort, Io},
        listen::Open,
        resolve::Resolver,
    },
    telemetry::{
        edge::{Edge, EdgeKey},
        hops::Timeline,
        listeners::Carried,
        stalls::Stalls,
    },
};

/// Hosts to which connections are kept at a time.
const MAX_HOSTS: usize = 256;
/// For resolving a name and connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than most servers', so that it is seldom they who close a connection that we are about to use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// What is outside.
#[derive(Debug)]
pub(super) struct Outside {
    hosts: RefCell<HashMap<Authority, Client<ToHost>>>,
    own: Arc<[SocketAddr]>,
    resolver: Resolver,
    edge: Rc<Edge>,
    stalls: Rc<Stalls>,
}

impl Outside {
    pub(super) fn new(needs: &Needs) -> Self {
        let edge = needs.edges.edge(EdgeKey {
            direction: Hop::Outbound,
            source: needs.workload.clone(),
            target: "outside".into(),
            backend: "outside".into(),
            workload: "".into(),
            mtls: false,
        });
        let (own, resolver, stalls) = (needs.own.clone(), needs.resolver.clone(), needs.stalls.clone());
        Self { hosts: RefCell::default(), own, resolver, edge, stalls }
    }

    pub(super) fn sweep(&self) {
        for client in self.hosts.borrow().values() {
            client.sweep();
        }
    }

    /// Sends a request to a host, in the version that it came in.
    pub(super) async fn call(
        &self,
        request: Request<Body>,
        voice: &Voice,
        open: &Open,
        authority: Authority,
        interim: &dyn InterimSink,
    ) -> Response<Recorded<Held>> {
        let timeline = Timeline::new(Instant::now());
        let policy = Policy::bare(voice, &timeline, self.edge.clone(), open);
        let (client, stalls) = (self.client(&authority), &self.stalls);
        let timeline = &timeline;
        middleware::run(request, policy, |mut request: Request<Body>| async move {
            let version = if request.version() == ::http::Version::HTTP_2 {
                headers::to_http2(&mut request, authority);
                Version::Http2
            } else {
                headers::to_http1(&mut request);
                Version::Http1
            };
            let result = client.send(request, version, interim, timeline).await;
            let result = result.map_err(|failure| failure.refusal).map(|mut response| {
                let now = Instant::now();
                timeline.answered(now, None, stalls.before(now));
                // Only sidecars speak as sidecars.
                headers::strip_private(response.headers_mut(), version == Version::Http1);
                response
            });
            Served { result, edge: None, end: None }
        })
        .await
    }

    /// Carries a redirected connection on to where it was meant to go, whatever it says.
    pub(super) async fn pass(&self, mut io: Io, destination: SocketAddr) -> Result<(), Refusal> {
        let mut carried = Carried::begin(self.edge.listeners(), None, Instant::now());
        carried.note(|exchange, _| exchange.authority = destination.to_string());
        match crate::net::connect::tcp(destination, CONNECT_TIMEOUT).await {
            Ok(mut there) => {
                let _under_way = self.edge.enter();
                let copied = crate::net::copy::both_ways(&mut io, &mut there).await;
                copied.count(&self.edge, carried);
                Ok(())
            }
            Err(refusal) => {
                tracing::info!(reason = refusal.reason.as_str(), %refusal, "outside the mesh");
                self.edge.refuse(carried, &refusal);
                io.abort();
                Ok(())
            }
        }
    }

    /// Connects to a host for a tunnel.
    pub(super) async fn dial(&self, authority: &Authority) -> Result<TcpStream, Refusal> {
        dial(authority, 443, &self.resolver, &self.own).await
    }

    fn client(&self, authority: &Authority) -> Client<ToHost> {
        let mut hosts = self.hosts.borrow_mut();
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(authority) {
            // Kept connections are a convenience; losing them costs a few new ones.
            hosts.clear();
        }
        let make = || {
            let (authority, resolver) = (authority.clone(), self.resolver.clone());
            let connector = ToHost { authority, resolver, own: self.own.clone() };
            Client::new(connector, IDLE_TIMEOUT)
        };
        hosts.entry(authority.clone()).or_insert_with(make).clone()
    }
}

/// Connects to one host.
#[derive(Debug)]
struct ToHost {
    authority: Authority,
    resolver: Resolver,
    own: Arc<[SocketAddr]>,
}

impl Connect for ToHost {
    async fn connect(&self, _: Version) -> Result<Io, Refusal> {
        dial(&self.authority, 80, &self.resolver, &self.own).await.map(Io::Tcp)
    }
}

async fn dial(
    authority: &Authority,
    default_port: u16,
    resolver: &Resolver,
    own: &[SocketAddr],
) -> Result<TcpStream, Refusal> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(default_port);
    let others = |address| match own.iter().any(|own| connect::leads_to(address, *own)) {
        true => Err(Refusal::new(Reason::Connect, format_args!("{authority} is this sidecar itself"))),
        false => Ok(()),
    };
    connect::host(resolver, (host, port), CONNECT_TIMEOUT, others).await
}
