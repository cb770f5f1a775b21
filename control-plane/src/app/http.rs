//! The port of people and tools: accepts connections, with TLS where that is configured, and bounds what they may take.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig as TlsConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::{config::FilePair, error::Error, shutdown::Shutdown};

const MAX_CONNECTIONS: usize = 1024;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// From the first byte of a request to the end of its headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long answers have to be completed at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The bound port with what it serves.
pub(super) struct HttpListener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
}

impl HttpListener {
    /// Reads the certificate, if there is one.
    pub(super) fn new(socket: TcpListener, tls: Option<&FilePair>, router: Router) -> Result<Self, Error> {
        let tls = tls.map(acceptor).transpose()?;
        Ok(Self { socket, tls, router })
    }

    /// Serves until shutdown; returns when all connections have ended, or their grace has.
    pub(super) async fn run(self, mut shutdown: Shutdown) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
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
                    warn!(%error, "cannot accept connections to the API");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                warn!(peer = %address, "refused a connection to the API: there are {MAX_CONNECTIONS} already");
                continue;
            };
            let (tls, router, shutdown) = (self.tls.clone(), self.router.clone(), shutdown.clone());
            connections.spawn(async move {
                let _permit = permit;
                if let Err(error) = accept(tls, router, socket, address, shutdown).await {
                    debug!(peer = %address, error, "a connection to the API ended");
                }
            });
        }
        drop(self.socket);
        // What is left then is closed by dropping its task.
        let _ = timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
    }
}

async fn accept(
    tls: Option<TlsAcceptor>,
    router: Router,
    socket: TcpStream,
    address: SocketAddr,
    shutdown: Shutdown,
) -> Result<(), crate::error::Cause> {
    socket.set_nodelay(true)?;
    match tls {
        Some(tls) => {
            let stream = timeout(HANDSHAKE_DEADLINE, tls.accept(socket)).await??;
            serve(stream, router, address, shutdown).await
        }
        None => serve(socket, router, address, shutdown).await,
    }
}

async fn serve<S>(
    stream: S,
    router: Router,
    address: SocketAddr,
    mut shutdown: Shutdown,
) -> Result<(), crate::error::Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

fn acceptor(files: &FilePair) -> Result<TlsAcceptor, Error> {
    let reading = |path: &Path| format!("read {}", path.display());
    let read = |path: &Path| fs::read(path).map_err(|cause| Error::failed(reading(path), cause));
    let (chain_pem, key_pem) = (read(&files.certificate)?, read(&files.key)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::failed(reading(&files.certificate), io::Error::other(error)))?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|error| Error::failed(reading(&files.key), io::Error::other(error)))?;
    let unusable = |error| Error::failed(format!("use {} for the API", files.certificate.display()), error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
