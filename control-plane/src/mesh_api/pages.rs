//! `/v1/mesh`, and what it has of one service and of one edge, now or at an earlier moment.

use axum::{
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, request::Parts},
    response::Response,
};
use pillion_api::name::ServiceName;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Handlers, build, fresh, nodes::Nodes, problem, series::Span, view};
use crate::{clock::unix_ms, history::SPAN_S, resource::hint};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Moment {
    /// Figures as they were then, milliseconds since the Unix epoch, within the last 30 minutes; who is registered, and the
    /// faults in force, are of now. Default: now.
    until: Option<i64>,
}

/// The whole mesh: services with their figures, who calls whom, faults in force, events
#[utoipa::path(
    get,
    path = "/v1/mesh",
    params(Moment),
    responses(
        (status = 200, description = "The mesh", body = view::MeshView),
        (status = 400, description = "The question is wrong"),
    ),
)]
pub(super) async fn mesh(
    State(handlers): State<Handlers>,
    moment: Result<Query<Moment>, QueryRejection>,
) -> Response {
    let now_ms = unix_ms();
    match moment {
        Ok(Query(Moment { until })) => {
            let at_ms = until.unwrap_or(now_ms).clamp(0, now_ms);
            fresh(build::mesh(&handlers.state, at_ms, now_ms))
        }
        Err(rejection) => problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// How far back the series go. Default: 5.
    minutes: Option<i64>,
    /// The same in seconds, instead of minutes.
    seconds: Option<i64>,
    /// Where the series end, milliseconds since the Unix epoch; figures of the last seconds are then of the seconds before it.
    /// Default: now.
    until: Option<i64>,
}

/// A page shows this much unless it asks for another span.
const DEFAULT_MINUTES: i64 = 5;
const MAX_MINUTES: i64 = SPAN_S / 60;
const MIN_SECONDS: i64 = 10;

/// What every page with series is asked for.
impl<S: Send + Sync> FromRequestParts<S> for Span {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let asked = Query::from_request_parts(parts, state).await;
        span(asked).map_err(|fault| problem(StatusCode::BAD_REQUEST, &fault))
    }
}

/// What is wrong with it, for people.
fn span(asked: Result<Query<Asked>, QueryRejection>) -> Result<Span, String> {
    let of_minutes = || format!("minutes must be a whole number from 1 to {MAX_MINUTES}");
    let of_seconds = || format!("seconds must be a whole number from {MIN_SECONDS} to {SPAN_S}");
    let Ok(Query(Asked { minutes, seconds, until })) = asked else {
        return Err(format!("{}, {}, and until milliseconds since 1970", of_minutes(), of_seconds()));
    };
    let seconds = match (minutes, seconds) {
        (Some(_), Some(_)) => return Err("minutes and seconds exclude each other".to_owned()),
        (minutes, None) => {
            let minutes = minutes.unwrap_or(DEFAULT_MINUTES);
            (1..=MAX_MINUTES).contains(&minutes).then_some(minutes * 60).ok_or_else(of_minutes)?
        }
        (None, Some(seconds)) => {
            (MIN_SECONDS..=SPAN_S).contains(&seconds).then_some(seconds).ok_or_else(of_seconds)?
        }
    };
    let now_ms = unix_ms();
    Ok(Span { seconds, until_ms: until.unwrap_or(now_ms).clamp(0, now_ms), now_ms })
}

/// One service, or a workload that belongs to none: figures over time, endpoints, callers, policies, routes
#[utoipa::path(
    get,
    path = "/v1/mesh/services/{namespace}/{name}",
    params(
        ("namespace" = String, Path, description = "Its namespace"),
        ("name" = String, Path, description = "Its name"),
        Asked,
    ),
    responses(
        (status = 200, description = "The service", body = view::ServiceView),
        (status = 400, description = "The question is wrong"),
        (status = 404, description = "There is none of that name"),
    ),
)]
pub(super) async fn service(
    State(handlers): State<Handlers>,
    Path((namespace, name)): Path<(String, String)>,
    span: Span,
) -> Response {
    let documents = match handlers.state.documents.current().await {
        Ok((_, documents)) => documents,
        Err(error) => return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let found = ServiceName::new(&name, &namespace)
        .ok()
        .and_then(|name| build::service(&handlers.state, &documents, name.as_str(), span));
    match found {
        Some(view) => fresh(view),
        None => {
            let names = Nodes::of(&handlers.state);
            let hint = hint::did_you_mean(&format!("{name}.{namespace}"), names.names());
            let detail =
                format!("there is neither a Service nor a workload {name} in namespace {namespace}{hint}");
            problem(StatusCode::NOT_FOUND, &detail)
        }
    }
}

/// What goes from one service, or lone workload, to a service: figures over time, where the time goes, endpoints
#[utoipa::path(
    get,
    path = "/v1/mesh/edges/{from}/{to}",
    params(
        ("from" = String, Path, description = "The caller, `<name>.<namespace>`"),
        ("to" = String, Path, description = "The service called, `<name>.<namespace>`"),
        Asked,
    ),
    responses(
        (status = 200, description = "The edge", body = view::EdgeView),
        (status = 400, description = "The question is wrong"),
        (status = 404, description = "Nothing has gone that way within the last 30 minutes"),
    ),
)]
pub(super) async fn edge(
    State(handlers): State<Handlers>,
    Path((from, to)): Path<(String, String)>,
    span: Span,
) -> Response {
    match super::edge::page(&handlers.state, &from, &to, span) {
        Some(view) => fresh(view),
        None => {
            let detail =
                format!("nothing has gone from {from} to {to} within the last {MAX_MINUTES} minutes");
            problem(StatusCode::NOT_FOUND, &detail)
        }
    }
}
