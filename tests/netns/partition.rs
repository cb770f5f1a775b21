//! The network between two workloads is cut, and heals: errors have names, the breaker opens and closes, nothing hangs.

use std::time::{Duration, Instant};

use pillion::demo::network::Place;

use crate::support::apps::{HttpApp, Version};
use crate::support::eventually;
use crate::support::mesh::service;
use crate::support::netns::{Workload, WorkloadSpec, World, in_world, listen_on};

/// The longest that the breaker stays open, jitter not counted.
const OPEN: Duration = Duration::from_secs(1);

/// What requests meet while nothing comes through.
const TIMEOUTS: [&str; 2] = ["504 request-timeout", "503 connect-timeout"];
/// And then.
const OPENED: &str = "503 breakers-open";

const POLICY: &str = "---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: quick, namespace: demo }
spec:
  targetRefs: [{ group: \"\", kind: Service, name: web }]
  connections: { connectTimeout: 500ms }
  timeouts: { request: 1s }
  circuitBreaker:
    consecutiveFailures: 3
    openTime: { base: 500ms, max: 1s }
    halfOpenRequests: 1
    panicPercent: 0
";

/// Drops everything that goes from one of two places to the other, until it is [healed](Cut::heal).
struct Cut<'a>(&'a World);

impl<'a> Cut<'a> {
    async fn between(world: &'a World, one: &Place, other: &Place) -> Self {
        let rule =
            |from: &Place, to: &Place| format!("iifname \"{}\" oifname \"{}\" drop;", from.cable, to.cable);
        let table = format!(
            "table bridge cut {{ chain forward {{ type filter hook forward priority 0; {} {} }}\n}}",
            rule(one, other),
            rule(other, one),
        );
        world.nft(&[&table]).await;
        Self(world)
    }

    async fn heal(self) {
        self.0.nft(&["delete", "table", "bridge", "cut"]).await;
    }
}

#[test]
fn a_cut_network_gives_named_errors_and_heals_without_a_trace() {
    in_world(async |world| {
        let web = world.place("web");
        let app = HttpApp::on(listen_on(&web, 8080), "web", Version::Http1);
        world.mesh.apply(&(service("web", "http") + POLICY)).await;
        let callee = world.workload(web, WorkloadSpec::serving("web-1", "web", &[8080])).await;
        let caller = world.workload(world.place("client"), WorkloadSpec::caller("client")).await;
        world.until_registered(&[&caller, &callee]).await;
        caller.until_endpoints("web", 1).await;
        for _ in 0..5 {
            assert_eq!(outcome(world, &caller).await, "200");
        }
        let whole = open_connections(&caller, &callee).await;

        let cut = Cut::between(world, &caller, &callee).await;
        let mut seen = std::collections::BTreeMap::<String, u32>::new();
        // At first a kept connection does not answer any more, then no new one can be made.
        eventually("requests fail by both timeouts, and the breaker opens", async || {
            let began = Instant::now();
            *seen.entry(outcome(world, &caller).await).or_default() += 1;
            // Each request has its answer in time, whatever is in the way.
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "a request took {:?}: {seen:?}",
                began.elapsed()
            );
            let all = TIMEOUTS.iter().chain([&OPENED]).all(|it| seen.contains_key(*it));
            (breaker(&caller).await == 1.0 && all).then_some(())
        })
        .await;
        println!("while it was cut: {seen:?}");
        let known = |outcome: &String| TIMEOUTS.contains(&outcome.as_str()) || outcome == OPENED;
        assert!(seen.keys().all(known), "{seen:?}");
        assert!(caller.count("pillion_breaker_opened_total", &[("workload", "web-1")]).await >= 1.0);

        let before = app.requests();
        cut.heal().await;
        let healed = Instant::now();
        eventually("requests succeed again", async || (outcome(world, &caller).await == "200").then_some(()))
            .await;
        let took = healed.elapsed();
        println!("healed within {took:?}");
        // The open time with its jitter, one probe, and the machine's business: nothing that was begun in vain is waited for.
        assert!(took < OPEN.mul_f64(1.5) + Duration::from_secs(1), "it took {took:?}");
        assert!(app.requests() > before);
        eventually("the breaker is closed", async || (breaker(&caller).await == 0.0).then_some(())).await;
        for _ in 0..10 {
            assert_eq!(outcome(world, &caller).await, "200");
        }
        eventually(&format!("no more connections are open than before: {whole:?}"), async || {
            let now = open_connections(&caller, &callee).await;
            (now.0 <= whole.0 && now.1 <= whole.1).then_some(())
        })
        .await;
        let sockets =
            world.must(&caller, "ss", &["-tanH", "state", "established", "dport", "=", ":15006"]).await;
        assert!(sockets.lines().count() as f64 <= whole.1, "connections to the other sidecar:\n{sockets}");
    });
}

/// The status of one request, and the reason if a sidecar refused it.
async fn outcome(world: &World, caller: &Place) -> String {
    let format = "%{http_code} %header{pillion-error}";
    let ran = world.run(caller, "curl", &["-sS", "-o", "/dev/null", "-w", format, "http://web/who"]).await;
    ran.output.split(';').next().unwrap_or_default().trim().to_owned()
}

async fn breaker(caller: &Workload) -> f64 {
    caller.metrics().await.max("pillion_breaker_state", &[("workload", "web-1")]).unwrap_or(0.0)
}

/// What the caller's sidecar has open for its application, and the callee's for other sidecars.
async fn open_connections(caller: &Workload, callee: &Workload) -> (f64, f64) {
    (
        caller.count("pillion_connections_open", &[("direction", "outbound")]).await,
        callee.count("pillion_connections_open", &[("direction", "inbound")]).await,
    )
}
