//! `/v1/mesh`: what the dashboard and `pillion get` show of the living mesh.

mod activity;
mod build;
mod events;
mod explain;
mod faults;
pub mod hops;
mod sidecars;
mod stat;
pub mod view;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use pillion_api::name::ServiceName;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{events::Ticker, faults::tell, sidecars::from_sidecars};
use crate::{
    clock::unix_ms,
    history::History,
    publish::{Compiler, Publisher},
    registry::Registry,
    resource::{Fault, cache::DocumentCache, hint},
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
        .routes(routes!(mesh))
        .routes(routes!(service))
        .routes(routes!(stat::stat))
        .routes(routes!(workloads))
        .routes(routes!(control_plane))
        .routes(routes!(listen))
        .routes(routes!(explain::explain))
        .with_state(Handlers { state, ticker })
}

/// The whole mesh at this moment: services with their figures, who calls whom, faults in force, events
#[utoipa::path(
    get,
    path = "/v1/mesh",
    responses((status = 200, description = "The mesh", body = view::MeshView)),
)]
async fn mesh(State(handlers): State<Handlers>) -> Response {
    fresh(build::mesh(&handlers.state, unix_ms()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Span {
    /// How far back the series go. Default: 5.
    minutes: Option<i64>,
}

/// A page shows this much unless it asks for another span.
const DEFAULT_MINUTES: i64 = 5;
const MAX_MINUTES: i64 = crate::history::SPAN_S / 60;

/// One service, or a workload that belongs to none: figures over time, endpoints, callers, policies, routes
#[utoipa::path(
    get,
    path = "/v1/mesh/services/{namespace}/{name}",
    params(
        ("namespace" = String, Path, description = "Its namespace"),
        ("name" = String, Path, description = "Its name"),
        Span,
    ),
    responses(
        (status = 200, description = "The service", body = view::ServiceView),
        (status = 400, description = "The question is wrong"),
        (status = 404, description = "There is none of that name"),
    ),
)]
async fn service(
    State(handlers): State<Handlers>,
    Path((namespace, name)): Path<(String, String)>,
    span: Result<Query<Span>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let expected = format!("minutes must be a whole number from 1 to {MAX_MINUTES}");
    let minutes = match span {
        Ok(Query(Span { minutes })) => minutes.unwrap_or(DEFAULT_MINUTES),
        Err(_) => return problem(StatusCode::BAD_REQUEST, &expected),
    };
    if !(1..=MAX_MINUTES).contains(&minutes) {
        return problem(StatusCode::BAD_REQUEST, &expected);
    }
    let documents = match handlers.state.documents.current().await {
        Ok((_, documents)) => documents,
        Err(error) => return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let found = ServiceName::new(&name, &namespace)
        .ok()
        .and_then(|name| build::service(&handlers.state, &documents, name.as_str(), minutes, unix_ms()));
    match found {
        Some(view) => fresh(view),
        None => {
            let hint =
                hint::did_you_mean(&format!("{name}.{namespace}"), build::Nodes::of(&handlers.state).names());
            let detail =
                format!("there is neither a Service nor a workload {name} in namespace {namespace}{hint}");
            problem(StatusCode::NOT_FOUND, &detail)
        }
    }
}

/// Every registered workload, with its sidecar's certificate and what that could not use
#[utoipa::path(
    get,
    path = "/v1/mesh/workloads",
    responses((status = 200, description = "The workloads", body = Vec<view::WorkloadView>)),
)]
async fn workloads(State(handlers): State<Handlers>) -> Response {
    fresh(build::workloads(&handlers.state))
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
        (status = 200, description = "A stream without an end", content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many streams are open"),
    ),
)]
async fn listen(State(handlers): State<Handlers>) -> Response {
    match handlers.ticker.listen(&handlers.state.telemetry.event_listeners) {
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
