//! REST, OpenAPI and the dashboard over HTTP.
//!
//! [`router`] is the whole of it on one page; [`listen`] puts it on a socket. A request passes, in this order: the host
//! guard, the security headers, its handler (which asks [`access`] first), and where there is no handler a problem
//! document or the dashboard.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::{Semaphore, watch as changes};
use utoipa_axum::{router::OpenApiRouter, routes};

mod access;
mod applied;
mod documents;
mod edit;
mod input;
pub mod listen;
mod openapi;
mod pages;
mod precondition;
mod problem;
mod tap;
mod tokens;
mod watch;

pub use applied::{Applied, AppliedDocument};
pub use edit::Outcome;
pub use problem::Problem;
pub use tokens::TokenList;

use crate::{
    publish::Publisher,
    registry::Registry,
    resource::{Key, cache::DocumentCache, standing::FromSidecars, transitions::Transitions},
    shutdown::Shutdown,
    store::Store,
    tap::Taps,
    token::Tokens,
};

/// Told of every document that was really changed.
pub type OnChange = Arc<dyn Fn(&Key, Outcome) + Send + Sync>;

/// Everything that handlers need.
#[derive(Clone)]
pub struct WebState {
    store: Arc<dyn Store>,
    documents: Arc<DocumentCache>,
    editor: Arc<edit::Editor>,
    comparisons: Arc<applied::Comparisons>,
    tokens: Tokens,
    listens_on: SocketAddr,
    root_fingerprint: Arc<dyn Fn() -> String + Send + Sync>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    sidecars: Arc<dyn Fn() -> FromSidecars + Send + Sync>,
    transitions: Arc<Transitions>,
    on_change: OnChange,
    published: changes::Receiver<u64>,
    watchers: Arc<Semaphore>,
    taps: Arc<Taps>,
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    shutdown: Shutdown,
}

/// What the rest of the server gives to the web.
pub struct WebParts {
    /// Where documents and tokens are.
    pub store: Arc<dyn Store>,
    /// The documents, as shared with whoever else reads them.
    pub documents: Arc<DocumentCache>,
    /// The address listened on: loopback is open for reading.
    pub listens_on: SocketAddr,
    /// SHA-256 of the trust anchor that a join token carries, hexadecimal.
    pub root_fingerprint: Arc<dyn Fn() -> String + Send + Sync>,
    /// The Prometheus text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What sidecars say that shows in the status of documents.
    pub sidecars: Arc<dyn Fn() -> FromSidecars + Send + Sync>,
    /// Told of every document that was really changed.
    pub on_change: OnChange,
    /// The revision of the store's documents that sidecars are told of.
    pub published: changes::Receiver<u64>,
    /// Who watches live requests.
    pub taps: Arc<Taps>,
    /// Who is alive.
    pub registry: Arc<Registry>,
    /// Who belongs to which service.
    pub publisher: Arc<Publisher>,
    /// Ends streams.
    pub shutdown: Shutdown,
}

impl WebState {
    /// Puts the parts together.
    pub fn new(parts: WebParts) -> Self {
        let WebParts {
            store,
            documents,
            listens_on,
            root_fingerprint,
            metrics,
            sidecars,
            on_change,
            published,
            taps,
            registry,
            publisher,
            shutdown,
        } = parts;
        Self {
            editor: Arc::new(edit::Editor::new(Arc::clone(&store), Arc::clone(&documents))),
            comparisons: Arc::default(),
            tokens: Tokens::new(Arc::clone(&store)),
            watchers: Arc::new(Semaphore::new(watch::WATCHERS)),
            transitions: Arc::default(),
            store,
            documents,
            listens_on,
            root_fingerprint,
            metrics,
            sidecars,
            on_change,
            published,
            taps,
            registry,
            publisher,
            shutdown,
        }
    }
}

/// All of the server's HTTP; `mesh` is what shows the living mesh, and only reads. Whatever is part of the API comes with its
/// description, so that nothing is served that `/openapi.json` does not tell of.
pub fn router(state: WebState, mesh: OpenApiRouter) -> Router {
    let (api, mut description) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(documents::list_everywhere))
        .routes(routes!(documents::list_namespace))
        .routes(routes!(documents::get, documents::put, documents::delete))
        .routes(routes!(documents::apply))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tap::watch))
        .split_for_parts();
    let read_guard = middleware::from_fn_with_state(state.clone(), access::read_guard);
    // Static paths go before `{kind}`.
    let (mesh, described) = mesh.split_for_parts();
    description.merge(described);
    let mesh = mesh.layer(read_guard.clone());
    let metrics = Router::new().route("/metrics", get(metrics)).layer(read_guard);
    let host_guard = middleware::from_fn_with_state(state.clone(), access::host_guard);
    api.merge(metrics)
        .merge(openapi::router(&description))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
        .merge(mesh)
        .fallback(pages::fallback)
        .layer(DefaultBodyLimit::max(input::BODY_LIMIT))
        .layer(middleware::from_fn(security_headers))
        .layer(host_guard)
}

async fn metrics(State(state): State<WebState>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], (state.metrics)()).into_response()
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} cannot be done with {}", request.method(), request.uri().path());
    let title = "That cannot be done here";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, detail)
}

/// What browsers are told of every answer: nothing of ours is loaded from elsewhere, framed, or sniffed.
async fn security_headers(request: Request, next: Next) -> Response {
    const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
