//! TLS configurations that follow an identity: TLS 1.3 only, both certificates, rotation without a new configuration.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig, SignatureScheme};
use tokio::sync::watch;

use crate::bundle::{Fingerprint, TrustBundle};
use crate::credential::Credential;
use crate::error::Error;
use crate::fault::PeerFault;
use crate::leaf::Leaf;
use crate::sessions::{Epoch, EpochSessions, EpochTickets};
use crate::spiffe::SpiffeId;
use crate::verify::{ClientVerifier, ServerVerifier, provider, verify_again};

/// Who this process is now, and whom it believes now. A handle: clones share the same state.
///
/// The configurations that it makes look up credential and bundle at each handshake, so replacing either takes
/// effect on the next connection and closes none.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

struct Shared {
    id: SpiffeId,
    credential: Arc<ArcSwap<Credential>>,
    bundle: Arc<ArcSwap<TrustBundle>>,
    /// Ends session resumption when the bundle or the credential changes.
    epoch: Epoch,
    changed: watch::Sender<Material>,
}

/// What an identity holds at one moment.
#[derive(Clone, Debug)]
pub struct Material {
    /// Our own chain and key.
    pub credential: Arc<Credential>,
    /// Whom we believe.
    pub bundle: Arc<TrustBundle>,
}

impl Identity {
    /// The identity of `credential`, believing the roots in `bundle`.
    pub fn new(credential: Credential, bundle: TrustBundle) -> Self {
        let id = credential.spiffe_id().clone();
        let (credential, bundle) = (Arc::new(credential), Arc::new(bundle));
        let material = Material { credential: credential.clone(), bundle: bundle.clone() };
        Identity(Arc::new(Shared {
            id,
            credential: Arc::new(ArcSwap::new(credential)),
            bundle: Arc::new(ArcSwap::new(bundle)),
            epoch: Epoch::default(),
            changed: watch::Sender::new(material),
        }))
    }

    /// Proves ourselves by `credential` from the next handshake on, and forgets all sessions that could be resumed: they would go on
    /// showing the certificate that they began with, and be refused once that ends. It must name the same workload.
    pub fn replace_credential(&self, credential: Credential) -> Result<(), Error> {
        if *credential.spiffe_id() != self.0.id {
            return Err(Error::IdentityChanged {
                expected: self.0.id.to_string(),
                actual: credential.spiffe_id().to_string(),
            });
        }
        let credential = Arc::new(credential);
        self.0.changed.send_modify(|material| {
            // In this order, as with bundles.
            self.0.credential.store(credential.clone());
            self.0.epoch.advance();
            material.credential = credential;
        });
        Ok(())
    }

    /// Believes the roots in `bundle` from the next handshake on, and forgets all sessions that could be resumed,
    /// so that whoever is not believed any more cannot come back by one. An equal bundle changes nothing.
    pub fn replace_bundle(&self, bundle: TrustBundle) {
        let bundle = Arc::new(bundle);
        self.0.changed.send_if_modified(|material| {
            if material.bundle == bundle {
                return false;
            }
            // In this order: a session of the new epoch is always one that was verified under the new bundle.
            self.0.bundle.store(bundle.clone());
            self.0.epoch.advance();
            material.bundle = bundle;
            true
        });
    }

    /// Whom we are.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// When the current credential ends.
    pub fn not_after(&self) -> SystemTime {
        self.validity().1
    }

    /// When our certificate began to hold, and when it expires.
    pub fn validity(&self) -> (SystemTime, SystemTime) {
        let credential = self.0.credential.load();
        (credential.not_before(), credential.not_after())
    }

    /// The credential of the moment.
    pub fn credential(&self) -> Arc<Credential> {
        self.0.credential.load_full()
    }

    /// The bundle of the moment.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.0.bundle.load_full()
    }

    /// Who is at the other end of a connection whose handshake is complete. To be asked of every new connection.
    ///
    /// TLS does not verify the chain of a resumed session again, and sessions beget sessions; so here it is, which
    /// costs one signature or two. A replaced bundle or credential ends resumption anyway; this also holds for tickets that were
    /// under way meanwhile, and notices a certificate that was not renewed and has ended since the session began.
    pub fn verify_peer(&self, connection: &CommonState) -> Result<SpiffeId, PeerFault> {
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            let chain = connection.peer_certificates().unwrap_or_default();
            return verify_again(&self.0.bundle.load(), chain);
        }
        peer_identity(connection)
    }

    /// Tells of every replacement.
    pub fn subscribe(&self) -> watch::Receiver<Material> {
        self.0.changed.subscribe()
    }

    /// For connections to the workload `expected`, and nobody else. Make one for each endpoint and keep it: it holds
    /// that endpoint's sessions. `alpn` in order of preference. The server name that rustls asks for is neither
    /// sent nor verified; the endpoint's IP address will do.
    pub fn client_config(&self, expected: &SpiffeId, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let verifier = ServerVerifier::expecting(expected.clone(), self.0.bundle.clone());
        let mut config = client_builder(verifier).with_client_cert_resolver(Arc::new(self.current()));
        config.resumption = Resumption::store(Arc::new(EpochSessions::new(self.0.epoch.clone())));
        config.enable_sni = false;
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }

    /// For a port where every client must have a certificate of our trust domain. `alpn` in order of preference.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
        self.server_config_with(ClientVerifier::mandatory(self.0.bundle.clone()), alpn)
    }

    /// For a port where clients may come without a certificate: the control plane's, which gives them their first.
    /// [`Identity::verify_peer`] tells who has one; one that is presented is verified.
    pub fn server_config_optional_client(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
        self.server_config_with(ClientVerifier::optional(self.0.bundle.clone()), alpn)
    }

    fn server_config_with(
        &self,
        verifier: ClientVerifier,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, Error> {
        let verifier: Arc<dyn ClientCertVerifier> = Arc::new(verifier);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(self.current()));
        let tickets = EpochTickets::new(self.0.epoch.clone());
        config.ticketer = Arc::new(tickets.map_err(|e| Error::crypto("make ticket keys", e))?);
        // Early data can be replayed, and requests are not all idempotent.
        config.max_early_data_size = 0;
        config.alpn_protocols = protocols(alpn);
        Ok(Arc::new(config))
    }

    fn current(&self) -> CurrentCredential {
        CurrentCredential(self.0.credential.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// How a workload that has no certificate yet knows the control plane.
#[derive(Debug, Clone)]
pub enum RootPin {
    /// By the SHA-256 of the root's DER, which the join token carries. The control plane sends its root along.
    Fingerprint(Fingerprint),
    /// By a file of roots.
    Bundle(TrustBundle),
}

/// For the first connection of a workload without a certificate: to the control plane only.
pub fn bootstrap_client_config(pin: RootPin, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let verifier = match pin {
        RootPin::Fingerprint(root) => ServerVerifier::control_plane_pinned(root),
        RootPin::Bundle(bundle) => ServerVerifier::control_plane_under(bundle),
    };
    let mut config = client_builder(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// Whom the peer's certificate names, of a connection whose handshake verified it. Where sessions can be resumed,
/// begin with [`Identity::verify_peer`], which also holds the peer against the roots of the moment.
pub fn peer_identity(connection: &CommonState) -> Result<SpiffeId, PeerFault> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let leaf = Leaf::read(chain.first().ok_or(PeerFault::NoCertificate)?)?;
    Ok(leaf.id)
}

/// When the peer's certificate ends, of a connection whose handshake verified it. A connection may well outlive it.
pub fn peer_not_after(connection: &CommonState) -> Result<SystemTime, PeerFault> {
    let chain = connection.peer_certificates().unwrap_or_default();
    Ok(Leaf::read(chain.first().ok_or(PeerFault::NoCertificate)?)?.not_after)
}

fn client_builder(
    verifier: ServerVerifier,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Answers every handshake with the credential of that moment.
struct CurrentCredential(Arc<ArcSwap<Credential>>);

impl ResolvesClientCert for CurrentCredential {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for CurrentCredential {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified().clone())
    }
}

impl fmt::Debug for CurrentCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentCredential")
    }
}
