//! What one worker tells the main thread when asked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pillion_api::name::ServiceName;

use super::{edge::EdgeDelta, stalls::StallCount};

/// Everything that a worker has gathered, and how things stand on it.
#[derive(Debug, Default, Clone)]
pub struct WorkerReport {
    /// Since the last report.
    pub edges: Vec<EdgeDelta>,
    /// Followed here.
    pub services: Vec<Arc<str>>,
    /// As they are.
    pub endpoints: Vec<EndpointStatus>,
    /// As they are, of services whose policy repeats anything.
    pub budgets: Vec<BudgetStatus>,
    /// As they are, of every service that is followed.
    pub loads: Vec<LoadStatus>,
    /// Open now.
    pub inbound_connections: usize,
    /// Open now.
    pub outbound_connections: usize,
    /// Since the last report.
    pub stalls: StallCount,
}

/// How the workload's certificate stands; times are seconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct CertificateStatus {
    /// When it began to hold.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
    /// Times that it was renewed.
    pub renewed: u64,
}

/// What there is to one service, over all workers as far as they count together.
#[derive(Debug, Clone)]
pub struct LoadStatus {
    /// Which.
    pub service: Arc<str>,
    /// Connections to it that are open.
    pub connections: u32,
    /// Requests that wait for one.
    pub pending: u32,
}

/// How many attempts a worker could still make beyond the requests themselves.
#[derive(Debug, Clone)]
pub struct BudgetStatus {
    /// To which service.
    pub service: Arc<str>,
    /// After one that failed. `None`: the policy has none.
    pub retries: Option<u64>,
    /// Beside one that is slow.
    pub hedges: Option<u64>,
}

/// How many requests the workload works on at a time, for one port.
#[derive(Debug, Clone)]
pub struct ConcurrencyStatus {
    /// The workload's own.
    pub service: ServiceName,
    /// Of the application.
    pub port: u16,
    /// Requests that may be under way.
    pub limit: u32,
    /// Those that are.
    pub under_way: u32,
    /// Those that wait.
    pub queued: u32,
    /// The best latency, where one is measured.
    pub min_rtt: Option<Duration>,
}

/// How a worker sees one endpoint.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// Of which service.
    pub service: Arc<str>,
    /// The workload instance.
    pub uid: Arc<str>,
    /// What people call it.
    pub workload: Arc<str>,
    /// Of its sidecar.
    pub address: SocketAddr,
    /// As its own sidecar sees it.
    pub ready: bool,
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// Requests under way to it.
    pub in_flight: u32,
    /// The balancer's estimate, microseconds.
    pub latency_us: u32,
    /// Times that the breaker opened.
    pub opened: u64,
    /// Why it last did; empty if never.
    pub opened_reason: String,
    /// For how long it stays open; 0 where it is not.
    pub open_ms: u32,
    /// Where it runs; empty: unknown.
    pub zone: Arc<str>,
    /// Its share beside the others', as its workload says.
    pub weight: u32,
    /// Of its service's requests, what it is to have now: 0 to 1.
    pub share: f32,
}

/// Where a circuit breaker stands. Ordered from good to bad, so that the worst of several workers is the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// A few requests pass, to see whether it has recovered.
    HalfOpen,
    /// None pass.
    Open,
}

impl BreakerState {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}
