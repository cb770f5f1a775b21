//! A real Prometheus with the configuration and rules of `deploy/`, and its API.

use std::ffi::OsString;
use std::net::SocketAddr;

use pillion::demo::children::{Child, Spec};
use pillion::demo::guard::Guard;
use serde_json::Value;
use tempfile::TempDir;

use super::text;
use crate::support::eventually;
use crate::support::mesh::pillion;

const MISSING: &str = "is Prometheus installed? `make setup-tests` does it";

pub(super) struct Prometheus {
    base: String,
    http: reqwest::Client,
    _process: Child,
    _folder: TempDir,
    _guard: Guard,
}

impl Prometheus {
    /// One that scrapes the mesh of the control plane at `api`, every second.
    pub(super) async fn start(api: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("pillion-prometheus-").tempdir().expect("a temporary folder");
        let config = text("prometheus/prometheus.yml");
        assert!(config.contains("127.0.0.1:15080") && config.contains(": 15s"), "what is replaced is there");
        let config = config.replace("127.0.0.1:15080", api).replace(": 15s", ": 1s");
        // For how long something must last before it is an alert is a matter of the rules' own tests.
        let lines = text("prometheus/rules.yml");
        let rules: Vec<_> = (lines.lines())
            .map(|line| if line.trim_start().starts_with("for:") { "        for: 0s" } else { line })
            .collect();
        for (name, contents) in [("prometheus.yml", config), ("rules.yml", rules.join("\n"))] {
            std::fs::write(folder.path().join(name), contents).expect("the folder is ours");
        }
        let flag = |name: &str, value: OsString| [OsString::from(name), value];
        let arguments = [
            flag("--enable-feature", "exemplar-storage".into()),
            flag("--config.file", folder.path().join("prometheus.yml").into()),
            flag("--storage.tsdb.path", folder.path().join("data").into()),
            flag("--web.listen-address", "127.0.0.1:0".into()),
        ];
        let guard = Guard::start(&pillion()).expect("`pillion demo-guard` starts");
        guard.remove_folder(folder.path());
        let spec = Spec {
            name: "prometheus".into(),
            program: "prometheus".into(),
            arguments: arguments.concat(),
            environment: Vec::new(),
        };
        let process =
            Child::start(spec, folder.path(), &guard).unwrap_or_else(|error| panic!("{error}; {MISSING}"));
        let address: SocketAddr = eventually("Prometheus listens", async || {
            let log = process.log();
            let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?;
            line.rsplit_once("address=")?.1.trim().parse().ok()
        })
        .await;
        let http = reqwest::Client::builder().no_proxy().build().expect("nothing in it can fail");
        eventually("Prometheus answers", async || {
            let ready = http.get(format!("http://{address}/-/ready")).send().await.ok()?;
            ready.status().is_success().then_some(())
        })
        .await;
        Self {
            base: format!("http://{address}/api/v1"),
            http,
            _process: process,
            _folder: folder,
            _guard: guard,
        }
    }

    /// The series that a query finds now, or what Prometheus has against it.
    pub(super) async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self.ask(&format!("query?query={}", encoded(query))).await;
        match answer["data"]["result"].as_array() {
            Some(found) if answer["status"] == "success" => Ok(found.clone()),
            _ => Err(answer.to_string()),
        }
    }

    /// The exemplars of the series that a query is about: labels of each series, with its exemplars.
    pub(super) async fn exemplars(&self, query: &str) -> Vec<Value> {
        let answer = self.ask(&format!("query_exemplars?query={}", encoded(query))).await;
        answer["data"].as_array().unwrap_or_else(|| panic!("{query}: {answer}")).clone()
    }

    /// The values of a label in the series that a selector chooses.
    pub(super) async fn values(&self, label: &str, selector: &str) -> Vec<Value> {
        let answer = self.ask(&format!("label/{label}/values?match[]={}", encoded(selector))).await;
        answer["data"].as_array().unwrap_or_else(|| panic!("{selector}: {answer}")).clone()
    }

    /// Every rule, as Prometheus has evaluated it.
    pub(super) async fn rules(&self) -> Vec<Value> {
        let answer = self.ask("rules").await;
        let groups = answer["data"]["groups"].as_array().expect("there are groups");
        groups.iter().flat_map(|group| group["rules"].as_array().expect("of rules")).cloned().collect()
    }

    /// The alerts that fire.
    pub(super) async fn firing(&self) -> Vec<Value> {
        let answer = self.ask("alerts").await;
        let alerts = answer["data"]["alerts"].as_array().expect("a list");
        alerts.iter().filter(|alert| alert["state"] == "firing").cloned().collect()
    }

    async fn ask(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}/{path}", self.base)).send().await.expect("Prometheus answers");
        answer.json().await.expect("JSON")
    }
}

/// Runs Prometheus' tool, which must find nothing.
pub(super) async fn promtool(arguments: &[&str]) {
    let run = tokio::process::Command::new("promtool").args(arguments).output().await;
    let output = run.unwrap_or_else(|error| panic!("promtool: {error}; {MISSING}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

/// For a query of a URL.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
