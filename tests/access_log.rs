//! Access logs as both sidecars write them: what a line says, which share is written, and that nobody waits for it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures_util::{StreamExt, stream};
use pillion::demo::sidecar::Addresses;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::logs::{full_pipe, written};
use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion_proxy, service, spiffe_id};
use crate::support::pair::policy;
use crate::support::{eventually, raw, soon};

/// Requests of which 1 % is written; the number is then in these bounds but for one run in ten million.
const MANY: usize = 2_000;
const OF_THEM: std::ops::RangeInclusive<usize> = 2..=50;

/// A caller, and two workloads of `app.demo` of which the first fails when it is told to. All write their logs to files.
struct Logged {
    mesh: Mesh,
    caller: Sidecar,
    callees: [Sidecar; 2],
    apps: [HttpApp; 2],
}

/// Applies a `MeshConfig` with this `accessLog`.
async fn configure(mesh: &Mesh, access_log: &str) {
    mesh.apply(&format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{ name: mesh, namespace: pillion-system }}\n\
         spec: {{ accessLog: {access_log} }}\n"
    ))
    .await;
}

fn log(mesh: &Mesh, workload: &str) -> PathBuf {
    mesh.file(&format!("{workload}.access"))
}

async fn sidecar(mesh: &Mesh, spec: SidecarSpec, workload: &str) -> Sidecar {
    mesh.sidecar(spec.flags(&["--access-log-file", &log(mesh, workload).display().to_string()])).await
}

/// All that a sidecar has written.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may not be whole yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

/// Waits for the line of a request for this path.
async fn line(path: &Path, requested: &str) -> Value {
    eventually(&format!("a line for {requested}"), async || {
        lines(path).into_iter().find(|line| line["path"] == requested)
    })
    .await
}

impl Logged {
    async fn start(access_log: &str) -> Self {
        let mesh = Mesh::start().await;
        configure(&mesh, access_log).await;
        let retry = policy(&["retry: { on: [5xx], attempts: 3, backoff: { base: 1ms, max: 1ms } }"]);
        mesh.apply(&(service("app", "http") + &retry)).await;
        let apps = [HttpApp::start("one", Version::Http1).await, HttpApp::start("two", Version::Http1).await];
        let callee = |name: &'static str, app: &HttpApp| SidecarSpec::serving(name, "app", app.address());
        let callees = [
            sidecar(&mesh, callee("app-1", &apps[0]), "app-1").await,
            sidecar(&mesh, callee("app-2", &apps[1]), "app-2").await,
        ];
        let caller = sidecar(&mesh, SidecarSpec::caller("client"), "client").await;
        mesh.until_ready(&[&caller, &callees[0], &callees[1]]).await;
        caller.until_endpoints("app", 2).await;
        Self { mesh, caller, callees, apps }
    }

    async fn send(&self, request: &str) -> String {
        raw::exchange(self.caller.outbound(), request).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(&raw::get("app.demo.mesh", path)).await
    }
}

#[tokio::test]
async fn both_sidecars_say_of_a_request_what_became_of_it_and_the_mesh_may_change_its_mind() {
    let logged = Logged::start("{ successPercent: 100, headers: [x-request-id] }").await;
    let request = "POST /echo?card=1234 HTTP/1.1\r\nhost: app.demo.mesh\r\nx-request-id: a\"b\\\r\n\
                   cookie: secret\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    assert_eq!(raw::status(&logged.send(request).await), 200);
    let (client, app) = (spiffe_id("client").to_string(), spiffe_id("app").to_string());
    let outbound = line(&log(&logged.mesh, "client"), "/echo").await;
    let served = outbound["workload"].as_str().expect("somebody has served it");
    let inbound = line(&log(&logged.mesh, served), "/echo").await;
    for (line, direction, peer) in [(&outbound, "outbound", &app), (&inbound, "inbound", &client)] {
        for (field, expected) in [
            ("direction", direction),
            ("method", "POST"),
            ("authority", "app.demo.mesh"),
            ("outcome", "completed"),
            ("peer", peer),
            ("source", "client.demo"),
            ("target", "app.demo"),
            ("workload", served),
        ] {
            assert_eq!(line[field], expected, "{field} of {line:#}");
        }
        assert_eq!((&line["status"], &line["mtls"]), (&200.into(), &true.into()), "{line:#}");
        assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&5.into(), &5.into()), "{line:#}");
        assert_eq!(line["headers"], serde_json::json!({ "x-request-id": "a\"b\\" }), "{line:#}");
        let split: f64 = line["split"].as_object().expect("a split").values().filter_map(Value::as_f64).sum();
        assert!((split - line["durationMs"].as_f64().expect("a number")).abs() < 0.01, "{line:#}");
    }
    assert_eq!(outbound["attempts"], 1, "{outbound:#}");
    let address = logged.callees.iter().find(|callee| callee.workload == served).expect("one of them");
    assert_eq!(outbound["endpoint"], address.addresses.inbound.to_string(), "{outbound:#}");
    assert!(inbound["peerAddress"].as_str().is_some_and(|it| it.starts_with("127.")), "{inbound:#}");

    // Errors only, from one moment to the next; and in another form.
    configure(&logged.mesh, "{ format: text, successPercent: 0, path: full }").await;
    let text = log(&logged.mesh, "client");
    let mut round = 0;
    eventually("only errors are written, as text", async || {
        round += 1;
        logged.get(&format!("/who?quiet={round}")).await;
        let refused = logged.send(&raw::get("app.demo.mesh:1", &format!("/loud?{round}"))).await;
        assert_eq!(raw::refusal(&refused), "unknown-port");
        let loud = format!("\"GET /loud?{round} HTTP/1.1\" 404 unknown-port ");
        let found = eventually("a line", async || {
            let lines = std::fs::read_to_string(&text).ok()?;
            lines.contains(&format!("/loud?{round}")).then_some(lines)
        });
        let lines = tokio::time::timeout(std::time::Duration::from_secs(2), found).await.ok()?;
        (lines.contains(&loud) && !lines.contains(&format!("quiet={round} "))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_error_is_written_and_one_percent_of_the_rest_by_default() {
    let logged = Logged::start("{}").await;
    let client = logged.caller.client();
    let get = |number: usize| {
        let request = client.get(format!("http://app.demo.mesh/who?{number}"));
        async move { assert_eq!(request.send().await.expect("an answer").status(), 200) }
    };
    soon("all are answered", stream::iter(0..MANY).map(get).buffer_unordered(16).collect::<Vec<_>>()).await;
    for app in &logged.apps {
        app.set_failing(true);
    }
    for number in 0..20 {
        assert_eq!(raw::status(&logged.get(&format!("/fail/{number}")).await), 500);
    }
    let refused = logged.send(&raw::get("nobody.demo.mesh", "/nowhere")).await;
    assert_eq!(raw::refusal(&refused), "unknown-service");
    let refused = line(&log(&logged.mesh, "client"), "/nowhere").await;
    for (field, expected) in [("outcome", "refused"), ("reason", "unknown-service"), ("target", "unknown")] {
        assert_eq!(refused[field], expected, "{field} of {refused:#}");
    }
    let lines = lines(&log(&logged.mesh, "client"));
    let of = |start: &'static str| {
        lines.iter().filter(move |line| line["path"].as_str().is_some_and(|path| path.starts_with(start)))
    };
    let failed: std::collections::BTreeSet<_> = of("/fail/").map(|line| line["path"].to_string()).collect();
    assert_eq!(failed.len(), 20);
    let good = of("/who").count();
    assert!(OF_THEM.contains(&good), "{good} of {MANY}");
    let metrics = eventually("lines are counted", async || {
        let metrics = logged.caller.metrics().await;
        let written = metrics.sum("pillion_access_log_lines_total", &[("result", "written")]);
        (written as usize >= lines.len()).then_some(metrics)
    })
    .await;
    assert_eq!(metrics.sum("pillion_access_log_lines_total", &[("result", "dropped")]), 0.0);
}

#[tokio::test]
async fn a_request_that_was_sent_again_names_every_try() {
    let logged = Logged::start("{ successPercent: 100 }").await;
    // Until one has begun with the one that fails.
    logged.apps[0].set_failing(true);
    let client = log(&logged.mesh, "client");
    let mut number = 0;
    let repeated = eventually("a request goes to the one that fails first", async || {
        number += 1;
        let path = format!("/status/20{}", number % 2);
        logged.get(&path).await;
        lines(&client).into_iter().find(|line| line["attempts"] == 2)
    })
    .await;
    let tries = repeated["tries"].as_array().expect("a list");
    let tried: Vec<_> = tries.iter().map(|one| (&one["workload"], &one["outcome"])).collect();
    assert_eq!(tried[0], (&"app-1".into(), &"500".into()), "{repeated:#}");
    assert_eq!(tried[1].0, "app-2", "{repeated:#}");
    assert_eq!((&repeated["workload"], &repeated["outcome"]), (&"app-2".into(), &"completed".into()));
    assert!(tries[1]["afterMs"].as_f64() > tries[0]["afterMs"].as_f64(), "{repeated:#}");
}

#[tokio::test]
async fn connections_that_are_carried_as_bytes_have_lines_too() {
    const TARGET: &str = "store.demo:80";
    let app = App::tcp_echo().await;
    let mesh = Mesh::start().await;
    mesh.apply_service("store", "tcp").await;
    let spec = SidecarSpec::serving("store-1", "store", app.address);
    // No word of the mesh: their own settings say so.
    let callee = sidecar(&mesh, spec.flags(&["--access-log", "json"]), "store-1").await;
    let spec = SidecarSpec::caller("client").listener(TARGET).flags(&["--access-log", "json"]);
    let caller = sidecar(&mesh, spec, "client").await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("store", 1).await;
    configure(&mesh, "{ successPercent: 100 }").await;

    let echo = async || {
        let mut stream = TcpStream::connect(caller.addresses.listeners[TARGET]).await.ok()?;
        stream.write_all(b"ping").await.ok()?;
        stream.shutdown().await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        (answer == b"ping").then_some(())
    };
    let of_tcp = |workload: &str| {
        let path = log(&mesh, workload);
        move || lines(&path).into_iter().find(|line| line["protocol"] == "TCP" && line["outcome"] == "closed")
    };
    let (outbound, inbound) = (of_tcp("client"), of_tcp("store-1"));
    let (outbound, inbound) = eventually("a line of both", async || {
        echo().await?;
        Some((outbound()?, inbound()?))
    })
    .await;
    let (client, store) = (spiffe_id("client").to_string(), spiffe_id("store").to_string());
    for (line, direction, peer) in [(&outbound, "outbound", &store), (&inbound, "inbound", &client)] {
        for (field, expected) in
            [("direction", direction), ("peer", peer), ("source", "client.demo"), ("target", "store.demo")]
        {
            assert_eq!(line[field], expected, "{field} of {line:#}");
        }
        assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&4.into(), &4.into()), "{line:#}");
    }
    assert_eq!(outbound["endpoint"], callee.addresses.inbound.to_string(), "{outbound:#}");

    // And those that come to nothing.
    drop(app);
    let path = log(&mesh, "client");
    let refused = eventually("a refused connection has a line", async || {
        let _ = echo().await;
        lines(&path).into_iter().find(|line| line["outcome"] == "refused" && line["protocol"] == "TCP")
    })
    .await;
    assert_eq!(refused["reason"], "application-unreachable", "{refused:#}");
    assert_eq!(refused["authority"], "store.demo", "{refused:#}");
    assert_eq!(
        (&refused["target"], &refused["source"]),
        (&"store.demo".into(), &"client.demo".into()),
        "{refused:#}"
    );
    assert_eq!(refused["endpoint"], callee.addresses.inbound.to_string(), "{refused:#}");
    assert!(refused["attempts"].as_u64() >= Some(1), "{refused:#}");
    let tried = refused["tries"].as_array().map(|tries| &tries[0]).unwrap_or(&refused);
    assert!(
        [&tried["outcome"], &tried["reason"]].contains(&&"application-unreachable".into()),
        "{refused:#}"
    );
}

#[tokio::test]
async fn an_upgraded_connection_has_its_line_when_it_ends() {
    let app = App::start(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await;
    let mesh = Mesh::start().await;
    configure(&mesh, "{ successPercent: 100 }").await;
    mesh.apply_service("app", "http").await;
    let callee = sidecar(&mesh, SidecarSpec::serving("app-1", "app", app.address), "app-1").await;
    let caller = sidecar(&mesh, SidecarSpec::caller("client"), "client").await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let upgrade = "GET /chat HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let mut stream = raw::begin(caller.outbound(), upgrade).await;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(soon("a head", stream.read_u8()).await.expect("an answer").into());
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"ping").await.expect("it is carried");
    stream.shutdown().await.expect("one direction can be closed");
    let mut echo = String::new();
    soon("an echo", stream.read_to_string(&mut echo)).await.expect("what was sent");
    assert_eq!(echo, "ping");
    for workload in ["client", "app-1"] {
        let line = line(&log(&mesh, workload), "/chat").await;
        assert_eq!((&line["status"], &line["outcome"]), (&101.into(), &"completed".into()), "{line:#}");
        assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&4.into(), &4.into()), "{line:#}");
    }
}

#[tokio::test]
async fn a_sidecar_serves_though_nobody_takes_its_access_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (output, reader) = full_pipe();
    let arguments = [
        &["--control-plane", "127.0.0.1:1", "--workload", "app-1", "--join-token", "secret"][..],
        &["--access-log", "text", "--log-level", "off", "--addresses-file", "addresses.json"],
        &["--inbound-listen", "127.0.0.1:0", "--outbound-listen", "127.0.0.1:0"],
        &["--admin-listen", "127.0.0.1:0"],
    ]
    .concat();
    let mut command = Command::new(pillion_proxy());
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null()).stdout(output);
    let _sidecar = command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("the program starts");
    let addresses: Addresses = written(&folder.path().join("addresses.json")).await;
    let client = pillion::demo::sample::client_through(addresses.outbound).expect("a valid proxy address");
    // More than may wait, and each an error.
    let refused = |_| {
        let request = client.get("http://127.0.0.1:1/");
        async move { assert_eq!(request.send().await.expect("an answer").status(), 503) }
    };
    let all = stream::iter(0..1_500).map(refused).buffer_unordered(16).collect::<Vec<_>>();
    soon("all are answered", all).await;
    eventually("what was left out is counted", async || {
        let answer = raw::exchange(addresses.admin, &raw::get("localhost", "/metrics")).await;
        let count = answer.lines().find_map(|line| {
            line.strip_prefix("pillion_access_log_lines_total{result=\"dropped\"} ")?.parse::<u64>().ok()
        });
        count.filter(|dropped| *dropped > 0).map(|_| ())
    })
    .await;
    drop(reader);
}
