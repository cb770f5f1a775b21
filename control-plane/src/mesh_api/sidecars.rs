//! What sidecars say that matters to documents: it shows in their status, and whoever changes them is warned of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pillion_api::wire::update;

use super::nodes::lone_name;
use crate::{
    publish::{Publisher, Refusal},
    registry::Registry,
    resource::standing::FromSidecars,
};

/// What sidecars say now that matters to the documents.
pub fn from_sidecars(
    publisher: Arc<Publisher>,
    registry: Arc<Registry>,
) -> Arc<dyn Fn() -> FromSidecars + Send + Sync> {
    Arc::new(move || FromSidecars {
        refused: refused(&publisher, &registry),
        own_checks: own_checks(&publisher, &registry),
        callers: callers(&publisher, &registry),
        accounts: registry
            .members()
            .iter()
            .filter_map(|member| account(&member.workload.spiffe_id))
            .collect(),
    })
}

/// The Services whose configuration sidecars refuse: by how many, and the words of one.
fn refused(publisher: &Publisher, registry: &Registry) -> BTreeMap<String, String> {
    let mut by_service: BTreeMap<String, Vec<Refusal>> = BTreeMap::new();
    let of_documents = |refusal: &Refusal| refusal.kind == update::Kind::Config;
    for refusal in publisher.refusals.list().into_iter().filter(of_documents) {
        by_service.entry(refusal.service.clone()).or_default().push(refusal);
    }
    let told = by_service.into_iter().filter_map(|(service, refusals)| {
        let Refusal { uid, reason, .. } = refusals.first()?;
        let workload = registry.member(uid).map_or_else(|| uid.clone(), |member| member.name().to_owned());
        let others = match refusals.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let why = format!("the sidecar of {workload}{others} refuses it: {reason}");
        Some((service, why))
    });
    told.collect()
}

/// What others see as the source of requests.
fn callers(publisher: &Publisher, registry: &Registry) -> BTreeSet<String> {
    let memberships = publisher.memberships();
    let mut callers = BTreeSet::new();
    for member in registry.members() {
        match memberships.get(member.uid()).filter(|services| !services.is_empty()) {
            Some(services) => callers.extend(services.iter().map(ToString::to_string)),
            None => drop(callers.insert(lone_name(&member))),
        }
    }
    callers
}

/// `<namespace>/<service account>` of an identity.
fn account(spiffe_id: &str) -> Option<String> {
    let (_, path) = spiffe_id.split_once("/ns/")?;
    let (namespace, account) = path.split_once("/sa/")?;
    Some(format!("{namespace}/{account}"))
}

/// The workloads of each service whose own settings say how their health is checked.
fn own_checks(publisher: &Publisher, registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let memberships = publisher.memberships();
    let mut by_service: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in registry.members().iter().filter(|member| member.workload.hello.own_health_check) {
        for service in memberships.get(member.uid()).into_iter().flat_map(|services| services.iter()) {
            by_service.entry(service.to_string()).or_default().push(member.name().to_owned());
        }
    }
    by_service
}
