//! Live requests: who may watch, what is refused, and when a stream ends.

use std::time::SystemTime;

use pillion::token::Role;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::{
    support::{Server, service},
    watching::Events,
};

const TAP: &str = "/v1/mesh/tap";

async fn token(server: &Server, role: Role, namespace: Option<&str>) -> String {
    let created = server.tokens.create_api(role, namespace.map(str::to_owned), None, SystemTime::now()).await;
    created.unwrap().token
}

async fn tap(server: &Server, query: &str, token: &str) -> Response {
    let request = server.anonymous(Method::GET, &format!("{TAP}?{query}")).bearer_auth(token);
    request.send().await.unwrap()
}

/// Status and type of the problem; of a stream, its status alone.
async fn answer(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    if status == 200 {
        return (status, String::new());
    }
    let problem: Value = response.json().await.unwrap();
    (status, problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
}

fn mesh_config(spec: &str) -> String {
    format!(
        "---\n{{apiVersion: pillion.dev/v1alpha1, kind: MeshConfig, metadata: {{name: mesh}}, spec: {spec}}}\n"
    )
}

#[tokio::test]
async fn watching_needs_an_operator_also_on_loopback() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let web = "resource=svc/web.demo";
    let anonymous = server.anonymous(Method::GET, &format!("{TAP}?{web}")).send().await.unwrap();
    assert_eq!(answer(anonymous).await, (401, "token-missing".to_owned()));
    let (viewer, operator) =
        (token(&server, Role::Viewer, None).await, token(&server, Role::Operator, None).await);
    let (demo, shop) =
        (token(&server, Role::Operator, Some("demo")).await, token(&server, Role::Admin, Some("shop")).await);
    let refused = |why: &str| (403, format!("token-lacks-{why}"));
    let table = [
        (&viewer, web, refused("role")),
        (&operator, web, (200, String::new())),
        (&operator, "resource=mesh", (200, String::new())),
        (&demo, web, (200, String::new())),
        (&demo, "resource=web.demo&seenBy=callers", (200, String::new())),
        (&demo, "resource=ns/demo", (200, String::new())),
        (&demo, "resource=ns/shop", refused("namespace")),
        (&demo, "resource=mesh", refused("namespace")),
        (&demo, "resource=workload/web-1", refused("namespace")),
        (&shop, web, refused("namespace")),
        (&operator, "resource=svc/gone.demo", (404, "not-found".to_owned())),
        (&operator, "resource=workload/gone", (404, "not-found".to_owned())),
        // Whoever may not watch at all hears nothing more than that.
        (&viewer, "resource=nonsense", refused("role")),
        (&demo, "resource=nonsense", (422, "invalid".to_owned())),
    ];
    for (token, query, expected) in table {
        assert_eq!(answer(tap(&server, query, token).await).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_wrong_question_is_told_every_fault() {
    let server = Server::start().await;
    let query = "resource=deploy/web&status=9xx&path=pay&method=get&minDuration=soon&colour=red&maxRate=5000";
    let response = tap(&server, query, &server.admin).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    let fields: Vec<&str> =
        problem["faults"].as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["colour", "maxRate", "resource", "minDuration", "method", "path", "status"]);
    assert_eq!(problem["detail"], "7 faults");
}

#[tokio::test]
async fn the_stream_says_at_once_how_it_goes_and_at_last_why_it_ends() {
    let server = Server::start().await;
    server.apply(service("web")).await;
    let mut events = Events::of(tap(&server, "resource=svc/web.demo", &server.admin).await);
    let (name, status) = events.next().await;
    assert_eq!((name.as_str(), &status["listening"]), ("status", &Value::from(0)));
    assert_eq!(status["notes"], serde_json::json!(["no workload belongs to web.demo"]));
    server.apply(mesh_config("{tap: {headers: [x-request-id]}}")).await;
    let (name, ended) = events.next().await;
    assert_eq!(name, "ended");
    assert!(ended["reason"].as_str().unwrap().contains("MeshConfig"), "{ended}");

    let operator = server.tokens.create_api(Role::Operator, None, None, SystemTime::now()).await.unwrap();
    let mut events = Events::of(tap(&server, "resource=mesh", &operator.token).await);
    assert_eq!(events.next().await.0, "status");
    server.tokens.revoke(&operator.info.id, SystemTime::now()).await.unwrap();
    let (name, ended) = events.next().await;
    assert_eq!(name, "ended");
    assert!(ended["reason"].as_str().unwrap().contains("revoked"), "{ended}");
}

#[tokio::test]
async fn a_mesh_may_show_nothing() {
    let server = Server::start().await;
    server.apply(mesh_config("{tap: {enabled: false}}")).await;
    let response = tap(&server, "resource=mesh", &server.admin).await;
    assert_eq!(answer(response).await, (403, "tap-disabled".to_owned()));
}

#[tokio::test]
async fn there_are_so_many_and_one_that_goes_makes_room() {
    let server = Server::start().await;
    let mut open = Vec::new();
    for _ in 0..pillion::tap::MAX_TAPS {
        open.push(tap(&server, "resource=mesh", &server.admin).await);
    }
    let one_more = async || answer(tap(&server, "resource=mesh", &server.admin).await).await;
    assert_eq!(one_more().await, (503, "too-many-taps".to_owned()));
    open.pop();
    let room = async {
        while one_more().await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), room).await.expect("room in time");
}
