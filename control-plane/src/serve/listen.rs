//! Accepts connections: bounded in number, and much more tightly before they have proven who they are; each with a
//! deadline for its handshake and keep-alive afterwards.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pillion_api::wire::control_plane_server::ControlPlaneServer;
use pillion_certs::{Identity, PeerFault, peer_identity, peer_not_after};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::codegen::Service;
use tracing::{debug, info, warn};

use super::{
    Handlers, Mesh, Peer, Proof,
    unproven::{PLACES, Place, Unproven},
};
use crate::error::Error;

const ALPN: &[u8] = b"h2";
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Connections at once: one per sidecar, and a moment's overlap when it reconnects.
const MAX_CONNECTIONS: usize = 20_000;
/// A sidecar needs two: its stream, and now and then a certificate.
const MAX_STREAMS_PER_CONNECTION: u32 = 16;
/// A dead peer is noticed after both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Sent but not taken by the connection yet, per stream: what a slow sidecar can hold of the server's memory.
const SEND_BUFFER: usize = 64 * 1024;
/// The greatest message a sidecar may send: telemetry of thousands of edges.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Who has no certificate is here to get one, not to stay.
const UNPROVEN_DEADLINE: Duration = Duration::from_secs(30);
/// After an error of `accept` itself, such as no file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long connections have to end by themselves at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

type Server = ControlPlaneServer<Handlers>;

/// The bound port of sidecars.
pub struct Listener {
    socket: TcpListener,
    acceptor: TlsAcceptor,
    mesh: Arc<Mesh>,
}

impl Listener {
    /// Serves `mesh` on a bound socket as `identity`.
    ///
    /// # Errors
    /// When no TLS configuration can be made.
    pub fn new(socket: TcpListener, identity: &Identity, mesh: Arc<Mesh>) -> Result<Self, Error> {
        let config = identity
            .server_config_optional_client(&[ALPN])
            .map_err(|error| Error::failed("configure TLS for sidecars", error))?;
        Ok(Self { socket, acceptor: TlsAcceptor::from(config), mesh })
    }

    /// Serves until the mesh's shutdown; returns when all connections have ended, or their grace has.
    pub async fn run(self) {
        let handlers = Handlers(Arc::clone(&self.mesh));
        let server = ControlPlaneServer::new(handlers).max_decoding_message_size(MAX_MESSAGE);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let unproven = Unproven::new(PLACES);
        let mut connections = JoinSet::new();
        let mut shutdown = self.mesh.shutdown.clone();
        loop {
            // Room first: those whom there is no place for wait in the kernel's queue.
            let accept = async {
                unproven.room().await;
                self.socket.accept().await
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "a connection's task failed");
                    }
                    continue;
                }
                () = shutdown.requested() => break,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept connections of sidecars");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                self.mesh.telemetry.handshake_failed("too-many-connections");
                warn!(peer = %address, "refused a connection: there are {MAX_CONNECTIONS} already");
                continue;
            };
            connections.spawn(serve(
                self.acceptor.clone(),
                server.clone(),
                Arc::clone(&self.mesh),
                (socket, address, permit, unproven.take()),
            ));
        }
        drop(self.socket);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_GRACE, all).await.is_err() {
            info!(left = connections.len(), "closing connections that did not end by themselves");
        }
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    server: Server,
    mesh: Arc<Mesh>,
    (socket, address, _permit, mut place): (TcpStream, SocketAddr, OwnedSemaphorePermit, Place),
) {
    let secured = tokio::select! {
        secured = handshake(&acceptor, socket) => secured,
        () = place.lost() => Err(HandshakeFailed {
            reason: "crowded",
            message: "not complete, and others wait for its place".to_owned(),
        }),
    };
    let (stream, proof) = match secured {
        Ok(secured) => secured,
        Err(failed) => {
            mesh.telemetry.handshake_failed(failed.reason);
            // A port scan or a peer that ended meanwhile is nobody's fault.
            if failed.reason == CLOSED {
                debug!(peer = %address, "a handshake was not completed: {}", failed.message);
            } else {
                warn!(peer = %address, reason = failed.reason, "a handshake failed: {}", failed.message);
            }
            return;
        }
    };
    // Who has proven itself has none of the few places any more.
    let mut place = Some(place).filter(|_| proof.is_none());
    let peer = Peer { address, proof };
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        server.clone().call(request)
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut shutdown = mesh.shutdown.clone();
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = over(&mut place) => return,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(peer = %address, %error, "a connection ended");
    }
}

/// Returns when a peer without a certificate has been here for long enough, or has to make room. Never for others.
async fn over(place: &mut Option<Place>) {
    match place {
        Some(place) => drop(timeout(UNPROVEN_DEADLINE, place.lost()).await),
        None => std::future::pending().await,
    }
}

/// The peer went away in the middle.
const CLOSED: &str = "closed";

/// Why there is no connection.
struct HandshakeFailed {
    /// Of a closed set, for labels.
    reason: &'static str,
    message: String,
}

type Secured = (TlsStream<TcpStream>, Option<Proof>);

async fn handshake(acceptor: &TlsAcceptor, socket: TcpStream) -> Result<Secured, HandshakeFailed> {
    // Messages are small and wanted at once. A failure shows at the first use of the socket anyway.
    let _ = socket.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_DEADLINE, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(tls_failure(&error)),
        Err(_) => {
            let message = format!("not complete within {} s", HANDSHAKE_DEADLINE.as_secs());
            return Err(HandshakeFailed { reason: "timeout", message });
        }
    };
    let connection = stream.get_ref().1;
    let proof =
        peer_identity(connection).and_then(|id| Ok(Proof { id, not_after: peer_not_after(connection)? }));
    match proof {
        Ok(proof) => Ok((stream, Some(proof))),
        Err(PeerFault::NoCertificate) => Ok((stream, None)),
        Err(fault) => Err(HandshakeFailed { reason: fault.reason(), message: fault.to_string() }),
    }
}

fn tls_failure(error: &io::Error) -> HandshakeFailed {
    if let Some(fault) = PeerFault::from_io(error) {
        return HandshakeFailed { reason: fault.reason(), message: fault.to_string() };
    }
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CLOSED,
        // The peer distrusts us, or does not speak our TLS.
        _ => "tls",
    };
    HandshakeFailed { reason, message: error.to_string() }
}
