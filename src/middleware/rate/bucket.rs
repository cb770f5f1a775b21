//! What has been let in by one limit: one number for all, and one for each client.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pillion_api::gcra::{Arrival, Pace};
use pillion_certs::SpiffeId;
use tokio::time::Instant;

/// Clients that one limit tells apart; all further ones share a bucket.
pub(super) const MAX_CLIENTS: usize = 1024;
/// Whose bucket that is.
const OTHER: &str = "other";
/// Everybody who has not proven who it is.
const OUTSIDE: &str = "outside";

/// What one client, or all together, have had.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Since the counts began.
    arrival: Arrival,
    pub(super) admitted: AtomicU64,
    pub(super) limited: AtomicU64,
}

impl Bucket {
    /// Lets one request in, and says for how long from now what has been had is to be paid for; or says how long to wait.
    pub(super) fn take(&self, pace: Pace, now: u64) -> Result<u64, u64> {
        self.arrival.take(pace, now)
    }

    /// A request that was let in here was not let in elsewhere.
    pub(super) fn give_back(&self, pace: Pace) {
        self.arrival.give_back(pace);
    }

    /// Whether it has nothing to remember.
    fn is_full(&self, now: u64) -> bool {
        self.arrival.due() <= now
    }
}

/// What one limit of one port has let in: shared by all threads, and outlives changes of the limit.
#[derive(Debug)]
pub struct Counts {
    pub(super) began: Instant,
    pub(super) total: Bucket,
    clients: Mutex<HashMap<Arc<str>, Arc<Bucket>>>,
}

impl Counts {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, total: Bucket::default(), clients: Mutex::default() }
    }

    /// A client's bucket; that of all others, where there are too many.
    pub(super) fn client(&self, identity: Option<&SpiffeId>, now: u64) -> Arc<Bucket> {
        let name: Arc<str> = match identity {
            Some(identity) => [identity.service_account(), ".", identity.namespace()].concat().into(),
            None => OUTSIDE.into(),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = clients.get(&name) {
            return bucket.clone();
        }
        if clients.len() >= MAX_CLIENTS {
            // Whoever has no connection, and could have a whole burst again, is as good as never seen.
            clients.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        }
        let name = if clients.len() < MAX_CLIENTS { name } else { OTHER.into() };
        clients.entry(name).or_default().clone()
    }

    /// Requests let in and refused since this was asked last, by client.
    pub fn take(&self) -> Vec<(Arc<str>, u64, u64)> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = clients.iter().map(|(name, bucket)| {
            let (admitted, limited) = (&bucket.admitted, &bucket.limited);
            (name.clone(), admitted.swap(0, Ordering::Relaxed), limited.swap(0, Ordering::Relaxed))
        });
        taken.filter(|(_, admitted, limited)| admitted + limited > 0).collect()
    }
}
