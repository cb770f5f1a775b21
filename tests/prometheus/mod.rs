//! What `deploy/` has for Prometheus and Grafana, held against the programs: statically, by Prometheus' own checks, and by a
//! Prometheus that scrapes the demo and answers every query of the dashboard and every rule.

pub(crate) mod advice;
mod dashboard;
mod rules;
mod server;
mod shop;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dashboard::Dashboard;
use pillion_api::metric::Declared;
use pillion_proxy::telemetry::names::Metric;
use rules::Rules;
use serde_json::Value;
use server::Prometheus;
use shop::Shop;

use crate::support::shared;

/// For everything that must turn up in Prometheus. Only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of one sidecar, in this mesh; histograms are most of them.
const MOST_SERIES: f64 = 1000.0;

/// Alerts that are provoked, with a label each. They would have to last for minutes; the test's copy of the rules asks for none.
const PROVOKED: [(&str, &str, &str); 6] = [
    ("PillionErrorBudgetBurnsFast", "target", "drill.demo"),
    ("PillionRateLimited", "service", "drill.demo"),
    ("PillionFaultForgotten", "fault", "outage"),
    ("PillionBreakerPanic", "target", "drill.demo"),
    ("PillionOverloaded", "service", "busy.demo"),
    ("PillionNoReadyEndpoints", "target", "nowhere.demo"),
];

#[tokio::test]
async fn answers_every_query_of_the_dashboard_and_every_rule() {
    let _machine = shared().await;
    let mut shop = Shop::open().await;
    let prometheus = Prometheus::start(shop.api()).await;
    let (dashboard, rules) = (Dashboard::read(), Rules::read());

    let mut waiting: Vec<(String, String)> = dashboard.queries().collect();
    waiting.extend(rules.recorded().map(|name| (format!("rule {name}"), name.to_owned())));
    until("every query has an answer", async || {
        let mut left = Vec::new();
        for (what, query) in waiting.drain(..) {
            match prometheus.query(&query).await {
                Ok(found) if !found.is_empty() => {}
                Ok(_) => left.push((what, query)),
                Err(error) => panic!("{what}: {error}\n{query}"),
            }
        }
        waiting = left;
        waiting.clone()
    })
    .await;
    for (variable, label, selector) in dashboard.variables() {
        let values = prometheus.values(&label, &selector).await;
        assert!(!values.is_empty(), "the variable {variable} has no values");
    }

    until("requests have traces, on both sides", async || {
        let found = prometheus.exemplars("pillion_request_duration_seconds_bucket").await;
        found.iter().for_each(exemplifies);
        let mut missing = vec!["outbound", "inbound"];
        missing.retain(|side| !found.iter().any(|it| it["seriesLabels"]["direction"] == *side));
        missing
    })
    .await;

    until("what is provoked is reported", async || {
        let firing = prometheus.firing().await;
        let mut missing = PROVOKED.to_vec();
        missing.retain(|(name, label, value)| {
            let is =
                |alert: &Value| alert["labels"]["alertname"] == *name && alert["labels"][*label] == *value;
            !firing.iter().any(is)
        });
        missing
    })
    .await;

    let most = prometheus
        .query("max(scrape_samples_scraped{job=\"pillion-sidecar\"})")
        .await
        .expect("a valid query");
    let most: f64 = most[0]["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
    println!("the sidecar with the most series has {most}");
    assert!(most < MOST_SERIES, "{most} series of one sidecar");

    // Prometheus keeps the targets that it was told of last.
    shop.close().await;
    until("the mesh is gone", async || {
        let firing = prometheus.firing().await;
        let mut gone = vec!["PillionControlPlaneDown", "PillionSidecarDown"];
        gone.retain(|name| !firing.iter().any(|alert| alert["labels"]["alertname"] == *name));
        gone
    })
    .await;

    // After all of this each was evaluated many times, and the words of those that fire were made.
    let evaluated = prometheus.rules().await;
    assert_eq!(evaluated.len(), rules.count(), "all are loaded");
    for rule in evaluated {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule:#}");
    }
    for alert in prometheus.firing().await {
        let words = alert["annotations"].to_string();
        assert!(!words.contains("<error") && !words.contains("<no value>"), "{alert:#}");
    }
}

/// Prometheus' own checks of the files, and the alerts played through with made-up series.
#[tokio::test]
async fn finds_nothing_wrong_with_the_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Debian's Prometheus is built without Kubernetes: there, that part is left to others.
    let kubernetes = text("prometheus/kubernetes.yml");
    let elsewhere = kubernetes.replace("kubernetes_sd_configs: [{ role: pod }]", "static_configs: []");
    assert_ne!(kubernetes, elsewhere);
    let copy = folder.path().join("kubernetes.yml");
    std::fs::write(&copy, elsewhere).expect("the folder is ours");
    std::fs::copy(path("prometheus/rules.yml"), folder.path().join("rules.yml")).expect("the folder is ours");
    for arguments in [
        ["check", "rules", "--lint=all", "--lint-fatal", &path("prometheus/rules.yml").display().to_string()]
            .as_slice(),
        &["check", "config", &path("prometheus/prometheus.yml").display().to_string()],
        &["check", "config", "--syntax-only", &copy.display().to_string()],
        &["test", "rules", &path("prometheus/rules_test.yml").display().to_string()],
    ] {
        server::promtool(arguments).await;
    }
}

#[test]
fn the_dashboard_is_sound() {
    let faults = Dashboard::read().faults(&declared());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_rules_are_sound() {
    let tested = text("prometheus/rules_test.yml");
    let faults = Rules::read().faults(&declared(), &advice::names().collect(), &tested);
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Whether the exemplars of a series are what they should be.
fn exemplifies(series: &Value) {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number");
    let bound = number(&series["seriesLabels"]["le"]);
    let list = series["exemplars"].as_array().expect("a list");
    for exemplar in list {
        let id = |name: &str, length: usize| {
            let id = exemplar["labels"][name].as_str().unwrap_or_default();
            id.len() == length && id.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        assert!(id("trace_id", 32) && id("span_id", 16), "{series:#}");
        assert!(number(&exemplar["value"]) <= bound, "{series:#}");
        assert!(exemplar["timestamp"].as_f64().is_some_and(|at| at > 1.7e9), "{series:#}");
    }
    assert!(!list.is_empty(), "{series:#}");
}

/// Waits until nothing is left.
async fn until<T: std::fmt::Debug>(what: &str, mut left: impl AsyncFnMut() -> Vec<T>) {
    let start = Instant::now();
    loop {
        let left = left().await;
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "not within {} s: {what}: {left:#?}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A file of `deploy/`.
fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

fn text(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("deploy/{file}: {error}"))
}

/// What both programs declare, by name.
fn declared() -> BTreeMap<&'static str, Declared> {
    let sidecar = Metric::ALL.iter().map(|metric| metric.declared());
    let server = pillion::telemetry::Metric::ALL.iter().map(|metric| metric.declared());
    sidecar.chain(server).map(|metric| (metric.name, metric)).collect()
}

/// The names of metrics and rules in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    // Not those in a selector: they are labels and their values.
    let outside = expression.split('{').flat_map(|part| part.rsplit('}').next());
    let words = outside.flat_map(|part| {
        part.split(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '_' | ':')))
    });
    words.filter(|word| word.contains("pillion") || word.starts_with("process_"))
}

/// Metrics in an expression that nobody declares, with what is wrong.
fn undeclared(expression: &str, declared: &BTreeMap<&str, Declared>) -> Vec<String> {
    let known = |name: &str| {
        name.contains(':')
            || declared.contains_key(name)
            || ["_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|family| declared.contains_key(family)))
    };
    names(expression).filter(|name| !known(name)).map(|name| format!("nobody declares {name}")).collect()
}
