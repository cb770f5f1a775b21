//! Which services select a workload, without asking each of them.

use std::collections::BTreeMap;

use super::{Name, Workload, serves};
use crate::resource::service::ServiceSpec;

/// Services by one label of their selector: a workload can only be picked by those that are found under its labels.
#[derive(Debug, Default)]
pub(super) struct Selectors(BTreeMap<String, Vec<(Name, ServiceSpec)>>);

impl Selectors {
    /// Adds a service. One without a selector picks nobody.
    pub(super) fn add(&mut self, namespace: &str, name: &Name, service: &ServiceSpec) {
        if let Some((label, value)) = service.selector.iter().next() {
            let under = self.0.entry(place(namespace, label, value)).or_default();
            under.push((name.clone(), service.clone()));
        }
    }

    /// The services that a workload belongs to. By name: the first is the source of its requests.
    pub(super) fn services_of(&self, workload: &Workload) -> Vec<Name> {
        let labels = workload.hello.labels.iter();
        let mut services: Vec<Name> = labels
            .filter_map(|(label, value)| self.0.get(&place(&workload.namespace, label, value)))
            .flatten()
            .filter(|(_, service)| serves(workload, service))
            .map(|(name, _)| name.clone())
            .collect();
        // By name alone, as `source_of` does: with its namespace "pay-v1.x" would go before "pay.x".
        services.sort_unstable_by(|one, other| bare(one).cmp(bare(other)));
        services
    }
}

/// Unambiguous: a namespace has no slash, and neither half of a label has an equals sign.
fn place(namespace: &str, label: &str, value: &str) -> String {
    [namespace, "/", label, "=", value].concat()
}

fn bare(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}
