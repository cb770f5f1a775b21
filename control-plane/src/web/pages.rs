//! The dashboard's files, and what is said where there is nothing.

use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use rust_embed::RustEmbed;

use super::problem::Problem;

#[derive(RustEmbed)]
#[folder = "dashboard/dist/"]
#[allow_missing = true]
struct Files;

const INDEX: &str = "index.html";
/// Vite puts a digest of the content into the names of what is here.
const HASHED: &str = "assets/";

/// A file of the dashboard; its page for every other path that a browser may ask for; else a problem.
pub(super) async fn fallback(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    if path == "v1" || path.starts_with("v1/") {
        return Problem::not_found(format!("there is nothing at /{path}; see /docs")).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return super::method_not_allowed(request).await.into_response();
    }
    if let Some(found) = file(path) {
        return found;
    }
    // The dashboard's own pages have no dot in them; what has one is a file that is missing.
    if path.rsplit('/').next().is_some_and(|last| last.contains('.')) {
        return Problem::not_found(format!("there is nothing at /{path}")).into_response();
    }
    file(INDEX).unwrap_or_else(not_built)
}

fn file(path: &str) -> Option<Response> {
    let found = Files::get(path)?;
    let caching = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let kind = found.metadata.mimetype();
    let charset = if kind.starts_with("text/") { "; charset=utf-8" } else { "" };
    let kind = HeaderValue::from_str(&format!("{kind}{charset}")).ok()?;
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static(caching))];
    Some((headers, found.data).into_response())
}

fn not_built() -> Response {
    let page = "<!doctype html><html lang=en><meta charset=utf-8><title>pillion</title><h1>The dashboard is not built</h1>\
                <p>Run <code>make setup-dashboard</code> and start the server again. The API is here: \
                <a href='/docs'>/docs</a>.</p>";
    (StatusCode::NOT_FOUND, Html(page)).into_response()
}
