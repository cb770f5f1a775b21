//! What happened lately, in plain words: a bounded list.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

/// How many events are kept.
pub const KEPT: usize = 500;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A sidecar stopped sending to an endpoint.
    BreakerOpened,
    /// A sidecar tries an endpoint again.
    BreakerHalfOpened,
    /// A sidecar trusts an endpoint again.
    BreakerClosed,
    /// A workload registered.
    WorkloadJoined,
    /// A workload said goodbye, or its lease ended.
    WorkloadLeft,
    /// An application became ready.
    WorkloadHealthy,
    /// An application is not ready.
    WorkloadUnhealthy,
    /// A workload has a new certificate.
    CertificateRenewed,
    /// A sidecar could not use what it was sent.
    ConfigurationRefused,
    /// Callers of a service are made to see a fault.
    FaultInjected,
    /// They are not any more.
    FaultOver,
    /// Somebody applied a document.
    DocumentApplied,
    /// Somebody deleted a document.
    DocumentDeleted,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Growing by one.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The service concerned, `<name>.<namespace>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The workload concerned, as people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// For people.
    pub text: String,
}

/// The newest [`KEPT`] events.
#[derive(Debug, Default)]
pub(super) struct Events {
    last_id: u64,
    kept: VecDeque<Event>,
}

impl Events {
    pub(super) fn add(&mut self, mut event: Event) {
        self.last_id += 1;
        event.id = self.last_id;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// The newest first.
    pub(super) fn latest(&self, count: usize) -> Vec<Event> {
        self.kept.iter().rev().take(count).cloned().collect()
    }
}
