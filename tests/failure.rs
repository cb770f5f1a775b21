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
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::{App, HttpApp, Version, refusing};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::{eventually, raw, soon};

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

/// Waits until so many requests or connections to a service are under way.
async fn until_in_flight(caller: &Sidecar, target: &str, count: f64) {
    eventually(&format!("{count} requests to {target} are under way"), async || {
        let labels = [("direction", "outbound"), ("target", target)];
        (caller.metrics().await.sum("pillion_requests_in_flight", &labels) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_waiting_request_has_its_own_deadline_and_is_told_what_is_missing() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("later-1", Version::Http1).await;
    let (_held, nobody) = refusing();
    for (name, connections) in [
        ("none", "queueTimeout: 50ms"),
        ("unready", "queueTimeout: 50ms"),
        ("later", "queueTimeout: 20s, maxPending: 1"),
    ] {
        mesh.apply(&(service(name, "http") + &policy(name, &format!("connections: {{ {connections} }}"))))
            .await;
    }
    let spec = SidecarSpec::serving("unready-1", "unready", nobody).health(&format!("tcp://{nobody}"));
    let _unready = mesh.sidecar(spec).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    until_health(&mesh, "unready-1", Some("refused")).await;
    caller.until_endpoints("unready", 0).await;

    let answer = get(&caller, "none.demo.mesh", "/").await;
    assert_eq!(raw::refusal(&answer), "no-endpoints", "{answer}");
    assert!(answer.contains("none.demo, waited"), "{answer}");
    eventually("the refusal names who is not ready", async || {
        let answer = get(&caller, "unready.demo.mesh", "/").await;
        (raw::refusal(&answer) == "no-ready-endpoints" && answer.contains("unready.demo: unready-1, waited"))
            .then_some(())
    })
    .await;

    // One waits; the queue has no room for another; and the first is served as soon as somebody is there.
    let first = raw::begin(caller.outbound(), &raw::get("later.demo.mesh", "/who")).await;
    until_in_flight(&caller, "later.demo", 1.0).await;
    let answer = get(&caller, "later.demo.mesh", "/who").await;
    assert_eq!(raw::refusal(&answer), "queue-full", "{answer}");
    eventually("it is shown that one waits", async || {
        let metrics = caller.metrics().await;
        let waiting = metrics.max("pillion_service_pending_requests", &[("target", "later.demo")]);
        (waiting == Some(1.0)).then_some(())
    })
    .await;
    let by = "waiting for later.demo: 1 at a time, connections.maxPending of TrafficPolicy demo/later";
    assert!(answer.contains(by), "{answer}");
    let _later = mesh.sidecar(SidecarSpec::serving("later-1", "later", app.address())).await;
    let answer = soon("the answer to the request that waited", async {
        let (mut first, mut answer) = (first, String::new());
        first.read_to_string(&mut answer).await.expect("an answer");
        answer
    })
    .await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "later-1"), "{answer}");
}

#[tokio::test]
async fn a_fallback_takes_over_and_says_so() {
    let mesh = Mesh::start().await;
    let (spare, echo) = (HttpApp::start("spare-1", Version::Http1).await, App::tcp_echo().await);
    let rpc = GrpcApp::start().await;
    // Nobody waits where something else is there.
    let spare_takes_over =
        "connections: { queueTimeout: 60s }, fallback: { backendRef: { name: spare, port: 80 } }";
    let services = [
        ("down", "http", spare_takes_over),
        (
            "fixed",
            "http",
            "connections: { queueTimeout: 60s }, fallback: { response: { status: 200, body: \"[]\", \
             contentType: application/json, headers: [{ name: x-degraded, value: \"yes\" }] } }",
        ),
        (
            "rpc",
            "grpc",
            "connections: { queueTimeout: 50ms }, fallback: { response: { grpcStatus: 9, grpcMessage: \"later, 100 %\" } }",
        ),
        (
            "broken",
            "http",
            "circuitBreaker: { consecutiveFailures: 1, openTime: { base: 1m } }, fallback: { response: { status: 218 } }",
        ),
        (
            "limited",
            "http",
            "connections: { maxRequests: 1 }, fallback: { on: [LimitReached], backendRef: { name: spare, port: 80 } }",
        ),
        ("gone", "http", "fallback: { on: [ConnectFailure], backendRef: { name: spare, port: 80 } }"),
        (
            "one",
            "http",
            "connections: { queueTimeout: 50ms }, fallback: { backendRef: { name: other, port: 80 } }",
        ),
        (
            "other",
            "http",
            "connections: { queueTimeout: 50ms }, fallback: { backendRef: { name: one, port: 80 } }",
        ),
        (
            "bytes",
            "tcp",
            "connections: { queueTimeout: 60s }, fallback: { backendRef: { name: echo, port: 80 } }",
        ),
        ("spare", "http", ""),
        ("echo", "tcp", ""),
    ];
    // All at once: some name others that come later.
    let documents = services.map(|(name, protocol, spec)| {
        let policy = if spec.is_empty() { String::new() } else { policy(name, spec) };
        service(name, protocol) + &policy
    });
    mesh.apply(&documents.join("---\n")).await;
    let (_held, nobody) = refusing();
    let mut sidecars = Vec::new();
    for (name, address) in [
        ("spare", spare.address()),
        ("echo", echo.address),
        ("broken", spare.address()),
        ("limited", spare.address()),
        ("gone", nobody),
    ] {
        sidecars.push(mesh.sidecar(SidecarSpec::serving(&format!("{name}-1"), name, address)).await);
    }
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("bytes.demo:80")).await;
    for name in ["spare", "echo", "broken", "limited", "gone"] {
        caller.until_endpoints(name, 1).await;
    }
    let fallback = |answer: &str| raw::header(answer, "pillion-fallback").unwrap_or_default().to_owned();

    // Another service, with the request's body.
    let post =
        "POST /echo HTTP/1.1\r\nhost: down.demo.mesh\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let answer = raw::exchange(caller.outbound(), post).await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "hello"), "{answer}");
    assert_eq!(fallback(&answer), "no-endpoints; to=spare.demo");
    // Nobody listens behind the sidecar of this one.
    let answer = get(&caller, "gone.demo.mesh", "/who").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "spare-1"), "{answer}");
    assert_eq!(fallback(&answer), "application-unreachable; to=spare.demo");
    // The same with a body, of which something has been sent there already.
    let post = format!(
        "POST /sum HTTP/1.1\r\nhost: gone.demo.mesh\r\ncontent-length: 5000\r\nconnection: close\r\n\r\n{}",
        "x".repeat(5000)
    );
    let answer = raw::exchange(caller.outbound(), &post).await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "5000"), "{answer}");

    // An answer that is always the same, to HTTP and to gRPC.
    let answer = get(&caller, "fixed.demo.mesh", "/").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "[]"), "{answer}");
    assert_eq!(raw::header(&answer, "content-type"), Some("application/json"));
    assert_eq!(raw::header(&answer, "x-degraded"), Some("yes"));
    assert_eq!(fallback(&answer), "no-endpoints; to=response");
    let (code, _, message) = call(&caller, "rpc.demo.mesh").await;
    assert_eq!((code, message.as_str()), (tonic::Code::FailedPrecondition, "later, 100 %"));

    // With a fallback for that, the breaker of the only endpoint opens, and nothing overrides it.
    let answer = get(&caller, "broken.demo.mesh", "/status/500").await;
    assert_eq!((raw::status(&answer), fallback(&answer)), (500, String::new()), "{answer}");
    eventually("the fixed response comes instead", async || {
        let answer = get(&caller, "broken.demo.mesh", "/who").await;
        (raw::status(&answer) == 218 && fallback(&answer) == "breakers-open; to=response").then_some(())
    })
    .await;

    let slow = raw::begin(caller.outbound(), &raw::get("limited.demo.mesh", "/after-ms/30000")).await;
    until_in_flight(&caller, "limited.demo", 1.0).await;
    let answer = get(&caller, "limited.demo.mesh", "/who").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "spare-1"), "{answer}");
    assert_eq!(fallback(&answer), "too-many-requests; to=spare.demo");
    drop(slow);

    // One step, never a circle.
    let answer = get(&caller, "one.demo.mesh", "/").await;
    assert_eq!(raw::refusal(&answer), "no-endpoints", "{answer}");
    assert!(answer.contains("nor could the fallback other.demo"), "{answer}");

    // Bytes.
    let mut stream = tokio::net::TcpStream::connect(caller.addresses.listeners["bytes.demo:80"])
        .await
        .expect("it listens");
    soon("an echo", async {
        let mut word = [0; 5];
        stream.write_all(b"hello").await.expect("it is open");
        stream.read_exact(&mut word).await.expect("an echo");
        assert_eq!(&word, b"hello");
    })
    .await;

    let metrics = caller.metrics().await;
    let took_over = |target, reason, to, result| {
        let labels = [("target", target), ("reason", reason), ("to", to), ("result", result)];
        metrics.sum("pillion_fallbacks_total", &labels)
    };
    assert_eq!(took_over("down.demo", "no-endpoints", "spare.demo", "served"), 1.0);
    assert_eq!(took_over("fixed.demo", "no-endpoints", "response", "served"), 1.0);
    assert_eq!(took_over("one.demo", "no-endpoints", "other.demo", "failed"), 1.0);
    assert_eq!(took_over("bytes.demo", "no-endpoints", "echo.demo", "served"), 1.0);
    let edge = [("target", "down.demo"), ("backend", "spare.demo"), ("workload", "spare-1")];
    assert_eq!(metrics.sum("pillion_requests_total", &edge), 1.0, "it counts to who has served it");
    drop(rpc);
}

#[tokio::test]
async fn connections_to_a_service_are_bounded_and_renewed() {
    let mesh = Mesh::start().await;
    let (web, echo) = (HttpApp::start("web", Version::Http1).await, App::tcp_echo().await);
    for (name, protocol, connections) in [
        ("few", "http", "maxConnections: 1, queueTimeout: 20s"),
        ("renewed", "http", "maxRequestsPerConnection: 2"),
        ("bytes", "tcp", "maxConnections: 1, queueTimeout: 50ms"),
    ] {
        mesh.apply(&(service(name, protocol) + &policy(name, &format!("connections: {{ {connections} }}"))))
            .await;
    }
    let mut sidecars = Vec::new();
    for (workload, name, address) in [
        ("few-1", "few", web.address()),
        ("few-2", "few", web.address()),
        ("renewed-1", "renewed", web.address()),
        ("bytes-1", "bytes", echo.address),
    ] {
        sidecars.push(mesh.sidecar(SidecarSpec::serving(workload, name, address)).await);
    }
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("bytes.demo:80")).await;
    for (name, count) in [("few", 2), ("renewed", 1), ("bytes", 1)] {
        caller.until_endpoints(name, count).await;
    }

    // What is idle to one makes room for the other.
    for _ in 0..20 {
        assert_eq!(raw::status(&get(&caller, "few.demo.mesh", "/who").await), 200);
    }
    let metrics = caller.metrics().await;
    for workload in ["few-1", "few-2"] {
        let labels = [("target", "few.demo"), ("workload", workload), ("status", "2xx")];
        assert!(metrics.sum("pillion_requests_total", &labels) > 0.0, "{workload} has served some");
    }

    for _ in 0..6 {
        assert_eq!(raw::status(&get(&caller, "renewed.demo.mesh", "/who").await), 200);
    }
    let handshakes = sidecars[2].metrics().await.sum("pillion_tls_handshakes_total", &[("side", "server")]);
    assert!(handshakes >= 3.0, "{handshakes} connections for six requests");

    let listener = caller.addresses.listeners["bytes.demo:80"];
    let echoes = async || {
        let mut stream = tokio::net::TcpStream::connect(listener).await.expect("it listens");
        let mut word = [0; 5];
        let sent = stream.write_all(b"hello").await;
        let answered = sent.is_ok() && stream.read_exact(&mut word).await.is_ok();
        answered.then_some(stream)
    };
    let first = soon("an echo", echoes()).await.expect("the first connection is taken");
    eventually("it is shown as open", async || {
        let metrics = caller.metrics().await;
        let open = metrics.max("pillion_service_connections", &[("target", "bytes.demo")]);
        (open == Some(1.0)).then_some(())
    })
    .await;
    assert!(soon("an end", echoes()).await.is_none(), "the second is not");
    let refused = caller.metrics().await.sum("pillion_refusals_total", &[("reason", "connection-limit")]);
    assert_eq!(refused, 1.0);
    drop(first);
    eventually("there is room again", async || echoes().await.map(drop)).await;
}
