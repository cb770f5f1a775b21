//! What a check looks at: as much of what the server shows as is judged, and this machine's part.

use serde::Deserialize;

/// What is judged: what the server shows, and this machine's part.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// This program's release.
    pub version: String,
    /// This machine's clock when the server's was read.
    pub now_ms: i64,
    pub control_plane: ControlPlane,
    pub workloads: Vec<Workload>,
    pub mesh: Mesh,
}

/// `/v1/mesh/control-plane`, as far as it is judged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ControlPlane {
    pub version: String,
    pub server_time_ms: i64,
    #[serde(default)]
    pub authority_not_after_ms: Option<i64>,
    #[serde(default)]
    pub leaf_ttl_seconds: Option<i64>,
    pub compile_faults: Vec<String>,
}

/// One of `/v1/mesh/workloads`, as far as it is judged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Workload {
    pub workload: String,
    pub namespace: String,
    pub version: String,
    pub connected: bool,
    pub ready: bool,
    pub reason: String,
    /// Null: it need not be, or is not known.
    #[serde(default)]
    pub redirected: Option<bool>,
    #[serde(default)]
    pub certificate_not_before_ms: Option<i64>,
    pub certificate_not_after_ms: Option<i64>,
    #[serde(default)]
    pub clock_skew_ms: Option<i64>,
    pub refused_updates: Vec<RefusedUpdate>,
    #[serde(default)]
    pub lost_telemetry: Vec<LostTelemetry>,
}

/// Telemetry of one kind that does not reach whoever is to have it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LostTelemetry {
    pub kind: String,
    pub receiver: String,
    pub reason: String,
    pub count: u64,
    pub since_ms: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RefusedUpdate {
    pub service: String,
    pub kind: String,
    pub reason: String,
}

/// `/v1/mesh`, as far as it is judged.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Mesh {
    pub services: Vec<Node>,
    pub edges: Vec<Edge>,
    #[serde(default)]
    pub faults: Vec<InjectedFault>,
}

/// A fault that callers are made to see now.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InjectedFault {
    pub service: String,
    pub policy: String,
    pub name: String,
    pub until_ms: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub name: String,
    pub kind: String,
    pub instances: usize,
    pub in_mesh: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Edge {
    pub from: String,
    pub to: String,
    pub mtls: Option<bool>,
}

impl Workload {
    /// For people: `pay-1.demo`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.workload, self.namespace)
    }
}
