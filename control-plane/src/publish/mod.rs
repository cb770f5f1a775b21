//! From compiled services to the sidecars that asked for them.
//!
//! [`Publisher`] holds what is compiled now and who subscribes to what. A [`Subscriber`] is one sidecar's side: it
//! remembers which versions it sent and, woken when a service changes, sends what differs from the newest ones. So
//! nothing queues for a slow sidecar: of each service only the latest version is ever pending.

mod compiler;
mod refusals;
mod subscriber;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pillion_api::wire;
use prost::Message;
use tokio::sync::Notify;

pub use self::{
    compiler::Compiler,
    refusals::{Refusal, Refusals},
    subscriber::{MAX_SUBSCRIPTIONS, Subscriber, TooMany},
};
use crate::compile::Compiled;

/// What is compiled now, and who is to be told when it changes.
pub struct Publisher {
    state: Mutex<State>,
    /// What sidecars could not use.
    pub refusals: Refusals,
}

struct State {
    compiled: Arc<Compiled>,
    /// The services that each workload serves, by UID.
    memberships: Arc<BTreeMap<String, Vec<String>>>,
    /// By service: those to wake.
    subscribers: BTreeMap<String, BTreeMap<u64, Arc<Mailbox>>>,
    /// How many each sidecar has, by UID; none is not kept.
    subscriptions: BTreeMap<String, usize>,
    next_subscriber: u64,
    last: LastCompile,
}

/// How the newest compile went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastCompile {
    /// How long it took.
    pub took: Duration,
    /// What it found wrong, in plain words.
    pub faults: Vec<String>,
    /// The store's revision it has seen.
    pub revision: u64,
}

/// The services of one subscriber that may have changed; each is in it at most once.
#[derive(Default)]
struct Mailbox {
    dirty: Mutex<BTreeSet<String>>,
    wake: Notify,
}

impl Mailbox {
    fn mark(&self, service: &str) {
        let mut dirty = lock(&self.dirty);
        if !dirty.contains(service) {
            dirty.insert(service.to_owned());
        }
        drop(dirty);
        self.wake.notify_one();
    }
}

impl Publisher {
    /// With a first compile: a sidecar must never be told "absent" only because the server has just started.
    pub fn new(compiled: Compiled, last: LastCompile) -> Self {
        let memberships = Arc::new(memberships(&compiled));
        let state = State {
            compiled: Arc::new(compiled),
            memberships,
            subscribers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            next_subscriber: 0,
            last,
        };
        Self { state: Mutex::new(state), refusals: Refusals::default() }
    }

    /// Replaces everything and wakes those whose services changed. Gives the number of changed services.
    pub fn publish(&self, compiled: Compiled, last: LastCompile) -> usize {
        let memberships = Arc::new(memberships(&compiled));
        let compiled = Arc::new(compiled);
        let mut state = self.state();
        let before = Arc::clone(&state.compiled);
        let changed: Vec<&String> = compiled
            .keys()
            .chain(before.keys().filter(|name| !compiled.contains_key(*name)))
            .filter(|name| before.get(*name) != compiled.get(*name))
            .collect();
        let woken: Vec<(&String, Vec<Arc<Mailbox>>)> = changed
            .iter()
            .filter_map(|name| Some((*name, state.subscribers.get(*name)?.values().cloned().collect())))
            .collect();
        let count = changed.len();
        // The new state must be in place before anybody is woken to compare with it.
        state.compiled = Arc::clone(&compiled);
        state.memberships = memberships;
        state.last = last;
        drop(state);
        for (service, mailboxes) in woken {
            mailboxes.iter().for_each(|mailbox| mailbox.mark(service));
        }
        count
    }

    /// Every service as it is now.
    pub fn compiled(&self) -> Arc<Compiled> {
        Arc::clone(&self.state().compiled)
    }

    /// The services that each workload serves, by UID, by name: the first is the source of its requests.
    pub fn memberships(&self) -> Arc<BTreeMap<String, Vec<String>>> {
        Arc::clone(&self.state().memberships)
    }

    /// How the newest compile went.
    pub fn last(&self) -> LastCompile {
        self.state().last.clone()
    }

    /// One sidecar's side; it subscribes to nothing yet.
    pub fn subscriber(self: &Arc<Self>, uid: &str) -> Subscriber {
        let mut state = self.state();
        state.next_subscriber += 1;
        Subscriber::new(Arc::clone(self), state.next_subscriber, uid.to_owned())
    }

    /// How many services a sidecar subscribes to.
    pub fn subscriptions_of(&self, uid: &str) -> usize {
        self.state().subscriptions.get(uid).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn memberships(compiled: &Compiled) -> BTreeMap<String, Vec<String>> {
    let mut memberships: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, compiled) in compiled {
        let list = wire::EndpointList::decode(compiled.endpoints.bytes.clone())
            .expect("the compiler encodes what it can decode");
        for endpoint in list.endpoints {
            memberships.entry(endpoint.uid).or_default().push(service.clone());
        }
    }
    // By name alone, as `compile::source_of` does: with its namespace "pay-v1.x" would go before "pay.x".
    let name = |service: &String| service.split('.').next().unwrap_or_default().to_owned();
    memberships.values_mut().for_each(|services| services.sort_by_cached_key(name));
    memberships
}

/// No code panics while it holds one of these locks, and what they guard is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
