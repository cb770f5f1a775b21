//! Who gets a certificate, and who gets a stream.

use std::{sync::Arc, time::Duration, time::SystemTime};

use pillion::token::{JoinGrant, Tokens};
use pillion_api::wire::CertifyRequest;
use pillion_certs::{Authority, Identity, SpiffeId, bootstrap_client_config};
use tonic::Code;

use crate::support::{TestServer, pin_of, request_certificate};

#[tokio::test]
async fn a_join_token_gives_a_certificate_and_the_certificate_renews_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let token = server.join_token("payments").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    assert_eq!(identity.spiffe_id().to_string(), "spiffe://mesh.local/ns/demo/sa/payments");

    let renewed = request_certificate(server.client_as(&identity).await, "").await.expect("a renewed one");
    assert_eq!(renewed.spiffe_id(), identity.spiffe_id());
    assert_ne!(
        renewed.credential().chain_der().next(),
        identity.credential().chain_der().next(),
        "it is another certificate"
    );
    let metrics = reqwest::get(format!("{}/metrics", server.http)).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    for proof in ["join-token", "certificate"] {
        let line = format!("pillion_server_certificates_issued_total{{proof=\"{proof}\"}} 1");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_roots_fingerprint_is_enough_to_know_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let token = server.join_token("payments").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    let client = server.client(bootstrap_client_config(pin_of(&identity), &[b"h2"])).await;
    request_certificate(client.expect("a connection"), &token).await.expect("a certificate");
    let stranger = stranger();
    let refused = server.client(bootstrap_client_config(pin_of(&stranger), &[b"h2"])).await;
    assert!(refused.is_err(), "another root's fingerprint must not do");
    server.stop().await;
}

#[tokio::test]
async fn a_rejected_request_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let tokens = Tokens::new(Arc::clone(&server.store));
    let grant = || JoinGrant { namespace: "demo".into(), service_account: "web".into() };
    let (root, minute) = ("00".repeat(32), Duration::from_secs(60));
    let long_ago = SystemTime::now() - 10 * minute;
    let expired = tokens.create_join(grant(), minute, &root, long_ago).await.expect("a token");
    let revoked = tokens.create_join(grant(), minute, &root, SystemTime::now()).await.expect("a token");
    tokens.revoke(&revoked.info.id, SystemTime::now()).await.expect("revoked");
    let table = [
        ("", "needs a proof"),
        ("nonsense", "malformed"),
        (expired.token.as_str(), "expired at"),
        (revoked.token.as_str(), "revoked"),
    ];
    for (token, expected) in table {
        let status = server.certify(folder.path(), token).await.expect_err(token);
        assert_eq!(status.code(), Code::Unauthenticated, "{token}: {status:?}");
        assert!(status.message().contains(expected), "{token}: {}", status.message());
    }

    let token = server.join_token("web").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    let request = CertifyRequest { csr_der: b"no request".to_vec(), join_token: token };
    let status = server.client_as(&identity).await.certify(request).await.expect_err("no request at all");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("csr_der:"), "{}", status.message());
    server.stop().await;
}

#[tokio::test]
async fn no_token_makes_a_workload_the_control_plane() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let (namespace, service_account) = pillion_certs::spiffe::CONTROL_PLANE;
    let grant = JoinGrant { namespace: namespace.to_owned(), service_account: service_account.to_owned() };
    let created = Tokens::new(Arc::clone(&server.store))
        .create_join(grant, Duration::from_secs(60), &"00".repeat(32), SystemTime::now())
        .await;
    let token = created.expect("a token from before there was this rule").token;
    let status = server.certify(folder.path(), &token).await.expect_err("that name is taken");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("control plane's own identity"), "{}", status.message());
    server.stop().await;
}

#[tokio::test]
async fn a_stream_needs_a_certificate_of_this_mesh() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let token = server.join_token("web").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");

    let nobody = bootstrap_client_config(pin_of(&identity), &[b"h2"]);
    let mut client = server.client(nobody).await.expect("a connection");
    let status = client.sync(tokio_stream::empty()).await.expect_err("without a certificate");
    assert_eq!(status.code(), Code::Unauthenticated);

    // It believes our server, and shows the certificate of another mesh of the same name.
    let impostor = Identity::new((*stranger().credential()).clone(), (*identity.bundle()).clone());
    let control_plane = SpiffeId::control_plane(identity.spiffe_id().trust_domain());
    let config = impostor.client_config(&control_plane, &[b"h2"]);
    if let Ok(mut client) = server.client(config).await {
        // In TLS 1.3 a client hears of its refusal only after its own handshake.
        client.sync(tokio_stream::empty()).await.expect_err("with a certificate of another mesh");
    }
    let metrics = reqwest::get(format!("{}/metrics", server.http)).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    let failures = "pillion_server_handshake_failures_total{reason=\"unknown-issuer\"} ";
    assert!(metrics.contains(failures), "{metrics}");
    server.stop().await;
}

/// Somebody of another mesh with the same trust domain.
fn stranger() -> Identity {
    let domain: pillion_certs::TrustDomain = "mesh.local".parse().expect("a trust domain");
    let authority = Authority::generate(domain.clone(), SystemTime::now()).expect("an authority");
    let id = SpiffeId::new(domain, "demo", "web").expect("an identity");
    let credential = authority.issue(&id, Duration::from_secs(60), SystemTime::now()).expect("a credential");
    Identity::new(credential, authority.trust_bundle())
}

#[tokio::test]
async fn connections_that_prove_nothing_keep_no_sidecar_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(tokio::net::TcpStream::connect(server.grpc).await.expect("the kernel takes it"));
    }
    // It waits for a place, and gets one of those that were held longest.
    server.sidecar(folder.path(), "web", "web-1").await;
    server.stop().await;
}
