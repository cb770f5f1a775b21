//! The documents that the dashboard shows, and how they are made from registry, publisher and history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
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
    /// Whether everything in the window went over mutual TLS.
    pub mtls: bool,
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
    pub(super) fn silent(key: &EdgeKey, mtls: bool) -> Self {
        Self {
            from: key.from.clone(),
            to: key.to.clone(),
            backend: None,
            golden: Golden { rps: 0.0, success_rate: None, p50_ms: None, p99_ms: None },
            mtls,
            tls_version: mtls.then_some("TLS 1.3"),
            refusals: BTreeMap::new(),
            refusals_by_callee: BTreeMap::new(),
            repeats: None,
        }
    }
}

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
    /// When its stream was opened, or lost; milliseconds since the Unix epoch.
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
    /// What its sidecar could not use.
    pub refused_updates: Vec<RefusedUpdate>,
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

/// To a millionth: three nines and more must not look like all.
pub(super) fn rounded_share(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

/// To a thousandth: more is noise, and digits cost bytes each second.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
