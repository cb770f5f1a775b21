//! What went wrong, as RFC 9457 `application/problem+json`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::edit::EditError;
use crate::{
    resource::Fault,
    store::StoreError,
    token::{TokenError, TokenFault},
};

/// The answer to a request that was not done. Nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:pillion:problem:<reason>`: the reason is for machines and does not change.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of this type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What it is here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Everything that is wrong with what was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl Problem {
    /// A problem by its status, the reason for machines, the title of all of its type, and what it is here.
    pub fn new(status: StatusCode, reason: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:pillion:problem:{reason}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            faults: Vec::new(),
        }
    }

    /// What was sent is wrong in these places.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.len() {
            1 => "1 fault; nothing was changed".to_owned(),
            many => format!("{many} faults; nothing was changed"),
        };
        let problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The document is not valid", detail);
        Self { faults, ..problem }
    }

    /// What was sent cannot even be read.
    pub fn malformed(fault: Fault) -> Self {
        let problem =
            Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", fault.to_string());
        Self { faults: vec![fault], ..problem }
    }

    /// The request itself is wrong: path, query or header.
    pub fn bad_request(field: &str, message: impl Into<String>) -> Self {
        Self::malformed(Fault::new(field, message))
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pillion\""));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { .. } => conflict(error.to_string()),
            StoreError::Unavailable(_) => {
                tracing::error!(%error, "a request failed");
                let title = "The store cannot be used now";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", title, error.to_string())
            }
        }
    }
}

impl From<TokenFault> for Problem {
    fn from(fault: TokenFault) -> Self {
        let (status, title) = if fault.is_forbidden() {
            (StatusCode::FORBIDDEN, "The token does not allow this")
        } else {
            (StatusCode::UNAUTHORIZED, "A valid token is needed")
        };
        Self::new(status, fault.reason(), title, fault.to_string())
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Fault(fault) => fault.into(),
            TokenError::Store(error) => error.into(),
        }
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Invalid(faults) => Self::invalid(faults),
            EditError::Missing(key) => Self::not_found(format!("there is no {key}")),
            EditError::Stale(detail) => conflict(detail),
            EditError::InUse { key, users } => {
                let names: Vec<String> = users.iter().map(ToString::to_string).collect();
                let detail = format!(
                    "{key} is named by {}; delete that first, or force it (`--force`, `?force=true`)",
                    names.join(", ")
                );
                Self::new(StatusCode::CONFLICT, "in-use", "The document is in use", detail)
            }
            EditError::Store(error) => error.into(),
        }
    }
}

fn conflict(detail: String) -> Problem {
    let title = "The document is not at the expected version";
    Problem::new(StatusCode::CONFLICT, "conflict", title, detail)
}
