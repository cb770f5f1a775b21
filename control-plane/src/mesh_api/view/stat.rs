//! The figures that `pillion stat` and `pillion top` show. They are read as well as written: by the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HopsView, RepeatsView};

/// Of what figures are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StatKind {
    /// Each Service, by what reaches it.
    #[default]
    Services,
    /// Each workload, by what reaches it.
    Workloads,
    /// Each caller with each service that it calls, as the caller's sidecars measured it.
    Edges,
}

/// Figures over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatView {
    /// The server's clock, milliseconds since the Unix epoch.
    pub server_time_ms: i64,
    /// Of what.
    pub kind: StatKind,
    /// Over how long.
    pub window_seconds: i64,
    /// By name.
    pub rows: Vec<StatRow>,
}

/// Figures of one service, workload or edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatRow {
    /// `<name>.<namespace>`; of an edge the service called.
    pub name: String,
    /// Of an edge: the caller.
    pub from: Option<String>,
    /// Of an edge: the service that served it, where a route chose another.
    pub backend: Option<String>,
    /// Of a workload: the service it belongs to.
    pub service: Option<String>,
    /// Workloads that are ready; not of edges.
    pub ready: Option<usize>,
    /// Workloads; not of edges.
    pub instances: Option<usize>,
    /// Requests within the window, also those that were refused.
    #[serde(default)]
    pub requests: u64,
    /// Requests per second.
    pub rps: f64,
    /// Share of requests that did not fail; null without requests.
    pub success_rate: Option<f64>,
    /// Milliseconds; null without requests.
    pub p50_ms: Option<f64>,
    /// Milliseconds; null without requests.
    pub p95_ms: Option<f64>,
    /// Milliseconds; null without requests.
    pub p99_ms: Option<f64>,
    /// Opaque connections opened within the window.
    pub connections: u64,
    /// Whether everything went over mutual TLS; null where nothing went.
    pub mtls: Option<bool>,
    /// Refusals within the window, by reason: of an edge by the caller's sidecar, else by the service's own.
    pub refusals: BTreeMap<String, u64>,
    /// Of an edge: those by the callee's sidecar, also of attempts after which another was made.
    #[serde(default)]
    pub refusals_by_callee: BTreeMap<String, u64>,
    /// Where the time of the requests went; null where it was not split. Of a service as its callers see it, where they do.
    #[serde(default)]
    pub hops: Option<HopsView>,
    /// Retries and hedges within the window, by callers' sidecars; null where there were none, and of workloads.
    #[serde(default)]
    pub repeats: Option<RepeatsView>,
}
