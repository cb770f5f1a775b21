//! Registered workloads, what their sidecars could not use, and the server itself.

use pillion_api::wire::telemetry_loss::Kind;
use serde::Serialize;
use utoipa::ToSchema;

use crate::history::Loss;

/// One registered workload.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadView {
    /// Its key.
    pub uid: String,
    /// What people call it.
    pub workload: String,
    /// The service it belongs to; null: none.
    pub service: Option<String>,
    /// From its identity.
    pub namespace: String,
    /// Who it is.
    pub spiffe_id: String,
    /// Its sidecar's inbound listener.
    pub address: String,
    /// Its sidecar's release.
    pub version: String,
    /// Whether its stream is open; else its lease runs.
    pub connected: bool,
    /// Since when it has a stream without a gap, or has none; milliseconds since the Unix epoch.
    pub connected_ms: i64,
    /// When its lease ends unless it comes back, milliseconds since the Unix epoch; null while it is connected.
    pub lease_ends_ms: Option<i64>,
    /// Since when its answer to an update is waited for, milliseconds since the Unix epoch; null: for none.
    pub waiting_since_ms: Option<i64>,
    /// Whether its application is ready.
    pub ready: bool,
    /// Why not; empty when it is.
    pub reason: String,
    /// Whether its traffic is led to its sidecar as it should be; null: it need not be, or that is not known.
    pub redirected: Option<bool>,
    /// Milliseconds since the Unix epoch; null until its sidecar has reported.
    pub certificate_not_before_ms: Option<i64>,
    /// Milliseconds since the Unix epoch; null until its sidecar has reported.
    pub certificate_not_after_ms: Option<i64>,
    /// The control plane's clock minus its host's, milliseconds; null while unknown.
    pub clock_skew_ms: Option<i64>,
    /// Since its sidecar started.
    pub certificates_renewed: u64,
    /// Services it subscribes to.
    pub subscriptions: usize,
    /// Which of its sidecar's telemetry does not reach whoever is to have it.
    pub lost_telemetry: Vec<LostTelemetry>,
    /// What its sidecar could not use.
    pub refused_updates: Vec<RefusedUpdate>,
}

/// Telemetry of one kind that does not reach whoever is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostTelemetry {
    /// `spans`, which its receiver does not take; `rejected-spans`, of batches that it took but for those; or `access-log-lines`.
    pub kind: &'static str,
    /// Where spans are sent to, or the log's file.
    pub receiver: String,
    /// The sidecar's words.
    pub reason: String,
    /// Lost since then.
    pub count: u64,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When anything was lost last, milliseconds since the Unix epoch; null: nothing yet.
    pub last_lost_ms: Option<i64>,
}

impl From<&Loss> for LostTelemetry {
    fn from(loss: &Loss) -> Self {
        let kind = match loss.kind {
            Kind::Unspecified => "",
            Kind::Spans => "spans",
            Kind::AccessLogLines => "access-log-lines",
            Kind::RejectedSpans => "rejected-spans",
        };
        Self {
            kind,
            receiver: loss.receiver.clone(),
            reason: loss.reason.clone(),
            count: loss.count,
            since_ms: loss.since_ms,
            last_lost_ms: loss.last_lost_ms,
        }
    }
}

/// What a sidecar could not use.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedUpdate {
    /// The service.
    pub service: String,
    /// `config` or `endpoints`.
    pub kind: &'static str,
    /// What was refused.
    pub version: String,
    /// The sidecar's words.
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Who refused it: the UID.
    pub uid: String,
}

/// The server itself.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneView {
    /// The server's release.
    pub version: &'static str,
    /// The server's clock, milliseconds since the Unix epoch.
    pub server_time_ms: i64,
    /// When the server started.
    pub started_ms: i64,
    /// Of every identity.
    pub trust_domain: String,
    /// Registered workloads.
    pub workloads: usize,
    /// Those with an open stream.
    pub connected: usize,
    /// The revision of the store that was compiled last.
    pub store_revision: u64,
    /// How long that took.
    pub compile_ms: f64,
    /// When the first certificate of the authority's chain ends, milliseconds since the Unix epoch.
    pub authority_not_after_ms: i64,
    /// The roots that workloads are given to trust; several while one takes another's place.
    pub trust_anchors: Vec<TrustAnchor>,
    /// How long a workload's certificate lives; its sidecar renews it at half of that.
    pub leaf_ttl_seconds: u64,
    /// What could not be compiled as written.
    pub compile_faults: Vec<String>,
    /// What sidecars could not use.
    pub refused_updates: Vec<RefusedUpdate>,
}

/// A root that workloads trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustAnchor {
    /// The SHA-256 of its certificate.
    pub fingerprint: String,
    /// When it ends, milliseconds since the Unix epoch.
    pub not_after_ms: i64,
}
