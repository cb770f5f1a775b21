//! Each threshold at both of its sides, and each topic.

use super::{
    super::{
        facts::{ControlPlane, Node, Workload},
        finding::worst,
    },
    *,
};

const NOW: i64 = 1_800_000_000_000;
const HOUR_MS: i64 = 3_600_000;

fn facts() -> Facts {
    Facts {
        version: "1.0.0".into(),
        now_ms: NOW,
        control_plane: ControlPlane {
            version: "1.0.0".into(),
            server_time_ms: NOW,
            authority_not_after_ms: Some(NOW + 31 * DAY_MS),
            leaf_ttl_seconds: Some(24 * 3600),
            compile_faults: Vec::new(),
        },
        workloads: vec![workload("pay-1")],
        mesh: Mesh {
            services: vec![Node {
                name: "pay.demo".into(),
                kind: "service".into(),
                instances: 1,
                in_mesh: true,
            }],
            edges: vec![Edge { from: "web.demo".into(), to: "pay.demo".into(), mtls: Some(true) }],
            faults: Vec::new(),
        },
    }
}

fn workload(name: &str) -> Workload {
    Workload {
        workload: name.into(),
        namespace: "demo".into(),
        version: "1.0.0".into(),
        connected: true,
        ready: true,
        certificate_not_after_ms: Some(NOW + 13 * HOUR_MS),
        clock_skew_ms: Some(5),
        ..Workload::default()
    }
}

fn lost(kind: &str, count: u64, since_ms: i64) -> LostTelemetry {
    let (receiver, reason) = ("there".into(), "refused".into());
    LostTelemetry { kind: kind.into(), receiver, reason, count, since_ms }
}

#[test]
fn thirty_seven_and_one_days_ahead() {
    for (left, severity) in [
        (30 * DAY_MS + 1, Severity::Ok),
        (30 * DAY_MS, Severity::Warning),
        (7 * DAY_MS + 1, Severity::Warning),
        (7 * DAY_MS, Severity::Error),
        (DAY_MS + 1, Severity::Error),
        (DAY_MS, Severity::Critical),
        (0, Severity::Critical),
        (-DAY_MS, Severity::Critical),
    ] {
        assert_eq!(of_authority(left), severity, "{left}");
        let mut facts = facts();
        facts.control_plane.authority_not_after_ms = Some(NOW + left);
        assert_eq!(worst(&findings(&facts)), severity, "{left}");
    }
}

#[test]
fn a_leaf_is_judged_by_its_life() {
    let day = 24 * HOUR_MS;
    for (left, life, severity) in [
        (12 * HOUR_MS, day, Severity::Ok),
        (6 * HOUR_MS + 1, day, Severity::Ok),
        (6 * HOUR_MS, day, Severity::Warning),
        (day / 10, day, Severity::Error),
        (1, day, Severity::Error),
        (0, day, Severity::Critical),
        (-1, day, Severity::Critical),
        (31_000, 60_000, Severity::Ok),
        (15_000, 60_000, Severity::Warning),
    ] {
        assert_eq!(of_leaf(left, life), severity, "{left} of {life}");
    }
}

#[test]
fn clocks_may_differ_a_little() {
    for (skew, severity) in [
        (0, Severity::Ok),
        (30_000, Severity::Ok),
        (30_001, Severity::Warning),
        (-30_001, Severity::Warning),
        (120_000, Severity::Warning),
        (120_001, Severity::Error),
        (-120_001, Severity::Error),
    ] {
        assert_eq!(of_skew(skew), severity, "{skew}");
    }
    let mut facts = facts();
    facts.now_ms = NOW + 40_000;
    facts.workloads[0].clock_skew_ms = Some(200_000);
    // What a sidecar said before it was lost is old.
    facts.workloads.push(Workload { connected: false, clock_skew_ms: Some(999_000), ..workload("pay-2") });
    let texts: Vec<String> = findings(&facts)
        .into_iter()
        .filter(|finding| finding.topic == Topic::Clocks)
        .map(|finding| finding.text)
        .collect();
    assert_eq!(
        texts,
        [
            "the clock of pay-1.demo is 200 s behind the control plane's",
            "the clock of this machine is 40 s ahead of the control plane's",
        ]
    );
}

#[test]
fn where_all_is_well_each_topic_says_so() {
    let found = findings(&facts());
    let topics: Vec<Topic> = found.iter().map(|finding| finding.topic).collect();
    let all = [
        Topic::Installation,
        Topic::Versions,
        Topic::Certificates,
        Topic::Clocks,
        Topic::Configuration,
        Topic::Faults,
        Topic::Sidecars,
        Topic::Redirection,
        Topic::Telemetry,
        Topic::Unmeshed,
    ];
    assert_eq!(topics, all);
    assert_eq!(worst(&found), Severity::Ok);
    assert!(found.iter().all(|finding| finding.cure.is_empty()), "{found:#?}");
}

#[test]
fn each_fault_is_found_with_its_cure() {
    type Spoil = fn(&mut Facts);
    let table: [(Spoil, Topic, Severity, &str); 18] = [
        (|it| it.workloads.clear(), Topic::Installation, Severity::Warning, "no sidecar has registered"),
        (|it| it.version = "0.9.0".into(), Topic::Versions, Severity::Warning, "this program is 0.9.0"),
        (
            |it| it.workloads[0].version = "0.9.0".into(),
            Topic::Versions,
            Severity::Warning,
            "sidecars of 0.9.0 beside a control plane of 1.0.0: pay-1.demo",
        ),
        (
            |it| it.workloads[0].certificate_not_after_ms = Some(NOW + HOUR_MS),
            Topic::Certificates,
            Severity::Error,
            "the certificate of pay-1.demo ends in 60 min",
        ),
        (
            |it| it.workloads[0].certificate_not_after_ms = Some(NOW - HOUR_MS),
            Topic::Certificates,
            Severity::Critical,
            "the certificate of pay-1.demo has ended",
        ),
        (
            |it| it.control_plane.compile_faults.push("HTTPRoute demo/x: what".into()),
            Topic::Configuration,
            Severity::Error,
            "HTTPRoute demo/x: what",
        ),
        (
            |it| {
                it.workloads[0].refused_updates.push(RefusedUpdate {
                    service: "pay.demo".into(),
                    kind: "config".into(),
                    reason: "ports[0]: no".into(),
                });
            },
            Topic::Configuration,
            Severity::Error,
            "the config of pay.demo is refused by pay-1.demo: ports[0]: no",
        ),
        (|it| it.workloads[0].connected = false, Topic::Sidecars, Severity::Warning, "has lost its stream"),
        (
            |it| {
                let reason = "traffic is not redirected to this sidecar (IPv4): run `pillion-proxy redirect`";
                let workload = &mut it.workloads[0];
                (workload.ready, workload.redirected) = (false, Some(false));
                workload.reason = reason.into();
            },
            Topic::Redirection,
            Severity::Error,
            "pay-1.demo: traffic is not redirected",
        ),
        (
            // What an application says of itself is no word of its sidecar's.
            |it| {
                let workload = &mut it.workloads[0];
                (workload.ready, workload.redirected) = (false, Some(true));
                workload.reason = "/ready says: a request is not redirected to the new version".into();
            },
            Topic::Sidecars,
            Severity::Warning,
            "pay-1.demo is not ready",
        ),
        (
            // Of an hour's certificate, made before the authority's were to live longer.
            |it| {
                it.workloads[0].certificate_not_before_ms = Some(NOW - 55 * 60_000 - BACKDATED_MS);
                it.workloads[0].certificate_not_after_ms = Some(NOW + 5 * 60_000);
                it.control_plane.leaf_ttl_seconds = Some(600);
            },
            Topic::Certificates,
            Severity::Error,
            "the certificate of pay-1.demo ends in 5 min",
        ),
        (
            |it| it.mesh.edges[0].mtls = Some(false),
            Topic::Unmeshed,
            Severity::Warning,
            "web.demo calls pay.demo without",
        ),
        (
            |it| {
                it.mesh.services.push(Node {
                    name: "gone.demo".into(),
                    kind: "service".into(),
                    ..Node::default()
                });
            },
            Topic::Unmeshed,
            Severity::Warning,
            "no workload serves gone.demo",
        ),
        (
            |it| {
                it.mesh.faults.push(InjectedFault {
                    service: "pay.demo".into(),
                    policy: "demo/drill".into(),
                    name: "outage".into(),
                    until_ms: NOW + 90_500,
                });
            },
            Topic::Faults,
            Severity::Warning,
            "callers of pay.demo are made to see fault outage of policy demo/drill, for another 1m 30s",
        ),
        (
            |it| it.workloads[0].lost_telemetry.push(lost("spans", 0, NOW - 5 * SECOND_MS)),
            Topic::Telemetry,
            Severity::Warning,
            "spans of pay-1.demo do not reach there: refused; for 5s, 0 lost",
        ),
        (
            |it| {
                it.workloads.extend(["pay-2", "pay-3"].map(workload));
                for (workload, (count, since)) in it.workloads.iter_mut().zip([(5, 30), (7, 90), (1, 10)]) {
                    let lost = lost("access-log-lines", count, NOW - since * SECOND_MS);
                    workload.lost_telemetry.push(lost);
                }
            },
            Topic::Telemetry,
            Severity::Warning,
            "lines of the access log of 3 workloads (pay-1.demo, pay-2.demo, pay-3.demo) do not reach there: refused; for 1m 30s, 13 lost",
        ),
        (
            |it| it.workloads[0].lost_telemetry.push(lost("rejected-spans", 1, NOW - 90 * SECOND_MS)),
            Topic::Telemetry,
            Severity::Warning,
            "there has not taken 1 span of pay-1.demo: refused; within 1m 30s",
        ),
        (
            |it| {
                it.workloads.push(workload("pay-2"));
                for (workload, count) in it.workloads.iter_mut().zip([u64::MAX, 1]) {
                    workload.lost_telemetry.push(lost("spans", count, NOW));
                }
            },
            Topic::Telemetry,
            Severity::Warning,
            "18446744073709551615 lost",
        ),
    ];
    for (spoil, topic, severity, words) in table {
        let mut facts = facts();
        spoil(&mut facts);
        let found = findings(&facts);
        let bad: Vec<&Finding> = found.iter().filter(|finding| finding.severity > Severity::Ok).collect();
        assert_eq!(bad.len(), 1, "{words}: {bad:#?}");
        assert_eq!((bad[0].topic, bad[0].severity), (topic, severity), "{words}");
        assert!(bad[0].text.contains(words) && !bad[0].cure.is_empty(), "{bad:#?}");
    }
}

#[test]
fn what_a_sidecar_said_before_it_was_lost_is_old() {
    let mut facts = facts();
    facts.workloads[0].lost_telemetry.push(lost("spans", 1, NOW));
    facts.workloads[0].connected = false;
    let found = findings(&facts);
    let telemetry = found.iter().find(|finding| finding.topic == Topic::Telemetry).expect("it is said");
    assert_eq!(telemetry.severity, Severity::Ok);
}

#[test]
fn long_lists_are_cut() {
    let names = (0..8).map(|number| format!("w{number}")).collect();
    assert_eq!(listed(names), "w0, w1, w2, w3, w4 and 3 more");
}
