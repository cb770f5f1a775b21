//! What is asked, and what an explanation says: the same document for the command line, the dashboard and programs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request that somebody wonders about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// Who calls: a service, or a workload that belongs to none; `<name>.<namespace>`.
    pub from: String,
    /// Whom it names, as an application would: `payments`, `payments.demo:80`, `240.240.0.7:80`, a host outside.
    pub to: String,
    /// Default: GET; of a gRPC call POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// With its query. Default: /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In their order; of several of one name the first counts.
    #[serde(default)]
    pub headers: Vec<HeaderField>,
    /// `<service>/<method>` instead of a path: what a gRPC client sends for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What becomes of a request, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// As it was taken: `GET /x`.
    pub request: RequestView,
    /// Who calls.
    pub source: SourceView,
    /// Whom it means.
    pub target: TargetView,
    /// Every rule that was considered, in order, up to the one that is taken.
    pub rules: Vec<RuleView>,
    /// What the rules come to.
    pub decision: Decided,
    /// Who may get it.
    pub backends: Vec<BackendView>,
    /// What holds on the way, of each service that takes part.
    pub policies: Vec<PolicyView>,
    /// Who may call.
    pub authorization: String,
    /// What would happen.
    pub verdict: Verdict,
    /// What else one should know of this explanation.
    pub notes: Vec<String>,
}

/// The request as it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestView {
    /// Its method.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Those that it was asked about with.
    pub headers: Vec<HeaderField>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// `<name>.<namespace>`.
    pub name: String,
    /// Its workloads; each has a sidecar of its own that decides.
    pub workloads: Vec<CallerView>,
}

/// A sidecar that would decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallerView {
    /// Its key.
    pub uid: String,
    /// What people call it.
    pub workload: String,
    /// Where it runs; may be empty.
    pub zone: String,
    /// Whether its stream is open; else it goes on with what it has.
    pub connected: bool,
    /// What it could not use of what is explained here; it goes on with what it had.
    pub refused: Vec<String>,
}

/// Whom the request means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetView {
    /// What the name means and why, in plain words.
    pub meaning: String,
    /// `<name>.<namespace>`.
    pub service: String,
    /// As callers see it.
    pub port: u16,
    /// As the workload's application is known to its sidecar.
    pub target_port: u16,
    /// `http/1.1`, `http/2`, `grpc`, `tcp` or `detected`.
    pub protocol: String,
    /// The workload that the caller names by its own address: routes do not hold for it.
    pub workload: Option<String>,
    /// The host, where it is outside the mesh.
    pub external: Option<String>,
}

/// A rule of a route, and whether it is for the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// `<namespace>/<name>` of the route.
    pub route: String,
    /// The rule's name, else its index.
    pub rule: String,
    /// What a request must be like, in plain words.
    pub conditions: Vec<String>,
    /// Whether it is taken.
    pub taken: bool,
    /// The first condition that does not hold; empty for the rule that is taken.
    pub why: String,
}

/// What the rules come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// `direct`, `rule` or `no-match`.
    pub outcome: String,
    /// In plain words.
    pub text: String,
    /// What is done to the request and its answer by the rule that is taken, in plain words.
    pub effects: Vec<String>,
}

/// A service that may get the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// `<name>.<namespace>`.
    pub service: String,
    /// As the route names it.
    pub port: u16,
    /// As written.
    pub weight: u32,
    /// Of the requests, percent.
    pub share_percent: f64,
    /// `sent` or the name of the refusal.
    pub outcome: String,
    /// The same in plain words.
    pub text: String,
    /// What is done to the requests that it gets, in plain words.
    pub effects: Vec<String>,
    /// Who serves it.
    pub endpoints: Vec<CandidateView>,
}

/// A workload that may get the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateView {
    /// Its key.
    pub uid: String,
    /// What people call it.
    pub workload: String,
    /// Its sidecar's inbound listener.
    pub address: String,
    /// Where it runs; may be empty.
    pub zone: String,
    /// Beside the other endpoints', a percentage of the usual one.
    pub weight: u32,
    /// Whether its application is ready.
    pub ready: bool,
    /// Why not; empty when it is.
    pub reason: String,
    /// What each caller's sidecar last said of it.
    pub seen_by: Vec<SightView>,
}

/// What a caller's sidecar last said of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SightView {
    /// The caller's workload.
    pub workload: String,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
    /// Requests under way.
    pub in_flight: u32,
    /// Of the caller's requests, what its balancer means the endpoint to have: 0 to 1.
    pub share: f64,
    /// The balancer's estimate, milliseconds.
    pub latency_ms: f64,
    /// Why the breaker last opened; empty if never.
    pub opened_reason: String,
}

/// What holds for the requests that a service gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// `<name>.<namespace>`.
    pub service: String,
    /// Its policy, `TrafficPolicy <namespace>/<name>`; null: it has none.
    pub source: Option<String>,
    /// The service that is called, where a route leads its requests here; else the same. Part of what its policy says holds, too.
    #[serde(default)]
    pub called: String,
    /// The policy of that one; null: it has none.
    #[serde(default)]
    pub called_source: Option<String>,
    /// Every value that holds, in the order of the reference, with where it is from. Where several hold one after the other, a field
    /// is there several times.
    pub fields: Vec<FieldView>,
}

/// One value of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldView {
    /// As people write it: `circuitBreaker.openTime.base`.
    pub field: String,
    /// As people write it: `1s`.
    pub value: String,
    /// Whether that is a list or an object, in JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub structured: bool,
    /// `TrafficPolicy <namespace>/<name>`, `rule <name> of route <namespace>/<name>`, or `default`.
    pub source: String,
    /// What it is.
    pub about: String,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `sent`, `redirected` (answered by the caller's sidecar, as a route says), `fallback` (the service cannot serve, and its policy says
    /// what takes over), `refused`, or `depends` (on the backend, or on which workload calls).
    pub outcome: String,
    /// The names of the refusals that are to be expected, as in `pillion-error`.
    pub reasons: Vec<String>,
    /// In plain words.
    pub text: String,
    /// What may come in between nevertheless.
    pub caveats: Vec<CaveatView>,
}

/// What may come in between: a fault in force, a limit, a breaker that cannot open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaveatView {
    /// The refusal that it may come to, as in `pillion-error`; empty: none.
    pub reason: String,
    /// Of such requests; null: it depends on how many there are.
    pub percent: Option<f64>,
    /// In plain words, with where it is from.
    pub text: String,
}
