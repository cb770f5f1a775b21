//! How large a request may be, and how many connections a client may have.

use pillion_api::wire;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MANY, check_number};
use crate::resource::fault::{Faults, Path};

/// For each workload of the service by itself, held by its own sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestLimits {
    /// Of a request's header section: names and values, and 32 bytes for each (RFC 9113 6.5.2). Default: 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_header_bytes: Option<u32>,
    /// Fields of a request's header section, without those that sidecars add. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_headers: Option<u32>,
    /// Of a request's body, whether it says its length or not. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Open at a time, of all callers. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Open at a time, of each client, told by the identity of its certificate; all without one count as one client.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_client: Option<u32>,
    /// Requests at a time on one connection (HTTP/2). Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_streams_per_connection: Option<u32>,
}

impl RequestLimits {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        check_number(faults, &at.field("maxHeaderBytes"), self.max_header_bytes, 256, 65_536);
        check_number(faults, &at.field("maxHeaders"), self.max_headers, 1, 1000);
        if let Some(bytes) = self.max_body_bytes {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            faults.check_range(&at.field("maxBodyBytes"), bytes, 0, 1 << 50);
        }
        let clients = self.max_connections_per_client;
        check_number(faults, &at.field("maxConnections"), self.max_connections, 1, MANY);
        check_number(faults, &at.field("maxConnectionsPerClient"), clients, 1, MANY);
        let streams = self.max_streams_per_connection;
        check_number(faults, &at.field("maxStreamsPerConnection"), streams, 1, MANY);
    }

    /// As sidecars are told.
    pub fn to_wire(&self) -> wire::RequestLimits {
        wire::RequestLimits {
            max_header_bytes: self.max_header_bytes.unwrap_or(0),
            max_headers: self.max_headers.unwrap_or(0),
            max_body_bytes: self.max_body_bytes,
            max_connections: self.max_connections.unwrap_or(0),
            max_connections_per_client: self.max_connections_per_client.unwrap_or(0),
            max_streams_per_connection: self.max_streams_per_connection.unwrap_or(0),
        }
    }
}
