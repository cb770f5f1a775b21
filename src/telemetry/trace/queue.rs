//! Where spans wait until they are sent: bounded, and nobody who serves waits for room in it. What finds none is left out, and
//! counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

use super::span::Span;
use crate::telemetry::{names::Metric, prometheus::Registry};

/// Spans that may wait: a few megabytes at most.
const ROOM: usize = 2048;
/// Spans that are sent at once.
pub const BATCH: usize = 512;

/// The end of those who serve.
#[derive(Debug, Clone)]
pub struct Queue {
    spans: mpsc::Sender<Box<Span>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// There are enough for a batch.
    enough: Notify,
    /// What found no room.
    dropped: AtomicU64,
}

/// The end of whoever sends them.
#[derive(Debug)]
pub struct Waiting {
    spans: mpsc::Receiver<Box<Span>>,
    shared: Arc<Shared>,
}

/// Both ends.
pub fn queue() -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(ROOM);
    let shared = Arc::<Shared>::default();
    (Queue { spans: sender, shared: shared.clone() }, Waiting { spans: receiver, shared })
}

impl Queue {
    /// Leaves a span to be sent, or out.
    pub fn put(&self, span: Span) {
        if self.spans.try_send(Box::new(span)).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
        // Otherwise nobody is woken for it: a span can wait for others.
        if self.spans.capacity() <= ROOM - BATCH {
            self.shared.enough.notify_one();
        }
    }

    /// Shows how many have found no room. To be called about once a second.
    pub fn show(&self, registry: &Registry) {
        let dropped = self.take_dropped();
        registry.counter(Metric::SpansDropped, &[]).increment(dropped);
        registry.losses.spans_lost(dropped, Instant::now());
    }

    fn take_dropped(&self) -> u64 {
        self.shared.dropped.swap(0, Relaxed)
    }
}

impl Waiting {
    /// Waits until there are enough for a batch, or for so long.
    pub async fn due(&self, longest: Duration) {
        if self.spans.len() < BATCH {
            let _ = timeout(longest, self.shared.enough.notified()).await;
        }
    }

    /// As many as go together; none, if there are none.
    pub fn take(&mut self) -> Vec<Span> {
        let mut taken = Vec::with_capacity(self.spans.len().min(BATCH));
        while taken.len() < BATCH
            && let Ok(span) = self.spans.try_recv()
        {
            taken.push(*span);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::context::{SpanId, TraceId};

    fn span(id: u64) -> Span {
        Span::new(TraceId::new(1).expect("not zero"), SpanId::new(id).expect("not zero"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_counted_and_nobody_waits() {
        let (queue, mut waiting) = queue();
        (1..=3000).for_each(|id| queue.put(span(id)));
        let mut taken = Vec::new();
        loop {
            let batch = waiting.take();
            assert!(batch.len() <= BATCH);
            if batch.is_empty() {
                break;
            }
            taken.extend(batch);
        }
        assert_eq!(taken.len(), ROOM);
        assert_eq!(taken[0].id, SpanId::new(1).expect("not zero"));
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (952, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_due_when_it_is_full_or_time_is_up() {
        let second = Duration::from_secs(1);
        let (queue, mut waiting) = queue();
        let began = Instant::now();
        queue.put(span(1));
        waiting.due(second).await;
        assert_eq!(began.elapsed(), second);
        assert_eq!(waiting.take().len(), 1);
        (1..=BATCH as u64).for_each(|id| queue.put(span(id)));
        waiting.due(second).await;
        assert_eq!(began.elapsed(), second);
        assert_eq!(waiting.take().len(), BATCH);
    }
}
