//! From compiled services to the sidecars that asked for them.
//!
//! [`Publisher`] holds what is compiled now and who subscribes to what. A [`Subscriber`] is one sidecar's side: it
//! remembers which versions it sent and, woken when a service changes, sends what differs from the newest ones. So
//! nothing queues for a slow sidecar: of each service only the latest version is ever pending. A change costs its service
//! and that service's subscribers; nobody else is looked at.

mod compiler;
mod destinations;
mod refusals;
mod subscriber;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pillion_api::wire::{self, Resolve, Resolved};
use tokio::sync::{Notify, watch};

use self::destinations::Destinations;
pub use self::{
    compiler::Compiler,
    refusals::{Refusal, Refusals},
    subscriber::{MAX_SUBSCRIPTIONS, Subscriber, TooMany},
};
use crate::compile::{Changed, Compiled, CompiledService, Name};

/// The services that each workload serves, by UID; the first is the source of its requests.
pub type Memberships = BTreeMap<String, Arc<[Name]>>;

/// What is compiled now, and who is to be told when it changes.
pub struct Publisher {
    state: Mutex<State>,
    /// The revision of the store's documents that sidecars are told of.
    revision: watch::Sender<u64>,
    /// What holds for the whole mesh.
    settings: watch::Sender<wire::MeshSettings>,
    /// What sidecars could not use.
    pub refusals: Refusals,
}

#[derive(Default)]
struct State {
    /// Changed in place, unless somebody looks at it at this moment.
    compiled: Arc<Compiled>,
    /// The same.
    memberships: Arc<Memberships>,
    /// What leads to what is compiled.
    destinations: Destinations,
    /// By service: those to wake.
    subscribers: BTreeMap<Name, BTreeMap<u64, Arc<Mailbox>>>,
    /// By workload's UID: its newest stream, to be woken when it belongs to other services.
    mailboxes: BTreeMap<String, Arc<Mailbox>>,
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
    /// The revision of the store's documents that it has seen.
    pub revision: u64,
}

/// The services of one subscriber that may have changed; each is in it at most once.
#[derive(Default)]
struct Mailbox {
    dirty: Mutex<BTreeSet<Name>>,
    /// The workload itself belongs to other services than before.
    moved: AtomicBool,
    wake: Notify,
}

impl Mailbox {
    fn mark(&self, service: &Name) {
        lock(&self.dirty).insert(Name::clone(service));
        self.wake.notify_one();
    }

    fn moved(&self) {
        self.moved.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

impl Publisher {
    /// With a first compile: a sidecar must never be told "absent" only because the server has just started.
    pub fn new(everything: Changed, last: LastCompile) -> Self {
        let publisher = Self {
            state: Mutex::default(),
            revision: watch::Sender::new(0),
            settings: watch::Sender::default(),
            refusals: Refusals::default(),
        };
        publisher.publish(everything, last);
        publisher
    }

    /// Takes in what has changed, and wakes those who subscribe to it. Gives the number of changed services.
    pub fn publish(&self, changed: Changed, last: LastCompile) -> usize {
        let Changed { services, memberships, locations, settings } = changed;
        let count = services.len();
        let mut woken: Vec<(Name, Vec<Arc<Mailbox>>)> = Vec::new();
        let mut guard = self.state();
        let state = &mut *guard;
        let compiled = Arc::make_mut(&mut state.compiled);
        for (name, service) in services {
            if let Some(subscribers) = state.subscribers.get(&name) {
                woken.push((Name::clone(&name), subscribers.values().cloned().collect()));
            }
            let reach = service.as_ref().map(|service| Arc::clone(&service.reach));
            let before = match service {
                Some(service) => compiled.insert(Name::clone(&name), service),
                None => compiled.remove(&name),
            };
            state.destinations.service(
                &name,
                before.as_ref().map(|service| &*service.reach),
                reach.as_deref(),
            );
        }
        for (uid, location) in locations {
            state.destinations.workload(uid, location);
        }
        let mut moved: Vec<Arc<Mailbox>> = Vec::new();
        if !memberships.is_empty() {
            let members = memberships.iter();
            moved.extend(members.filter_map(|(uid, _)| state.mailboxes.get(uid).cloned()));
            let known = Arc::make_mut(&mut state.memberships);
            for (uid, services) in memberships {
                if services.is_empty() {
                    known.remove(&uid);
                } else {
                    known.insert(uid, services);
                }
            }
        }
        let revision = last.revision;
        state.last = last;
        // What is new must be in place before anybody is woken to compare with it.
        drop(guard);
        if let Some(settings) = settings {
            self.settings.send_if_modified(|known| {
                let changed = *known != settings;
                *known = settings;
                changed
            });
        }
        for (service, mailboxes) in woken {
            mailboxes.iter().for_each(|mailbox| mailbox.mark(&service));
        }
        moved.iter().for_each(|mailbox| mailbox.moved());
        self.revision.send_replace(revision);
        count
    }

    /// Nothing that sidecars are told has changed with this revision of the store's documents.
    fn seen(&self, revision: u64) {
        self.revision.send_replace(revision);
    }

    /// Follows the revision of the store's documents that sidecars are told of.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Follows what holds for the whole mesh.
    pub fn settings(&self) -> watch::Receiver<wire::MeshSettings> {
        self.settings.subscribe()
    }

    /// What a destination is to a sidecar of a namespace, as compiled last. It costs the same however many services and
    /// workloads there are.
    pub fn resolve(&self, question: Resolve, namespace: &str) -> Resolved {
        let state = self.state();
        state.destinations.resolve(question, namespace, &state.compiled, &state.memberships)
    }

    /// Every service as it is now. To be dropped soon: a change that comes meanwhile copies the list.
    pub fn compiled(&self) -> Arc<Compiled> {
        Arc::clone(&self.state().compiled)
    }

    /// One service as it is now.
    pub fn service(&self, name: &str) -> Option<Arc<CompiledService>> {
        self.state().compiled.get(name).cloned()
    }

    /// Who serves what. To be dropped soon, as [`compiled`](Self::compiled).
    pub fn memberships(&self) -> Arc<Memberships> {
        Arc::clone(&self.state().memberships)
    }

    /// The services that one workload serves.
    pub fn services_of(&self, uid: &str) -> Arc<[Name]> {
        self.state().memberships.get(uid).cloned().unwrap_or_default()
    }

    /// How the newest compile went.
    pub fn last(&self) -> LastCompile {
        self.state().last.clone()
    }

    /// One sidecar's side; it subscribes to nothing yet.
    pub fn subscriber(self: &Arc<Self>, uid: &str) -> Subscriber {
        let mut state = self.state();
        state.next_subscriber += 1;
        let subscriber = Subscriber::new(Arc::clone(self), state.next_subscriber, uid.to_owned());
        state.mailboxes.insert(uid.to_owned(), Arc::clone(subscriber.mailbox()));
        subscriber
    }

    /// How many services a sidecar subscribes to.
    pub fn subscriptions_of(&self, uid: &str) -> usize {
        self.state().subscriptions.get(uid).copied().unwrap_or_default()
    }

    /// Those services, by name. It looks through all that anybody subscribes to.
    pub fn subscribed(&self, uid: &str) -> Vec<Name> {
        let state = self.state();
        let Some(mailbox) = state.mailboxes.get(uid) else { return Vec::new() };
        let of_it = |mailboxes: &BTreeMap<u64, Arc<Mailbox>>| {
            mailboxes.values().any(|other| Arc::ptr_eq(other, mailbox))
        };
        state.subscribers.iter().filter(|(_, of)| of_it(of)).map(|(name, _)| Name::clone(name)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// The one text of a service's name, so that not every subscriber keeps its own.
    fn name(&self, service: &str) -> Name {
        let compiled = self.compiled.get_key_value(service).map(|(name, _)| name);
        let name = compiled.or_else(|| self.subscribers.get_key_value(service).map(|(name, _)| name));
        name.cloned().unwrap_or_else(|| service.into())
    }
}

/// No code panics while it holds one of these locks, and what they guard is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
