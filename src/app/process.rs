//! What the system says of this process.

use std::{sync::Arc, time::SystemTime};

use crate::telemetry::{names::Metric, prometheus::Registry};

/// Sets what this process is, and its memory and CPU time where `/proc` has them (proc(5)). Gives the bytes that are
/// resident.
pub(super) fn measure(registry: &Arc<Registry>, started: SystemTime) -> Option<u64> {
    registry.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")]).set(1);
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    registry.gauge(Metric::StartTime, &[]).set(started.as_secs_f64());
    let (page, ticks) = (4096, 100.0);
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()))
        .map(|pages| pages * page);
    if let Some(resident) = resident {
        registry.gauge(Metric::ResidentMemory, &[]).set(resident as f64);
    }
    let spent = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        // The name before it may hold anything, but ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    });
    if let Some(spent) = spent {
        registry.counter(Metric::CpuSeconds, &[]).absolute((spent as f64 / ticks) as u64);
    }
    resident
}
