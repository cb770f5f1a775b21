//! Resumption: that it happens, and what ends it.

use std::sync::Arc;

use pillion_certs::{PeerFault, peer_identity};
use rustls::HandshakeKind;
use rustls::version::TLS13;

use crate::peers::*;

fn kinds(ends: &(ClientEnd, ServerEnd)) -> (HandshakeKind, HandshakeKind) {
    (ends.0.get_ref().1.handshake_kind().unwrap(), ends.1.get_ref().1.handshake_kind().unwrap())
}

const RESUMED: (HandshakeKind, HandshakeKind) = (HandshakeKind::Resumed, HandshakeKind::Resumed);
const FULL: (HandshakeKind, HandshakeKind) = (HandshakeKind::Full, HandshakeKind::Full);

#[tokio::test]
async fn a_second_connection_resumes_and_still_knows_its_peer() {
    let ours = authority();
    let client = workload(&ours, "client").client_config(&id("server"), ALPN);
    let server = workload(&ours, "server").server_config(ALPN).unwrap();
    assert_eq!(kinds(&connected(client.clone(), server.clone()).await), FULL);
    let again = connected(client, server).await;
    assert_eq!(kinds(&again), RESUMED);
    assert_eq!(peer_identity(again.0.get_ref().1), Ok(id("server")));
    assert_eq!(peer_identity(again.1.get_ref().1), Ok(id("client")));
}

#[tokio::test]
async fn a_new_bundle_on_either_side_ends_resumption() {
    let ours = authority();
    let more = ours.trust_bundle().merged(&authority().trust_bundle()).unwrap();
    for change_the_server in [true, false] {
        let (near, far) = (workload(&ours, "client"), workload(&ours, "server"));
        let (client, server) = (near.client_config(&id("server"), ALPN), far.server_config(ALPN).unwrap());
        connected(client.clone(), server.clone()).await;
        let changed = if change_the_server { far } else { near };

        changed.replace_bundle(ours.trust_bundle());
        assert_eq!(kinds(&connected(client.clone(), server.clone()).await), RESUMED, "nothing changed");

        changed.replace_bundle(more.clone());
        assert_eq!(kinds(&connected(client.clone(), server.clone()).await), FULL);
        assert_eq!(kinds(&connected(client, server).await), RESUMED, "under the new bundle");
    }
}

#[tokio::test]
async fn a_new_certificate_on_either_side_is_shown_at_once() {
    let ours = authority();
    for (renewed, name) in [(0, "client"), (1, "server")] {
        let (near, far) = (workload(&ours, "client"), workload(&ours, "server"));
        let (client, server) = (near.client_config(&id("server"), ALPN), far.server_config(ALPN).unwrap());
        connected(client.clone(), server.clone()).await;
        let own = if renewed == 0 { &near } else { &far };
        own.replace_credential(ours.issue(&id(name), DAY, std::time::SystemTime::now()).unwrap()).unwrap();
        let (near_end, far_end) = connected(client.clone(), server.clone()).await;
        // A session that is resumed has the peer's certificate of its beginning, which ends before the new one does.
        let seen_by_the_peer = if renewed == 0 {
            far_end.get_ref().1.peer_certificates()
        } else {
            near_end.get_ref().1.peer_certificates()
        };
        assert_eq!(
            seen_by_the_peer.unwrap()[0].as_ref(),
            own.credential().chain_der().next().unwrap(),
            "{name}"
        );
        assert_eq!(kinds(&(near_end, far_end)), FULL, "{name}");
        assert_eq!(kinds(&connected(client, server).await), RESUMED, "{name}");
    }
}

#[tokio::test]
async fn who_is_not_believed_any_more_cannot_come_back_by_a_session() {
    let (old, new) = (authority(), authority());
    let server = workload(&old, "server");
    let config = server.server_config(ALPN).unwrap();
    let client = workload(&old, "client").client_config(&id("server"), ALPN);
    connected(client.clone(), config.clone()).await;
    server.replace_bundle(new.trust_bundle());
    let (_, server_end) = connect(client, config).await;
    assert_eq!(fault(server_end), PeerFault::UnknownIssuer);
}

#[tokio::test]
async fn a_session_without_a_certificate_opens_no_other_port() {
    let server = workload(&authority(), "server");
    let stranger = Arc::new(gullible_client(&[&TLS13]).with_no_client_auth());
    let open = server.server_config_optional_client(&[]).unwrap();
    connected(stranger.clone(), open.clone()).await;
    assert_eq!(kinds(&connected(stranger.clone(), open).await), RESUMED);
    let (_, server_end) = connect(stranger, server.server_config(&[]).unwrap()).await;
    assert_eq!(fault(server_end), PeerFault::NoCertificate);
}

#[tokio::test]
async fn roots_change_in_two_phases_without_a_refusal() {
    let (old, new) = (authority(), authority());
    let both = old.trust_bundle().merged(&new.trust_bundle()).unwrap();
    let (near, far) = (workload(&old, "client"), workload(&old, "server"));
    let (client, server) = (near.client_config(&id("server"), ALPN), far.server_config(ALPN).unwrap());
    let now = std::time::SystemTime::now();

    // Each step on one side before the other: every mixture must work.
    connected(client.clone(), server.clone()).await;
    near.replace_bundle(both.clone());
    connected(client.clone(), server.clone()).await;
    far.replace_bundle(both);
    far.replace_credential(new.issue(&id("server"), DAY, now).unwrap()).unwrap();
    connected(client.clone(), server.clone()).await;
    near.replace_credential(new.issue(&id("client"), DAY, now).unwrap()).unwrap();
    far.replace_bundle(new.trust_bundle());
    connected(client.clone(), server.clone()).await;
    near.replace_bundle(new.trust_bundle());
    assert_eq!(kinds(&connected(client.clone(), server.clone()).await), FULL);

    // And with the old root gone, so are those who have nothing else.
    let late = Papers::of(&old.issue(&id("late"), DAY, now).unwrap());
    let (_, server_end) = connect(late.client(), server).await;
    assert_eq!(fault(server_end), PeerFault::UnknownIssuer);
}

#[tokio::test]
async fn a_resumed_session_is_held_against_the_roots_of_the_moment() {
    let (old, new) = (authority(), authority());
    let (near, far) = (workload(&old, "client"), workload(&old, "server"));
    let (client, server) = (near.client_config(&id("server"), ALPN), far.server_config(ALPN).unwrap());
    let full = connected(client.clone(), server.clone()).await;
    let resumed = connected(client, server).await;
    assert_eq!((kinds(&full), kinds(&resumed)), (FULL, RESUMED));
    for (near_end, far_end) in [&full, &resumed] {
        assert_eq!(near.verify_peer(near_end.get_ref().1), Ok(id("server")));
        assert_eq!(far.verify_peer(far_end.get_ref().1), Ok(id("client")));
    }
    // As when the bundle changes while the handshake is under way.
    near.replace_bundle(new.trust_bundle());
    far.replace_bundle(new.trust_bundle());
    assert_eq!(near.verify_peer(resumed.0.get_ref().1), Err(PeerFault::UnknownIssuer));
    assert_eq!(far.verify_peer(resumed.1.get_ref().1), Err(PeerFault::UnknownIssuer));
}
