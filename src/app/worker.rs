//! A thread that serves: it owns its connections, and all that it needs for them.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
};

use super::Listeners;
use crate::{
    config::Config,
    control::{Mesh, directory::Directory, own::OwnPolicies},
    drain::{Drain, Phase},
    inbound::{self, Inbound, policies},
    net::{
        io::Io,
        listen,
        nameservers::Sources,
        original::{Kernel, OriginalDestination},
        resolve::Resolver,
        self_test::SelfTest,
    },
    otlp::Target,
    outbound::{self, Outbound, connections},
    telemetry::{
        access_log::{AccessLog, Choice, Sink},
        edge::Edges,
        listeners::{Heard, Listeners as Hearing},
        prometheus::Registry,
        report::WorkerReport,
        stalls::Stalls,
        tap::{Watched, Watching},
        trace::{Spans, queue::Queue},
    },
};

/// Between looks for connections that are idle.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker gets from the main thread.
#[derive(Debug, Clone)]
pub(super) struct Needs {
    pub(super) config: Arc<Config>,
    pub(super) mesh: watch::Receiver<Option<Mesh>>,
    pub(super) policies: watch::Receiver<OwnPolicies>,
    pub(super) shared: Arc<policies::Shared>,
    pub(super) directory: Directory,
    pub(super) registry: Arc<Registry>,
    pub(super) access_log: Arc<Sink>,
    pub(super) watched: watch::Receiver<Watched>,
    /// Where spans go, and where they wait for that.
    pub(super) spans: (watch::Receiver<Option<Arc<Target>>>, Queue),
    pub(super) connections: connections::Shared,
    pub(super) drain: Drain,
    pub(super) own: Arc<[std::net::SocketAddr]>,
    pub(super) self_test: SelfTest,
    pub(super) names: Sources,
}

/// The main thread's hold on a worker.
#[derive(Debug)]
pub(super) struct Worker {
    asks: mpsc::Sender<Ask>,
}

/// What the main thread may want to know.
#[derive(Debug)]
enum Ask {
    /// What has been counted since the last time.
    Report(oneshot::Sender<WorkerReport>),
    /// How many connections are open.
    Open(oneshot::Sender<Open>),
}

/// How many connections are open.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Open {
    pub(super) inbound: usize,
    pub(super) outbound: usize,
}

impl Open {
    /// In both directions.
    pub(super) fn all(self) -> usize {
        self.inbound + self.outbound
    }
}

impl Worker {
    /// Starts a thread that accepts from the same sockets as the others.
    pub(super) fn start(index: usize, needs: Needs, listeners: &Listeners) -> Result<Self, String> {
        let clone =
            |listener: &std::net::TcpListener| listener.try_clone().map_err(|error| error.to_string());
        let all = |listeners: &[std::net::TcpListener]| listeners.iter().map(clone).collect::<Result<_, _>>();
        let (inbound, outbound) = (all(&listeners.inbound)?, all(&listeners.outbound)?);
        let mut services = Vec::new();
        for (listener, target) in &listeners.services {
            services.push((clone(listener)?, target.clone()));
        }
        let (asks, asked) = mpsc::channel(4);
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
        Ok(Self { asks })
    }

    /// What it has counted since it was last asked. `None`: it does not answer in time.
    pub(super) async fn report(&self, within: Duration) -> Option<WorkerReport> {
        self.ask(Ask::Report, within).await
    }

    /// How many connections are open. `None`: it does not answer in time.
    pub(super) async fn open(&self, within: Duration) -> Option<Open> {
        self.ask(Ask::Open, within).await
    }

    /// Waits until the thread has ended, which it does only by a fault.
    pub(super) async fn ended(&self) {
        self.asks.closed().await;
    }

    async fn ask<T>(&self, ask: fn(oneshot::Sender<T>) -> Ask, within: Duration) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let answered = async {
            self.asks.send(ask(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(within, answered).await.ok().flatten()
    }
}

async fn serve(
    needs: Needs,
    inbound_listeners: Vec<std::net::TcpListener>,
    outbound_listeners: Vec<std::net::TcpListener>,
    services: Vec<(std::net::TcpListener, outbound::Target)>,
    mut asked: mpsc::Receiver<Ask>,
) {
    let config = &needs.config;
    let workload: Arc<str> = config.workload.as_str().into();
    let listeners = Rc::<Hearing>::default();
    crate::task::start(hear(
        listeners.clone(),
        (needs.mesh.clone(), needs.watched),
        (config.access_log, needs.access_log),
        needs.spans,
        workload.clone(),
    ));
    let edges = Rc::new(Edges::new(config.split_latency, listeners));
    let stalls = Rc::<Stalls>::default();
    crate::task::start(stalls.clone().watch());
    let inbound = Inbound::new(inbound::Needs {
        workload: workload.clone(),
        ports: config.ports.clone(),
        plaintext_ports: config.plaintext_ports.clone(),
        probes: config.probes.clone(),
        mesh: needs.mesh.clone(),
        policies: needs.policies.clone(),
        shared: needs.shared.clone(),
        edges: edges.clone(),
        registry: needs.registry.clone(),
        stalls: stalls.clone(),
        drain: needs.drain.clone(),
        detection_timeout: config.detection_timeout,
        discovery_timeout: config.discovery_timeout,
    });
    let outbound = Outbound::new(outbound::Needs {
        workload,
        zone: config.zone.as_str().into(),
        mesh: needs.mesh.clone(),
        directory: needs.directory.clone(),
        edges: edges.clone(),
        registry: needs.registry.clone(),
        stalls: stalls.clone(),
        own: needs.own.clone(),
        connections: needs.connections.clone(),
        resolver: Resolver::from_sources(needs.names.clone()),
        detection_timeout: config.detection_timeout,
        discovery_timeout: config.discovery_timeout,
        workers: config.workers,
    });
    let (limit, redirected) = (config.max_connections, config.redirected);

    for listener in inbound_listeners {
        let mut closing = needs.drain.clone();
        let serving = inbound.clone();
        listen_on(
            listener,
            inbound.open().clone(),
            limit,
            async move { closing.reached(Phase::Closing).await },
            move |stream, peer, guard| {
                let destination = original(redirected, &stream);
                serving.clone().serve(stream, peer, destination, guard)
            },
        );
    }
    // The application may need others until its very end, so its side is never closed before the process ends.
    for listener in outbound_listeners {
        let (serving, self_test) = (outbound.clone(), needs.self_test);
        listen_on(
            listener,
            outbound.open().clone(),
            limit,
            std::future::pending(),
            move |stream, _, guard| match original(redirected, &stream) {
                Some(destination) if SelfTest::is_meant(destination) => Box::pin(async move {
                    let _open = guard;
                    self_test.answer(stream).await;
                }),
                Some(destination) => serving.clone().serve_redirected(stream, destination, guard),
                None => serving.clone().serve(Io::Tcp(stream), None, guard),
            },
        );
    }
    for (listener, target) in services {
        let serving = outbound.clone();
        listen_on(
            listener,
            outbound.open().clone(),
            limit,
            std::future::pending(),
            move |stream, _, guard| serving.clone().serve(Io::Tcp(stream), Some(target.clone()), guard),
        );
    }

    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            ask = asked.recv() => match ask {
                None => return,
                Some(Ask::Open(reply)) => {
                    let open = Open { inbound: inbound.open().count(), outbound: outbound.open().count() };
                    let _ = reply.send(open);
                }
                Some(Ask::Report(reply)) => {
                    outbound.count();
                    let report = WorkerReport {
                        edges: edges.take(),
                        services: outbound.services(),
                        endpoints: outbound.endpoints(),
                        budgets: outbound.budgets(),
                        loads: outbound.loads(),
                        inbound_connections: inbound.open().count(),
                        outbound_connections: outbound.open().count(),
                        stalls: stalls.take(),
                    };
                    // Nobody waited for it any more: it goes with the next one.
                    if let Err(report) = reply.send(report) {
                        edges.put_back(report.edges);
                    }
                }
            },
            _ = sweep.tick() => {
                inbound.sweep();
                outbound.sweep();
            }
        }
    }
}

/// Has those listen who want to hear of requests, as the mesh and this sidecar's own settings say, and as somebody watches.
async fn hear(
    listeners: Rc<Hearing>,
    (mut mesh, mut watched): (watch::Receiver<Option<Mesh>>, watch::Receiver<Watched>),
    (choice, sink): (Option<Choice>, Arc<Sink>),
    (mut target, queue): (watch::Receiver<Option<Arc<Target>>>, Queue),
    workload: Arc<str>,
) {
    let mut heard = None;
    loop {
        let log = {
            let mesh = mesh.borrow_and_update();
            Choice::in_force(choice, mesh.as_ref().and_then(|mesh| mesh.settings.access_log.as_ref()))
        };
        let sampling = target.borrow_and_update().as_ref().map(|target| target.tracing.sampling);
        let taps = watched.borrow_and_update().clone();
        // Much else changes besides. Taps are others when the list is another.
        let now = (log.clone(), sampling, taps.as_ref().map(|taps| Arc::as_ptr(taps).addr()));
        if heard.as_ref() != Some(&now) {
            listeners.set(Heard {
                log: log.map(|log| AccessLog::new(log, sink.clone())),
                spans: sampling.map(|sampling| Spans { sampling, queue: queue.clone() }),
                watching: taps.map(|taps| Watching { taps, workload: workload.clone() }),
            });
            heard = Some(now);
        }
        let changed = tokio::select! {
            changed = mesh.changed() => changed,
            changed = target.changed() => changed,
            changed = watched.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Where a connection was going before it was redirected here, where that is done at all.
fn original(redirected: bool, stream: &tokio::net::TcpStream) -> Option<std::net::SocketAddr> {
    if !redirected {
        return None;
    }
    Kernel.of(stream).unwrap_or_else(|error| {
        // Its caller is gone again; serving it finds the same.
        tracing::debug!(%error, "no original destination");
        None
    })
}

fn listen_on<H, F>(
    listener: std::net::TcpListener,
    open: listen::Open,
    limit: usize,
    stop: impl Future<Output = ()> + 'static,
    handle: H,
) where
    H: Fn(tokio::net::TcpStream, std::net::SocketAddr, listen::OpenGuard) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    crate::task::start(async move {
        if let Err(error) = listen::accept(listener, open, limit, stop, handle).await {
            tracing::error!(%error, "a listener has failed");
        }
    });
}
