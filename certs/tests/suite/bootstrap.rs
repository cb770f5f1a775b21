//! A workload's first connection, when all that it has is a join token.

use std::time::SystemTime;

use pillion_certs::{
    Credential, Fingerprint, Identity, PeerFault, RootPin, SpiffeId, bootstrap_client_config, peer_identity,
};

use crate::peers::*;

fn control_plane(authority: &pillion_certs::Authority) -> Identity {
    let credential = authority.issue_control_plane(DAY, SystemTime::now()).unwrap();
    Identity::new(credential, authority.trust_bundle())
}

fn pin(authority: &pillion_certs::Authority) -> RootPin {
    RootPin::Fingerprint(authority.trust_bundle().fingerprints().next().unwrap())
}

#[tokio::test]
async fn the_control_plane_is_known_by_its_root_alone() {
    let ours = authority();
    let server = control_plane(&ours).server_config_optional_client(&[b"h2"]).unwrap();
    for pin in [pin(&ours), RootPin::Bundle(ours.trust_bundle())] {
        let (client_end, _) = connected(bootstrap_client_config(pin, &[b"h2"]), server.clone()).await;
        let expected = SpiffeId::control_plane(&domain("mesh.test"));
        assert_eq!(peer_identity(client_end.get_ref().1), Ok(expected));
    }
}

#[tokio::test]
async fn a_root_of_the_wrong_fingerprint_is_refused() {
    let server = control_plane(&authority()).server_config_optional_client(&[]).unwrap();
    let other = authority();
    for pin in [pin(&other), RootPin::Bundle(other.trust_bundle())] {
        let (client_end, _) = connect(bootstrap_client_config(pin, &[]), server.clone()).await;
        assert_eq!(fault(client_end), PeerFault::UnknownIssuer);
    }
}

/// `credential` with the root of `authority` sent along.
fn with_root(credential: &Credential, authority: &pillion_certs::Authority) -> Identity {
    let root = authority.trust_bundle();
    let chain = credential.chain_der().chain(root.roots_der()).map(<[u8]>::to_vec);
    let credential = Credential::new(chain, credential.key().clone()).unwrap();
    Identity::new(credential, root.clone())
}

#[tokio::test]
async fn the_root_is_not_enough_the_chain_must_lead_to_it() {
    let (ours, forged) = (authority(), authority());
    let forgery = forged.issue_control_plane(DAY, SystemTime::now()).unwrap();
    let server = with_root(&forgery, &ours).server_config_optional_client(&[]).unwrap();
    let (client_end, _) = connect(bootstrap_client_config(pin(&ours), &[]), server).await;
    assert_eq!(fault(client_end), PeerFault::UnknownIssuer);
}

#[tokio::test]
async fn a_workload_cannot_pass_for_the_control_plane() {
    let ours = authority();
    let workload = ours.issue(&id("payments"), DAY, SystemTime::now()).unwrap();
    let server = with_root(&workload, &ours).server_config_optional_client(&[]).unwrap();
    for pin in [pin(&ours), RootPin::Bundle(ours.trust_bundle())] {
        let (client_end, _) = connect(bootstrap_client_config(pin, &[]), server.clone()).await;
        let expected = SpiffeId::control_plane(&domain("mesh.test"));
        assert_eq!(fault(client_end), PeerFault::WrongIdentity { expected, actual: id("payments") });
    }
}

#[test]
fn fingerprints_are_read_as_they_are_shown() {
    let fingerprint = authority().trust_bundle().fingerprints().next().unwrap();
    assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
    for wrong in ["", "ab", &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32)] {
        assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
    }
}
