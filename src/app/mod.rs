//! Puts the parts together: listeners, worker threads, and on the main thread everything that is not a connection.

mod listeners;
mod member;
mod memory;
mod process;
mod redirection;
mod shutdown;
mod spans;
mod worker;

use std::{
    cell::RefCell,
    ffi::OsString,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::wire::Health;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::{Instant, MissedTickBehavior},
};

use self::{
    listeners::{Addresses, Listeners},
    member::Member,
    redirection::Redirection,
    worker::Worker,
};
use crate::{
    admin::Admin,
    config::Config,
    control::{directory::Directory, health, own::OwnPolicies},
    dns::Dns,
    drain,
    inbound::policies::Shared,
    net::{nameservers::Sources, resolve::Resolver, self_test::SelfTest},
    otlp::Exporter,
    outbound::connections,
    run::{Application, Endings},
    telemetry::{access_log::Sink, gather::Gathered, names::Metric, prometheus::Registry, tap::Taps, trace},
};

/// Between rounds of asking the workers what they have counted.
const GATHER: Duration = Duration::from_secs(1);
/// A worker that takes longer to report is busy; its numbers come with the next round.
const REPORT: Duration = Duration::from_millis(500);
/// Between settings of a gauge that seldom changes.
const SHOW_AGAIN: Duration = Duration::from_secs(60);
/// For the sidecar to become ready, before its application is not started at all.
const READY: Duration = Duration::from_secs(10);

/// Runs the sidecar until it is told to stop, and has; with an application of its own, where there is a command line for
/// one, until that has ended. Gives the exit code.
///
/// # Errors
/// For people: everything that keeps it from starting.
pub fn run(config: Config, shown_config: String, command: &[OsString]) -> Result<u8, String> {
    memory::keep();
    let access_log = config.access_log_file.as_deref();
    let access_log = Sink::new(access_log).map_err(|error| match access_log {
        Some(path) => format!("access log {}: {error}", path.display()),
        None => format!("access log: {error}"),
    })?;
    let access_log = Arc::new(access_log);
    let listeners = listeners::bind(&config)?;
    let addresses = Addresses::of(&listeners).map_err(|error| error.to_string())?;
    if let Some(path) = &config.addresses_file {
        addresses.write(path).map_err(|error| format!("addresses file {}: {error}", path.display()))?;
    }
    tracing::info!(
        workload = config.workload, inbound = %addresses.inbound, outbound = %addresses.outbound,
        admin = %addresses.admin, version = env!("CARGO_PKG_VERSION"), "listening"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the main thread's runtime: {error}"))?;
    let main = main_thread(config, shown_config, listeners, addresses, access_log.clone(), command);
    let ended = LocalSet::new().block_on(&runtime, main);
    access_log.end();
    ended
}

async fn main_thread(
    config: Config,
    shown_config: String,
    listeners: Listeners,
    addresses: Addresses,
    access_log: Arc<Sink>,
    command: &[OsString],
) -> Result<u8, String> {
    let mut signals = Endings::listen(!command.is_empty()).map_err(|error| format!("signals: {error}"))?;
    let registry = Arc::new(Registry::new());
    let started = SystemTime::now();
    let (trigger, drain) = drain::channel();
    let (mesh_sender, mesh) = watch::channel(None);
    let shared = Arc::new(Shared::default());
    let (policies_sender, policies) = watch::channel(OwnPolicies::default());
    let (directory, wishes) = Directory::new(config.discovery_timeout);
    let (health_sender, health) = watch::channel(Health::default());
    let config = Arc::new(config);
    let self_test = SelfTest::new(&mut rand::rng());

    let names = Sources { own: addresses.dns, ..Sources::default() };

    let taps = Taps::new(registry.clone());
    let (queue, waiting) = trace::queue::queue();
    let (target_sender, target) = watch::channel(None);
    crate::task::start(spans::follow(config.clone(), mesh.clone(), target_sender));
    let sending = spans::Sending::start(|ending| Exporter {
        target: target.clone(),
        waiting,
        ending,
        registry: registry.clone(),
        resolver: Resolver::from_sources(names.clone()),
        own: addresses.all().into(),
    });

    let connections = connections::Shared::default();
    let mut workers = Vec::new();
    for index in 0..config.workers {
        let needs = worker::Needs {
            config: config.clone(),
            mesh: mesh.clone(),
            policies: policies.clone(),
            shared: shared.clone(),
            directory: directory.clone(),
            registry: registry.clone(),
            access_log: access_log.clone(),
            watched: taps.follow(),
            spans: (target.clone(), queue.clone()),
            connections: connections.clone(),
            drain: drain.clone(),
            own: addresses.all().into(),
            self_test,
            names: names.clone(),
        };
        workers.push(Worker::start(index, needs, &listeners)?);
    }
    let redirected = || Redirection::new(self_test, &listeners.outbound, registry.clone());
    let redirection = config.redirected.then(redirected);
    // The workers have their own: with the last of these, a port refuses, instead of keeping callers waiting for nobody.
    drop((listeners.inbound, listeners.outbound, listeners.services));
    if let Some(sockets) = listeners.dns {
        let dns = Dns::new(directory, names.clone(), &registry);
        crate::task::start(async move {
            if let Err(error) = dns.serve(sockets).await {
                tracing::error!(%error, "mesh DNS has failed");
            }
        });
    }

    let gathered = Rc::new(RefCell::new(Gathered::new(registry.clone())));
    let workers = Rc::new(workers);
    let (refresh, refreshes) = mpsc::channel(16);
    let (shut_down, asked) = watch::channel(false);
    let shown = Shown { registry: registry.clone(), shared, access_log, spans: queue, started };
    crate::task::start(gather(workers.clone(), gathered.clone(), shown, refreshes));
    crate::task::start(health::check(
        config.health.clone(),
        config.ports.clone(),
        policies,
        health_sender,
        registry.clone(),
    ));
    crate::task::start(show_health(health.clone(), registry.clone()));
    let (health, unready) = match redirection {
        Some(redirection) => redirection.start(health),
        None => (health, watch::channel(None).1),
    };
    let admin = Rc::new(Admin {
        registry: registry.clone(),
        gathered: gathered.clone(),
        drain: drain.clone(),
        unready: unready.clone(),
        config: shown_config,
        ports: config.ports.clone(),
        refresh,
        shut_down,
    });
    let admin_listener = listeners.admin;
    crate::task::start(async move {
        if let Err(error) = admin.serve(admin_listener).await {
            tracing::error!(%error, "the operators' port has failed");
        }
    });
    let member = Member {
        config: config.clone(),
        inbound: config.advertise.unwrap_or(addresses.inbound),
        admin: addresses.admin,
        registry,
        health,
        drain,
        wishes,
        gathered,
        mesh: mesh_sender,
        policies: policies_sender,
        resolver: Resolver::from_sources(names),
        taps,
    };
    crate::task::start(member.run());

    let application = match command.split_first() {
        None => None,
        Some((name, arguments)) => {
            // Redirected, it needs no telling.
            let proxy = (!config.redirected).then_some(addresses.outbound);
            tokio::select! {
                ready = until_ready(unready) => ready?,
                signal = signals.next() => return Ok(128 | signal.as_raw() as u8),
            }
            match Application::start(name, arguments, proxy) {
                Ok(application) => Some(application),
                Err(error) => {
                    tracing::error!("{error}");
                    return Ok(error.exit_code());
                }
            }
        }
    };
    if let Some(application) = &application {
        tracing::info!(pid = application.pid(), "the application has been started");
    }
    let reasons = shutdown::Reasons { signals, asked };
    let served = shutdown::Served {
        workers: &workers,
        serves: !config.ports.is_empty(),
        application: application.as_ref(),
    };
    let ended = shutdown::run(reasons, trigger, served, config.drain_timeout).await;
    sending.end().await;
    ended
}

/// Waits until what the application says is carried: one that says it before would bypass the mesh.
async fn until_ready(mut unready: watch::Receiver<Option<String>>) -> Result<(), String> {
    if let Some(reason) = unready.borrow().as_deref() {
        tracing::info!(reason, within = ?READY, "the application is started when the sidecar is ready");
    }
    let waited = tokio::time::timeout(READY, unready.wait_for(Option::is_none)).await;
    if matches!(waited, Ok(Ok(_))) {
        return Ok(());
    }
    drop(waited);
    let reason = unready.borrow().clone().unwrap_or_default();
    Err(format!("the application was not started: not ready within {READY:?}: {reason}"))
}

/// What is shown besides what the workers have counted.
struct Shown {
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    access_log: Arc<Sink>,
    spans: trace::queue::Queue,
    started: SystemTime,
}

/// Asks the workers for what they have counted: every second, and whenever somebody wants to see it.
async fn gather(
    workers: Rc<Vec<Worker>>,
    gathered: Rc<RefCell<Gathered>>,
    Shown { registry, shared, access_log, spans, started }: Shown,
    mut refreshes: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut spare = memory::Spare::default();
    let mut tick = tokio::time::interval(GATHER);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => None,
            Some(asked) = refreshes.recv() => Some(asked),
        };
        let reports =
            futures_util::future::join_all(workers.iter().map(|worker| worker.report(REPORT))).await;
        gathered.borrow_mut().add(reports.into_iter().flatten().collect());
        if let Some(resident) = process::measure(&registry, started) {
            spare.look(resident, Instant::now());
        }
        let concurrency = shared.show(&registry);
        gathered.borrow_mut().see(concurrency);
        access_log.show(&registry);
        spans.show(&registry);
        registry.upkeep();
        if let Some(asked) = asked {
            let _ = asked.send(());
        }
    }
}

/// Waits for a change, or until a gauge must be set again, because one that is not set for long is taken for gone.
async fn changed_or_due<T>(watched: &mut watch::Receiver<T>) -> Result<(), watch::error::RecvError> {
    tokio::time::timeout(SHOW_AGAIN, watched.changed()).await.unwrap_or(Ok(()))
}

async fn show_health(mut health: watch::Receiver<Health>, registry: Arc<Registry>) {
    loop {
        let ready = health.borrow_and_update().ready;
        registry.gauge(Metric::AppHealthy, &[]).set(f64::from(u8::from(ready)));
        if changed_or_due(&mut health).await.is_err() {
            return;
        }
    }
}
