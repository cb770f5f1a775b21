//! One service as this worker knows it: what it is told of it, and what there is to it.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::SystemTime,
};

use pillion_api::{
    model::{self, Endpoint, Fallback, Protocol},
    name::ServiceName,
};
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::outside::Outside;
use crate::{
    balance::{Balancer, Here, counts::By},
    control::{Mesh, directory::Snapshot},
    error::{Hop, Reason, Refusal},
    middleware::limit::{Limit, Place},
    outbound::{
        Needs,
        attempt::{Budgets, Quantiles},
        connections::Connections,
        fallback::FellBack,
        fault::Injector,
        reach::{Reach, Timeouts, Way, close_idle},
        routed::Routed,
    },
    telemetry::{
        edge::{Edge, EdgeKey},
        names::Metric,
    },
    tls::connect::Peer,
};

/// Connections of one service opened at a time for clients that have not said anything yet.
const MAX_EARLY: u32 = 128;

/// One service as this worker knows it.
#[derive(Debug)]
pub(in crate::outbound) struct Service {
    pub(in crate::outbound) name: ServiceName,
    /// `None`: there is no such service.
    pub(super) config: RefCell<Option<Arc<model::Service>>>,
    pub(in crate::outbound) balancer: Rc<Balancer<Reach>>,
    /// Faults that its policy has us see.
    faults: RefCell<Option<Rc<Injector>>>,
    /// On requests under way.
    pub(in crate::outbound) requests: Limit,
    /// On requests that wait for a connection.
    pub(in crate::outbound) pending: Limit,
    /// On connections opened for clients that have not said anything yet.
    pub(in crate::outbound) early: Limit,
    /// For requests that reach no endpoint.
    pub(in crate::outbound) edge: Rc<Edge>,
    /// On what is sent beyond the requests themselves.
    pub(in crate::outbound) budgets: Budgets,
    /// How long answers take.
    pub(in crate::outbound) answers: Quantiles,
    pub(super) timeouts: Rc<Timeouts>,
    pub(super) connections: Arc<Connections>,
    /// Makes room for connections of other workers, where that is needed.
    making_room: RefCell<Option<Background>>,
    /// What takes over where it cannot serve.
    fallback: RefCell<Option<Arc<Fallback>>>,
    /// How often that happened.
    pub(in crate::outbound) fell_back: FellBack,
    /// Requests by the rule that they took.
    pub(in crate::outbound) routed: Routed,
    mesh: Mesh,
    pub(super) needs: Needs,
    pub(super) used: Cell<Instant>,
    follower: RefCell<Option<Background>>,
    /// Of a service outside the mesh.
    pub(super) outside: RefCell<Option<Outside>>,
}

/// A task that ends with whoever it works for.
#[derive(Debug)]
pub(super) struct Background(AbortHandle);

impl Background {
    pub(super) fn start(work: impl Future<Output = ()> + 'static) -> Self {
        Self(crate::task::start(work).abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Service {
    pub(super) fn new(
        name: &ServiceName,
        mesh: Mesh,
        needs: &Needs,
        mut seen: watch::Receiver<Snapshot>,
    ) -> Rc<Self> {
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
                model::MAX_REQUESTS,
                Reason::TooManyRequests,
            ),
            pending: Limit::among(workers, &connections.pending, model::MAX_PENDING, Reason::QueueFull),
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
                let source = &config.policy.source;
                self.requests.set(config.policy.max_requests, "connections.maxRequests", source);
                self.pending.set(config.policy.max_pending, "connections.maxPending", source);
                self.timeouts.connect.set(config.policy.connect_timeout);
                self.timeouts.idle.set(config.policy.idle_timeout);
                self.timeouts.queue.set(config.policy.queue_timeout);
                self.timeouts.most_requests.set(config.policy.max_requests_per_connection);
                self.connections.set(config.policy.max_connections, source);
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

    pub(super) fn update(&self, endpoints: &[Endpoint]) {
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

    pub(super) fn count(&self) {
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
    pub(in crate::outbound) fn fallback(&self) -> Option<Arc<Fallback>> {
        self.fallback.borrow().clone()
    }

    /// A place among its requests, for one that called another service; who called this one has that already.
    ///
    /// # Errors
    /// [`Reason::TooManyRequests`].
    pub(in crate::outbound) fn place_beside(&self, called: &Self) -> Result<Option<Place>, Refusal> {
        if std::ptr::eq(self, called) {
            return Ok(None);
        }
        self.requests.enter().map(Some).map_err(|refusal| {
            let detail = format_args!("{}: {}", self.name, refusal.detail);
            Refusal::new(refusal.reason, detail)
        })
    }

    /// Whether there is such an endpoint, ready or not.
    pub(in crate::outbound) fn has_endpoint(&self, uid: &str) -> bool {
        self.balancer.has(uid)
    }

    /// Whether it is outside the mesh, where nobody speaks as a sidecar.
    pub(in crate::outbound) fn is_outside(&self) -> bool {
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
    pub(in crate::outbound) fn faults(&self) -> Option<Rc<Injector>> {
        self.faults.borrow().clone()
    }

    /// Its configuration; a request keeps to the one that it began with.
    ///
    /// # Errors
    /// [`Reason::UnknownService`].
    pub(in crate::outbound) fn config(&self) -> Result<Arc<model::Service>, Refusal> {
        self.config.borrow().clone().ok_or_else(|| Refusal::new(Reason::UnknownService, &self.name))
    }

    /// What a port is declared to speak.
    ///
    /// # Errors
    /// [`Reason::UnknownPort`], [`Reason::UnknownService`].
    pub(in crate::outbound) fn protocol(&self, port: u16) -> Result<Protocol, Refusal> {
        let config = self.config()?;
        let known = config.port(port).map(|port| port.protocol);
        known.ok_or_else(|| Refusal::new(Reason::UnknownPort, format_args!("{}:{port}", self.name)))
    }
}
