//! The router on a socket: connections bounded, every wait with a deadline, TLS beyond loopback.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    time,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);
/// How long answers under way may take once the server shuts down.
const GRACE: Duration = Duration::from_secs(2);

/// Why the API cannot be served as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Anybody on the network could read tokens off the wire.
    #[error(
        "{0} is beyond loopback, where the server insists on TLS and a token: set --http-tls-cert and --http-tls-key, or \
         listen on 127.0.0.1"
    )]
    NeedsTls(SocketAddr),
    /// The certificate or key cannot be used.
    #[error("cannot use the certificate {certificate} with the key {key}: {cause}")]
    BadCertificate {
        /// The chain's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What is wrong.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What TLS needs, checked: `files` are a PEM chain, leaf first, and its key.
///
/// # Errors
/// Where there are none beyond loopback, or they cannot be used.
pub fn tls(
    listens_on: SocketAddr,
    files: Option<(&Path, &Path)>,
) -> Result<Option<TlsAcceptor>, ListenError> {
    match files {
        None if listens_on.ip().is_loopback() => Ok(None),
        None => Err(ListenError::NeedsTls(listens_on)),
        Some((certificate, key)) => match acceptor(certificate, key) {
            Ok(acceptor) => Ok(Some(acceptor)),
            Err(cause) => Err(ListenError::BadCertificate {
                certificate: certificate.display().to_string(),
                key: key.display().to_string(),
                cause,
            }),
        },
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `shutdown` becomes true (or its sender is gone), then lets answers under way end, for a while.
///
/// # Errors
/// Never for one connection's sake; only when the listener itself cannot be asked for its address.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    tracing::info!(address = %listener.local_addr()?, tls = tls.is_some(), "serving the API");
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = stopped(&mut shutdown) => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, router, shutdown).await,
                Some(tls) => match time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router, shutdown).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).expect("a small constant");
    // Held by nobody: every connection has ended. Event streams have no end of their own and are cut.
    let _ = time::timeout(GRACE, permits.acquire_many(all)).await;
    Ok(())
}

/// Returns when the server shuts down, or whoever could say so is gone.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are written whole; waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                return (stream, peer, permit);
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying at once again would spin.
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(128);
    let service = TowerToHyperService::new(router);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut shutdown) => {
            serving.as_mut().graceful_shutdown();
            time::timeout(GRACE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended badly");
    }
}
