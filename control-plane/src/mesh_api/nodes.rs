//! Who is a node of the mesh, and what tells of its requests.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    MeshState,
    build::{WINDOW_S, rates},
    hops::Way,
    series::summed,
    view::{Golden, NodeKind, ServiceSummary},
};
use crate::{
    history::{self, Series},
    registry::Member,
};

/// Everybody's place: members by node, a node being a service or a lone workload.
pub(super) struct Nodes {
    pub(super) by_name: BTreeMap<String, Vec<Member>>,
    services: BTreeSet<String>,
}

impl Nodes {
    pub(super) fn of(state: &MeshState) -> Self {
        let (compiled, memberships) = (state.publisher.compiled(), state.publisher.memberships());
        let services: BTreeSet<String> = compiled.keys().map(ToString::to_string).collect();
        let mut by_name: BTreeMap<String, Vec<Member>> =
            services.iter().map(|name| (name.clone(), Vec::new())).collect();
        for member in state.registry.members() {
            match memberships.get(member.uid()) {
                Some(services) => {
                    for service in services.iter() {
                        by_name.entry(service.to_string()).or_default().push(member.clone());
                    }
                }
                None => by_name.entry(lone_name(&member)).or_default().push(member),
            }
        }
        Self { by_name, services }
    }

    /// All that there are.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.by_name.keys().cloned()
    }

    pub(super) fn kind(&self, name: &str) -> NodeKind {
        if self.services.contains(name) {
            NodeKind::Service
        } else if self.by_name.contains_key(name) {
            NodeKind::Workload
        } else {
            NodeKind::Unknown
        }
    }

    pub(super) fn members(&self, name: &str) -> &[Member] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Those of its workloads that are ready.
    pub(super) fn ready(&self, name: &str) -> usize {
        self.members(name).iter().filter(|member| member.health().ready).count()
    }

    /// `callers`: the ways that lead to it.
    pub(super) fn summary(
        &self,
        name: &str,
        history: &history::State,
        callers: &[Way<'_>],
        at_ms: i64,
    ) -> ServiceSummary {
        let members = self.members(name);
        let (sum, existed) = summed(self.measured(name, history, callers), WINDOW_S, at_ms);
        ServiceSummary {
            name: name.to_owned(),
            namespace: name.split_once('.').map(|(_, namespace)| namespace).unwrap_or_default().to_owned(),
            kind: self.kind(name),
            instances: members.len(),
            ready: self.ready(name),
            golden: Golden::of(&sum, existed),
            in_mesh: !members.is_empty(),
            // Where it has none, its callers' figures are told, whose refusals are theirs.
            refusals: if members.is_empty() { BTreeMap::new() } else { rates(&sum.refusals, existed) },
        }
    }

    /// What tells of a node's requests: its own sidecars. Where it has none (it only carries routes, or all of its workloads
    /// are gone), those that call it.
    pub(super) fn measured<'a>(
        &self,
        name: &str,
        history: &'a history::State,
        callers: &[Way<'a>],
    ) -> Vec<&'a Series> {
        if self.members(name).is_empty() {
            return callers.iter().map(|(_, series)| *series).collect();
        }
        history.service(name).into_iter().collect()
    }
}

#[cfg(test)]
impl Nodes {
    /// Services with their workloads.
    pub(super) fn of_services(by_name: BTreeMap<String, Vec<Member>>) -> Self {
        Self { services: by_name.keys().cloned().collect(), by_name }
    }
}

/// The ways by the service that they lead to. Made once for an answer about many: there are as many ways as services, or more.
pub(super) struct Callers<'a>(BTreeMap<&'a str, Vec<Way<'a>>>);

impl<'a> Callers<'a> {
    pub(super) fn of(history: &'a history::State) -> Self {
        let mut by_service: BTreeMap<&str, Vec<Way<'_>>> = BTreeMap::new();
        for way @ (key, _) in history.edges() {
            by_service.entry(&key.to).or_default().push(way);
            if key.serving() != key.to {
                by_service.entry(key.serving()).or_default().push(way);
            }
        }
        Self(by_service)
    }

    pub(super) fn of_service(&self, name: &str) -> &[Way<'a>] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A workload that belongs to no service is a node by its own name.
pub(super) fn lone_name(member: &Member) -> String {
    format!("{}.{}", member.name(), member.workload.namespace)
}
