//! The rules for Prometheus, as far as their form goes.

use std::collections::{BTreeMap, BTreeSet};

use pillion_api::metric::Declared;
use serde_json::Value;

use super::{names, text, undeclared};

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
const TROUBLESHOOTING: &str =
    "https://github.com/pillion-mesh/pillion/blob/main/deploy/reference/troubleshooting.md#";

pub(super) struct Rules(Vec<Value>);

impl Rules {
    pub(super) fn read() -> Self {
        let file: Value = serde_saphyr::from_str(&text("prometheus/rules.yml")).expect("the rules are YAML");
        let groups = file["groups"].as_array().expect("there are groups");
        Self(groups.iter().flat_map(|group| group["rules"].as_array().expect("of rules")).cloned().collect())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The names of what is recorded.
    pub(super) fn recorded(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|rule| rule["record"].as_str())
    }

    /// What whoever is woken by an alert would miss.
    pub(super) fn faults(
        &self,
        declared: &BTreeMap<&str, Declared>,
        advised: &BTreeSet<&str>,
        tested: &str,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        for rule in &self.0 {
            let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap_or_default();
            let mut fault = |what: &str| faults.push(format!("{name}: {what}"));
            let expression = rule["expr"].as_str().unwrap_or_default();
            undeclared(expression, declared).iter().for_each(|what| fault(what));
            for rule in names(expression).filter(|name| name.contains(':')) {
                if !self.recorded().any(|name| name == rule) {
                    fault(&format!("nothing records {rule}"));
                }
            }
            if rule["record"].is_string() {
                continue;
            }
            if !rule["for"].is_string() {
                fault("does not say how long it must last");
            }
            if !rule["labels"]["severity"].as_str().is_some_and(|severity| SEVERITIES.contains(&severity)) {
                fault("has no severity");
            }
            for words in ["summary", "description"] {
                if !rule["annotations"][words].is_string() {
                    fault(&format!("has no {words}"));
                }
            }
            // A heading's anchor is in lower case.
            if rule["annotations"]["runbook_url"] != format!("{TROUBLESHOOTING}{}", name.to_lowercase()) {
                fault("does not lead to what to do");
            }
            if !advised.contains(name) {
                fault("is not on the page of troubleshooting");
            }
            if !tested.contains(&format!("{{alertname=\"{name}\"}}")) {
                fault("has no test");
            }
        }
        faults
    }
}
