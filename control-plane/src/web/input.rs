//! What a request says, read so that every refusal is a problem document.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{precondition::Precondition, problem::Problem};
use crate::resource::{
    Key, Kind, dns_label,
    text::{self, Format, Written},
};

/// The largest body that is read, bytes.
pub(super) const BODY_LIMIT: usize = 1 << 20;

/// Else whoever sends a byte at a time holds a connection for ever.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The documents of a body.
pub(super) struct Body(pub(super) Vec<Written>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let format = format(request.headers())?;
        let Ok(bytes) = timeout(BODY_DEADLINE, Bytes::from_request(request, state)).await else {
            let detail = format!("the body was not here within {} s", BODY_DEADLINE.as_secs());
            let title = "The request came too slowly";
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", title, detail));
        };
        let bytes = bytes.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let detail =
                    format!("a body may have {BODY_LIMIT} bytes at most; apply fewer documents at a time");
                return Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    "The request is too large",
                    detail,
                );
            }
            Problem::bad_request("body", rejection.body_text())
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            Problem::bad_request("body", format!("is not UTF-8 from byte {} on", error.valid_up_to()))
        })?;
        text::read(text, format).map(Body).map_err(Problem::malformed)
    }
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Yaml) };
    let text = value.to_str().unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Format::Yaml),
        other => {
            let detail = format!("send application/yaml or application/json, not {other:?}");
            let title = "The body is of a type that is not understood";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail))
        }
    }
}

/// What a path names.
pub(super) struct Segments<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names))
            .map_err(|rejection| Problem::bad_request("path", rejection.body_text()))
    }
}

/// Query parameters; unknown ones are refused.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|Query(params)| Self(params))
            .map_err(|rejection| Problem::bad_request("query", rejection.body_text()))
    }
}

/// What `If-Match` and `If-None-Match` ask for.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let text = |name: &header::HeaderName| {
        headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().to_owned())
    };
    match (text(&header::IF_MATCH).as_deref(), text(&header::IF_NONE_MATCH).as_deref()) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tag), None) => {
            let version =
                tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|it| it.parse().ok());
            version.map(Precondition::Version).ok_or_else(|| {
                Problem::bad_request(
                    "if-match",
                    format!("must be * or a resourceVersion in quotes, is {tag}"),
                )
            })
        }
        (None, Some(tag)) => Err(Problem::bad_request("if-none-match", format!("must be *, is {tag}"))),
        (Some(_), Some(_)) => Err(Problem::bad_request("if-match", "cannot be together with if-none-match")),
    }
}

/// What a dry run has seen.
pub(super) fn seen(text: Option<&str>) -> Result<Precondition, Problem> {
    let Some(text) = text else { return Ok(Precondition::None) };
    let seen = text.parse().map(Precondition::Seen);
    seen.map_err(|()| Problem::bad_request("seen", "must be what a dry run has answered as `seen`"))
}

/// The kind that a path names.
pub(super) fn kind(plural: &str) -> Result<Kind, Problem> {
    Kind::ALL.into_iter().find(|kind| kind.plural() == plural).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::plural).join(", ");
        Problem::not_found(format!("there is no kind {plural:?}; there are {known}"))
    })
}

/// The namespace that a path names.
pub(super) fn namespace(text: &str) -> Result<(), Problem> {
    dns_label(text).map_err(|message| Problem::bad_request("namespace", message))
}

/// The document that a path names.
pub(super) fn key(space: &str, plural: &str, name: &str) -> Result<Key, Problem> {
    let kind = kind(plural)?;
    namespace(space)?;
    Ok(Key::new(kind, space, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_not_waited_for() {
        let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(axum::body::Body::from_stream(endless));
        let problem = Body::from_request(request, &()).await.err().expect("too slow");
        assert_eq!(problem.status, 408, "{problem:?}");
    }
}
