//! TLS as a calling sidecar of ours does it, with one difference: the peer's chain is verified, not whom it names.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::ParsedCertificate,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

/// Sessions of one server that are kept; each can be resumed once, and each handshake brings one or two more.
const SESSIONS: usize = 8;

/// What a client needs to make handshakes; each of its connections at a time takes a configuration of its own.
pub(crate) struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Arc<ChainVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Credentials {
    /// From PEM files: whom to believe, and who we are.
    ///
    /// # Errors
    /// For people: everything that is wrong with the files.
    pub(crate) fn read(ca: &Path, chain: &Path, key: &Path) -> Result<Self, String> {
        let (mut faults, mut roots) = (Vec::new(), RootCertStore::empty());
        let mut fault =
            |file: &Path, error: &dyn fmt::Display| faults.push(format!("{}: {error}", file.display()));
        let certificates = |file: &Path| CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
        match certificates(ca) {
            Ok(found) if found.is_empty() => fault(ca, &"no certificate in it"),
            Ok(found) => {
                for root in found {
                    roots.add(root).unwrap_or_else(|error| fault(ca, &error));
                }
            }
            Err(error) => fault(ca, &error),
        }
        let own = certificates(chain).map_err(|error| fault(chain, &error));
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error));
        let (Ok(chain), Ok(key), true) = (own, private, faults.is_empty()) else {
            return Err(faults.join("\n"));
        };
        let provider = provider();
        let roots = Arc::new(roots);
        let signatures = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let verifier = Arc::new(ChainVerifier { roots, signatures, provider: provider.clone() });
        Ok(Self { chain, key, verifier, provider })
    }

    /// For one connection at a time. With `resume` it remembers the sessions that servers give it.
    ///
    /// # Errors
    /// A key that does not fit the certificate.
    pub(crate) fn config(&self, alpn: &str, resume: bool) -> Result<Arc<ClientConfig>, Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.resumption =
            if resume { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
        config.alpn_protocols = vec![alpn.into()];
        Ok(Arc::new(config))
    }
}

/// A handshake's kind, in words.
pub(crate) fn kind(kind: Option<HandshakeKind>) -> &'static str {
    match kind {
        Some(HandshakeKind::Full) => "full",
        Some(HandshakeKind::FullWithHelloRetryRequest) => "full, after a retry",
        Some(HandshakeKind::Resumed) => "resumed",
        None => "incomplete",
    }
}

/// The same choices, in the same order, as between sidecars of ours, but no ciphers that nobody prefers.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
}

/// Certificates in a mesh name workloads, not hosts; rustls' own verifier would insist on a host.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    signatures: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Only TLS 1.3 is offered.
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}
