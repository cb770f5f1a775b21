//! The mesh's document once a second as server-sent events, encoded once for all who listen.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::{
    IntoResponse, Sse,
    sse::{Event, KeepAlive},
};
use futures_util::{StreamExt, stream};
use metrics::Gauge;
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

use super::{MeshState, build};
use crate::{clock::unix_ms, shutdown::Shutdown, telemetry::Counted};

/// Open pages at once.
const MAX_LISTENERS: usize = 256;
const PERIOD: Duration = Duration::from_secs(1);

/// Encodes once a second while anybody listens.
pub struct Ticker {
    /// The newest document; empty before the first.
    latest: watch::Sender<Arc<str>>,
    room: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Ticker {
    /// Nobody listens yet. Every stream ends at shutdown.
    pub fn new(shutdown: Shutdown) -> Self {
        let room = Arc::new(Semaphore::new(MAX_LISTENERS));
        Self { latest: watch::Sender::new("".into()), room, shutdown }
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
            let view = build::mesh(state, unix_ms());
            let text = serde_json::to_string(&view).expect("the document has string keys only");
            self.latest.send_replace(text.into());
        }
    }

    /// One listener's stream; `None` when there are too many.
    pub(super) fn listen(&self, listeners: &Gauge) -> Option<impl IntoResponse + use<>> {
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let held = (permit, Counted::new(listeners));
        let mut latest = self.latest.subscribe();
        // What is there is of the last listener's time; the next is at most a second away.
        latest.mark_unchanged();
        let start = (latest, self.shutdown.clone(), held);
        let documents = stream::unfold(start, async |(mut latest, mut shutdown, held)| {
            tokio::select! {
                changed = latest.changed() => changed.ok()?,
                () = shutdown.requested() => return None,
            }
            let text = Arc::clone(&latest.borrow_and_update());
            Some((text, (latest, shutdown, held)))
        });
        let events =
            documents.map(|text| Ok::<_, Infallible>(Event::default().event("mesh").data(text.as_ref())));
        Some(Sse::new(events).keep_alive(KeepAlive::default()))
    }
}
