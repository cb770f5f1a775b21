//! What a sidecar and the redirection to it are told, whichever way they are started.

use std::time::Duration;

use super::tuning::Tuning;

/// The sidecar's user. Traffic of this user is not redirected, so nobody else may be it.
pub(super) const USER: u64 = 15000;
/// The operators' port: readiness, figures.
pub(super) const ADMIN_PORT: u16 = 15020;
/// Ports that an application in the same network namespace cannot have.
pub(super) const TAKEN_PORTS: [u16; 5] = [15001, 15002, 15006, ADMIN_PORT, 15053];
/// What collectors of metrics look for at a pod.
pub(super) const SCRAPED: [(&str, &str); 3] =
    [("prometheus.io/scrape", "true"), ("prometheus.io/port", "15020"), ("prometheus.io/path", "/metrics")];
/// The program in our images.
pub(super) const PROGRAM: &str = "/pillion-proxy";
/// Where the join token is mounted.
pub(super) const TOKEN_FOLDER: &str = "/var/run/secrets/pillion";

/// One port that an application serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServedPort {
    pub(super) port: u16,
    /// May be empty.
    pub(super) name: String,
    /// As in a Service's `appProtocol`, where it is known.
    pub(super) protocol: Option<String>,
}

/// Takes a port in, unless its number is known. The control plane wants each name once: one that another port has is left
/// out, which is noted.
pub(super) fn add_port(ports: &mut Vec<ServedPort>, mut served: ServedPort, notes: &mut Vec<String>) {
    if ports.iter().any(|known| known.port == served.port) {
        return;
    }
    if let Some(first) = ports.iter().find(|known| !served.name.is_empty() && known.name == served.name) {
        let (port, name) = (served.port, &served.name);
        notes.push(format!("port {port} goes without its name: {name:?} is that of port {}", first.port));
        served.name.clear();
    }
    ports.push(served);
}

/// What is known of a workload.
#[derive(Debug, Default)]
pub(super) struct Workload<'a> {
    /// `key=value`, comma-separated.
    pub(super) labels: String,
    pub(super) ports: &'a [ServedPort],
    /// `PORT/PATH`, comma-separated.
    pub(super) probes: String,
    /// How its health is found out; `None`: by connecting to its first port.
    pub(super) health: Option<String>,
    pub(super) control_plane: &'a str,
    pub(super) token_file: &'a str,
    pub(super) drain_timeout: Option<Duration>,
}

/// The sidecar's settings as environment, in the order of its help. What is the default is left out.
pub(super) fn environment(workload: &Workload<'_>, tuning: &Tuning) -> Vec<(&'static str, String)> {
    let ports: Vec<String> = workload
        .ports
        .iter()
        .map(|served| match served.name.as_str() {
            "" => served.port.to_string(),
            name => format!("{}:{name}", served.port),
        })
        .collect();
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    [
        ("PILLION_LABELS", given(workload.labels.clone())),
        ("PILLION_PORTS", given(ports.join(","))),
        // The kubelet and collectors of metrics come from outside; only reads are open to them.
        ("PILLION_ADMIN_LISTEN", Some(format!("0.0.0.0:{ADMIN_PORT}"))),
        ("PILLION_REDIRECTED", Some("true".into())),
        ("PILLION_DNS_LISTEN", tuning.redirect_dns.then(|| "127.0.0.1:15053".into())),
        ("PILLION_PLAINTEXT_PORTS", tuning.plaintext_ports.clone()),
        ("PILLION_PROBES", given(workload.probes.clone())),
        ("PILLION_CONTROL_PLANE", Some(workload.control_plane.to_owned())),
        ("PILLION_JOIN_TOKEN_FILE", Some(workload.token_file.to_owned())),
        ("PILLION_HEALTH", workload.health.clone()),
        ("PILLION_DRAIN_TIMEOUT", workload.drain_timeout.map(written)),
        ("PILLION_LOG_LEVEL", tuning.log_level.clone()),
        ("PILLION_WEIGHT", tuning.weight.map(|weight| weight.to_string())),
        ("PILLION_ZONE", tuning.zone.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// The arguments of `pillion-proxy` that install the redirection.
pub(super) fn redirect(tuning: &Tuning) -> Vec<String> {
    let mut arguments = vec!["redirect".to_owned()];
    if tuning.redirect_dns {
        arguments.push("--redirect-dns".into());
    }
    for (flag, list) in [
        ("--exclude-inbound-ports", &tuning.exclude_inbound_ports),
        ("--exclude-outbound-ports", &tuning.exclude_outbound_ports),
        ("--exclude-outbound-cidrs", &tuning.exclude_outbound_cidrs),
    ] {
        if let Some(list) = list {
            arguments.push(format!("{flag}={list}"));
        }
    }
    arguments
}

/// A duration as settings take it.
fn written(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}
