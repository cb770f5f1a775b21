//! Watches: everything there is, then every change.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use pillion::token::Role;
use reqwest::Method;
use serde_json::Value;

use crate::support::{Server, route, service};

/// Reads events off a response as they come.
pub(crate) struct Events {
    body: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: String,
}

impl Events {
    async fn open(server: &Server, path: &str) -> Self {
        Self::of(server.anonymous(Method::GET, path).send().await.unwrap())
    }

    pub(crate) fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: Box::pin(response.bytes_stream()), buffer: String::new() }
    }

    /// The next event as (name, data).
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let found =
                    (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap_or_default());
                self.buffer = rest.to_owned();
                return found;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.body.next())
                .await
                .expect("an event in time");
            self.buffer.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_watch_tells_what_there_is_and_what_changes() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let mut events = Events::open(&server, "/v1/namespaces/demo/services?watch=true").await;

    let (name, data) = events.next().await;
    assert_eq!((name.as_str(), &data["type"]), ("added", &Value::from("ADDED")));
    assert_eq!(data["object"]["metadata"]["name"], "web");
    assert_eq!(events.next().await.0, "synced");

    server.apply(service("web").replace("port: 80", "port: 81")).await;
    let (name, data) = events.next().await;
    assert_eq!((name.as_str(), &data["object"]["spec"]["ports"][0]["port"]), ("modified", &Value::from(81)));

    // Another namespace and another kind are none of this watch's business.
    server.apply(service("web").replace("namespace: demo", "namespace: shop")).await;
    server.apply(service("second")).await;
    let (name, data) = events.next().await;
    assert_eq!((name.as_str(), &data["object"]["metadata"]["name"]), ("added", &Value::from("second")));

    server.request(Method::DELETE, "/v1/namespaces/demo/services/web").send().await.unwrap();
    let (name, data) = events.next().await;
    assert_eq!((name.as_str(), &data["object"]["metadata"]["name"]), ("deleted", &Value::from("web")));
}

#[tokio::test]
async fn a_status_that_changes_with_another_document_is_told() {
    let server = Server::start().await;
    server.apply(service("web") + &service("v1") + &route("r", "web", "v1")).await;
    let mut events = Events::open(&server, "/v1/httproutes?watch=true").await;
    assert_eq!(events.next().await.0, "added");
    assert_eq!(events.next().await.0, "synced");
    server.request(Method::DELETE, "/v1/namespaces/demo/services/v1?force=true").send().await.unwrap();
    let (name, data) = events.next().await;
    assert_eq!(name, "modified");
    assert_eq!(data["object"]["status"]["parents"][0]["conditions"][1]["reason"], "BackendNotFound");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_watchers() {
    let server = Server::start().await;
    let mut events = Events::open(&server, "/v1/services?watch=true").await;
    assert_eq!(events.next().await.0, "synced");
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.expect("the server stops in time");
}

#[tokio::test]
async fn beyond_loopback_a_stream_ends_with_its_token() {
    let server = Server::start_as(Some("192.0.2.1:443".parse().unwrap())).await;
    let create = async |namespace: Option<&str>| {
        let namespace = namespace.map(str::to_owned);
        server.tokens.create_api(Role::Viewer, namespace, None, SystemTime::now()).await.unwrap()
    };
    let (all, demo) = (create(None).await, create(Some("demo")).await);
    let mut streams = Vec::new();
    for (token, path, first) in [
        (&all, "/v1/mesh/events", "mesh"),
        (&all, "/v1/services?watch=true", "synced"),
        (&demo, "/v1/namespaces/demo/services?watch=true", "synced"),
    ] {
        let response = server.anonymous(Method::GET, path).bearer_auth(&token.token).send().await.unwrap();
        let mut events = Events::of(response);
        assert_eq!(events.next().await.0, first, "{path}");
        streams.push((path, events));
    }
    for token in [&all, &demo] {
        server.tokens.revoke(&token.info.id, SystemTime::now()).await.unwrap();
    }
    for (path, mut events) in streams {
        let (name, ended) = events.next().await;
        assert_eq!(name, "ended", "{path}");
        assert!(ended["reason"].as_str().unwrap().contains("revoked"), "{path}: {ended}");
        assert!(events.body.next().await.is_none(), "{path}");
    }
}
