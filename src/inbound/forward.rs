//! The inbound tail: to the application, in the HTTP version that the caller spoke to its own sidecar, unless the application
//! is declared not to know that one.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use http::{HeaderValue, Request, Response};
use pillion_api::model::Protocol;
use tokio::time::Instant;

use super::{Inbound, policies::Held};
use crate::{
    drain::{Phase, Trigger},
    error::{Hop, Reason, Refusal},
    http::{
        Body, InterimSink, Version,
        client::{Client, Connect},
        deadline::{self, GRACE},
        headers, path,
        refusal::Voice,
        serve::Handler,
    },
    middleware::{self, Policy, Served, Timeout, record::Recorded},
    net::io::Io,
    telemetry::{edge::Edge, exchange::Caller, hops::Timeline, names::Metric},
};

/// Shorter than the shortest that is common among servers (5 s, Node.js), so that it is not they who close a
/// connection just as a request is sent.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// The application is on this host: it accepts at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Whose requests are taken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    /// Everybody's who could open it.
    Anybody,
    /// Health probes only: the caller has not proven who it is.
    Probes,
}

/// Handles the requests of one caller's connection.
pub(super) struct FromPeer {
    pub(super) inbound: Rc<Inbound>,
    pub(super) port: u16,
    /// Whoever serves that port, if anybody does.
    pub(super) application: Option<Client<ToApplication>>,
    pub(super) edge: Rc<Edge>,
    /// As others hear of it.
    pub(super) caller: Caller,
    pub(super) admits: Admits,
    /// Who calls, as the application is told; `None` where nobody has proven it.
    pub(super) client_certificate: Option<HeaderValue>,
    /// What our services' policies say of its requests.
    pub(super) held: Held,
    /// There are too many connections: its requests are told so.
    pub(super) turned_away: Option<TurnedAway>,
}

/// What the requests of a connection are told that is one too many.
pub(super) struct TurnedAway {
    pub(super) refusal: Refusal,
    /// Of its own: the connection ends when it has been told.
    pub(super) trigger: Trigger,
}

impl Handler for FromPeer {
    type Body = Recorded<()>;

    async fn handle(&self, mut request: Request<Body>, interim: &dyn InterimSink) -> Response<Self::Body> {
        let now = Instant::now();
        let timeline = Timeline::new(now);
        let Inbound { voice, open, .. } = &*self.inbound;
        let mut policy = Policy::bare(voice, &timeline, self.edge.clone(), open);
        policy.caller = Some(&self.caller);
        // Of sidecars only; whatever else comes with the field is taken off as all that is private.
        if self.edge.mtls() && headers::takes_hops(request.headers_mut()) {
            policy.report = Some(self.inbound.needs.stalls.before(now));
        }
        let malformed = path::normalise(&mut request).err();
        // Probes are exempt: whether it is well is not to depend on how much it has to do.
        let turned_away = self.turned_away.as_ref().filter(|_| !self.is_probe(&request));
        if let Some(TurnedAway { trigger, .. }) = turned_away {
            trigger.advance(Phase::Closing);
        }
        let refusal = turned_away.map(|turned_away| turned_away.refusal.clone()).or(malformed);
        if let Some(refusal) = refusal {
            let refused = |_| async { Served::refused(refusal) };
            return Box::pin(middleware::run(request, policy, refused)).await;
        }
        let guard = if self.held.is_none() || self.is_probe(&request) { None } else { self.held.guard() };
        policy.guard = guard.as_deref();
        let asked = deadline::asked(request.headers());
        // Late work is refused at once; what may still be in time ends a moment after its caller has given up.
        let longer = |asked: Duration| if asked.is_zero() { asked } else { asked + GRACE };
        policy.timeout = Timeout::of(None, asked.map(longer));
        let end = asked.map(|asked| now + asked);
        let tells = policy.report.is_some() || self.edge.splits();
        let tail = |request| self.forward(request, end, interim, &timeline, tells);
        middleware::run(request, policy, tail).await
    }

    fn max_streams(&self) -> Option<u32> {
        self.held.max_streams()
    }

    fn voice(&self) -> &Voice {
        &self.inbound.voice
    }

    fn malformed(&self, reason: Reason) {
        let labels = [Hop::Inbound.as_str(), reason.as_str()];
        self.inbound.needs.registry.counter(Metric::Malformed, &labels).increment(1);
    }
}

impl FromPeer {
    /// Whether a request is one of those that are taken from anybody: exactly that path of exactly that port.
    fn is_probe(&self, request: &Request<Body>) -> bool {
        let method = request.method();
        let path = request.uri().path();
        (method == http::Method::GET || method == http::Method::HEAD)
            && http_body::Body::is_end_stream(request.body())
            && !headers::is_upgrade(request.headers())
            && request.uri().query().is_none()
            && self.inbound.needs.probes.iter().any(|probe| probe.port == self.port && probe.path == path)
    }

    /// `tells`: somebody asks where the time went.
    async fn forward(
        &self,
        mut request: Request<Body>,
        end: Option<Instant>,
        interim: &dyn InterimSink,
        timeline: &Timeline,
        tells: bool,
    ) -> Served<()> {
        if let Some(end) = end {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Served::refused(Reason::DeadlineExceeded);
            }
            deadline::tell(request.headers_mut(), left);
        }
        let Some(application) = &self.application else {
            return Served::refused(Refusal::new(Reason::PortNotServed, self.port));
        };
        if request.method() == http::Method::CONNECT {
            return Served::refused(Refusal::new(
                Reason::UpgradeFailed,
                "CONNECT is not carried between sidecars",
            ));
        }
        if self.admits == Admits::Probes && !self.is_probe(&request) {
            let detail = format_args!(
                "{} {} is no health probe of port {}",
                request.method(),
                // Its query is nothing for logs.
                request.uri().path(),
                self.port
            );
            return Served::refused(Refusal::new(Reason::PlaintextRefused, detail));
        }
        let is_http1 = request.version() != http::Version::HTTP_2;
        let was_http1 = is_http1 || self.edge.mtls() && request.headers().contains_key(headers::NAMES);
        headers::strip_private(request.headers_mut(), was_http1);
        if let Some(proven) = &self.client_certificate {
            request.headers_mut().insert(headers::CLIENT_CERTIFICATE, proven.clone());
        }
        let version = if was_http1 {
            headers::to_http1(&mut request);
            Version::Http1
        } else if self.held.protocol() == Protocol::Http1 && !headers::is_grpc(request.headers()) {
            // Declared `http`, as Istio takes it, too: HTTP/2 would be reset by most such applications. gRPC is HTTP/2 always.
            headers::join_cookies(request.headers_mut());
            headers::to_http1(&mut request);
            Version::Http1
        } else {
            Version::Http2
        };
        let result = application.send(request, version, interim, timeline).await;
        let result = result.map_err(|failure| failure.refusal);
        let result = result.map(|mut response| {
            let now = Instant::now();
            let stalled = if tells { self.inbound.needs.stalls.before(now) } else { Duration::ZERO };
            timeline.answered(now, None, stalled);
            // Only sidecars speak as sidecars.
            headers::strip_private(response.headers_mut(), was_http1);
            response
        });
        Served { result, edge: None, end: None }
    }
}

/// Connects to the application.
#[derive(Debug)]
pub(super) struct ToApplication(pub(super) SocketAddr);

impl Connect for ToApplication {
    async fn connect(&self, _: Version) -> Result<Io, Refusal> {
        crate::net::connect::tcp(self.0, CONNECT_TIMEOUT)
            .await
            .map(Io::Tcp)
            .map_err(|refusal| Refusal { reason: Reason::AppConnect, ..refusal })
    }
}
