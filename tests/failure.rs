//! What happens where an endpoint, or all of them, fail: breakers by each of their rules, health checks by policy, limits,
//! deadlines of waiting requests, and fallbacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::{eventually, raw};

/// A `TrafficPolicy` of one service; `spec` is YAML in flow style.
fn policy(service: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {service}, namespace: demo }}\n\
         spec: {{ targetRefs: [{{ group: \"\", kind: Service, name: {service} }}], {spec} }}\n"
    )
}

/// A gRPC server whose every call ends with a status, and whose health is what a number says (1 is SERVING).
struct GrpcApp {
    app: App,
    status: Arc<AtomicI32>,
    health: Arc<AtomicI32>,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl GrpcApp {
    async fn start() -> Self {
        let (status, health) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(1)));
        let shared = (Arc::clone(&status), Arc::clone(&health));
        let app = App::start(move |stream| {
            let (status, health) = shared.clone();
            async move {
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                    let healthy = Health { status: health.load(Ordering::Relaxed) };
                    let asked = request.uri().path() == "/grpc.health.v1.Health/Check";
                    let (code, message) = match asked {
                        true => (0, healthy.encode_to_vec()),
                        false => (status.load(Ordering::Relaxed), Vec::new()),
                    };
                    async move {
                        let mut data = vec![0; 5];
                        data[4] = message.len() as u8;
                        data.extend(message);
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from(code));
                        let frames = [Frame::data(Bytes::from(data)), Frame::trailers(trailers)];
                        let frames = frames.map(Ok::<_, std::convert::Infallible>);
                        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
                        let kind = HeaderValue::from_static("application/grpc");
                        response.headers_mut().insert("content-type", kind);
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { app, status, health }
    }
}

/// Waits until the control plane says of a workload that it is ready, or not for a reason that contains `reason`.
async fn until_health(mesh: &Mesh, workload: &str, reason: Option<&str>) {
    eventually(&format!("{workload} is ready, or not: {reason:?}"), async || {
        let workloads = mesh.api.workloads().await.ok()?;
        let found = workloads.into_iter().find(|found| found.workload == workload)?;
        match reason {
            None => found.ready.then_some(()),
            Some(reason) => (!found.ready && found.reason.contains(reason)).then_some(()),
        }
    })
    .await;
}

#[tokio::test]
async fn applications_are_asked_for_their_health_as_the_policy_says() {
    let mesh = Mesh::start().await;
    let (web, rpc) = (HttpApp::start("web-1", Version::Http1).await, GrpcApp::start().await);
    let (listener, store) = crate::support::apps::listener().await;
    let quick = "interval: 50ms, timeout: 5s";
    for (name, protocol, check) in [
        ("web", "http", "http: { path: /healthz, port: 8080, expectedStatuses: [200], host: web.test }"),
        ("rpc", "grpc", "grpc: { service: \"\" }"),
        ("store", "tcp", "tcp: {}, unhealthyThreshold: 3, healthyThreshold: 2, initialDelay: 10ms"),
    ] {
        let check = format!("healthCheck: {{ {check}, {quick} }}");
        mesh.apply(&(service(name, protocol) + &policy(name, &check))).await;
    }
    // It is unwell from the beginning, although it accepts connections.
    web.set_unhealthy(true);
    let by_policy = |spec: SidecarSpec| mesh.sidecar(spec.health_by_policy());
    let _web = by_policy(SidecarSpec::serving("web-1", "web", web.address())).await;
    let told = SidecarSpec::serving("web-2", "web", web.address()).health("none");
    let _told = mesh.sidecar(told).await;
    let _rpc = by_policy(SidecarSpec::serving("rpc-1", "rpc", rpc.app.address)).await;
    let _store = by_policy(SidecarSpec::serving("store-1", "store", store)).await;
    until_health(&mesh, "web-1", Some("/healthz answers 503 (web.demo)")).await;
    until_health(&mesh, "web-2", None).await;
    until_health(&mesh, "rpc-1", None).await;
    until_health(&mesh, "store-1", None).await;

    web.set_unhealthy(false);
    rpc.health.store(2, Ordering::Relaxed);
    drop(listener);
    until_health(&mesh, "web-1", None).await;
    until_health(&mesh, "rpc-1", Some("NOT_SERVING (rpc.demo)")).await;
    until_health(&mesh, "store-1", Some("refused")).await;

    // Another check, from then on.
    let other =
        "healthCheck: { http: { path: /status/404 }, interval: 50ms, timeout: 5s, unhealthyThreshold: 1 }";
    mesh.apply(&policy("web", other)).await;
    until_health(&mesh, "web-1", Some("/status/404 answers 404")).await;
    until_health(&mesh, "web-2", None).await;
    rpc.health.store(1, Ordering::Relaxed);
    until_health(&mesh, "rpc-1", None).await;
}

/// How a sidecar sees one endpoint.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    workload: String,
    breaker: String,
    opened_reason: String,
}

async fn seen(caller: &Sidecar, workload: &str) -> Option<Seen> {
    let admin = format!("http://{}/endpoints", caller.addresses.admin);
    let text = reqwest::Client::builder().no_proxy().build().ok()?.get(&admin).send().await.ok()?;
    let endpoints: Vec<Seen> = serde_json::from_str(&text.text().await.ok()?).ok()?;
    endpoints.into_iter().find(|endpoint| endpoint.workload == workload)
}

/// Waits until the breaker of a workload is open, for a reason that contains `reason`.
async fn until_open(caller: &Sidecar, workload: &str, reason: &str) {
    eventually(&format!("the breaker of {workload} is open: {reason}"), async || {
        let seen = seen(caller, workload).await?;
        (seen.breaker == "open" && seen.opened_reason.contains(reason)).then_some(())
    })
    .await;
}

async fn get(caller: &Sidecar, host: &str, path: &str) -> String {
    raw::exchange(caller.outbound(), &raw::get(host, path)).await
}

/// A gRPC call; its status and the reason of a refusal.
async fn call(caller: &Sidecar, host: &str) -> (tonic::Code, String, String) {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", caller.outbound()))
        .expect("a valid address")
        .origin(format!("http://{host}").parse().expect("a valid origin"));
    let count = crate::grpc::Count::default();
    let ended = match crate::grpc::call_over(endpoint.connect_lazy(), count).await {
        Err(status) => status,
        Ok(response) => {
            let mut stream = response.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break tonic::Status::ok(""),
                    Err(status) => break status,
                }
            }
        }
    };
    let reason = ended.metadata().get("pillion-error").and_then(|value| value.to_str().ok());
    (ended.code(), reason.unwrap_or_default().to_owned(), ended.message().to_owned())
}

/// A breaker that nothing overrides, and that stays open.
fn breaker(rules: &str) -> String {
    format!(
        "circuitBreaker: {{ {rules}, panicPercent: 0, maxEjectedPercent: 100, openTime: {{ base: 1m }} }}"
    )
}

#[tokio::test]
async fn breakers_open_by_each_of_their_rules() {
    let mesh = Mesh::start().await;
    let (web, rpc) = (HttpApp::start("web", Version::Http1).await, GrpcApp::start().await);
    for (name, protocol, rules) in [
        ("codes", "grpc", "consecutiveFailures: 3"),
        ("slow", "http", "slowCalls: { threshold: 50ms, percent: 60 }, failureRatio: { minimumRequests: 2 }"),
        ("own", "http", "consecutiveFailures: 2, failureStatuses: { http: [429] }"),
        ("gone", "http", "consecutiveConnectFailures: 2"),
    ] {
        mesh.apply(&(service(name, protocol) + &policy(name, &breaker(rules)))).await;
    }
    let mut sidecars = Vec::new();
    for (name, address) in
        [("codes", rpc.app.address), ("slow", web.address()), ("own", web.address()), ("gone", web.address())]
    {
        sidecars.push(mesh.sidecar(SidecarSpec::serving(&format!("{name}-1"), name, address)).await);
    }
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    for name in ["codes", "slow", "own", "gone"] {
        caller.until_endpoints(name, 1).await;
    }

    // What blames the caller is no failure of the server.
    for (status, times) in [(5, 4), (13, 3)] {
        rpc.status.store(status, Ordering::Relaxed);
        for _ in 0..times {
            assert_eq!(call(&caller, "codes.demo.mesh").await.0, tonic::Code::from(status));
        }
    }
    until_open(&caller, "codes-1", "3 consecutive failures").await;
    let (code, reason, message) = call(&caller, "codes.demo.mesh").await;
    assert_eq!(code, tonic::Code::Unavailable, "{message}");
    assert!(reason.starts_with("breakers-open"), "{reason}");
    assert!(message.contains("codes-1") && message.contains("3 consecutive failures"), "{message}");

    for _ in 0..2 {
        assert_eq!(
            raw::status(&get(&caller, "slow.demo.mesh", "/after-ms/60").await),
            200,
            "it is a success"
        );
    }
    until_open(&caller, "slow-1", "took 50ms or longer").await;

    for (path, times) in [("/status/500", 4), ("/status/429", 2)] {
        for _ in 0..times {
            let answer = get(&caller, "own.demo.mesh", path).await;
            assert!(raw::refusal(&answer).is_empty(), "{answer}");
        }
    }
    until_open(&caller, "own-1", "2 consecutive failures").await;

    // Its sidecar is killed, with its lease still running.
    drop(sidecars.pop());
    eventually("requests are refused because its breaker is open", async || {
        let answer = get(&caller, "gone.demo.mesh", "/who").await;
        (raw::refusal(&answer) == "breakers-open").then_some(())
    })
    .await;
    until_open(&caller, "gone-1", "could not connect").await;
}
