//! What the system says of this process.

use std::{sync::Arc, time::SystemTime};

use pillion_api::metric::Usage;

use crate::telemetry::{names::Metric, prometheus::Registry};

/// Sets what this process is, and its memory and CPU time where the system tells. Gives the bytes that are resident.
pub(super) fn measure(registry: &Arc<Registry>, started: SystemTime) -> Option<u64> {
    registry.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")]).set(1);
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    registry.gauge(Metric::StartTime, &[]).set(started.as_secs_f64());
    let usage = Usage::of_this_process();
    if let Some(resident) = usage.resident {
        registry.gauge(Metric::ResidentMemory, &[]).set(resident as f64);
    }
    if let Some(cpu) = usage.cpu {
        registry.cpu(cpu);
    }
    usage.resident
}
