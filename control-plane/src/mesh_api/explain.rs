//! `/v1/explain`: what becomes of a request, and why.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::Response,
};

use super::{Handlers, fresh, problem, problem_with};
use crate::{
    clock,
    explain::{self, ExplainRequest, Explanation, Sources, Unexplained},
    resource::Fault,
};

/// What becomes of a request, step by step: decided by the code that sidecars run, on what they are sent
///
/// Nothing is sent and nothing is changed by asking; whoever may read may ask.
#[utoipa::path(
    post,
    path = "/v1/explain",
    request_body = ExplainRequest,
    responses(
        (status = 200, description = "The explanation", body = Explanation),
        (status = 404, description = "The mesh knows no such caller, service or port"),
        (status = 422, description = "The question is wrong; every fault is listed"),
    ),
)]
pub(super) async fn explain(
    State(Handlers { state, .. }): State<Handlers>,
    question: Result<Json<ExplainRequest>, JsonRejection>,
) -> Response {
    let question = match question {
        Ok(Json(question)) => question,
        Err(rejection) => {
            let faults = [Fault::new("body", rejection.body_text())];
            return problem_with(rejection.status(), "the question cannot be read", &faults);
        }
    };
    let (revision, documents) = match state.documents.current().await {
        Ok(current) => current,
        Err(error) => return problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let sources = Sources {
        registry: &state.registry,
        publisher: &state.publisher,
        history: &state.history,
        documents: (revision, &documents),
        now: clock::now(),
    };
    match explain::explain(sources, &question) {
        Ok(explanation) => fresh(explanation),
        Err(Unexplained::Absent(detail)) => problem(StatusCode::NOT_FOUND, &detail),
        Err(Unexplained::Wrong(faults)) => {
            problem_with(StatusCode::UNPROCESSABLE_ENTITY, "the question is wrong", &faults)
        }
    }
}
