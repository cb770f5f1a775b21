//! Live requests: what comes, what does not, and that nothing is left on when nobody watches.

use std::process::Stdio;
use std::time::Instant;

use pillion::tap::{TapEnded, TapEvent, TapStatus};
use reqwest::Response;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncBufReadExt;
use tokio::process::Command;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, pillion};
use crate::support::pair::Pair;
use crate::support::{eventually, raw, soon};

/// A watch over REST.
struct Watch {
    response: Response,
    text: String,
    status: TapStatus,
    ended: Option<String>,
}

impl Watch {
    async fn open(mesh: &Mesh, query: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/v1/mesh/tap?{query}", mesh.api.base());
        let response = client.get(url).bearer_auth(token(mesh)).send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{query}");
        Self { response, text: String::new(), status: TapStatus::default(), ended: None }
    }

    /// The same once as many sidecars tell.
    async fn of(mesh: &Mesh, query: &str, sidecars: usize) -> Self {
        let mut watch = Self::open(mesh, query).await;
        soon("sidecars tell", async {
            while watch.status.listening != sidecars {
                assert!(watch.read().await.is_empty(), "nobody has asked for anything yet");
            }
        })
        .await;
        watch
    }

    /// What has come; waits for something.
    async fn read(&mut self) -> Vec<TapEvent> {
        let chunk = self.response.chunk().await.ok().flatten();
        let Some(chunk) = chunk else {
            self.ended.get_or_insert_default();
            return Vec::new();
        };
        self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        let mut requests = Vec::new();
        while let Some((event, rest)) = self.text.split_once("\n\n") {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let data = field("data: ");
            match field("event: ") {
                "request" => requests.push(serde_json::from_str(data).expect("a request")),
                "status" => self.status = serde_json::from_str(data).expect("a status"),
                "ended" => {
                    self.ended = Some(serde_json::from_str::<TapEnded>(data).expect("a reason").reason);
                }
                _ => {}
            }
            self.text = rest.to_owned();
        }
        requests
    }

    async fn next(&mut self, many: usize) -> Vec<TapEvent> {
        soon("requests are told", async {
            let mut requests = Vec::new();
            while requests.len() < many {
                assert_eq!(self.ended, None);
                requests.extend(self.read().await);
            }
            requests
        })
        .await
    }
}

fn token(mesh: &Mesh) -> String {
    let text = std::fs::read_to_string(mesh.file("server/admin.token")).expect("the server made one");
    text.trim().to_owned()
}

async fn shown(mesh: &Mesh, tap: &str) {
    let config = format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{ name: mesh }}\nspec: {{ tap: {tap} }}\n"
    );
    mesh.apply(&config).await;
}

/// Watches that a sidecar has a part in.
async fn taps(sidecar: &Sidecar) -> f64 {
    sidecar.metrics().await.sum("pillion_taps", &[])
}

async fn until_taps(sidecar: &Sidecar, many: f64) {
    eventually(&format!("{} has {many} taps", sidecar.workload), async || {
        (taps(sidecar).await == many).then_some(())
    })
    .await;
}

async fn pair() -> Pair {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    // It goes with the process.
    std::mem::forget(app);
    pair
}

fn request(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: app.demo.mesh\r\n{fields}connection: close\r\n\r\n")
}

#[tokio::test]
async fn only_what_is_asked_for_comes_and_of_its_headers_only_those_that_are_shown() {
    let pair = pair().await;
    shown(&pair.mesh, "{ headers: [X-Request-Id, x-tenant] }").await;
    let mut own = Watch::of(&pair.mesh, "resource=svc/app.demo&path=/status&status=5xx&method=GET", 1).await;
    let mut callers =
        Watch::of(&pair.mesh, "resource=svc/app.demo&seenBy=callers&path=/status&errors=true", 1).await;
    let fields = "x-request-id: 7\r\nauthorization: Bearer secret\r\ncookie: a=b\r\nx-other: 1\r\n";
    for path in ["/who", "/status/200?a=secret", "/status/404", "/status/503?a=secret"] {
        pair.exchange(&request(path, fields)).await;
    }
    pair.exchange(&request("/status/500", "")).await;

    let seen = own.next(2).await;
    let paths: Vec<(&str, Option<u16>)> = seen.iter().map(|it| (it.path.as_str(), it.status)).collect();
    assert_eq!(paths, [("/status/503", Some(503)), ("/status/500", Some(500))]);
    let first = &seen[0];
    assert_eq!((first.sidecar.as_str(), first.namespace.as_str()), ("app-1", "demo"));
    assert_eq!(
        (first.direction.as_str(), first.from.as_str(), first.to.as_str()),
        ("inbound", "client.demo", "app.demo")
    );
    assert_eq!(first.peer_identity.as_deref(), Some("spiffe://test.local/ns/demo/sa/client"));
    assert!(first.mtls == Some(true) && first.failed && first.reason.is_none(), "{first:?}");
    let headers: Vec<_> = first.headers.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    assert_eq!(headers, [("x-request-id", "7")]);
    assert!(seen[1].headers.is_empty());
    assert_adds_up(first);

    let seen = callers.next(2).await;
    assert_eq!([&*seen[0].path, &*seen[1].path], ["/status/503", "/status/500"]);
    let first = &seen[0];
    assert_eq!((first.direction.as_str(), first.sidecar.as_str()), ("outbound", "client"));
    assert_eq!(first.workload.as_deref(), Some("app-1"));
    assert_eq!(first.peer_identity.as_deref(), Some("spiffe://test.local/ns/demo/sa/app"));
    assert!(first.segments.iter().any(|segment| segment.segment == "network"), "{first:?}");
    assert_adds_up(first);
}

fn assert_adds_up(event: &TapEvent) {
    let sum: f64 = event.segments.iter().map(|segment| segment.ms).sum();
    assert!((sum - event.duration_ms).abs() < 0.01, "{event:?}");
}

#[tokio::test]
async fn who_refused_and_why_is_told() {
    let pair = pair().await;
    let mut watch =
        Watch::of(&pair.mesh, "resource=workload/client&direction=outbound&status=refused", 1).await;
    pair.get("/who").await;
    // The service has no such port.
    pair.exchange("GET /x HTTP/1.1\r\nhost: app.demo.mesh:1\r\nconnection: close\r\n\r\n").await;
    let seen = watch.next(1).await;
    let first = &seen[0];
    assert_eq!(
        (first.reason.as_deref(), first.refused_by.as_deref()),
        (Some("unknown-port"), Some("outbound"))
    );
    assert_eq!((first.status, first.path.as_str()), (Some(404), "/x"));
    assert_eq!((first.mtls, first.attempts), (None, 0), "it went nowhere");
}

#[tokio::test]
async fn the_rate_holds_under_load_and_what_is_left_out_is_told() {
    const RATE: usize = 5;
    const REQUESTS: usize = 300;
    let pair = pair().await;
    let mut watch = Watch::of(&pair.mesh, &format!("resource=svc/app.demo&maxRate={RATE}"), 1).await;
    let client = pair.caller.client();
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let answer = client.get("http://app.demo.mesh/who").send().await.expect("an answer");
        answer.bytes().await.expect("whole");
    }
    let (mut told, mut last) = (0, began.elapsed());
    soon("all are told of, or counted", async {
        while told + (watch.status.dropped.limited + watch.status.dropped.overflowed) as usize != REQUESTS {
            let more = watch.read().await.len();
            if more > 0 {
                last = began.elapsed();
            }
            told += more;
        }
    })
    .await;
    // A burst of one second's worth, and then the rate; a busy machine makes it last longer, and so more.
    let most = RATE + (last.as_secs_f64() * RATE as f64).ceil() as usize;
    assert!((RATE..=most).contains(&told), "{told} in {last:?}");
}

#[tokio::test]
async fn it_ends_with_its_reader() {
    let pair = pair().await;
    let watches = [
        Watch::of(&pair.mesh, "resource=mesh", 2).await,
        Watch::of(&pair.mesh, "resource=workload/app-1", 1).await,
    ];
    until_taps(&pair.callee, 2.0).await;
    until_taps(&pair.caller, 1.0).await;
    let [whole, one] = watches;
    drop(whole);
    until_taps(&pair.callee, 1.0).await;
    until_taps(&pair.caller, 0.0).await;
    drop(one);
    until_taps(&pair.callee, 0.0).await;
}

#[tokio::test]
async fn it_ends_with_the_control_plane_and_none_is_left_on_when_that_is_back() {
    let mut pair = pair().await;
    let mut watch = Watch::of(&pair.mesh, "resource=mesh", 2).await;
    pair.mesh.server().kill().await;
    soon("the stream ends", async {
        while watch.ended.is_none() {
            watch.read().await;
        }
    })
    .await;
    until_taps(&pair.callee, 0.0).await;
    pair.mesh.start_server().await;
    pair.mesh.until_ready(&[&pair.caller, &pair.callee]).await;
    assert_eq!((taps(&pair.caller).await, taps(&pair.callee).await), (0.0, 0.0));
    let mut watch = Watch::of(&pair.mesh, "resource=svc/app.demo", 1).await;
    pair.get("/who").await;
    assert_eq!(watch.next(1).await[0].path, "/who");
}

/// Who watches says no goodbye: it is killed; and then the control plane stands still, with all its connections open.
#[tokio::test]
async fn it_ends_when_whoever_watches_vanishes() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let mut mesh = Mesh::start_with(&["--heartbeat", "200ms"]).await;
    mesh.apply_service("app", "http").await;
    let callee = mesh.sidecar(SidecarSpec::serving("app-1", "app", app.address())).await;
    mesh.until_ready(&[&callee]).await;
    let mut watching = tap(&mesh, &["svc/app.demo"]);
    until_taps(&callee, 1.0).await;
    watching.start_kill().expect("it runs");
    until_taps(&callee, 0.0).await;

    let _watch = Watch::of(&mesh, "resource=svc/app.demo", 1).await;
    until_taps(&callee, 1.0).await;
    let pid = Pid::from_raw(mesh.server().pid().cast_signed()).expect("it runs");
    kill_process(pid, Signal::STOP).expect("it is our child");
    until_taps(&callee, 0.0).await;
    kill_process(pid, Signal::CONT).expect("it is our child");
}

/// `pillion tap`, with its output.
fn tap(mesh: &Mesh, arguments: &[&str]) -> tokio::process::Child {
    let mut command = Command::new(pillion());
    command.args(["--server", mesh.api.base()]).arg("--token-file").arg(mesh.file("server/admin.token"));
    command.arg("tap").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().expect("the program starts")
}

#[tokio::test]
async fn the_command_line_shows_a_line_or_an_object_each_and_ends_when_it_has_seen_enough() {
    let pair = pair().await;
    let arguments = ["svc/app.demo", "--path", "/status", "--status", "5xx", "--limit", "2"];
    let json = tap(&pair.mesh, &[&arguments[..], &["-o", "json"]].concat());
    let text = tap(&pair.mesh, &arguments);
    until_taps(&pair.callee, 2.0).await;
    for path in ["/status/503", "/status/200", "/status/500", "/status/502"] {
        pair.get(path).await;
    }
    let json = soon("two are enough", json.wait_with_output()).await.expect("its output");
    assert!(json.status.success(), "{}", String::from_utf8_lossy(&json.stderr));
    let lines: Vec<TapEvent> = (String::from_utf8_lossy(&json.stdout).lines())
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let seen: Vec<_> = lines.iter().map(|it| it.status).collect();
    assert_eq!(seen, [Some(503), Some(500)]);

    let text = soon("two are enough", text.wait_with_output()).await.expect("its output");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let first = text.lines().next().expect("a line");
    let wanted = "inbound   client.demo -> app.demo (app-1)  GET /status/503  503  ";
    assert!(first.contains(wanted) && first.ends_with("  mTLS"), "{text}");
    until_taps(&pair.callee, 0.0).await;
}

#[tokio::test]
async fn what_passes_by_is_counted() {
    let pair = pair().await;
    let mut watch = Watch::of(&pair.mesh, "resource=svc/app.demo&status=5xx", 1).await;
    let mut ruled_out = Watch::of(&pair.mesh, "resource=svc/app.demo&path=/nothing", 1).await;
    let mut callers = Watch::of(&pair.mesh, "resource=svc/app.demo&seenBy=callers&path=/nothing", 1).await;
    // Of its callers' only what they send to it.
    pair.exchange("GET / HTTP/1.1\r\nhost: nobody.demo.mesh\r\nconnection: close\r\n\r\n").await;
    for path in ["/who", "/status/503", "/status/404"] {
        pair.get(path).await;
    }
    assert_eq!(watch.next(1).await[0].path, "/status/503");
    for (watch, expected) in [(&mut watch, 2), (&mut ruled_out, 3), (&mut callers, 3)] {
        soon("the others are counted", async {
            while watch.status.passed_by != expected {
                assert!(watch.read().await.is_empty() && watch.ended.is_none());
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_command_line_ends_well_when_it_is_interrupted_and_says_why_nothing_came() {
    let pair = pair().await;
    pair.mesh.apply_service("lonely", "http").await;
    let mut watching = tap(&pair.mesh, &["svc/app.demo"]);
    let mut said = tokio::io::BufReader::new(watching.stderr.take().expect("it is piped"));
    let mut line = String::new();
    soon("it says who tells", said.read_line(&mut line)).await.expect("a line");
    assert_eq!(line, "1 sidecar tells; what fits is shown as it ends\n");
    until_taps(&pair.callee, 1.0).await;
    let pid = watching.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
    kill_process(pid, Signal::INT).expect("it is our child");
    let ended = soon("it ends", watching.wait_with_output()).await.expect("its output");
    assert!(ended.status.success(), "{ended:?}");
    line.clear();
    soon("it says how much that was", said.read_line(&mut line)).await.expect("a line");
    assert!(line.starts_with("0 requests in "), "{line}");
    until_taps(&pair.callee, 0.0).await;

    let mut lonely = tap(&pair.mesh, &["svc/lonely.demo"]);
    let mut said = tokio::io::BufReader::new(lonely.stderr.take().expect("it is piped"));
    let mut line = String::new();
    soon("it says why", said.read_line(&mut line)).await.expect("a line");
    assert_eq!(line, "no workload belongs to lonely.demo\n");

    for (arguments, says) in [
        (&["svc/gone.demo"][..], "there is no Service \"gone.demo\""),
        (&["deploy/app"][..], "must be svc/NAME.NAMESPACE, workload/NAME, ns/NAME or mesh"),
        (&["svc/app.demo", "--status", "9xx"][..], "must be such as \"5xx\""),
    ] {
        let refused =
            soon("it is refused", tap(&pair.mesh, arguments).wait_with_output()).await.expect("words");
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && words.contains(says), "{words}");
    }
}

#[tokio::test]
async fn who_may_not_watch_is_told_so() {
    let pair = pair().await;
    let mut command = Command::new(pillion());
    command.args(["--server", pair.mesh.api.base(), "--token", "plt_nonsense", "tap", "mesh"]);
    let refused = soon("it is refused", command.output()).await.expect("its output");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("token"), "{words}");
    let answer = raw::exchange(
        pair.mesh.api.base().trim_start_matches("http://").parse().expect("an address"),
        &raw::get("localhost", "/v1/mesh/tap?resource=mesh"),
    )
    .await;
    assert_eq!(raw::status(&answer), 401, "{answer}");
    assert_eq!(taps(&pair.callee).await, 0.0);
}
