//! Authorities: made, kept, brought along, and refused with every fault.

use std::time::{Duration, SystemTime};

use pillion_certs::{Authority, Credential, Error, Identity, PrivateKey, TrustBundle, peer_identity};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::peers::*;

/// An intermediate under `root`: its certificate and key in PEM.
fn intermediate(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let pem = root.to_pem();
    let issuer = Issuer::from_ca_cert_pem(&pem.chain, KeyPair::from_pem(&pem.key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "an intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

fn end(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn an_authority_survives_being_kept() {
    let made = authority();
    let pem = made.to_pem();
    let kept = Authority::from_pem(domain("mesh.test"), &pem.chain, &pem.key, SystemTime::now()).unwrap();
    assert_eq!(kept.trust_bundle(), made.trust_bundle());
    assert_eq!(kept.not_after(), made.not_after());
    for shown in [format!("{made:?}"), format!("{pem:?}")] {
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    }
    let bundle = made.trust_bundle();
    assert_eq!(TrustBundle::from_pem(domain("mesh.test"), &bundle.to_pem()).unwrap(), bundle);
}

#[tokio::test]
async fn an_intermediate_signs_for_those_who_know_the_root() {
    let root = authority();
    let (certificate, key) = intermediate(&root, |_| {});
    let chain = certificate + &root.to_pem().chain;
    let issuing = Authority::from_pem(domain("mesh.test"), &chain, &key, SystemTime::now()).unwrap();
    assert_eq!(issuing.trust_bundle(), root.trust_bundle());
    let credential = issuing.issue(&id("server"), DAY, SystemTime::now()).unwrap();
    assert_eq!(credential.chain_der().len(), 2, "leaf and intermediate, not the root");

    let server = Identity::new(credential, root.trust_bundle()).server_config(&[]).unwrap();
    let client = workload(&root, "client").client_config(&id("server"), &[]);
    let (client_end, _) = connected(client, server).await;
    assert_eq!(peer_identity(client_end.get_ref().1), Ok(id("server")));
}

#[test]
fn all_faults_of_an_authority_are_reported_together() {
    let (root, now) = (authority(), SystemTime::now());
    let (certificate, _) = intermediate(&root, |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://other.test".try_into().unwrap())];
    });
    let other_key = PrivateKey::generate().unwrap().to_pem();
    let fault = Authority::from_pem(domain("mesh.test"), &certificate, &other_key, now).unwrap_err();
    let text = fault.to_string();
    for expected in [
        "does not belong",
        "CA:TRUE",
        "keyCertSign",
        "expired at 2001-01-01",
        "other.test where mesh.test",
        "must end with its root",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing: {text}");
    }

    let both = Authority::from_pem(domain("mesh.test"), "nothing", "nothing", now).unwrap_err();
    assert!(matches!(both, Error::Several(faults) if faults.len() == 2));

    // Intermediate and root that do not belong together.
    let (certificate, key) = intermediate(&root, |_| {});
    let chain = certificate + &authority().to_pem().chain;
    let text = Authority::from_pem(domain("mesh.test"), &chain, &key, now).unwrap_err().to_string();
    assert!(text.contains("has not issued"), "{text}");
}

#[test]
fn nothing_outlives_its_authority() {
    let (root, now) = (authority(), SystemTime::now());
    let soon = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end(now) + 600);
    let (certificate, key) = intermediate(&root, |params| params.not_after = soon);
    let chain = certificate + &root.to_pem().chain;
    let issuing = Authority::from_pem(domain("mesh.test"), &chain, &key, now).unwrap();
    let credential = issuing.issue(&id("web"), DAY, now).unwrap();
    assert_eq!(end(credential.not_after()), end(now) + 600);
    assert_eq!(end(credential.not_before()), end(now) - 120);
    let late = issuing.issue(&id("web"), DAY, now + HOUR);
    assert!(matches!(late, Err(Error::AuthorityExpired { .. })));
}

#[test]
fn the_name_is_the_authoritys_and_only_of_its_own_trust_domain() {
    let (ours, now) = (authority(), SystemTime::now());
    // A request that asks for another name and to be an authority itself.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(id("admin").to_string().try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap();
    let chain = ours.sign(csr.der(), &id("web"), DAY, now).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert!(!leaf.is_ca());
    let credential = Credential::new(chain.clone(), PrivateKey::from_pem(&key.serialize_pem()).unwrap());
    assert_eq!(*credential.unwrap().spiffe_id(), id("web"));

    let stranger = pillion_certs::SpiffeId::new(domain("other.test"), "demo", "web").unwrap();
    assert!(matches!(ours.sign(csr.der(), &stranger, DAY, now), Err(Error::WrongTrustDomain { .. })));
    assert!(matches!(ours.sign(b"junk", &id("web"), DAY, now), Err(Error::Malformed { .. })));
}

#[test]
fn a_credential_is_a_chain_and_its_own_key() {
    let (ours, now) = (authority(), SystemTime::now());
    let credential = ours.issue(&id("web"), DAY, now).unwrap();
    let kept = Credential::from_pem(&credential.chain_pem(), &credential.key().to_pem()).unwrap();
    assert_eq!(kept.spiffe_id(), credential.spiffe_id());
    assert!(!format!("{kept:?}").contains("PRIVATE KEY"));

    let chain = || credential.chain_der().map(<[u8]>::to_vec);
    let other = PrivateKey::generate().unwrap();
    assert!(matches!(Credential::new(chain(), other.clone()), Err(Error::KeyMismatch)));
    let none: [Vec<u8>; 0] = [];
    assert!(Credential::new(none, other.clone()).is_err());
    let bad = Credential::new([b"?".to_vec(), b"?".to_vec()], other).unwrap_err();
    assert!(matches!(bad, Error::Several(faults) if faults.len() == 2));
}

#[test]
fn bundles_name_every_bad_root_and_take_no_workload_for_one() {
    let (ours, now) = (authority(), SystemTime::now());
    let leaf = ours.issue(&id("web"), DAY, now).unwrap();
    let good = ours.trust_bundle();
    let roots = good.roots_der().next().unwrap();
    let leaf = leaf.chain_der().next().unwrap().to_vec();
    let text = TrustBundle::from_der(domain("mesh.test"), [roots, b"junk", &leaf]).unwrap_err().to_string();
    assert!(text.contains("root 2") && text.contains("root 3"), "{text}");
    assert!(text.contains("not a certificate authority"), "{text}");
    let none: [&[u8]; 0] = [];
    assert!(matches!(TrustBundle::from_der(domain("mesh.test"), none), Err(Error::EmptyBundle)));

    let other = authority().trust_bundle();
    let (one, two) = (good.merged(&other).unwrap(), other.merged(&good).unwrap());
    assert_eq!(one, two, "order does not count");
    assert_eq!(good.not_after().collect::<Vec<_>>(), [ours.not_after()]);
    assert_eq!(one.not_after().count(), 2);
    assert_eq!(one.merged(&good).unwrap(), one, "nor do repetitions");
}
