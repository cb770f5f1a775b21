//! Whether this workload's traffic is redirected here, as it should be: tested at start and again and again. While it is
//! not, the sidecar is not ready, since what bypasses it bypasses the mesh's policies, too.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use pillion_api::wire::{Health, health as wire};
use tokio::sync::watch;

use crate::{
    net::self_test::{ADDRESSES, EXEMPT, Found, SelfTest},
    telemetry::{names::Metric, prometheus::Registry},
};

/// Between tests that pass.
const INTERVAL: Duration = Duration::from_secs(30);
/// Between tests while they do not.
const AGAIN: Duration = Duration::from_secs(2);

/// Why the sidecar is not ready, in words; `None`: it is.
pub(super) type Unready = Option<String>;

/// The test, to be run on and on.
pub(super) struct Redirection {
    self_test: SelfTest,
    /// What leads back here, one address for each IP version that is listened in.
    addresses: Vec<SocketAddr>,
    registry: Arc<Registry>,
}

impl Redirection {
    /// Of what the outbound `listeners` take.
    pub(super) fn new(self_test: SelfTest, listeners: &[TcpListener], registry: Arc<Registry>) -> Self {
        let listened = |address: &SocketAddr| {
            let same = |listener: &TcpListener| listener.local_addr().map(|own| own.is_ipv4()).ok();
            listeners.iter().any(|listener| same(listener) == Some(address.is_ipv4()))
        };
        Self {
            self_test,
            addresses: ADDRESSES.into_iter().chain(EXEMPT).filter(listened).collect(),
            registry,
        }
    }

    /// Tests from now on. Gives the workload's health as others are to see it, where `health` is its application's, and why
    /// the sidecar is not ready.
    pub(super) fn start(
        self,
        health: watch::Receiver<Health>,
    ) -> (watch::Receiver<Health>, watch::Receiver<Unready>) {
        let (known, unready) = watch::channel(untested());
        let (tells, told) = watch::channel(Health::default());
        crate::task::start(self.watch(known));
        crate::task::start(tell(health, unready.clone(), tells));
        (told, unready)
    }

    /// Tests for ever; every change is seen in `unready`.
    async fn watch(self, unready: watch::Sender<Unready>) {
        let gauge = self.registry.gauge(Metric::Redirected, &[]);
        loop {
            let found = join_all(self.addresses.iter().map(|address| self.self_test.test(*address))).await;
            let before = unready.borrow().clone();
            let now = judge(before.clone(), found);
            gauge.set(f64::from(u8::from(now.is_none())));
            match &now {
                Some(reason) if now != before => tracing::error!(reason, "not ready"),
                None if before.is_some() => tracing::info!("traffic is redirected to this sidecar"),
                _ => {}
            }
            let wait = if now.is_none() { INTERVAL } else { AGAIN };
            unready.send_if_modified(|unready| {
                *unready = now;
                *unready != before
            });
            tokio::time::sleep(wait).await;
        }
    }
}

/// Said before the first test.
const UNTESTED: &str = "whether traffic is redirected to this sidecar is not known yet";

/// What is known before the first test.
fn untested() -> Unready {
    Some(UNTESTED.into())
}

/// The workload's health as others are to see it, where `own` is its application's: nobody is to call one whose sidecar is
/// bypassed.
fn joined(own: &Health, unready: &Unready) -> Health {
    let (redirection, reason) = match unready {
        None => {
            return Health { redirection: wire::Redirection::Redirected.into(), ..own.clone() };
        }
        Some(reason) if reason == UNTESTED => (wire::Redirection::Untold, reason),
        Some(reason) => (wire::Redirection::Amiss, reason),
    };
    Health { ready: false, reason: reason.clone(), redirection: redirection.into() }
}

/// What tests of all addresses say, where `before` was known.
fn judge(before: Unready, found: Vec<Found>) -> Unready {
    let mut bypassed = Vec::new();
    let (mut nothing, mut looped) = (false, false);
    for found in found {
        match found {
            Found::Redirected => {}
            Found::Bypassed(how) => bypassed.push(how),
            Found::Looped => looped = true,
            Found::Nothing => nothing = true,
        }
    }
    if looped {
        let user = rustix::process::geteuid().as_raw();
        return Some(format!(
            "this sidecar runs as user {user}, whose own connections are redirected to it: run it as the user of \
             `pillion-proxy redirect --proxy-uid`, or name its user there"
        ));
    }
    if !bypassed.is_empty() {
        let how = bypassed.join(", ");
        let cure = "run `pillion-proxy redirect` in this network namespace";
        return Some(format!("traffic is not redirected to this sidecar ({how}): {cure}"));
    }
    // Who is too busy to answer itself is not bypassed.
    if nothing { before } else { None }
}

/// Tells that on and on.
async fn tell(
    mut health: watch::Receiver<Health>,
    mut unready: watch::Receiver<Unready>,
    told: watch::Sender<Health>,
) {
    loop {
        let all = joined(&health.borrow_and_update(), &unready.borrow_and_update());
        told.send_if_modified(|told| std::mem::replace(told, all.clone()) != all);
        // Either may be as it is for good: an application without a health check is always well.
        tokio::select! {
            Ok(()) = health.changed() => {}
            Ok(()) = unready.changed() => {}
            else => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bypass_is_enough_and_silence_changes_nothing() {
        let bypassed = || Found::Bypassed("[::1]:15002: refused".into());
        let reason = judge(None, vec![Found::Redirected, bypassed()]).expect("bypassed");
        assert!(
            reason.contains("[::1]:15002: refused") && reason.contains("pillion-proxy redirect"),
            "{reason}"
        );
        assert_eq!(judge(Some(reason.clone()), vec![Found::Redirected, Found::Redirected]), None);
        assert_eq!(judge(Some(reason.clone()), vec![Found::Redirected, Found::Nothing]), Some(reason));
        assert_eq!(judge(None, vec![Found::Nothing]), None);
        assert!(judge(None, vec![Found::Nothing, bypassed()]).is_some());
    }

    fn ready() -> Health {
        Health { ready: true, redirection: wire::Redirection::Redirected.into(), ..Health::default() }
    }

    #[tokio::test]
    async fn an_application_is_ready_only_with_its_sidecar() {
        let ready = ready();
        let (app, health) = watch::channel(Health { ready: true, ..Health::default() });
        let (sidecar, unready) = watch::channel(untested());
        let (sender, mut told) = watch::channel(Health::default());
        let telling = tokio::spawn(tell(health, unready, sender));
        let seen =
            told.wait_for(|told| told.reason.contains("redirected")).await.expect("it is told").clone();
        assert!(!seen.ready);
        assert_eq!(seen.redirection(), wire::Redirection::Untold);
        sidecar.send_replace(Some("bypassed".to_owned()));
        let seen = told.wait_for(|told| told.reason == "bypassed").await.expect("it is told").clone();
        assert_eq!((seen.ready, seen.redirection()), (false, wire::Redirection::Amiss));
        sidecar.send_replace(None);
        told.wait_for(|told| *told == ready).await.expect("both are well");
        app.send_replace(Health { reason: "ill".into(), ..Health::default() });
        told.wait_for(|told| !told.ready && told.reason == "ill").await.expect("the application is ill");
        telling.abort();
    }

    #[tokio::test]
    async fn an_application_that_is_not_checked_is_ready_once_its_sidecar_is() {
        let ready = ready();
        let (app, health) = watch::channel(Health { ready: true, ..Health::default() });
        let (sidecar, unready) = watch::channel(untested());
        let (sender, mut told) = watch::channel(Health::default());
        let telling = tokio::spawn(tell(health, unready, sender));
        drop(app);
        told.wait_for(|told| !told.reason.is_empty()).await.expect("it is told");
        sidecar.send_replace(None);
        told.wait_for(|told| *told == ready).await.expect("the sidecar is well");
        telling.abort();
    }
}
