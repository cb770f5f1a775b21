//! Bad input of every kind: each gets a specific error, nothing crashes, nothing is half-applied.

use std::time::Duration;

use pillion::demo::api::ApiError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion_proxy, service};
use crate::support::{PATIENCE, eventually, raw, soon};

/// Applies what must be refused; gives the status and every fault as `field: message`, with its line where it has one.
async fn refused(mesh: &Mesh, yaml: &str) -> (u16, Vec<String>) {
    let error = mesh.api.apply(yaml).await.expect_err("it must be refused");
    let ApiError::Refused { status, body, .. } = error else { panic!("{error}") };
    let problem: serde_json::Value = serde_json::from_str(&body).expect("a problem document (RFC 9457)");
    let faults = problem["faults"].as_array().cloned().unwrap_or_default();
    let text = |fault: &serde_json::Value, key: &str| fault[key].as_str().unwrap_or_default().to_owned();
    let faults = faults.iter().map(|fault| {
        let line = fault["line"].as_u64().map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}: {}", text(fault, "field"), text(fault, "message"))
    });
    (status, faults.collect())
}

fn assert_fault(faults: &[String], parts: &[&str]) {
    let found = faults.iter().any(|fault| parts.iter().all(|part| fault.contains(part)));
    assert!(found, "no fault that says {parts:?}: {faults:#?}");
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: split, namespace: demo }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: web }]
  rules:
    - backendRefs: [{ name: web, port: 80, weight: WEIGHT }, { name: BACKEND, port: 80 }]
";

#[tokio::test]
async fn documents() {
    let mesh = Mesh::start().await;
    let web = service("web", "http");

    let (status, faults) = refused(&mesh, "kind: Service\nmetadata: {name: web\nspec: [\n").await;
    assert!((400..500).contains(&status), "{status}");
    assert_fault(&faults, &["line 3", "not YAML"]);

    let unknown = web.replace("  selector:", "  colour: green\n  externalName: a.example\n  selector:");
    let (status, faults) = refused(&mesh, &unknown).await;
    assert!((400..500).contains(&status), "{status}");
    assert_fault(&faults, &["spec.colour"]);
    assert_fault(&faults, &["spec.externalName"]);

    let negative = ROUTE.replace("WEIGHT", "-1").replace("BACKEND", "web");
    let (_, faults) = refused(&mesh, &format!("{web}---\n{negative}")).await;
    assert_fault(&faults, &["spec.rules[0].backendRefs[0].weight", "-1"]);

    let missing = ROUTE.replace("WEIGHT", "1").replace("BACKEND", "nowhere");
    let (_, faults) = refused(&mesh, &format!("{web}---\n{missing}")).await;
    assert_fault(&faults, &["spec.rules[0].backendRefs[1]", "nowhere"]);

    // All faults of all documents at once.
    let both = negative.replace("name: web, port: 80 }]", "name: nowhere, port: 80 }]");
    let (_, faults) = refused(&mesh, &format!("{unknown}---\n{both}")).await;
    assert_fault(&faults, &["spec.colour"]);
    assert_fault(&faults, &["weight", "-1"]);

    // The Service was right every time, and none of the times was it applied.
    let found = mesh.api.document("demo", "services", "web").await;
    assert!(matches!(found, Err(ApiError::Refused { status: 404, .. })), "{found:?}");
    let right = ROUTE.replace("WEIGHT", "1").replace("BACKEND", "web");
    mesh.apply(&format!("{web}---\n{right}")).await;
    assert!(mesh.server_is_well().await);
}

/// A sidecar in front of an application, and one that calls it.
async fn pair(mesh: &Mesh, app: &HttpApp) -> (Sidecar, Sidecar) {
    mesh.apply_service("app", "http").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    (caller, callee)
}

async fn assert_well(caller: &mut Sidecar) {
    let request = "GET /who HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n\r\n";
    let answer = raw::exchange(caller.outbound(), request).await;
    assert_eq!(raw::status(&answer), 200, "it goes on serving: {answer}");
    assert!(caller.process.ended().is_none());
    assert!(!caller.process.log().contains("panicked"), "{}", caller.process.last_words());
}

#[tokio::test]
async fn a_header_of_1_mib() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let (mut caller, _callee) = pair(&mesh, &app).await;
    let mut request = b"GET / HTTP/1.1\r\nhost: app.demo.mesh\r\nx-large: ".to_vec();
    request.resize(request.len() + (1 << 20), b'a');
    request.extend_from_slice(b"\r\n\r\n");
    let answer = raw::exchange_until(caller.outbound(), &request, |seen| seen.contains("\r\n\r\n")).await;
    assert_eq!(raw::status(&answer), 431, "{answer}");
    let reason = raw::header(&answer, "pillion-error").unwrap_or_default();
    assert!(reason.starts_with("headers-too-large"), "{answer}");
    assert_eq!(app.requests(), 0);
    assert_well(&mut caller).await;
}

#[tokio::test]
async fn a_truncated_http2_preface_and_other_noise() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let (mut caller, callee) = pair(&mesh, &app).await;
    let noises: [&[u8]; 5] = [
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    ];
    for noise in noises {
        for to in [caller.outbound(), callee.addresses.inbound] {
            soon("the end of a connection that sent noise", async {
                let mut stream = TcpStream::connect(to).await.expect("it listens");
                stream.write_all(noise).await.expect("it reads");
                stream.shutdown().await.expect("it is open");
                let mut answer = Vec::new();
                // Closed one way or the other, and not kept.
                let _ = stream.read_to_end(&mut answer).await;
                assert!(!String::from_utf8_lossy(&answer).contains("200 OK"), "{noise:?}");
            })
            .await;
        }
    }
    eventually("malformed messages are counted by reason", async || {
        let metrics = caller.metrics().await;
        let reasons = metrics.matching("pillion_malformed_requests_total", &[("direction", "outbound")]);
        let reasons: Vec<_> = reasons.filter(|sample| sample.value >= 1.0).collect();
        (!reasons.is_empty() && reasons.iter().all(|sample| !sample.label("reason").is_empty())).then_some(())
    })
    .await;
    assert_eq!(app.requests(), 0);
    assert_well(&mut caller).await;
}

#[tokio::test]
async fn tokens_that_do_not_hold() {
    let mesh = Mesh::start().await;
    let expired = mesh.api.join_token_for("demo", "app", Duration::from_secs(1)).await.expect("a token");
    let unknown = {
        let (head, fingerprint) = expired.rsplit_once('.').expect("a fingerprint at the end");
        let (head, secret) = head.rsplit_once('.').expect("a secret before it");
        format!("{head}.{}.{fingerprint}", "A".repeat(secret.len()))
    };
    // Expired for sure, whatever the clock's resolution.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let cases = [("expired", expired.as_str(), "expired"), ("unknown", &unknown, "unknown")];
    for (name, token, reason) in cases {
        let addresses = mesh.file(&format!("{name}.json"));
        let mut arguments: Vec<std::ffi::OsString> = Vec::new();
        for (flag, value) in [
            ("--workload", name),
            ("--labels", "app=app"),
            ("--control-plane", &mesh.control_plane.to_string()),
            ("--join-token", token),
            ("--addresses-file", &addresses.display().to_string()),
            ("--health", "none"),
            ("--inbound-listen", "127.0.0.1:0"),
            ("--outbound-listen", "127.0.0.1:0"),
            ("--admin-listen", "127.0.0.1:0"),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        let mut sidecar = mesh.child(name, pillion_proxy(), arguments);
        eventually(&format!("the sidecar says that its token is {reason}"), async || {
            let log = sidecar.log().to_ascii_lowercase();
            (log.contains(reason) && log.contains("token")).then_some(())
        })
        .await;
        assert!(sidecar.ended().is_none(), "it goes on trying: a control plane may learn of the token later");
        sidecar.stop(PATIENCE).await;
    }
    assert!(mesh.api.workloads().await.expect("the registry").is_empty());

    let stranger = pillion::demo::api::Api::new(mesh.api.base(), "pillion-api.nobody.AAAA");
    let error = stranger.apply(&service("web", "http")).await.expect_err("nobody knows this token");
    assert!(matches!(error, ApiError::Refused { status: 401, .. }), "{error}");
}

#[tokio::test]
async fn settings_that_cannot_hold() {
    let cases: [(&str, &str, &[&str]); 4] = [
        // Whoever reached it would speak with the workload's identity.
        ("--listeners", "0.0.0.0:0=app.demo:80", &["listeners", "loopback"]),
        ("--listeners", "[::]:0=app.demo:80", &["listeners", "loopback"]),
        // More than a clock can count, and more than a duration can hold.
        ("--drain-timeout", "18446744073709551615s", &["drainTimeout"]),
        ("--drain-timeout", "18446744073709551615s1h", &["drainTimeout"]),
    ];
    for (flag, value, words) in cases {
        let output = tokio::process::Command::new(pillion_proxy())
            .args(["--workload", "app-1", "--join-token", "none", flag, value, "check-config"])
            .output();
        let output = soon("an answer of `check-config`", output).await.expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        // EX_CONFIG of sysexits.
        assert_eq!(output.status.code(), Some(78), "{flag} {value}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{flag} {value}: {said}");
    }
}
