//! Carries one application connection as bytes, over a mutual TLS connection of its own.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use pillion_api::model::{Fallback, FallbackTo};
use smallvec::SmallVec;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

use super::{
    Outbound, Target,
    fallback::{self, covers},
    reach::Reach,
    services::Service,
    steer::Steering,
};
use crate::{
    balance::{Endpoint, Pick, Verdict, Wanted},
    error::{Reason, Refusal},
    middleware::limit::Place,
    net::{copy, io::Io, sniff::Prefixed},
    telemetry::{
        edge::{Edge, Outcome},
        exchange::Try,
        listeners::Carried,
    },
};

/// Endpoints tried for a connection.
const TRIES: usize = 3;

/// A connection that came to nothing.
pub(super) struct Unserved {
    pub(super) refusal: Refusal,
    /// Where it is counted, and what is known of it, where the service is known that it was for.
    pub(super) known: Option<Box<(Rc<Edge>, Carried)>>,
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, known: None }
    }
}

impl Unserved {
    /// One to a service.
    pub(super) fn of(service: &Service, carried: Carried, refusal: Refusal) -> Self {
        Self { refusal, known: Some(Box::new((service.edge.clone(), carried))) }
    }
}

/// A connection all the way to an endpoint's application, and what is held for as long as it is open.
pub(super) struct Opened {
    reached: Reached,
    carried: Carried,
}

struct Reached {
    peer: Io,
    edge: Rc<Edge>,
    _endpoint: Pick<Reach>,
    /// Among the connections of who has taken over.
    _place: Option<Place>,
}

/// Whom a connection is for.
struct Whom<'a> {
    called: &'a Service,
    service: &'a Service,
    port: u16,
    endpoint: Option<&'a str>,
    fallback: Option<&'a Fallback>,
}

/// Only read from, while it is not known which side speaks first.
impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.reached.peer).poll_read(cx, buffer)
    }
}

impl Opened {
    /// Copies until both sides have ended. `answered` was read from the endpoint already; `place` is among the connections
    /// that the service may have.
    pub(super) async fn carry(self, mut io: Prefixed<Io>, answered: Bytes, place: Place) {
        let _place = place;
        let Self { reached: Reached { peer, edge, _endpoint, _place: _other }, carried } = self;
        let mut peer = Prefixed::with(answered, peer);
        let _under_way = edge.enter();
        let copied = copy::both_ways(&mut io, &mut peer).await;
        copied.count(&edge, carried);
    }
}

impl Outbound {
    /// Connects to an endpoint, to another one while that fails; to another service's where the policy has one take over.
    pub(super) async fn open_opaque(&self, target: &Target) -> Result<Opened, Unserved> {
        let now = Instant::now();
        let service = self.services.get(&target.service, now).await?;
        let mut carried = Carried::begin(service.edge.listeners(), None, now);
        match self.open_to_any(&service, target, &mut carried).await {
            Ok(reached) => Ok(Opened { reached, carried }),
            Err(refusal) => Err(Unserved::of(&service, carried, refusal)),
        }
    }

    async fn open_to_any(
        &self,
        service: &Service,
        target: &Target,
        carried: &mut Carried,
    ) -> Result<Reached, Refusal> {
        let port = service.config()?.port(target.port).map(|port| port.target_port);
        let port = port.ok_or_else(|| {
            Refusal::new(Reason::UnknownPort, format_args!("{}:{}", service.name, target.port))
        })?;
        let endpoint = target.endpoint.as_deref();
        let fallback = if endpoint.is_none() { service.fallback() } else { None };
        // Bytes cannot be answered with words.
        let fallback = fallback.filter(|fallback| matches!(fallback.to, FallbackTo::Backend { .. }));
        let whom = Whom { called: service, service, port, endpoint, fallback: fallback.as_deref() };
        let refusal = match self.open_opaque_to(whom, carried).await {
            Ok(reached) => return Ok(reached),
            Err(refusal) => refusal,
        };
        match fallback.filter(|fallback| covers(fallback, refusal.reason)) {
            Some(fallback) => Box::pin(self.open_fallback(service, &fallback, refusal, carried)).await,
            None => Err(refusal),
        }
    }

    async fn open_fallback(
        &self,
        called: &Service,
        fallback: &Fallback,
        refusal: Refusal,
        carried: &mut Carried,
    ) -> Result<Reached, Refusal> {
        let FallbackTo::Backend { service, port } = &fallback.to else { return Err(refusal) };
        let opened = match self.fallback_backend(called, service, *port).await {
            Ok((backend, port, place)) => {
                let whom = Whom { called, service: &backend, port, endpoint: None, fallback: None };
                let reached = self.open_opaque_to(whom, carried).await;
                reached.map(|reached| Reached { _place: place, ..reached })
            }
            Err(second) => Err(second),
        };
        let result = if opened.is_ok() { "served" } else { "failed" };
        self.fell_back(called, fallback, &refusal, result);
        opened.map_err(|second| fallback::both(&refusal, fallback, &second))
    }

    async fn open_opaque_to(&self, whom: Whom<'_>, carried: &mut Carried) -> Result<Reached, Refusal> {
        let Whom { called, service, port, endpoint, fallback } = whom;
        let key = Steering::of_connection(service, &self.needs.workload);
        let mut failed = None;
        let mut avoid: SmallVec<[Rc<Endpoint<Reach>>; TRIES]> = SmallVec::new();
        for _ in 0..TRIES {
            let wanted = Wanted { key, session: None, avoid: &avoid };
            let picked = service.pick(&self.random, Instant::now(), endpoint, fallback, &wanted).await;
            let mut pick = match (picked, failed.take()) {
                (Ok(pick), _) => pick,
                (Err(_), Some(refusal)) | (Err(refusal), None) => return Err(refusal),
            };
            let callee = pick.endpoint().callee();
            carried.note(|exchange, began_us| {
                exchange.tries.push(Try { callee: callee.clone(), hedge: false, began_us, ended: None });
            });
            let opened = pick.endpoint().reach().to_peer(port).open_opaque().await;
            let outcome = opened.as_ref().err().map(|refusal| Outcome::Refused(refusal.reason));
            carried.note(|exchange, us| {
                if let Some(last) = exchange.tries.last_mut() {
                    last.ended = Some((us, outcome));
                }
            });
            match opened {
                Ok(peer) => {
                    let now = Instant::now();
                    pick.first_byte(now);
                    // It has an application behind it, which is all that can be told of bytes.
                    pick.settle(Verdict::Good, now);
                    let edge = pick.endpoint().reach().edge(&called.name);
                    return Ok(Reached { peer, edge, _endpoint: pick, _place: None });
                }
                Err(refusal) => {
                    let reason = refusal.reason;
                    failed = Some(refusal);
                    avoid.push(pick.endpoint().clone());
                    pick.settle(pick.verdict(Outcome::Refused(reason)), Instant::now());
                }
            }
        }
        Err(failed.unwrap_or_else(|| Reason::Connect.into()))
    }
}
