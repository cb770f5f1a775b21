//! `/metrics` of both programs: well formed, declared, and bounded whatever clients send.

use std::collections::BTreeSet;

use pillion::demo::scrape::{Sample, Samples};
use pillion_api::metric::{Declared, Kind};
use pillion_proxy::telemetry::names::Metric;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::pair::Pair;
use crate::support::{PATIENCE, eventually, raw};

#[tokio::test]
async fn of_a_sidecar_are_well_formed_and_bounded() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;

    let request = |host: &str, path: &str| {
        format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {path}\r\nconnection: close\r\n\r\n")
    };
    raw::exchange(caller.outbound(), &request("app.demo.mesh", "who")).await;
    raw::exchange(caller.outbound(), &request("nobody-0.demo.mesh", "who")).await;
    let outbound = [("direction", "outbound")];
    let counted = async |least: f64| {
        eventually("requests are counted", async || {
            let metrics = caller.metrics().await;
            (metrics.sum("pillion_requests_total", &outbound) >= least).then_some(metrics)
        })
        .await
    };
    let before = counted(2.0).await;
    assert_declared(&before, &sidecars());
    for number in 0..200 {
        let (host, path) = (format!("nobody-{number}.demo.mesh"), format!("path-{number}?token={number}"));
        raw::exchange(caller.outbound(), &request(&host, &path)).await;
        raw::exchange(caller.outbound(), &request("app.demo.mesh", &path)).await;
    }
    let after = counted(402.0).await;
    assert_declared(&after, &sidecars());
    // A histogram counts once: by its sum.
    let series =
        |samples: &Samples| samples.iter().filter(|sample| !sample.name.ends_with("_bucket")).count();
    let (was, is) = (series(&before), series(&after));
    assert!(is <= was + 50, "{was} series became {is}, with what clients sent");
    let values: BTreeSet<&str> =
        after.iter().flat_map(|sample| sample.labels.values()).map(String::as_str).collect();
    let leaked: Vec<_> =
        values.iter().filter(|value| value.contains("path-") || value.contains("nobody-")).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[tokio::test]
async fn of_the_control_plane_are_well_formed() {
    let mesh = Mesh::start().await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller]).await;
    let address = mesh.api.base().trim_start_matches("http://").to_owned();
    let samples = mesh.api.metrics(&address).await.expect("well-formed metrics");
    let declared = pillion::telemetry::Metric::ALL.iter().map(|metric| metric.declared());
    assert_declared(&samples, &declared.collect::<Vec<_>>());
    let value = |name: &str| samples.max(name, &[]).unwrap_or_else(|| panic!("no {name}"));
    assert!(value("pillion_server_authority_expiry_timestamp_seconds") > value("process_start_time_seconds"));
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_cpu_seconds_total") > 0.0);
}

#[tokio::test]
async fn of_endpoints_say_when_the_last_one_is_gone() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let mut pair = Pair::around(app.address(), "http").await;
    assert_eq!(raw::status(&pair.get("/who").await), 200);
    let Pair { caller, callee, .. } = &mut pair;
    let until_ready = async |count: f64| {
        eventually(&format!("{count} endpoints are ready"), async || {
            let metrics = caller.metrics().await;
            let ready = metrics.max("pillion_endpoints", &[("target", "app.demo"), ("state", "ready")]);
            (ready.unwrap_or(0.0) == count).then_some(())
        })
        .await;
    };
    until_ready(1.0).await;
    callee.process.stop(PATIENCE).await;
    until_ready(0.0).await;
}

/// Of a sidecar.
fn sidecars() -> Vec<Declared> {
    Metric::ALL.iter().map(|metric| metric.declared()).collect()
}

/// Every series is one that the program declares, and so is in the reference: by name, type and labels.
fn assert_declared(samples: &Samples, declared: &[Declared]) {
    let mut faults = Vec::new();
    for sample in samples.iter() {
        let Sample { name, labels, .. } = sample;
        let family = ["_bucket", "_sum", "_count", ""].into_iter().find_map(|suffix| {
            let family = name.strip_suffix(suffix)?;
            let metric = declared.iter().find(|metric| metric.name == family)?;
            Some((metric, suffix)).filter(|_| suffix.is_empty() || metric.kind == Kind::Histogram)
        });
        let Some((metric, suffix)) = family else {
            faults.push(format!("{name} is not declared"));
            continue;
        };
        if samples.types().get(metric.name).map(String::as_str) != Some(metric.kind.as_str()) {
            faults.push(format!("{name} has another TYPE"));
        }
        let bound = Some("le").filter(|_| suffix == "_bucket");
        let expected: BTreeSet<&str> = metric.labels.iter().copied().chain(bound).collect();
        let found: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
        if found != expected {
            faults.push(format!("{name} has the labels {found:?}"));
        }
    }
    assert!(samples.iter().count() > 0, "there are some");
    assert!(faults.is_empty(), "{faults:#?}");
}
