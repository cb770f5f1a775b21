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

/// A connection all the way to an endpoint's application, and what is held for as long as it is open.
pub(super) struct Opened {
    peer: Io,
    edge: Rc<Edge>,
    carried: Carried,
    _endpoint: Pick<Reach>,
    /// Among the connections of who has taken over.
    _place: Option<Place>,
}

/// Only read from, while it is not known which side speaks first.
impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.peer).poll_read(cx, buffer)
    }
}

impl Opened {
    /// Copies until both sides have ended. `answered` was read from the endpoint already; `place` is among the connections
    /// that the service may have.
    pub(super) async fn carry(self, mut io: Prefixed<Io>, answered: Bytes, place: Place) {
        let _place = place;
        let mut peer = Prefixed::with(answered, self.peer);
        let _under_way = self.edge.enter();
        let copied = copy::both_ways(&mut io, &mut peer).await;
        copied.count(&self.edge, self.carried);
    }
}

impl Outbound {
    /// Connects to an endpoint, to another one while that fails; to another service's where the policy has one take over.
    pub(super) async fn open_opaque(&self, target: &Target) -> Result<Opened, Refusal> {
        let service = self.services.get(&target.service, Instant::now()).await?;
        let port = service.config()?.port(target.port).map(|port| port.target_port);
        let port = port.ok_or_else(|| {
            Refusal::new(Reason::UnknownPort, format_args!("{}:{}", service.name, target.port))
        })?;
        let endpoint = target.endpoint.as_deref();
        let fallback = if endpoint.is_none() { service.fallback() } else { None };
        // Bytes cannot be answered with words.
        let fallback = fallback.filter(|fallback| matches!(fallback.to, FallbackTo::Backend { .. }));
        let opened = self.open_opaque_to(&service, &service, port, endpoint, fallback.as_deref()).await;
        let refusal = match opened {
            Ok(opened) => return Ok(opened),
            Err(refusal) => refusal,
        };
        match fallback.filter(|fallback| covers(fallback, refusal.reason)) {
            Some(fallback) => Box::pin(self.open_fallback(&service, &fallback, refusal)).await,
            None => Err(refusal),
        }
    }

    async fn open_fallback(
        &self,
        called: &Service,
        fallback: &Fallback,
        refusal: Refusal,
    ) -> Result<Opened, Refusal> {
        let FallbackTo::Backend { service, port } = &fallback.to else { return Err(refusal) };
        let opened = match self.fallback_backend(called, service, *port).await {
            Ok((backend, port, place)) => {
                let opened = self.open_opaque_to(called, &backend, port, None, None).await;
                opened.map(|opened| Opened { _place: place, ..opened })
            }
            Err(second) => Err(second),
        };
        let result = if opened.is_ok() { "served" } else { "failed" };
        self.fell_back(called, fallback, &refusal, result);
        opened.map_err(|second| fallback::both(&refusal, fallback, &second))
    }

    async fn open_opaque_to(
        &self,
        called: &Service,
        service: &Service,
        port: u16,
        endpoint: Option<&str>,
        fallback: Option<&Fallback>,
    ) -> Result<Opened, Refusal> {
        let key = Steering::of_connection(service, &self.needs.workload);
        let mut failed = None;
        let mut carried = Carried::begin(called.edge.listeners(), None, Instant::now());
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
                    return Ok(Opened { peer, edge, carried, _endpoint: pick, _place: None });
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
