//! Traces: a foreign one crosses two sidecars and arrives at a real OTLP receiver; what is not recorded, does not; tries are told
//! apart; and a receiver that is away harms nobody.

mod receiver;

use std::time::Duration;

use self::receiver::{Receiver, Span};
use crate::grpc;
use crate::support::apps::{App, HttpApp, Version, refusing};
use crate::support::load::Load;
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::pair::policy;
use crate::support::{alone, eventually, raw};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "b7ad6b7169203331";

/// The mesh's settings of tracing.
async fn trace(mesh: &Mesh, tracing: &str) {
    let document = "apiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: mesh, namespace: pillion-system }\nspec: ";
    mesh.apply(&format!("{document}{{ {tracing} }}\n")).await;
}

/// A request with these fields.
async fn ask(caller: &Sidecar, path: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: app.demo.mesh\r\n{fields}connection: close\r\n\r\n");
    raw::exchange(caller.outbound(), &request).await
}

/// What a sidecar shows to a scraper that asks for this.
async fn metrics(sidecar: &Sidecar, accept: &str) -> String {
    let request =
        raw::get("localhost", "/metrics").replacen("\r\n\r\n", &format!("\r\naccept: {accept}\r\n\r\n"), 1);
    let answer = raw::exchange(sidecar.addresses.admin, &request).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    raw::body(&answer).to_owned()
}

/// A field of the request as `/head` has seen it.
fn seen<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let fields = raw::body(answer).lines().filter_map(|line| line.split_once(": "));
    let mut found = fields.filter(|(field, _)| *field == name);
    let (_, value) = found.next()?;
    assert!(found.next().is_none(), "{name} twice: {answer}");
    Some(value)
}

fn below<'a>(spans: &'a [Span], parent: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.parent == parent).collect()
}

fn only<'a>(spans: &'a [Span], parent: &str) -> &'a Span {
    match below(spans, parent).as_slice() {
        [only] => only,
        found => panic!("not one below {parent}, but {found:#?} of {spans:#?}"),
    }
}

#[tokio::test]
async fn a_foreign_trace_crosses_two_sidecars() {
    let mesh = Mesh::start().await;
    // Its first batch is to be sent again.
    let receiver = Receiver::start(&mesh, 1).await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply(&service("app", "http")).await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    // One goes by the mesh's settings, the other by its own.
    let (http, key) = (format!("http://{}", receiver.addresses.http), mesh.file("key"));
    std::fs::write(&key, "# ours\nx-key: secret\n").expect("the folder is ours");
    let own = ["--tracing-endpoint", &http, "--tracing-protocol", "http/protobuf", "--tracing-sampling", "0"];
    let log = mesh.file("access.jsonl");
    let files = [("--tracing-headers-file", &key), ("--access-log-file", &log)];
    let files = files.map(|(flag, file)| [flag, file.to_str().expect("text")]);
    let own = [&own[..], files.as_flattened()].concat();
    let mut caller = mesh.sidecar(SidecarSpec::caller("client").flags(&own)).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let tracing = format!("tracing: {{ endpoint: 'http://{}', sampling: 0 }}", receiver.addresses.grpc);
    trace(&mesh, &(tracing + ", accessLog: { successPercent: 100 }")).await;
    eventually("the callee's sidecar traces", async || {
        let parent = format!("00-{OTHER}-{SPAN}-01");
        ask(&caller, "/who", &[("traceparent", &parent)]).await;
        receiver.spans().iter().any(|span| span.kind == "SERVER").then_some(())
    })
    .await;

    // What is not recorded says so, whether it came so or chance has it.
    let unsampled = format!("00-{}-{SPAN}-00", "7".repeat(32));
    let answer = ask(&caller, "/head", &[("traceparent", &unsampled)]).await;
    assert_eq!(seen(&answer, "traceparent"), Some(&*unsampled));
    let answer = ask(&caller, "/head", &[]).await;
    let begun = seen(&answer, "traceparent").expect("it is told on");
    assert!(begun.ends_with("-02"), "{begun}");

    let fields = [
        ("traceparent", &*format!("00-{TRACE}-{SPAN}-01")),
        ("tracestate", "vendor=1"),
        ("X-B3-TraceId", TRACE),
        ("X-B3-SpanId", SPAN),
        ("X-B3-Sampled", "1"),
    ];
    let answer = ask(&caller, "/head?secret=1", &fields).await;
    let spans = receiver.until(TRACE, 2).await;
    let client = only(&spans, SPAN);
    let server = only(&spans, &client.id);
    assert_eq!(seen(&answer, "traceparent"), Some(&*format!("00-{TRACE}-{}-01", server.id)));
    assert_eq!(seen(&answer, "tracestate"), Some("vendor=1"));
    for (field, value) in [
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", &server.id),
        ("x-b3-parentspanid", &client.id),
        ("x-b3-sampled", "1"),
    ] {
        assert_eq!(seen(&answer, field), Some(value), "{field}");
    }
    for (span, kind, via, service, instance, peer) in [
        (client, "CLIENT", "http", "client", "client", "app"),
        (server, "SERVER", "grpc", "app", "app-1", "client"),
    ] {
        assert_eq!(
            (&*span.kind, &*span.via, &*span.name, &*span.status),
            (kind, via, "GET", "UNSET"),
            "{span:#?}"
        );
        assert_eq!(
            (&*span.scope, &*span.state, span.flags),
            ("pillion-proxy", "vendor=1", 0x301),
            "{span:#?}"
        );
        let resource =
            ["service.name", "service.namespace", "service.instance.id"].map(|name| &span.resource[name]);
        assert_eq!(resource, [service, "demo", instance]);
        for (name, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/head"),
            ("server.address", "app.demo.mesh"),
            ("http.response.status_code", "200"),
            ("pillion.source", "client.demo"),
            ("pillion.target", "app.demo"),
            ("pillion.peer.id", &*format!("spiffe://test.local/ns/demo/sa/{peer}")),
        ] {
            assert_eq!(span.says(name), value, "{name}: {span:#?}");
        }
        assert!(span.start <= span.end, "{span:#?}");
        let hops =
            span.events.iter().find(|event| event.name == "pillion.hops").expect("where its time went");
        let whole: u64 = hops.attributes.values().map(|us| us.as_u64().expect("microseconds")).sum();
        assert_eq!(whole, (span.end - span.start) / 1000, "{span:#?}");
        for name in ["pillion.sent", "pillion.answered"] {
            let event = span.events.iter().find(|event| event.name == name).expect(name);
            assert!((span.start..=span.end).contains(&event.at), "{span:#?}");
        }
    }
    assert_eq!(client.fields["x-key"], "secret");
    assert_eq!(client.says("pillion.workload"), "app-1");
    assert!(!receiver.spans().iter().any(|span| span.trace == "7".repeat(32) || begun.contains(&span.trace)));

    for (sidecar, span) in [(&caller, client), (&callee, server)] {
        let shown = metrics(sidecar, "application/openmetrics-text; version=1.0.0, text/plain; q=0.5").await;
        let exemplar = format!(" # {{trace_id=\"{TRACE}\",span_id=\"{}\"}} ", span.id);
        let of: Vec<_> = shown.lines().filter(|line| line.contains(&exemplar)).collect();
        let [line] = of.as_slice() else { panic!("not once {exemplar}: {shown}") };
        assert!(line.starts_with("pillion_request_duration_seconds_bucket{"), "{line}");
        assert!(shown.ends_with("\n# EOF\n"), "{shown}");
        // None of a trace that is not recorded; and none for who would not understand it.
        assert!(!shown.contains(&"7".repeat(32)) && !shown.contains(&begun[3..35]), "{shown}");
        assert!(!metrics(sidecar, "text/plain").await.contains("trace_id"));
    }

    let logged = eventually("the request's line in the access log", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().find(|line| line.contains(TRACE)).map(ToOwned::to_owned)
    })
    .await;
    assert!(logged.contains(&format!("\"traceId\":\"{TRACE}\"")), "{logged}");

    // Nothing is lost of the last moment.
    let last = format!("00-{}-{SPAN}-01", "8".repeat(32));
    ask(&caller, "/who", &[("traceparent", &last)]).await;
    caller.process.stop(Duration::from_secs(20)).await;
    assert!(receiver.spans().iter().any(|span| span.trace == "8".repeat(32) && span.via == "http"));
}

#[tokio::test]
async fn with_tracing_off_an_application_s_fields_pass_as_they_are() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply(&service("app", "http")).await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let fields =
        [("traceparent", "of-nobody"), ("tracestate", "no state"), ("b3", "?"), ("x-b3-traceid", "none")];
    let answer = ask(&caller, "/head", &fields).await;
    for (name, value) in fields {
        assert_eq!(seen(&answer, name), Some(value));
    }
    assert_eq!(seen(&ask(&caller, "/head", &[]).await, "traceparent"), None);
}

#[tokio::test]
async fn each_try_has_its_own_span() {
    let mesh = Mesh::start().await;
    let receiver = Receiver::start(&mesh, 0).await;
    let (good, bad) =
        (HttpApp::start("app-1", Version::Http1).await, HttpApp::start("app-2", Version::Http1).await);
    bad.set_failing(true);
    let lines = [
        "retry: { codes: [500], backoff: { base: 1ms, max: 1ms }, budget: { minPerSecond: 1000 } }",
        "loadBalancer: { type: RoundRobin }",
    ];
    mesh.apply(&(service("app", "http") + &policy(&lines))).await;
    trace(&mesh, &format!("tracing: {{ endpoint: 'http://{}', sampling: 100 }}", receiver.addresses.grpc))
        .await;
    let first = mesh.sidecar(SidecarSpec::serving("app-1", "app", good.address())).await;
    let second = mesh.sidecar(SidecarSpec::serving("app-2", "app", bad.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &first, &second]).await;
    caller.until_endpoints("app", 2).await;
    // By turns: one of two begins with the one that fails.
    for id in 1..=2 {
        let parent = format!("00-{id:032x}-{SPAN}-01");
        let answer = ask(&caller, "/head", &[("traceparent", &parent)]).await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
    }
    let twice = eventually("one was sent twice", async || {
        let spans = receiver.spans();
        (1..=2)
            .map(|id| format!("{id:032x}"))
            .find(|id| spans.iter().filter(|span| span.trace == *id).count() == 5)
    })
    .await;
    let spans = receiver.until(&twice, 5).await;
    let whole = only(&spans, SPAN);
    assert_eq!((&*whole.kind, &*whole.status), ("INTERNAL", "UNSET"), "{whole:#?}");
    assert_eq!((&*whole.says("pillion.attempts"), &*whole.says("http.response.status_code")), ("2", "200"));
    let mut tries = below(&spans, &whole.id);
    tries.sort_by_key(|span| span.start);
    let [failed, recovered] = tries.as_slice() else { panic!("not two tries: {spans:#?}") };
    for (span, again, workload, status, outcome) in
        [(failed, "", "app-2", "500", "ERROR"), (recovered, "1", "app-1", "200", "UNSET")]
    {
        assert_eq!((&*span.kind, &*span.status), ("CLIENT", outcome), "{span:#?}");
        let said = ["http.request.resend_count", "pillion.workload", "http.response.status_code"]
            .map(|name| span.says(name));
        assert_eq!(said, [again, workload, status], "{span:#?}");
        let server = only(&spans, &span.id);
        assert_eq!((&*server.kind, server.says("http.response.status_code")), ("SERVER", status.to_owned()));
    }
    assert_eq!(failed.says("error.type"), "500");
    assert!(failed.end <= recovered.start && recovered.end <= whole.end, "{spans:#?}");
}

#[tokio::test]
async fn a_mirrored_copy_has_a_span_of_its_own_below_the_request_s() {
    const ROUTE: &str = "---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: app, namespace: demo}, spec: {
  parentRefs: [{group: '', kind: Service, name: app}],
  rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}],
           backendRefs: [{name: app, port: 80}]}]}}
";
    let mesh = Mesh::start().await;
    let receiver = Receiver::start(&mesh, 0).await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let shadow = HttpApp::start("shadow-1", Version::Http1).await;
    mesh.apply(&[&service("app", "http"), "---\n", &service("shadow", "http"), ROUTE].concat()).await;
    let endpoint = format!("http://{}", receiver.addresses.grpc);
    let flags = ["--tracing-endpoint", &endpoint, "--tracing-sampling", "0"];
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address()).flags(&flags)).await;
    let other =
        mesh.sidecar(SidecarSpec::serving("shadow-1", "shadow", shadow.address()).flags(&flags)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client").flags(&flags)).await;
    mesh.until_ready(&[&caller, &callee, &other]).await;
    caller.until_endpoints("app", 1).await;
    caller.until_endpoints("shadow", 1).await;

    let parent = format!("00-{TRACE}-{SPAN}-01");
    let answer = ask(&caller, "/head", &[("traceparent", &parent)]).await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    let spans = receiver.until(TRACE, 4).await;
    let request = only(&spans, SPAN);
    assert_eq!(
        (request.says("pillion.target"), request.says("pillion.mirror")),
        ("app.demo".into(), String::new())
    );
    let mut caused = below(&spans, &request.id);
    caused.sort_by_key(|span| span.kind.clone());
    let [copy, server] = caused.as_slice() else { panic!("not two: {spans:#?}") };
    assert_eq!((&*server.kind, &server.resource["service.name"]), ("SERVER", &"app".into()));
    assert_eq!(seen(&answer, "traceparent"), Some(&*format!("00-{TRACE}-{}-01", server.id)));
    let said =
        ["pillion.mirror", "pillion.target", "pillion.workload", "url.path", "http.response.status_code"];
    assert_eq!((&*copy.kind, &*copy.name), ("CLIENT", "GET"), "{copy:#?}");
    assert_eq!(said.map(|name| copy.says(name)), ["true", "shadow.demo", "shadow-1", "/head", "200"]);
    let server = only(&spans, &copy.id);
    assert_eq!((&*server.kind, &server.resource["service.name"]), ("SERVER", &"shadow".into()));
}

#[tokio::test]
async fn grpc_is_told_as_such_and_refusals_by_their_reason() {
    let mesh = Mesh::start().await;
    let receiver = Receiver::start(&mesh, 0).await;
    let app = App::start(grpc::serve).await;
    mesh.apply(&service("counter", "grpc")).await;
    trace(
        &mesh,
        &format!(
            "tracing: {{ endpoint: 'http://{}', protocol: http/protobuf, sampling: 100 }}",
            receiver.addresses.http
        ),
    )
    .await;
    let callee = mesh.sidecar(SidecarSpec::serving("counter-1", "counter", app.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("counter", 1).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", caller.outbound()))
        .expect("an address")
        .origin("http://counter.demo.mesh".parse().expect("an origin"));
    let count = grpc::Count { to: 1, then_status: 14 };
    let mut stream =
        grpc::call_over(endpoint.connect_lazy(), count).await.expect("it is answered").into_inner();
    while let Ok(Some(_)) = stream.message().await {}
    let spans = eventually("both sides of the call", async || {
        let mut spans = receiver.spans();
        spans.retain(|span| span.name == "test.Counter/Count");
        (spans.len() == 2).then_some(spans)
    })
    .await;
    let client = only(&spans, "");
    let server = only(&spans, &client.id);
    for span in [client, server] {
        let said = ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code", "error.type"]
            .map(|name| span.says(name));
        assert_eq!(said, ["grpc", "test.Counter", "Count", "14", "14"], "{span:#?}");
        assert_eq!(span.status, "ERROR");
    }

    raw::exchange(caller.outbound(), &raw::get("nobody.demo.mesh", "/")).await;
    let refused = eventually("the refused request", async || {
        receiver.spans().into_iter().find(|span| span.says("pillion.refusal") == "unknown-service")
    })
    .await;
    assert_eq!((&*refused.says("error.type"), &*refused.status), ("unknown-service", "ERROR"));
    assert_eq!(refused.says("http.response.status_code"), "404");
}

#[tokio::test]
async fn over_tls_the_receiver_has_to_prove_who_it_is() {
    let mesh = Mesh::start().await;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (certificate, key) = (mesh.file("otlp.crt"), mesh.file("otlp.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("the folder is ours");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("the folder is ours");
    let receiver = Receiver::start_with(&mesh, 0, Some([certificate.clone(), key])).await;
    let (grpc, http) =
        (format!("https://{}", receiver.addresses.grpc), format!("https://{}", receiver.addresses.http));
    // And both take what is compressed.
    let own = |workload: &str, endpoint: &str, protocol: &str| {
        let how = ["--tracing-protocol", protocol, "--tracing-compression", "gzip"];
        let flags = [&["--tracing-endpoint", endpoint, "--tracing-sampling", "100"][..], &how].concat();
        SidecarSpec::caller(workload).flags(&flags)
    };
    let believing = |spec: SidecarSpec| spec.variable("SSL_CERT_FILE", &certificate);
    let by_grpc = mesh.sidecar(believing(own("by-grpc", &grpc, "grpc"))).await;
    let by_http = mesh.sidecar(believing(own("by-http", &http, "http/protobuf"))).await;
    let doubting = mesh.sidecar(own("doubting", &grpc, "grpc")).await;
    mesh.until_ready(&[&by_grpc, &by_http, &doubting]).await;
    for sidecar in [&doubting, &by_grpc, &by_http] {
        raw::exchange(sidecar.outbound(), &raw::get("nobody.demo.mesh", "/")).await;
    }
    let spans = eventually("both that believe it have sent", async || {
        let spans = receiver.spans();
        (spans.len() >= 2).then_some(spans)
    })
    .await;
    let mut from: Vec<_> =
        spans.iter().map(|span| (&*span.via, span.resource["service.name"].as_str())).collect();
    from.sort_unstable();
    assert_eq!(from, [("grpc", Some("by-grpc")), ("http", Some("by-http"))]);
    let by_http = spans.iter().find(|span| span.via == "http").expect("it is there");
    assert_eq!(by_http.fields["content-encoding"], "gzip");
    eventually("the other says why it does not send", async || {
        doubting.process.log().contains("spans are not taken").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_is_away_harms_nobody() {
    let _alone = alone().await;
    let mesh = Mesh::start_with(&[]).await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let (_nobody, address) = refusing();
    mesh.apply(&service("app", "http")).await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    let endpoint = format!("http://{address}");
    let flags = ["--tracing-endpoint", &endpoint, "--tracing-sampling", "100"];
    let caller = mesh.sidecar(SidecarSpec::caller("client").flags(&flags)).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    // More than there is room for.
    let load = Load::start(caller.client(), "http://app.demo.mesh/who", 1500);
    for _ in 0..3 {
        load.until_good(900).await;
    }
    eventually("spans find no room", async || {
        (caller.metrics().await.sum("pillion_trace_spans_dropped_total", &[]) > 0.0).then_some(())
    })
    .await;
    let report = load.finish().await;
    assert!(report.failures.is_empty(), "{:#?}", &report.failures[..report.failures.len().min(10)]);
    assert_eq!(caller.metrics().await.sum("pillion_trace_spans_exported_total", &[]), 0.0);
}
