//! What a check makes of what it has collected. Pure: time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    facts::{Edge, Facts, InjectedFault, LostTelemetry, Mesh, RefusedUpdate},
    finding::{Finding, Found, Severity, Topic},
};
use crate::cli::words::counted;

const SECOND_MS: i64 = 1000;
const DAY_MS: i64 = 24 * 3600 * SECOND_MS;
/// Certificates of authorities are changed by people, who need time for it.
const AHEAD: [(i64, Severity); 3] =
    [(DAY_MS, Severity::Critical), (7 * DAY_MS, Severity::Error), (30 * DAY_MS, Severity::Warning)];
/// From which sidecars warn of it themselves.
const SKEW_MS: i64 = 30 * SECOND_MS;
/// By so much certificates are dated back: a peer whose clock is behind by more takes a new one for not yet valid.
const BACKDATED_MS: i64 = 120 * SECOND_MS;
/// Names told of one finding.
const NAMED: usize = 5;

/// Everything that is found; of each topic at least one thing.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Found::default();
    installation(&mut found, facts);
    versions(&mut found, facts);
    certificates(&mut found, facts);
    clocks(&mut found, facts);
    configuration(&mut found, facts);
    faults(&mut found, facts);
    sidecars(&mut found, facts);
    telemetry(&mut found, facts);
    unmeshed(&mut found, facts);
    found.sorted()
}

fn installation(found: &mut Found, facts: &Facts) {
    if facts.workloads.is_empty() {
        found.add(
            Topic::Installation,
            Severity::Warning,
            "the control plane answers, but no sidecar has registered with it",
            "start one (pillion-proxy run, pillion inject), with a token of `pillion token create`",
        );
    }
    let registered = match facts.workloads.len() {
        1 => "1 workload is registered".to_owned(),
        many => format!("{many} workloads are registered"),
    };
    found.unless(Topic::Installation, format!("the control plane answers, and {registered}"));
}

fn versions(found: &mut Found, facts: &Facts) {
    let server = &facts.control_plane.version;
    if facts.version != *server {
        let text = format!("this program is {}, the control plane {server}", facts.version);
        found.add(Topic::Versions, Severity::Warning, text, "use the same release of both");
    }
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for workload in facts.workloads.iter().filter(|workload| workload.version != *server) {
        others.entry(&workload.version).or_default().push(workload.name());
    }
    for (version, names) in others {
        let text = format!("sidecars of {version} beside a control plane of {server}: {}", listed(names));
        found.add(
            Topic::Versions,
            Severity::Warning,
            text,
            "upgrade their sidecars (README, Restart, upgrade)",
        );
    }
    found.unless(Topic::Versions, format!("all are {server}"));
}

/// Of an authority's certificate, which has so long to go.
pub(super) fn of_authority(left_ms: i64) -> Severity {
    AHEAD.into_iter().find(|(within, _)| left_ms <= *within).map_or(Severity::Ok, |(_, severity)| severity)
}

/// Of a workload's certificate of so long a life, which its sidecar renews at half of it.
pub(super) fn of_leaf(left_ms: i64, life_ms: i64) -> Severity {
    match left_ms {
        ..=0 => Severity::Critical,
        left if left <= life_ms / 10 => Severity::Error,
        left if left <= life_ms / 4 => Severity::Warning,
        _ => Severity::Ok,
    }
}

fn certificates(found: &mut Found, facts: &Facts) {
    let server_ms = facts.control_plane.server_time_ms;
    let mut well = String::from("sidecars renew theirs in time");
    if let Some(not_after) = facts.control_plane.authority_not_after_ms {
        let left = not_after - server_ms;
        match of_authority(left) {
            Severity::Ok => well = format!("the authority's holds for {} days more; {well}", left / DAY_MS),
            severity => found.add(
                Topic::Certificates,
                severity,
                format!("the certificate authority's certificate {}", ends(left)),
                "start the server with one that lasts (--ca-cert, --ca-key): nothing that it signs outlives it",
            ),
        }
    }
    for workload in &facts.workloads {
        let Some(not_after) = workload.certificate_not_after_ms else { continue };
        let left = not_after - server_ms;
        // Of sidecars that do not say when it began, as the authority makes them now.
        let usual = facts.control_plane.leaf_ttl_seconds.unwrap_or(24 * 3600) * SECOND_MS;
        let own = workload.certificate_not_before_ms.map(|not_before| not_after - not_before - BACKDATED_MS);
        let life = own.unwrap_or(usual);
        let severity = of_leaf(left, life);
        if severity > Severity::Ok {
            found.add(
                Topic::Certificates,
                severity,
                format!(
                    "the certificate of {} {}, and should have been renewed",
                    workload.name(),
                    ends(left)
                ),
                "look into its sidecar's log for why (pillion_certificate_… in its /metrics)",
            );
        }
    }
    found.unless(Topic::Certificates, well);
}

/// Of two clocks that differ by so much.
pub(super) fn of_skew(skew_ms: i64) -> Severity {
    match skew_ms.abs() {
        skew if skew > BACKDATED_MS => Severity::Error,
        skew if skew > SKEW_MS => Severity::Warning,
        _ => Severity::Ok,
    }
}

fn clocks(found: &mut Found, facts: &Facts) {
    let mut judge = |whose: String, skew_ms: i64| {
        let severity = of_skew(skew_ms);
        if severity > Severity::Ok {
            let (by, way) = (skew_ms.abs() / SECOND_MS, if skew_ms > 0 { "behind" } else { "ahead of" });
            found.add(
                Topic::Clocks,
                severity,
                format!("the clock of {whose} is {by} s {way} the control plane's"),
                "keep the clocks of all hosts together (NTP): beyond two minutes certificates count as not yet valid",
            );
        }
    };
    judge("this machine".to_owned(), facts.control_plane.server_time_ms - facts.now_ms);
    for workload in facts.workloads.iter().filter(|workload| workload.connected) {
        workload.clock_skew_ms.into_iter().for_each(|skew| judge(workload.name(), skew));
    }
    found.unless(Topic::Clocks, "all agree within 30 s");
}

fn configuration(found: &mut Found, facts: &Facts) {
    for fault in &facts.control_plane.compile_faults {
        found.add(
            Topic::Configuration,
            Severity::Error,
            fault,
            "correct the document (pillion get, pillion describe)",
        );
    }
    let mut refused: BTreeMap<(&str, &str, &str), Vec<String>> = BTreeMap::new();
    for workload in &facts.workloads {
        for RefusedUpdate { service, kind, reason } in &workload.refused_updates {
            refused.entry((service, kind, reason)).or_default().push(workload.name());
        }
    }
    for ((service, kind, reason), names) in refused {
        found.add(
            Topic::Configuration,
            Severity::Error,
            format!("the {kind} of {service} is refused by {}: {reason}", listed(names)),
            format!(
                "they go on with what they had; see what shapes it: pillion describe service {}",
                words(service)
            ),
        );
    }
    found.unless(Topic::Configuration, "no document is wrong, and no sidecar refuses what it is sent");
}

fn faults(found: &mut Found, facts: &Facts) {
    for fault in &facts.mesh.faults {
        let InjectedFault { service, policy, name, until_ms } = fault;
        let left = lasting(until_ms - facts.control_plane.server_time_ms);
        found.add(
            Topic::Faults,
            Severity::Warning,
            format!(
                "callers of {service} are made to see fault {name} of policy {policy}, for another {left}"
            ),
            "it ends by itself; if it is not on purpose, delete the policy, or the fault in it",
        );
    }
    found.unless(Topic::Faults, "none is injected");
}

fn sidecars(found: &mut Found, facts: &Facts) {
    for workload in &facts.workloads {
        let name = workload.name();
        if workload.redirected == Some(false) {
            let cure =
                "until then nobody is sent to it, since what goes past the sidecar goes past its policies";
            found.add(Topic::Redirection, Severity::Error, format!("{name}: {}", workload.reason), cure);
        } else if !workload.connected {
            found.add(
                Topic::Sidecars,
                Severity::Warning,
                format!("the sidecar of {name} has lost its stream to the control plane"),
                "it goes on with what it has; look into its log for why it cannot connect",
            );
        } else if !workload.ready {
            let text = format!("{name} is not ready: {}", workload.reason);
            found.add(
                Topic::Sidecars,
                Severity::Warning,
                text,
                "look into its application: its sidecar asks it for its health",
            );
        }
    }
    found.unless(Topic::Sidecars, "all are connected, and their applications ready");
    found.unless(Topic::Redirection, "no sidecar says that it is bypassed");
}

fn telemetry(found: &mut Found, facts: &Facts) {
    type Sum = (Vec<String>, u64, i64);
    let mut lost: BTreeMap<(&str, &str, &str), Sum> = BTreeMap::new();
    // What others have said before they were lost is old.
    for workload in facts.workloads.iter().filter(|workload| workload.connected) {
        for LostTelemetry { kind, receiver, reason, count, since_ms } in &workload.lost_telemetry {
            let (names, sum, since) =
                lost.entry((kind, receiver, reason)).or_insert_with(|| (Vec::new(), 0, *since_ms));
            names.push(workload.name());
            *sum = sum.saturating_add(*count);
            *since = *since_ms.min(since);
        }
    }
    for ((kind, receiver, reason), (names, count, since_ms)) in lost {
        let whose = match names.len() {
            1 => names[0].clone(),
            several => format!("{several} workloads ({})", listed(names)),
        };
        let since = lasting(facts.control_plane.server_time_ms - since_ms);
        let away = |what: &str| {
            format!("{what} of {whose} do not reach {receiver}: {reason}; for {since}, {count} lost")
        };
        let (text, cure) = match kind {
            "spans" => (
                away("spans"),
                "see that the receiver is there and takes them; where it is: `tracing.endpoint` of the MeshConfig, \
                 `--tracing-endpoint` of a sidecar. No request waits for it",
            ),
            "rejected-spans" => (
                {
                    let spans = counted(usize::try_from(count).unwrap_or(usize::MAX), "span");
                    format!("{receiver} has not taken {spans} of {whose}: {reason}; within {since}")
                },
                "see what the receiver says and logs: it is there, and takes the others. No request waits for it",
            ),
            _ => (
                away("lines of the access log"),
                "have fewer written (`accessLog.successPercent` of the MeshConfig), or read faster. No request waits for it",
            ),
        };
        found.add(Topic::Telemetry, Severity::Warning, text, cure);
    }
    found.unless(Topic::Telemetry, "no sidecar says that spans or lines of its access log are lost");
}

fn unmeshed(found: &mut Found, facts: &Facts) {
    let Mesh { services, edges, .. } = &facts.mesh;
    let in_mesh: BTreeSet<&str> =
        services.iter().filter(|node| node.in_mesh).map(|node| node.name.as_str()).collect();
    for Edge { from, to, .. } in
        edges.iter().filter(|edge| edge.mtls == Some(false) && in_mesh.contains(edge.to.as_str()))
    {
        found.add(
            Topic::Unmeshed,
            Severity::Warning,
            format!("{from} calls {to} without the mesh's TLS"),
            "give the caller a sidecar, or have its requests go through the one that it has",
        );
    }
    for node in services.iter().filter(|node| node.kind == "service" && node.instances == 0) {
        found.add(
            Topic::Unmeshed,
            Severity::Warning,
            format!("no workload serves {}", node.name),
            format!(
                "start one with a sidecar whose labels the selector takes: pillion describe service {}",
                words(&node.name)
            ),
        );
    }
    found.unless(
        Topic::Unmeshed,
        "every service has workloads, and all that call them do so by the mesh's TLS",
    );
}

/// `pay.demo` as commands take it.
fn words(service: &str) -> String {
    service.split_once('.').map_or(service.to_owned(), |(name, namespace)| format!("{name} -n {namespace}"))
}

/// So many milliseconds, for people.
fn lasting(ms: i64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs((ms.max(0) / SECOND_MS).unsigned_abs()))
}

fn ends(left_ms: i64) -> String {
    match left_ms {
        ..=0 => "has ended".to_owned(),
        left if left < DAY_MS => format!("ends in {} min", left / (60 * SECOND_MS)),
        left => format!("ends in {} days", left / DAY_MS),
    }
}

fn listed(mut names: Vec<String>) -> String {
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
