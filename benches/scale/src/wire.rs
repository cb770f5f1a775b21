//! What one update is on the wire, for one subscriber.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::{
    Error,
    changes::{flap, pick},
    fleet::Fleet,
    mesh::name,
    relay::{Passed, Relay},
    server::Server,
    sidecar::{Sidecar, Workload},
};

/// Changes that are looked at; the median leaves out those that a heartbeat or a report fell into.
const CHANGES: usize = 15;

/// For an update and its acknowledgement.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes for one update of a service's endpoints and one subscriber: gRPC, HTTP/2 and TLS with it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OnTheWire {
    /// The update.
    pub(crate) update_bytes: u64,
    /// Its acknowledgement.
    pub(crate) acknowledge_bytes: u64,
    /// In the list that the update carries.
    pub(crate) endpoints: usize,
}

/// One more sidecar subscribes through a counting relay while instances change.
pub(crate) async fn measure(server: &Server, fleet: &Fleet) -> Result<OnTheWire, Error> {
    let relay = Relay::to(server.address()).await?;
    let (number, app) = (fleet.mesh.sidecars, "watcher".to_owned());
    let token = server.join_token(&app).await?;
    let registry = fleet.registry();
    let workload = Workload::join(&server.address(), &token, number, app, registry).await?;
    let services: Vec<usize> = (0..CHANGES).map(|change| pick(fleet, change)).collect();
    let mut watcher = Sidecar::start(&relay.address(), workload, 0, services.clone(), registry);
    watcher.follow().await?;

    let (mut passed, mut seen) = (relay.passed(), Vec::new());
    for service in &services {
        let mut follows = watcher.sees(*service).ok_or("it follows all of them")?;
        follows.mark_unchanged();
        let before = *passed.borrow();
        flap(fleet, *service).await?;
        let applied = async {
            follows
                .changed()
                .await
                .map_err(|_| format!("the stream ended before {} changed", name(*service)))?;
            let after = passed.wait_for(|after| after.up > before.up).await;
            after.map(|after| *after).map_err(|_| "the relay has ended".to_owned())
        };
        let after = timeout(PATIENCE, applied).await.map_err(|_| "nothing is acknowledged")??;
        seen.push(Passed { down: after.down - before.down, up: after.up - before.up });
    }
    let middle = |of: fn(&Passed) -> u64| {
        let mut bytes: Vec<u64> = seen.iter().map(of).collect();
        bytes.sort_unstable();
        bytes[bytes.len() / 2]
    };
    Ok(OnTheWire {
        update_bytes: middle(|passed| passed.down),
        acknowledge_bytes: middle(|passed| passed.up),
        endpoints: fleet.mesh.servers_of(services[0]).count(),
    })
}
