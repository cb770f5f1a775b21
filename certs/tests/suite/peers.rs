//! The two ends of a connection, and adversaries whose own checks are switched off.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pillion_certs::{Authority, Identity, PeerFault, SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const ALPN: &[&[u8]] = &[b"pillion/h2", b"pillion/h1"];

pub(crate) type ClientEnd = client::TlsStream<DuplexStream>;
pub(crate) type ServerEnd = server::TlsStream<DuplexStream>;

pub(crate) fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub(crate) fn id(service_account: &str) -> SpiffeId {
    SpiffeId::new(domain("mesh.test"), "demo", service_account).unwrap()
}

pub(crate) fn authority() -> Authority {
    Authority::generate(domain("mesh.test"), SystemTime::now()).unwrap()
}

/// A workload that `authority` vouches for and that believes `authority`.
pub(crate) fn workload(authority: &Authority, service_account: &str) -> Identity {
    let credential = authority.issue(&id(service_account), DAY, SystemTime::now()).unwrap();
    Identity::new(credential, authority.trust_bundle())
}

/// A handshake, and a byte each way after it: a client learns only then that the server refused it.
pub(crate) async fn connect(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (io::Result<ClientEnd>, io::Result<ServerEnd>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = async {
        let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let server = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    tokio::join!(client, server)
}

/// As [`connect`], where nothing may go wrong.
pub(crate) async fn connected(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (ClientEnd, ServerEnd) {
    let (client, server) = connect(client, server).await;
    (client.unwrap(), server.unwrap())
}

pub(crate) fn fault<T>(result: io::Result<T>) -> PeerFault {
    let error = result.map(|_| ()).expect_err("the handshake must fail");
    PeerFault::from_io(&error).unwrap_or_else(|| panic!("no fault in {error:?}")).clone()
}

/// What an adversary proves itself with: any chain and any key.
#[derive(Clone)]
pub(crate) struct Papers {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key_pem: String,
}

impl Papers {
    pub(crate) fn of(credential: &pillion_certs::Credential) -> Self {
        let chain = credential.chain_der().map(|der| CertificateDer::from(der.to_vec())).collect();
        Papers { chain, key_pem: credential.key().to_pem() }
    }

    fn certified(&self) -> Arc<SingleCertAndKey> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
        // Not checked against each other, unlike `CertifiedKey::from_der`.
        Arc::new(CertifiedKey::new(self.chain.clone(), key).into())
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::new(gullible_client(rustls::ALL_VERSIONS).with_client_cert_resolver(self.certified()))
    }

    pub(crate) fn server(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap();
        Arc::new(builder.with_no_client_auth().with_cert_resolver(self.certified()))
    }
}

/// A client that believes everyone.
pub(crate) fn gullible_client(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
