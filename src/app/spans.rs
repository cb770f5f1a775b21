//! Where spans go: as the mesh's settings say and this sidecar's own, told to the workers and to whoever sends them.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    config::{Config, tracing::OwnTracing},
    control::Mesh,
    otlp::{Exporter, Target, Workload},
};

/// For the last spans, when the process ends: then nothing else is left to do.
const FLUSH: Duration = Duration::from_secs(2);

/// Follows what holds, for ever.
pub(super) async fn follow(
    config: Arc<Config>,
    mut mesh: watch::Receiver<Option<Mesh>>,
    target: watch::Sender<Option<Arc<Target>>>,
) {
    loop {
        let now = mesh.borrow_and_update().as_ref().and_then(|mesh| find(&config, mesh));
        target.send_if_modified(|known| {
            let changed = known.as_deref() != now.as_ref();
            if changed {
                *known = now.map(Arc::new);
            }
            changed
        });
        if mesh.changed().await.is_err() {
            return;
        }
    }
}

/// `None`: tracing is off.
fn find(config: &Config, mesh: &Mesh) -> Option<Target> {
    let own: &OwnTracing = &config.tracing;
    let tracing = own.in_force(mesh.settings.tracing.as_deref())?;
    let namespace = mesh.identity.spiffe_id().namespace();
    // A workload that belongs to no service stands for itself.
    let service = mesh.source.strip_suffix(namespace).and_then(|source| source.strip_suffix('.'));
    let workload = Workload {
        service: service.unwrap_or(&mesh.source).into(),
        namespace: namespace.into(),
        instance: config.workload.as_str().into(),
    };
    Some(Target { tracing, headers_file: own.headers_file.clone(), workload })
}

/// Sends spans until the process ends.
pub(super) struct Sending {
    ending: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Sending {
    /// With an exporter that hears its end from what it is given.
    pub(super) fn start(exporter: impl FnOnce(watch::Receiver<bool>) -> Exporter) -> Self {
        let (ending, ended) = watch::channel(false);
        Self { ending, running: crate::task::start(exporter(ended).run()) }
    }

    /// Sends what is left, as far as there is time for that.
    pub(super) async fn end(self) {
        self.ending.send_replace(true);
        if timeout(FLUSH, self.running).await.is_err() {
            tracing::warn!(within = ?FLUSH, "the last spans were not taken");
        }
    }
}
