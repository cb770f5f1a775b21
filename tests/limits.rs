//! What the callee's own sidecar holds: rates, sizes, connections, and requests at a time; and what the caller's holds, over all of
//! its workers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{App, HttpApp, Version, refusing};
use crate::support::load::Load;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::pair::{Pair, policy};
use crate::support::{alone, eventually, raw, soon};

/// Waits until a callee's sidecar has been told what its own service says.
pub(crate) async fn until_told(callee: &Sidecar) {
    eventually("it is told of its own service", async || {
        let labels = [("kind", "config"), ("result", "applied")];
        let metrics = callee.metrics().await;
        (metrics.sum("pillion_control_plane_updates_total", &labels) >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rate_holds_over_all_connections_and_workers() {
    // So low that a machine with other things to do sends more, too, mostly.
    const RATE: f64 = 60.0;
    let _alone = alone().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let mesh = Mesh::start_with(&[]).await;
    let lines = [
        "rateLimits:",
        "- matches: [{ path: { value: /who } }]",
        "  total: { requests: 60 }",
        "- matches: [{ path: { value: /once } }]",
        "  total: { requests: 60, per: 1h, burst: 60 }",
    ];
    mesh.apply(&(service("app", "http") + &policy(&lines))).await;
    let callee = SidecarSpec::serving("app-1", "app", app.address()).flags(&["--workers", "2"]);
    let callee = mesh.sidecar(callee).await;
    let one = mesh.sidecar(SidecarSpec::caller("one")).await;
    let two = mesh.sidecar(SidecarSpec::caller("two").flags(&["--workers", "2"])).await;
    mesh.until_ready(&[&callee, &one, &two]).await;
    one.until_endpoints("app", 1).await;
    two.until_endpoints("app", 1).await;
    until_told(&callee).await;

    let began = Instant::now();
    let loads =
        [&one, &two].map(|caller| Load::start(caller.client(), "http://app.demo.mesh/who", 5 * RATE as u32));
    eventually("three seconds of it", async || (began.elapsed() >= Duration::from_secs(3)).then_some(()))
        .await;
    let [one_report, two_report] = loads.map(Load::finish);
    let (one_report, two_report) = (one_report.await, two_report.await);
    let took = began.elapsed().as_secs_f64();
    let admitted = (one_report.good + two_report.good) as f64;
    assert_eq!(admitted as u64, app.requests());
    // It begins with a burst of half a second's worth.
    assert!(admitted <= RATE * (took + 0.5) + 1.0, "{admitted} in {took} s");
    let refused = one_report.failures.iter().chain(&two_report.failures);
    let offered = admitted + refused.clone().count() as f64;
    // Pauses of a machine that sends less than half of what it should are lost, and say nothing.
    assert!(
        offered < 5.0 * RATE * took || admitted >= RATE * 3.0 * 0.8,
        "{admitted} of {offered} in {took} s"
    );
    for failure in refused {
        assert!(failure.contains("rate-limited"), "{failure}");
    }
    eventually("both clients are counted by name", async || {
        let metrics = callee.metrics().await;
        let count = |client, result| {
            let labels = [("service", "app.demo"), ("client", client), ("result", result)];
            metrics.sum("pillion_rate_limit_requests_total", &labels)
        };
        let let_in = count("one.demo", "admitted") + count("two.demo", "admitted");
        (let_in == admitted).then_some(())
    })
    .await;

    // To the last one, however long it takes: another one is let in after a minute.
    let asked = [&one, &two].map(|caller| {
        let request = raw::get("app.demo.mesh", "/once");
        join_all((0..100).map(move |_| raw::exchange_owned(caller.outbound(), request.clone())))
    });
    let answers = join_all(asked).await.concat();
    let good = answers.iter().filter(|answer| raw::status(answer) == 200).count();
    assert!((60..=61).contains(&good), "{good}");
    assert!(answers.iter().all(|it| matches!(raw::refusal(it), "" | "rate-limited")));
}

#[tokio::test]
async fn who_is_limited_is_told_by_name_until_when_and_others_are_not() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = [
        "rateLimits:",
        "- name: exports",
        "  matches: [{ path: { value: /export }, method: GET }]",
        "  perClient: { requests: 2, per: 1h, burst: 2 }",
        "  responseHeaders: true",
        "  overrides: [{ client: { serviceAccount: other }, rate: { requests: 1, per: 1h } }]",
    ];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    let other = pair.mesh.sidecar(SidecarSpec::caller("other")).await;
    other.until_endpoints("app", 1).await;
    until_told(&pair.callee).await;
    for (expected, left) in [(200, "1;t=1800"), (200, "0;t="), (429, "0;t="), (429, "0;t=")] {
        let answer = pair.get("/export/all").await;
        assert_eq!(raw::status(&answer), expected);
        let told = raw::header(&answer, "ratelimit").expect("it says what is left");
        assert!(told.starts_with(&format!("\"exports/client\";r={left}")), "{told}");
    }
    let answer = pair.get("/export").await;
    assert_eq!(raw::refusal(&answer), "rate-limited", "{answer}");
    assert!(
        answer.contains("2 at once, of this client, by limit exports of TrafficPolicy demo/app\n"),
        "{answer}"
    );
    assert_eq!(raw::header(&answer, "ratelimit-policy"), Some("\"exports/client\";q=2;w=3600"));
    let left = raw::header(&answer, "ratelimit").expect("it says when");
    assert!(left.starts_with("\"exports/client\";r=0;t="), "{left}");
    let wait: u64 = raw::header(&answer, "retry-after").and_then(|it| it.parse().ok()).expect("seconds");
    assert!((1700..=1800).contains(&wait), "{wait}");
    // The dashboard's health of it is made of that: the service's own refusals, and the same on the edge of its caller.
    let url = format!("{}/v1/mesh/services/demo/app", pair.mesh.api.base());
    eventually("the page says who refuses", async || {
        let client = reqwest::Client::builder().no_proxy().build().ok()?;
        let text = client.get(&url).send().await.ok()?.text().await.ok()?;
        let page: serde_json::Value = serde_json::from_str(&text).ok()?;
        let rate = |refusals: &serde_json::Value| refusals["rate-limited"].as_f64().unwrap_or_default();
        (rate(&page["refusals"]) > 0.0 && rate(&page["callers"][0]["refusalsByCallee"]) > 0.0).then_some(())
    })
    .await;
    let answer = pair.get("/who").await;
    assert_eq!(raw::status(&answer), 200, "it is for exports only");
    assert_eq!(raw::header(&answer, "ratelimit"), None);

    let grpc = "GET /export HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-type: application/grpc\r\nconnection: close\r\n\r\n";
    let answer = pair.exchange(grpc).await;
    assert_eq!(raw::header(&answer, "grpc-status"), Some("8"), "{answer}");
    assert!(raw::header(&answer, "grpc-retry-pushback-ms").is_some(), "{answer}");

    let request = raw::get("app.demo.mesh", "/export");
    let answers =
        [raw::exchange(other.outbound(), &request).await, raw::exchange(other.outbound(), &request).await];
    assert_eq!(answers.map(|answer| raw::status(&answer)), [200, 429], "another client has its own");
    assert_eq!(app.requests(), 4);

    // What was had is not forgotten with a change of the policy; without one all is let in.
    pair.mesh.apply(&policy(&["timeouts: { request: 10s }"])).await;
    eventually("the limit is gone", async || (raw::status(&pair.get("/export").await) == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn connections_of_bytes_count_as_requests() {
    let app = App::tcp_echo().await;
    let mesh = Mesh::start().await;
    let lines = ["rateLimits:", "- total: { requests: 2, per: 1h, burst: 2 }"];
    mesh.apply(&(service("app", "tcp") + &policy(&lines))).await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").listener("app.demo:80")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    until_told(&callee).await;
    let listener = caller.addresses.listeners["app.demo:80"];
    for expected in ["hello", "hello", ""] {
        let answer = raw::exchange_until(listener, b"hello", |answer| answer == "hello").await;
        assert_eq!(answer, expected);
    }
    assert_eq!(app.connections(), 2);
    eventually("it is counted", async || {
        let labels = [("direction", "inbound"), ("reason", "rate-limited")];
        (callee.metrics().await.sum("pillion_refusals_total", &labels) >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_or_too_many_is_refused_by_name() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines =
        ["requestLimits: { maxHeaderBytes: 1024, maxHeaders: 12, maxBodyBytes: 1000, maxConnections: 1 }"];
    // What sidecars add for traces does not count.
    let (_nobody, receiver) = refusing();
    let traces = ["--tracing-endpoint", &format!("http://{receiver}"), "--tracing-sampling", "100"];
    let pair = Pair::with(app.address(), "http", &lines, &traces).await;
    until_told(&pair.callee).await;
    let post = |head: &str, body: &str| {
        let head = head.replace('|', "\r\n");
        format!("POST /sum HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n{head}\r\n\r\n{body}")
    };
    let full = "b".repeat(1000);
    let chunks = |count: usize| format!("{}0\r\n\r\n", format!("3e8\r\n{full}\r\n").repeat(count));
    // With `host` and `content-length`, two too many.
    let many: Vec<String> = (0..12).map(|i| format!("x-{i}: 1")).collect();
    for (head, body, expected) in [
        ("content-length: 1000", full.clone(), (200, "")),
        ("content-length: 1001", full.clone() + "b", (413, "body-too-large")),
        ("transfer-encoding: chunked", chunks(1), (200, "")),
        ("transfer-encoding: chunked", chunks(2), (413, "body-too-large")),
        (
            &format!("content-length: 0|x-long: {}", "x".repeat(1024)),
            String::new(),
            (431, "headers-too-large"),
        ),
        (&format!("content-length: 0|{}", many.join("|")), String::new(), (431, "headers-too-large")),
        (&format!("content-length: 0|{}", many[2..].join("|")), String::new(), (200, "")),
    ] {
        let answer = pair.exchange(&post(head, &body)).await;
        assert_eq!((raw::status(&answer), raw::refusal(&answer)), expected, "{head:.60}: {answer}");
        let names = answer.contains(" of TrafficPolicy demo/app");
        assert_eq!(names, expected.0 != 200, "{answer}");
    }

    // The first caller's connection is the one that there may be.
    let other = pair.mesh.sidecar(SidecarSpec::caller("other")).await;
    other.until_endpoints("app", 1).await;
    let answer = raw::exchange(other.outbound(), &raw::get("app.demo.mesh", "/who")).await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (503, "too-many-connections"), "{answer}");
    assert!(answer.contains("of all clients, maxConnections 1 of TrafficPolicy demo/app"), "{answer}");
    assert_eq!(raw::status(&pair.get("/who").await), 200);
}

#[tokio::test]
async fn too_much_at_a_time_waits_and_is_shed_by_priority() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = [
        "concurrency:",
        "  type: fixed",
        "  limit: 1",
        "  queue: { maxRequests: 1, timeout: 10s }",
        "  priority: { header: x-priority }",
    ];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    until_told(&pair.callee).await;
    let standing = async |metric: &str| {
        pair.callee.metrics().await.max(&format!("pillion_concurrency_{metric}"), &[]).unwrap_or(0.0)
    };
    let request = |path: &str, priority: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: app.demo.mesh\r\nx-priority: {priority}\r\n");
        raw::exchange_owned(pair.caller.outbound(), head + "connection: close\r\n\r\n")
    };
    let slow = tokio::spawn(request("/after-ms/3000", "default"));
    eventually("it is under way", async || (standing("in_flight").await == 1.0).then_some(())).await;
    let sheddable = tokio::spawn(request("/who", "sheddable"));
    eventually("another waits", async || (standing("queued").await == 1.0).then_some(())).await;
    let critical = tokio::spawn(request("/who", "critical"));
    let answer = sheddable.await.expect("an answer");
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (503, "overloaded"), "{answer}");
    assert_eq!(raw::header(&answer, "retry-after"), Some("1"));
    assert!(answer.contains("; by concurrency of TrafficPolicy demo/app"), "{answer}");
    let answer = request("/who", "default").await;
    assert_eq!(raw::refusal(&answer), "overloaded", "there is no room, and nobody gives way to it: {answer}");
    for answered in [slow, critical] {
        let answer = answered.await.expect("an answer");
        assert_eq!(raw::status(&answer), 200, "{answer}");
    }
    assert_eq!(standing("limit").await, 1.0);
    eventually("what was shed is counted by priority", async || {
        let metrics = pair.callee.metrics().await;
        let shed = |priority| metrics.sum("pillion_concurrency_shed_total", &[("priority", priority)]);
        (shed("sheddable") == 1.0 && shed("default") == 1.0).then_some(())
    })
    .await;

    // An adaptive limit goes on from there, and finds out what the application can do.
    pair.mesh.apply(&policy(&["concurrency: { adaptive: { minRttRequests: 20 } }"])).await;
    eventually("the best latency is measured", async || {
        let answer = pair.get("/who").await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
        (standing("min_rtt_seconds").await > 0.0).then_some(())
    })
    .await;
}

/// What is not to depend on how much there is to do.
#[tokio::test]
async fn health_probes_are_exempt_from_every_limit() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = [
        "rateLimits: [{ matches: [{ path: { value: /healthz } }], total: { requests: 1, per: 1h } }]",
        "concurrency: { type: fixed, limit: 1, queue: { maxRequests: 1, timeout: 10ms } }",
        "requestLimits: { maxConnections: 1 }",
    ];
    let pair = Pair::with(app.address(), "http", &lines, &["--probes", "8080/healthz"]).await;
    until_told(&pair.callee).await;
    let ask = async |path: &str| {
        let answer = pair.get(path).await;
        (raw::status(&answer), raw::refusal(&answer).to_owned())
    };
    let (good, refused) = ((200, String::new()), |status, reason: &str| (status, reason.to_owned()));
    // What is below the path of a probe is none.
    assert_eq!(ask("/healthz/deep").await, good);
    assert_eq!(ask("/healthz/deep").await, refused(429, "rate-limited"));
    let slow = raw::begin(pair.caller.outbound(), &raw::get("app.demo.mesh", "/after-ms/30000")).await;
    eventually("the one place is taken", async || (pair.in_flight().await.1 == 1.0).then_some(())).await;
    assert_eq!(ask("/who").await, refused(503, "overloaded"));
    let other = pair.mesh.sidecar(SidecarSpec::caller("other")).await;
    other.until_endpoints("app", 1).await;
    let from_other = async |path: &str| {
        let answer = raw::exchange(other.outbound(), &raw::get("app.demo.mesh", path)).await;
        (raw::status(&answer), raw::refusal(&answer).to_owned())
    };
    assert_eq!(from_other("/who").await, refused(503, "too-many-connections"));
    for _ in 0..3 {
        assert_eq!(ask("/healthz").await, good);
        assert_eq!(from_other("/healthz").await, good);
    }
    drop(slow);
}

/// Opens a connection through a listener, and sees whether it reaches an application that echoes.
async fn echo(listener: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(listener).await.expect("it listens");
    let mut word = [0; 5];
    let echoed = async {
        let sent = stream.write_all(b"hello").await;
        sent.is_ok() && stream.read_exact(&mut word).await.is_ok()
    };
    soon("an echo, or an end", echoed).await.then_some(stream)
}

#[tokio::test]
async fn connections_are_bounded_for_all_and_for_each_client_over_all_workers() {
    let app = App::tcp_echo().await;
    let mesh = Mesh::start().await;
    let lines = ["requestLimits: { maxConnections: 3, maxConnectionsPerClient: 2 }"];
    mesh.apply(&(service("app", "tcp") + &policy(&lines))).await;
    let spec = SidecarSpec::serving("app-1", "app", app.address).flags(&["--workers", "2"]);
    let callee = mesh.sidecar(spec).await;
    let mut listeners = Vec::new();
    let mut callers = Vec::new();
    for name in ["one", "two"] {
        let caller = mesh.sidecar(SidecarSpec::caller(name).listener("app.demo:80")).await;
        caller.until_endpoints("app", 1).await;
        listeners.push(caller.addresses.listeners["app.demo:80"]);
        callers.push(caller);
    }
    until_told(&callee).await;
    let held = (echo(listeners[0]).await, echo(listeners[0]).await);
    assert!(held.0.is_some() && held.1.is_some());
    for _ in 0..4 {
        assert!(echo(listeners[0]).await.is_none(), "it has two");
    }
    let third = echo(listeners[1]).await;
    assert!(third.is_some(), "another client has its own");
    for _ in 0..4 {
        assert!(echo(listeners[1]).await.is_none(), "there are three");
    }
    eventually("they are counted", async || {
        let labels = [("direction", "inbound"), ("reason", "too-many-connections")];
        (callee.metrics().await.sum("pillion_refusals_total", &labels) >= 8.0).then_some(())
    })
    .await;
    drop(held.0);
    eventually("there is room again", async || echo(listeners[1]).await).await;
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_it_may() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = ["requestLimits: { maxStreamsPerConnection: 1 }"];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    until_told(&pair.callee).await;
    let mut slow = Vec::new();
    for number in 1..=3 {
        slow.push(raw::begin(pair.caller.outbound(), &raw::get("app.demo.mesh", "/after-ms/30000")).await);
        eventually("it is under way", async || (app.requests() == number).then_some(())).await;
    }
    let handshakes = pair.callee.metrics().await.sum("pillion_tls_handshakes_total", &[("side", "server")]);
    assert!(handshakes >= 3.0, "{handshakes} connections for three requests at a time");
}

/// What a policy limits for each sidecar holds over all of its workers.
#[tokio::test]
async fn limits_of_a_caller_hold_over_all_of_its_workers() {
    const CLIENTS: usize = 40;
    let mesh = Mesh::start().await;
    let (web, tcp) = (HttpApp::start("web-1", Version::Http1).await, App::tcp_echo().await);
    let limited = |name: &str, protocol: &str, connections: &str| {
        service(name, protocol)
            + &policy(&[&format!("connections: {{ {connections} }}")])
                .replace("name: app", &format!("name: {name}"))
    };
    for (name, protocol, connections) in [
        ("few", "http", "maxRequests: 3"),
        ("absent", "http", "maxPending: 3, queueTimeout: 1m"),
        ("one", "http", "maxConnections: 1, queueTimeout: 20s"),
        ("late", "tcp", "queueTimeout: 20ms"),
    ] {
        mesh.apply(&limited(name, protocol, connections)).await;
    }
    let mut sidecars = Vec::new();
    for (name, address) in [("few", web.address()), ("one", web.address()), ("late", tcp.address)] {
        sidecars.push(mesh.sidecar(SidecarSpec::serving(&format!("{name}-1"), name, address)).await);
    }
    let caller = SidecarSpec::caller("client").listener("late.demo:80").flags(&["--workers", "2"]);
    let caller = mesh.sidecar(caller).await;
    for name in ["few", "one", "late"] {
        caller.until_endpoints(name, 1).await;
    }
    let refusals = async |reason: &str| {
        let labels = [("direction", "outbound"), ("reason", reason)];
        caller.metrics().await.sum("pillion_refusals_total", &labels)
    };

    for (host, path, reason) in
        [("few.demo.mesh", "/after-ms/60000", "too-many-requests"), ("absent.demo.mesh", "/", "queue-full")]
    {
        let request = raw::get(host, path);
        let held = join_all((0..CLIENTS).map(|_| raw::begin(caller.outbound(), &request))).await;
        let expected = (CLIENTS - 3) as f64;
        eventually(&format!("all but three are {reason}"), async || {
            (refusals(reason).await >= expected).then_some(())
        })
        .await;
        eventually("those three reach an application, where there is one", async || {
            (web.requests() >= 3).then_some(())
        })
        .await;
        assert_eq!((refusals(reason).await, web.requests()), (expected, 3), "{reason}");
        drop(held);
    }

    // What is idle on one worker makes room for the other.
    for _ in 0..20 {
        let answer = raw::exchange(caller.outbound(), &raw::get("one.demo.mesh", "/who")).await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
    }

    // What was open before there was a limit counts.
    let listener = caller.addresses.listeners["late.demo:80"];
    let held = echo(listener).await.expect("there is no limit");
    mesh.apply(&limited("late", "tcp", "queueTimeout: 20ms, maxConnections: 1")).await;
    eventually("no other is opened", async || echo(listener).await.is_none().then_some(())).await;
    assert!(refusals("connection-limit").await >= 1.0);
    drop(held);
    eventually("there is room again", async || echo(listener).await).await;
}
