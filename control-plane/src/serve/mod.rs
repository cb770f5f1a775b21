//! The port where sidecars connect: TLS, then gRPC.
//!
//! A client certificate is optional in the handshake, as a new workload comes for its first one; `Sync` demands it.
//! Read in this order: [`Mesh`] (what everything here works on), `listen` (connections), `unproven`, `certify`, `sync` (a
//! sidecar's stream), `hello` (what it says of itself), `tapping` (what
//! it tells of live requests).

mod certify;
mod hello;
mod lag;
mod listen;
mod session;
mod sync;
mod tapping;
mod unproven;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::Stream;
use pillion_api::wire::{
    CertifyRequest, CertifyResponse, ControlMessage, SidecarMessage, control_plane_server::ControlPlane,
};
use pillion_certs::{Authority, SpiffeId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use self::listen::Listener;
use crate::{
    history::History,
    publish::{Compiler, Publisher},
    registry::Registry,
    shutdown::Shutdown,
    tap::Taps,
    telemetry::Telemetry,
    token::Tokens,
};

/// What the handlers work on.
pub struct Mesh {
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// Knows join tokens.
    pub tokens: Tokens,
    /// Who is alive.
    pub registry: Arc<Registry>,
    /// What sidecars are sent.
    pub publisher: Arc<Publisher>,
    /// The documents behind it.
    pub compiler: Arc<Compiler>,
    /// What sidecars measured.
    pub history: Arc<History>,
    /// Who watches live requests.
    pub taps: Arc<Taps>,
    /// The server's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// Validity of certificates.
    pub leaf_ttl: Duration,
    /// How long a lost workload stays registered.
    pub lease: Duration,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Ends every stream.
    pub shutdown: Shutdown,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
struct Peer {
    address: SocketAddr,
    /// By its certificate, if it has one.
    proof: Option<Proof>,
}

/// Whom a certificate names, and until when that holds: a connection may outlive the certificate it was opened with.
#[derive(Clone, Debug)]
struct Proof {
    id: SpiffeId,
    not_after: SystemTime,
}

impl Proof {
    fn is_over(&self, now: SystemTime) -> bool {
        self.not_after <= now
    }
}

/// Messages on their way to a sidecar beyond the one being written; the rest waits where only the newest is kept.
const OUTBOX: usize = 1;

#[derive(Clone)]
struct Handlers(Arc<Mesh>);

#[tonic::async_trait]
impl ControlPlane for Handlers {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<ControlMessage, Status>> + Send>>;

    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let peer = peer(&request);
        certify::certify(&self.0, &peer, request.into_inner()).await.map(Response::new)
    }

    async fn sync(
        &self,
        request: Request<Streaming<SidecarMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let peer = peer(&request);
        let Some(proof) = peer.proof.clone() else {
            let message = "Sync needs a client certificate of this mesh; Certify gives one for a join token";
            return Err(Status::unauthenticated(message));
        };
        let (outbox, messages) = mpsc::channel(OUTBOX);
        // It ends when the sidecar or the connection goes, which drops `messages`, and at shutdown.
        tokio::spawn(sync::run(Arc::clone(&self.0), peer.address, proof, request.into_inner(), outbox));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

fn peer<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().cloned().expect("the listener notes the peer on every request")
}
