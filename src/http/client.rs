//! Everything needed to send requests to one place: its connections, kept and shared, of either HTTP version.
//!
//! Lives on one thread. What it knows dies with it: a client belongs to one workload instance, so that an address
//! which changes hands never inherits a connection.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::{Rc, Weak},
    time::Duration,
};

use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::{sync::watch, time::Instant};

use super::{
    Body, InterimSink, Version,
    h1::client::{Failed, Home, Http1},
    h2::client::{Http2, Ready},
};
use crate::{
    error::{Reason, Refusal},
    net::io::Io,
    telemetry::hops::Timeline,
};

/// Opens connections to the one place.
pub trait Connect: 'static {
    /// Opens one that will carry this version, handshakes done.
    fn connect(&self, version: Version) -> impl Future<Output = Result<Io, Refusal>>;
}

/// How many requests share an HTTP/2 connection before another is opened beside it.
const STREAMS_PER_CONNECTION: usize = 100;
/// HTTP/2 connections to one place. Several, so that one lost packet or stalled stream does not hold up all.
pub(super) const MAX_HTTP2: usize = 4;
/// Requests that may be under way to one place over HTTP/2, however few its connections take each.
pub(super) const MAX_STREAMS: usize = 1024;
/// Requests on one connection, while another one can be opened: its window has room for so many that stand still.
pub(super) const MOST_STREAMS_PER_CONNECTION: usize = MAX_STREAMS / MAX_HTTP2;
/// Idle HTTP/1 connections kept to one place.
const MAX_IDLE_HTTP1: usize = 256;

/// An attempt to connect, and what came of it once it is over.
type Connecting = watch::Receiver<Option<Result<(), Refusal>>>;

/// What a failed request leaves behind.
#[derive(Debug)]
pub struct Failure {
    /// [`Reason::NotProcessed`] when nothing of the request was sent, else [`Reason::Reset`] or [`Reason::PeerProtocol`].
    pub refusal: Refusal,
    /// The request, if nothing of it was sent.
    pub unsent: Option<Request<Body>>,
    /// It was another request's attempt to connect that failed; it counts once.
    pub shared: bool,
}

impl From<Failed> for Failure {
    fn from(Failed { refusal, request }: Failed) -> Self {
        let unsent = request.filter(|_| refusal.reason == Reason::NotProcessed);
        Self { refusal, unsent, shared: false }
    }
}

/// Sends requests to one place. Clones share its connections.
#[derive(Debug)]
pub struct Client<C>(Rc<Shared<C>>);

impl<C> Clone for Client<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Shared<C> {
    connector: C,
    idle_timeout: Cell<Duration>,
    most_requests: Cell<Option<u32>>,
    http1: RefCell<Vec<(Box<Http1>, Instant)>>,
    http2: RefCell<Vec<(Http2, Instant)>>,
    connecting: RefCell<Option<Connecting>>,
}

impl<C: Connect> Client<C> {
    /// Nothing is connected until the first request.
    pub fn new(connector: C, idle_timeout: Duration) -> Self {
        Self(Rc::new(Shared {
            connector,
            idle_timeout: Cell::new(idle_timeout),
            most_requests: Cell::default(),
            http1: RefCell::default(),
            http2: RefCell::default(),
            connecting: RefCell::default(),
        }))
    }

    /// The one that opens its connections.
    pub fn connector(&self) -> &C {
        &self.0.connector
    }

    /// Whether a request would not have to wait for a connection.
    pub fn is_connected(&self, version: Version) -> bool {
        match version {
            Version::Http1 => !self.0.http1.borrow().is_empty(),
            Version::Http2 => {
                self.0.http2.borrow().iter().any(|(connection, _)| self.0.takes_more(connection))
            }
        }
    }

    /// After which an unused connection is closed.
    pub fn set_idle_timeout(&self, timeout: Duration) {
        self.0.idle_timeout.set(timeout);
    }

    /// After as many, a connection takes no more, and ends with its last response.
    pub fn set_most_requests(&self, most: Option<u32>) {
        self.0.most_requests.set(most);
    }

    /// Closes what carries nothing now.
    pub fn close_idle(&self) {
        self.0.http1.borrow_mut().clear();
        self.0.http2.borrow_mut().retain(|(connection, _)| connection.streams() > 0);
    }

    /// Closes what has not been used for the idle timeout, and forgets what has ended. To be called now and then.
    pub fn sweep(&self) {
        let timeout = self.0.idle_timeout.get();
        let now = Instant::now();
        self.0
            .http1
            .borrow_mut()
            .retain_mut(|(connection, since)| now - *since < timeout && connection.is_usable());
        for (connection, used) in self.0.http2.borrow_mut().iter_mut() {
            if connection.take_used() {
                *used = now;
            }
        }
        self.0
            .http2
            .borrow_mut()
            .retain(|(connection, used)| self.0.takes_more(connection) && now - *used < timeout);
    }

    /// Sends a request already in the version's own form, and waits for the head of its response. Notes when it found a connection.
    ///
    /// A request that a kept HTTP/1 connection turned out not to take goes once more, on a fresh connection: unsent
    /// ones always, sent ones only when repeating them is harmless (idempotent, without a body; RFC 9110 9.2.2) and no byte of an
    /// answer has come. Not when it was a fresh one that ended: what broke it may break the next. But a server that stops
    /// listening resets those that it had not accepted yet: whether it is gone is asked, and told.
    ///
    /// # Errors
    /// With the request, if nothing of it was sent.
    pub fn send(
        &self,
        request: Request<Body>,
        version: Version,
        interim: &dyn InterimSink,
        timeline: &Timeline,
    ) -> impl Future<Output = Result<Response<Body>, Failure>> {
        self.send_waiting(request, version, interim, timeline, ())
    }

    /// The same, with something that is dropped as soon as there is a connection for the request.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_waiting<W>(
        &self,
        request: Request<Body>,
        version: Version,
        interim: &dyn InterimSink,
        timeline: &Timeline,
        waiting: W,
    ) -> Result<Response<Body>, Failure> {
        match version {
            Version::Http1 => self.send_http1(request, interim, timeline, waiting).await,
            Version::Http2 => {
                let ready = self.http2().await;
                drop(waiting);
                match ready {
                    Ok(ready) => ready
                        .send(request, interim, timeline)
                        .await
                        .map(|response| response.map(Body::from_http2))
                        .map_err(|refusal| Failure { refusal, unsent: None, shared: false }),
                    Err((refusal, shared)) => Err(Failure { refusal, unsent: Some(request), shared }),
                }
            }
        }
    }

    async fn send_http1<W>(
        &self,
        request: Request<Body>,
        interim: &dyn InterimSink,
        timeline: &Timeline,
        waiting: W,
    ) -> Result<Response<Body>, Failure> {
        let Some(connection) = self.idle_http1() else {
            return Box::pin(self.send_on_fresh(request, interim, timeline, waiting)).await;
        };
        drop(waiting);
        match connection.send(request, interim, self.home(), timeline).await {
            Err(Failed { refusal, request: Some(request) })
                if refusal.reason == Reason::NotProcessed
                    || refusal.reason == Reason::Reset && harmless_to_repeat(&request) =>
            {
                Box::pin(self.send_on_fresh(request, interim, timeline, ())).await
            }
            result => result.map_err(Failure::from),
        }
    }

    async fn send_on_fresh<W>(
        &self,
        request: Request<Body>,
        interim: &dyn InterimSink,
        timeline: &Timeline,
        waiting: W,
    ) -> Result<Response<Body>, Failure> {
        let io = match self.0.connector.connect(Version::Http1).await {
            Ok(io) => io,
            Err(refusal) => return Err(Failure { refusal, unsent: Some(request), shared: false }),
        };
        drop(waiting);
        match Http1::new(io).send(request, interim, self.home(), timeline).await {
            Err(Failed { refusal, request: Some(request) })
                if refusal.reason == Reason::Reset && harmless_to_repeat(&request) =>
            {
                match self.0.connector.connect(Version::Http1).await {
                    Err(gone) if matches!(gone.reason, Reason::Connect | Reason::AppConnect) => {
                        Err(Failure { refusal: gone, unsent: Some(request), shared: false })
                    }
                    // It is there, and has ended the connection for another reason.
                    connected => {
                        if let Ok(io) = connected {
                            self.0.take_back(Http1::new(io));
                        }
                        Err(Failure { refusal, unsent: None, shared: false })
                    }
                }
            }
            result => result.map_err(Failure::from),
        }
    }

    fn home(&self) -> Weak<dyn Home> {
        Rc::downgrade(&self.0) as Weak<dyn Home>
    }

    /// The connection used last that is still good.
    fn idle_http1(&self) -> Option<Box<Http1>> {
        let mut idle = self.0.http1.borrow_mut();
        let (timeout, now) = (self.0.idle_timeout.get(), Instant::now());
        while let Some((mut connection, since)) = idle.pop() {
            if now - since < timeout && connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// The least busy connection; opens one when there is none, or all are busy and more are allowed.
    /// A failure comes with whether it was another request that began to connect.
    async fn http2(&self) -> Result<Ready, (Refusal, bool)> {
        loop {
            let (best, count) = {
                let mut connections = self.0.http2.borrow_mut();
                connections.retain(|(connection, _)| self.0.takes_more(connection));
                let open = connections.iter().map(|(connection, _)| connection);
                let best = open.min_by_key(|connection| connection.streams());
                (best.cloned(), connections.len())
            };
            match best {
                Some(best) => {
                    let (streams, allowed) = (best.streams(), best.most_streams());
                    let full = streams >= allowed.min(MOST_STREAMS_PER_CONNECTION);
                    // More connections where the peer allows few requests on each; no more where it allows none.
                    let most =
                        if full && allowed > 0 { MAX_HTTP2.max(MAX_STREAMS / allowed) } else { MAX_HTTP2 };
                    if streams >= STREAMS_PER_CONNECTION.min(allowed) && count < most {
                        let mut connecting = self.connecting();
                        // The busy one serves while another is being opened; a full one would only keep it waiting.
                        // Where no other can be had, a place on this one is waited for.
                        if full {
                            let outcome = connecting.wait_for(Option::is_some).await;
                            if matches!(outcome.as_deref(), Ok(Some(Ok(())))) {
                                continue;
                            }
                        }
                    }
                    best.take();
                    if let Ok(ready) = best.ready().await {
                        return Ok(ready);
                    }
                }
                None => {
                    let shared = self.0.connecting.borrow().is_some();
                    let mut connecting = self.connecting();
                    let outcome = connecting.wait_for(Option::is_some).await;
                    match outcome.as_deref() {
                        Ok(Some(Err(refusal))) => return Err((refusal.clone(), shared)),
                        Ok(_) => {}
                        Err(_) => return Err((Reason::Connect.into(), shared)),
                    }
                }
            }
        }
    }

    /// One attempt to connect at a time, shared by all who wait for it, and not given up when one of them is.
    fn connecting(&self) -> Connecting {
        let under_way = self.0.connecting.borrow().clone();
        // One whose attempt ended without saying so has panicked.
        if let Some(connecting) = under_way.filter(|connecting| connecting.has_changed().is_ok()) {
            return connecting;
        }
        let (sender, receiver) = watch::channel(None);
        *self.0.connecting.borrow_mut() = Some(receiver.clone());
        let shared = self.0.clone();
        crate::task::start(async move {
            let connected = match shared.connector.connect(Version::Http2).await {
                Ok(io) => Http2::handshake(io).await,
                Err(refusal) => Err(refusal),
            };
            shared.connecting.borrow_mut().take();
            let outcome = connected.map(|connection| {
                shared.http2.borrow_mut().push((connection, Instant::now()));
            });
            let _ = sender.send(Some(outcome));
        });
        receiver
    }
}

impl<C> Shared<C> {
    fn takes_more(&self, connection: &Http2) -> bool {
        let most = self.most_requests.get().map_or(usize::MAX, |most| most as usize);
        !connection.is_closed() && connection.taken() < most
    }
}

impl<C> Home for Shared<C> {
    fn take_back(&self, connection: Box<Http1>) {
        if self.most_requests.get().is_some_and(|most| connection.taken() >= most) {
            return;
        }
        let mut idle = self.http1.borrow_mut();
        if idle.len() < MAX_IDLE_HTTP1 {
            idle.push((connection, Instant::now()));
        }
    }
}

fn harmless_to_repeat(request: &Request<Body>) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    idempotent.contains(request.method()) && request.body().is_end_stream()
}

/// A bodiless request once more; one with a body cannot be had twice.
pub fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.body().is_end_stream() {
        return None;
    }
    Some(head_of(request))
}

/// A request once more, without its body.
pub fn head_of(request: &Request<Body>) -> Request<Body> {
    copy_head(request).map(|()| Body::Empty)
}

/// A request's head once more.
pub fn copy_head<B>(request: &Request<B>) -> Request<()> {
    let mut again = Request::new(());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    again
}
