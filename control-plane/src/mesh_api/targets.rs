//! Where Prometheus finds the metrics of all sidecars: its HTTP service discovery.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Handlers, fresh};
use crate::registry::Member;

/// One sidecar's operators' port, as Prometheus wants it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Target {
    /// One IP address and port.
    targets: [String; 1],
    /// `namespace` and `sidecar` (the workload's name) for its series; `__meta_pillion_service`, `__meta_pillion_version` and
    /// `__meta_pillion_zone` for rules of relabelling.
    labels: BTreeMap<&'static str, String>,
}

/// Every sidecar whose operators' port can be reached from other hosts, for Prometheus' `http_sd_configs`
#[utoipa::path(
    get,
    path = "/v1/mesh/prometheus-targets",
    responses((status = 200, description = "The targets; each has one address", body = Vec<Target>)),
)]
pub(super) async fn targets(State(handlers): State<Handlers>) -> Response {
    let state = &handlers.state;
    let memberships = state.publisher.memberships();
    let service = |member: &Member| memberships.get(member.uid()).and_then(|services| services.first());
    let members = state.registry.members();
    let targets =
        members.iter().filter_map(|member| target(member, service(member).map_or("", |service| service)));
    fresh(targets.collect::<Vec<_>>())
}

fn target(member: &Member, service: &str) -> Option<Target> {
    let hello = &member.workload.hello;
    if hello.admin_address.is_empty() {
        return None;
    }
    let labels = [
        ("namespace", member.workload.namespace.as_str()),
        ("sidecar", &hello.workload),
        ("__meta_pillion_service", service),
        ("__meta_pillion_version", &hello.version),
        ("__meta_pillion_zone", &hello.zone),
    ];
    Some(Target {
        targets: [hello.admin_address.clone()],
        labels: labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect(),
    })
}
