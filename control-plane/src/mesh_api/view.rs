//! The documents that the dashboard shows, and how they are made from registry, publisher and history.

mod sidecars;
mod stat;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    activity::{ActivityView, RepeatsView},
    hops::{EdgeHops, HopsView},
    series::SeriesView,
};
use crate::{
    explain::PolicyView,
    history::{Counts, EdgeKey, Event},
};

pub use self::{
    sidecars::{ControlPlaneView, RefusedUpdate, TrustAnchor, WorkloadView},
    stat::{StatKind, StatRow, StatView},
};

/// Numbers of a thing's requests over the last seconds.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Golden {
    /// Requests per second.
    pub rps: f64,
    /// Share of requests that did not fail; null without requests.
    pub success_rate: Option<f64>,
    /// Median latency, milliseconds; null without requests.
    pub p50_ms: Option<f64>,
    /// 99th percentile, milliseconds; null without requests.
    pub p99_ms: Option<f64>,
}

impl Golden {
    /// Of what was counted in some seconds.
    pub fn of(counts: &Counts, seconds: f64) -> Self {
        Self {
            rps: rounded(counts.requests as f64 / seconds),
            success_rate: counts.success_rate().map(rounded_share),
            p50_ms: counts.quantile_ms(0.5).map(rounded),
            p99_ms: counts.quantile_ms(0.99).map(rounded),
        }
    }
}

/// The whole mesh at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshView {
    /// The server's clock, milliseconds since the Unix epoch.
    pub server_time_ms: i64,
    /// When the server started.
    pub started_ms: i64,
    /// The server's release.
    pub version: &'static str,
    /// Of every identity.
    pub trust_domain: String,
    /// Over how long figures are taken.
    pub window: Window,
    /// Everything that calls or is called.
    pub services: Vec<ServiceSummary>,
    /// Who calls whom.
    pub edges: Vec<Edge>,
    /// Faults that callers are made to see now.
    pub faults: Vec<FaultView>,
    /// The newest first.
    pub events: Vec<Event>,
}

/// A fault that callers of a service are made to see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultView {
    /// `<name>.<namespace>`.
    pub service: String,
    /// `<namespace>/<TrafficPolicy name>`.
    pub policy: String,
    /// The fault's name, else its place in the policy.
    pub name: String,
    /// When it ends, milliseconds since the Unix epoch.
    pub until_ms: i64,
    /// What requests wait for; 0: nothing.
    pub delay_ms: u32,
    /// How many of 100 wait.
    pub delay_percent: f64,
    /// What requests are answered with; 0: nothing.
    pub abort_status: u32,
    /// How many of 100 are answered so.
    pub abort_percent: f64,
    /// Whose requests: `<service>.<namespace>`, or `*.<namespace>`. Empty: everybody's.
    pub callers: Vec<String>,
    /// Whether it is only for some of their requests.
    pub matches: bool,
}

/// Over how long figures are taken.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Window {
    /// Seconds.
    pub seconds: i64,
}

/// What a node of the mesh is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A Service.
    Service,
    /// A workload that belongs to no Service.
    Workload,
    /// Seen in traffic only: no such Service or workload is known (any more).
    Unknown,
}

/// One node of the mesh with the golden figures of its inbound requests.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSummary {
    /// `<name>.<namespace>`.
    pub name: String,
    /// The part after the dot.
    pub namespace: String,
    /// What it is.
    pub kind: NodeKind,
    /// Registered workloads.
    pub instances: usize,
    /// Those that are ready.
    pub ready: usize,
    /// Its inbound requests.
    #[serde(flatten)]
    pub golden: Golden,
    /// Whether any workload of it has a sidecar.
    pub in_mesh: bool,
    /// Refusals by its own sidecars, per second, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, f64>,
}

/// Requests from one node to another.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The caller.
    pub from: String,
    /// The service called.
    pub to: String,
    /// The service that served it where a route chose another, else null.
    pub backend: Option<String>,
    /// As the caller's sidecar measured it.
    #[serde(flatten)]
    pub golden: Golden,
    /// Whether everything that was sent in the window went over mutual TLS; null: nothing was sent, as of requests that the
    /// caller's sidecar refused.
    pub mtls: Option<bool>,
    /// Of the connections between sidecars; null where there is no TLS.
    pub tls_version: Option<&'static str>,
    /// Refusals by the caller's sidecar, per second, by reason.
    pub refusals: BTreeMap<String, f64>,
    /// The same by the callee's sidecar.
    pub refusals_by_callee: BTreeMap<String, f64>,
    /// Retries and hedges over the span that is shown; absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<RepeatsView>,
}

impl Edge {
    /// Nothing goes that way now.
    pub(super) fn silent(key: &EdgeKey, mtls: Option<bool>) -> Self {
        Self {
            from: key.from.clone(),
            to: key.to.clone(),
            backend: None,
            golden: Golden { rps: 0.0, success_rate: None, p50_ms: None, p99_ms: None },
            mtls,
            tls_version: mtls.filter(|mtls| *mtls).map(|_| "TLS 1.3"),
            refusals: BTreeMap::new(),
            refusals_by_callee: BTreeMap::new(),
            repeats: None,
        }
    }
}

/// One service in full.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// As in the list.
    #[serde(flatten)]
    pub summary: ServiceSummary,
    /// The server's clock, milliseconds since the Unix epoch.
    pub server_time_ms: i64,
    /// Golden figures over time.
    pub series: SeriesView,
    /// Who serves it.
    pub endpoints: Vec<EndpointView>,
    /// Who calls it.
    pub callers: Vec<Edge>,
    /// Whom it calls.
    pub callees: Vec<Edge>,
    /// Where the time of requests to it went, within the last minute; null where it was not split.
    pub hops: Option<HopsView>,
    /// The same, for each edge to and from it.
    pub edge_hops: Vec<EdgeHops>,
    /// The documents that shape it.
    pub policies: Vec<PolicyReference>,
    /// Where its routes send requests.
    pub backends: Vec<BackendShare>,
    /// Every value that holds for calls of it, and where it is from; null for what is no service.
    pub policy: Option<PolicyView>,
    /// What its policies did over the span that is shown.
    pub activity: ActivityView,
    /// Its rules, in the order in which sidecars try them.
    pub routes: Vec<RouteView>,
}

/// One rule of a route.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// `<namespace>/<name>` of the route.
    pub route: String,
    /// The rule's name, else its index.
    pub rule: String,
    /// What a request must be like, in plain words; empty: any.
    pub conditions: Vec<String>,
    /// What is done to requests and answers, in plain words.
    pub effects: Vec<String>,
    /// Who gets them.
    pub backends: Vec<RouteBackend>,
}

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteBackend {
    /// `<name>.<namespace>`.
    pub service: String,
    /// Of that service.
    pub port: u16,
    /// Of the rule's requests, percent.
    pub share_percent: f64,
}

/// One workload that serves a service.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// Its key.
    pub uid: String,
    /// What people call it.
    pub workload: String,
    /// Its sidecar's inbound listener.
    pub address: String,
    /// Whether its application is ready.
    pub ready: bool,
    /// Why not; empty when it is.
    pub reason: String,
    /// Who its sidecar must prove to be.
    pub spiffe_id: String,
    /// Where it runs; may be empty.
    pub zone: String,
    /// Its share beside the others', a percentage of the usual one.
    pub weight: u32,
    /// Its inbound requests, as its own sidecar measured them.
    #[serde(flatten)]
    pub golden: Golden,
    /// Where its requests' time went within the last minute, as its own sidecar sees it: what lies before that is not in it. Null
    /// where it was not split.
    pub hops: Option<HopsView>,
    /// What callers' sidecars think of it.
    pub breakers: Vec<BreakerView>,
}

/// Requests from one node to a service, in full.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeView {
    /// All of them together.
    #[serde(flatten)]
    pub edge: Edge,
    /// The server's clock, milliseconds since the Unix epoch.
    pub server_time_ms: i64,
    /// As the caller's sidecars measured it.
    pub series: SeriesView,
    /// Where the time went within the last minute; null where it was not split.
    pub hops: Option<HopsView>,
    /// The same, by the service that served; more than one where routes choose.
    pub backends: Vec<Edge>,
    /// Who serves it; with the breakers of this caller alone.
    pub endpoints: Vec<EndpointView>,
    /// The documents that shape it.
    pub policies: Vec<PolicyReference>,
}

/// A caller's breaker for one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerView {
    /// The caller's service, else its workload.
    pub from: String,
    /// The caller's workload.
    pub workload: String,
    /// By which service it calls the endpoint.
    pub service: String,
    /// `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// Requests under way.
    pub in_flight: u32,
    /// Of the caller's requests to the service, what its balancer means the endpoint to have: 0 to 1.
    pub share: f64,
    /// The balancer's estimate, milliseconds.
    pub latency_ms: f64,
    /// Openings since the caller's sidecar started.
    pub opened: u64,
    /// Why it last opened; empty if never.
    pub opened_reason: String,
    /// How long it stays open still, milliseconds; zero where it is not.
    pub open_ms: i64,
}

/// A document by its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct PolicyReference {
    /// Its kind.
    pub kind: &'static str,
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a route says and what happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendShare {
    /// The backend.
    pub service: String,
    /// By each rule that names it, ascending and without repetition.
    pub weights_percent: Vec<f64>,
    /// Of the last minute's requests; null without any.
    pub share_percent: Option<f64>,
}

/// To a millionth: three nines and more must not look like all.
pub(super) fn rounded_share(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

/// To a thousandth: more is noise, and digits cost bytes each second.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
