//! What a sidecar has open and under way to a service, over all of its workers; and how many connections it may have.

use std::{
    collections::HashMap,
    io::{IoSlice, Result as IoResult},
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use pillion_api::name::ServiceName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Reason, Refusal},
    net::io::{Abort, Io, Reset},
};

/// Between looks for connections that have become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the workers share.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<HashMap<ServiceName, Weak<Connections>>>>);

impl Shared {
    /// Of one service; kept while any worker follows it.
    pub(super) fn of(&self, service: &ServiceName) -> Arc<Connections> {
        let mut known = self.0.lock().expect("nobody panics in there");
        if let Some(connections) = known.get(service).and_then(Weak::upgrade) {
            return connections;
        }
        known.retain(|_, connections| connections.strong_count() > 0);
        let connections = Arc::new(Connections::default());
        known.insert(service.clone(), Arc::downgrade(&connections));
        connections
    }
}

/// Counts a service's connections, against a bound where there is one.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Zero: no bound.
    most: AtomicU32,
    /// The policy that says so.
    policy: Mutex<Arc<str>>,
    open: AtomicU32,
    freed: Notify,
    wanted: Notify,
    /// Requests under way, where several workers count them together.
    pub(super) requests: Arc<AtomicU32>,
    /// Requests that wait, likewise.
    pub(super) pending: Arc<AtomicU32>,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Connections>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

impl Connections {
    /// Changes the bound, as a policy says. What is open stays.
    pub(super) fn set(&self, most: Option<u32>, policy: &str) {
        *self.policy.lock().expect("nobody panics in there") = policy.into();
        if self.most.swap(most.unwrap_or(0), Relaxed) != most.unwrap_or(0) {
            self.freed.notify_waiters();
        }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Takes a place if there is one. What is opened while there is no bound counts against one that comes later.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let most = match self.most.load(Relaxed) {
            0 => u32::MAX,
            most => most,
        };
        let more = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).is_ok().then(|| Place(self.clone()))
    }

    /// Waits until somebody, perhaps on another worker, would have a connection's place.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Takes a place; waits `within` for one to be free, having asked others to make room.
    ///
    /// # Errors
    /// [`Reason::ConnectionLimit`].
    pub(super) async fn enter(
        self: &Arc<Self>,
        within: Duration,
        make_room: impl Fn(),
    ) -> Result<Place, Refusal> {
        let deadline = Instant::now() + within;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before looking, so that nothing is missed in between.
            freed.as_mut().enable();
            if let Some(place) = self.try_enter() {
                return Ok(place);
            }
            make_room();
            self.wanted.notify_waiters();
            // What becomes idle meanwhile can make room, too.
            let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
            if timeout_at(look_again, freed).await.is_err() && look_again == deadline {
                let most = self.most.load(Relaxed);
                let detail = format_args!("waited {within:?}, connections.maxConnections {most}");
                let policy = self.policy.lock().expect("nobody panics in there").clone();
                return Err(Refusal::new(Reason::ConnectionLimit, detail).of_policy(&policy));
            }
        }
    }
}

/// A connection with its place.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) io: Io,
    pub(super) _place: Place,
}

impl Abort for Placed {
    fn abort(&mut self) {
        self.io.abort();
    }

    fn reset(&self) -> Reset {
        self.io.reset()
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for_until_the_deadline() {
        let name: ServiceName = "a.n".parse().expect("a name");
        let shared = Shared::default();
        let connections = shared.of(&name);
        assert!(Arc::ptr_eq(&connections, &shared.of(&name)));
        let (asked, nothing) = (Cell::new(0), || {});
        // What is open before there is a bound counts.
        let first = connections.enter(WITHIN, nothing).await.expect("no bound");
        connections.set(Some(1), "demo/pay");
        let began = Instant::now();
        let refused = connections.enter(WITHIN, || asked.set(asked.get() + 1)).await.expect_err("no second");
        assert_eq!((refused.reason, began.elapsed()), (Reason::ConnectionLimit, WITHIN));
        assert!(asked.get() > 10, "others are asked again and again");
        // Whoever makes room is waited for.
        let first = Cell::new(Some(first));
        let _second = connections.enter(WITHIN, || drop(first.take())).await.expect("a place");
        // A bound that is raised has room at once.
        let third = connections.enter(WITHIN, nothing);
        let raised = async { connections.set(Some(2), "demo/pay") };
        let third = Cell::new(Some(tokio::join!(third, raised).0.expect("a place")));
        // Other workers are asked, too.
        let asked = async {
            connections.wanted().await;
            drop(third.take());
        };
        assert!(tokio::join!(connections.enter(WITHIN, nothing), asked).0.is_ok());
    }
}
