//! Renewal with the clock paused: when it comes, what it leaves alone, and what becomes of failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use pillion_certs::{Authority, Identity, Issued, RenewalStatus, keep_fresh, peer_identity};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::peers::*;

fn issue(authority: &Authority, service_account: &str, csr: &[u8]) -> Issued {
    let chain_der = authority.sign(csr, &id(service_account), DAY, SystemTime::now()).unwrap();
    let roots = authority.trust_bundle();
    Issued { chain_der, trust_anchors_der: roots.roots_der().map(<[u8]>::to_vec).collect() }
}

fn leaf(identity: &Identity) -> Vec<u8> {
    identity.credential().chain_der().next().unwrap().to_vec()
}

fn status(identity: &Identity) -> (watch::Sender<RenewalStatus>, watch::Receiver<RenewalStatus>) {
    watch::channel(RenewalStatus::new(identity))
}

#[tokio::test(start_paused = true)]
async fn renewal_at_half_of_life_leaves_open_connections_alone() {
    let ours = Arc::new(authority());
    let (near, far) = (workload(&ours, "client"), workload(&ours, "server"));
    let (client, server) = (near.client_config(&id("server"), ALPN), far.server_config(ALPN).unwrap());
    let (mut client_end, mut server_end) = connected(client.clone(), server.clone()).await;
    let before = leaf(&far);

    let (sender, receiver) = status(&far);
    let authority = ours.clone();
    let issue = move |csr: Vec<u8>| {
        let issued = issue(&authority, "server", &csr);
        async move { Ok::<_, String>(issued) }
    };
    let renewal = tokio::spawn(keep_fresh(far.clone(), issue, sender, SmallRng::seed_from_u64(1)));

    sleep(HOUR * 10).await;
    assert_eq!((receiver.borrow().renewed, leaf(&far) == before), (0, true), "not before 45 % of its life");
    sleep(HOUR * 4).await;
    assert_eq!((receiver.borrow().renewed, leaf(&far) == before), (1, false), "by 55 % of its life");
    assert_eq!(receiver.borrow().not_after, far.not_after());

    client_end.write_all(b"still there?").await.unwrap();
    client_end.flush().await.unwrap();
    let mut heard = [0; 12];
    server_end.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still there?");

    // A new client, as the first one would resume.
    let newcomer = workload(&ours, "client").client_config(&id("server"), ALPN);
    let (newcomer, _) = connected(newcomer, server).await;
    assert_eq!(newcomer.get_ref().1.peer_certificates().unwrap()[0].as_ref(), leaf(&far));
    assert_eq!(peer_identity(newcomer.get_ref().1), Ok(id("server")));

    sleep(DAY * 10).await;
    assert!((18..=24).contains(&receiver.borrow().renewed), "{:?}", receiver.borrow());
    renewal.abort();
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_and_change_nothing() {
    let ours = Arc::new(authority());
    let identity = workload(&ours, "server");
    let before = leaf(&identity);
    let (sender, mut receiver) = status(&identity);
    let tries = Arc::new(AtomicUsize::new(0));
    let (authority, counted) = (ours.clone(), tries.clone());
    let issue = move |csr: Vec<u8>| {
        let (authority, attempt) = (authority.clone(), counted.fetch_add(1, Ordering::Relaxed));
        async move {
            match attempt {
                0 => Err("connection refused".to_owned()),
                1 => std::future::pending().await,
                2 => Ok(issue(&authority, "somebody-else", &csr)),
                3 => {
                    // Roots that do not go with the certificate.
                    let other = self::authority().trust_bundle();
                    let trust_anchors_der = other.roots_der().map(<[u8]>::to_vec).collect();
                    Ok(Issued { trust_anchors_der, ..issue(&authority, "server", &csr) })
                }
                4 => Ok(Issued { chain_der: vec![b"?".to_vec()], ..issue(&authority, "server", &csr) }),
                _ => Ok(issue(&authority, "server", &csr)),
            }
        }
    };
    let renewal = tokio::spawn(keep_fresh(identity.clone(), issue, sender, SmallRng::seed_from_u64(1)));

    for (failures, expected) in [
        "connection refused",
        "no answer within 30 s",
        "/sa/somebody-else, not for spiffe://mesh.test/ns/demo/sa/server",
        "does not verify against the trust bundle",
        "certificate 1 of the chain",
    ]
    .into_iter()
    .enumerate()
    {
        let waiting_since = tokio::time::Instant::now();
        receiver.changed().await.unwrap();
        let now = receiver.borrow_and_update().clone();
        assert_eq!((now.failures, now.renewed), (failures as u64 + 1, 0));
        assert!(now.last_error.as_deref().unwrap().contains(expected), "{now:?}");
        if failures > 0 {
            // The longest wait before a try here is 16 s, and a try is given up after 30 s.
            assert!(waiting_since.elapsed() <= HOUR / 60, "{:?}", waiting_since.elapsed());
        }
        assert_eq!(leaf(&identity), before);
        assert_eq!(*identity.bundle(), ours.trust_bundle());
    }
    receiver.changed().await.unwrap();
    let now = receiver.borrow().clone();
    assert_eq!((now.failures, now.renewed, now.last_error), (5, 1, None));
    assert_ne!(leaf(&identity), before);
    renewal.abort();
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_renewed_at_once_and_brings_the_new_roots() {
    let (old, new) = (authority(), Arc::new(authority()));
    let ended = old.issue(&id("server"), HOUR, SystemTime::now() - 2 * HOUR).unwrap();
    let identity = Identity::new(ended, old.trust_bundle());
    let mut changes = identity.subscribe();
    let (sender, mut receiver) = status(&identity);
    let authority = new.clone();
    let issue = move |csr: Vec<u8>| {
        let issued = issue(&authority, "server", &csr);
        async move { Ok::<_, String>(issued) }
    };
    let started = tokio::time::Instant::now();
    let renewal = tokio::spawn(keep_fresh(identity.clone(), issue, sender, SmallRng::seed_from_u64(1)));
    receiver.changed().await.unwrap();
    assert!(started.elapsed() < HOUR / 3600);
    assert_eq!(*identity.bundle(), new.trust_bundle());
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update().bundle, new.trust_bundle());
    renewal.abort();
}

#[tokio::test(start_paused = true)]
async fn ever_shorter_lives_do_not_make_it_spin() {
    let ours = Arc::new(authority());
    let identity = workload(&ours, "server");
    let (sender, mut receiver) = status(&identity);
    let authority = ours.clone();
    let issue = move |csr: Vec<u8>| {
        let now = SystemTime::now();
        let chain_der = authority.sign(&csr, &id("server"), HOUR / 3600, now).unwrap();
        let roots = authority.trust_bundle();
        let trust_anchors_der = roots.roots_der().map(<[u8]>::to_vec).collect();
        async move { Ok::<_, String>(Issued { chain_der, trust_anchors_der }) }
    };
    let renewal = tokio::spawn(keep_fresh(identity, issue, sender, SmallRng::seed_from_u64(1)));
    receiver.changed().await.unwrap();
    let started = tokio::time::Instant::now();
    while receiver.borrow_and_update().renewed < 6 {
        receiver.changed().await.unwrap();
    }
    assert!(started.elapsed() >= 5 * HOUR / 3600, "{:?}", started.elapsed());
    renewal.abort();
}
