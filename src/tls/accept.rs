//! The answering side: who calls, what they want, and on which port.

use std::{io, sync::Arc, time::Duration};

use pillion_api::name::ServiceName;
use pillion_certs::{fault::PeerFault, spiffe::SpiffeId, tls};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use super::{Carries, called};
use crate::net::{read_ahead::ReadAhead, sniff::Prefixed};

/// A caller has so long for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, decrypted.
    pub io: Box<TlsStream<ReadAhead<Prefixed<TcpStream>>>>,
    /// The caller, proven.
    pub peer: SpiffeId,
    /// What it will carry.
    pub carries: Carries,
    /// The application port that the caller wants.
    pub port: u16,
    /// The service that the caller means.
    pub service: ServiceName,
    /// Whether the handshake was an abbreviated one.
    pub resumed: bool,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The caller did not prove to belong here.
    #[error(transparent)]
    Peer(#[from] PeerFault),
    /// It speaks TLS, but is no sidecar of ours: the wrong ALPN or server name.
    #[error("the peer is no sidecar of this mesh: {0}")]
    NotOurs(String),
    /// The connection or the protocol failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// It took too long.
    #[error("the TLS handshake was not completed within {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

impl Fault {
    /// A name for labels; of a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Peer(fault) => fault.reason(),
            Self::NotOurs(_) => "not-ours",
            Self::Handshake(_) => "handshake",
            Self::Timeout => "timeout",
        }
    }
}

/// Does the handshake.
pub async fn accept(io: Prefixed<TcpStream>, config: Arc<ServerConfig>) -> Result<Accepted, Fault> {
    let handshake = TlsAcceptor::from(config).accept(ReadAhead::new(io));
    let io = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(io)) => Box::new(io),
        Ok(Err(error)) => {
            return Err(match PeerFault::from_io(&error) {
                Some(fault) => Fault::Peer(fault.clone()),
                None => Fault::Handshake(error),
            });
        }
        Err(_) => return Err(Fault::Timeout),
    };
    let session = io.get_ref().1;
    let peer = tls::peer_identity(session)?;
    let carries = Carries::from_alpn(session.alpn_protocol())
        .ok_or_else(|| Fault::NotOurs("no pillion protocol was negotiated".into()))?;
    let name = session.server_name().unwrap_or_default();
    let (port, service) =
        called(name).ok_or_else(|| Fault::NotOurs(format!("the server name {name:?} names no port")))?;
    let resumed = session.handshake_kind() == Some(tokio_rustls::rustls::HandshakeKind::Resumed);
    Ok(Accepted { io, peer, carries, port, service, resumed })
}
