//! Gathers the figures for `pillion demo --check`, from the sidecars' `/metrics` and the control plane's REST API.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::api::ApiError;
use super::check::{Breaker, BreakerSample, Counts, Handshakes, Measured, TROUBLED, WELL_BEHAVED};
use super::mesh::{CAST, Mesh, NAMESPACE};
use super::scrape::{Labels, Samples};
use super::traffic::Tally;

/// How often the troubled instance is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks on for `length`, then takes stock.
pub(super) async fn measure(mesh: &Mesh, tally: &Tally, length: Duration) -> Result<Measured, ApiError> {
    let breaker = watch_breaker(mesh, length).await?;
    let mut measured = Measured {
        identities: CAST.iter().map(|m| (m.name.into(), identity(m.app))).collect(),
        workloads: mesh.api.workloads().await?,
        edges: mesh.api.mesh().await?.edges,
        breaker,
        traffic: Counts { requests: tally.answered() + tally.failed(), failures: tally.failed() },
        ..Measured::default()
    };
    let mut scraped = BTreeMap::new();
    for workload in &mesh.workloads {
        let samples = mesh.api.metrics(&workload.addresses.admin.to_string()).await?;
        scraped.insert(workload.member.name, samples);
    }
    for member in CAST.iter().filter(|member| member.role.is_some()) {
        measured.handshakes.insert(member.name.into(), handshakes(&scraped[member.name]));
        if member.app == "payments" {
            let counts = counts(&scraped[member.name], &[("direction", "inbound")]);
            measured.payments.insert(member.name.into(), counts);
        }
    }
    let hops = [("traffic", "web"), ("web-1", "catalog"), ("web-1", "cart")];
    for (from, to) in hops {
        let service = format!("{to}.{NAMESPACE}");
        let counts = counts(&scraped[from], &[("direction", "outbound"), ("service", &service)]);
        measured.hops.insert(format!("{from} → {to}"), counts);
    }
    let caller = &scraped["cart-1"];
    for version in ["payments-v1.demo", "payments-v2.demo"] {
        let labels = [("direction", "outbound"), ("service", "payments.demo"), ("backend", version)];
        measured.chosen.insert(version.into(), counts(caller, &labels).requests);
    }
    measured.breaker_openings = caller.sum("pillion_breaker_opened_total", &[("workload", TROUBLED)]) as u64;
    Ok(measured)
}

async fn watch_breaker(mesh: &Mesh, length: Duration) -> Result<Vec<BreakerSample>, ApiError> {
    let address = |name: &str| mesh.workload(name).addresses.admin.to_string();
    let (caller, troubled) = (address("cart-1"), address(TROUBLED));
    let peers = WELL_BEHAVED.map(address);
    let start = Instant::now();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut samples = Vec::new();
    while start.elapsed() < length {
        looks.tick().await;
        let seen = mesh.api.metrics(&caller).await?;
        let at = start.elapsed();
        let mut reached = 0;
        for peer in &peers {
            reached += inbound_requests(&mesh.api.metrics(peer).await?);
        }
        samples.push(BreakerSample {
            at,
            state: breaker_state(&seen),
            troubled: inbound_requests(&mesh.api.metrics(&troubled).await?),
            peers: reached as f64 / peers.len() as f64,
        });
    }
    Ok(samples)
}

fn identity(service_account: &str) -> String {
    format!("spiffe://mesh.local/ns/{NAMESPACE}/sa/{service_account}")
}

fn inbound_requests(samples: &Samples) -> u64 {
    counts(samples, &[("direction", "inbound")]).requests
}

fn handshakes(samples: &Samples) -> Handshakes {
    let side = |outcome: &str| -> u64 {
        let labels = [("side", "server"), ("outcome", outcome)];
        samples.sum("pillion_tls_handshakes_total", &labels) as u64
    };
    Handshakes { succeeded: side("ok"), failed: side("failed") }
}

fn counts(samples: &Samples, labels: Labels<'_>) -> Counts {
    let mut counts = Counts::default();
    for sample in samples.matching("pillion_requests_total", labels) {
        counts.requests += sample.value as u64;
        if sample.label("outcome") != "ok" {
            counts.failures += sample.value as u64;
        }
    }
    counts
}

fn breaker_state(samples: &Samples) -> Breaker {
    match samples.max("pillion_breaker_state", &[("workload", TROUBLED)]) {
        Some(1.0) => Breaker::Open,
        Some(2.0) => Breaker::HalfOpen,
        _ => Breaker::Closed,
    }
}
