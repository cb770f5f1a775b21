//! `/v1/mesh`: what the dashboard and `pillion get` show of the living mesh.

mod activity;
mod build;
mod events;
mod explain;
mod faults;
mod stat;
pub mod view;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use pillion_api::name::ServiceName;
use serde::Deserialize;

pub use self::{events::Ticker, explain::explain_router, faults::tell};
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
    /// For its documents.
    pub compiler: Arc<Compiler>,
}

#[derive(Clone)]
struct Handlers {
    state: Arc<MeshState>,
    ticker: Arc<Ticker>,
}

/// The routes below `/v1/mesh`.
pub fn mesh_router(state: Arc<MeshState>, ticker: Arc<Ticker>) -> Router {
    Router::new()
        .route("/", get(mesh))
        .route("/services/{namespace}/{name}", get(service))
        .route("/stat", get(stat::stat))
        .route("/workloads", get(workloads))
        .route("/control-plane", get(control_plane))
        .route("/events", get(listen))
        .with_state(Handlers { state, ticker })
}

async fn mesh(State(handlers): State<Handlers>) -> Response {
    fresh(build::mesh(&handlers.state, unix_ms()))
}

#[derive(Deserialize)]
struct Span {
    minutes: Option<i64>,
}

/// A page shows this much unless it asks for another span.
const DEFAULT_MINUTES: i64 = 5;
const MAX_MINUTES: i64 = crate::history::SPAN_S / 60;

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
            let detail = format!("there is neither a Service nor a workload {name} in namespace {namespace}");
            problem(StatusCode::NOT_FOUND, &detail)
        }
    }
}

async fn workloads(State(handlers): State<Handlers>) -> Response {
    fresh(build::workloads(&handlers.state))
}

async fn control_plane(State(handlers): State<Handlers>) -> Response {
    fresh(build::control_plane(&handlers.state, unix_ms()))
}

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
