//! Where a request's time went: a known delay in each segment of its way in turn, and it is found in that segment; and what
//! the sidecars tell each other for it is heard by nobody else.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::grpc::{self, Count};
use crate::limits::until_told;
use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Sidecar, SidecarSpec, pillion};
use crate::support::pair::Pair;
use crate::support::relay::Relay;
use crate::support::{eventually, raw, soon};

/// Large beside what a busy machine takes for everything else.
const DELAY: Duration = Duration::from_millis(300);
/// Rounds in which a busy machine may spoil the figures.
const ROUNDS: usize = 6;

/// Seconds by segment, and requests, as one sidecar has counted them.
#[derive(Debug, Default, Clone)]
struct Spent {
    requests: f64,
    by_segment: BTreeMap<String, f64>,
}

impl Spent {
    async fn of(sidecar: &Sidecar, direction: &str, target: &str) -> Self {
        let metrics = sidecar.metrics().await;
        let labels = [("direction", direction), ("target", target)];
        let sums = metrics.matching("pillion_hop_duration_seconds_sum", &labels);
        let mut by_segment = BTreeMap::new();
        for sample in sums {
            *by_segment.entry(sample.label("segment").to_owned()).or_default() += sample.value;
        }
        Self { requests: metrics.sum("pillion_request_duration_seconds_count", &labels), by_segment }
    }

    fn since(&self, before: &Self) -> Self {
        let earlier = |segment: &str| before.by_segment.get(segment).copied().unwrap_or_default();
        let by_segment =
            self.by_segment.iter().map(|(segment, sum)| (segment.clone(), sum - earlier(segment)));
        Self { requests: self.requests - before.requests, by_segment: by_segment.collect() }
    }

    fn in_segment(&self, segment: &str) -> f64 {
        self.by_segment.get(segment).copied().unwrap_or_default()
    }

    fn whole(&self) -> f64 {
        self.by_segment.values().sum()
    }
}

/// What a sidecar counts of the requests that `work` makes, and what that gives.
async fn spent<T>(
    sidecar: &Sidecar,
    (direction, target): (&str, &str),
    requests: usize,
    work: impl AsyncFnOnce() -> T,
) -> (Spent, T) {
    let before = Spent::of(sidecar, direction, target).await;
    let given = work().await;
    let spent = eventually("the requests are counted", async || {
        let spent = Spent::of(sidecar, direction, target).await.since(&before);
        (spent.requests >= requests as f64).then_some(spent)
    })
    .await;
    (spent, given)
}

/// Makes requests by `work`, which gives what they were delayed by in all, and finds that in one segment within 10 %, and
/// hardly anything elsewhere. A delay is never shorter than it was made; a busy machine may make it, or anything else, longer,
/// so it has several goes.
async fn assert_found(
    sidecar: &Sidecar,
    edge: (&str, &str),
    segment: &str,
    work: impl AsyncFn() -> Duration,
) {
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let (spent, delay) = spent(sidecar, edge, 1, &work).await;
        let (found, whole, delay) = (spent.in_segment(segment), spent.whole(), delay.as_secs_f64());
        if (found - delay).abs() <= 0.1 * delay && whole - found <= 0.1 * delay {
            return;
        }
        seen.push(spent);
    }
    panic!("not in {segment}: {seen:#?}");
}

const OUTBOUND: (&str, &str) = ("outbound", "app.demo");
const INBOUND: (&str, &str) = ("inbound", "app.demo");

async fn get(pair: &Pair, path: &str) -> Duration {
    let answer = pair.get(path).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    DELAY
}

#[tokio::test]
async fn a_slow_application_a_slow_sidecar_and_a_slow_caller() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let delay = DELAY.as_millis();
    let lines = [
        "faults:".to_owned(),
        "- matches: [{ path: { type: Exact, value: /fault } }]".to_owned(),
        format!("  delay: {{ duration: {delay}ms }}"),
        "  for: 10m".to_owned(),
    ];
    let pair = Pair::with(app.address(), "http", &lines.each_ref().map(String::as_str), &[]).await;
    get(&pair, "/who").await;

    let slow = format!("/after-ms/{delay}");
    assert_found(&pair.caller, OUTBOUND, "application", async || get(&pair, &slow).await).await;
    assert_told(&pair, "application").await;
    assert_found(&pair.callee, INBOUND, "application", async || get(&pair, &slow).await).await;
    assert_found(&pair.caller, OUTBOUND, "client-sidecar", async || get(&pair, "/fault").await).await;
    let upload = async || slow_upload(pair.caller.outbound()).await;
    assert_found(&pair.caller, OUTBOUND, "caller", upload).await;
    assert_found(&pair.callee, INBOUND, "caller", upload).await;
}

/// A request whose body comes late.
async fn slow_upload(to: SocketAddr) -> Duration {
    let head =
        "POST /sum HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: 6\r\nconnection: close\r\n\r\nabc";
    let mut stream = raw::begin(to, head).await;
    let began = Instant::now();
    tokio::time::sleep(DELAY).await;
    stream.write_all(b"def").await.expect("it reads");
    let waited = began.elapsed();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "6"), "{answer}");
    waited
}

#[tokio::test]
async fn a_slow_network() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let relay = Relay::start().await;
    let advertise = relay.address().to_string();
    let pair = Pair::with(app.address(), "http", &[], &["--advertise", &advertise]).await;
    relay.leads_to(pair.callee.addresses.inbound);
    // Connecting is the caller's sidecar's.
    get(&pair, "/who").await;
    relay.set_delay(DELAY / 2);
    assert_found(&pair.caller, OUTBOUND, "network", async || get(&pair, "/who").await).await;
    assert_told(&pair, "network").await;
}

/// One look says which segment takes most.
async fn assert_told(pair: &Pair, segment: &str) {
    eventually("it is told in one look", async || {
        let services = stat(pair, &[]).await;
        let edges = stat(pair, &["edges", "--from", "client.demo"]).await;
        let most = |text: &str| {
            let mut lines = text.lines().filter(|line| line.contains("<- most"));
            lines.all(|line| line.split_whitespace().next() == Some(segment)) && text.contains("<- most")
        };
        (most(&services) && most(&edges) && edges.contains("client.demo")).then_some(())
    })
    .await;
    let url = format!("{}/v1/mesh/services/demo/app", pair.mesh.api.base());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.get(url).send().await.expect("what the service's page shows");
    let app: serde_json::Value =
        serde_json::from_str(&answer.text().await.expect("text")).expect("a document");
    let segments = app["hops"]["segments"].as_array().expect("the split");
    let most = segments.iter().max_by(|one, other| share(one).total_cmp(&share(other)));
    assert_eq!(most.expect("there are some")["segment"], segment, "{app}");
    let edge = &app["edgeHops"][0];
    assert_eq!((&edge["from"], &edge["to"]), (&"client.demo".into(), &"app.demo".into()), "{app}");
}

fn share(segment: &serde_json::Value) -> f64 {
    segment["share"].as_f64().unwrap_or_default()
}

/// What `pillion stat --hops` says.
async fn stat(pair: &Pair, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(pillion());
    command.args(["--server", pair.mesh.api.base(), "stat", "--hops"]).args(arguments);
    let ran = soon("an answer of the command line", command.output()).await.expect("the program runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

#[tokio::test]
async fn a_queue_before_the_application() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = ["concurrency: { type: fixed, limit: 1, queue: { maxRequests: 4, timeout: 10s } }"];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    until_told(&pair.callee).await;
    let before = Spent::of(&pair.caller, OUTBOUND.0, OUTBOUND.1).await;
    // While one is worked on, the other waits: what the one spends in the application, the other spends before it.
    let delay = 3 * DELAY;
    let slow = format!("/after-ms/{}", delay.as_millis());
    tokio::join!(get(&pair, &slow), get(&pair, &slow));
    let spent = eventually("both are counted", async || {
        let spent = Spent::of(&pair.caller, OUTBOUND.0, OUTBOUND.1).await.since(&before);
        (spent.requests >= 2.0).then_some(spent)
    })
    .await;
    let (queued, delay) = (spent.in_segment("server-sidecar"), delay.as_secs_f64());
    assert!(queued >= 0.7 * delay, "{spent:?}");
    assert!(spent.in_segment("application") >= 2.0 * 0.9 * delay, "{spent:?}");
    assert!(spent.in_segment("network") <= 0.5 * queued, "{spent:?}");
}

/// Sends a signal to a sidecar.
fn signal(sidecar: &Sidecar, signal: Signal) {
    let pid = Pid::from_raw(sidecar.process.pid().cast_signed()).expect("a process has a number");
    kill_process(pid, signal).expect("it is our child");
}

#[tokio::test]
async fn a_sidecar_without_cpu_is_neither_the_network_nor_the_application() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    get(&pair, "/who").await;
    // Stopped just before a request comes, and again while the application works on one.
    let path = format!("/after-ms/{}", DELAY.as_millis() / 10);
    for (segment, stopped) in [("server-sidecar", &pair.callee), ("client-sidecar", &pair.caller)] {
        let work = async || {
            // It looks after itself only while there are requests.
            get(&pair, "/who").await;
            let request = raw::get("app.demo.mesh", &path);
            let answering = tokio::spawn(raw::exchange_owned(pair.caller.outbound(), request));
            tokio::time::sleep(DELAY / 100).await;
            signal(stopped, Signal::STOP);
            tokio::time::sleep(DELAY).await;
            signal(stopped, Signal::CONT);
            assert_eq!(raw::status(&answering.await.expect("an answer")), 200);
        };
        let mut seen = Vec::new();
        let mut found = false;
        for _ in 0..ROUNDS {
            let (spent, ()) = spent(&pair.caller, OUTBOUND, 2, work).await;
            found = spent.in_segment(segment) >= 0.8 * DELAY.as_secs_f64();
            seen.push(spent);
            if found {
                break;
            }
        }
        assert!(found, "not in {segment}: {seen:#?}");
        if segment == "server-sidecar" {
            assert_told(&pair, segment).await;
        }
    }
}

/// Answers each connection's one request, by its path.
async fn scripted(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let began = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
    let (first, wait, last) = match head.split(' ').nth(1) {
        Some("/goes-on") => (format!("{began}\r\n1\r\na\r\n"), DELAY, "1\r\nb\r\n0\r\n\r\n".to_owned()),
        Some("/first-hangs") if !head.contains("x-pillion-attempt") => {
            (String::new(), DELAY * 10, format!("{began}\r\n0\r\n\r\n"))
        }
        Some("/forged") => (
            format!("{began}pillion-hops: 1000000,2000000,3000000,4000000\r\ntrailer: x-mine\r\n\r\n"),
            Duration::from_millis(2),
            "1\r\na\r\n0\r\npillion-hops: 9000000\r\nx-mine: kept\r\n\r\n".to_owned(),
        ),
        _ => {
            let length = head.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{head}");
            (head, Duration::ZERO, String::new())
        }
    };
    let _ = stream.write_all(first.as_bytes()).await;
    tokio::time::sleep(wait).await;
    let _ = stream.write_all(last.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_goes_on_a_second_try_and_nobody_s_forgeries() {
    let app = App::start(scripted).await;
    let delay = DELAY.as_millis();
    let lines = [
        format!("timeouts: {{ attempt: {delay}ms }}"),
        "retry: { backoff: { base: 1ms, max: 1ms } }".to_owned(),
    ];
    let pair = Pair::with(app.address, "http", &lines.each_ref().map(String::as_str), &[]).await;
    get(&pair, "/").await;
    let goes_on = async || get(&pair, "/goes-on").await;
    assert_found(&pair.caller, OUTBOUND, "application-body", goes_on).await;
    assert_found(&pair.callee, INBOUND, "application-body", goes_on).await;
    assert_found(&pair.caller, OUTBOUND, "retries", async || get(&pair, "/first-hangs").await).await;

    // Neither application hears of it, nor is believed.
    let forged = "GET / HTTP/1.1\r\nhost: app.demo.mesh\r\npillion-hops: 1\r\nte: trailers\r\nconnection: close\r\n\r\n";
    let answer = pair.exchange(forged).await;
    assert!(
        raw::body(&answer).contains("host: app.demo.mesh"),
        "the head as the application saw it: {answer}"
    );
    assert!(!answer.contains("pillion-hops"), "{answer}");
    let before = Spent::of(&pair.caller, OUTBOUND.0, OUTBOUND.1).await;
    let forged = forged.replace("GET / ", "GET /forged ");
    let answer = pair.exchange(&forged).await;
    assert!(answer.contains("x-mine: kept"), "its own trailers come through: {answer}");
    assert!(!answer.contains("pillion-hops"), "{answer}");
    let spent = eventually("it is counted", async || {
        let spent = Spent::of(&pair.caller, OUTBOUND.0, OUTBOUND.1).await.since(&before);
        (spent.requests >= 1.0).then_some(spent)
    })
    .await;
    assert!(spent.whole() < 2.0 && spent.in_segment("application") < 1.0, "{spent:?}");
}

#[tokio::test]
async fn without_a_sidecar_or_by_choice_it_is_not_told_apart() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let port = app.address().port();
    let path = format!("/after-ms/{}", DELAY.as_millis());
    let request = raw::get(&format!("127.0.0.1:{port}"), &path);
    let outside = async || {
        let answer = pair.exchange(&request).await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
        DELAY
    };
    assert_found(&pair.caller, ("outbound", "outside"), "upstream", outside).await;

    let other = SidecarSpec::caller("other").flags(&["--split-latency", "false"]);
    let other = pair.mesh.sidecar(other).await;
    other.until_endpoints("app", 1).await;
    let answer = raw::exchange(other.outbound(), &raw::get("app.demo.mesh", "/head")).await;
    assert!(raw::status(&answer) == 200 && !answer.contains("pillion-hops"), "{answer}");
    eventually("the request is counted, and nothing else", async || {
        let spent = Spent::of(&other, OUTBOUND.0, OUTBOUND.1).await;
        assert!(spent.by_segment.is_empty(), "{spent:?}");
        (spent.requests >= 1.0).then_some(())
    })
    .await;
}

/// A gRPC stream of one message, and its end a while later.
async fn streaming(stream: TcpStream) {
    let service = service_fn(async |_: Request<Incoming>| {
        let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
        let trailers = [("grpc-status", "0"), ("x-mine", "kept"), ("pillion-hops", "9000000")];
        let trailers =
            trailers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let end = futures_util::stream::once(async {
            tokio::time::sleep(DELAY).await;
            Frame::trailers(HeaderMap::from_iter(trailers))
        });
        let frames = futures_util::stream::iter([message]).chain(end).map(Ok::<_, Infallible>);
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(StreamBody::new(frames.boxed()))
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn a_grpc_stream_and_its_trailers() {
    let app = App::start(streaming).await;
    let pair = Pair::around(app.address, "grpc").await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", pair.caller.outbound()));
    let origin = "http://app.demo.mesh".parse().expect("a valid origin");
    let channel = endpoint.expect("a valid address").origin(origin).connect_lazy();
    let call = async || {
        let answer = grpc::call_over(channel.clone(), Count { to: 1, then_status: 0 }).await;
        let answer = answer.expect("the call is answered");
        assert!(answer.metadata().get("pillion-hops").is_none(), "{:?}", answer.metadata());
        let mut stream = answer.into_inner();
        stream.message().await.expect("no error in between").expect("one message");
        assert_eq!(stream.message().await.expect("status OK in the trailers"), None);
        let trailers = stream.trailers().await.expect("no error").expect("there are some");
        assert_eq!(trailers.get("x-mine").map(|value| value.as_bytes()), Some(&b"kept"[..]));
        assert!(trailers.get("pillion-hops").is_none(), "{trailers:?}");
        DELAY
    };
    assert_found(&pair.caller, OUTBOUND, "application-body", async || soon("a stream", call()).await).await;
}
