//! The calling side: to one workload's sidecar, and nobody else.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use pillion_api::name::ServiceName;
use pillion_certs::{fault::PeerFault, spiffe::SpiffeId, tls::Identity};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, HandshakeKind, pki_types::ServerName},
};

use super::{Carries, server_name};
use crate::{
    error::{Reason, Refusal},
    net::read_ahead::ReadAhead,
};

/// A connection to a peer's sidecar, handshake done.
pub type Connection = TlsStream<ReadAhead<TcpStream>>;

/// A workload's sidecar as a place to connect to. Kept for as long as the workload is known, because it holds the TLS
/// sessions that make reconnecting cheap.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    expected: SpiffeId,
    identity: Identity,
    configs: [OnceLock<Arc<ClientConfig>>; 3],
}

impl Peer {
    /// The sidecar at `address`, which must prove to be `expected`; we prove to be `identity`.
    pub fn new(address: SocketAddr, expected: SpiffeId, identity: Identity) -> Self {
        Self { address, expected, identity, configs: Default::default() }
    }

    /// Connects for one port of one service. Tells also whether the handshake was an abbreviated one.
    ///
    /// # Errors
    /// [`Reason::Connect`], [`Reason::ConnectTimeout`] (TCP and TLS together), [`Reason::TlsHandshake`],
    /// [`Reason::PeerIdentity`].
    pub async fn connect(
        &self,
        carries: Carries,
        service: &ServiceName,
        port: u16,
        within: Duration,
    ) -> Result<(Connection, bool), Refusal> {
        let address = self.address;
        let connecting = async {
            let tcp = crate::net::connect::tcp(address, within).await?;
            let name = ServerName::try_from(server_name(port, service))
                .map_err(|error| Refusal::new(Reason::TlsHandshake, error))?;
            let connector = TlsConnector::from(self.config(carries));
            let io =
                connector.connect(name, ReadAhead::new(tcp)).await.map_err(
                    |error| match PeerFault::from_io(&error) {
                        Some(fault) => Refusal::new(Reason::PeerIdentity, format_args!("{address}: {fault}")),
                        None => Refusal::new(Reason::TlsHandshake, format_args!("{address}: {error}")),
                    },
                )?;
            let session = io.get_ref().1;
            let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
            // Asked of resumed sessions too, which TLS does not verify again.
            match self.identity.verify_peer(session) {
                Ok(actual) if actual == self.expected => Ok((io, resumed)),
                Ok(actual) => Err(Refusal::new(
                    Reason::PeerIdentity,
                    format_args!("{address}: the peer is {actual}, not {}", self.expected),
                )),
                Err(fault) => Err(Refusal::new(Reason::PeerIdentity, format_args!("{address}: {fault}"))),
            }
        };
        match tokio::time::timeout(within, connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                Err(Refusal::new(Reason::ConnectTimeout, format_args!("{address}: not within {within:?}")))
            }
        }
    }

    fn config(&self, carries: Carries) -> Arc<ClientConfig> {
        let made = self.configs[carries as usize].get_or_init(|| {
            let config = self.identity.client_config(&self.expected, &[carries.alpn()]);
            // The identity is verified by SPIFFE ID; the server name only says which port is meant.
            let mut config = ClientConfig::clone(&config);
            config.enable_sni = true;
            Arc::new(config)
        });
        made.clone()
    }
}
