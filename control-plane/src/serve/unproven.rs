//! The places of connections that have proven nothing yet: few, so that whoever opens connections and goes no further
//! takes neither memory nor descriptors from the sidecars that are in.
//!
//! A place is had from accept until the peer has shown a certificate of the mesh; one that is here for its first
//! certificate has it to the end. While all are taken, nobody more is accepted, and callers wait in the kernel's queue. A
//! handshake is over in milliseconds, so whoever has had a place for long makes room for the next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

/// As many as wait in the kernel's queue besides: who says nothing must not keep out who does, for longer than a sidecar
/// waits for its handshake (5 s).
pub(super) const PLACES: usize = 4096;
/// Nobody has to make room earlier. A peer far away needs some round trips, on a server that may be busy with as many
/// others.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The places.
pub(super) struct Unproven {
    places: usize,
    taken: Mutex<Taken>,
    left: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// The oldest first: since when, and what tells its owner to go when it is dropped.
    by_age: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

/// One's place, until dropped.
pub(super) struct Place {
    unproven: Arc<Unproven>,
    number: u64,
    going: oneshot::Receiver<()>,
}

impl Unproven {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, taken: Mutex::default(), left: Notify::new() })
    }

    /// Waits until there is a place: at most until the oldest has to make room.
    pub(super) async fn room(&self) {
        while let Err(full_until) = self.make_room(Instant::now()) {
            tokio::select! {
                () = sleep_until(full_until) => {}
                () = self.left.notified() => {}
            }
        }
    }

    /// Takes a place. Whoever accepts connections waits for [`room`](Self::room) first.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        let (stay, going) = oneshot::channel();
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.by_age.insert(number, (Instant::now(), stay));
        drop(taken);
        Place { unproven: Arc::clone(self), number, going }
    }

    /// Whether there is room now, or when there will be.
    fn make_room(&self, now: Instant) -> Result<(), Instant> {
        let mut taken = self.taken();
        if taken.by_age.len() < self.places {
            return Ok(());
        }
        let Some(oldest) = taken.by_age.first_entry() else { return Ok(()) };
        let until = oldest.get().0 + PATIENCE;
        if until > now {
            return Err(until);
        }
        oldest.remove();
        Ok(())
    }

    /// No code panics while it holds the lock, and what it guards is whole at every step.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns when its owner has to make room.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent: the other end is dropped.
        let _ = (&mut self.going).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unproven.taken().by_age.remove(&self.number);
        self.unproven.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_leaves_makes_room_at_once() {
        let unproven = Unproven::new(1);
        unproven.room().await;
        let mut first = unproven.take();
        let mut room = std::pin::pin!(unproven.room());
        assert!(room.as_mut().now_or_never().is_none(), "there is one place");
        assert!(first.lost().now_or_never().is_none(), "nobody has to go yet");
        drop(first);
        assert!(room.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_lingers_makes_room_for_the_next_the_oldest_first() {
        let unproven = Unproven::new(2);
        let mut oldest = unproven.take();
        advance(PATIENCE / 2).await;
        let mut younger = unproven.take();
        let started = Instant::now();
        unproven.room().await;
        assert_eq!(started.elapsed(), PATIENCE / 2, "not before the oldest has had its time");
        let mut third = unproven.take();
        assert!(oldest.lost().now_or_never().is_some());
        assert!(younger.lost().now_or_never().is_none() && third.lost().now_or_never().is_none());
        // The one who was told goes late; that gives no place twice.
        drop(oldest);
        assert!(unproven.room().now_or_never().is_none());
    }
}
