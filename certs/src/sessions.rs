//! Session resumption that ends when the roots or our own certificate change: what was verified under an old bundle must be
//! verified again, and a session goes on showing the certificate that it began with, beyond that one's end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls_pki_types::ServerName;

/// How many tickets are kept for one endpoint.
const TICKETS: usize = 8;

/// Counts the bundles and credentials that an identity has had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epoch(Arc<AtomicU64>);

impl Epoch {
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A value that is made anew in each epoch, when it is first asked for.
struct PerEpoch<T> {
    epoch: Epoch,
    value: ArcSwap<(u64, T)>,
}

impl<T> PerEpoch<T> {
    fn new(epoch: Epoch, value: T) -> Self {
        let current = epoch.current();
        PerEpoch { epoch, value: ArcSwap::from_pointee((current, value)) }
    }

    fn get(&self, make: impl Fn() -> Option<T>) -> Option<Arc<(u64, T)>> {
        let current = self.epoch.current();
        let held = self.value.load_full();
        if held.0 == current {
            return Some(held);
        }
        // Two threads may both come here; the later one's wins, and the other's sessions are merely forgotten.
        let fresh = Arc::new((current, make()?));
        self.value.store(fresh.clone());
        Some(fresh)
    }
}

/// A server's tickets. Each server configuration has its own: a session without a client certificate, from a port
/// that allows it, must not be resumed at one that doesn't.
pub(crate) struct EpochTickets(PerEpoch<Arc<dyn ProducesTickets>>);

impl EpochTickets {
    pub(crate) fn new(epoch: Epoch) -> Result<Self, rustls::Error> {
        Ok(EpochTickets(PerEpoch::new(epoch, Ticketer::new()?)))
    }
}

impl ProducesTickets for EpochTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.value.load().1.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.get(|| Ticketer::new().ok())?.1.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.get(|| Ticketer::new().ok())?.1.decrypt(cipher)
    }
}

impl fmt::Debug for EpochTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochTickets").finish_non_exhaustive()
    }
}

/// A client's sessions with one endpoint.
pub(crate) struct EpochSessions(PerEpoch<ClientSessionMemoryCache>);

impl EpochSessions {
    pub(crate) fn new(epoch: Epoch) -> Self {
        EpochSessions(PerEpoch::new(epoch, ClientSessionMemoryCache::new(TICKETS)))
    }

    fn current(&self) -> Arc<(u64, ClientSessionMemoryCache)> {
        self.0.get(|| Some(ClientSessionMemoryCache::new(TICKETS))).expect("a cache can always be made")
    }
}

impl ClientSessionStore for EpochSessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.current().1.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.current().1.kx_hint(server_name)
    }

    // The mesh has no TLS 1.2.
    fn set_tls12_session(&self, _server_name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.current().1.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.current().1.take_tls13_ticket(server_name)
    }
}

impl fmt::Debug for EpochSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochSessions").finish_non_exhaustive()
    }
}
