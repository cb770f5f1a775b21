//! Answers the application's HTTP requests: finds out whom each is for, and takes it down the chain.

use std::{cell::RefCell, rc::Rc};

use ::http::{HeaderValue, Method, Request, Response, header::HOST, uri::Authority};
use tokio::time::Instant;

use super::{
    Outbound, Target,
    attempt::Held,
    target::{Meaning, is_this_host},
};
use crate::{
    error::{Hop, Reason, Refusal},
    http::{Body, InterimSink, headers, refusal::Voice, serve::Handler, upgrade},
    middleware::{self, Policy, Served, record::Recorded},
    net::io::Io,
    telemetry::{edge::Edge, exchange, hops::Timeline, listeners::Carried, names::Metric},
};

/// Handles the requests of one connection.
pub(super) struct FromApplication {
    pub(super) outbound: Rc<Outbound>,
    /// Where the connection stands for one service.
    pub(super) target: Option<Target>,
    /// The last host that turned out to mean a service. A connection seldom names another.
    pub(super) last: RefCell<Option<Known>>,
}

/// What a `Host` field turned out to mean.
pub(super) struct Known {
    host: HeaderValue,
    authority: Authority,
    target: Target,
}

impl Handler for FromApplication {
    type Body = Recorded<Held>;

    /// A request to a service is what this is for. All other ways are boxed: a future is as large as the largest of
    /// its ways, and each request has one.
    async fn handle(&self, mut request: Request<Body>, interim: &dyn InterimSink) -> Response<Self::Body> {
        if let Some((authority, target)) = self.known(&request) {
            return self.outbound.call(request, authority, &target, interim).await;
        }
        let since = Instant::now();
        let authority = match headers::authority(&request) {
            Ok(authority) => authority,
            Err(refusal) => return Box::pin(self.refuse(request, refusal, since)).await,
        };
        if request.method() == Method::CONNECT {
            if self.target.is_some() {
                let refusal = Refusal::new(Reason::UpgradeFailed, "CONNECT is for the proxy port");
                return Box::pin(self.refuse(request, refusal, since)).await;
            }
            return Box::pin(self.connect(&mut request, authority)).await;
        }
        match Box::pin(self.destination(authority.as_ref(), 80)).await {
            Ok(Destination::Service(target)) => {
                self.remember(&request, authority.as_ref(), &target);
                // A listener's caller may name no host: HTTP/1.0 need not.
                let authority = authority.unwrap_or_else(|| mesh_authority(&target));
                self.outbound.call(request, authority, &target, interim).await
            }
            Ok(Destination::Outside(authority)) => {
                let Outbound { outside, voice, open, .. } = &*self.outbound;
                Box::pin(outside.call(request, voice, open, authority, interim)).await
            }
            Err(refusal) => Box::pin(self.refuse(request, refusal, since)).await,
        }
    }

    fn voice(&self) -> &Voice {
        &self.outbound.voice
    }

    fn malformed(&self, reason: Reason) {
        let labels = [Hop::Outbound.as_str(), reason.as_str()];
        self.outbound.needs.registry.counter(Metric::Malformed, &labels).increment(1);
    }
}

enum Destination {
    Service(Target),
    Outside(Authority),
}

impl FromApplication {
    /// Whom the last request was for, if this one names the same host in the same words.
    fn known(&self, request: &Request<Body>) -> Option<(Authority, Target)> {
        let last = self.last.borrow();
        let known = last.as_ref()?;
        let mut hosts = request.headers().get_all(HOST).iter();
        let same = request.uri().authority().is_none()
            && request.method() != Method::CONNECT
            && hosts.next().is_some_and(|host| *host == known.host)
            && hosts.next().is_none();
        // It may have been deleted since, and mean something else.
        let there = same && self.outbound.services.has(&known.target.service);
        there.then(|| (known.authority.clone(), known.target.clone()))
    }

    fn remember(&self, request: &Request<Body>, authority: Option<&Authority>, target: &Target) {
        if let (None, Some(host), Some(authority)) =
            (request.uri().authority(), request.headers().get(HOST), authority)
        {
            let (host, authority, target) = (host.clone(), authority.clone(), target.clone());
            *self.last.borrow_mut() = Some(Known { host, authority, target });
        }
    }

    async fn destination(&self, authority: Option<&Authority>, port: u16) -> Result<Destination, Refusal> {
        if let Some(target) = &self.target {
            // Whoever looks a service up elsewhere connects to one of its endpoints, and means the service all the same.
            let by_name = target.endpoint.is_some() && authority.is_some_and(|it| self.names(it, target));
            let endpoint = if by_name { None } else { target.endpoint.clone() };
            return Ok(Destination::Service(Target { endpoint, ..target.clone() }));
        }
        let authority = authority.ok_or(Reason::NoTarget)?;
        self.meaning(authority, port).await
    }

    /// Whether a host is a name of the service.
    fn names(&self, authority: &Authority, target: &Target) -> bool {
        let mesh = self.outbound.needs.mesh.borrow();
        let namespace = mesh.as_ref().map_or("", |mesh| mesh.identity.spiffe_id().namespace());
        match super::target::meaning(authority, namespace, target.port) {
            Meaning::Service(service, _) | Meaning::Perhaps(service, _) => service == target.service,
            Meaning::Outside => false,
        }
    }

    async fn meaning(&self, authority: &Authority, port: u16) -> Result<Destination, Refusal> {
        // Only a bare name needs to know where we are; everything else is told apart without the control plane.
        let namespace = if authority.host().contains(['.', '[']) || is_this_host(authority.host()) {
            String::new()
        } else {
            self.outbound.mesh().await?.identity.spiffe_id().namespace().to_owned()
        };
        match super::target::meaning(authority, &namespace, port) {
            Meaning::Service(service, port) => Ok(Destination::Service(Target::new(service, port))),
            Meaning::Perhaps(service, port) => {
                match self.outbound.services.get(&service, Instant::now()).await {
                    Ok(_) => Ok(Destination::Service(Target::new(service, port))),
                    // `example.com` looks like a service; what the control plane does not know, or cannot say, is a host
                    // outside. A bare name is not: it must not leave the mesh because the control plane is away.
                    Err(refusal)
                        if matches!(refusal.reason, Reason::UnknownService)
                            || namespace.is_empty()
                                && matches!(
                                    refusal.reason,
                                    Reason::DiscoveryTimeout | Reason::NoIdentity
                                ) =>
                    {
                        self.outside(authority, port).await
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Meaning::Outside => self.outside(authority, port).await,
        }
    }

    /// A host that is no service's name.
    async fn outside(&self, authority: &Authority, port: u16) -> Result<Destination, Refusal> {
        let port = authority.port_u16().unwrap_or(port);
        Ok(match self.outbound.host(authority.host(), port).await? {
            Some(target) => Destination::Service(target),
            None => Destination::Outside(authority.clone()),
        })
    }

    /// Opens a tunnel (RFC 9110 9.3.6). What comes through it is served like any other connection.
    async fn connect(
        &self,
        request: &mut Request<Body>,
        authority: Option<Authority>,
    ) -> Response<Recorded<Held>> {
        let since = Instant::now();
        let outbound = self.outbound.clone();
        let destination = match self.destination(authority.as_ref(), 443).await {
            Ok(Destination::Service(target)) => {
                match outbound.services.get(&target.service, Instant::now()).await {
                    Ok(service) => service.protocol(target.port).map(|_| Destination::Service(target)),
                    Err(refusal) => Err(refusal),
                }
            }
            other => other,
        };
        let destination = match destination {
            Ok(destination) => destination,
            Err(refusal) => {
                return self.refuse(head(request), refusal, since).await;
            }
        };
        if request.version() == ::http::Version::HTTP_2 {
            let refusal = Refusal::new(Reason::UpgradeFailed, "CONNECT is taken over HTTP/1 only");
            return self.refuse(head(request), refusal, since).await;
        }
        let host = authority.as_ref().map(ToString::to_string).unwrap_or_default();
        let tunnel: Result<Tunnel, Refusal> = match destination {
            Destination::Service(target) => Ok(Tunnel::Service(target)),
            Destination::Outside(authority) => outbound.outside.dial(&authority).await.map(Tunnel::Outside),
        };
        match tunnel {
            Err(refusal) => {
                let edge = outbound.edge("outside", false);
                self.outbound.refuse(head(request), edge, refusal, since).await
            }
            Ok(tunnel) => {
                let pending = upgrade::Pending::of(request);
                let guard = outbound.open.enter();
                crate::task::start(async move {
                    let Some(mut io) = pending.upgraded().await else { return };
                    match tunnel {
                        Tunnel::Service(target) => {
                            outbound.serve(Io::Tunnel(Box::new(io)), Some(target), guard).await
                        }
                        Tunnel::Outside(mut stream) => {
                            let _guard = guard;
                            let edge = outbound.edge("outside", false);
                            let mut carried = Carried::begin(edge.listeners(), None, Instant::now());
                            carried.note(|noted, _| exchange::put(&mut noted.authority, &host));
                            let copied = crate::net::copy::both_ways(&mut io, &mut stream).await;
                            copied.count(&edge, carried);
                        }
                    }
                });
                Recorded::uncounted(Response::new(Body::Empty))
            }
        }
    }

    /// Before it is known whom the request is for.
    async fn refuse(
        &self,
        request: Request<Body>,
        refusal: Refusal,
        since: Instant,
    ) -> Response<Recorded<Held>> {
        self.outbound.refuse(request, self.outbound.refused_edge(), refusal, since).await
    }
}

impl Outbound {
    /// Answers a request that came at `since` with a refusal, counted on `edge`.
    pub(super) async fn refuse(
        &self,
        request: Request<Body>,
        edge: Rc<Edge>,
        refusal: Refusal,
        since: Instant,
    ) -> Response<Recorded<Held>> {
        let timeline = Timeline::new(since);
        let policy = Policy::bare(&self.voice, &timeline, edge, &self.open);
        middleware::run(request, policy, |_| async { Served::refused(refusal) }).await
    }
}

/// As much of a request as a refusal needs.
fn head(request: &Request<Body>) -> Request<Body> {
    let mut head = Request::new(Body::Empty);
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    head
}

enum Tunnel {
    Service(Target),
    Outside(tokio::net::TcpStream),
}

fn mesh_authority(target: &Target) -> Authority {
    let text = format!("{}.mesh:{}", target.service, target.port);
    Authority::try_from(text).expect("a service name and a port make an authority")
}
