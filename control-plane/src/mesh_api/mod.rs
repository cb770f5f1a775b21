//! `/v1/mesh`: what the dashboard and `pillion get` show of the living mesh.

pub mod activity;
mod build;
mod edge;
mod events;
mod explain;
mod faults;
pub mod hops;
mod nodes;
mod pages;
mod series;
mod shares;
mod sidecars;
mod stat;
mod targets;
pub mod verdict;
pub mod view;
mod workload;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{events::Ticker, faults::tell, sidecars::from_sidecars};
use crate::{
    clock::unix_ms,
    history::History,
    publish::{Compiler, Publisher},
    registry::Registry,
    resource::{Fault, cache::DocumentCache},
    telemetry::Telemetry,
};

/// What the handlers look at.
pub struct MeshState {
    /// Who is alive.
    pub registry: Arc<Registry>,
    /// What sidecars are sent.
    pub publisher: Arc<Publisher>,
    /// What sidecars measured.
    pub history: Arc<History>,
    /// What people wrote.
    pub documents: Arc<DocumentCache>,
    /// The server's own metrics.
    pub telemetry: Arc<Telemetry>,
    /// Of every identity.
    pub trust_domain: String,
    /// When the server started, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// When the first certificate of the authority's chain ends, milliseconds since the Unix epoch.
    pub authority_not_after_ms: i64,
    /// The roots that workloads are given to trust.
    pub trust_anchors: Vec<view::TrustAnchor>,
    /// How long a workload's certificate lives.
    pub leaf_ttl: std::time::Duration,
    /// For its documents.
    pub compiler: Arc<Compiler>,
}

#[derive(Clone)]
struct Handlers {
    state: Arc<MeshState>,
    ticker: Arc<Ticker>,
}

/// Everything that shows the living mesh, with its description.
pub fn mesh_router(state: Arc<MeshState>, ticker: Arc<Ticker>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(pages::mesh))
        .routes(routes!(pages::service))
        .routes(routes!(pages::edge))
        .routes(routes!(stat::stat))
        .routes(routes!(workloads))
        .routes(routes!(workload::workload))
        .routes(routes!(targets::targets))
        .routes(routes!(control_plane))
        .routes(routes!(listen))
        .routes(routes!(explain::explain))
        .with_state(Handlers { state, ticker })
}

/// Every registered workload, with its sidecar's certificate and what that could not use
#[utoipa::path(
    get,
    path = "/v1/mesh/workloads",
    responses((status = 200, description = "The workloads", body = Vec<view::WorkloadView>)),
)]
async fn workloads(State(handlers): State<Handlers>) -> Response {
    fresh(build::workloads(&handlers.state, unix_ms(), Instant::now()))
}

/// The server itself: its release, clock and last compile, and what sidecars could not use
#[utoipa::path(
    get,
    path = "/v1/mesh/control-plane",
    responses((status = 200, description = "The server", body = view::ControlPlaneView)),
)]
async fn control_plane(State(handlers): State<Handlers>) -> Response {
    fresh(build::control_plane(&handlers.state, unix_ms()))
}

/// What `/v1/mesh` shows, each second, as server-sent events
#[utoipa::path(
    get,
    path = "/v1/mesh/events",
    responses(
        (status = 200, description = "A stream of `mesh` events, without an end but where the token does not do any more: `ended` says why",
            content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many streams are open"),
    ),
)]
async fn listen(State(handlers): State<Handlers>) -> Response {
    match handlers.ticker.listen(&handlers.state) {
        Some(stream) => stream.into_response(),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open; close some"),
    }
}

/// Figures of this moment, not to be kept by anybody.
fn fresh(view: impl serde::Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response()
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response {
    problem_with(status, detail, &[])
}

/// The same, with everything that is wrong.
fn problem_with(status: StatusCode, detail: &str, faults: &[Fault]) -> Response {
    let mut body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    if !faults.is_empty() {
        body["faults"] = serde_json::json!(faults);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
