//! What the routes of a service say of its backends, and where its requests went.

use std::collections::{BTreeMap, BTreeSet};

use pillion_api::wire;

use super::{
    build::SHARE_WINDOW_S,
    view::{BackendShare, rounded},
};
use crate::history;

/// One for each that a rule names, or that served anything.
pub(super) fn backends(
    name: &str,
    config: Option<&wire::ServiceConfig>,
    history: &history::State,
    now_ms: i64,
) -> Vec<BackendShare> {
    // A backend's shares by the rules that name it.
    let mut weights: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for rule in config.iter().flat_map(|config| &config.routes) {
        let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        // A rule may name a service twice, by its ports.
        let mut of_rule: BTreeMap<&str, u64> = BTreeMap::new();
        for backend in &rule.backends {
            *of_rule.entry(&backend.service).or_default() += u64::from(backend.weight);
        }
        for (service, weight) in of_rule {
            let percent = if total == 0 { 0.0 } else { rounded(weight as f64 * 100.0 / total as f64) };
            let known = weights.entry(service.to_owned()).or_default();
            if !known.contains(&percent) {
                known.push(percent);
                known.sort_by(f64::total_cmp);
            }
        }
    }
    let mut requests: BTreeMap<String, u64> = BTreeMap::new();
    for (key, series) in history.edges().iter().filter(|(key, _)| key.to == name) {
        *requests.entry(key.serving().to_owned()).or_default() +=
            series.recent(now_ms, SHARE_WINDOW_S).0.requests;
    }
    let total: u64 = requests.values().sum();
    let routed = !weights.is_empty();
    let mut names: BTreeSet<String> = weights.keys().cloned().collect();
    names.extend(requests.iter().filter(|(_, count)| routed && **count > 0).map(|(name, _)| name.clone()));
    let share = |service: String| {
        let count = requests.get(&service).copied().unwrap_or_default();
        BackendShare {
            weights_percent: weights.get(&service).cloned().unwrap_or_default(),
            share_percent: (total > 0).then(|| rounded(count as f64 * 100.0 / total as f64)),
            service,
        }
    };
    names.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(backends: &[(&str, u32)]) -> wire::RouteRule {
        let backend = |(service, weight): &(&str, u32)| wire::Backend {
            service: (*service).to_owned(),
            weight: *weight,
            ..wire::Backend::default()
        };
        wire::RouteRule { backends: backends.iter().map(backend).collect(), ..wire::RouteRule::default() }
    }

    #[test]
    fn each_weight_that_a_rule_gives_is_told() {
        let table = [
            ("one rule", vec![rule(&[("v1", 90), ("v2", 10)])], vec![("v1", vec![90.0]), ("v2", vec![10.0])]),
            (
                "two that differ",
                vec![rule(&[("v2", 1)]), rule(&[("v1", 90), ("v2", 10)])],
                vec![("v1", vec![90.0]), ("v2", vec![10.0, 100.0])],
            ),
            ("two that agree", vec![rule(&[("v1", 1)]), rule(&[("v1", 7)])], vec![("v1", vec![100.0])]),
            (
                "one that names it twice",
                vec![rule(&[("v1", 1), ("v2", 2), ("v1", 1)])],
                vec![("v1", vec![50.0]), ("v2", vec![50.0])],
            ),
            ("none at all", vec![rule(&[("v1", 0)])], vec![("v1", vec![0.0])]),
        ];
        for (what, routes, expected) in table {
            let config = wire::ServiceConfig { routes, ..wire::ServiceConfig::default() };
            let shares = backends("x", Some(&config), &history::State::default(), 0);
            let told: Vec<_> =
                shares.iter().map(|it| (it.service.as_str(), it.weights_percent.clone())).collect();
            assert_eq!(told, expected, "{what}");
        }
    }
}
