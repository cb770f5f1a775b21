//! What holds for each of the workload's ports, as one worker knows it, and the counts that all workers share.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use pillion_api::{
    model::{Concurrency, Protocol, RateLimit, RequestLimits},
    name::ServiceName,
};
use pillion_certs::SpiffeId;
use tokio::{sync::watch, time::Instant};

use crate::{
    control::own::OwnPolicies,
    error::{Reason, Refusal},
    middleware::{
        concurrency::{self, Gate},
        guard::{By, Guard},
        rate::{self, Counts},
    },
    telemetry::{names::Metric, prometheus::Registry, report::ConcurrencyStatus},
};

/// Clients whose connections are told apart; all further ones count as one.
const MAX_CLIENTS: usize = 1024;

/// The service and port of the application that something is counted for.
type Place = (ServiceName, u16);

/// What all workers count together. It outlives changes of policies, so that none of them is a way around a limit.
#[derive(Debug, Default)]
pub struct Shared {
    rates: Mutex<BTreeMap<(Place, String), Arc<Counts>>>,
    gates: Mutex<BTreeMap<Place, Arc<Gate>>>,
    connections: Mutex<BTreeMap<Place, Arc<Connections>>>,
}

fn of<K: Ord, V>(all: &Mutex<BTreeMap<K, Arc<V>>>, key: K, new: impl FnOnce() -> Arc<V>) -> Arc<V> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(key).or_insert_with(new).clone()
}

/// What is in use; the rest is forgotten.
fn used<K: Ord + Clone, V>(all: &Mutex<BTreeMap<K, Arc<V>>>) -> Vec<(K, Arc<V>)> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let used = all.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    all.retain(|_, value| Arc::strong_count(value) > 2);
    used
}

impl Shared {
    /// Shows how things stand. To be called about once a second.
    pub fn show(&self, registry: &Registry) -> Vec<ConcurrencyStatus> {
        for (((service, _), limit), counts) in used(&self.rates) {
            for (client, admitted, limited) in counts.take() {
                for (result, count) in [("admitted", admitted), ("limited", limited)] {
                    if count > 0 {
                        let labels = [service.as_str(), &limit, &client, result];
                        registry.counter(Metric::RateLimitRequests, &labels).increment(count);
                    }
                }
            }
        }
        let mut statuses = Vec::new();
        for ((service, number), gate) in used(&self.gates) {
            let (port, standing) = (number.to_string(), gate.standing());
            let labels = [service.as_str(), &port];
            registry.gauge(Metric::ConcurrencyLimit, &labels).set(standing.limit);
            registry.gauge(Metric::ConcurrencyInFlight, &labels).set(standing.under_way);
            registry.gauge(Metric::ConcurrencyQueued, &labels).set(standing.queued);
            if let Some(rtt) = standing.min_rtt {
                registry.gauge(Metric::ConcurrencyMinRtt, &labels).set(rtt.as_secs_f64());
            }
            for (priority, count) in gate.take_refused() {
                registry
                    .counter(Metric::ConcurrencyShed, &[service.as_str(), &port, priority])
                    .increment(count);
            }
            let concurrency::Standing { limit, under_way, queued, min_rtt } = standing;
            statuses.push(ConcurrencyStatus { service, port: number, limit, under_way, queued, min_rtt });
        }
        drop(used(&self.connections));
        statuses
    }
}

/// Connections that are open, in all and of each client.
#[derive(Debug, Default)]
struct Connections {
    total: Arc<AtomicU32>,
    clients: Mutex<Clients>,
}

type Clients = HashMap<Option<SpiffeId>, Arc<AtomicU32>>;

/// A connection that counts as open until it is dropped.
#[derive(Debug)]
pub(super) struct Connected(Vec<Arc<AtomicU32>>);

impl Drop for Connected {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Connections {
    fn enter(&self, limits: &RequestLimits, identity: Option<&SpiffeId>) -> Result<Connected, Refusal> {
        let mut connected = Connected(Vec::new());
        let mut enter = |count: &Arc<AtomicU32>, most: Option<u32>, whose: &str| {
            let before = count.fetch_add(1, Ordering::Relaxed);
            connected.0.push(count.clone());
            match most {
                Some(most) if before >= most => {
                    Err(Refusal::new(Reason::TooManyConnections, format_args!("{whose} {most}")))
                }
                _ => Ok(()),
            }
        };
        enter(&self.total, limits.max_connections, "of all clients, maxConnections")?;
        // Counted under the lock: what has no connection may be forgotten.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let most = limits.max_connections_per_client;
        enter(client(&mut clients, identity), most, "of this client, maxConnectionsPerClient")?;
        drop(clients);
        Ok(connected)
    }
}

/// A client's count; where there are too many, strangers are counted with those who have not proven who they are.
fn client<'a>(clients: &'a mut Clients, identity: Option<&SpiffeId>) -> &'a Arc<AtomicU32> {
    let known = identity.cloned();
    let known = if clients.contains_key(&known) {
        known
    } else {
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|_, count| count.load(Ordering::Relaxed) > 0);
        }
        known.filter(|_| clients.len() < MAX_CLIENTS)
    };
    clients.entry(known).or_default()
}

/// What holds for one port, if anything does.
#[derive(Debug)]
struct Holds {
    rates: Vec<(Arc<RateLimit>, Arc<Counts>)>,
    concurrency: Option<(Arc<Gate>, Concurrency)>,
    sizes: Option<(RequestLimits, Arc<Connections>)>,
    by: Rc<By>,
}

impl Holds {
    fn find(own: &OwnPolicies, port: u16, called: Option<&ServiceName>, shared: &Shared) -> Option<Self> {
        let now = Instant::now();
        let mut by = By::default();
        let rates = own.part(port, called, |policy| {
            (!policy.rate_limits.is_empty()).then_some((&policy.rate_limits, &policy.source))
        });
        let rates = rates.map(|(service, (limits, source))| {
            by.rates = source.as_str().into();
            let counts = |limit: &RateLimit| {
                let key = ((service.clone(), port), limit.name.clone());
                of(&shared.rates, key, || Arc::new(Counts::new(now)))
            };
            limits.iter().map(|limit| (Arc::new(limit.clone()), counts(limit))).collect::<Vec<_>>()
        });
        let concurrency =
            own.part(port, called, |policy| Some((policy.concurrency.as_ref()?, &policy.source)));
        let concurrency = concurrency.map(|(service, (settings, source))| {
            by.concurrency = source.as_str().into();
            let gate = of(&shared.gates, (service.clone(), port), || Gate::new(settings.clone(), now));
            gate.set(settings, now);
            (gate, settings.clone())
        });
        let sizes = own.part(port, called, |policy| Some((policy.request_limits.as_ref()?, &policy.source)));
        let sizes = sizes.map(|(service, (limits, source))| {
            by.sizes = source.as_str().into();
            (limits.clone(), of(&shared.connections, (service.clone(), port), Arc::default))
        });
        let any = rates.is_some() || concurrency.is_some() || sizes.is_some();
        any.then(|| Self { rates: rates.unwrap_or_default(), concurrency, sizes, by: Rc::new(by) })
    }

    fn guard(&self, identity: Option<&SpiffeId>) -> Guard {
        let rates =
            (!self.rates.is_empty()).then(|| rate::OfClient::new(&self.rates, identity, Instant::now()));
        let concurrency = self.concurrency.as_ref();
        Guard {
            rates,
            sizes: self.sizes.as_ref().map(|(limits, _)| limits.clone()),
            concurrency: concurrency
                .map(|(gate, settings)| concurrency::OfClient::new(gate.clone(), settings, identity)),
            by: self.by.clone(),
        }
    }
}

/// What holds on one way to one port now, and what is spoken there. Kept by the connections that came this way.
#[derive(Debug, Default)]
pub(super) struct Slot(RefCell<Option<Rc<Holds>>>, Cell<Protocol>);

/// A port, and the service that is meant where it is one of ours.
type Way = (u16, Option<ServiceName>);

/// One worker's view of the workload's policies.
#[derive(Debug)]
pub(super) struct Policies {
    known: watch::Receiver<OwnPolicies>,
    shared: Arc<Shared>,
    slots: RefCell<HashMap<Way, Rc<Slot>>>,
}

impl Policies {
    /// Follows what is known.
    pub(super) fn follow(known: watch::Receiver<OwnPolicies>, shared: Arc<Shared>) -> Rc<Self> {
        let policies = Rc::new(Self { known: known.clone(), shared, slots: RefCell::default() });
        let (weak, mut known) = (Rc::downgrade(&policies), known);
        crate::task::start(async move {
            while known.changed().await.is_ok() {
                let Some(policies) = weak.upgrade() else { return };
                known.mark_unchanged();
                policies.refresh();
            }
        });
        policies
    }

    /// What holds for connections to a port whose callers mean this service.
    pub(super) fn slot(&self, port: u16, called: Option<&ServiceName>) -> Rc<Slot> {
        let own = self.known.borrow();
        let called = called.filter(|called| own.serves(port, called));
        let mut slots = self.slots.borrow_mut();
        let key = (port, called.cloned());
        if let Some(slot) = slots.get(&key) {
            return slot.clone();
        }
        // Ports that nobody declares are as many as callers like to try.
        slots.retain(|_, slot| Rc::strong_count(slot) > 1);
        let holds = Holds::find(&own, port, called, &self.shared).map(Rc::new);
        let protocol = Cell::new(own.protocol(port, called));
        slots.entry(key).or_insert(Rc::new(Slot(RefCell::new(holds), protocol))).clone()
    }

    /// Whether a service is one of ours, with that port.
    pub(super) fn serves(&self, port: u16, service: &ServiceName) -> bool {
        self.known.borrow().serves(port, service)
    }

    fn refresh(&self) {
        let own = self.known.borrow();
        for ((port, called), slot) in &*self.slots.borrow() {
            let holds = Holds::find(&own, *port, called.as_ref(), &self.shared).map(Rc::new);
            // What held before goes after what holds now has found its counts.
            slot.1.set(own.protocol(*port, called.as_ref()));
            let before = slot.0.replace(holds);
            drop(before);
        }
    }
}

/// What holds for one connection.
#[derive(Debug)]
pub(super) struct Held {
    slot: Rc<Slot>,
    identity: Option<SpiffeId>,
    guard: RefCell<Option<(Rc<Holds>, Rc<Guard>)>>,
}

impl Held {
    pub(super) fn new(slot: Rc<Slot>, identity: Option<SpiffeId>) -> Self {
        Self { slot, identity, guard: RefCell::default() }
    }

    /// Whether nothing does.
    pub(super) fn is_none(&self) -> bool {
        self.slot.0.borrow().is_none()
    }

    /// What the application is declared to speak there.
    pub(super) fn protocol(&self) -> Protocol {
        self.slot.1.get()
    }

    /// What its requests have to pass.
    pub(super) fn guard(&self) -> Option<Rc<Guard>> {
        let holds = self.slot.0.borrow().clone()?;
        let mut known = self.guard.borrow_mut();
        if let Some((of, guard)) = &*known
            && Rc::ptr_eq(of, &holds)
        {
            return Some(guard.clone());
        }
        let guard = Rc::new(holds.guard(self.identity.as_ref()));
        *known = Some((holds, guard.clone()));
        Some(guard)
    }

    /// Counts the connection as open.
    ///
    /// # Errors
    /// [`Reason::TooManyConnections`].
    pub(super) fn connect(&self) -> Result<Option<Connected>, Refusal> {
        let holds = self.slot.0.borrow();
        let sizes = holds.as_ref().and_then(|holds| Some((holds.sizes.as_ref()?, &holds.by.sizes)));
        let counted = |limits: &RequestLimits| {
            limits.max_connections.is_some() || limits.max_connections_per_client.is_some()
        };
        match sizes {
            Some(((limits, connections), by)) if counted(limits) => {
                let connected = connections.enter(limits, self.identity.as_ref());
                connected.map(Some).map_err(|refusal| refusal.of_policy(by))
            }
            _ => Ok(None),
        }
    }

    /// The same for one that carries bytes, which is a request, too.
    ///
    /// # Errors
    /// [`Reason::TooManyConnections`], [`Reason::RateLimited`].
    pub(super) fn connect_opaque(&self) -> Result<Option<Connected>, Refusal> {
        let connected = self.connect()?;
        if let Some(guard) = self.guard()
            && let Some(rates) = &guard.rates
        {
            let entered = rates.enter_opaque(Instant::now());
            entered.map_err(|refusal| refusal.of_policy(&guard.by.rates))?;
        }
        Ok(connected)
    }

    /// Requests that it may have under way, where a policy says so.
    pub(super) fn max_streams(&self) -> Option<u32> {
        let holds = self.slot.0.borrow();
        holds.as_ref()?.sizes.as_ref()?.0.max_streams_per_connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_all_and_of_each_client() {
        let id =
            |account: &str| format!("spiffe://t/ns/n/sa/{account}").parse::<SpiffeId>().expect("an identity");
        let limits = RequestLimits {
            max_connections: Some(3),
            max_connections_per_client: Some(2),
            ..RequestLimits::default()
        };
        let connections = Connections::default();
        let (web, api) = (id("web"), id("api"));
        let enter = |identity| connections.enter(&limits, Some(identity));
        let held = (enter(&web).expect("one"), enter(&web).expect("two"));
        let refused = enter(&web).expect_err("its third");
        assert_eq!(refused.reason, Reason::TooManyConnections);
        let third = enter(&api).expect("another client");
        assert!(enter(&api).is_err(), "the fourth of all");
        drop(held.0);
        let again = enter(&web).expect("room again");
        drop((again, held.1, third));
        assert_eq!(connections.total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_client_keeps_its_own_count_however_many_others_there_are() {
        let id =
            |number: usize| format!("spiffe://t/ns/n/sa/c{number}").parse::<SpiffeId>().expect("an identity");
        let limits = RequestLimits { max_connections_per_client: Some(1), ..RequestLimits::default() };
        let connections = Connections::default();
        let enter = |number| connections.enter(&limits, Some(&id(number)));
        let mut held: Vec<_> = (0..MAX_CLIENTS).map(|number| enter(number).expect("its first")).collect();
        assert!(enter(0).is_err(), "it has one");
        // Strangers are counted together from here on.
        let stranger = enter(MAX_CLIENTS).expect("the first of all strangers");
        assert!(enter(MAX_CLIENTS + 1).is_err());
        held.remove(0);
        let again = enter(0).expect("it has none");
        drop((stranger, again, held));
        assert!(enter(MAX_CLIENTS + 1).is_ok(), "who has no connection is forgotten");
    }
}
