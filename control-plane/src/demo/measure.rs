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
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Who calls `payments`.
const CALLER: &str = "cart-1";

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
        let target = format!("{to}.{NAMESPACE}");
        let counts = counts(&scraped[from], &[("direction", "outbound"), ("target", &target)]);
        measured.hops.insert(format!("{from} → {to}"), counts);
    }
    let caller = &scraped[CALLER];
    // Cart hides failed payments from its users; here they count, but for those that fail on purpose.
    let all = counts(caller, &[("direction", "outbound"), ("target", "payments.demo")]);
    let troubled = counts(caller, &[("direction", "outbound"), ("workload", TROUBLED)]);
    let others =
        Counts { requests: all.requests - troubled.requests, failures: all.failures - troubled.failures };
    measured.hops.insert(format!("{CALLER} → payments but {TROUBLED}"), others);
    for version in ["payments-v1.demo", "payments-v2.demo"] {
        let labels = [("direction", "outbound"), ("target", "payments.demo"), ("backend", version)];
        measured.chosen.insert(version.into(), counts(caller, &labels).requests);
    }
    measured.breaker_openings = caller.sum("pillion_breaker_opened_total", &[("workload", TROUBLED)]) as u64;
    Ok(measured)
}

/// Looks only at the caller's sidecar: state and counts that one process gathered at one moment belong together.
async fn watch_breaker(mesh: &Mesh, length: Duration) -> Result<Vec<BreakerSample>, ApiError> {
    let caller = mesh.workload(CALLER).addresses.admin.to_string();
    let start = Instant::now();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut samples = Vec::new();
    while start.elapsed() < length {
        looks.tick().await;
        let seen = mesh.api.metrics(&caller).await?;
        let reached =
            |workload: &str| counts(&seen, &[("direction", "outbound"), ("workload", workload)]).requests;
        samples.push(BreakerSample {
            at: start.elapsed(),
            state: breaker_state(&seen),
            troubled: reached(TROUBLED),
            peers: WELL_BEHAVED.map(reached).iter().sum::<u64>() as f64 / WELL_BEHAVED.len() as f64,
        });
    }
    Ok(samples)
}

fn identity(service_account: &str) -> String {
    format!("spiffe://mesh.local/ns/{NAMESPACE}/sa/{service_account}")
}

/// Of the accepting side. `result` tells how it went well, or why it failed.
fn handshakes(samples: &Samples) -> Handshakes {
    let mut handshakes = Handshakes::default();
    for sample in samples.matching("pillion_tls_handshakes_total", &[("side", "server")]) {
        match sample.label("result") {
            "full" | "resumed" => handshakes.succeeded += sample.value as u64,
            _ => handshakes.failed += sample.value as u64,
        }
    }
    handshakes
}

fn counts(samples: &Samples, labels: Labels<'_>) -> Counts {
    Counts {
        requests: samples.sum("pillion_requests_total", labels) as u64,
        failures: samples.sum("pillion_request_failures_total", labels) as u64,
    }
}

fn breaker_state(samples: &Samples) -> Breaker {
    match samples.max("pillion_breaker_state", &[("workload", TROUBLED)]) {
        Some(1.0) => Breaker::Open,
        Some(2.0) => Breaker::HalfOpen,
        _ => Breaker::Closed,
    }
}
