//! Asks the application how it is, as the settings or the policies of its services say, and tells the control plane when that
//! changes.

mod judge;
pub mod probe;

use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::Duration};

use pillion_api::{
    model::{Pace, Probe},
    wire::Health,
};
use tokio::{sync::watch, time::Instant};

use self::judge::Judge;
use super::own::OwnPolicies;
use crate::{
    config::{AppPort, HealthCheck},
    telemetry::{names::Metric, prometheus::Registry},
};

/// How long the services' policies are awaited at the start, before the usual check is made: an application that accepts
/// connections may not be well enough for what they ask.
const UNTIL_TOLD: Duration = Duration::from_secs(5);

/// One thing to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    /// The service whose policy says so. Empty: the settings do, or it is the usual one.
    service: String,
    /// Or why it cannot be asked.
    address: Result<SocketAddr, String>,
    probe: Probe,
    pace: Pace,
}

/// Checks for ever; every change is seen in `health`. What is `given` by the settings goes before the policies.
pub async fn check(
    given: Option<HealthCheck>,
    ports: Vec<AppPort>,
    mut policies: watch::Receiver<OwnPolicies>,
    health: watch::Sender<Health>,
    registry: Arc<Registry>,
) {
    if let Some(given) = given {
        return all(&from_settings(given), false, &health, &registry).await;
    }
    // Which of both it was shows soon enough.
    let _ = tokio::time::timeout(UNTIL_TOLD, policies.wait_for(OwnPolicies::is_complete)).await;
    let mut checks = plan(&policies.borrow_and_update(), &ports);
    // An edit of a check is no news of the application; a check by policy in the place of the usual one may ask for more.
    let mut known = false;
    loop {
        tokio::select! {
            () = all(&checks, known, &health, &registry) => return,
            changed = until_other(&checks, &ports, &mut policies) => match changed {
                Some(other) => {
                    known = checks.iter().all(|check| !check.service.is_empty());
                    checks = other;
                }
                // The control plane's stream has ended with the process.
                None => return,
            },
        }
        tracing::info!(checks = checks.len(), "the application's health check has changed");
    }
}

/// What is to be asked by settings.
fn from_settings(given: HealthCheck) -> Vec<Check> {
    let (address, probe) = match given {
        HealthCheck::None => return Vec::new(),
        HealthCheck::Tcp(address) => (address, Probe::Tcp),
        HealthCheck::Http { address, path } => {
            (address, Probe::Http { path, host: None, expected: Vec::new() })
        }
        HealthCheck::Grpc { address, service } => (address, Probe::Grpc { service }),
    };
    vec![Check { service: String::new(), address: Ok(address), probe, pace: Pace::default() }]
}

/// What is to be asked by the services' policies; else whether the first port accepts connections.
fn plan(policies: &OwnPolicies, ports: &[AppPort]) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for (service, check, first) in policies.health_checks() {
        let port = check.port.or(first);
        let served = port.and_then(|port| ports.iter().find(|served| served.port == port));
        let address = served.map(|served| served.address).ok_or_else(|| match port {
            Some(port) => format!("the workload does not serve port {port}"),
            None => "the service has no port".to_owned(),
        });
        checks.push(Check {
            service: service.to_string(),
            address,
            probe: check.probe.clone(),
            pace: check.pace,
        });
    }
    match ports.first() {
        Some(port) if checks.is_empty() => from_settings(HealthCheck::Tcp(port.address)),
        _ => checks,
    }
}

/// Waits until the policies ask for something else, and gives that.
async fn until_other(
    checks: &[Check],
    ports: &[AppPort],
    policies: &mut watch::Receiver<OwnPolicies>,
) -> Option<Vec<Check>> {
    loop {
        policies.changed().await.ok()?;
        let other = plan(&policies.borrow_and_update(), ports);
        if other != checks {
            return Some(other);
        }
    }
}

/// Makes all of these checks for ever. The application is ready while all say so; what it was stays, until each has decided.
/// Where it is `known` to be ready by such checks, it takes as many failures as ever to be so no more.
async fn all(checks: &[Check], known: bool, health: &watch::Sender<Health>, registry: &Registry) {
    let before = Some(health.borrow().clone()).filter(|before| known && before.ready);
    let ready = before.as_ref().map(|before| before.ready);
    let found = RefCell::new(vec![before; checks.len()]);
    let tell = || {
        let found = found.borrow();
        let unready = found.iter().flatten().find(|found: &&Health| !found.ready);
        let next = match unready {
            Some(unready) => unready.clone(),
            None if found.iter().all(Option::is_some) => Health { ready: true, ..Health::default() },
            None => return,
        };
        health.send_if_modified(|current| {
            // A reason may change often; readiness is what others act on.
            let news = next.ready != current.ready || current.reason.is_empty() && !next.ready;
            if news {
                tracing::info!(ready = next.ready, reason = next.reason, "the application's health");
                *current = next;
            }
            news
        });
    };
    tell();
    let asking = checks.iter().enumerate().map(|(index, check)| {
        let (found, tell) = (&found, &tell);
        one(check, ready, registry, move |health| {
            found.borrow_mut()[index] = Some(health);
            tell();
        })
    });
    futures_util::future::join_all(asking).await;
    std::future::pending().await
}

/// Makes one check for ever.
async fn one(check: &Check, ready: Option<bool>, registry: &Registry, decided: impl Fn(Health)) {
    let Pace { interval, timeout, initial_delay, .. } = check.pace;
    let mut judge = Judge::new(check.pace, ready);
    tokio::time::sleep_until(Instant::now() + initial_delay).await;
    loop {
        let answer = match &check.address {
            Ok(address) => probe::ask(*address, &check.probe, timeout).await,
            Err(reason) => Err(reason.clone()),
        };
        let result = if answer.is_ok() { "passed" } else { "failed" };
        registry.counter(Metric::HealthChecks, &[&check.service, result]).increment(1);
        if let Some(ready) = judge.take(answer.is_ok()) {
            let reason = answer.err().unwrap_or_default();
            let service = &check.service;
            let named = !reason.is_empty() && !service.is_empty();
            let reason = if named { format!("{reason} ({service})") } else { reason };
            decided(Health { ready, reason, ..Health::default() });
        }
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::{model::Service, wire};

    use super::*;

    #[tokio::test]
    async fn changes_are_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let how = HealthCheck::Tcp(listener.local_addr().expect("an address"));
        let (sender, mut health) = watch::channel(Health::default());
        let (_policies, policies) = watch::channel(OwnPolicies::default());
        let registry = Arc::new(Registry::new());
        let checking = check(Some(how), Vec::new(), policies, sender, registry.clone());
        let watching = async {
            health.wait_for(|health| health.ready).await.expect("ready");
            drop(listener);
            health.wait_for(|health| !health.ready).await.expect("unready").reason.clone()
        };
        tokio::select! {
            () = checking => panic!("checks never end"),
            reason = watching => assert!(reason.contains("refused"), "{reason}"),
        }
        let text = registry.render();
        for result in ["passed", "failed"] {
            let series = format!("pillion_health_checks_total{{service=\"\",result=\"{result}\"}}");
            assert!(text.contains(&series), "{series} in {text}");
        }
    }

    fn service(name: &str, port: u32, check: Option<wire::HealthCheck>) -> Arc<Service> {
        let config = wire::ServiceConfig {
            service: name.to_owned(),
            ports: vec![wire::ServicePort { port: 80, target_port: port, ..Default::default() }],
            policy: Some(wire::TrafficPolicy { health_check: check, ..Default::default() }),
            ..Default::default()
        };
        Arc::new(Service::try_from(config).expect("a valid service"))
    }

    #[test]
    fn every_services_check_is_made_else_the_usual_one() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = [(8080, 1), (9090, 2)].map(|(port, at)| AppPort {
            port,
            address: address(at),
            name: String::new(),
        });
        let asked = |services: Vec<Arc<Service>>| {
            plan(&OwnPolicies::new(services), &ports)
                .into_iter()
                .map(|check| (check.service, check.address.map(|address| address.port()).ok()))
                .collect::<Vec<_>>()
        };
        let tcp = |port| Some(wire::HealthCheck { tcp: Some(wire::TcpCheck {}), port, ..Default::default() });
        assert_eq!(asked(vec![service("a.n", 8080, None)]), [(String::new(), Some(1))]);
        let all = asked(vec![
            service("a.n", 9090, tcp(0)),
            service("b.n", 8080, None),
            service("c.n", 9090, tcp(8080)),
            service("d.n", 8080, tcp(7)),
        ]);
        let expected = [("a.n", Some(2)), ("c.n", Some(1)), ("d.n", None)];
        assert_eq!(all, expected.map(|(name, at)| (name.to_owned(), at)));
    }
}
