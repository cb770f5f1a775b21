//! All sidecars of a step, and what each of them should know.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use pillion_proxy::{control::directory::Snapshot, telemetry::prometheus::Registry};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    Error,
    mesh::{BASE_TIMEOUT_MS, Mesh, name},
    server::Server,
    sidecar::{Sidecar, Workload},
};

/// For a change to be known everywhere. What takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sidecars that join at the same moment: what a machine with few cores is busy with.
const JOINING: usize = 64;
/// Tokens asked for at the same moment.
const ASKING: usize = 8;
/// Between looks at the server's counters.
const LOOK: Duration = Duration::from_millis(50);

/// The sidecars and the state of the mesh that they should see.
pub(crate) struct Fleet {
    pub(crate) mesh: Mesh,
    pub(crate) sidecars: Vec<Sidecar>,
    /// By service: who calls it.
    callers: Vec<Vec<usize>>,
    /// By service: the request timeout of its policy.
    pub(crate) timeouts_ms: Vec<u64>,
    /// By sidecar: whether it has said goodbye.
    pub(crate) left: Vec<bool>,
    registry: Arc<Registry>,
}

/// What there is to know of a service.
struct Expected {
    /// By UID: whether it is ready.
    endpoints: BTreeMap<String, bool>,
    timeout: Duration,
}

impl Fleet {
    /// Everybody joins, by a token for the service account of their service.
    pub(crate) async fn join(server: &Server, mesh: Mesh) -> Result<Self, Error> {
        let names: Vec<String> = (0..mesh.served()).map(name).collect();
        let tokens = stream::iter(names.iter().map(|name| server.join_token(name)));
        let tokens: Vec<String> = tokens.buffered(ASKING).try_collect().await?;
        let (registry, address) = (Arc::new(Registry::new()), server.address());
        let joining = (0..mesh.sidecars).map(|number| {
            let service = mesh.served_by(number);
            let (tokens, registry, address) = (&tokens, &registry, &address);
            async move {
                let workload =
                    Workload::join(address, &tokens[service], number, name(service), registry).await?;
                let services = mesh.called_by(number).collect();
                let mut sidecar = Sidecar::start(address, workload, 0, services, registry);
                sidecar.follow().await?;
                Ok::<_, Error>(sidecar)
            }
        });
        let sidecars = stream::iter(joining).buffered(JOINING).try_collect().await?;
        Ok(Self {
            mesh,
            sidecars,
            callers: (0..mesh.services).map(|service| mesh.callers_of(service)).collect(),
            timeouts_ms: vec![BASE_TIMEOUT_MS; mesh.services],
            left: vec![false; mesh.sidecars],
            registry,
        })
    }

    /// Who calls a service.
    pub(crate) fn callers(&self, service: usize) -> &[usize] {
        &self.callers[service]
    }

    /// Where all sidecars count.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Waits until all callers of a service, but for one that is just starting, know of it what there is to know.
    pub(crate) async fn know(&self, service: usize, but: Option<usize>) -> Result<(), Error> {
        let callers = self.callers(service).iter().filter(|caller| Some(**caller) != but);
        let seen = callers.filter_map(|caller| self.sidecars[*caller].sees(service));
        let expected = self.expected(service);
        let known = try_join_all(seen.map(|seen| known(seen, &expected)));
        let known = timeout(PATIENCE, known).await;
        known.map_err(|_| {
            format!("not every sidecar knows {} as it is after {PATIENCE:?}", name(service))
        })??;
        Ok(())
    }

    /// Waits until everybody knows everything that they follow.
    pub(crate) async fn know_all(&self) -> Result<(), Error> {
        for service in 0..self.mesh.services {
            self.know(service, None).await?;
        }
        Ok(())
    }

    /// Waits until the server has every stream and every subscription.
    pub(crate) async fn connected(&self, server: &Server) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let all = (self.mesh.sidecars as u64, self.mesh.all_subscriptions() as u64);
        loop {
            let metrics = timeout_at(deadline, server.metrics()).await;
            let metrics = metrics.map_err(|_| "not every sidecar is back in time")??;
            if (metrics.connected, metrics.subscriptions) == all {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("not everybody is connected after {PATIENCE:?}: {metrics:?}").into());
            }
            sleep(LOOK).await;
        }
    }

    fn expected(&self, service: usize) -> Expected {
        let servers = self.mesh.servers_of(service).filter(|server| !self.left[*server]);
        let endpoint =
            |server: usize| (self.sidecars[server].uid().to_owned(), self.sidecars[server].is_ready());
        Expected {
            endpoints: servers.map(endpoint).collect(),
            timeout: Duration::from_millis(self.timeouts_ms[service]),
        }
    }
}

async fn known(mut seen: watch::Receiver<Snapshot>, expected: &Expected) -> Result<(), Error> {
    seen.wait_for(|snapshot| expected.is_seen_in(snapshot))
        .await
        .map_err(|_| "a sidecar's stream has ended")?;
    Ok(())
}

impl Expected {
    fn is_seen_in(&self, snapshot: &Snapshot) -> bool {
        let Snapshot::Present(service, endpoints) = snapshot else { return false };
        service.policy.request_timeout == Some(self.timeout)
            && endpoints.len() == self.endpoints.len()
            && endpoints.iter().all(|endpoint| self.endpoints.get(&endpoint.uid) == Some(&endpoint.ready))
    }
}
