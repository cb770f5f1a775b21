//! `/metrics` of both programs: well formed, declared, and bounded whatever clients send.

use std::collections::BTreeSet;

use pillion::demo::scrape::Samples;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::pair::Pair;
use crate::support::{PATIENCE, eventually, raw};

/// Label names that may occur. Their values come from closed sets or are names that the mesh itself gave.
const LABELS: [&str; 21] = [
    "answer",
    "backend",
    "by",
    "direction",
    "flow",
    "kind",
    "le",
    "outcome",
    "proof",
    "reason",
    "result",
    "segment",
    "side",
    "source",
    "state",
    "status",
    "target",
    "version",
    "workload",
    "quantile",
    "zone",
];

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
    assert_declared(&before);
    for number in 0..200 {
        let (host, path) = (format!("nobody-{number}.demo.mesh"), format!("path-{number}?token={number}"));
        raw::exchange(caller.outbound(), &request(&host, &path)).await;
        raw::exchange(caller.outbound(), &request("app.demo.mesh", &path)).await;
    }
    let after = counted(402.0).await;
    assert_declared(&after);
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
    assert_declared(&samples);
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

/// Every series has a declared type, a name of ours, and only known labels.
fn assert_declared(samples: &Samples) {
    let mut faults = Vec::new();
    for sample in samples.iter() {
        let suffixes = ["_bucket", "_sum", "_count", ""];
        let declared = suffixes.iter().any(|suffix| {
            sample.name.strip_suffix(suffix).is_some_and(|family| samples.types().contains_key(family))
        });
        if !declared {
            faults.push(format!("{} has no TYPE", sample.name));
        }
        if !(sample.name.starts_with("pillion_") || sample.name.starts_with("process_")) {
            faults.push(format!("{} is not a name of ours", sample.name));
        }
        for label in sample.labels.keys().filter(|label| !LABELS.contains(&label.as_str())) {
            faults.push(format!("{} has the label {label}", sample.name));
        }
    }
    assert!(samples.iter().count() > 0, "there are some");
    assert!(faults.is_empty(), "{faults:#?}");
}
