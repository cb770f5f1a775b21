//! The control plane is killed, started again over what it left, and everybody comes back.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    Error,
    changes::{flap, pick},
    fleet::Fleet,
    server::Server,
};

/// What a reconnect of all costs. Sidecars come back after their own jittered waits.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Restart {
    /// From the start of the process until it serves.
    pub(crate) up_ms: f64,
    /// From its start until every stream and subscription is there again.
    pub(crate) steady_s: f64,
    /// CPU until then.
    pub(crate) cpu_s: f64,
    /// Most memory until then and five seconds more, MB.
    pub(crate) peak_mb: f64,
    /// Resident after that, MB.
    pub(crate) resident_mb: f64,
    /// Updates that were sent although everybody had everything already.
    pub(crate) updates_sent: u64,
}

/// Heartbeats compare everything once more within this time.
const AFTERWARDS: Duration = Duration::from_secs(6);
/// Changes that show that all is as before.
const CHANGES: usize = 5;

/// Kills the server and waits until all is as before.
pub(crate) async fn measure(server: &mut Server, fleet: &Fleet) -> Result<Restart, Error> {
    let started = Instant::now();
    let up = server.crash_and_restart().await?;
    fleet.connected(server).await?;
    let (steady, cpu) = (started.elapsed(), server.cpu()?);
    sleep(AFTERWARDS).await;
    let (memory, metrics) = (server.memory()?, server.metrics().await?);
    fleet.know_all().await?;
    for change in 0..CHANGES {
        flap(fleet, pick(fleet, change)).await?;
    }
    Ok(Restart {
        up_ms: up.as_secs_f64() * 1000.0,
        steady_s: steady.as_secs_f64(),
        cpu_s: cpu.as_secs_f64(),
        peak_mb: memory.peak,
        resident_mb: memory.resident,
        updates_sent: metrics.updates_sent,
    })
}
