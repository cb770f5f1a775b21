//! What people and the dashboard are shown of the mesh.

use std::time::Duration;

use pillion_api::{
    latency,
    wire::{
        ConcurrencyGauge, EdgeDelta, EndpointGauge, PolicyCount, Telemetry, edge_delta::Direction,
        endpoint_gauge::Breaker, policy_count::Action, sidecar_message::Message,
    },
};
use tokio::time::timeout;

use crate::{
    streams::restart,
    support::{PATIENCE, Sidecar, TestServer, eventually},
};

/// What a sidecar of `web` says of 20 requests to `payments`, five of them failed, about 10 ms each.
fn outbound() -> Telemetry {
    let bucket = u32::try_from(latency::index(10_000)).expect("small");
    let edge = EdgeDelta {
        direction: Direction::Outbound.into(),
        peer: "payments.demo".into(),
        backend: "payments-v1.demo".into(),
        workload: "payments-3".into(),
        mtls: true,
        requests: 20,
        failures: 5,
        retries: 4,
        retries_recovered: 3,
        refusals: [("no-endpoints".to_owned(), 2)].into(),
        latency_buckets: vec![bucket],
        latency_counts: vec![20],
        ..EdgeDelta::default()
    };
    let count = |action: Action, about: &str, count| PolicyCount {
        service: "payments.demo".into(),
        action: action.into(),
        about: about.into(),
        count,
    };
    let gauge = EndpointGauge {
        service: "payments.demo".into(),
        uid: "payments-3".into(),
        breaker: Breaker::Open.into(),
        opened: 1,
        opened_reason: "5 failures in a row".into(),
        latency_us: 12_500,
        open_ms: 60_000,
        ..EndpointGauge::default()
    };
    Telemetry {
        interval_ms: 1000,
        edges: vec![edge],
        endpoints: vec![gauge],
        policies: vec![count(Action::FallbackServed, "no-endpoints", 2), count(Action::PanicPick, "", 7)],
        certificate_not_after: 2_000_000_000,
        ..Telemetry::default()
    }
}

async fn mesh() -> (tempfile::TempDir, TestServer, [Sidecar; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    server.apply_service("payments-v1").await;
    let backends = serde_json::json!([
        {"name": "payments-v1", "port": 80, "weight": 90}, {"name": "payments", "port": 80, "weight": 10},
    ]);
    let route = serde_json::json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": "payments"}],
        "rules": [{"backendRefs": backends}],
    });
    server.apply("HTTPRoute", "canary", route).await;
    let payments = server.sidecar(folder.path(), "payments", "payments-3").await;
    let web = server.sidecar(folder.path(), "web", "web-1").await;
    eventually("payments-3 serves payments", async || {
        server.json("/v1/mesh/services/demo/payments").await["instances"] == 1
    })
    .await;
    web.say(Message::Telemetry(outbound())).await;
    let mut inbound = outbound();
    inbound.endpoints.clear();
    inbound.policies.clear();
    inbound.concurrency = vec![ConcurrencyGauge {
        service: "payments.demo".into(),
        port: 8080,
        limit: 20,
        in_flight: 3,
        min_rtt_us: 4_000,
        ..ConcurrencyGauge::default()
    }];
    inbound.edges[0].direction = Direction::Inbound.into();
    inbound.edges[0].peer = "spiffe://mesh.local/ns/demo/sa/web".into();
    payments.say(Message::Telemetry(inbound)).await;
    (folder, server, [payments, web])
}

#[tokio::test]
async fn the_mesh_page_has_services_edges_and_events() {
    let (_folder, server, _sidecars) = mesh().await;
    eventually("the edge is counted", async || {
        server.json("/v1/mesh").await["edges"][0]["rps"].as_f64().is_some_and(|rps| rps > 0.0)
    })
    .await;
    let page = server.json("/v1/mesh").await;
    let edge = &page["edges"][0];
    assert_eq!(
        (&edge["from"], &edge["to"], &edge["backend"]),
        (&"web-1.demo".into(), &"payments.demo".into(), &"payments-v1.demo".into())
    );
    assert_eq!((&edge["successRate"], &edge["mtls"]), (&0.75.into(), &true.into()));
    assert_eq!(edge["tlsVersion"], "TLS 1.3");
    assert!(edge["refusals"]["no-endpoints"].as_f64().is_some_and(|rate| rate > 0.0), "{edge}");
    let p50 = edge["p50Ms"].as_f64().expect("a median");
    assert!((8.0..=12.5).contains(&p50), "{p50}");

    let services = page["services"].as_array().expect("a list");
    let find = |name: &str| services.iter().find(|service| service["name"] == name).expect(name);
    let payments = find("payments.demo");
    assert_eq!((&payments["kind"], &payments["instances"]), (&"service".into(), &1.into()));
    assert_eq!((&payments["ready"], &payments["inMesh"]), (&1.into(), &true.into()));
    assert_eq!(payments["successRate"], 0.75);
    assert_eq!(find("web-1.demo")["kind"], "workload");
    let (v1, web) = (find("payments-v1.demo"), find("web-1.demo"));
    assert_eq!(v1["successRate"], 0.75, "it has no workloads: its callers tell");
    assert_eq!(web["p99Ms"], serde_json::Value::Null);

    let kinds: Vec<&str> = page["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| event["kind"].as_str().expect("a kind"))
        .collect();
    assert_eq!(kinds, ["breaker-opened", "workload-joined", "workload-joined"]);
    assert_eq!(
        page["events"][0]["text"],
        "web-1 opened its breaker for payments-3 of payments.demo: 5 failures in a row"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_services_page_has_series_endpoints_breakers_and_shares() {
    let (_folder, server, _sidecars) = mesh().await;
    let address = "/v1/mesh/services/demo/payments?minutes=1";
    eventually("requests are counted, on both sides", async || {
        let page = server.json(address).await;
        page["rps"].as_f64().is_some_and(|rps| rps > 0.0) && page["activity"]["retries"] == 4
    })
    .await;
    let page = server.json(address).await;
    let series = &page["series"];
    assert_eq!(series["stepSeconds"], 1);
    for column in ["timesMs", "rps", "successRate", "p50Ms", "p90Ms", "p99Ms"] {
        assert_eq!(series[column].as_array().expect(column).len(), 60, "{column}");
    }
    let total: f64 = series["rps"].as_array().expect("a list").iter().filter_map(|rps| rps.as_f64()).sum();
    assert_eq!(total, 20.0);
    let endpoint = &page["endpoints"][0];
    assert_eq!((&endpoint["uid"], &endpoint["ready"]), (&"payments-3".into(), &true.into()));
    assert_eq!(endpoint["spiffeId"], "spiffe://mesh.local/ns/demo/sa/payments");
    let breaker = &endpoint["breakers"][0];
    assert_eq!((&breaker["from"], &breaker["state"]), (&"web-1.demo".into(), &"open".into()));
    assert_eq!((&breaker["latencyMs"], &breaker["opened"]), (&12.5.into(), &1.into()));
    let open_ms = breaker["openMs"].as_i64().expect("how long it stays open");
    assert!((30_000..=60_000).contains(&open_ms), "{open_ms}");
    assert_eq!(page["callers"][0]["from"], "web-1.demo");
    assert_eq!(page["callers"][0]["repeats"], serde_json::json!({"retries": 4, "recovered": 3}));
    assert_eq!(
        page["activity"],
        serde_json::json!({
            "seconds": 60,
            "retryBudgetPercent": 20,
            "hedgeBudgetPercent": null,
            "retries": 4,
            "recovered": 3,
            "fallbacksServed": {"no-endpoints": 2},
            "panicPicks": 7,
            "concurrency": [{
                "workload": "payments-3", "port": 8080, "limit": 20, "inFlight": 3, "queued": 0, "minRttMs": 4.0,
            }],
        })
    );
    assert_eq!(
        page["policies"],
        serde_json::json!([{"kind": "HTTPRoute", "namespace": "demo", "name": "canary"}])
    );
    assert_eq!(
        page["backends"],
        serde_json::json!([
            {"service": "payments-v1.demo", "weightsPercent": [90.0], "sharePercent": 100.0},
            {"service": "payments.demo", "weightsPercent": [10.0], "sharePercent": 0.0},
        ])
    );
    server.stop().await;
}

#[tokio::test]
async fn figures_outlive_a_restart() {
    let (folder, server, sidecars) = mesh().await;
    async fn events(server: &TestServer) -> serde_json::Value {
        server.json("/v1/mesh").await["events"].clone()
    }
    async fn shown(server: &TestServer) -> [serde_json::Value; 3] {
        let page = server.json("/v1/mesh/services/demo/payments?minutes=1").await;
        let rates = page["series"]["rps"].as_array().expect("a list");
        let total: f64 = rates.iter().filter_map(|rate| rate.as_f64()).sum();
        [total.into(), page["callers"][0]["repeats"].clone(), page["activity"]["fallbacksServed"].clone()]
    }
    let expected = [
        20.0.into(),
        serde_json::json!({"retries": 4, "recovered": 3}),
        serde_json::json!({"no-endpoints": 2}),
    ];
    eventually("requests are counted, on both sides", async || shown(&server).await == expected).await;
    drop(sidecars);
    let happened = events(&server).await;
    assert_eq!(happened.as_array().map(Vec::len), Some(3), "{happened}");
    server.stop().await;
    let server = restart(folder.path()).await;
    eventually("the same is shown, and no sidecar says it again", async || shown(&server).await == expected)
        .await;
    assert_eq!(events(&server).await, happened);
    server.stop().await;

    std::fs::write(folder.path().join("history"), "not a history").expect("written");
    let server = restart(folder.path()).await;
    assert_eq!(shown(&server).await[0], 0.0);
    assert_eq!(events(&server).await, serde_json::json!([]));
    server.stop().await;
}

#[tokio::test]
async fn an_edges_page_has_its_series_reasons_latencies_and_the_callers_breakers() {
    let (_folder, server, _sidecars) = mesh().await;
    let address = "/v1/mesh/edges/web-1.demo/payments.demo?seconds=60";
    eventually("the edge is counted", async || {
        server.json(address).await["rps"].as_f64().is_some_and(|rps| rps > 0.0)
    })
    .await;
    let page = server.json(address).await;
    assert_eq!((&page["from"], &page["to"]), (&"web-1.demo".into(), &"payments.demo".into()));
    assert_eq!((&page["backend"], &page["mtls"]), (&serde_json::Value::Null, &true.into()));
    let series = &page["series"];
    let sum = |column: &serde_json::Value| -> f64 {
        column.as_array().expect("a column").iter().filter_map(serde_json::Value::as_f64).sum()
    };
    assert_eq!((sum(&series["rps"]), sum(&series["failed"])), (20.0, 5.0));
    assert_eq!(sum(&series["refusals"]["no-endpoints"]), 2.0);
    let bucket = latency::index(10_000);
    let latencies: Vec<_> = series["latency"]
        .as_array()
        .expect("a column")
        .iter()
        .flat_map(|at| at.as_array().expect("pairs"))
        .collect();
    assert_eq!(latencies, [&serde_json::json!([bucket, 20])]);
    let bound = series["latencyBoundsMs"][bucket].as_f64().expect("a bound");
    assert!(bound > 10.0 && bound < 13.0, "{bound}");
    assert_eq!(page["backends"][0]["backend"], "payments-v1.demo");
    let policies = serde_json::json!([{"kind": "HTTPRoute", "namespace": "demo", "name": "canary"}]);
    assert_eq!(page["policies"], policies);
    server.stop().await;
}

#[tokio::test]
async fn what_was_before_is_still_told_by_its_moment() {
    let (_folder, server, _sidecars) = mesh().await;
    eventually("the edge is counted", async || {
        server.json("/v1/mesh").await["edges"][0]["rps"].as_f64().is_some_and(|rps| rps > 0.0)
    })
    .await;
    let now = server.json("/v1/mesh").await["serverTimeMs"].as_i64().expect("a time");
    let before = now - 20 * 60 * 1000;
    assert_eq!(server.json(&format!("/v1/mesh?until={before}")).await["edges"], serde_json::json!([]));
    let address = format!("/v1/mesh/services/demo/payments?seconds=300&until={before}");
    let page = server.json(&address).await;
    assert_eq!((&page["rps"], &page["series"]["stepSeconds"]), (&0.0.into(), &10.into()));
    assert!(page["series"]["timesMs"][29].as_i64().is_some_and(|last| last < before), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn of_a_service_without_workloads_its_callers_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    server.apply_service("payments").await;
    let web = server.sidecar(folder.path(), "web", "web-1").await;
    web.say(Message::Telemetry(outbound())).await;
    let address = "/v1/mesh/services/demo/payments?minutes=1";
    eventually("the callers' requests are shown", async || {
        server.json(address).await["rps"].as_f64().is_some_and(|rps| rps > 0.0)
    })
    .await;
    let page = server.json(address).await;
    assert_eq!((&page["instances"], &page["inMesh"]), (&0.into(), &false.into()));
    assert_eq!(page["successRate"], 0.75);
    let rps = page["series"]["rps"].as_array().expect("a list");
    assert_eq!(rps.iter().filter_map(serde_json::Value::as_f64).sum::<f64>(), 20.0);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_asked_rightly_is_a_problem_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TestServer::start(folder.path()).await;
    let table = [
        ("/v1/mesh/services/demo/nobody", 404, "neither a Service nor a workload nobody"),
        ("/v1/mesh/services/demo/nobody?minutes=0", 400, "from 1 to 30"),
        ("/v1/mesh/services/demo/nobody?minutes=x", 400, "from 1 to 30"),
        ("/v1/mesh/services/demo/nobody?seconds=9", 400, "from 10 to 1800"),
        ("/v1/mesh/services/demo/nobody?seconds=60&minutes=1", 400, "exclude each other"),
        ("/v1/mesh?until=yesterday", 400, "until"),
        ("/v1/mesh/edges/web.demo/cart.demo", 404, "nothing has gone from web.demo to cart.demo"),
        ("/v1/mesh/edges/web.demo/cart.demo?minutes=31", 400, "from 1 to 30"),
    ];
    for (path, status, detail) in table {
        let answer = reqwest::get(format!("{}{path}", server.http)).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let text = answer.text().await.expect("a body");
        assert!(text.contains(detail), "{path}: {text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn workloads_are_listed_with_certificate_and_subscriptions() {
    let (_folder, server, [_payments, web]) = mesh().await;
    web.subscribe("payments.demo").await;
    eventually("it is listed with its subscription", async || {
        server.json("/v1/mesh/workloads").await[1]["subscriptions"] == 1
    })
    .await;
    let workloads = server.json("/v1/mesh/workloads").await;
    let (payments, web) = (&workloads[0], &workloads[1]);
    assert_eq!((&payments["service"], &web["service"]), (&"payments.demo".into(), &serde_json::Value::Null));
    assert_eq!((&web["connected"], &web["ready"]), (&true.into(), &true.into()));
    assert_eq!(web["certificateNotAfterMs"], 2_000_000_000_000_i64);
    assert_eq!((&web["leaseEndsMs"], payments["leaseEndsMs"].is_null()), (&serde_json::Value::Null, true));
    let told = server.json("/v1/mesh/control-plane").await;
    let anchor = &told["trustAnchors"][0];
    assert_eq!(
        (anchor["fingerprint"].as_str().map(str::len), told["trustAnchors"].as_array().map(Vec::len)),
        (Some(64), Some(1))
    );
    assert_eq!(anchor["notAfterMs"], told["authorityNotAfterMs"], "the root signs by itself");
    // Prometheus is told where to find them: at the address that their streams come from.
    let targets = server.json("/v1/mesh/prometheus-targets").await;
    let expected = serde_json::json!({
        "targets": ["127.0.0.1:15020"],
        "labels": {
            "namespace": "demo", "sidecar": payments["workload"], "__meta_pillion_service": "payments.demo",
            "__meta_pillion_version": "0.1.0", "__meta_pillion_zone": "",
        },
    });
    assert_eq!((targets.as_array().map(Vec::len), &targets[0]), (Some(2), &expected));
    server.stop().await;
}

#[tokio::test]
async fn the_event_stream_has_the_page_every_second_and_ends_with_the_server() {
    let (_folder, server, _sidecars) = mesh().await;
    let mut stream = reqwest::get(format!("{}/v1/mesh/events", server.http)).await.expect("a stream");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let two = async {
        while text.matches("event: mesh\ndata: {\"serverTimeMs\":").count() < 2 {
            let chunk = stream.chunk().await.expect("it goes on").expect("it does not end");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    timeout(PATIENCE, two).await.expect("two pages in time");
    let stopping = tokio::spawn(server.stop());
    let rest = async { while stream.chunk().await.ok().flatten().is_some() {} };
    timeout(Duration::from_secs(5), rest).await.expect("the stream ends");
    stopping.await.expect("the server stops in time");
}
