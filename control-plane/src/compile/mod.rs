//! Documents and workloads in, one wire configuration per service out. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One encoded message, shared by all who are sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// A digest of `bytes`: first 16 hexadecimal digits of their SHA-256.
    pub version: String,
    /// A `wire::ServiceConfig` or `wire::EndpointList`.
    pub bytes: Bytes,
}

/// What subscribers of one service are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledService {
    /// Ports, routes, policy.
    pub config: Encoded,
    /// Who serves it.
    pub endpoints: Encoded,
}

/// A registered workload, as the registry knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// What the sidecar said of itself.
    pub hello: pillion_api::wire::Hello,
    /// The identity of its certificate (`spiffe://…/ns/<namespace>/sa/<service account>`).
    pub spiffe_id: String,
    /// From the identity.
    pub namespace: String,
}

/// Every service by its name, `<name>.<namespace>`.
pub type Compiled = BTreeMap<String, CompiledService>;
