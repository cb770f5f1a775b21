//! Virtual addresses, hosts outside, and what holds for the whole mesh.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, outcomes, problem, route, service};

fn external(name: &str, host: &str) -> String {
    format!(
        "---\napiVersion: pillion.dev/v1alpha1\nkind: ExternalService\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  \
         host: {host}\n  ports: [{{port: 443}}]\n"
    )
}

fn mesh(spec: &str) -> String {
    format!(
        "---\napiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec: {spec}\n"
    )
}

async fn address(server: &Server, name: &str) -> String {
    let document = server.get(&format!("/v1/namespaces/demo/services/{name}")).await;
    document["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

async fn faults(server: &Server, yaml: String) -> Vec<String> {
    let response = server.request(Method::POST, "/v1/apply").body(yaml).send().await.unwrap();
    let (status, reason, faults) = problem(response).await;
    assert_eq!((status, reason.as_str()), (422, "invalid"));
    faults
}

#[tokio::test]
async fn an_address_is_given_kept_and_freed() {
    let server = Server::start().await;
    let path = "/v1/namespaces/demo/services/web";
    assert_eq!(server.apply(service("web")).await, ["web created"]);
    let given = address(&server, "web").await;
    assert!(given.starts_with("240.240."), "{given}");
    assert_eq!(server.get(path).await["metadata"]["generation"], 1);
    assert_eq!(server.apply(service("web")).await, ["web unchanged"], "the file says nothing of it");
    assert_eq!(server.apply(service("web").replace("80", "81")).await, ["web configured"]);
    assert_eq!(address(&server, "web").await, given);
    let put =
        server.request(Method::PUT, path).json(&json!({"spec": {"ports": [{"port": 82}]}})).send().await;
    assert_eq!(put.unwrap().json::<Value>().await.unwrap()["spec"]["clusterIP"], given.as_str());

    let other = service("other").replace("spec:\n", &format!("spec:\n  clusterIP: {given}\n"));
    assert_eq!(
        faults(&server, other.clone()).await,
        [format!("Service demo/other: spec.clusterIP: {given} is the address of Service demo/web already")]
    );
    assert_eq!(server.request(Method::DELETE, path).send().await.unwrap().status(), 200);
    assert_eq!(server.apply(other).await, ["other created"]);
    assert_eq!(address(&server, "other").await, given, "it is free again");
}

#[tokio::test]
async fn a_dry_run_gives_nothing_away() {
    let server = Server::start().await;
    let path = "/v1/namespaces/demo/services/web?dryRun=true";
    let body = json!({"spec": {"ports": [{"port": 80}]}});
    let shown: Value =
        server.request(Method::PUT, path).json(&body).send().await.unwrap().json().await.unwrap();
    let would_be = shown["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(server.get("/v1/services").await["items"], json!([]));
    let other = service("other").replace("spec:\n", &format!("spec:\n  clusterIP: {would_be}\n"));
    assert_eq!(server.apply(other).await, ["other created"]);
    server.apply(service("web")).await;
    assert_ne!(address(&server, "web").await, would_be);
}

#[tokio::test]
async fn two_servers_on_one_store_never_give_the_same() {
    let one = Server::start().await;
    let other = one.beside().await;
    // So few addresses that two who do not see each other would surely collide.
    one.apply(mesh("{serviceCidr: 10.9.8.0/24}")).await;
    let create = async |server: &Server, prefix: &str| {
        for index in 0..60 {
            server.apply(service(&format!("{prefix}{index}"))).await;
        }
    };
    tokio::join!(create(&one, "a"), create(&one, "b"), create(&other, "c"), create(&other, "d"));
    let list = one.get("/v1/services").await;
    let items = list["items"].as_array().unwrap();
    let addresses: BTreeSet<&str> =
        items.iter().map(|it| it["spec"]["clusterIP"].as_str().unwrap()).collect();
    assert_eq!((items.len(), addresses.len()), (240, 240));
    // Nor do both give one host away.
    let (first, second) = tokio::join!(
        one.request(Method::POST, "/v1/apply").body(external("x", "example.com")).send(),
        other.request(Method::POST, "/v1/apply").body(external("y", "example.com")).send(),
    );
    let mut statuses = [first.unwrap().status().as_u16(), second.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422]);
}

#[tokio::test]
async fn a_host_outside_is_one_service_and_all_that_is_wrong_is_told() {
    let server = Server::start().await;
    server.apply(external("api", "example.com")).await;
    let shown = server.get("/v1/namespaces/demo/externalservices/api").await;
    assert_eq!(shown["status"]["conditions"][0]["type"], "pillion.dev/Usable");
    assert!(shown["spec"]["clusterIP"].as_str().unwrap().starts_with("240.240."));
    let again = server.request(Method::POST, "/v1/apply").json(&shown).send().await.unwrap();
    assert_eq!(outcomes(&again.json().await.unwrap()), ["api unchanged"]);

    let taken = "\"example.com\" is the host of ExternalService demo/api already";
    assert_eq!(
        faults(&server, external("second", "example.com") + &service("api")).await,
        [
            format!("ExternalService demo/second: spec.host: {taken}"),
            "Service demo/api: metadata.name: is the name of ExternalService demo/api already: a Service and an \
             ExternalService of one namespace cannot share a name"
                .to_owned(),
        ]
    );
    // Also where another document of the request is wrong by itself.
    let mixed = service("bad").replace("port: 80", "port: 0") + &external("second", "example.com");
    assert_eq!(
        faults(&server, mixed).await,
        [
            "Service demo/bad: spec.ports[0].port: must be between 1 and 65535, is 0".to_owned(),
            format!("ExternalService demo/second: spec.host: {taken}"),
        ]
    );
    let unknown_block = mesh("{outbound: x, serviceCidr: 10.0.0.0/8}")
        + &service("web").replace("spec:\n", "spec:\n  clusterIP: 10.0.0.5\n");
    assert_eq!(faults(&server, unknown_block).await.len(), 1, "the address may be right once the block is");
    assert_eq!(
        faults(&server, service("web") + &route("r", "web", "api")).await,
        [
            "HTTPRoute demo/r: spec.rules[0].backendRefs[0].name: there is no Service \"api\" in namespace \"demo\"; \"api\" is \
          an ExternalService"
        ]
    );
}

#[tokio::test]
async fn what_holds_for_the_mesh_is_said_and_strands_nobody() {
    let server = Server::start().await;
    let path = "/v1/namespaces/pillion-system/meshconfigs/mesh";
    server.apply(mesh("{outbound: registryOnly}") + &service("web")).await;
    let status = server.get(path).await["status"].clone();
    assert_eq!(
        status["inForce"],
        json!({
            "outbound": "registryOnly", "inbound": "permissive", "serviceCidr": "240.240.0.0/16", "tap": {"enabled": true},
        })
    );
    assert_eq!((&status["assignedAddresses"], &status["freeAddresses"]), (&json!(1), &json!(65_023)));

    let stranding = faults(&server, mesh("{serviceCidr: 10.0.0.0/8}")).await;
    assert!(
        stranding[0].starts_with(
            "MeshConfig pillion-system/mesh: spec.serviceCidr: 10.0.0.0/8 must hold the addresses that services have; 1 are \
             outside, the first is 240.240."
        ),
        "{stranding:?}"
    );
    assert_eq!(server.apply(mesh("{serviceCidr: 240.0.0.0/8}")).await, ["mesh configured"]);
    server.apply(service("far").replace("spec:\n", "spec:\n  clusterIP: 240.1.2.3\n")).await;
    // Nor does the default, which holds without the document.
    for path in [path.to_owned(), format!("{path}?force=true")] {
        let (status, _, faults) = problem(server.request(Method::DELETE, &path).send().await.unwrap()).await;
        assert_eq!(status, 422);
        assert!(
            faults[0].starts_with(
                "MeshConfig pillion-system/mesh: spec.serviceCidr: without this document 240.240.0.0/16 must hold"
            ),
            "{faults:?}"
        );
    }
    server.request(Method::DELETE, "/v1/namespaces/demo/services/far").send().await.unwrap();
    assert_eq!(server.request(Method::DELETE, path).send().await.unwrap().status(), 200);
}
