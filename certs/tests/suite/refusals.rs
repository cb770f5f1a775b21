//! Every way in which a peer can fail to prove itself, seen from both ends.

use std::time::SystemTime;

use pillion_certs::{Authority, PeerFault, peer_identity};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use rustls_pki_types::CertificateDer;

use crate::peers::*;

/// Signs whatever it is asked to, with our own authority's key.
fn sign_anything(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Papers {
    let pem = authority.to_pem();
    let issuer = Issuer::from_ca_cert_pem(&pem.chain, KeyPair::from_pem(&pem.key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    change(&mut params);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Papers { chain: vec![certificate.der().clone()], key_pem: key.serialize_pem() }
}

fn uri(text: impl ToString) -> SanType {
    SanType::URI(text.to_string().try_into().unwrap())
}

type Check = fn(&PeerFault) -> bool;

/// Peers that neither side may accept: what they show, the reason that they must get, and what it must say.
fn impostors(ours: &Authority) -> Vec<(&'static str, Papers, Check)> {
    let now = SystemTime::now();
    let elsewhere = Authority::generate(domain("other.test"), now).unwrap();
    let stranger = pillion_certs::SpiffeId::new(domain("other.test"), "demo", "peer").unwrap();
    let issue = |from: &Authority, at| Papers::of(&from.issue(&id("peer"), HOUR, at).unwrap());
    let good = issue(ours, now);
    let mut garbage = good.clone();
    garbage.chain[0] = CertificateDer::from(b"not a certificate".to_vec());
    let mut truncated = good.clone();
    truncated.chain[0] = CertificateDer::from(good.chain[0][..100].to_vec());
    let stolen = Papers { key_pem: KeyPair::generate().unwrap().serialize_pem(), ..good };
    vec![
        ("unknown-issuer", issue(&authority(), now), |_| true),
        ("wrong-trust-domain", Papers::of(&elsewhere.issue(&stranger, HOUR, now).unwrap()), |fault| {
            matches!(fault, PeerFault::WrongTrustDomain { expected, actual }
                if expected.as_str() == "mesh.test" && actual.as_str() == "other.test")
        }),
        ("expired", issue(ours, now - 2 * HOUR), |fault| {
            matches!(fault, PeerFault::Expired { not_after }
                if SystemTime::now().duration_since(*not_after).unwrap() < HOUR + HOUR / 60)
        }),
        ("not-yet-valid", issue(ours, now + HOUR), |fault| {
            matches!(fault, PeerFault::NotYetValid { not_before, now } if not_before > now)
                && fault.to_string().contains("skew")
        }),
        ("not-spiffe", sign_anything(ours, |_| {}), |fault| fault.to_string().contains("no URI")),
        (
            "not-spiffe",
            sign_anything(ours, |p| p.subject_alt_names = vec![uri(id("peer")), uri(id("other"))]),
            |fault| fault.to_string().contains("2 URIs"),
        ),
        (
            "not-spiffe",
            sign_anything(ours, |p| p.subject_alt_names = vec![uri("spiffe://mesh.test/peer")]),
            |fault| fault.to_string().contains("path"),
        ),
        (
            "malformed",
            sign_anything(ours, |p| {
                p.subject_alt_names = vec![uri(id("peer"))];
                p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }),
            |fault| fault.to_string().contains("CaUsedAsEndEntity"),
        ),
        (
            "malformed",
            sign_anything(ours, |p| {
                p.subject_alt_names = vec![uri(id("peer"))];
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            }),
            |fault| fault.to_string().contains("RequiredEku"),
        ),
        ("malformed", garbage, |_| true),
        ("malformed", truncated, |_| true),
        // Another's certificate, without its key.
        ("malformed", stolen, |_| true),
    ]
}

#[tokio::test]
async fn servers_refuse_impostors_by_name() {
    let ours = authority();
    let server = workload(&ours, "server").server_config(ALPN).unwrap();
    for (index, (reason, papers, check)) in impostors(&ours).into_iter().enumerate() {
        let (client_end, server_end) = connect(papers.client(), server.clone()).await;
        let fault = fault(server_end);
        assert_eq!(fault.reason(), reason, "case {index}: {fault}");
        assert!(check(&fault), "case {index}: {fault}");
        let refusal = client_end.map(|_| ()).expect_err("the client must not be served");
        assert!(PeerFault::is_refusal_by_peer(&refusal), "case {index}: {refusal:?}");
    }
}

#[tokio::test]
async fn clients_refuse_impostors_by_name() {
    let ours = authority();
    let client = workload(&ours, "client").client_config(&id("peer"), &[]);
    for (index, (reason, papers, check)) in impostors(&ours).into_iter().enumerate() {
        let (client_end, _) = connect(client.clone(), papers.server(&[&TLS13])).await;
        let fault = fault(client_end);
        assert_eq!(fault.reason(), reason, "case {index}: {fault}");
        assert!(check(&fault), "case {index}: {fault}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_only_where_one_is_needed() {
    let server = workload(&authority(), "server");
    let stranger = std::sync::Arc::new(gullible_client(&[&TLS13]).with_no_client_auth());

    let (client_end, server_end) = connect(stranger.clone(), server.server_config(&[]).unwrap()).await;
    assert_eq!(fault(server_end), PeerFault::NoCertificate);
    assert!(client_end.is_err());

    let (_, server_end) = connected(stranger, server.server_config_optional_client(&[]).unwrap()).await;
    assert_eq!(peer_identity(server_end.get_ref().1), Err(PeerFault::NoCertificate));
}

#[tokio::test]
async fn where_a_certificate_is_optional_a_bad_one_is_refused_all_the_same() {
    let ours = authority();
    let server = workload(&ours, "server").server_config_optional_client(&[]).unwrap();
    for (reason, papers, _) in impostors(&ours) {
        let (_, server_end) = connect(papers.client(), server.clone()).await;
        assert_eq!(fault(server_end).reason(), reason);
    }
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused() {
    let ours = authority();
    let server = workload(&ours, "catalog").server_config(ALPN).unwrap();
    let client = workload(&ours, "web");
    let (client_end, _) = connect(client.client_config(&id("payments"), ALPN), server).await;
    let expected = PeerFault::WrongIdentity { expected: id("payments"), actual: id("catalog") };
    assert_eq!(fault(client_end), expected);
}

#[tokio::test]
async fn peers_see_each_other_over_the_best_that_both_speak() {
    let ours = authority();
    let (web, catalog) = (workload(&ours, "web"), workload(&ours, "catalog"));
    let client = web.client_config(&id("catalog"), ALPN);
    let (client_end, server_end) = connected(client, catalog.server_config(ALPN).unwrap()).await;
    let (client, server) = (client_end.get_ref().1, server_end.get_ref().1);
    assert_eq!(peer_identity(client), Ok(id("catalog")));
    assert_eq!(peer_identity(server), Ok(id("web")));
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    let suite = server.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(server.alpn_protocol(), Some(&b"pillion/h2"[..]));
    assert_eq!(server.server_name(), None, "addresses stay private");
}

#[tokio::test]
async fn tls12_is_not_spoken() {
    let ours = authority();
    let old_client = std::sync::Arc::new(gullible_client(&[&TLS12]).with_no_client_auth());
    let (client_end, server_end) =
        connect(old_client, workload(&ours, "server").server_config(&[]).unwrap()).await;
    assert!(client_end.is_err());
    assert!(format!("{:?}", server_end.unwrap_err()).contains("PeerIncompatible"));

    let old_server = Papers::of(&ours.issue(&id("peer"), HOUR, SystemTime::now()).unwrap()).server(&[&TLS12]);
    let (client_end, server_end) =
        connect(workload(&ours, "client").client_config(&id("peer"), &[]), old_server).await;
    assert!(client_end.is_err());
    assert!(format!("{:?}", server_end.unwrap_err()).contains("PeerIncompatible"));
}
