//! All that is measured with one number of sidecars, in the order in which it happens.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    Error,
    changes::{self, Changes},
    fleet::Fleet,
    mesh::Mesh,
    restart::{self, Restart},
    server::Server,
    settings::Settings,
    wire::{self, OnTheWire},
};

/// What came of one step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) sidecars: usize,
    pub(crate) services: usize,
    pub(crate) subscriptions: usize,
    pub(crate) joined: Joined,
    pub(crate) changes: Changes,
    pub(crate) wire: OnTheWire,
    /// Resident after all changes, MB.
    pub(crate) resident_mb: f64,
    /// At its most until then, MB.
    pub(crate) peak_mb: f64,
    pub(crate) updates: Updates,
    pub(crate) restart: Restart,
}

/// Everybody joins: token, certificate, stream, subscriptions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Joined {
    /// Until everybody knew everything.
    pub(crate) steady_s: f64,
    /// The control plane's CPU until then.
    pub(crate) cpu_s: f64,
    /// Resident then, MB.
    pub(crate) resident_mb: f64,
    /// The server's own, with all documents and nobody connected, MB.
    pub(crate) empty_mb: f64,
}

/// Updates sent while instances changed their health, one of each changed service for each of its subscribers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Updates {
    pub(crate) needed: u64,
    pub(crate) sent: u64,
    pub(crate) refused: u64,
}

/// Memory and compiling come to rest.
const REST: Duration = Duration::from_secs(1);

/// Runs one step with a server of its own.
pub(crate) async fn measure(settings: &Settings, mesh: Mesh) -> Result<Step, Error> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(&settings.program, folder.path()).await?;
    for documents in mesh.documents() {
        server.apply(documents).await?;
    }
    sleep(REST).await;
    let empty_mb = server.memory()?.resident;

    let (started, cpu) = (Instant::now(), server.cpu()?);
    let mut fleet = Fleet::join(&server, mesh).await?;
    fleet.know_all().await?;
    let (steady_s, cpu_s) = (started.elapsed().as_secs_f64(), (server.cpu()? - cpu).as_secs_f64());
    fleet.connected(&server).await?;
    sleep(REST).await;
    let joined = Joined { steady_s, cpu_s, resident_mb: server.memory()?.resident, empty_mb };

    let changes = changes::measure(&server, &mut fleet, settings.changes).await?;
    let wire = wire::measure(&server, &fleet).await?;
    fleet.connected(&server).await?;
    let updates = updates(&server, &fleet, settings.changes).await?;
    let memory = server.memory()?;
    fleet.know_all().await?;

    let restart = restart::measure(&mut server, &fleet).await?;
    Ok(Step {
        sidecars: mesh.sidecars,
        services: mesh.services,
        subscriptions: mesh.all_subscriptions(),
        joined,
        changes,
        wire,
        resident_mb: memory.resident,
        peak_mb: memory.peak,
        updates,
        restart,
    })
}

/// Counts what is sent for so many changes: nobody is to be told anything that is no news.
async fn updates(server: &Server, fleet: &Fleet, changes: usize) -> Result<Updates, Error> {
    let before = server.metrics().await?;
    let mut needed = 0;
    for change in 0..changes {
        let service = changes::pick(fleet, change);
        changes::flap(fleet, service).await?;
        needed += fleet.callers(service).len() as u64;
    }
    let after = server.metrics().await?;
    Ok(Updates { needed, sent: after.updates_sent - before.updates_sent, refused: after.updates_refused })
}
