//! The mesh's document once a second as server-sent events, encoded once for all who listen.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::{
    IntoResponse, Sse,
    sse::{Event, KeepAlive},
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{MeshState, build};
use crate::{clock::unix_ms, shutdown::Shutdown, telemetry::Counted};

/// Open pages at once.
const MAX_LISTENERS: usize = 256;
const PERIOD: Duration = Duration::from_secs(1);

/// A document, and when it was made.
#[derive(Clone)]
struct Made {
    text: Arc<str>,
    at: Instant,
}

impl Made {
    fn now(state: &MeshState) -> Self {
        let now_ms = unix_ms();
        let view = build::mesh(state, now_ms, now_ms);
        let text = serde_json::to_string(&view).expect("the document has string keys only");
        Self { text: text.into(), at: Instant::now() }
    }
}

/// Encodes once a second while anybody listens.
pub struct Ticker {
    /// The newest document; `None` before the first.
    latest: watch::Sender<Option<Made>>,
    room: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Ticker {
    /// Nobody listens yet. Every stream ends at shutdown.
    pub fn new(shutdown: Shutdown) -> Self {
        let room = Arc::new(Semaphore::new(MAX_LISTENERS));
        Self { latest: watch::Sender::new(None), room, shutdown }
    }

    /// Encodes and tells, for ever.
    pub async fn run(&self, state: &MeshState) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.latest.is_closed() {
                continue;
            }
            self.latest.send_replace(Some(Made::now(state)));
        }
    }

    /// One listener's stream, which begins at once; `None` when there are too many.
    pub(super) fn listen(&self, state: &MeshState) -> Option<impl IntoResponse + use<>> {
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let held = (permit, Counted::new(&state.telemetry.event_listeners));
        let mut latest = self.latest.subscribe();
        // What is there may be of the last listener's time.
        let fresh = latest.borrow_and_update().clone().filter(|made| made.at.elapsed() < PERIOD);
        let first = fresh.unwrap_or_else(|| Made::now(state));
        let start = (latest, self.shutdown.clone(), held);
        let later = stream::unfold(start, async |(mut latest, mut shutdown, held)| {
            tokio::select! {
                changed = latest.changed() => changed.ok()?,
                () = shutdown.requested() => return None,
            }
            let made = latest.borrow_and_update().clone()?;
            Some((made, (latest, shutdown, held)))
        });
        let events = stream::iter([first])
            .chain(later)
            .map(|made| Ok::<_, Infallible>(Event::default().event("mesh").data(made.text.as_ref())));
        Some(Sse::new(events).keep_alive(KeepAlive::default()))
    }
}
