//! The workloads that are alive, kept in the store so that a restart of the server does not empty the mesh.
//!
//! [`State`] decides; [`Registry`] holds it, tells the compiler of changes and writes them to the store. A workload's
//! stream going away starts its lease; a stored workload found at start gets a fresh one.

mod state;
mod stored;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pillion_api::wire;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

pub use self::state::{Connection, Member, Presence, Refused, Registered, Room, State, Waiting};
use crate::{
    clock::unix_ms,
    compile::{self, Workload},
    store::{Bucket, Change, Expect, Store, StoreError},
};

/// After a restart sidecars need a moment to come back, however short their lease.
const LEAST_LEASE_AFTER_RESTART: Duration = Duration::from_secs(30);
/// Beyond this no workload can register: memory has a bound.
const CAPACITY: usize = 100_000;
/// How many workloads one identity may have, a namespace's `default` service account for one: a part of all there may be,
/// so that a stolen join token cannot fill the registry.
const MOST_OF_ONE_IDENTITY: usize = 20_000;
/// Between two transactions, each of which waits for the disk: a storm of changes is few of them.
const SAVE_PACE: Duration = Duration::from_millis(20);
/// Between tries to write to a store that fails.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The workloads that are alive.
pub struct Registry {
    state: Mutex<State>,
    /// Counts changes that matter to the compiler.
    changes: watch::Sender<u64>,
    /// UIDs that the compiler has not seen the latest of; each at most once.
    uncompiled: Mutex<BTreeSet<String>>,
    /// UIDs that the store has not seen the latest of; each at most once.
    unsaved: Mutex<BTreeSet<String>>,
    /// Wakes the writer.
    saving: Notify,
    /// Wakes the watcher over leases.
    leases: Notify,
    connections: AtomicU64,
    store: Arc<dyn Store>,
}

impl Registry {
    /// With everybody that an earlier run of the server knew, each with a fresh lease.
    ///
    /// # Errors
    /// When the store cannot be read. A stored workload that cannot be understood is left out with a warning.
    pub async fn load(store: Arc<dyn Store>, lease: Duration) -> Result<Self, StoreError> {
        let mut state = State::new(lease, Room { all: CAPACITY, of_one_identity: MOST_OF_ONE_IDENTITY });
        let expires = Instant::now() + lease.max(LEAST_LEASE_AFTER_RESTART);
        for entry in store.list(Bucket::Workloads).await? {
            match stored::decode(&entry.value) {
                Ok(workload) => state.restore(workload, expires, unix_ms()),
                Err(fault) => warn!(uid = entry.key, fault, "a stored workload is unreadable; left out"),
            }
        }
        let uncompiled = state.members().map(|member| member.uid().to_owned()).collect();
        Ok(Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            uncompiled: Mutex::new(uncompiled),
            unsaved: Mutex::default(),
            saving: Notify::new(),
            leases: Notify::new(),
            connections: AtomicU64::new(0),
            store,
        })
    }

    /// A number for a new stream.
    pub fn connection(&self) -> Connection {
        Connection(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Registers a workload by its stream. The [`Registration`] ends in a lease when dropped.
    ///
    /// # Errors
    /// [`Refused`], when another identity has its UID, or there is no room for it.
    pub fn connect(
        self: &Arc<Self>,
        workload: impl Into<Arc<Workload>>,
    ) -> Result<(Registration, Registered), Refused> {
        let workload = workload.into();
        let connection = self.connection();
        let uid = workload.hello.instance_uid.clone();
        let (registered, waiting) = {
            let mut state = self.state();
            let registered = state.connect(workload, connection, unix_ms())?;
            (registered, state.member(&uid).map(|member| member.waiting.clone()).unwrap_or_default())
        };
        if registered != (Registered::Resumed { changed: false }) {
            self.changed(&uid);
        }
        Ok((Registration { registry: Arc::clone(self), uid, connection, waiting }, registered))
    }

    /// Everybody, by UID.
    pub fn members(&self) -> Vec<Member> {
        self.state().members().cloned().collect()
    }

    /// Whoever has changed since this was asked last, as they are now; at first everybody. For the compiler alone.
    pub fn take_changes(&self) -> Vec<compile::Member> {
        let uids = std::mem::take(&mut *lock(&self.uncompiled));
        let state = self.state();
        let now = |uid: String| {
            let workload = state.member(&uid).map(|member| Arc::clone(&member.workload));
            (uid, workload)
        };
        uids.into_iter().map(now).collect()
    }

    /// One, by UID.
    pub fn member(&self, uid: &str) -> Option<Member> {
        self.state().member(uid).cloned()
    }

    /// How many are registered.
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sees every change that matters to the compiler: who is there, what they serve, how they are.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Ends leases when they are due, for ever, and tells of each.
    pub async fn watch_leases(&self, on_expired: impl Fn(&Member)) {
        loop {
            let next = self.state().next_expiry();
            match next {
                Some(next) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.leases.notified() => continue,
                },
                None => self.leases.notified().await,
            }
            let expired = self.state().expire(Instant::now());
            for member in &expired {
                self.changed(member.uid());
                on_expired(member);
            }
        }
    }

    /// Writes changes to the store as they come, for ever. Many changes become one transaction.
    pub async fn keep_saved(&self) {
        loop {
            self.saving.notified().await;
            while let Err(error) = self.save().await {
                warn!(%error, "workloads could not be stored; trying again");
                sleep(STORE_RETRY).await;
            }
            sleep(SAVE_PACE).await;
        }
    }

    /// Writes what the store has not seen yet.
    ///
    /// # Errors
    /// When the store fails; nothing is forgotten then.
    pub async fn save(&self) -> Result<(), StoreError> {
        let uids = std::mem::take(&mut *lock(&self.unsaved));
        if uids.is_empty() {
            return Ok(());
        }
        let changes = {
            let state = self.state();
            let change = |uid: &String| Change {
                bucket: Bucket::Workloads,
                key: uid.clone(),
                value: state.member(uid).map(|member| stored::encode(&member.workload)),
                expect: Expect::Any,
            };
            uids.iter().map(change).collect()
        };
        let saved = self.store.commit(changes).await;
        if saved.is_err() {
            lock(&self.unsaved).extend(uids);
        }
        saved.map(drop)
    }

    fn changed(&self, uid: &str) {
        lock(&self.uncompiled).insert(uid.to_owned());
        lock(&self.unsaved).insert(uid.to_owned());
        self.saving.notify_one();
        self.changes.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A workload's place in the registry for as long as its stream lives; dropping it starts the lease.
pub struct Registration {
    registry: Arc<Registry>,
    uid: String,
    connection: Connection,
    waiting: Waiting,
}

impl Registration {
    /// The sidecar's answer to an update is waited for, or is not any more.
    pub fn waits(&self, waits: bool) {
        if waits != self.waiting.since_ms().is_some() {
            self.waiting.set(waits.then(unix_ms));
        }
    }

    /// The workload's UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// A new report of health; tells whether it differs from the one before.
    pub fn report(&self, health: wire::Health) -> bool {
        let changed = self.registry.state().report(&self.uid, self.connection, health);
        if changed {
            self.registry.changed(&self.uid);
        }
        changed
    }

    /// Whether a newer stream has taken this one's place.
    pub fn superseded(&self) -> bool {
        let state = self.registry.state();
        state.member(&self.uid).is_none_or(|member| member.presence != Presence::Connected(self.connection))
    }

    /// Ends the registration at once; tells whether it was still ours to end.
    pub fn deregister(&self) -> bool {
        let gone = self.registry.state().deregister(&self.uid, self.connection).is_some();
        if gone {
            self.registry.changed(&self.uid);
        }
        gone
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.state().disconnect(&self.uid, self.connection, Instant::now(), unix_ms());
        self.registry.leases.notify_one();
    }
}

/// No code panics while it holds one of these locks, and what they guard is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{state::tests::workload, *};
    use crate::store::embedded::EmbeddedStore;

    const LEASE: Duration = Duration::from_secs(10);

    async fn registry(folder: &std::path::Path) -> (Arc<dyn Store>, Arc<Registry>) {
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder).expect("a store"));
        let registry = Registry::load(Arc::clone(&store), LEASE).await.expect("loaded");
        (store, Arc::new(registry))
    }

    /// Who leaves within `span`, with the clock moving by itself while nothing else happens.
    async fn leavers(registry: &Registry, span: Duration) -> Vec<String> {
        let left = Mutex::new(Vec::new());
        let watching = registry.watch_leases(|member| lock(&left).push(member.uid().to_owned()));
        assert!(tokio::time::timeout(span, watching).await.is_err(), "watching has no end");
        left.into_inner().expect("nobody panicked")
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_workload_leaves_after_its_lease_and_its_return_stops_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_store, registry) = registry(folder.path()).await;
        let (gone, _) = registry.connect(workload("gone", true)).expect("room");
        let (back, _) = registry.connect(workload("back", true)).expect("room");
        drop((gone, back));
        assert!(leavers(&registry, LEASE / 2).await.is_empty());
        let (_back, registered) = registry.connect(workload("back", true)).expect("room");
        assert_eq!(registered, Registered::Resumed { changed: false });
        assert_eq!(leavers(&registry, LEASE).await, ["gone"]);
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_stored_is_back_after_a_restart_with_a_fresh_lease() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, first) = registry(folder.path()).await;
        let (kept, _) = first.connect(workload("kept", false)).expect("room");
        let (left, _) = first.connect(workload("left", true)).expect("room");
        first.save().await.expect("saved");
        kept.report(wire::Health { ready: true, ..Default::default() });
        left.deregister();
        first.save().await.expect("saved");
        drop((kept, left, first, store));

        let (_store, second) = registry(folder.path()).await;
        let members = second.members();
        assert_eq!(members.iter().map(Member::uid).collect::<Vec<_>>(), ["kept"]);
        assert!(members[0].health().ready && !members[0].connected());
        let fresh = LEAST_LEASE_AFTER_RESTART;
        assert!(leavers(&second, fresh - Duration::from_secs(1)).await.is_empty());
        assert_eq!(leavers(&second, Duration::from_secs(2)).await, ["kept"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_compiler_gets_everybody_first_and_then_only_who_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, first) = registry(folder.path()).await;
        let connected = ["a", "b"].map(|uid| first.connect(workload(uid, true)).expect("room").0);
        first.save().await.expect("saved");
        drop((connected, first, store));

        let (_store, registry) = registry(folder.path()).await;
        let uids = |registry: &Registry| -> Vec<(String, bool)> {
            registry.take_changes().into_iter().map(|(uid, workload)| (uid, workload.is_some())).collect()
        };
        let of = |uid: &str, there| (uid.to_owned(), there);
        assert_eq!(uids(&registry), [of("a", true), of("b", true)]);
        let (a, _) = registry.connect(workload("a", true)).expect("room");
        let (b, _) = registry.connect(workload("b", true)).expect("room");
        assert_eq!(uids(&registry), [], "they came back as they were");
        a.report(wire::Health { ready: false, ..Default::default() });
        a.report(wire::Health { ready: true, ..Default::default() });
        b.deregister();
        assert_eq!(uids(&registry), [of("a", true), of("b", false)]);
        assert_eq!(uids(&registry), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_changes_is_few_transactions() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, registry) = registry(folder.path()).await;
        let mut revisions = store.revisions(Bucket::Workloads);
        let storm = async {
            for number in 0..20 {
                let (_registration, _) = registry.connect(workload(&number.to_string(), true)).expect("room");
                sleep(SAVE_PACE / 10).await;
            }
            let all = async {
                while store.list(Bucket::Workloads).await.expect("readable").len() < 20 {
                    revisions.changed().await.expect("the store is there");
                }
            };
            tokio::time::timeout(SAVE_PACE * 4, all).await.expect("the last is stored, too");
        };
        tokio::select! {
            () = registry.keep_saved() => unreachable!("it has no end"),
            () = storm => {}
        }
        let transactions = *store.revisions(Bucket::Workloads).borrow();
        assert!((2..=5).contains(&transactions), "{transactions}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_news_is_neither_stored_nor_compiled() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, registry) = registry(folder.path()).await;
        let (registration, _) = registry.connect(workload("a", true)).expect("room");
        registry.save().await.expect("saved");
        let (revision, changes) =
            (*store.revisions(Bucket::Workloads).borrow(), *registry.changes().borrow());
        assert!(!registration.report(wire::Health { ready: true, ..Default::default() }));
        drop(registration);
        let (_registration, _) = registry.connect(workload("a", true)).expect("room");
        registry.save().await.expect("saved");
        assert_eq!(
            (*store.revisions(Bucket::Workloads).borrow(), *registry.changes().borrow()),
            (revision, changes)
        );
    }
}
