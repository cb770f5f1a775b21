//! One sidecar as the control plane sees it: the sidecar's own client, without the rest of the sidecar.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use pillion_api::{
    name::ServiceName,
    wire::{Health, Hello, WorkloadPort},
};
use pillion_certs::{Identity, RenewalStatus};
use pillion_proxy::{
    config::JoinToken,
    control::{
        certify,
        directory::{Directory, Snapshot},
        stream::{Known, Stream},
    },
    drain::{self, Phase, Trigger},
    net::resolve::Resolver,
    telemetry::{gather::Gathered, prometheus::Registry, report::WorkerReport},
};
use tokio::{
    sync::watch,
    task::{AbortHandle, spawn_local},
};

use crate::{
    Error,
    mesh::{NAMESPACE, name},
};

/// For the control plane to answer about a service; it may be busy with thousands of others.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who a sidecar is: its certificate, and what it introduces itself with but for its UID.
#[derive(Clone)]
pub(crate) struct Workload {
    identity: Identity,
    number: usize,
    app: String,
}

impl Workload {
    /// Joins by a token, with a new key: its certificate is signed by the control plane.
    pub(crate) async fn join(
        address: &str,
        token: &str,
        number: usize,
        app: String,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let identity =
            certify::join(address, &Resolver::system(), &JoinToken::Text(token.to_owned()), registry).await?;
        Ok(Self { identity, number, app })
    }

    /// As it says hello the so-manieth time that it starts.
    fn hello(&self, run: usize) -> Hello {
        Hello {
            instance_uid: format!("{}-{}-{run}", self.app, self.number),
            workload: format!("{}-{}", self.app, self.number),
            labels: [("app".to_owned(), self.app.clone())].into(),
            ports: vec![WorkloadPort { port: 8080, name: "http".to_owned() }],
            inbound_address: format!("0.0.0.0:{}", 20_000 + self.number % 40_000),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Hello::default()
        }
    }
}

/// A sidecar with its stream, until dropped.
pub(crate) struct Sidecar {
    workload: Workload,
    run: usize,
    uid: String,
    health: watch::Sender<Health>,
    leaving: Trigger,
    services: Vec<usize>,
    /// In the order of `services`, once [`follow`](Self::follow) is done.
    followed: Vec<watch::Receiver<Snapshot>>,
    directory: Directory,
    stream: AbortHandle,
    gathered: Rc<RefCell<Gathered>>,
    registry: Arc<Registry>,
}

impl Sidecar {
    /// Starts its stream to `address`; it will follow these services.
    pub(crate) fn start(
        address: &str,
        workload: Workload,
        run: usize,
        services: Vec<usize>,
        registry: &Arc<Registry>,
    ) -> Self {
        let hello = workload.hello(run);
        let uid = hello.instance_uid.clone();
        let (health, healthy) = watch::channel(ready(true));
        let (leaving, drain) = drain::channel();
        let (directory, wishes) = Directory::new(PATIENCE);
        let gathered = Rc::new(RefCell::new(Gathered::new(Arc::clone(registry))));
        let stream = Stream {
            address: address.to_owned(),
            resolver: Resolver::system(),
            identity: workload.identity.clone(),
            hello,
            registry: Arc::clone(registry),
            health: healthy,
            drain,
            wishes,
            gathered: Rc::clone(&gathered),
            renewals: watch::channel(RenewalStatus::new(&workload.identity)).1,
            mesh: watch::Sender::new(None),
            policies: watch::Sender::default(),
            known: Known::new(tokio::time::Instant::now()),
        };
        let stream = spawn_local(stream.run()).abort_handle();
        let registry = Arc::clone(registry);
        Self {
            workload,
            run,
            uid,
            health,
            leaving,
            services,
            followed: Vec::new(),
            directory,
            stream,
            gathered,
            registry,
        }
    }

    /// Takes in what a worker of it would have counted; goes to the control plane within a second.
    pub(crate) fn count(&self, report: WorkerReport) {
        self.gathered.borrow_mut().add(vec![report]);
    }

    /// Waits until it knows all of its services.
    pub(crate) async fn follow(&mut self) -> Result<(), Error> {
        let names = self.services.iter().map(|service| ServiceName::new(&name(*service), NAMESPACE));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        self.followed = try_join_all(names.iter().map(|name| self.directory.follow(name))).await?;
        Ok(())
    }

    /// Its `instance_uid`.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// Its application becomes ready or unready.
    pub(crate) fn set_ready(&self, now: bool) {
        self.health.send_replace(ready(now));
    }

    /// Whether its application is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.health.borrow().ready
    }

    /// Says goodbye.
    pub(crate) fn deregister(&self) {
        self.leaving.advance(Phase::Leaving);
    }

    /// As after a restart of its workload: a new stream, under a new UID.
    pub(crate) fn start_again(&mut self, address: &str) {
        let (workload, services) = (self.workload.clone(), std::mem::take(&mut self.services));
        *self = Self::start(address, workload, self.run + 1, services, &self.registry.clone());
    }

    /// What it knows of a service, as its workers see it.
    pub(crate) fn sees(&self, service: usize) -> Option<watch::Receiver<Snapshot>> {
        let index = self.services.iter().position(|followed| *followed == service)?;
        self.followed.get(index).cloned()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stream.abort();
    }
}

fn ready(ready: bool) -> Health {
    let reason = if ready { String::new() } else { "taken out by the bench".to_owned() };
    Health { ready, reason, ..Default::default() }
}
