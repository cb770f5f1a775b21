//! Verification of peers: the chain to our current roots, one SPIFFE name, our trust domain, the expected identity.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use crate::bundle::{Fingerprint, TrustBundle};
use crate::fault::PeerFault;
use crate::leaf::Leaf;
use crate::spiffe::SpiffeId;

/// Verifies a chain for one side of a connection and says whom it names.
///
/// The trust domain is looked at before the chain: a peer of another mesh is told apart from one whose root we have
/// not heard of yet, which is what an operator needs to know. Either is refused.
pub(crate) fn verify_chain(
    bundle: &TrustBundle,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: impl ExtendedKeyUsageValidator,
    now: UnixTime,
) -> Result<SpiffeId, PeerFault> {
    let id = Leaf::read(end_entity)?.id;
    if id.trust_domain() != bundle.trust_domain() {
        return Err(PeerFault::WrongTrustDomain {
            expected: bundle.trust_domain().clone(),
            actual: id.trust_domain().clone(),
        });
    }
    let certificate = EndEntityCert::try_from(end_entity).map_err(PeerFault::from_webpki)?;
    let algorithms = algorithms().all;
    certificate
        .verify_for_usage(algorithms, bundle.anchors(), intermediates, now, usage, None, None)
        .map_err(PeerFault::from_webpki)?;
    Ok(id)
}

/// Verifies our own new chain at a moment when it is valid by its own account: a clock that is wrong here shows
/// elsewhere, and is no reason to refuse a certificate.
pub(crate) fn verify_own_chain(
    bundle: &TrustBundle,
    chain: &[CertificateDer<'_>],
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<SpiffeId, PeerFault> {
    let (end_entity, intermediates) = chain.split_first().ok_or(PeerFault::NoCertificate)?;
    let middle = not_before + not_after.duration_since(not_before).unwrap_or_default() / 2;
    let since_epoch = middle.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since_epoch);
    verify_chain(bundle, end_entity, intermediates, KeyUsage::client_auth(), now)?;
    verify_chain(bundle, end_entity, intermediates, KeyUsage::server_auth(), now)
}

/// Verifies once more the chain of a session that was resumed, against the roots of the moment. What it may be used
/// for was verified when the session began.
pub(crate) fn verify_again(
    bundle: &TrustBundle,
    chain: &[CertificateDer<'_>],
) -> Result<SpiffeId, PeerFault> {
    let (end_entity, intermediates) = chain.split_first().ok_or(PeerFault::NoCertificate)?;
    verify_chain(bundle, end_entity, intermediates, AnyUsage, UnixTime::now())
}

struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// What a client believes about the server that it connects to.
#[derive(Debug)]
enum Trust {
    /// One workload of our mesh, under the roots of the moment.
    Exactly { expected: SpiffeId, bundle: Arc<ArcSwap<TrustBundle>> },
    /// The control plane, under roots from a file.
    ControlPlaneUnder(TrustBundle),
    /// The control plane, under the one root with this fingerprint, which the server sends along.
    ControlPlanePinned(Fingerprint),
}

/// Verifies servers. Ignores the server name: workloads are known by their SPIFFE IDs, not by addresses.
#[derive(Debug)]
pub struct ServerVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Accepts `expected` alone, under whatever roots `bundle` holds at the time of the handshake.
    pub fn expecting(expected: SpiffeId, bundle: Arc<ArcSwap<TrustBundle>>) -> Self {
        ServerVerifier { trust: Trust::Exactly { expected, bundle }, algorithms: algorithms() }
    }

    /// Accepts the control plane of the bundle's trust domain, for a workload that has no identity yet.
    pub fn control_plane_under(bundle: TrustBundle) -> Self {
        ServerVerifier { trust: Trust::ControlPlaneUnder(bundle), algorithms: algorithms() }
    }

    /// Accepts the control plane of the trust domain whose root has this fingerprint; the server must send that root.
    pub fn control_plane_pinned(root: Fingerprint) -> Self {
        ServerVerifier { trust: Trust::ControlPlanePinned(root), algorithms: algorithms() }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PeerFault> {
        let verify = |bundle: &TrustBundle| {
            verify_chain(bundle, end_entity, intermediates, KeyUsage::server_auth(), now)
        };
        let (expected, actual) = match &self.trust {
            Trust::Exactly { expected, bundle } => (expected.clone(), verify(&bundle.load())?),
            Trust::ControlPlaneUnder(bundle) => {
                (SpiffeId::control_plane(bundle.trust_domain()), verify(bundle)?)
            }
            Trust::ControlPlanePinned(pin) => {
                // The pinned root vouches for its trust domain, which we do not know otherwise.
                let trust_domain = Leaf::read(end_entity)?.id.trust_domain().clone();
                let root = intermediates
                    .iter()
                    .find(|der| Fingerprint::of(der) == *pin)
                    .ok_or(PeerFault::UnknownIssuer)?;
                let bundle =
                    TrustBundle::from_der(trust_domain.clone(), [root]).map_err(PeerFault::malformed)?;
                (SpiffeId::control_plane(&trust_domain), verify(&bundle)?)
            }
        };
        if actual == expected { Ok(()) } else { Err(PeerFault::WrongIdentity { expected, actual }) }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies clients: anyone of our trust domain. Whether that one may is for authorization, which sees the request.
#[derive(Debug)]
pub struct ClientVerifier {
    bundle: Arc<ArcSwap<TrustBundle>>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    /// Refuses clients without a certificate.
    pub fn mandatory(bundle: Arc<ArcSwap<TrustBundle>>) -> Self {
        ClientVerifier { bundle, mandatory: true, algorithms: algorithms() }
    }

    /// Lets clients without a certificate in; one that is presented must be good.
    pub fn optional(bundle: Arc<ArcSwap<TrustBundle>>) -> Self {
        ClientVerifier { bundle, mandatory: false, algorithms: algorithms() }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: our clients have one certificate, and the names of our roots are nobody's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        verify_chain(&self.bundle.load(), end_entity, intermediates, KeyUsage::client_auth(), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What the mesh speaks with: aws-lc-rs; the hybrid X25519MLKEM768 first, so that what is recorded today cannot be
/// read when there are quantum computers; AES-128-GCM first, the fastest where there are AES instructions. One for
/// the process, as there is a configuration for each endpoint.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
            ..aws_lc_rs::default_provider()
        })
    });
    PROVIDER.clone()
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// The peer holds the key of the certificate that it showed.
fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, TlsError> {
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        .map_err(|e| PeerFault::malformed(e).into())
}

fn tls12_refused() -> TlsError {
    TlsError::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13)
}
