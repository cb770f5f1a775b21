//! The services that this worker calls: followed from the first call, with their endpoints, until they are idle.

mod outside;
mod pick;

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, SystemTime},
};

use fnv::FnvHashMap;
use pillion_api::{
    model::{self, Endpoint, Fallback, Protocol},
    name::ServiceName,
};
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use self::outside::Outside;
use super::{
    Needs,
    attempt::{Budgets, Kind, Quantiles},
    connections::Connections,
    fallback::FellBack,
    fault::Injector,
    reach::{Reach, Timeouts, Way, close_idle},
    routed::Routed,
};
use crate::{
    balance::{Balancer, Here, counts::By},
    control::{self, Mesh, directory::Snapshot},
    error::{Hop, Reason, Refusal},
    middleware::limit::{Limit, Place},
    telemetry::{
        edge::{Edge, EdgeKey},
        names::Metric,
        report::{BudgetStatus, EndpointStatus, LoadStatus},
    },
    tls::connect::Peer,
};

/// Services followed at a time, fewer than a control plane allows a sidecar. More are refused: an application that
/// calls so many names is not calling services.
const MAX_SERVICES: usize = 3072;
/// A service not called for so long is followed no more.
const IDLE: Duration = Duration::from_secs(600);
/// The same for a name that turned out to be no service, such as a host outside.
const ABSENT_IDLE: Duration = Duration::from_secs(30);
/// Connections of one service opened at a time for clients that have not said anything yet.
const MAX_EARLY: u32 = 128;

/// All services of one worker.
#[derive(Debug)]
pub(super) struct Services {
    needs: Needs,
    /// By a hash that is quick for short names; they come from the application itself, and are bounded in number.
    known: RefCell<FnvHashMap<ServiceName, Rc<Service>>>,
}

/// One service as this worker knows it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: ServiceName,
    /// `None`: there is no such service.
    config: RefCell<Option<Arc<model::Service>>>,
    pub(super) balancer: Rc<Balancer<Reach>>,
    /// Faults that its policy has us see.
    faults: RefCell<Option<Rc<Injector>>>,
    /// On requests under way.
    pub(super) requests: Limit,
    /// On requests that wait for a connection.
    pub(super) pending: Limit,
    /// On connections opened for clients that have not said anything yet.
    pub(super) early: Limit,
    /// For requests that reach no endpoint.
    pub(super) edge: Rc<Edge>,
    /// On what is sent beyond the requests themselves.
    pub(super) budgets: Budgets,
    /// How long answers take.
    pub(super) answers: Quantiles,
    timeouts: Rc<Timeouts>,
    connections: Arc<Connections>,
    /// Makes room for connections of other workers, where that is needed.
    making_room: RefCell<Option<Background>>,
    /// What takes over where it cannot serve.
    fallback: RefCell<Option<Arc<Fallback>>>,
    /// How often that happened.
    pub(super) fell_back: FellBack,
    /// Requests by the rule that they took.
    pub(super) routed: Routed,
    mesh: Mesh,
    needs: Needs,
    used: Cell<Instant>,
    follower: RefCell<Option<Background>>,
    /// Of a service outside the mesh.
    outside: RefCell<Option<Outside>>,
}

/// A task that ends with whoever it works for.
#[derive(Debug)]
struct Background(AbortHandle);

impl Background {
    fn start(work: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(work).abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Services {
    pub(super) fn new(needs: Needs) -> Self {
        Self { needs, known: RefCell::default() }
    }

    /// A service, asked for if it is not followed yet.
    ///
    /// # Errors
    /// [`Reason::UnknownService`], [`Reason::DiscoveryTimeout`], [`Reason::NoIdentity`].
    pub(super) async fn get(&self, name: &ServiceName, now: Instant) -> Result<Rc<Service>, Refusal> {
        let known = self.known.borrow().get(name).cloned();
        let service = match known {
            Some(service) => service,
            None => Box::pin(self.follow(name)).await?,
        };
        service.used.set(now);
        if service.config.borrow().is_none() {
            return Err(Refusal::new(Reason::UnknownService, name));
        }
        Ok(service)
    }

    /// Whether a service is followed, and exists.
    pub(super) fn has(&self, name: &ServiceName) -> bool {
        self.known.borrow().get(name).is_some_and(|service| service.config.borrow().is_some())
    }

    /// Makes room: names that are no services are cheap to ask for again.
    fn forget_absent(&self) {
        self.known.borrow_mut().retain(|_, service| service.config.borrow().is_some());
    }

    async fn follow(&self, name: &ServiceName) -> Result<Rc<Service>, Refusal> {
        if self.known.borrow().len() >= MAX_SERVICES {
            self.forget_absent();
        }
        if self.known.borrow().len() >= MAX_SERVICES {
            return Err(Refusal::new(
                Reason::QueueFull,
                format_args!("{MAX_SERVICES} services are followed already"),
            ));
        }
        let mesh = control::mesh(&self.needs.mesh, self.needs.discovery_timeout).await?;
        let snapshots = self.needs.directory.follow(name).await?;
        // Somebody else may have been as quick.
        let mut known = self.known.borrow_mut();
        let service =
            known.entry(name.clone()).or_insert_with(|| Service::new(name, mesh, &self.needs, snapshots));
        Ok(service.clone())
    }

    /// Adds to the registry what the balancers have chosen.
    pub(super) fn count(&self) {
        for service in self.known.borrow().values() {
            service.count();
        }
    }

    pub(super) fn sweep(&self) {
        self.count();
        self.known.borrow_mut().retain(|_, service| {
            let idle = if service.config.borrow().is_some() { IDLE } else { ABSENT_IDLE };
            // Only this worker's: what others have under way is theirs.
            service.used.get().elapsed() < idle || service.balancer.in_flight() > 0
        });
        for service in self.known.borrow().values() {
            for endpoint in service.balancer.endpoints() {
                endpoint.reach().sweep(service.timeouts.idle.get());
            }
        }
    }

    /// Those that exist.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let known = self.known.borrow();
        let present = known.values().filter(|service| service.config.borrow().is_some());
        present.map(|service| service.name.as_str().into()).collect()
    }

    /// What budgets have left, where a policy repeats anything.
    pub(super) fn budgets(&self, now: Instant) -> Vec<BudgetStatus> {
        let known = self.known.borrow();
        let status = |service: &Rc<Service>| {
            let policy = service.balancer.policy();
            let left = |kind, budget| service.budgets.left(kind, budget, now);
            let retries = policy.retry.as_ref().map(|retry| left(Kind::Retry, &retry.budget));
            let hedges = policy.hedge.as_ref().map(|hedge| left(Kind::Hedge, &hedge.budget));
            let any = retries.is_some() || hedges.is_some();
            any.then(|| BudgetStatus { service: service.name.as_str().into(), retries, hedges })
        };
        known.values().filter_map(status).collect()
    }

    /// What there is to each that exists.
    pub(super) fn loads(&self) -> Vec<LoadStatus> {
        let known = self.known.borrow();
        let present = known.values().filter(|service| service.config.borrow().is_some());
        let load = |service: &Rc<Service>| LoadStatus {
            service: service.name.as_str().into(),
            connections: service.connections.open(),
            pending: service.pending.now(),
        };
        present.map(load).collect()
    }

    pub(super) fn endpoints(&self) -> Vec<EndpointStatus> {
        let known = self.known.borrow();
        let (mut all, now) = (Vec::new(), Instant::now());
        for service in known.values() {
            let name: Arc<str> = service.name.as_str().into();
            all.extend(service.balancer.shares(now).iter().map(|(endpoint, share)| {
                let (breaker, opened, opened_reason) = endpoint.breaker();
                let open_for = endpoint.open_until().map(|until| until.saturating_duration_since(now));
                let open_ms = open_for.map_or(0, |left| left.as_millis() as u32);
                EndpointStatus {
                    service: name.clone(),
                    uid: endpoint.uid().into(),
                    workload: endpoint.workload().clone(),
                    address: endpoint.address(),
                    ready: endpoint.is_ready(),
                    breaker,
                    in_flight: endpoint.in_flight(),
                    latency_us: endpoint.latency_us() as u32,
                    opened,
                    opened_reason,
                    open_ms,
                    zone: endpoint.zone().clone(),
                    weight: endpoint.weight(),
                    share: *share as f32,
                }
            }));
        }
        all
    }
}

impl Service {
    fn new(name: &ServiceName, mesh: Mesh, needs: &Needs, mut seen: watch::Receiver<Snapshot>) -> Rc<Self> {
        let policy = Arc::new(model::TrafficPolicy::default());
        let (connections, workers) = (needs.connections.of(name), needs.workers);
        let edge = needs.edges.edge(EdgeKey {
            direction: Hop::Outbound,
            source: mesh.source.clone(),
            target: name.as_str().into(),
            backend: name.as_str().into(),
            workload: "".into(),
            mtls: true,
        });
        let service = Rc::new(Self {
            name: name.clone(),
            config: RefCell::default(),
            faults: RefCell::default(),
            requests: Limit::among(
                workers,
                &connections.requests,
                policy.max_requests,
                Reason::TooManyRequests,
            ),
            pending: Limit::among(workers, &connections.pending, policy.max_pending, Reason::QueueFull),
            early: Limit::new(MAX_EARLY, Reason::QueueFull),
            timeouts: Rc::new(Timeouts {
                connect: Cell::new(policy.connect_timeout),
                idle: Cell::new(policy.idle_timeout),
                queue: Cell::new(policy.queue_timeout),
                most_requests: Cell::default(),
            }),
            balancer: Rc::new(Balancer::new(policy, Here { zone: needs.zone.clone(), seed: rand::random() })),
            edge,
            budgets: Budgets::new(workers, Instant::now()),
            answers: Quantiles::default(),
            connections,
            making_room: RefCell::default(),
            fallback: RefCell::default(),
            fell_back: FellBack::default(),
            routed: Routed::default(),
            mesh,
            needs: needs.clone(),
            used: Cell::new(Instant::now()),
            follower: RefCell::default(),
            outside: RefCell::default(),
        });
        let first = seen.borrow_and_update().clone();
        service.take(first);
        let weak: Weak<Self> = Rc::downgrade(&service);
        *service.follower.borrow_mut() = Some(Background::start(async move {
            while seen.changed().await.is_ok() {
                let Some(service) = weak.upgrade() else { return };
                let snapshot = seen.borrow_and_update().clone();
                service.take(snapshot);
            }
        }));
        service
    }

    fn take(self: &Rc<Self>, snapshot: Snapshot) {
        match snapshot {
            Snapshot::Pending => {}
            Snapshot::Absent => {
                self.count_routed();
                self.config.borrow_mut().take();
                self.faults.borrow_mut().take();
                self.outside.borrow_mut().take();
                self.update(&[]);
            }
            Snapshot::Present(config, endpoints) => {
                self.requests.set(config.policy.max_requests);
                self.pending.set(config.policy.max_pending);
                self.timeouts.connect.set(config.policy.connect_timeout);
                self.timeouts.idle.set(config.policy.idle_timeout);
                self.timeouts.queue.set(config.policy.queue_timeout);
                self.timeouts.most_requests.set(config.policy.max_requests_per_connection);
                self.connections.set(config.policy.max_connections);
                self.make_room(config.policy.max_connections.is_some());
                (*self.fallback.borrow_mut()).clone_from(&config.policy.fallback);
                // What was chosen until now was by the algorithm until now.
                self.count_picks();
                self.balancer.set_policy(Arc::new(config.policy.clone()));
                self.see_faults(&config.policy);
                self.look_outside(config.external.as_deref(), &endpoints);
                let same = self.config.borrow().as_ref().is_some_and(|known| Arc::ptr_eq(known, &config));
                if !same {
                    self.count_routed();
                    self.routed.begin(&config.routes);
                }
                *self.config.borrow_mut() = Some(config);
            }
        }
    }

    /// A connection that this worker keeps idle may be the one that another one waits for.
    fn make_room(&self, bounded: bool) {
        let mut making_room = self.making_room.borrow_mut();
        if !bounded || self.needs.workers == 1 {
            *making_room = None;
        } else if making_room.is_none() {
            let (connections, all) = (self.connections.clone(), Rc::downgrade(&self.balancer));
            *making_room = Some(Background::start(async move {
                loop {
                    connections.wanted().await;
                    let Some(all) = all.upgrade() else { return };
                    close_idle(&all);
                }
            }));
        }
    }

    fn update(&self, endpoints: &[Endpoint]) {
        self.balancer.update(endpoints, |endpoint| Reach {
            service: self.name.clone(),
            workload: endpoint.workload.as_str().into(),
            way: match &endpoint.identity {
                Some(identity) => {
                    let peer = Peer::new(endpoint.address, identity.clone(), self.mesh.identity.clone());
                    Way::Mesh(Rc::new(peer))
                }
                None => Way::Outside(endpoint.address.ip()),
            },
            source: self.mesh.source.clone(),
            timeouts: self.timeouts.clone(),
            connections: self.connections.clone(),
            all: Rc::downgrade(&self.balancer),
            edges: self.needs.edges.clone(),
            registry: self.needs.registry.clone(),
            clients: RefCell::default(),
            known_edges: RefCell::default(),
        });
    }

    fn count_routed(&self) {
        let config = self.config.borrow();
        for (rule, count) in config.iter().flat_map(|config| self.routed.take(&config.routes)) {
            let labels = [self.name.as_str(), &rule.route, &rule.rule];
            self.needs.registry.counter(Metric::RouteRequests, &labels).increment(count);
        }
    }

    fn count(&self) {
        self.count_routed();
        let (panics, spared) = self.balancer.counts().take_breakers();
        for (metric, count) in [(Metric::PanicPicks, panics), (Metric::BreakersSpared, spared)] {
            if count > 0 {
                self.needs.registry.counter(metric, &[self.name.as_str()]).increment(count);
            }
        }
        self.count_picks();
    }

    fn count_picks(&self) {
        for (by, zone, count) in self.balancer.counts().take() {
            let by = match by {
                By::Algorithm => self.balancer.policy().load_balancer.algorithm.name(),
                By::Session => "session",
                By::Name => "address",
            };
            self.needs.registry.counter(Metric::Picks, &[self.name.as_str(), by, zone]).increment(count);
        }
    }

    /// What takes over where it cannot serve.
    pub(super) fn fallback(&self) -> Option<Arc<Fallback>> {
        self.fallback.borrow().clone()
    }

    /// A place among its requests, for one that called another service; who called this one has that already.
    ///
    /// # Errors
    /// [`Reason::TooManyRequests`].
    pub(super) fn place_beside(&self, called: &Self) -> Result<Option<Place>, Refusal> {
        if std::ptr::eq(self, called) {
            return Ok(None);
        }
        self.requests.enter().map(Some).map_err(|refusal| {
            let detail = format_args!("{} of {}", refusal.detail, self.name);
            Refusal::new(refusal.reason, detail)
        })
    }

    /// Whether there is such an endpoint, ready or not.
    pub(super) fn has_endpoint(&self, uid: &str) -> bool {
        self.balancer.has(uid)
    }

    /// Whether it is outside the mesh, where nobody speaks as a sidecar.
    pub(super) fn is_outside(&self) -> bool {
        self.outside.borrow().is_some()
    }

    fn see_faults(&self, policy: &model::TrafficPolicy) {
        let moment = (Instant::now(), SystemTime::now());
        let (target, source) = (self.name.as_str(), &*self.mesh.source);
        let registry = &self.needs.registry;
        let faults = Injector::new(&policy.faults, &policy.source, target, source, moment, registry);
        *self.faults.borrow_mut() = faults.map(Rc::new);
    }

    /// Faults that requests to it are made to see; `None`, nearly always.
    pub(super) fn faults(&self) -> Option<Rc<Injector>> {
        self.faults.borrow().clone()
    }

    /// Its configuration; a request keeps to the one that it began with.
    ///
    /// # Errors
    /// [`Reason::UnknownService`].
    pub(super) fn config(&self) -> Result<Arc<model::Service>, Refusal> {
        self.config.borrow().clone().ok_or_else(|| Refusal::new(Reason::UnknownService, &self.name))
    }

    /// What a port is declared to speak.
    ///
    /// # Errors
    /// [`Reason::UnknownPort`], [`Reason::UnknownService`].
    pub(super) fn protocol(&self, port: u16) -> Result<Protocol, Refusal> {
        let config = self.config()?;
        let known = config.port(port).map(|port| port.protocol);
        known.ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{}:{port}", self.name)))
    }
}
