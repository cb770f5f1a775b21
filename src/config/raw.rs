//! Settings as written: flags, environment and YAML file have the same fields, all optional.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{AppPort, Config, JoinToken, Listener, Probe};
use crate::telemetry::log::Format;

/// Settings as they are written. Flags win over the environment, the environment over the file.
///
/// Values are text until [`super::check`] has seen all of them, so that every fault is reported at once.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Raw {
    /// What people call this workload [default: the host's name]
    #[arg(long, env = "PILLION_WORKLOAD", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// What Services select this workload by: key=value, comma-separated
    #[arg(long, env = "PILLION_LABELS", value_name = "LABELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// What the application serves: PORT[:NAME][=ADDRESS], comma-separated; ADDRESS is where it really listens [default address: 127.0.0.1:PORT]
    #[arg(long, env = "PILLION_PORTS", value_name = "PORTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// Where other sidecars connect [default: 0.0.0.0:15006]
    #[arg(long, env = "PILLION_INBOUND_LISTEN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_listen: Option<String>,
    /// The inbound address told to others [default: the one listened on; if that is any, the one this host reaches the control plane from]
    #[arg(long, env = "PILLION_ADVERTISE", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where the application connects, as to a forward proxy [default: 127.0.0.1:15001]
    #[arg(long, env = "PILLION_OUTBOUND_LISTEN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_listen: Option<String>,
    /// Where operators and probes connect [default: 127.0.0.1:15020]
    #[arg(long, env = "PILLION_ADMIN_LISTEN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<String>,
    /// Local ports that stand for one service each: ADDRESS=SERVICE.NAMESPACE:PORT, comma-separated
    #[arg(long, env = "PILLION_LISTENERS", value_name = "LISTENERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<String>,
    /// Whether the workload's traffic is redirected here (`pillion-proxy redirect`); if so, the sidecar is unready while it is not [default: false]
    #[arg(long, env = "PILLION_REDIRECTED", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirected: Option<String>,
    /// Where to answer DNS for mesh names, over UDP and TCP; everything else is forwarded to the system's servers [default: nowhere; 127.0.0.1:15053 is usual]
    #[arg(long, env = "PILLION_DNS_LISTEN", value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_listen: Option<String>,
    /// Application ports that take redirected plaintext even in a strict mesh, comma-separated
    #[arg(long, env = "PILLION_PLAINTEXT_PORTS", value_name = "PORTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext_ports: Option<String>,
    /// Health probes that are taken in plaintext even in a strict mesh: PORT/PATH, comma-separated, exact
    #[arg(long, env = "PILLION_PROBES", value_name = "PROBES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<String>,
    /// The control plane's gRPC address [default: 127.0.0.1:15010]
    #[arg(long, env = "PILLION_CONTROL_PLANE", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<String>,
    /// Proves this workload for its first certificate (`pillion token create`)
    #[arg(long, env = "PILLION_JOIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_token: Option<String>,
    /// A file with the join token
    #[arg(long, env = "PILLION_JOIN_TOKEN_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_token_file: Option<PathBuf>,
    /// The application's health check: http://ADDRESS/PATH, grpc://ADDRESS/SERVICE, tcp://ADDRESS or none; goes before the TrafficPolicy of its services [default: theirs, else tcp to the first port]
    #[arg(long, env = "PILLION_HEALTH", value_name = "CHECK")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Write the addresses listened on to this file, as JSON
    #[arg(long, env = "PILLION_ADDRESSES_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses_file: Option<PathBuf>,
    /// The longest that a shutdown takes [default: 30s]
    #[arg(long, env = "PILLION_DRAIN_TIMEOUT", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
    /// How long a first request to a service waits for the control plane's answer [default: 5s]
    #[arg(long, env = "PILLION_DISCOVERY_TIMEOUT", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery_timeout: Option<String>,
    /// How long a connection may be silent before it counts as opaque [default: 5s]
    #[arg(long, env = "PILLION_DETECTION_TIMEOUT", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection_timeout: Option<String>,
    /// Connections open at a time, per direction and worker [default: 16384]
    #[arg(long, env = "PILLION_MAX_CONNECTIONS", value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<String>,
    /// Threads that serve [default: 1]
    #[arg(long, env = "PILLION_WORKERS", value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<String>,
    /// Where this workload runs, such as a cloud's zone
    #[arg(long, env = "PILLION_ZONE", value_name = "ZONE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its share of a service's traffic beside other workloads, a percentage of the usual one: 1 to 1000 [default: 100]
    #[arg(long, env = "PILLION_WEIGHT", value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Whether each request's time is split into the application's, the network's and the sidecars' [default: true]
    #[arg(long, env = "PILLION_SPLIT_LATENCY", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_latency: Option<String>,
    /// The access log of requests and connections: off, json or text; goes before the mesh's (`accessLog` of its MeshConfig), which says the rest [default: the mesh's]
    #[arg(long, env = "PILLION_ACCESS_LOG", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<String>,
    /// The file that the access log is added to; may be renamed at any time, to rotate it [default: standard output]
    #[arg(long, env = "PILLION_ACCESS_LOG_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log_file: Option<PathBuf>,
    /// Who takes spans by OTLP: http(s)://HOST:PORT, or none; goes before the mesh's (`tracing` of its MeshConfig) [default: the mesh's]
    #[arg(long, env = "PILLION_TRACING_ENDPOINT", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_endpoint: Option<String>,
    /// How spans are sent to the tracing endpoint: grpc or http/protobuf [default: grpc]
    #[arg(long, env = "PILLION_TRACING_PROTOCOL", value_name = "PROTOCOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_protocol: Option<String>,
    /// How they are compressed: none or gzip [default: none]
    #[arg(long, env = "PILLION_TRACING_COMPRESSION", value_name = "COMPRESSION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_compression: Option<String>,
    /// Of requests that come without a trace, so many percent are recorded [default: the mesh's, else 1]
    #[arg(long, env = "PILLION_TRACING_SAMPLING", value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_sampling: Option<String>,
    /// A file with header fields that spans are sent with, such as a key: NAME: VALUE, one a line
    #[arg(long, env = "PILLION_TRACING_HEADERS_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_headers_file: Option<PathBuf>,
    /// Log lines as text or json [default: text]
    #[arg(long, env = "PILLION_LOG_FORMAT", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// Log filter, such as info or debug [default: info]
    #[arg(long, env = "PILLION_LOG_LEVEL", value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

impl Raw {
    /// What is set here, else what is set in `under`.
    pub fn over(self, under: Self) -> Self {
        Self {
            workload: self.workload.or(under.workload),
            labels: self.labels.or(under.labels),
            ports: self.ports.or(under.ports),
            inbound_listen: self.inbound_listen.or(under.inbound_listen),
            advertise: self.advertise.or(under.advertise),
            outbound_listen: self.outbound_listen.or(under.outbound_listen),
            admin_listen: self.admin_listen.or(under.admin_listen),
            listeners: self.listeners.or(under.listeners),
            redirected: self.redirected.or(under.redirected),
            dns_listen: self.dns_listen.or(under.dns_listen),
            plaintext_ports: self.plaintext_ports.or(under.plaintext_ports),
            probes: self.probes.or(under.probes),
            control_plane: self.control_plane.or(under.control_plane),
            join_token: self.join_token.or(under.join_token),
            join_token_file: self.join_token_file.or(under.join_token_file),
            health: self.health.or(under.health),
            addresses_file: self.addresses_file.or(under.addresses_file),
            drain_timeout: self.drain_timeout.or(under.drain_timeout),
            discovery_timeout: self.discovery_timeout.or(under.discovery_timeout),
            detection_timeout: self.detection_timeout.or(under.detection_timeout),
            max_connections: self.max_connections.or(under.max_connections),
            workers: self.workers.or(under.workers),
            zone: self.zone.or(under.zone),
            weight: self.weight.or(under.weight),
            split_latency: self.split_latency.or(under.split_latency),
            access_log: self.access_log.or(under.access_log),
            access_log_file: self.access_log_file.or(under.access_log_file),
            tracing_endpoint: self.tracing_endpoint.or(under.tracing_endpoint),
            tracing_protocol: self.tracing_protocol.or(under.tracing_protocol),
            tracing_compression: self.tracing_compression.or(under.tracing_compression),
            tracing_sampling: self.tracing_sampling.or(under.tracing_sampling),
            tracing_headers_file: self.tracing_headers_file.or(under.tracing_headers_file),
            log_format: self.log_format.or(under.log_format),
            log_level: self.log_level.or(under.log_level),
        }
    }

    /// From a file's text.
    ///
    /// # Errors
    /// Where and what is wrong, with the line.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// As a file's text, without secrets.
    pub fn to_yaml(&self) -> String {
        let mut shown = self.clone();
        if shown.join_token.is_some() {
            shown.join_token = Some("(hidden)".into());
        }
        serde_saphyr::to_string(&shown).expect("a flat struct of texts can be written")
    }
}

/// Complete settings, written out again.
impl From<&Config> for Raw {
    fn from(config: &Config) -> Self {
        let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
        let millis = |duration: Duration| Some(format!("{}ms", duration.as_millis()));
        let (join_token, join_token_file) = match &config.join_token {
            JoinToken::Text(text) => (Some(text.clone()), None),
            JoinToken::File(path) => (None, Some(path.clone())),
        };
        let mut raw = Self {
            workload: Some(config.workload.clone()),
            labels: list(config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            ports: list((config.ports.iter()).map(AppPort::to_string).collect()),
            inbound_listen: Some(config.inbound_listen.to_string()),
            advertise: config.advertise.map(|address| address.to_string()),
            outbound_listen: Some(config.outbound_listen.to_string()),
            admin_listen: Some(config.admin_listen.to_string()),
            listeners: list(config.listeners.iter().map(Listener::to_string).collect()),
            redirected: Some(config.redirected.to_string()),
            dns_listen: config.dns_listen.map(|address| address.to_string()),
            plaintext_ports: list(config.plaintext_ports.iter().map(u16::to_string).collect()),
            probes: list(config.probes.iter().map(Probe::to_string).collect()),
            control_plane: Some(config.control_plane.clone()),
            join_token,
            join_token_file,
            health: config.health.as_ref().map(ToString::to_string),
            addresses_file: config.addresses_file.clone(),
            drain_timeout: millis(config.drain_timeout),
            discovery_timeout: millis(config.discovery_timeout),
            detection_timeout: millis(config.detection_timeout),
            max_connections: Some(config.max_connections.to_string()),
            workers: Some(config.workers.to_string()),
            zone: Some(config.zone.clone()).filter(|zone| !zone.is_empty()),
            weight: Some(config.weight.to_string()),
            split_latency: Some(config.split_latency.to_string()),
            access_log: config.access_log.map(|choice| choice.as_str().into()),
            access_log_file: config.access_log_file.clone(),
            log_format: Some(match config.log_format {
                Format::Text => "text".into(),
                Format::Json => "json".into(),
            }),
            log_level: Some(config.log_level.clone()),
            ..Self::default()
        };
        config.tracing.show(&mut raw);
        raw
    }
}
