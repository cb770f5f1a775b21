//! What a sidecar writes into its addresses file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where a sidecar listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// For other sidecars.
    pub inbound: SocketAddr,
    /// For its application: the `http_proxy`.
    pub outbound: SocketAddr,
    /// For people and probes.
    pub admin: SocketAddr,
    /// For names of the mesh, where it answers for them.
    #[serde(default)]
    pub dns: Option<SocketAddr>,
    /// Explicit listeners by the service and port that they lead to, such as `redis.demo:6379`.
    #[serde(default)]
    pub listeners: BTreeMap<String, SocketAddr>,
}
