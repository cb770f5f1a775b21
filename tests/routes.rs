//! The Gateway API's mesh profile, case by case as its conformance suite has them, in one mesh.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::apps::App;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec};
use crate::support::{eventually, http2, raw, soon};

/// An application that answers with its name and with what it was asked, and remembers that.
struct Echo {
    app: App,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    /// It takes HTTP/1 and HTTP/2: sidecars hand a request on in the version that it was made in.
    async fn start(name: &'static str) -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let shared = Arc::clone(&seen);
        let app = App::start(move |stream| {
            let seen = Arc::clone(&shared);
            let service = service_fn(move |request| echo(name, request, Arc::clone(&seen)));
            async move {
                let mut first = [0; 3];
                let http2 = stream.peek(&mut first).await.is_ok() && first == *b"PRI";
                let stream = TokioIo::new(stream);
                // How a connection ends is for the test to see at its own end.
                let _ = if http2 {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(stream, service)
                        .await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
                };
            }
        });
        Self { app: app.await, seen }
    }

    /// Whether it has been asked something that has all these parts.
    fn has_seen(&self, parts: &[&str]) -> bool {
        let seen = self.seen.lock().expect("no panic in there");
        seen.iter().any(|text| parts.iter().all(|part| text.contains(part)))
    }
}

async fn echo(
    name: &'static str,
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut text = format!("{name} {} {}\n", request.method(), request.uri());
    let mut headers: Vec<String> = (request.headers().iter())
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    text.extend(headers);
    let grpc = request.headers().get("content-type").is_some_and(|it| it == "application/grpc");
    text += &String::from_utf8_lossy(&request.into_body().collect().await?.to_bytes());
    // Only a test of a few requests looks at them.
    let mut remembered = seen.lock().expect("no panic in there");
    if remembered.len() < 200 {
        remembered.push(text.clone());
    }
    drop(remembered);
    let mut response = Response::builder().header("x-app", name).header("x-old", "1");
    if grpc {
        response = response.header("content-type", "application/grpc").header("grpc-status", "0");
        text.clear();
    }
    Ok(response.body(Full::new(text.into())).expect("a valid answer"))
}

fn service(name: &str, selector: &str, target: u16, protocol: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: demo}}, spec: {{selector: {{app: \
         {selector}}}, ports: [{{name: main, port: 80, targetPort: {target}, appProtocol: {protocol}}}, {{name: second, port: \
         8080, targetPort: {target}, appProtocol: {protocol}}}]}}}}\n"
    )
}

/// A route of `demo`, called as its parent.
fn route(kind: &str, parent: &str, rules: &str) -> String {
    route_of(kind, parent, "demo", parent, "", rules)
}

fn route_of(kind: &str, name: &str, namespace: &str, parent: &str, more: &str, rules: &str) -> String {
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
         spec: {{parentRefs: [{{group: '', kind: Service, namespace: demo, name: {parent}{more}}}], rules: [{rules}]}}}}\n"
    )
}

const V1: &str = "backendRefs: [{name: v1, port: 80}]";
const V2: &str = "backendRefs: [{name: v2, port: 80}]";

fn documents() -> String {
    let fronts = [
        "plain", "match", "split", "redirect", "rewrite", "headers", "ports", "consumer", "mirror", "broken",
    ];
    let mut text: String = fronts.map(|name| service(name, "v1", 8080, "http")).concat();
    text += &service("v1", "v1", 8080, "http");
    text += &service("v2", "v2", 8080, "http");
    text += &service("nobody", "nobody", 8080, "http");
    text += &service("grpc", "v1", 8081, "grpc");
    text += &service("g1", "v1", 8081, "grpc");
    text += &service("g2", "v2", 8081, "grpc");
    text += &route(
        "HTTPRoute",
        "match",
        &format!(
            "{{matches: [{{path: {{type: Exact, value: /exact}}}}, {{headers: [{{name: Version, value: two}}]}}], {V2}}}, \
             {{matches: [{{queryParams: [{{name: animal, value: whale}}]}}, {{method: PUT}}, {{headers: [{{name: host, value: \
             'm.demo', type: RegularExpression}}]}}], {V2}}}, {{name: named, matches: [{{path: {{value: /v1}}}}], {V1}}}, \
             {{matches: [{{path: {{value: /v1/longer}}}}], {V2}}}"
        ),
    );
    text += &route(
        "HTTPRoute",
        "split",
        &format!(
            "{{matches: [{{headers: [{{name: x-canary, value: 'yes'}}]}}], {V2}}}, {{backendRefs: [{{name: v1, port: 80, weight: \
             90}}, {{name: v2, port: 80, weight: 10}}]}}"
        ),
    );
    let redirect = |path: &str, redirect: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}"
        )
    };
    text += &route(
        "HTTPRoute",
        "redirect",
        &[
            redirect("/host", "{hostname: example.org}"),
            redirect("/status", "{hostname: example.org, statusCode: 301}"),
            redirect("/see", "{statusCode: 303, path: {type: ReplaceFullPath, replaceFullPath: /there}}"),
            redirect(
                "/prefix",
                "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /replaced}, statusCode: 307}",
            ),
            redirect("/scheme", "{scheme: https, statusCode: 308}"),
            redirect("/port", "{port: 8083}"),
        ]
        .join(", "),
    );
    let rewrite = |path: &str, rewrite: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{{type: URLRewrite, urlRewrite: {rewrite}}}], {V1}}}"
        )
    };
    text += &route(
        "HTTPRoute",
        "rewrite",
        &[
            rewrite("/prefix", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}"),
            rewrite("/strip", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}"),
            rewrite(
                "/full",
                "{hostname: one.example.org, path: {type: ReplaceFullPath, replaceFullPath: /one}}",
            ),
        ]
        .join(", "),
    );
    let modifier = |kind: &str, field: &str, changes: &str| format!("{{type: {kind}, {field}: {changes}}}");
    let request = modifier(
        "RequestHeaderModifier",
        "requestHeaderModifier",
        "{set: [{name: X-Set, value: set}], add: [{name: X-Add, value: added}], remove: [X-Remove]}",
    );
    let response = modifier(
        "ResponseHeaderModifier",
        "responseHeaderModifier",
        "{set: [{name: X-Set, value: set}], add: [{name: X-Add, value: added}], remove: [X-Old]}",
    );
    text += &route(
        "HTTPRoute",
        "headers",
        &format!(
            "{{matches: [{{path: {{value: /rule}}}}], filters: [{request}, {response}], {V1}}}, {{matches: [{{path: {{value: \
             /backend}}}}], backendRefs: [{{name: v1, port: 80, filters: [{request}, {response}]}}]}}"
        ),
    );
    text += &route_of("HTTPRoute", "ports-80", "demo", "ports", ", port: 80", &format!("{{{V1}}}"));
    text += &route_of(
        "HTTPRoute",
        "ports-second",
        "demo",
        "ports",
        ", sectionName: second",
        &format!("{{{V2}}}"),
    );
    text += &route("HTTPRoute", "consumer", &format!("{{{V1}}}"));
    let theirs = "{matches: [{path: {value: /own}}], backendRefs: [{name: v2, namespace: demo, port: 80}]}";
    text += &route_of("HTTPRoute", "theirs", "other", "consumer", "", theirs);
    let mirror = |path: &str, to: &str, share: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], filters: [{request}, {{type: RequestMirror, requestMirror: {{backendRef: \
             {{name: {to}, port: 80}}{share}}}}}], {V1}}}"
        )
    };
    text += &route(
        "HTTPRoute",
        "mirror",
        &[mirror("/all", "v2", ""), mirror("/none", "v2", ", percent: 0"), mirror("/nobody", "nobody", "")]
            .join(", "),
    );
    text += &route(
        "HTTPRoute",
        "broken",
        "{matches: [{path: {value: /none}}]}, {backendRefs: [{name: v1, port: 80, weight: 0}]}",
    );
    text += &route(
        "GRPCRoute",
        "grpc",
        "{matches: [{method: {service: foo.Bar, method: Get}}, {method: {method: Everywhere}}], backendRefs: [{name: g2, port: \
         80}]}, {matches: [{method: {service: foo.Bar}}], backendRefs: [{name: g1, port: 80}]}, {matches: [{method: {service: \
         'half[.].*', type: RegularExpression}}], backendRefs: [{name: g1, port: 80}, {name: g2, port: 80}]}, {matches: \
         [{method: {service: off.Off}}], backendRefs: [{name: g1, port: 80, weight: 0}]}",
    );
    text += &route_of("HTTPRoute", "loses", "demo", "grpc", "", &format!("{{{V1}}}"));
    text
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

async fn ask(caller: &Sidecar, host: &str, line: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
        body.len()
    );
    let text = raw::exchange(caller.outbound(), &request).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.expect("a status line"),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn the_mesh_profile() {
    let mesh = Mesh::start().await;
    let (v1, v2) = (Echo::start("v1").await, Echo::start("v2").await);
    let (g1, g2) = (Echo::start("g1").await, Echo::start("g2").await);
    mesh.apply(&documents()).await;
    let v1_spec = SidecarSpec::serving("v1-1", "v1", v1.app.address).port(8081, g1.app.address);
    let v2_spec = SidecarSpec::serving("v2-1", "v2", v2.app.address).port(8081, g2.app.address);
    let (first, second) = (mesh.sidecar(v1_spec).await, mesh.sidecar(v2_spec).await);
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    let other = mesh.sidecar(SidecarSpec::caller("guest").of_namespace("other")).await;
    mesh.until_ready(&[&caller, &other, &first, &second]).await;
    caller.until_endpoints("v1", 1).await;
    caller.until_endpoints("v2", 1).await;
    other.until_endpoints("v2", 1).await;

    // All of them, so that one that fails does not hide the others.
    let cases = [
        ("matches", matches(&caller).boxed_local()),
        ("redirects", redirects(&caller).boxed_local()),
        ("rewrites", rewrites(&caller).boxed_local()),
        ("header_modifiers", header_modifiers(&caller).boxed_local()),
        ("consumers", consumers(&caller, &other).boxed_local()),
        ("mirrors", mirrors(&caller, &v2).boxed_local()),
        ("nowhere", nowhere(&caller).boxed_local()),
        ("grpc", grpc(&caller).boxed_local()),
        ("weights", weights(&caller).boxed_local()),
        ("statuses", statuses(&mesh).boxed_local()),
    ];
    let mut failed = Vec::new();
    for (name, case) in cases {
        if AssertUnwindSafe(case).catch_unwind().await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?} failed; each has said above what was wrong");
}

/// mesh-basic, httproute-matching, -header-matching, -method-matching, -query-param-matching, -named-rule, mesh-ports.
async fn matches(caller: &Sidecar) {
    for (host, line, headers, expected) in [
        ("plain.demo", "GET /", &[][..], "v1"),
        ("match.demo", "GET /exact", &[], "v2"),
        ("match.demo", "GET /exact?q", &[], "v2"),
        ("match.demo", "GET /exact/more", &[], ""),
        ("match.demo", "GET /", &["version: two"], "v2"),
        ("match.demo", "GET /", &["version: Two"], ""),
        ("match.demo", "GET /", &["version: two", "version: one"], "v2"),
        ("match.demo", "GET /?animal=whale", &[], "v2"),
        ("match.demo", "GET /?animal=dolphin&animal=whale", &[], ""),
        ("match.demo", "PUT /", &[], "v2"),
        ("match.demo", "POST /", &[], ""),
        ("match.demo", "GET /v1", &[], "v1"),
        ("match.demo", "GET /v1?animal=whale", &[], "v1"),
        ("match.demo", "GET /v1/", &[], "v1"),
        ("match.demo", "GET /v1/longer/x", &[], "v2"),
        ("match.demo", "GET /v1x", &[], ""),
        ("ports.demo", "GET /", &[], "v1"),
        ("ports.demo:8080", "GET /", &[], "v2"),
    ] {
        let answer = ask(caller, host, line, headers, "").await;
        let status = if expected.is_empty() { 404 } else { 200 };
        assert_eq!((answer.status, answer.header("x-app")), (status, expected), "{host} {line} {headers:?}");
    }
    eventually("requests are counted by the rule that they took", async || {
        let metrics = caller.metrics().await;
        let of = |rule| [("target", "match.demo"), ("route", "demo/match"), ("rule", rule)];
        let counts =
            ["0", "1", "named", "3"].map(|rule| metrics.sum("pillion_route_requests_total", &of(rule)));
        (counts == [4.0, 2.0, 3.0, 1.0]).then_some(())
    })
    .await;
}

/// httproute-redirect-host-and-status, -path, -scheme, -port, and the further statuses.
async fn redirects(caller: &Sidecar) {
    for (host, path, status, location) in [
        ("redirect.demo", "/host", 302, "http://example.org/host"),
        ("redirect.demo:8080", "/host", 302, "http://example.org:8080/host"),
        ("redirect.demo", "/status", 301, "http://example.org/status"),
        ("redirect.demo", "/see/x?q=1", 303, "http://redirect.demo/there?q=1"),
        ("redirect.demo", "/prefix/lemon", 307, "http://redirect.demo/replaced/lemon"),
        ("redirect.demo", "/scheme", 308, "https://redirect.demo/scheme"),
        ("redirect.demo:8080", "/scheme", 308, "https://redirect.demo/scheme"),
        ("redirect.demo", "/port", 302, "http://redirect.demo:8083/port"),
    ] {
        let answer = ask(caller, host, &format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status, answer.header("location")), (status, location), "{host} {path}");
        assert_eq!(answer.header("x-app"), "", "no backend is asked");
    }
    let counted = ("pillion_requests_total", [("target", "redirect.demo"), ("status", "3xx")]);
    eventually("redirects are counted", async || {
        (caller.metrics().await.sum(counted.0, &counted.1) == 8.0).then_some(())
    })
    .await;
}

/// httproute-rewrite-path, -rewrite-host.
async fn rewrites(caller: &Sidecar) {
    for (path, seen, host) in [
        ("/prefix/two?q=1", "/one/two?q=1", "rewrite.demo"),
        ("/strip/two", "/two", "rewrite.demo"),
        ("/strip", "/", "rewrite.demo"),
        ("/full/x", "/one", "one.example.org"),
    ] {
        let answer = ask(caller, "rewrite.demo", &format!("GET {path}"), &[], "").await;
        assert!(answer.body.contains(&format!("v1 GET {seen}\n")), "{path}: {answer:?}");
        assert!(answer.body.contains(&format!("host: {host}\n")), "{path}: {answer:?}");
    }
}

/// httproute-request-header-modifier, -response-header-modifier, and both for a backend.
async fn header_modifiers(caller: &Sidecar) {
    for path in ["/rule", "/backend"] {
        let headers = ["x-set: original", "x-add: original", "x-remove: original"];
        let answer = ask(caller, "headers.demo", &format!("GET {path}"), &headers, "").await;
        for line in ["x-set: set\n", "x-add: original\n", "x-add: added\n"] {
            assert!(answer.body.contains(line), "{path} {line}: {answer:?}");
        }
        assert!(!answer.body.contains("x-remove"), "{path}: {answer:?}");
        assert_eq!((answer.header("x-set"), answer.header("x-add")), ("set", "added"), "{path}: {answer:?}");
        assert_eq!(answer.header("x-old"), "", "{path}: {answer:?}");
    }
}

/// mesh-consumer-route: a namespace's own routes are for its own callers, who have no others then.
async fn consumers(caller: &Sidecar, other: &Sidecar) {
    for (who, path, expected) in
        [(caller, "/", "v1"), (caller, "/own", "v1"), (other, "/own", "v2"), (other, "/", "")]
    {
        let answer = ask(who, "consumer.demo", &format!("GET {path}"), &[], "").await;
        let status = if expected.is_empty() { 404 } else { 200 };
        assert_eq!((answer.status, answer.header("x-app")), (status, expected), "{} {path}", who.workload);
    }
}

/// httproute-request-mirror, -percentage-mirror; and that nobody waits for a mirror that is not there.
async fn mirrors(caller: &Sidecar, mirror: &Echo) {
    let count = async |target: &str, outcome: &str| {
        let labels = [("target", target), ("outcome", outcome)];
        caller.metrics().await.sum("pillion_mirrored_requests_total", &labels)
    };
    for path in ["/all", "/none", "/nobody"] {
        let answer = ask(caller, "mirror.demo", &format!("POST {path}"), &[], "some words").await;
        assert_eq!((answer.status, answer.header("x-app")), (200, "v1"), "{path}");
        assert!(answer.body.ends_with("some words"), "{path}: {answer:?}");
    }
    eventually("the mirrors' copies are counted", async || {
        let counts = (count("v2.demo", "answered").await, count("nobody.demo", "refused").await);
        (counts == (1.0, 1.0)).then_some(())
    })
    .await;
    let copy = ["v2 POST /all\n", "host: mirror.demo\n", "x-set: set\n", "some words"];
    assert!(mirror.has_seen(&copy), "{:?}", mirror.seen);
    assert!(!mirror.has_seen(&["/none"]));
}

/// A rule without a backend that has any weight answers 500.
async fn nowhere(caller: &Sidecar) {
    for path in ["/none", "/zero"] {
        let answer = ask(caller, "broken.demo", &format!("GET {path}"), &[], "").await;
        assert_eq!(answer.status, 500, "{path}");
        assert!(answer.header("pillion-error").starts_with("no-backend;"), "{answer:?}");
    }
}

/// One call; who answered, and with which status of gRPC, else the reason of a refusal.
async fn call(
    connection: &h2::client::SendRequest<Bytes>,
    host: &str,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> (String, String) {
    let mut request = Request::builder().method(Method::POST).uri(format!("http://{host}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a valid request");
    let mut sender = connection.clone().ready().await.expect("the connection is open");
    let (response, _) = sender.send_request(request, true).expect("the connection is open");
    let response = response.await.expect("an answer");
    let header = |name: &str| {
        response.headers().get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
    };
    let status = header("grpc-status");
    (header("x-app"), if status.is_empty() { header("pillion-error") } else { status })
}

/// grpcroute-exact-method-matching, -weight; and what there is no route for.
async fn grpc(caller: &Sidecar) {
    let connection = http2::connect(caller.outbound()).await;
    let headers = [("content-type", "application/grpc")];
    for (path, expected) in [
        ("/foo.Bar/Get", ("g2", "0")),
        ("/foo.Bar/Put", ("g1", "0")),
        ("/any.Service/Everywhere", ("g2", "0")),
        ("/foo.Barre/Put", ("", "12")),
        ("/off.Off/X", ("", "14")),
    ] {
        let (app, status) = soon(path, call(&connection, "grpc.demo", path, &headers)).await;
        assert_eq!((app.as_str(), status.as_str()), expected, "{path}");
    }
    let counts = spread(&connection, "grpc.demo", "/half.Way/Get", &headers, 400).await;
    assert!(within(counts["g1"], 400, 0.5, 6.0), "{counts:?}");
}

/// Who answered so many requests, 64 at a time.
async fn spread(
    connection: &h2::client::SendRequest<Bytes>,
    host: &str,
    path: &str,
    headers: &[(&'static str, &'static str)],
    requests: usize,
) -> BTreeMap<String, usize> {
    let calls = futures_util::stream::iter(0..requests).map(|_| call(connection, host, path, headers));
    let mut counts = BTreeMap::new();
    let mut answers = calls.buffer_unordered(64);
    while let Some((app, why_not)) = soon("one of many answers", answers.next()).await {
        *counts.entry(if app.is_empty() { why_not } else { app }).or_default() += 1;
    }
    counts
}

/// Whether a count is within so many standard deviations of a binomial distribution's mean.
fn within(count: usize, of: usize, share: f64, deviations: f64) -> bool {
    let (count, of) = (count as f64, of as f64);
    (count - of * share).abs() <= deviations * (of * share * (1.0 - share)).sqrt()
}

/// httproute-weight: a canary of 10 %, and all that ask for it by a header.
async fn weights(caller: &Sidecar) {
    const REQUESTS: usize = 10_000;
    /// Of a normal distribution, 99.9 % is within so many.
    const DEVIATIONS: f64 = 3.29;
    let connection = http2::connect(caller.outbound()).await;
    let canary = spread(&connection, "split.demo", "/", &[("x-canary", "yes")], 500).await;
    assert_eq!(canary, [("v2".to_owned(), 500)].into());
    let counts = spread(&connection, "split.demo", "/", &[], REQUESTS).await;
    assert_eq!(counts.values().sum::<usize>(), REQUESTS, "{counts:?}");
    if !within(counts["v1"], REQUESTS, 0.9, DEVIATIONS) {
        // One in a thousand is outside by chance; two of two are not.
        let again = spread(&connection, "split.demo", "/", &[], REQUESTS).await;
        assert!(within(again["v1"], REQUESTS, 0.9, DEVIATIONS), "{counts:?} and {again:?}");
    }
}

/// What the control plane says of routes: `status.parents`.
async fn statuses(mesh: &Mesh) {
    for (kind, name, reasons) in [
        ("httproutes", "split", ["Accepted", "ResolvedRefs"]),
        ("grpcroutes", "grpc", ["Accepted", "ResolvedRefs"]),
        ("httproutes", "loses", ["Conflicted", "ResolvedRefs"]),
    ] {
        let document = mesh.api.document("demo", kind, name).await.expect("it was applied");
        let parent = &document["status"]["parents"][0];
        let told = [0, 1].map(|index| parent["conditions"][index]["reason"].clone());
        assert_eq!(told.each_ref().map(|it| it.as_str().unwrap_or_default()), reasons, "{document:#}");
        assert_eq!(parent["conditions"][0]["observedGeneration"], document["metadata"]["generation"]);
    }
}
