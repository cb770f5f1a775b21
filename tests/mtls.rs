//! What is on the wire between two sidecars, and who is refused there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use pillion_api::wire;
use pillion_certs::authority::Authority;
use pillion_certs::fault::PeerFault;
use pillion_certs::spiffe::{SpiffeId, TrustDomain};
use pillion_certs::tls::{Identity, peer_identity};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::codegen::tokio_stream::StreamExt;

use crate::support::apps::{App, HttpApp, Version, listener};
use crate::support::mesh::{Mesh, SidecarSpec, TRUST_DOMAIN, spiffe_id};
use crate::support::{eventually, raw, soon};

/// What the sidecars say to each other begins with this.
const ALPN: [&[u8]; 3] = [b"pillion/h2", b"pillion/h1", b"pillion/tcp"];

/// Registers an endpoint of the service `app` that the test plays itself, for as long as the result is held.
async fn register(mesh: &Mesh, address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let identity = mesh.identity("app");
    let trust_domain: TrustDomain = TRUST_DOMAIN.parse().expect("a valid name");
    let config = identity.client_config(&SpiffeId::control_plane(&trust_domain), &[b"h2"]);
    let control_plane = mesh.control_plane;
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = TlsConnector::from(Arc::clone(&config));
        async move {
            let stream = TcpStream::connect(control_plane).await?;
            let name = ServerName::try_from("control-plane").expect("a valid name");
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://control-plane")
        .connect_with_connector(connect)
        .await
        .expect("the control plane takes the certificate");
    let hello = wire::Hello {
        instance_uid: "app-relayed-0001".into(),
        workload: "app-relayed".into(),
        labels: [("app".to_owned(), "app".to_owned())].into(),
        ports: vec![wire::WorkloadPort { port: 8080, name: String::new() }],
        inbound_address: address.to_string(),
        version: "test".into(),
        health: Some(wire::Health { ready: true, ..Default::default() }),
        ..Default::default()
    };
    let (sender, outgoing) = tokio::sync::mpsc::channel(8);
    let message = |message| wire::SidecarMessage { message: Some(message) };
    sender.send(message(wire::sidecar_message::Message::Hello(hello))).await.expect("the stream is open");
    let mut client = wire::control_plane_client::ControlPlaneClient::new(channel);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut incoming = client.sync(outgoing).await.expect("the stream is taken").into_inner();
    tokio::spawn(async move {
        while let Some(Ok(received)) = incoming.next().await {
            if let Some(wire::control_message::Message::Heartbeat(beat)) = received.message {
                let reply = wire::HeartbeatReply { sequence: beat.sequence };
                let reply = message(wire::sidecar_message::Message::HeartbeatReply(reply));
                if sender.send(reply).await.is_err() {
                    return;
                }
            }
        }
    })
}

#[tokio::test]
async fn the_bytes_between_two_sidecars_are_tls_1_3_and_tell_nothing() {
    const SECRET: &str = "a-secret-that-nobody-may-read";
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let (recorded, target) = (Recorded::default(), Arc::new(OnceLock::new()));
    let relay = relay(Arc::clone(&target), recorded.clone()).await;
    let advertised = relay.address.to_string();
    let callee = SidecarSpec::serving("app-1", "app", app.address()).flags(&["--advertise", &advertised]);
    let callee = mesh.sidecar(callee).await;
    target.set(callee.addresses.inbound).expect("it is set once");
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;

    let request = caller.client().post("http://app.demo.mesh/echo?of=/a-path").body(SECRET).send();
    let answer = soon("an answer", async { request.await?.text().await }).await.expect("an answer");
    assert_eq!(answer, SECRET);

    let (sent, received) = (recorded.sent(), recorded.received());
    for (direction, bytes) in [("to", &sent), ("from", &received)] {
        assert!(
            !contains(bytes, SECRET.as_bytes()),
            "the body can be read on its way {direction} the callee"
        );
        assert!(!contains(bytes, b"/a-path"), "the path can be read on its way {direction} the callee");
        assert!(!contains(bytes, b"spiffe://"), "an identity can be read on its way {direction} the callee");
        assert_records(direction, bytes);
    }
    assert_eq!(sent[5], 1, "the first message is a ClientHello");
    assert_eq!(received[5], 2, "the first answer is a ServerHello");
    assert_eq!(selected_version(&received), Some(0x0304), "TLS 1.3 (RFC 8446, 4.2.1)");

    let labels = [("side", "server"), ("result", "full")];
    eventually("the handshake is counted", async || {
        (callee.metrics().await.sum("pillion_tls_handshakes_total", &labels) >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn both_sides_show_their_certificates() {
    let mesh = Mesh::start().await;
    mesh.apply_service("app", "http").await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    // The test is the called sidecar: it sees what the caller's presents.
    let (listener, address) = listener().await;
    let config = mesh.identity("app").server_config(&ALPN).expect("valid settings");
    let seen = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let tls = TlsAcceptor::from(config).accept(stream).await.expect("a handshake");
        let session = tls.get_ref().1;
        (
            session.protocol_version(),
            session.negotiated_key_exchange_group().map(|group| group.name()),
            session.alpn_protocol().map(<[u8]>::to_vec),
            peer_identity(session).expect("a certificate with an identity"),
        )
    });
    // Nobody answers the request itself; only the handshake is looked at.
    let calls = async {
        let _registered = register(&mesh, address).await;
        loop {
            let _ = caller.client().get("http://app.demo.mesh/").send().await;
        }
    };
    let (version, group, alpn, peer) = tokio::select! {
        seen = soon("a handshake", seen) => seen.expect("the accepting side does not panic"),
        () = calls => unreachable!("calls go on for ever"),
    };
    assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "a key exchange that outlives quantum computers");
    assert!(alpn.as_deref().is_some_and(|alpn| alpn.starts_with(b"pillion/")), "{alpn:?}");
    assert_eq!(peer, spiffe_id("client"));
}

#[tokio::test]
async fn callers_that_cannot_prove_who_they_are_are_refused_by_name() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    mesh.until_ready(&[&callee]).await;
    let inbound = callee.addresses.inbound;

    let bundle = mesh.identity("client").bundle();
    let stranger_domain: TrustDomain = "stranger.local".parse().expect("a valid name");
    let stranger_id: SpiffeId =
        "spiffe://stranger.local/ns/demo/sa/client".parse().expect("a valid SPIFFE ID");
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let stranger = Authority::generate(stranger_domain, now).expect("a fresh authority");
    let of_stranger = stranger.issue(&stranger_id, hour, now).expect("a fresh certificate");
    let impostor =
        Authority::generate(TRUST_DOMAIN.parse().expect("a valid name"), now).expect("an authority");
    let of_impostor = impostor.issue(&spiffe_id("client"), hour, now).expect("a fresh certificate");
    let with =
        |credential| Identity::new(credential, (*bundle).clone()).client_config(&spiffe_id("app"), &ALPN);

    let cases: [(&str, Arc<ClientConfig>, &[&str]); 3] = [
        ("no certificate", without_certificate(), &["no-certificate"]),
        ("another trust domain's", with(of_stranger), &["wrong-trust-domain", "unknown-issuer"]),
        ("our name under another root", with(of_impostor), &["unknown-issuer"]),
    ];
    for (who, config, reasons) in cases {
        assert_refused(inbound, config, who).await;
        eventually(&format!("{who}: a handshake refused for {reasons:?} is counted"), async || {
            let metrics = callee.metrics().await;
            let counted = reasons.iter().map(|reason| {
                metrics.sum("pillion_tls_handshakes_total", &[("side", "server"), ("result", reason)])
            });
            (counted.sum::<f64>() >= 1.0).then_some(())
        })
        .await;
        let log = callee.process.log();
        assert!(reasons.iter().any(|reason| log.contains(reason)), "{who}: no word of it in the log:\n{log}");
    }
    // The same with a good certificate is taken, so it was the certificates that were refused.
    let good = with(mesh.credential("client"));
    let tls =
        soon("a good handshake", handshake(inbound, good)).await.expect("a member of the mesh is taken");
    assert_eq!(peer_identity(tls.get_ref().1).expect("the callee's certificate"), spiffe_id("app"));
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn plaintext_and_tls_1_2_are_refused() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    mesh.until_ready(&[&callee]).await;

    let answer = raw::exchange(
        callee.addresses.inbound,
        "GET /who HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(raw::status(&answer), 403, "{answer}");
    let reason = raw::header(&answer, "pillion-error").unwrap_or_default();
    assert!(reason.starts_with("plaintext-refused; hop=inbound"), "{answer}");

    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let roots = rustls::RootCertStore::empty();
    let tls12 = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2 is built in")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let refused = soon("a handshake", handshake(callee.addresses.inbound, tls12.into())).await;
    let error = refused.expect_err("TLS 1.2 is refused").to_string();
    assert!(error.contains("ProtocolVersion"), "by its version, not for another reason: {error}");
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_callee_with_the_wrong_identity_gets_no_request() {
    let mesh = Mesh::start().await;
    mesh.apply_service("app", "http").await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    // A member of the mesh, but not the one that the endpoint is registered as.
    let config = mesh.identity("somebody-else").server_config(&ALPN).expect("valid settings");
    let impostor = App::start(move |stream| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move {
            if let Ok(mut tls) = acceptor.accept(stream).await {
                let mut byte = [0];
                let read = tls.read(&mut byte).await;
                assert!(!matches!(read, Ok(1..)), "the caller sent application data to an impostor");
            }
        }
    })
    .await;
    let request = caller.client().get("http://app.demo.mesh/");
    let _registered = register(&mesh, impostor.address).await;
    let response = eventually("the endpoint is known and refused", async || {
        let response = request.try_clone()?.send().await.ok()?;
        let error = response.headers().get("pillion-error")?.to_str().ok()?.to_owned();
        (!error.starts_with("no-")).then_some((response.status(), error))
    })
    .await;
    assert_eq!(response.0, 503, "{response:?}");
    assert!(response.1.starts_with("peer-identity"), "{response:?}");
    let labels = [("side", "client"), ("result", "peer-identity")];
    eventually("the handshake is counted", async || {
        (caller.metrics().await.sum("pillion_tls_handshakes_total", &labels) >= 1.0).then_some(())
    })
    .await;
}

/// A client that would believe anyone, and shows nothing of its own.
fn without_certificate() -> Arc<ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is built in")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(believing::Anyone))
        .with_no_client_auth();
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    config.into()
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

async fn handshake(to: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("sidecar").expect("a valid name");
    TlsConnector::from(config).connect(name, stream).await
}

/// In TLS 1.3 the client has finished before the server judges its certificate: the refusal is seen at the first read.
async fn assert_refused(inbound: SocketAddr, config: Arc<ClientConfig>, who: &str) {
    soon("a refusal", async {
        let refused = match handshake(inbound, config).await {
            Err(error) => Err(error),
            Ok(mut tls) => match tls.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await {
                Err(error) => Err(error),
                Ok(()) => tls.read_u8().await,
            },
        };
        let error = refused.expect_err("nothing is answered");
        let ours = PeerFault::from_io(&error);
        assert!(ours.is_none(), "{who}: the client gave up first: {ours:?}");
    })
    .await;
}

mod believing {
    //! A verifier that verifies nothing, for a client that wants to see how far it gets.

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Anyone;

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
}

/// Everything that passed a relay.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<[Vec<u8>; 2]>>);

impl Recorded {
    fn sent(&self) -> Vec<u8> {
        self.0.lock().expect("no panic in there")[0].clone()
    }

    fn received(&self) -> Vec<u8> {
        self.0.lock().expect("no panic in there")[1].clone()
    }

    async fn copy(
        self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        direction: usize,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            self.0.lock().expect("no panic in there")[direction].extend_from_slice(&buffer[..length]);
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }
}

/// Passes every byte on to `target`, and remembers those of its first connection.
async fn relay(target: Arc<OnceLock<SocketAddr>>, recorded: Recorded) -> App {
    App::start(move |stream| {
        // A second connection would mix two streams of records.
        let first = recorded.0.lock().expect("no panic in there")[0].is_empty();
        let recorded = if first { recorded.clone() } else { Recorded::default() };
        let target = Arc::clone(&target);
        async move {
            let to = *target.get().expect("nobody is told of the relay before it is set");
            let Ok(upstream) = TcpStream::connect(to).await else { return };
            let ((read, write), (up_read, up_write)) = (stream.into_split(), upstream.into_split());
            tokio::join!(recorded.clone().copy(read, up_write, 0), recorded.copy(up_read, write, 1));
        }
    })
    .await
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// TLS records from the first byte to the last (RFC 8446, 5.1), and after the hellos nothing but encrypted ones.
fn assert_records(direction: &str, mut bytes: &[u8]) {
    let mut kinds = Vec::new();
    while let [kind, 3, 1 | 3, high, low, rest @ ..] = bytes {
        kinds.push(*kind);
        let length = usize::from(*high) << 8 | usize::from(*low);
        bytes = rest.get(length..).unwrap_or_default();
    }
    assert!(bytes.is_empty(), "{direction}: not a TLS record: {:?}", &bytes[..bytes.len().min(16)]);
    let (handshake, change_cipher_spec, application_data) = (22, 20, 23);
    assert_eq!(kinds.first(), Some(&handshake), "{direction}");
    let after: Vec<u8> = kinds[1..].iter().copied().filter(|kind| *kind != change_cipher_spec).collect();
    assert!(
        !after.is_empty() && after.iter().all(|kind| *kind == application_data),
        "{direction}: {kinds:?}"
    );
}

/// The version in the `supported_versions` extension of the ServerHello that `bytes` begin with.
fn selected_version(bytes: &[u8]) -> Option<u16> {
    // Record header 5, handshake header 4, version 2, random 32.
    let session_id = 5 + 4 + 2 + 32;
    let cipher_suite = session_id + 1 + usize::from(*bytes.get(session_id)?);
    let mut extensions = bytes.get(cipher_suite + 2 + 1 + 2..)?;
    while let [kind_high, kind_low, high, low, rest @ ..] = extensions {
        let length = usize::from(*high) << 8 | usize::from(*low);
        if (*kind_high, *kind_low) == (0, 43) {
            return Some(u16::from(*rest.first()?) << 8 | u16::from(*rest.get(1)?));
        }
        extensions = rest.get(length..)?;
    }
    None
}
