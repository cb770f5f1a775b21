//! How many of a service's endpoints are left alone, what becomes of requests when that is most of them, and how one comes back.

use futures_util::future::join_all;

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec};
use crate::support::{eventually, raw};

/// A service of the workloads `app`, one after the other, and what else its policy says.
fn turns(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: demo }}\nspec:\n  selector: {{ app: app }}\n  \
         ports: [{{ name: main, port: 80, targetPort: 8080, appProtocol: http }}]\n---\napiVersion: \
         pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {name}, namespace: demo }}\nspec: {{ targetRefs: [{{ \
         group: \"\", kind: Service, name: {name} }}], loadBalancer: {{ type: RoundRobin }}, {spec} }}\n"
    )
}

/// A service's endpoints, as the caller's sidecar sees them.
async fn endpoints(caller: &Sidecar, service: &str) -> Vec<serde_json::Value> {
    let url = format!("http://{}/endpoints", caller.addresses.admin);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let text = client.get(url).send().await.expect("an answer").text().await.expect("text");
    let mut all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("a list");
    all.retain(|it| it["service"] == format!("{service}.demo"));
    all
}

/// How many of them have their breakers in this state.
async fn breakers(caller: &Sidecar, service: &str, state: &str) -> usize {
    endpoints(caller, service).await.iter().filter(|it| it["breaker"] == state).count()
}

async fn get(caller: &Sidecar, service: &str, path: &str) -> String {
    raw::exchange(caller.outbound(), &raw::get(&format!("{service}.demo.mesh"), path)).await
}

#[tokio::test]
async fn only_a_share_is_left_alone_and_with_too_few_left_breakers_do_not_matter() {
    const REPLICAS: usize = 10;
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app", Version::Http1).await;
    let breaker = |rest: &str| {
        format!("circuitBreaker: {{ consecutiveFailures: 2, openTime: {{ base: 1h, max: 1h }}, {rest} }}")
    };
    mesh.apply(
        &[
            turns("capped", &breaker("maxEjectedPercent: 30, panicPercent: 0")),
            turns("panic", &breaker("maxEjectedPercent: 100, panicPercent: 50")),
            turns("strict", &breaker("maxEjectedPercent: 100, panicPercent: 0")),
        ]
        .concat(),
    )
    .await;
    let replica = async |number: usize| {
        mesh.sidecar(SidecarSpec::serving(&format!("app-{number}"), "app", app.address())).await
    };
    let _replicas = join_all((0..REPLICAS).map(replica)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    for service in ["capped", "panic", "strict"] {
        caller.until_endpoints(service, REPLICAS).await;
    }
    // Twice as often as it takes to have each of them fail twice.
    let fail = async |service: &str| {
        for _ in 0..4 * REPLICAS {
            get(&caller, service, "/status/500").await;
        }
    };
    let metric = async |name: &str, service: &str| {
        caller.metrics().await.sum(name, &[("target", &format!("{service}.demo"))])
    };
    let spared = "pillion_breaker_spared_total";
    let panics = "pillion_balancer_panic_picks_total";

    fail("capped").await;
    assert_eq!(breakers(&caller, "capped", "open").await, 3, "30 % of ten, although all fail");
    assert!(metric(spared, "capped").await >= (REPLICAS - 3) as f64);
    assert_eq!(metric(panics, "capped").await, 0.0);
    // The other seven have what there is, and nobody is refused.
    assert_eq!(raw::status(&get(&caller, "capped", "/who").await), 200);

    for service in ["panic", "strict"] {
        fail(service).await;
        assert_eq!(metric(spared, service).await, 0.0);
    }
    // With six of ten open breakers are ignored; those that are closed fail on, and open.
    assert_eq!(breakers(&caller, "panic", "open").await, REPLICAS);
    let before = metric(panics, "panic").await;
    for _ in 0..REPLICAS {
        assert_eq!(raw::status(&get(&caller, "panic", "/who").await), 200);
    }
    assert_eq!(metric(panics, "panic").await - before, REPLICAS as f64);
    // Without a panic threshold nobody is called.
    let answer = get(&caller, "strict", "/who").await;
    assert_eq!(raw::refusal(&answer), "breakers-open", "{answer}");
    assert_eq!(metric(panics, "strict").await, 0.0);
}

#[tokio::test]
async fn who_comes_back_and_who_is_new_gets_its_share_little_by_little() {
    const TURNS: u64 = 100;
    let mesh = Mesh::start().await;
    let policy = |window: &str| {
        let breaker = "circuitBreaker: { consecutiveFailures: 2, openTime: { base: 50ms, max: 50ms }, panicPercent: 0 }";
        turns("app", &format!("{breaker}, loadBalancer: {{ type: RoundRobin, slowStart: {{ window: {window}, minimumPercent: 10 }} }}"))
            .replace("loadBalancer: { type: RoundRobin }, ", "")
    };
    mesh.apply(&policy("1h")).await;
    let mut apps = Vec::new();
    let mut sidecars = Vec::new();
    for name in ["app-1", "app-2"] {
        let app = HttpApp::start(name, Version::Http1).await;
        sidecars.push(mesh.sidecar(SidecarSpec::serving(name, "app", app.address())).await);
        apps.push(app);
    }
    // Callers are told of both: else the second would be new to one who knew the first.
    let scout = mesh.sidecar(SidecarSpec::caller("scout")).await;
    scout.until_endpoints("app", 2).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    caller.until_endpoints("app", 2).await;
    /// How many of so many requests reach an application.
    async fn part(caller: &Sidecar, app: &HttpApp) -> u64 {
        let before = app.requests();
        for _ in 0..TURNS {
            assert_eq!(raw::status(&get(caller, "app", "/who").await), 200);
        }
        app.requests() - before
    }
    let (first, second) = (part(&caller, &apps[0]).await, part(&caller, &apps[1]).await);
    assert!(first.abs_diff(50) <= 1 && second.abs_diff(50) <= 1, "who was there first has its whole share");

    apps[1].set_failing(true);
    eventually("its breaker opens", async || {
        get(&caller, "app", "/who").await;
        (breakers(&caller, "app", "open").await == 1).then_some(())
    })
    .await;
    apps[1].set_failing(false);
    eventually("it is tried, and let back in", async || {
        get(&caller, "app", "/who").await;
        (breakers(&caller, "app", "closed").await == 2).then_some(())
    })
    .await;
    // A tenth beside the other's whole one.
    let back = part(&caller, &apps[1]).await;
    assert!((7..=11).contains(&back), "{back} of {TURNS} on its return");
    mesh.apply(&policy("1s")).await;
    eventually("it has its whole share again", async || {
        endpoints(&caller, "app").await.iter().all(|it| it["share"] == 0.5).then_some(())
    })
    .await;
    let whole = part(&caller, &apps[1]).await;
    assert!(whole.abs_diff(50) <= 1, "{whole} of {TURNS}");

    mesh.apply(&policy("1h")).await;
    let app = HttpApp::start("app-3", Version::Http1).await;
    sidecars.push(mesh.sidecar(SidecarSpec::serving("app-3", "app", app.address())).await);
    caller.until_endpoints("app", 3).await;
    let new = part(&caller, &app).await;
    assert!((3..=7).contains(&new), "{new} of {TURNS} for a new one");
}
