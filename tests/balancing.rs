//! Which endpoint gets a request or a connection: by each algorithm, by weight, by zone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec};
use crate::support::{eventually, soon};

/// A service of the workloads `app`, and how it is balanced.
fn balanced(name: &str, protocol: &str, balancer: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: demo }}\nspec:\n  selector: {{ app: app }}\n  \
         ports: [{{ name: main, port: 80, targetPort: 8080, appProtocol: {protocol} }}]\n---\napiVersion: \
         pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {name}, namespace: demo }}\nspec:\n  targetRefs: [{{ \
         group: \"\", kind: Service, name: {name} }}]\n  loadBalancer: {balancer}\n"
    )
}

/// Keeps clients of `kept`, whose requests two other services serve, and of `marked`.
const SESSION: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: kept, namespace: demo }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: kept }]
  rules:
    - sessionPersistence: { sessionName: session, absoluteTimeout: 1h, cookieConfig: { lifetimeType: Permanent } }
      backendRefs: [{ name: turns, port: 80 }, { name: own, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: marked, namespace: demo }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: marked }]
  rules:
    - sessionPersistence: { sessionName: x-session, type: Header, idleTimeout: 1h }
      backendRefs: [{ name: marked, port: 80 }]
";

/// Who answers a request, and the cookie that the answer sets.
async fn answer(request: reqwest::RequestBuilder) -> (String, Option<String>) {
    let response = soon("an answer", request.send()).await.expect("the sidecar answers");
    let cookie = response.headers().get("set-cookie").map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(response.status(), 200);
    (soon("its body", response.text()).await.expect("text"), cookie)
}

/// How often each answered.
async fn spread(requests: impl Iterator<Item = reqwest::RequestBuilder>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(answer(request).await.0).or_default() += 1;
    }
    counts
}

/// What a caller's admin port says of an endpoint.
async fn shown(caller: &Sidecar, service: &str, workload: &str) -> serde_json::Value {
    let url = format!("http://{}/endpoints", caller.addresses.admin);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let text = client.get(url).send().await.expect("an answer").text().await.expect("text");
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("a list");
    let is = |it: &&serde_json::Value| it["service"] == service && it["workload"] == workload;
    all.iter().find(is).unwrap_or_else(|| panic!("{service} {workload} in {text}")).clone()
}

#[tokio::test]
async fn requests_go_where_the_policy_says() {
    let mesh = Mesh::start().await;
    let hash = |on: &str| format!("{{ type: RingHash, hashOn: [{on}] }}");
    mesh.apply(
        &[
            balanced("turns", "http", "{ type: RoundRobin }"),
            balanced(
                "keyed",
                "http",
                &hash("{ type: Header, name: x-user }, { type: QueryParameter, name: user }"),
            ),
            balanced(
                "bounded",
                "http",
                "{ type: RingHash, hashOn: [{ type: Header, name: x-user }], boundedLoadPercent: 125 }",
            ),
            balanced("table", "http", "{ type: Maglev, hashOn: [{ type: Cookie, name: sid, ttl: 1h }] }"),
            balanced("own", "http", &hash("{ type: Source }")),
            balanced("kept", "http", "{}"),
            balanced("marked", "http", "{ type: RoundRobin }"),
            SESSION.to_owned(),
            balanced("chance", "http", "{ type: Random }"),
            balanced("near", "http", "{ type: LeastRequest, locality: { mode: PreferZone } }"),
        ]
        .concat(),
    )
    .await;
    let mut apps = Vec::new();
    let mut sidecars = Vec::new();
    for (name, zone, weight) in [("app-1", "a", "200"), ("app-2", "b", "100"), ("app-3", "b", "100")] {
        let app = HttpApp::start(name, Version::Http1).await;
        let spec = SidecarSpec::serving(name, "app", app.address())
            .health(&format!("http://{}/healthz", app.address()))
            .flags(&["--zone", zone, "--weight", weight]);
        sidecars.push(mesh.sidecar(spec).await);
        apps.push(app);
    }
    let caller = mesh.sidecar(SidecarSpec::caller("client").flags(&["--zone", "a"])).await;
    mesh.until_ready(&sidecars.iter().chain([&caller]).collect::<Vec<_>>()).await;
    for service in ["turns", "chance", "keyed", "bounded", "table", "own", "kept", "marked", "near"] {
        caller.until_endpoints(service, 3).await;
    }
    let client = caller.client();
    let get = |service: &str, rest: &str| client.get(format!("http://{service}.demo.mesh/who{rest}"));

    let turns = spread((0..40).map(|_| get("turns", ""))).await;
    let expected =
        [("app-1", 20), ("app-2", 10), ("app-3", 10)].map(|(name, turns)| (name.to_owned(), turns));
    for (name, turns_of_it) in expected {
        assert!(turns[&name].abs_diff(turns_of_it) <= 1, "{turns:?}");
    }
    assert_eq!(shown(&caller, "turns.demo", "app-1").await["share"], 0.5);
    let taken = [("target", "turns.demo"), ("by", "RoundRobin"), ("zone", "other")];
    let other = caller.metrics().await.sum("pillion_balancer_picks_total", &taken);
    assert!((19.0..=21.0).contains(&other), "{other}");

    // By chance: 200 of twice the weight, with a standard deviation of 10.
    let chance = spread((0..400).map(|_| get("chance", ""))).await;
    assert!(chance["app-1"].abs_diff(200) <= 50 && chance.len() == 3, "{chance:?}");
    // What was chosen before a change of the algorithm stays counted as what it was.
    mesh.apply(&balanced("chance", "http", "{ type: RoundRobin }")).await;
    let picks = async |by| {
        let labels = [("target", "chance.demo"), ("by", by)];
        caller.metrics().await.sum("pillion_balancer_picks_total", &labels)
    };
    let mut after = 0.0;
    eventually("the change is there", async || {
        after += 1.0;
        answer(get("chance", "")).await;
        (picks("RoundRobin").await > 0.0).then_some(())
    })
    .await;
    let counted = (picks("Random").await, picks("RoundRobin").await);
    assert!(counted.0 >= 400.0 && counted.0 + counted.1 == 400.0 + after, "{counted:?}, {after}");

    // One key has one endpoint, many keys have them all.
    let mut all = BTreeSet::new();
    for user in 0..24 {
        let user = format!("user-{user}");
        let (by_header, _) = answer(get("keyed", "").header("x-user", &user)).await;
        let (by_query, _) = answer(get("keyed", &format!("?a=b&user={user}"))).await;
        assert_eq!(by_header, by_query, "{user}");
        all.insert(by_header);
    }
    assert_eq!(all.len(), 3, "{all:?}");

    // A key that is called too often gets more than one.
    let crowd =
        (0..8).map(|_| answer(client.get("http://bounded.demo.mesh/after-ms/200").header("x-user", "one")));
    let crowd: BTreeSet<_> =
        futures_util::future::join_all(crowd).await.into_iter().map(|(name, _)| name).collect();
    assert!(crowd.len() > 1, "{crowd:?}");

    // A cookie is made once, and then kept to.
    let mut all = BTreeSet::new();
    for _ in 0..24 {
        let (first, cookie) = answer(get("table", "")).await;
        let cookie = cookie.expect("a new client gets a cookie");
        assert!(
            cookie.starts_with("sid=") && cookie.ends_with("; Max-Age=3600; Path=/; HttpOnly"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().expect("a pair").to_owned();
        assert_eq!(answer(get("table", "").header("cookie", pair)).await, (first.clone(), None));
        all.insert(first);
    }
    assert_eq!(all.len(), 3, "{all:?}");

    // All that one workload sends goes to one endpoint, and is counted as that.
    assert_eq!(spread((0..10).map(|_| get("own", ""))).await.len(), 1);

    // A session keeps to its backend and endpoint for as long as that is ready, and then begins anew with another.
    let (first, cookie) = answer(get("kept", "")).await;
    let cookie = cookie.expect("a session begins");
    assert!(cookie.starts_with("session=") && cookie.contains("; Max-Age=3600; "), "{cookie}");
    let with = |cookie: &str| get("kept", "").header("cookie", cookie.split(';').next().expect("a pair"));
    for _ in 0..12 {
        assert_eq!(answer(with(&cookie)).await, (first.clone(), None));
    }
    let app = apps.iter().position(|app| app.name() == first).expect("one of them");
    apps[app].set_unhealthy(true);
    let (second, cookie) = eventually("the session moves", async || {
        let (second, cookie) = answer(with(&cookie)).await;
        (second != first).then(|| (second, cookie.expect("and says so")))
    })
    .await;
    apps[app].set_unhealthy(false);
    caller.until_endpoints("kept", 3).await;
    for _ in 0..12 {
        assert_eq!(answer(with(&cookie)).await, (second.clone(), None));
    }
    // The same by a header, which a client sends as it was told.
    let first = get("marked", "").send().await.expect("an answer");
    let token = first.headers()["x-session"].clone();
    let first = first.text().await.expect("text");
    assert!(!token.to_str().expect("text").contains(&first), "{token:?} names nobody");
    for _ in 0..6 {
        let next = get("marked", "").header("x-session", &token).send().await.expect("an answer");
        assert_eq!(next.headers().get("x-session"), None);
        assert_eq!(next.text().await.expect("text"), first);
    }
    let kept = caller.metrics().await.sum("pillion_balancer_picks_total", &[("by", "session")]);
    assert!(kept >= 24.0, "{kept}");

    // The caller's zone; when that is lost, the others; and back.
    let near = async || spread((0..20).map(|_| get("near", ""))).await.into_keys().collect::<Vec<_>>();
    assert_eq!(near().await, ["app-1"]);
    let at_home = shown(&caller, "near.demo", "app-1").await;
    assert_eq!(
        (&at_home["zone"], &at_home["share"], &at_home["weight"]),
        (&"a".into(), &1.0.into(), &200.into())
    );
    apps[0].set_unhealthy(true);
    eventually("the other zone serves", async || (near().await == ["app-2", "app-3"]).then_some(())).await;
    apps[0].set_unhealthy(false);
    eventually("the own zone serves again", async || (near().await == ["app-1"]).then_some(())).await;

    // Of half a zone that is well, 70 % are enough (times 140 %): of 400, 280 with a standard deviation of 9.
    let far = mesh.sidecar(SidecarSpec::caller("far").flags(&["--zone", "b"])).await;
    apps[1].set_unhealthy(true);
    far.until_endpoints("near", 2).await;
    let client = far.client();
    let spilled = spread((0..400).map(|_| client.get("http://near.demo.mesh/who"))).await;
    assert!(spilled["app-3"].abs_diff(280) <= 46 && spilled.len() == 2, "{spilled:?}");
}

#[tokio::test]
async fn a_new_endpoint_starts_slowly() {
    let mesh = Mesh::start().await;
    let policy = "{ type: RoundRobin, slowStart: { window: 1h, minimumPercent: 1 } }";
    mesh.apply(&balanced("slow", "http", policy)).await;
    let (one, two) =
        (HttpApp::start("app-1", Version::Http1).await, HttpApp::start("app-2", Version::Http1).await);
    let _first = mesh.sidecar(SidecarSpec::serving("app-1", "app", one.address())).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    caller.until_endpoints("slow", 1).await;
    let _second = mesh.sidecar(SidecarSpec::serving("app-2", "app", two.address())).await;
    caller.until_endpoints("slow", 2).await;
    let client = caller.client();
    let counts = spread((0..60).map(|_| client.get("http://slow.demo.mesh/who"))).await;
    assert!(counts["app-1"] >= 58, "{counts:?}");
    let share = shown(&caller, "slow.demo", "app-2").await["share"].as_f64().expect("a number");
    assert!((0.005..0.05).contains(&share), "{share}");
}

/// Says its name, and then keeps the connection for as long as its client does.
async fn named(name: &'static str) -> App {
    App::start(move |mut stream| async move {
        let _ = stream.write_all(name.as_bytes()).await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await
}

async fn connect(listener: SocketAddr) -> (TcpStream, String) {
    soon("a connection and its first words", async {
        let mut stream = TcpStream::connect(listener).await.expect("the listener is there");
        let mut name = [0; 5];
        stream.read_exact(&mut name).await.expect("a name");
        (stream, String::from_utf8_lossy(&name).into_owned())
    })
    .await
}

#[tokio::test]
async fn connections_go_where_the_policy_says() {
    const LEAST: &str = "least.demo:80";
    const TURNS: &str = "turns.demo:80";
    const OWN: &str = "own.demo:80";
    let mesh = Mesh::start().await;
    mesh.apply(
        &[
            balanced("least", "tcp", "{ type: LeastRequest }"),
            balanced("turns", "tcp", "{ type: RoundRobin }"),
            balanced("own", "tcp", "{ type: Maglev, hashOn: [{ type: Header, name: x }, { type: Source }] }"),
        ]
        .concat(),
    )
    .await;
    let (one, two) = (named("app-1").await, named("app-2").await);
    let first = mesh.sidecar(SidecarSpec::serving("app-1", "app", one.address)).await;
    let second = mesh.sidecar(SidecarSpec::serving("app-2", "app", two.address)).await;
    let caller = SidecarSpec::caller("client").listener(LEAST).listener(TURNS).listener(OWN);
    let caller = mesh.sidecar(caller).await;
    mesh.until_ready(&[&caller, &first, &second]).await;
    for service in ["least", "turns", "own"] {
        caller.until_endpoints(service, 2).await;
    }
    let listeners = &caller.addresses.listeners;

    // Whoever has fewer connections gets the next one, so those of the first are made up for when they end.
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(connect(listeners[LEAST]).await);
    }
    let count = |open: &[(TcpStream, String)], name: &str| open.iter().filter(|(_, it)| it == name).count();
    assert_eq!((count(&open, "app-1"), count(&open, "app-2")), (5, 5));
    open.retain(|(_, name)| name == "app-1");
    eventually("the sidecar has seen that five have ended", async || {
        (shown(&caller, "least.demo", "app-2").await["inFlight"] == 0).then_some(())
    })
    .await;
    for _ in 0..5 {
        let next = connect(listeners[LEAST]).await;
        assert_eq!(next.1, "app-2");
        open.push(next);
    }

    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(connect(listeners[TURNS]).await.1);
    }
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");

    let mut own = BTreeSet::new();
    for _ in 0..6 {
        own.insert(connect(listeners[OWN]).await.1);
    }
    assert_eq!(own.len(), 1, "{own:?}");
}
