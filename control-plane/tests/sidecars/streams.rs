//! A sidecar's stream: what it is sent, what it may say, how it ends.

use std::time::Duration;

use pillion::config::ServerArgs;
use pillion_api::{
    digest,
    wire::{
        Deregister, EndpointList, Health, Hello, ServiceConfig, Subscribe, Update, control_message,
        sidecar_message::Message, update::Kind,
    },
};
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use crate::support::{TestServer, eventually, hello, request_certificate, settings};

fn endpoints(update: &Update) -> Vec<(String, bool)> {
    let list = EndpointList::decode(update.payload.clone()).expect("a list of endpoints");
    list.endpoints.into_iter().map(|endpoint| (endpoint.uid, endpoint.ready)).collect()
}

fn lists(uid: &str) -> impl Fn(&Update) -> bool {
    move |update| endpoints(update).iter().any(|(found, _)| found == uid)
}

#[tokio::test]
async fn a_subscriber_is_sent_configuration_and_endpoints_and_what_it_refuses_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    let _payments = server.sidecar(folder.path(), "payments", "payments-1").await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;

    let config = web.update_where(Kind::Config, |_| true).await;
    let decoded = ServiceConfig::decode(config.payload.clone()).expect("a configuration");
    assert_eq!((decoded.service.as_str(), decoded.ports[0].target_port), ("payments.demo", 8080));
    assert_eq!(config.version, digest::version(&config.payload));
    let list = web.update_where(Kind::Endpoints, lists("payments-1")).await;
    let decoded = EndpointList::decode(list.payload.clone()).expect("a list");
    assert_eq!(decoded.endpoints[0].address, "127.0.0.1:15006", "unspecified became the stream's own");
    assert_eq!(decoded.endpoints[0].spiffe_id, "spiffe://mesh.local/ns/demo/sa/payments");

    let waiting = async || server.json("/v1/mesh/workloads").await[1]["waitingSinceMs"].is_i64();
    assert!(waiting().await, "it has not answered yet");
    web.acknowledge(&config, "no such protocol").await;
    let refusals = async || server.json("/v1/mesh/control-plane").await["refusedUpdates"].clone();
    eventually("the refusal is shown", async || refusals().await[0]["reason"] == "no such protocol").await;
    assert_eq!(refusals().await[0]["service"], "payments.demo");
    assert!(!waiting().await, "a refusal is an answer as well");
    let status = async || server.json("/v1/namespaces/demo/services/payments").await["status"].clone();
    let usable = &status().await["conditions"][0];
    assert_eq!((&usable["type"], &usable["status"]), (&"pillion.dev/Usable".into(), &"False".into()));
    assert_eq!(usable["message"], "Service demo/payments: the sidecar of web-1 refuses it: no such protocol");
    web.acknowledge(&config, "").await;
    eventually("the refusal is gone", async || refusals().await == serde_json::json!([])).await;
    assert_eq!(status().await["conditions"][0]["status"], "True");
    server.stop().await;
}

#[tokio::test]
async fn an_absent_service_is_named_so_and_sent_when_it_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    assert_eq!(web.update().await.kind(), Kind::Absent);
    server.apply_service("payments").await;
    assert_eq!(web.update().await.kind(), Kind::Config);
    assert_eq!(web.update().await.kind(), Kind::Endpoints);
    server.delete("Service", "payments").await;
    assert_eq!(web.update().await.kind(), Kind::Absent);
    server.stop().await;
}

#[tokio::test]
async fn health_changes_and_goodbyes_reach_subscribers() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    let payments = server.sidecar(folder.path(), "payments", "payments-1").await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    web.update_where(Kind::Endpoints, lists("payments-1")).await;
    payments.say(Message::Health(Health { reason: "503 from /health".into(), ..Default::default() })).await;
    web.update_where(Kind::Endpoints, |update| endpoints(update) == [("payments-1".to_owned(), false)]).await;
    payments.say(Message::Deregister(Deregister {})).await;
    web.update_where(Kind::Endpoints, |update| endpoints(update).is_empty()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_lost_workload_stays_for_its_lease() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    let payments = server.sidecar(folder.path(), "payments", "payments-1").await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    web.update_where(Kind::Endpoints, lists("payments-1")).await;
    let (identity, lost) = (payments.identity.clone(), Instant::now());
    drop(payments);
    web.update_where(Kind::Endpoints, |update| endpoints(update).is_empty()).await;
    assert!(lost.elapsed() >= Duration::from_millis(900), "it left after {:?}", lost.elapsed());

    // Back within the lease: nobody sees it go.
    let payments = server.sidecar_as(&identity, hello("payments", "payments-1")).await;
    web.update_where(Kind::Endpoints, lists("payments-1")).await;
    drop(payments);
    let _payments = server.sidecar_as(&identity, hello("payments", "payments-1")).await;
    eventually("it is connected again", async || {
        let workloads = server.json("/v1/mesh/workloads").await;
        let found = workloads.as_array().expect("a list").iter().find(|found| found["uid"] == "payments-1");
        found.is_some_and(|found| found["connected"] == true)
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_crash_of_the_server_empties_no_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    let _payments = server.sidecar(folder.path(), "payments", "payments-1").await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    let config = web.update_where(Kind::Config, |_| true).await;
    let list = web.update_where(Kind::Endpoints, lists("payments-1")).await;
    let store = server.store.clone();
    eventually("the workloads are stored", || async {
        store.list(pillion::store::Bucket::Workloads).await.expect("a list").len() == 2
    })
    .await;
    drop(store);
    let identity = web.identity.clone();
    server.crash().await;

    let server = restart(folder.path()).await;
    let mut web = server.sidecar_as(&identity, hello("web", "web-1")).await;
    web.subscribe("payments.demo").await;
    web.update_where(Kind::Endpoints, |update| update.version == list.version).await;
    // What the sidecar has already is not sent again: the same content has the same version.
    let have = Subscribe {
        service: "payments.demo".into(),
        config_version: config.version.clone(),
        endpoints_version: list.version.clone(),
        ..Subscribe::default()
    };
    web.say(Message::Subscribe(have)).await;
    web.subscribe("no-such.demo").await;
    assert_eq!(web.update().await.kind(), Kind::Absent);
    server.stop().await;
}

/// The store's file is free only when the last task of the crashed server is gone.
pub(crate) async fn restart(folder: &std::path::Path) -> TestServer {
    eventually("the store is free", || async {
        pillion::store::embedded::EmbeddedStore::open(folder).is_ok()
    })
    .await;
    TestServer::start(folder).await
}

#[tokio::test]
async fn heartbeats_carry_the_digest_and_silence_ends_the_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    let config = web.update_where(Kind::Config, |_| true).await;
    let list = web.update_where(Kind::Endpoints, |_| true).await;
    web.answers_heartbeats = false;
    let heartbeat = match web.hear().await {
        Ok(control_message::Message::Heartbeat(heartbeat)) => heartbeat,
        other => panic!("expected a heartbeat, not {other:?}"),
    };
    let expected = digest::holdings([("payments.demo", &*config.version, &*list.version)]);
    assert_eq!(heartbeat.digest, expected);
    let status = web.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_faulty_hello_is_refused_with_every_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let token = server.join_token("web").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    let mut stream = server.stream(&identity).await;
    stream.subscribe("payments.demo").await;
    let status = stream.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("must be Hello"), "{}", status.message());

    let mut stream = server.stream(&identity).await;
    let faulty =
        Hello { workload: "Web!".into(), inbound_address: "nowhere".into(), ..hello("web", "web-1") };
    stream.say(Message::Hello(faulty)).await;
    let status = stream.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["workload must", "inbound_address must"] {
        assert!(status.message().contains(part), "{part} in {}", status.message());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_service_that_comes_after_its_workload_is_told_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let token = server.join_token("web").await;
    let identity = server.certify(folder.path(), &token).await.expect("a certificate");
    let mut web = server.stream(&identity).await;
    web.say(Message::Hello(hello("web", "web-1"))).await;
    let welcome = web.welcome().await;
    assert_eq!((welcome.source.as_str(), welcome.services.len()), ("web-1.demo", 0));
    server.apply_service("web").await;
    let welcome = web.welcome().await;
    assert_eq!((welcome.source.as_str(), welcome.services), ("web.demo", vec!["web.demo".to_owned()]));
    assert!(welcome.trust_anchors.is_some(), "all of it is said again");

    // Of two services the same one is first wherever a source is shown.
    let spec = serde_json::json!({"ports": [{"port": 80}], "selector": {"app": "web"}});
    server.apply("Service", "web-v1", spec).await;
    eventually("it is compiled", async || {
        server.json("/v1/mesh/services/demo/web-v1").await["instances"] == 1
    })
    .await;
    assert_eq!(server.json("/v1/mesh/workloads").await[0]["service"], "web.demo");
    let welcome = web.welcome().await;
    assert_eq!(
        (welcome.source.as_str(), welcome.services),
        ("web.demo", vec!["web.demo".to_owned(), "web-v1.demo".to_owned()])
    );
    server.delete("Service", "web").await;
    assert_eq!(web.welcome().await.source, "web-v1.demo");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_it_was_opened_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let domain: pillion_certs::TrustDomain = "mesh.local".parse().expect("a trust domain");
    let now = std::time::SystemTime::now();
    let authority = pillion::authority::load(None, server.store.as_ref(), &domain, now).await;
    let authority = authority.expect("the server's own");
    let id = pillion_certs::SpiffeId::new(domain, "demo", "web").expect("an identity");
    let credential = authority.issue(&id, Duration::from_secs(3), now).expect("a credential");
    let identity = pillion_certs::Identity::new(credential, authority.trust_bundle());

    let client = server.client_as(&identity).await;
    let mut web = server.sidecar_as(&identity, hello("web", "web-1")).await;
    let status = web.end().await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("has expired"), "{}", status.message());
    let status = request_certificate(client, "").await.expect_err("an old connection renews nothing");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_can_be_no_service_is_not_subscribed_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe(&"x".repeat(100_000)).await;
    let status = web.end().await;
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    assert!(status.message().starts_with("Subscribe.service:"), "{}", status.message());
    server.stop().await;
}

#[tokio::test]
async fn nobody_takes_over_anothers_instance() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let mut victim = server.sidecar(folder.path(), "payments", "payments-1").await;
    let token = server.join_token("web").await;
    let thief = server.certify(folder.path(), &token).await.expect("a certificate");
    let mut stream = server.stream(&thief).await;
    stream.say(Message::Hello(hello("payments", "payments-1"))).await;
    assert_eq!(stream.end().await.code(), Code::PermissionDenied);

    // The same workload on a new stream does; the old stream ends.
    let _newer = server.sidecar_as(&victim.identity.clone(), hello("payments", "payments-1")).await;
    assert_eq!(victim.end().await.code(), Code::Aborted);
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_tells_sidecars_to_go_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start_with(settings(folder.path())).await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    let file = folder.path().join("server.json");
    let text = std::fs::read_to_string(&file).expect("the server says where it is");
    let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(said["grpcAddress"], server.grpc.to_string());
    let stopping = tokio::spawn(server.stop());
    assert_eq!(web.end().await.code(), Code::Unavailable);
    stopping.await.expect("it stopped in time");
    assert!(!file.exists(), "a server that is gone is not found");
}

/// A route so long that a few of its versions fill every buffer on the way to a sidecar that does not read.
fn long_route(version: usize) -> serde_json::Value {
    let rule = |index: usize| {
        let value = format!("{version}-{index}-{}", "x".repeat(1000));
        let headers = serde_json::json!([{"name": "x-long", "value": value}]);
        serde_json::json!({
            "matches": [{"headers": headers}], "backendRefs": [{"name": "payments", "port": 80}],
        })
    };
    serde_json::json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": "payments"}],
        "rules": (0..30).map(rule).collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn a_sidecar_that_reads_slowly_gets_few_versions_and_the_newest() {
    const VERSIONS: usize = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = ServerArgs { heartbeat: Some("10s".to_owned()), ..settings(folder.path()) };
    let server = TestServer::start_with(settings).await;
    server.apply_service("payments").await;
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    web.update_where(Kind::Endpoints, |_| true).await;
    for version in 1..=VERSIONS {
        server.apply("HTTPRoute", "long", long_route(version)).await;
        let written = *server.store.revisions(pillion::store::Bucket::Documents).borrow();
        eventually("the version is published", async || {
            server.json("/v1/mesh/control-plane").await["storeRevision"].as_u64() >= Some(written)
        })
        .await;
    }
    let mut heard = 0;
    let newest = format!("{VERSIONS}-0-");
    loop {
        let config = ServiceConfig::decode(web.update().await.payload).expect("a configuration");
        heard += 1;
        let first = &config.routes[0].r#match.as_ref().expect("a match").headers[0];
        if first.value.as_ref().is_some_and(|value| value.value.starts_with(&newest)) {
            break;
        }
    }
    assert!(heard < VERSIONS / 2, "{heard} of {VERSIONS} versions were queued");
    server.stop().await;
}
