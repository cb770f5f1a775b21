//! A server of the web part alone, on a free loopback port.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    response::sse::{Event, Sse},
    routing::get,
};
use futures_util::{StreamExt as _, stream};
use pillion::{
    compile::Changed,
    publish::{LastCompile, Publisher},
    registry::Registry,
    resource::{Key, cache::DocumentCache},
    shutdown,
    store::{Bucket, Store, embedded::EmbeddedStore},
    tap::Taps,
    token::{Role, Tokens},
    web::{self, Outcome, WebParts, WebState},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use utoipa_axum::router::OpenApiRouter;

/// Of workloads, of which there are none.
const LEASE: Duration = Duration::from_secs(10);

/// A running server and an admin's client.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) tokens: Tokens,
    pub(crate) admin: String,
    pub(crate) changes: Arc<Mutex<Vec<(Key, Outcome)>>>,
    pub(crate) client: reqwest::Client,
    store: Arc<EmbeddedStore>,
    folder: Arc<tempfile::TempDir>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _ends_streams: shutdown::Trigger,
}

impl Server {
    /// Starts one; `listens_on` is what it believes its address to be, which decides who may read.
    pub(crate) async fn start_as(listens_on: Option<SocketAddr>) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let store = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
        Self::start_on(store, folder, listens_on).await
    }

    /// Another one on the same store.
    pub(crate) async fn beside(&self) -> Self {
        Self::start_on(Arc::clone(&self.store), Arc::clone(&self.folder), None).await
    }

    async fn start_on(
        store: Arc<EmbeddedStore>,
        folder: Arc<tempfile::TempDir>,
        listens_on: Option<SocketAddr>,
    ) -> Self {
        let tokens = Tokens::new(Arc::clone(&store) as Arc<dyn Store>);
        let admin = tokens.create_api(Role::Admin, None, None, SystemTime::now()).await.unwrap().token;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&changes);
        let (ends_streams, shutdown) = shutdown::channel();
        let state = WebState::new(WebParts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            documents: Arc::new(DocumentCache::new(Arc::clone(&store) as Arc<dyn Store>)),
            listens_on: listens_on.unwrap_or(address),
            root_fingerprint: Arc::new(|| "ab".repeat(32)),
            metrics: Arc::new(|| "pillion_up 1\n".to_owned()),
            sidecars: Arc::new(Default::default),
            on_change: Arc::new(move |key, outcome| noted.lock().unwrap().push((key.clone(), outcome))),
            // Nobody compiles here: what is stored counts as published.
            published: store.revisions(Bucket::Documents),
            taps: Arc::new(Taps::new(Arc::default())),
            registry: Arc::new(Registry::load(Arc::clone(&store) as Arc<dyn Store>, LEASE).await.unwrap()),
            publisher: Arc::new(Publisher::new(Changed::default(), LastCompile::default())),
            shutdown,
        });
        let endless = stream::iter([Ok::<_, Infallible>(Event::default().event("mesh").data("{}"))]);
        let mesh = OpenApiRouter::new()
            .route("/v1/mesh", get(async || Json(json!({ "services": [] }))))
            .route("/v1/mesh/events", get(async || Sse::new(endless.chain(stream::pending()))));
        let (stop, stopped) = watch::channel(false);
        let router = web::router(state, mesh);
        let task =
            tokio::spawn(async move { web::listen::serve(listener, None, router, stopped).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            address,
            tokens,
            admin,
            changes,
            client,
            store,
            folder,
            stop,
            task,
            _ends_streams: ends_streams,
        }
    }

    pub(crate) async fn start() -> Self {
        Self::start_as(None).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Without a token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// With the admin's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.anonymous(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// Applies YAML and gives the outcomes.
    pub(crate) async fn apply(&self, yaml: impl Into<String>) -> Vec<String> {
        let response = self.request(Method::POST, "/v1/apply").body(yaml.into()).send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        outcomes(&answer)
    }

    /// Stops and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

pub(crate) fn outcomes(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().unwrap();
    results
        .iter()
        .map(|it| format!("{} {}", it["name"].as_str().unwrap(), it["outcome"].as_str().unwrap()))
        .collect()
}

/// Status, reason and faults of a refusal, which must be a problem document.
pub(crate) async fn problem(response: Response) -> (u16, String, Vec<String>) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.text().await.unwrap();
    assert_eq!(kind, "application/problem+json", "{status} {body}");
    let problem: web::Problem = serde_json::from_str(&body).unwrap();
    assert_eq!(problem.status, status);
    assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{body}");
    let reason = problem.kind.strip_prefix("urn:pillion:problem:").unwrap().to_owned();
    (status, reason, problem.faults.iter().map(ToString::to_string).collect())
}

pub(crate) fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  ports:\n  - port: 80\n  \
         selector: {{app: {name}}}\n"
    )
}

pub(crate) fn route(name: &str, parent: &str, backend: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: {parent}}}]\n  rules:\n  - backendRefs: [{{name: {backend}, port: \
         80}}]\n"
    )
}
