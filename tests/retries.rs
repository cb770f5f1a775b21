//! What is sent again and what is not, within which bounds, and how long a caller's patience reaches.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::App;
use crate::support::mesh::{Mesh, NAMESPACE, Sidecar, SidecarSpec};
use crate::support::{eventually, http2, raw, soon};

/// One service of the same workloads for each policy.
const SERVICES: [(&str, &[&str]); 10] = [
    ("plain", &["timeouts: { request: 1m }"]),
    ("safe", &["retry: { attempts: 2, backoff: { base: 1ms, max: 1ms } }"]),
    ("all", &["retry: { nonIdempotent: true, maxBodyBytes: 1000, backoff: { base: 1ms, max: 1ms } }"]),
    (
        "tight",
        &[
            "retry: { backoff: { base: 1ms, max: 1ms }, budget: { percent: 20, minPerSecond: 0, window: 1m } }",
        ],
    ),
    ("hedged", &["hedge: { after: 50ms, budget: { minPerSecond: 100 } }"]),
    ("learned", &["hedge: { percentile: 50, budget: { percent: 100, minPerSecond: 1000 } }"]),
    (
        "judged",
        &[
            "hedge: { after: 50ms, budget: { minPerSecond: 100 } }",
            "circuitBreaker: { consecutiveFailures: 1, openTime: { base: 30s } }",
        ],
    ),
    (
        "patient",
        &[
            "retry: { maxRetryAfter: 1m }",
            "circuitBreaker: { consecutiveFailures: 1, openTime: { base: 30s } }",
        ],
    ),
    // By a rule of a route alone.
    ("ruled", &["timeouts: { request: 1m }"]),
    // What its route leads to the one that is hedged.
    ("led", &["timeouts: { request: 1m }"]),
];

const RULED: &str = "---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: ruled, namespace: demo}, \
                     spec: {parentRefs: [{group: '', kind: Service, name: ruled}], rules: [{retry: {codes: [500], attempts: 3, \
                     backoff: 1ms}, backendRefs: [{name: ruled, port: 80}]}]}}\n\
                     ---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: led, namespace: demo}, \
                     spec: {parentRefs: [{group: '', kind: Service, name: led}], rules: [{backendRefs: [{name: hedged, port: 80}]}]}}\n";

fn documents(app_protocol: &str) -> String {
    let mut yaml = String::new();
    for (name, lines) in SERVICES {
        yaml += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\nspec:\n  \
             selector: {{ app: app }}\n  \
             ports: [{{ name: main, port: 80, targetPort: 8080, appProtocol: {app_protocol} }}]\n\
             ---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\n\
             spec:\n  targetRefs: [{{ group: \"\", kind: Service, name: {name} }}]\n  {}\n",
            lines.join("\n  ")
        );
    }
    if app_protocol == "http" { yaml + RULED } else { yaml }
}

/// One request as an application saw it.
#[derive(Debug, Clone)]
struct Seen {
    attempt: Option<u32>,
    timeout_ms: Option<u64>,
    grpc_timeout: Option<String>,
    /// Attempts before it, as gRPC tells them.
    before: Option<u32>,
    length: usize,
}

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn has_further(&self) -> bool {
        self.0.lock().expect("no panic in there").iter().any(|seen| seen.attempt.is_some())
    }

    /// What has been seen since it was last asked.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().expect("no panic in there"))
    }
}

/// How long `/steady` takes.
const STEADY: Duration = Duration::from_millis(100);

/// Fails on first attempts only, in the way that the path says.
async fn answer(
    log: Log,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/unread" && !head.headers.contains_key("x-pillion-attempt") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let attempt = text("x-pillion-attempt").and_then(|number| number.parse().ok());
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    log.0.lock().expect("no panic in there").push(Seen {
        attempt,
        timeout_ms: text("x-pillion-timeout-ms").and_then(|number| number.parse().ok()),
        grpc_timeout: text("grpc-timeout"),
        before: text("grpc-previous-rpc-attempts").and_then(|number| number.parse().ok()),
        length: body.len(),
    });
    let mut response = Response::new(Full::new(body).boxed_unsync());
    let grpc = |body| {
        let mut response = Response::new(body);
        response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        response
    };
    let code = if attempt.is_none() { "14" } else { "0" }.parse().expect("a value");
    match path.as_str() {
        "/down" => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        "/broken" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "/test.Flaky/Call" => {
            response = grpc(Full::default().boxed_unsync());
            response.headers_mut().insert("grpc-status", code);
        }
        // As most servers do: headers, and trailers right after them.
        "/test.Flaky/Late" => {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), code)]);
            let frames = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
            response = grpc(StreamBody::new(frames).boxed_unsync());
        }
        "/test.Flaky/Silent" => {
            response = grpc(StreamBody::new(futures_util::stream::pending()).boxed_unsync());
        }
        "/steady" => tokio::time::sleep(STEADY).await,
        "/worse" if attempt.is_some() => tokio::time::sleep(Duration::from_millis(500)).await,
        _ if attempt.is_some() => {}
        // Once it has company, which takes longer.
        "/worse" => {
            while !log.has_further() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        "/flaky" => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        "/slow" => tokio::time::sleep(Duration::from_secs(60)).await,
        "/late" => tokio::time::sleep(STEADY * 10).await,
        _ => {
            let after = |seconds| SystemTime::now() + Duration::from_secs(seconds);
            if let Some(seconds) = path.strip_prefix("/later/") {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert("retry-after", seconds.parse().expect("a value"));
            } else if let Some(seconds) = path.strip_prefix("/until/") {
                let date = httpdate::fmt_http_date(after(seconds.parse().expect("a number")));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert("retry-after", date.parse().expect("a value"));
            } else if let Some(status) = path.strip_prefix("/status/") {
                *response.status_mut() = status.parse().expect("a status");
            }
        }
    }
    Ok(response)
}

async fn app(log: &Log) -> App {
    let log = log.clone();
    App::start(move |stream| {
        let log = log.clone();
        async move {
            let mut start = [0; 3];
            let is_http2 = stream.peek(&mut start).await.is_ok() && start == *b"PRI";
            let service = service_fn(move |request| answer(log.clone(), request));
            let stream = TokioIo::new(stream);
            let _ = match is_http2 {
                false => hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await,
                true => {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.serve_connection(stream, service).await
                }
            };
        }
    })
    .await
}

/// Two replicas, and somebody who calls them.
struct World {
    log: Log,
    caller: Sidecar,
    _callees: Vec<Sidecar>,
    _apps: Vec<App>,
    mesh: Mesh,
}

impl World {
    async fn start(app_protocol: &str) -> Self {
        let mesh = Mesh::start().await;
        mesh.apply(&documents(app_protocol)).await;
        let log = Log::default();
        let (mut apps, mut callees) = (Vec::new(), Vec::new());
        for name in ["app-1", "app-2"] {
            let app = app(&log).await;
            callees.push(mesh.sidecar(SidecarSpec::serving(name, "app", app.address)).await);
            apps.push(app);
        }
        let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
        mesh.until_ready(&[&caller, &callees[0], &callees[1]]).await;
        for (name, _) in SERVICES {
            caller.until_endpoints(name, 2).await;
        }
        log.take();
        Self { log, caller, _callees: callees, _apps: apps, mesh }
    }

    /// The answer, and what the applications saw meanwhile.
    async fn send(
        &self,
        method: Method,
        service: &str,
        path: &str,
        further: &str,
        body: &str,
    ) -> (String, Vec<Seen>) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {service}.demo.mesh\r\nconnection: close\r\n{further}content-length: {length}\r\n\r\n{body}"
        );
        let answer = raw::exchange(self.caller.outbound(), &request).await;
        (answer, self.log.take())
    }

    async fn get(&self, service: &str, path: &str) -> (String, Vec<Seen>) {
        self.send(Method::GET, service, path, "", "").await
    }

    async fn until_counted(&self, metric: &str, labels: &[(&str, &str)], expected: f64) {
        eventually(&format!("{metric} {labels:?} is {expected}"), async || {
            (self.caller.metrics().await.sum(metric, labels) == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_may_be_repeated_is_and_nothing_else() {
    let world = World::start("http").await;
    let retries = |service: &'static str| [("target", service)];

    let (answer, seen) = world.get("plain", "/flaky").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 1), "nothing asks for retries: {answer}");

    let (answer, seen) = world.get("safe", "/flaky").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert_eq!(seen.iter().map(|seen| seen.attempt).collect::<Vec<_>>(), [None, Some(2)]);
    world.until_counted("pillion_retries_total", &retries("safe.demo"), 1.0).await;
    world.until_counted("pillion_retries_recovered_total", &retries("safe.demo"), 1.0).await;

    let (answer, seen) = world.send(Method::POST, "safe", "/flaky", "", "pay").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 1), "a POST is never repeated unasked: {answer}");

    let (answer, seen) = world.get("safe", "/down").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 3), "{answer}");
    assert_eq!(raw::header(&answer, "pillion-attempts"), Some("3"), "{answer}");

    // Whoever is asked by somebody who repeats leaves the repeating to him.
    let (answer, seen) = world.send(Method::GET, "safe", "/down", "x-pillion-attempt: 2\r\n", "").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 1), "{answer}");

    // A body is kept up to its bound.
    let (answer, seen) = world.send(Method::POST, "all", "/flaky", "", "pay").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "pay"), "{answer}");
    assert_eq!(
        seen.iter().map(|seen| (seen.attempt, seen.length)).collect::<Vec<_>>(),
        [(None, 3), (Some(2), 3)]
    );
    let (answer, seen) = world.send(Method::POST, "all", "/flaky", "", &"x".repeat(5000)).await;
    assert_eq!((raw::status(&answer), seen.len(), seen[0].length), (503, 1, 5000), "{answer}");
    world
        .until_counted("pillion_retries_refused_total", &[("target", "all.demo"), ("reason", "body")], 1.0)
        .await;

    // The callee says when.
    let (answer, seen) = world.get("safe", "/later/0").await;
    assert_eq!((raw::status(&answer), seen.len()), (200, 2), "{answer}");
    let (answer, seen) = world.get("safe", "/later/3600").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 1), "{answer}");
    assert_eq!(raw::header(&answer, "retry-after"), Some("3600"), "{answer}");
    // Also by a date, whose second may be over already.
    let (answer, seen) = world.get("safe", "/until/0").await;
    assert_eq!((raw::status(&answer), seen.len()), (200, 2), "{answer}");
    let (answer, seen) = world.get("safe", "/until/3600").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 1), "{answer}");
    let refused = [("target", "safe.demo"), ("reason", "retry-after")];
    world.until_counted("pillion_retries_refused_total", &refused, 2.0).await;

    // A rule of a route asks for retries by itself: for its own statuses, as often as it says.
    let (answer, seen) = world.get("ruled", "/status/500").await;
    assert_eq!((raw::status(&answer), seen.len()), (200, 2), "{answer}");
    let (answer, seen) = world.get("ruled", "/status/503").await;
    assert_eq!((raw::status(&answer), seen.len()), (503, 1), "{answer}");
    let (answer, seen) = world.get("ruled", "/broken").await;
    assert_eq!((raw::status(&answer), seen.len()), (500, 4), "{answer}");
    let (answer, seen) = world.send(Method::POST, "ruled", "/status/500", "", "pay").await;
    assert_eq!((raw::status(&answer), seen.len()), (500, 1), "{answer}");
}

#[tokio::test]
async fn a_total_failure_is_not_multiplied() {
    let world = World::start("http").await;
    let mut seen = 0;
    for _ in 0..100 {
        let (answer, reached) = world.get("tight", "/down").await;
        // Breakers may open; what is refused then is no load at all.
        assert_eq!(raw::status(&answer), 503, "{answer}");
        seen += reached.len();
    }
    assert!(seen <= 120, "100 requests became {seen}");
    let refused = world.caller.metrics().await;
    let refused =
        refused.sum("pillion_retries_refused_total", &[("target", "tight.demo"), ("reason", "budget")]);
    assert!(refused > 0.0, "the budget has refused some");
    assert!(
        world.caller.metrics().await.max("pillion_retry_budget_left", &[("target", "tight.demo")])
            < Some(20.0)
    );
}

#[tokio::test]
async fn a_slow_request_is_hedged_and_the_loser_is_given_up() {
    let world = World::start("http").await;
    let (answer, seen) = world.get("hedged", "/slow").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    // On a busy machine the first may arrive last, or be given up on its way.
    assert!(seen.len() <= 2 && seen.iter().any(|seen| seen.attempt == Some(2)), "{seen:?}");
    world.until_counted("pillion_hedges_total", &[("target", "hedged.demo"), ("outcome", "won")], 1.0).await;
    // It frees its place, at both sidecars.
    world.until_counted("pillion_requests_in_flight", &[("direction", "outbound")], 0.0).await;
    for callee in &world._callees {
        eventually("nothing is under way", async || {
            let metrics = callee.metrics().await;
            (metrics.sum("pillion_requests_in_flight", &[("direction", "inbound")]) == 0.0).then_some(())
        })
        .await;
    }
    // Where a route has led it, it is counted there.
    let labels = [("target", "led.demo"), ("backend", "hedged.demo"), ("outcome", "won")];
    eventually("a hedge has won", async || {
        let (answer, _) = world.get("led", "/slow").await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
        (world.caller.metrics().await.sum("pillion_hedges_total", &labels) > 0.0).then_some(())
    })
    .await;
    eventually("the edge shows it", async || {
        let edges = world.mesh.api.mesh().await.ok()?.edges;
        let led = edges.into_iter().find(|edge| edge.to == "led.demo")?;
        let hedges = led.repeats?.hedges;
        (led.backend.as_deref() == Some("hedged.demo") && hedges > 0).then_some(())
    })
    .await;
    // One that reads nothing of a large body does not hold up the other.
    let body = "x".repeat(8 * 1024 * 1024);
    let length = body.len();
    let head = "PUT /unread HTTP/1.1\r\nhost: judged.demo.mesh\r\nconnection: close\r\ncontent-length";
    let mut upload =
        raw::begin(world.caller.outbound(), &format!("{head}: {length}\r\n\r\n{}", &body[..1024])).await;
    // More of it than is kept would have gone to the first alone.
    eventually("both are under way", async || {
        let mut under_way = 0.0;
        for callee in &world._callees {
            under_way +=
                callee.metrics().await.sum("pillion_requests_in_flight", &[("direction", "inbound")]);
        }
        (under_way == 2.0).then_some(())
    })
    .await;
    soon("the rest is taken", upload.write_all(&body.as_bytes()[1024..])).await.expect("it is carried");
    let mut answer = String::new();
    soon("an answer", upload.read_to_string(&mut answer)).await.expect("an answer");
    assert_eq!(raw::status(&answer), 200, "{answer:.500}");
    assert_eq!(world.log.take().iter().map(|seen| seen.length).max(), Some(length));
    let patience = "x-pillion-timeout-ms: 300\r\n";
    let (answer, seen) = world.send(Method::POST, "hedged", "/slow", patience, "pay").await;
    assert_eq!((raw::refusal(&answer), seen.len()), ("deadline-exceeded", 1), "{answer}");
}

#[tokio::test]
async fn hedges_do_not_learn_from_their_own_haste() {
    let world = World::start("http").await;
    let client = world.caller.client();
    let ask = async |path: &str, times: usize| {
        let request = client.get(format!("http://learned.demo.mesh{path}"));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..times {
            asking.spawn(request.try_clone().expect("it has no body").send());
        }
        while let Some(answer) = soon("an answer", asking.join_next()).await {
            let status = answer.expect("no panic").expect("an answer").status();
            assert_eq!(status, 200, "{path}");
        }
    };
    // Enough for every worker to know how long it takes.
    for _ in 0..4 {
        ask("/steady", 100).await;
    }
    // What takes longer than half of them do is hedged, and no sooner.
    let began = Instant::now();
    let (answer, seen) = world.get("learned", "/slow").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert!(began.elapsed() >= STEADY * 3 / 4, "hedged after {:?}", began.elapsed());
    assert!(seen.iter().any(|seen| seen.attempt == Some(2)), "{seen:?}");
    // The first attempts take very long, those beside them no time; how long the first would take is not known from that.
    for _ in 0..8 {
        ask("/late", 100).await;
    }
    let began = Instant::now();
    let (answer, _) = world.get("learned", "/late").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert!(began.elapsed() >= STEADY * 3 / 4, "hedged after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_failure_is_told_to_its_breaker_whatever_becomes_of_the_request() {
    let world = World::start("http").await;
    let opened = "pillion_breaker_opened_total";
    // The one that it was hedged with hides it from the caller, and from nobody else.
    let (answer, seen) = world.get("judged", "/worse").await;
    assert_eq!((raw::status(&answer), seen.len()), (200, 2), "{answer}");
    world.until_counted(opened, &[("target", "judged.demo")], 1.0).await;

    // It is told while the caller still waits for the next attempt, a minute off.
    let waiting = raw::begin(world.caller.outbound(), &raw::get("patient.demo.mesh", "/later/60")).await;
    world.until_counted(opened, &[("target", "patient.demo")], 1.0).await;
    assert_eq!(world.log.take().len(), 1);
    drop(waiting);
}

#[tokio::test]
async fn grpc_is_judged_by_its_status_and_repeated_only_on_request() {
    let world = World::start("grpc").await;
    let connection = http2::connect(world.caller.outbound()).await;
    let begin = async |service: &str, method: &str| {
        soon("the head of an answer", async {
            let request = Request::post(format!("http://{service}.demo.mesh/test.Flaky/{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-timeout", "20S")
                .header("grpc-previous-rpc-attempts", "1")
                .body(())
                .expect("a valid request");
            let mut connection = connection.clone().ready().await.expect("it takes a request");
            let (response, mut body) = connection.send_request(request, false).expect("it is sent");
            body.send_data(Bytes::from_static(&[0, 0, 0, 0, 0]), true).expect("an empty message");
            response.await.expect("an answer")
        })
        .await
    };
    let call = async |service: &str, method: &str| {
        let mut response = begin(service, method).await;
        let trailers = soon("trailers", response.body_mut().trailers()).await.expect("the call ends well");
        let status = response.headers().get("grpc-status").cloned();
        let status = status.or_else(|| trailers?.get("grpc-status").cloned()).expect("a status");
        status.to_str().expect("a number").to_owned()
    };
    let mut all = Vec::new();
    for method in ["Call", "Late"] {
        assert_eq!(call("safe", method).await, "14", "gRPC's calls are POSTs");
        assert_eq!(world.log.take().len(), 1);
        assert_eq!(call("all", method).await, "0", "{method}");
        let seen = world.log.take();
        assert_eq!(
            seen.iter().map(|seen| (seen.attempt, seen.before, seen.length)).collect::<Vec<_>>(),
            // One was the client's own.
            [(None, Some(1), 5), (Some(2), Some(2), 5)]
        );
        all.extend(seen);
    }
    // Nobody waits for the first message of a stream.
    let silent = begin("all", "Silent").await;
    assert_eq!(silent.status(), StatusCode::OK);
    drop(silent);
    for seen in all {
        let left: u64 = seen
            .grpc_timeout
            .as_deref()
            .and_then(|text| text.strip_suffix('m')?.parse().ok())
            .expect("in ms");
        assert!((1..=20_000).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn patience_is_told_from_hop_to_hop_and_shortened() {
    let mesh = Mesh::start().await;
    let log = Log::default();
    let back = app(&log).await;
    // It spends some of the time, and passes on what is left.
    let outbound = Arc::new(OnceLock::<SocketAddr>::new());
    let front_log = Log::default();
    let front = {
        let (outbound, log) = (outbound.clone(), front_log.clone());
        App::start(move |stream| {
            let (outbound, log) = (outbound.clone(), log.clone());
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (outbound, log) = (outbound.clone(), log.clone());
                    async move {
                        let told = request.headers().get("x-pillion-timeout-ms").cloned();
                        let told = told.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                        let path = request.uri().path().to_owned();
                        let _ = answer(log, request).await;
                        let left = told.map_or(String::new(), |told| {
                            format!("x-pillion-timeout-ms: {}\r\n", told - 100)
                        });
                        let request = format!(
                            "GET {path} HTTP/1.1\r\nhost: back.demo.mesh\r\nconnection: close\r\n{left}\r\n"
                        );
                        let to = *outbound.get().expect("the sidecar is there");
                        let answer = raw::exchange(to, &request).await;
                        let mut response =
                            Response::new(Full::new(Bytes::from(raw::refusal(&answer).to_owned())));
                        *response.status_mut() =
                            StatusCode::from_u16(raw::status(&answer)).expect("a status");
                        Ok::<_, Infallible>(response)
                    }
                });
                let stream = TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
            }
        })
        .await
    };
    mesh.apply_service("front", "http").await;
    mesh.apply_service("back", "http").await;
    let front_sidecar = mesh.sidecar(SidecarSpec::serving("front-1", "front", front.address)).await;
    outbound.set(front_sidecar.outbound()).expect("once");
    let back_sidecar = mesh.sidecar(SidecarSpec::serving("back-1", "back", back.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &front_sidecar, &back_sidecar]).await;
    caller.until_endpoints("front", 1).await;
    front_sidecar.until_endpoints("back", 1).await;
    log.take();
    front_log.take();

    let ask = async |path: &str, patience: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: front.demo.mesh\r\nconnection: close\r\nx-pillion-timeout-ms: {patience}\r\n\r\n"
        );
        raw::exchange(caller.outbound(), &request).await
    };
    let answer = ask("/", "20000").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    let (front, back) = (front_log.take(), log.take());
    let (front, back) = (front[0].timeout_ms.expect("told"), back[0].timeout_ms.expect("told"));
    assert!(front <= 20_000 && back <= front - 100, "20000, then {front}, then {back}");

    // Who will not wait is not worked for.
    let answer = ask("/", "0").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (504, "deadline-exceeded"), "{answer}");
    assert_eq!(front_log.take().len(), 0);

    // And who has waited long enough is told by whoever is next to him.
    let answer = ask("/slow", "400").await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (504, "deadline-exceeded"), "{answer}");
    assert!(
        raw::header(&answer, "pillion-error").is_some_and(|error| error.contains("workload=client")),
        "{answer}"
    );
    eventually("nothing is under way at the far end", async || {
        let metrics = back_sidecar.metrics().await;
        (metrics.sum("pillion_requests_in_flight", &[("direction", "inbound")]) == 0.0).then_some(())
    })
    .await;
}
