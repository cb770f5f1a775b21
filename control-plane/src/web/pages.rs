//! The dashboard's files, and what is said where there is nothing.

use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, Uri, header},
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

/// The dashboard's page, or a file of it; else a problem, which a browser is told as a page.
pub(super) async fn fallback(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    if path == "v1" || path.starts_with("v1/") {
        return Problem::not_found(format!("there is nothing at /{path}; see /docs")).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return super::method_not_allowed(request).await.into_response();
    }
    if path.is_empty() {
        return file(INDEX).unwrap_or_else(not_built);
    }
    if let Some(found) = file(path) {
        return found;
    }
    // The last part of a page's address has no dot in it; what has one is a file that is missing.
    let is_file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let accept =
        request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if is_file || !accept.contains("text/html") {
        return Problem::not_found(format!("there is nothing at /{path}")).into_response();
    }
    elsewhere(request.uri())
}

/// The dashboard's addresses are behind a `#`: somebody has left it out, or it was lost on the way.
fn elsewhere(uri: &Uri) -> Response {
    let address = escaped(uri.path_and_query().map_or("/", |it| it.as_str()));
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Not found · pillion</title><h1>There is nothing at {address}</h1>\
         <p>Pages of the dashboard have a <code>#</code> in their address: did you mean <a href=\"/#{address}\">/#{address}</a>? \
         <a href=\"/\">The mesh</a> shows what is there, and <a href=\"/docs\">/docs</a> the API.</p>"
    );
    (StatusCode::NOT_FOUND, Html(page)).into_response()
}

fn escaped(text: &str) -> String {
    let entity = |character| match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(entity).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_as_text() {
        assert_eq!(escaped("/a?b=\"<i>'&"), "/a?b=&quot;&lt;i&gt;&#39;&amp;");
    }
}
