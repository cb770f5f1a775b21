//! One workload in full, for a report of it.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Handlers, MeshState, build, fresh, problem, view::WorkloadView};
use crate::{
    clock::unix_ms,
    compile::{CompiledService, Encoded, Name},
};

/// One registered workload in full.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadDetails {
    /// As in the list.
    #[serde(flatten)]
    pub summary: WorkloadView,
    /// By which services select it.
    pub labels: BTreeMap<String, String>,
    /// Where its application serves.
    pub ports: Vec<WorkloadPort>,
    /// Where it runs; may be empty.
    pub zone: String,
    /// Its share beside the others', a percentage of the usual one; 0: the usual one.
    pub weight: u32,
    /// Its sidecar's operators' port; empty where others cannot reach it.
    pub admin_address: String,
    /// Every service that it serves; the first is the source of its requests.
    pub services: Vec<String>,
    /// What its sidecar subscribes to.
    pub subscribed: Vec<Subscription>,
}

/// A port of an application.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct WorkloadPort {
    /// Its number.
    pub port: u32,
    /// May be empty.
    pub name: String,
}

/// A service that a sidecar follows, with the versions of it that sidecars are sent now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscription {
    /// `<name>.<namespace>`.
    pub service: String,
    /// Of its configuration; null: there is no such service.
    pub config_version: Option<String>,
    /// Of its endpoints; null: there is no such service.
    pub endpoints_version: Option<String>,
}

/// One workload in full: also its labels and ports, its services, and what its sidecar subscribes to
#[utoipa::path(
    get,
    path = "/v1/mesh/workloads/{uid}",
    params(("uid" = String, Path, description = "Its key")),
    responses(
        (status = 200, description = "The workload", body = WorkloadDetails),
        (status = 404, description = "None of that key is registered"),
    ),
)]
pub(super) async fn workload(State(handlers): State<Handlers>, Path(uid): Path<String>) -> Response {
    match details(&handlers.state, &uid) {
        Some(view) => fresh(view),
        None => problem(StatusCode::NOT_FOUND, &format!("no workload of the UID {uid} is registered")),
    }
}

fn details(state: &MeshState, uid: &str) -> Option<WorkloadDetails> {
    let members = state.registry.members();
    let member = members.iter().find(|member| member.uid() == uid)?;
    let hello = &member.workload.hello;
    let subscription = |name: Name| {
        let service = state.publisher.service(&name);
        let version = |encoded: fn(&CompiledService) -> &Encoded| {
            service.as_deref().map(|service| encoded(service).version.to_string())
        };
        Subscription {
            config_version: version(|service| &service.config),
            endpoints_version: version(|service| &service.endpoints),
            service: name.to_string(),
        }
    };
    Some(WorkloadDetails {
        summary: build::listed(state, std::slice::from_ref(member), unix_ms(), Instant::now()).pop()?,
        labels: hello.labels.clone().into_iter().collect(),
        ports: hello
            .ports
            .iter()
            .map(|port| WorkloadPort { port: port.port, name: port.name.clone() })
            .collect(),
        zone: hello.zone.clone(),
        weight: hello.weight,
        admin_address: hello.admin_address.clone(),
        services: state.publisher.services_of(uid).iter().map(ToString::to_string).collect(),
        subscribed: state.publisher.subscribed(uid).into_iter().map(subscription).collect(),
    })
}
