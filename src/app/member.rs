//! This workload as a member of the mesh: its certificate, and its stream to the control plane.

use std::{
    cell::RefCell,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::wire::{Health, Hello, WorkloadPort};
use pillion_certs::{Identity, RenewalStatus, rotate::keep_fresh};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::changed_or_due;
use crate::{
    config::{Config, JoinToken},
    control::{
        Mesh, certify,
        directory::Wish,
        own::OwnPolicies,
        stream::{Known, Stream},
    },
    drain::Drain,
    net::resolve::Resolver,
    telemetry::{gather::Gathered, names::Metric, prometheus::Registry, tap::Taps},
};

/// Between tries for a first certificate: the first, and the longest.
const JOIN_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// This workload as a member of the mesh: certified, kept so, and on the control plane's stream.
pub(super) struct Member {
    pub(super) config: Arc<Config>,
    pub(super) inbound: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) registry: Arc<Registry>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) drain: Drain,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) gathered: Rc<RefCell<Gathered>>,
    pub(super) mesh: watch::Sender<Option<Mesh>>,
    pub(super) policies: watch::Sender<OwnPolicies>,
    pub(super) resolver: Resolver,
    pub(super) taps: Taps,
}

impl Member {
    /// For ever.
    pub(super) async fn run(mut self) {
        let address = self.config.control_plane.clone();
        let mut known = Known::new(Instant::now());
        let identity = {
            let mut joining = pin!(join(&address, &self.resolver, &self.config.join_token, &self.registry));
            loop {
                tokio::select! {
                    identity = &mut joining => break identity,
                    // Nobody can be asked yet; but who has waited long enough must hear so.
                    Some(wish) = self.wishes.recv() => drop(known.grant(wish, Instant::now())),
                }
            }
        };
        tracing::info!(identity = %identity.spiffe_id(), "certified");
        let (status, renewals) = watch::channel(RenewalStatus::new(&identity));
        crate::task::start(show_certificate(identity.clone(), renewals.clone(), self.registry.clone()));
        let issue = {
            let renewal = certify::Renewal {
                address: address.clone(),
                resolver: self.resolver.clone(),
                identity: identity.clone(),
                join_token: self.config.join_token.clone(),
                registry: self.registry.clone(),
            };
            move |csr| renewal.clone().issue(csr)
        };
        let rng = SmallRng::from_os_rng();
        crate::task::start(keep_fresh(identity.clone(), issue, status, rng));
        let hello = self.hello();
        let stream = Stream {
            address,
            resolver: self.resolver,
            identity,
            hello,
            registry: self.registry,
            health: self.health,
            drain: self.drain,
            wishes: self.wishes,
            gathered: self.gathered,
            renewals,
            mesh: self.mesh,
            policies: self.policies,
            known,
            taps: self.taps,
        };
        stream.run().await;
    }

    fn hello(&self) -> Hello {
        let config = &self.config;
        Hello {
            // Unique for this run: a workload that restarts is another one, which shares nothing with the old.
            instance_uid: format!("{}-{:012x}", config.workload, rand::rng().random::<u64>() >> 16),
            workload: config.workload.clone(),
            labels: config.labels.clone().into_iter().collect(),
            ports: (config.ports.iter())
                .map(|port| WorkloadPort { port: port.port.into(), name: port.name.clone() })
                .collect(),
            inbound_address: self.inbound.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            zone: config.zone.clone(),
            weight: config.weight,
            own_health_check: config.health.is_some(),
            health: None,
            admin_address: self.admin.to_string(),
        }
    }
}

/// Tries for the first certificate until there is one.
async fn join(address: &str, resolver: &Resolver, token: &JoinToken, registry: &Registry) -> Identity {
    let mut wait = JOIN_BACKOFF.0;
    loop {
        match certify::join(address, resolver, token, registry).await {
            Ok(identity) => return identity,
            Err(error) => {
                let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.5));
                tracing::error!(error, retry_in = ?jittered, "no certificate yet");
                tokio::time::sleep(jittered).await;
                wait = (wait * 2).min(JOIN_BACKOFF.1);
            }
        }
    }
}

async fn show_certificate(
    identity: Identity,
    mut renewals: watch::Receiver<RenewalStatus>,
    registry: Arc<Registry>,
) {
    let (mut renewed, mut failed) = (0, 0);
    loop {
        let status = renewals.borrow_and_update().clone();
        let expiry = identity.not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        registry.gauge(Metric::CertificateExpiry, &[]).set(expiry.as_secs_f64());
        registry.counter(Metric::CertificateRenewals, &["ok"]).increment(status.renewed - renewed);
        registry.counter(Metric::CertificateRenewals, &["failed"]).increment(status.failures - failed);
        if status.renewed > renewed {
            tracing::info!("certificate renewed");
        }
        (renewed, failed) = (status.renewed, status.failures);
        if changed_or_due(&mut renewals).await.is_err() {
            return;
        }
    }
}
