//! A gRPC channel to the control plane: one HTTP/2 connection of ours, under the generated client.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use pillion_api::wire::control_plane_client::ControlPlaneClient;
use pillion_certs::{PeerFault, tls};
use tokio::time::Instant;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use crate::{
    http::{
        NoInterim,
        body::{BodyError, Progress},
        h2::{RecvBody, client::Http2},
    },
    net::{self, io::Io, read_ahead::ReadAhead, resolve::Resolver},
    telemetry::hops::Timeline,
};

/// What gRPC is called in the handshake (RFC 9113 3.2).
pub const ALPN: &[u8] = b"h2";

/// For each of: resolving and TCP, TLS.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One connection to the control plane.
#[derive(Clone, Debug)]
pub struct Channel(Http2);

/// A client over it.
pub type Client = ControlPlaneClient<Channel>;

/// Connects to `address` (`host:port`).
///
/// # Errors
/// For people: what was tried, and what came of it.
pub async fn connect(
    address: &str,
    resolver: &Resolver,
    config: Arc<ClientConfig>,
) -> Result<Client, String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} is not HOST:PORT"))?;
    let port = port.parse().map_err(|error| format!("{address:?}: {error}"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let anywhere = |_| Ok(());
    let tcp = net::connect::host(resolver, (host, port), TIMEOUT, anywhere)
        .await
        .map_err(|refusal| refusal.to_string())?;
    let peer = tcp.peer_addr().map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(peer.ip().into());
    let handshake = TlsConnector::from(config).connect(name, ReadAhead::new(tcp));
    let io = match tokio::time::timeout(TIMEOUT, handshake).await {
        Err(_) => return Err(format!("{peer}: no TLS handshake within {TIMEOUT:?}")),
        Ok(Err(error)) => {
            let fault = PeerFault::from_io(&error).map(ToString::to_string);
            return Err(format!("{peer}: TLS: {}", fault.unwrap_or_else(|| error.to_string())));
        }
        Ok(Ok(io)) => io,
    };
    tls::peer_identity(io.get_ref().1).map_err(|fault| format!("{peer}: {fault}"))?;
    let http2 = Http2::handshake(Io::Connected(Box::new(io)))
        .await
        .map_err(|refusal| format!("{peer}: {refusal}"))?;
    let origin = http::Uri::from_static("http://control-plane.pillion-system.mesh");
    Ok(ControlPlaneClient::with_origin(Channel(http2), origin))
}

impl Progress for tonic::body::Body {}

impl tower::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<RecvBody>;
    type Error = BodyError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<RecvBody>, BodyError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let http2 = self.0.clone();
        Box::pin(async move {
            let timeline = Timeline::new(Instant::now());
            http2.send(request, &NoInterim, &timeline).await.map_err(Into::into)
        })
    }
}
