//! Connections that stop being HTTP: WebSocket and other upgrades, and CONNECT tunnels.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use tokio::sync::oneshot;

use super::Body;
use crate::net::{
    copy::{self, Copied},
    io::Duplex,
    sniff::Prefixed,
};

/// A connection after HTTP, with what was read of it beyond the last head.
pub type Upgraded = Prefixed<Box<dyn Duplex>>;

/// One side of an upgrade, as a message carries it until somebody takes it off. Behind a lock only because extensions
/// must be fit for several threads.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>);

/// The connection that a server hands over once its answer has been written.
#[derive(Debug)]
pub(super) struct Promise(oneshot::Sender<Upgraded>);

impl Promise {
    /// Hands it over.
    pub(super) fn keep(self, io: Box<dyn Duplex>, ahead: Bytes) {
        // Nobody wants it any more: it ends.
        let _ = self.0.send(Prefixed::with(ahead, io));
    }
}

/// Promises the connection of a request that asks for an upgrade.
pub(super) fn promise(extensions: &mut Extensions) -> Promise {
    let (sender, receiver) = oneshot::channel();
    extensions.insert(Carried(Arc::new(Mutex::new(Some(receiver)))));
    Promise(sender)
}

/// Gives a response the connection that it came from.
pub(super) fn attach(extensions: &mut Extensions, io: Box<dyn Duplex>, ahead: Bytes) {
    promise(extensions).keep(io, ahead);
}

/// The caller's half of an upgrade, taken off a request before it is sent on.
#[derive(Debug)]
pub struct Pending(Option<oneshot::Receiver<Upgraded>>);

impl Pending {
    /// Takes it off.
    pub fn of(request: &mut Request<Body>) -> Self {
        Self::taken_off(request.extensions_mut())
    }

    fn taken_off(extensions: &mut Extensions) -> Self {
        let carried = extensions.remove::<Carried>();
        Self(carried.and_then(|carried| carried.0.lock().expect("nothing panics while holding it").take()))
    }

    /// Waits until the answer has been written and the connection is ours. `None`: it ended before.
    pub async fn upgraded(self) -> Option<Upgraded> {
        self.0?.await.ok()
    }

    /// After a `101 Switching Protocols`: joins the caller's connection and the callee's until both directions have
    /// ended. Returns at once; `guard` lives as long as the joined connections do, and hears at the end what was carried.
    pub fn join<G: 'static>(
        self,
        response: &mut Response<Body>,
        mut guard: G,
        carried: impl FnOnce(&mut G, &Copied) + 'static,
    ) {
        let callee = Self::taken_off(response.extensions_mut());
        crate::task::start(async move {
            let (Some(mut caller), Some(mut callee)) = (self.upgraded().await, callee.upgraded().await)
            else {
                return;
            };
            let copied = copy::both_ways(&mut caller, &mut callee).await;
            carried(&mut guard, &copied);
            if let Some(error) = copied.broken {
                tracing::debug!(%error, "an upgraded connection broke");
            }
        });
    }
}
