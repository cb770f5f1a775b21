//! Puts the parts together: listeners, worker threads, and on the main thread everything that is not a connection.

mod memory;
mod process;
mod redirection;
mod shutdown;
mod worker;

use std::{
    cell::RefCell,
    ffi::OsString,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_api::wire::{Health, Hello, WorkloadPort};
use pillion_certs::{Identity, RenewalStatus, rotate::keep_fresh};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::{Instant, MissedTickBehavior},
};

use self::{redirection::Redirection, worker::Worker};
use crate::{
    admin::Admin,
    config::{Config, JoinToken},
    control::{
        Mesh, certify,
        directory::{Directory, Wish},
        health,
        stream::Stream,
    },
    dns::{Dns, Sockets},
    drain::{self, Drain},
    net::{listen, nameservers::Sources, resolve::Resolver, self_test::SelfTest},
    run::{Application, Endings},
    telemetry::{gather::Gathered, names::Metric, prometheus::Registry},
};

/// Between rounds of asking the workers what they have counted.
const GATHER: Duration = Duration::from_secs(1);
/// A worker that takes longer to report is busy; its numbers come with the next round.
const REPORT: Duration = Duration::from_millis(500);
/// Between settings of a gauge that seldom changes.
const SHOW_AGAIN: Duration = Duration::from_secs(60);
/// Between tries for a first certificate: the first, and the longest.
const JOIN_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// For the sidecar to become ready, before its application is not started at all.
const READY: Duration = Duration::from_secs(10);

/// The sockets of one sidecar, bound.
struct Listeners {
    /// Where it is redirected to, in both IP versions, the one of the settings first.
    inbound: Vec<StdListener>,
    /// Likewise.
    outbound: Vec<StdListener>,
    admin: StdListener,
    dns: Option<Sockets>,
    services: Vec<(StdListener, crate::outbound::Target)>,
}

/// Runs the sidecar until it is told to stop, and has; with an application of its own, where there is a command line for
/// one, until that has ended. Gives the exit code.
///
/// # Errors
/// For people: everything that keeps it from starting.
pub fn run(config: Config, shown_config: String, command: &[OsString]) -> Result<u8, String> {
    memory::keep();
    let listeners = bind(&config)?;
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
    LocalSet::new().block_on(&runtime, main_thread(config, shown_config, listeners, addresses, command))
}

async fn main_thread(
    config: Config,
    shown_config: String,
    listeners: Listeners,
    addresses: Addresses,
    command: &[OsString],
) -> Result<u8, String> {
    let mut signals = Endings::listen(!command.is_empty()).map_err(|error| format!("signals: {error}"))?;
    let registry = Arc::new(Registry::new());
    let started = SystemTime::now();
    let (trigger, drain) = drain::channel();
    let (mesh_sender, mesh) = watch::channel(None);
    let (directory, wishes) = Directory::new(config.discovery_timeout);
    let (health_sender, health) = watch::channel(Health { ready: false, reason: String::new() });
    let config = Arc::new(config);
    let self_test = SelfTest::new(&mut rand::rng());

    let names = Sources { own: addresses.dns, ..Sources::default() };

    let mut workers = Vec::new();
    for index in 0..config.workers {
        let needs = worker::Needs {
            config: config.clone(),
            mesh: mesh.clone(),
            directory: directory.clone(),
            registry: registry.clone(),
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
        tokio::task::spawn_local(async move {
            if let Err(error) = dns.serve(sockets).await {
                tracing::error!(%error, "mesh DNS has failed");
            }
        });
    }

    let gathered = Rc::new(RefCell::new(Gathered::new(registry.clone())));
    let workers = Rc::new(workers);
    let (refresh, refreshes) = mpsc::channel(16);
    let (shut_down, asked) = watch::channel(false);
    tokio::task::spawn_local(gather(workers.clone(), gathered.clone(), registry.clone(), started, refreshes));
    tokio::task::spawn_local(health::check(config.health.clone(), health_sender));
    tokio::task::spawn_local(show_health(health.clone(), registry.clone()));
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
    tokio::task::spawn_local(async move {
        if let Err(error) = admin.serve(admin_listener).await {
            tracing::error!(%error, "the operators' port has failed");
        }
    });
    let member = Member {
        config: config.clone(),
        inbound: config.advertise.unwrap_or(addresses.inbound),
        registry,
        health,
        drain,
        wishes,
        gathered,
        mesh: mesh_sender,
        resolver: Resolver::from_sources(names),
    };
    tokio::task::spawn_local(member.run());

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
    shutdown::run(reasons, trigger, served, config.drain_timeout).await
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

/// Binds every listener; reports every one that cannot be.
fn bind(config: &Config) -> Result<Listeners, String> {
    let mut faults = Vec::new();
    let redirected = |address| match config.redirected {
        true => listen::bind_both(address),
        false => listen::bind(address).map(|listener| vec![listener]),
    };
    let inbound = config.inbound_listen;
    let inbound = noted(&mut faults, "inboundListen", inbound, redirected(inbound));
    let outbound = config.outbound_listen;
    let outbound = noted(&mut faults, "outboundListen", outbound, redirected(outbound));
    let admin = noted(&mut faults, "adminListen", config.admin_listen, listen::bind(config.admin_listen));
    let mut services = Vec::new();
    for listener in &config.listeners {
        let target = crate::outbound::Target::new(listener.service.clone(), listener.port);
        let socket = noted(&mut faults, "listeners", listener.listen, listen::bind(listener.listen));
        services.extend(socket.map(|socket| (socket, target)));
    }
    let dns = config
        .dns_listen
        .and_then(|address| noted(&mut faults, "dnsListen", address, Sockets::bind(address)));
    match (inbound, outbound, admin) {
        (Some(inbound), Some(outbound), Some(admin)) if faults.is_empty() => {
            Ok(Listeners { inbound, outbound, admin, dns, services })
        }
        _ => Err(faults.join("\n")),
    }
}

fn noted<T>(
    faults: &mut Vec<String>,
    what: &str,
    address: SocketAddr,
    bound: std::io::Result<T>,
) -> Option<T> {
    bound.map_err(|error| faults.push(format!("{what} {address}: {error}"))).ok()
}

/// The addresses listened on, for programs that let the system choose the ports.
#[derive(Debug, serde::Serialize)]
struct Addresses {
    inbound: SocketAddr,
    outbound: SocketAddr,
    admin: SocketAddr,
    /// Of inbound and outbound, the other IP version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    twins: Vec<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<SocketAddr>,
    /// By `service:port`.
    listeners: std::collections::BTreeMap<String, SocketAddr>,
}

impl Addresses {
    fn of(listeners: &Listeners) -> std::io::Result<Self> {
        let mut services = std::collections::BTreeMap::new();
        for (socket, target) in &listeners.services {
            services.insert(format!("{}:{}", target.service, target.port), socket.local_addr()?);
        }
        let of = |sockets: &[StdListener]| -> std::io::Result<Vec<SocketAddr>> {
            sockets.iter().map(StdListener::local_addr).collect()
        };
        let (mut inbound, mut outbound) = (of(&listeners.inbound)?, of(&listeners.outbound)?);
        Ok(Self {
            inbound: inbound.remove(0),
            outbound: outbound.remove(0),
            twins: [inbound, outbound].concat(),
            admin: listeners.admin.local_addr()?,
            dns: listeners.dns.as_ref().map(Sockets::address).transpose()?,
            listeners: services,
        })
    }

    fn all(&self) -> Vec<SocketAddr> {
        [self.inbound, self.outbound, self.admin]
            .into_iter()
            .chain(self.twins.iter().copied())
            .chain(self.dns)
            .chain(self.listeners.values().copied())
            .collect()
    }

    /// Whole or not at all: whoever waits for the file must not read half of it.
    fn write(&self, path: &std::path::Path) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        let draft = path.with_extension("draft");
        std::fs::write(&draft, json)?;
        std::fs::rename(draft, path)
    }
}

/// Asks the workers for what they have counted: every second, and whenever somebody wants to see it.
async fn gather(
    workers: Rc<Vec<Worker>>,
    gathered: Rc<RefCell<Gathered>>,
    registry: Arc<Registry>,
    started: SystemTime,
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

/// This workload as a member of the mesh: certified, kept so, and on the control plane's stream.
struct Member {
    config: Arc<Config>,
    inbound: SocketAddr,
    registry: Arc<Registry>,
    health: watch::Receiver<Health>,
    drain: Drain,
    wishes: mpsc::Receiver<Wish>,
    gathered: Rc<RefCell<Gathered>>,
    mesh: watch::Sender<Option<Mesh>>,
    resolver: Resolver,
}

impl Member {
    async fn run(self) {
        let address = self.config.control_plane.clone();
        let identity = join(&address, &self.resolver, &self.config.join_token, &self.registry).await;
        tracing::info!(identity = %identity.spiffe_id(), "certified");
        let (status, renewals) = watch::channel(RenewalStatus::new(&identity));
        tokio::task::spawn_local(show_certificate(identity.clone(), renewals.clone(), self.registry.clone()));
        let issue = {
            let renewal = certify::Renewal {
                address: address.clone(),
                resolver: self.resolver.clone(),
                identity: identity.clone(),
                join_token: self.config.join_token.clone(),
                registry: self.registry.clone(),
            };
            move |csr| renewal.clone().issue(csr)
        };
        let rng = SmallRng::from_os_rng();
        tokio::task::spawn_local(keep_fresh(identity.clone(), issue, status, rng));
        let hello = self.hello();
        let stream = Stream {
            address,
            resolver: self.resolver,
            identity,
            hello,
            registry: self.registry,
            health: self.health,
            drain: self.drain,
            wishes: self.wishes,
            gathered: self.gathered,
            renewals,
            mesh: self.mesh,
        };
        stream.run().await;
    }

    fn hello(&self) -> Hello {
        let config = &self.config;
        Hello {
            // Unique for this run: a workload that restarts is another one, which shares nothing with the old.
            instance_uid: format!("{}-{:012x}", config.workload, rand::rng().random::<u64>() >> 16),
            workload: config.workload.clone(),
            labels: config.labels.clone().into_iter().collect(),
            ports: (config.ports.iter())
                .map(|port| WorkloadPort { port: port.port.into(), name: port.name.clone() })
                .collect(),
            inbound_address: self.inbound.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            zone: config.zone.clone(),
            health: None,
        }
    }
}

/// Tries for the first certificate until there is one.
async fn join(address: &str, resolver: &Resolver, token: &JoinToken, registry: &Registry) -> Identity {
    let mut wait = JOIN_BACKOFF.0;
    loop {
        match certify::join(address, resolver, token, registry).await {
            Ok(identity) => return identity,
            Err(error) => {
                let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.5));
                tracing::error!(error, retry_in = ?jittered, "no certificate yet");
                tokio::time::sleep(jittered).await;
                wait = (wait * 2).min(JOIN_BACKOFF.1);
            }
        }
    }
}

async fn show_certificate(
    identity: Identity,
    mut renewals: watch::Receiver<RenewalStatus>,
    registry: Arc<Registry>,
) {
    let (mut renewed, mut failed) = (0, 0);
    loop {
        let status = renewals.borrow_and_update().clone();
        let expiry = identity.not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        registry.gauge(Metric::CertificateExpiry, &[]).set(expiry.as_secs_f64());
        registry.counter(Metric::CertificateRenewals, &["ok"]).increment(status.renewed - renewed);
        registry.counter(Metric::CertificateRenewals, &["failed"]).increment(status.failures - failed);
        if status.renewed > renewed {
            tracing::info!("certificate renewed");
        }
        (renewed, failed) = (status.renewed, status.failures);
        if changed_or_due(&mut renewals).await.is_err() {
            return;
        }
    }
}
