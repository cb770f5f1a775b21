//! What to do about each alert: the second part of the page of troubleshooting.

use std::fmt::Write as _;

const CHECK: &str = "pillion check";
const LOG: &str = "the sidecar's log";
const CONTROL_PLANE_LOG: &str = "the control plane's log";
const WHO_AND_WHY: &str = "pillion stat edges --to SERVICE";
const ENDPOINTS: &str = "pillion endpoints SERVICE";
const HOPS: &str = "pillion stat --hops";
const ERRORS: &[&str] = &[
    "The application fails: the refusals of sidecars (`pillion_refusals_total`) are few beside its own 5xx.",
    "The mesh refuses: the reason says what to do, above.",
    "A fault is injected on purpose: `pillion_faults_injected_total`.",
];

/// An alert, what is likely behind it, and what to run next.
type Advice = (&'static str, &'static [&'static str], &'static [&'static str]);

const ALERTS: [Advice; 25] = [
    (
        "PillionErrorBudgetBurnsFast",
        ERRORS,
        &[WHO_AND_WHY, "pillion explain --from CALLER --to SERVICE --path PATH"],
    ),
    ("PillionErrorBudgetBurns", ERRORS, &[WHO_AND_WHY]),
    ("PillionErrorBudgetBurnsSlowly", ERRORS, &[WHO_AND_WHY]),
    (
        "PillionHighLatency",
        &[
            "The segment that is large says whose it is: the application, the network, a sidecar, or retries.",
            "The objective is too tight for this service: `pillion:latency_objective:seconds` in the rules.",
        ],
        &[HOPS, ENDPOINTS],
    ),
    (
        "PillionNoReadyEndpoints",
        &[
            "All instances fail their health check, or have just been stopped.",
            "No workload has the labels that the Service selects.",
        ],
        &[ENDPOINTS, "pillion describe service NAME -n NAMESPACE"],
    ),
    (
        "PillionBreakerPanic",
        &[
            "What all instances need (a database, a peer) is down: breakers cannot help.",
            "A release is bad everywhere: take it back.",
        ],
        &[ENDPOINTS, WHO_AND_WHY],
    ),
    (
        "PillionBreakersOpen",
        &[
            "Some instances fail or are slow: their logs, their hosts.",
            "The breaker is too quick to judge: `circuitBreaker` of the service's TrafficPolicy.",
        ],
        &[ENDPOINTS],
    ),
    (
        "PillionRetryBudgetSpent",
        &[
            "More than a few requests fail: find out why those do; more retries would make it worse.",
            "The budget is small for a service with few requests: `retry.budget.minPerSecond`.",
        ],
        &[WHO_AND_WHY],
    ),
    (
        "PillionOverloaded",
        &[
            "More is asked than the instances can do: start more of them.",
            "The application has become slower: the segment `application`.",
        ],
        &[HOPS, "pillion top"],
    ),
    (
        "PillionRateLimited",
        &[
            "The client has a loop, or more to do than it had.",
            "The limit is older than today's load: `rateLimits`.",
        ],
        &["pillion describe service NAME -n NAMESPACE"],
    ),
    (
        "PillionFaultForgotten",
        &["A drill goes on. Take `faults` out of the TrafficPolicy, or let it end by itself."],
        &["pillion get trafficpolicies -A"],
    ),
    (
        "PillionCertificateEnded",
        &[
            "The sidecar could not reach the control plane for half of a certificate's life.",
            "It came back after a long sleep: it renews by itself, with its token if that is still good.",
        ],
        &[CHECK, LOG],
    ),
    (
        "PillionCertificateNotRenewed",
        &[
            "The control plane cannot be reached: its alert fires, too, or the network between is shut.",
            "It rejects the request: `pillion_server_certificates_rejected_total` has the reason.",
        ],
        &[CHECK, LOG],
    ),
    (
        "PillionAuthorityEndsSoon",
        &["Nobody has rotated the authority. Sidecars take new trust anchors while they run."],
        &[CHECK],
    ),
    (
        "PillionAuthorityEndsTomorrow",
        &["The same, and it has become urgent: nothing is trusted after its end."],
        &[CHECK],
    ),
    (
        "PillionControlPlaneDown",
        &[
            "The process is gone, or its host. Start it on the same data folder: sidecars come back by themselves.",
            "It runs, and Prometheus may not read: beyond loopback that needs a token.",
        ],
        &[CONTROL_PLANE_LOG, CHECK],
    ),
    (
        "PillionSidecarDown",
        &[
            "The workload was killed: it is gone from the targets when its lease is over.",
            "Its operators' port listens on loopback (`--admin-listen`), or a firewall is between.",
        ],
        &["curl http://HOST:15020/live", LOG],
    ),
    (
        "PillionSidecarStale",
        &[
            "The network between the sidecar and the control plane's port 15010 is shut.",
            "The control plane is down, or refuses the stream: the sidecar's log has its words.",
        ],
        &[CHECK, LOG],
    ),
    (
        "PillionConfigurationRefused",
        &[
            "A document uses what an older sidecar does not know: upgrade it, or take the document back.",
            "Otherwise it is a defect: what the control plane has accepted, a sidecar of its release can use.",
        ],
        &[CHECK, "the dashboard's page of the control plane"],
    ),
    (
        "PillionSlowUpdates",
        &[
            "Sidecars are short of CPU, and so late with everything.",
            "The control plane is: `process_cpu_seconds_total`, `pillion_server_compile_seconds`.",
        ],
        &[CHECK, CONTROL_PLANE_LOG],
    ),
    (
        "PillionCertificatesRejected",
        &[
            "A join token is used up, too old or of another identity: make a new one (`pillion token create`).",
            "Clocks differ: `pillion_clock_skew_seconds`.",
            "Somebody tries who should not.",
        ],
        &[CONTROL_PLANE_LOG],
    ),
    (
        "PillionClockSkew",
        &["NTP does not run there, or on the control plane's host, if all sidecars say so."],
        &[CHECK],
    ),
    (
        "PillionRedirectionBypassed",
        &[
            "Somebody has flushed the rules: `pillion-proxy redirect` installs them anew.",
            "The application runs as the sidecar's user, whose traffic is not redirected.",
        ],
        &[CHECK, LOG],
    ),
    (
        "PillionSidecarMemory",
        &[
            "Thousands of connections are open: `pillion_connections_open`.",
            "It follows very many services: `pillion_subscriptions`.",
        ],
        &["curl 127.0.0.1:15020/metrics"],
    ),
    (
        "PillionTelemetryDropped",
        &[
            "The log's reader, or the disk under it, is slower than the lines come: sample fewer.",
            "The receiver of traces is away, refuses them, or is slower than they come: `pillion check` says which, and since when.",
        ],
        &[CHECK, LOG],
    ),
];

/// The names of all alerts that there is advice for.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ALERTS.iter().map(|(name, ..)| *name)
}

/// The part of the page.
pub(crate) fn section() -> String {
    let mut page = String::from(
        "\n# Alerts\n\nThose of [rules.yml](../prometheus/rules.yml). What each means, it says itself; HOST is that of its label `instance`.\n",
    );
    for (name, causes, next) in ALERTS {
        let _ = writeln!(page, "\n## {name}\n");
        for cause in causes {
            let _ = writeln!(page, "- {cause}");
        }
        let next: Vec<String> = next.iter().map(|next| format!("`{next}`")).collect();
        let _ = writeln!(page, "\nNext: {}", next.join(", "));
    }
    page
}
