//! The services that this worker calls: followed from the first call, with their endpoints, until they are idle.

mod outside;
mod pick;
mod service;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use fnv::FnvHashMap;
use pillion_api::name::ServiceName;
use tokio::time::Instant;

pub(super) use self::service::Service;
use super::{Needs, attempt::Kind};
use crate::{
    control,
    error::{Reason, Refusal},
    telemetry::report::{BudgetStatus, EndpointStatus, LoadStatus},
};

/// Services followed at a time, fewer than a control plane allows a sidecar. More are refused: an application that
/// calls so many names is not calling services.
const MAX_SERVICES: usize = 3072;
/// A service not called for so long is followed no more.
const IDLE: Duration = Duration::from_secs(600);
/// The same for a name that turned out to be no service, such as a host outside.
const ABSENT_IDLE: Duration = Duration::from_secs(30);
/// All services of one worker.
#[derive(Debug)]
pub(super) struct Services {
    needs: Needs,
    /// By a hash that is quick for short names; they come from the application itself, and are bounded in number.
    known: RefCell<FnvHashMap<ServiceName, Rc<Service>>>,
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
            // A called service whose routes lead elsewhere has nothing at its own endpoints, but places of its limit are held:
            // one that began anew would count them no more.
            let busy = service.balancer.in_flight() > 0 || service.requests.now() > 0;
            service.used.get().elapsed() < idle || busy
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
