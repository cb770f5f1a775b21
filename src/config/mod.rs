//! The sidecar's own settings: text → [`raw`] (every field optional, unknown ones refused) → [`Config`] (complete,
//! typed, every fault reported at once).

pub mod check;
pub mod raw;
pub mod tracing;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use pillion_api::name::ServiceName;

use self::tracing::OwnTracing;
use crate::telemetry::{access_log::Choice, log::Format};

/// Complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What people call this workload.
    pub workload: String,
    /// What Services select it by.
    pub labels: BTreeMap<String, String>,
    /// What the application serves.
    pub ports: Vec<AppPort>,
    /// Where other sidecars connect.
    pub inbound_listen: SocketAddr,
    /// The address told to others, where it differs from what is listened on.
    pub advertise: Option<SocketAddr>,
    /// Where the application connects, as to a forward proxy.
    pub outbound_listen: SocketAddr,
    /// Where operators and probes connect.
    pub admin_listen: SocketAddr,
    /// Ports that stand for one service each.
    pub listeners: Vec<Listener>,
    /// The workload's traffic is redirected to the sidecar; it tests that it is.
    pub redirected: bool,
    /// Requests' durations are split by where they went.
    pub split_latency: bool,
    /// Where mesh names are answered for. `None`: nowhere.
    pub dns_listen: Option<SocketAddr>,
    /// Application ports that take plaintext whatever the mesh's mode.
    pub plaintext_ports: Vec<u16>,
    /// Requests that are taken in plaintext whatever the mesh's mode.
    pub probes: Vec<Probe>,
    /// The control plane's gRPC address, `host:port`.
    pub control_plane: String,
    /// How this workload proves itself for its first certificate.
    pub join_token: JoinToken,
    /// How the application's health is found out. `None`: as its services' policies say.
    pub health: Option<HealthCheck>,
    /// Where the addresses listened on are written.
    pub addresses_file: Option<PathBuf>,
    /// The longest that a shutdown takes.
    pub drain_timeout: Duration,
    /// How long a first request to a service waits for the control plane's answer.
    pub discovery_timeout: Duration,
    /// How long a connection may be silent before its protocol counts as opaque.
    pub detection_timeout: Duration,
    /// Connections open at a time, per direction and worker.
    pub max_connections: usize,
    /// Threads that serve.
    pub workers: usize,
    /// Where this workload runs.
    pub zone: String,
    /// Its share of a service's traffic beside others.
    pub weight: u32,
    /// Its access log. `None`: as the mesh says.
    pub access_log: Option<Choice>,
    /// Where that is written. `None`: to standard output.
    pub access_log_file: Option<PathBuf>,
    /// Traces, as far as they are not as the mesh says.
    pub tracing: OwnTracing,
    /// Log lines' form.
    pub log_format: Format,
    /// Log filter.
    pub log_level: String,
}

/// One port of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPort {
    /// As the mesh knows it.
    pub port: u16,
    /// Where the application really listens.
    pub address: SocketAddr,
    /// May be empty.
    pub name: String,
}

/// A local port that stands for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen.
    pub listen: SocketAddr,
    /// For which service…
    pub service: ServiceName,
    /// …and port.
    pub port: u16,
}

/// A health probe from outside the mesh, such as the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The application's.
    pub port: u16,
    /// Exact, without a query.
    pub path: String,
}

/// The secret text of a join token, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinToken {
    /// As given.
    Text(String),
    /// Read when needed, so that it can be replaced.
    File(PathBuf),
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// How the application's health is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheck {
    /// It always counts as ready.
    None,
    /// It accepts connections.
    Tcp(SocketAddr),
    /// `GET` answers 2xx or 3xx.
    Http {
        /// Of the application.
        address: SocketAddr,
        /// What to get.
        path: String,
    },
    /// `grpc.health.v1` says SERVING.
    Grpc {
        /// Of the application.
        address: SocketAddr,
        /// Empty: the server as a whole.
        service: String,
    },
}

impl fmt::Display for AppPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.name.is_empty() { "" } else { ":" };
        write!(f, "{}{colon}{}={}", self.port, self.name, self.address)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.listen, self.service, self.port)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.port, self.path)
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Http { address, path } => write!(f, "http://{address}{path}"),
            Self::Grpc { address, service } if service.is_empty() => write!(f, "grpc://{address}"),
            Self::Grpc { address, service } => write!(f, "grpc://{address}/{service}"),
        }
    }
}
