//! A thread that serves: it owns its connections, and all that it needs for them.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
};

use super::Listeners;
use crate::{
    config::Config,
    control::{Mesh, directory::Directory},
    drain::{Drain, Phase},
    inbound::{self, Inbound},
    net::listen,
    outbound::{self, Outbound},
    telemetry::{edge::Edges, prometheus::Registry, report::WorkerReport},
};

/// Between looks for connections that are idle.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker gets from the main thread.
#[derive(Debug, Clone)]
pub(super) struct Needs {
    pub(super) config: Arc<Config>,
    pub(super) mesh: watch::Receiver<Option<Mesh>>,
    pub(super) directory: Directory,
    pub(super) registry: Arc<Registry>,
    pub(super) drain: Drain,
    pub(super) own_address: std::net::SocketAddr,
}

/// The main thread's hold on a worker.
#[derive(Debug)]
pub(super) struct Worker {
    reports: mpsc::Sender<oneshot::Sender<WorkerReport>>,
}

impl Worker {
    /// Starts a thread that accepts from the same sockets as the others.
    pub(super) fn start(index: usize, needs: Needs, listeners: &Listeners) -> Result<Self, String> {
        let clone =
            |listener: &std::net::TcpListener| listener.try_clone().map_err(|error| error.to_string());
        let (inbound, outbound) = (clone(&listeners.inbound)?, clone(&listeners.outbound)?);
        let mut services = Vec::new();
        for (listener, target) in &listeners.services {
            services.push((clone(listener)?, target.clone()));
        }
        let (reports, asked) = mpsc::channel(4);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("worker {index}: {error}"))?;
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                LocalSet::new().block_on(&runtime, serve(needs, inbound, outbound, services, asked));
            })
            .map_err(|error| format!("worker {index}: {error}"))?;
        Ok(Self { reports })
    }

    /// What it has counted since it was last asked. `None`: it does not answer in time.
    pub(super) async fn report(&self, within: Duration) -> Option<WorkerReport> {
        let (reply, answer) = oneshot::channel();
        let report = async {
            self.reports.send(reply).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(within, report).await.ok().flatten()
    }
}

async fn serve(
    needs: Needs,
    inbound_listener: std::net::TcpListener,
    outbound_listener: std::net::TcpListener,
    services: Vec<(std::net::TcpListener, outbound::Target)>,
    mut asked: mpsc::Receiver<oneshot::Sender<WorkerReport>>,
) {
    let config = &needs.config;
    let edges = Rc::new(Edges::default());
    let workload: Arc<str> = config.workload.as_str().into();
    let inbound = Inbound::new(inbound::Needs {
        workload: workload.clone(),
        ports: config.ports.clone(),
        mesh: needs.mesh.clone(),
        edges: edges.clone(),
        registry: needs.registry.clone(),
        drain: needs.drain.clone(),
        detection_timeout: config.detection_timeout,
        discovery_timeout: config.discovery_timeout,
    });
    let outbound = Outbound::new(outbound::Needs {
        workload,
        mesh: needs.mesh.clone(),
        directory: needs.directory.clone(),
        edges: edges.clone(),
        registry: needs.registry.clone(),
        own_address: needs.own_address,
        detection_timeout: config.detection_timeout,
        discovery_timeout: config.discovery_timeout,
    });
    let limit = config.max_connections;

    let mut closing = needs.drain.clone();
    let serving = inbound.clone();
    listen_on(
        inbound_listener,
        inbound.open().clone(),
        limit,
        async move { closing.reached(Phase::Closing).await },
        move |stream, peer| serving.clone().serve(stream, peer),
    );
    // The application may need others until its very end, so its side is never closed before the process ends.
    let serving = outbound.clone();
    listen_on(outbound_listener, outbound.open().clone(), limit, std::future::pending(), move |stream, _| {
        serving.clone().serve(stream, None)
    });
    for (listener, target) in services {
        let serving = outbound.clone();
        listen_on(listener, outbound.open().clone(), limit, std::future::pending(), move |stream, _| {
            serving.clone().serve(stream, Some(target.clone()))
        });
    }

    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            reply = asked.recv() => {
                let Some(reply) = reply else { return };
                let report = WorkerReport {
                    edges: edges.take(),
                    endpoints: outbound.endpoints(),
                    inbound_connections: inbound.open().count(),
                    outbound_connections: outbound.open().count(),
                };
                let _ = reply.send(report);
            }
            _ = sweep.tick() => {
                inbound.sweep();
                outbound.sweep();
            }
        }
    }
}

fn listen_on<H, F>(
    listener: std::net::TcpListener,
    open: listen::Open,
    limit: usize,
    stop: impl Future<Output = ()> + 'static,
    handle: H,
) where
    H: Fn(tokio::net::TcpStream, std::net::SocketAddr) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        if let Err(error) = listen::accept(listener, open, limit, stop, handle).await {
            tracing::error!(%error, "a listener has failed");
        }
    });
}
