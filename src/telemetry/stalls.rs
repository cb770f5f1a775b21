//! How long this thread had not run when it noticed something: a sidecar that is short of CPU finds late what came long ago,
//! and would take its own delay for the network's or the application's.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How often it is looked, while there are requests: rarely enough to cost nothing, and often enough that a stall that matters
/// has a look in it.
const TICK: Duration = Duration::from_millis(20);
/// What is no stall: timers are exact to a millisecond or two.
const SLACK: Duration = Duration::from_millis(5);

/// One thread's.
#[derive(Debug, Default)]
pub struct Stalls {
    /// When it is looked next. `None`: nobody has asked lately.
    due: Cell<Option<Instant>>,
    /// The last stall: its end, and how long it is known to have been.
    last: Cell<Option<(Instant, Duration)>>,
    asked: Cell<bool>,
    wanted: Notify,
    counted: Cell<StallCount>,
}

/// Whether a thread has run when it should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StallCount {
    /// For how long it was looked.
    pub watched: Duration,
    /// Of that, how long it is known not to have run.
    pub stalled: Duration,
}

impl StallCount {
    /// Another thread's, or a later one of the same.
    pub fn add(&mut self, other: Self) {
        self.watched += other.watched;
        self.stalled += other.stalled;
    }
}

impl Stalls {
    /// Looks, as long as anybody asks. Never ends.
    pub async fn watch(self: Rc<Self>) {
        loop {
            self.wanted.notified().await;
            while self.asked.take() {
                let began = Instant::now();
                let due = began + TICK;
                self.due.set(Some(due));
                sleep_until(due).await;
                let now = Instant::now();
                let stall = stall(due, now);
                if let Some(stall) = stall {
                    self.last.set(Some((now, stall)));
                }
                let mut counted = self.counted.get();
                counted.add(StallCount { watched: now - began, stalled: stall.unwrap_or_default() });
                self.counted.set(counted);
            }
            self.due.set(None);
        }
    }

    /// What has gathered since it was last taken.
    pub fn take(&self) -> StallCount {
        self.counted.take()
    }

    /// So long, at least, before `now` this thread had not run, and what is noticed now may have waited for it.
    pub fn before(&self, now: Instant) -> Duration {
        if !self.asked.replace(true) && self.due.get().is_none() {
            self.wanted.notify_one();
        }
        // What came meanwhile may be noticed before the look that is late, or a moment after it.
        if let Some(stall) = self.due.get().and_then(|due| stall(due, now)) {
            return stall;
        }
        match self.last.get() {
            Some((end, stall)) if now.saturating_duration_since(end) < TICK => stall,
            _ => Duration::ZERO,
        }
    }
}

/// A look that is late. The thread may have stood still since just after the one before it; but only from when it was due is that
/// known, and what is taken for a stall is taken from the network and the application.
fn stall(due: Instant, now: Instant) -> Option<Duration> {
    let late = now.saturating_duration_since(due);
    (late > SLACK).then_some(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_stands_still_is_noticed() {
        let stalls = Rc::new(Stalls::default());
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(stalls.clone().watch());
                assert_eq!(stalls.before(Instant::now()), Duration::ZERO);
                tokio::time::sleep(MS).await;
                assert_eq!(stalls.before(Instant::now()), Duration::ZERO);
                // Nothing is polled meanwhile.
                tokio::time::advance(100 * MS).await;
                let stall = stalls.before(Instant::now());
                assert!(stall >= 80 * MS && stall <= 125 * MS, "{stall:?}");
                tokio::time::sleep(2 * MS).await;
                let after = stalls.before(Instant::now());
                assert!(after >= 80 * MS, "what is noticed just after: {after:?}");
                tokio::time::sleep(50 * MS).await;
                assert_eq!(stalls.before(Instant::now()), Duration::ZERO);
                let counted = stalls.take();
                assert!(counted.stalled >= 80 * MS && counted.stalled < counted.watched, "{counted:?}");
                assert_eq!(stalls.take(), StallCount::default());
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_where_nobody_asks() {
        let stalls = Rc::new(Stalls::default());
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(stalls.clone().watch());
                stalls.before(Instant::now());
                tokio::time::sleep(100 * MS).await;
                assert_eq!(stalls.due.get(), None);
                tokio::time::sleep(100 * MS).await;
                assert_eq!(stalls.before(Instant::now()), Duration::ZERO);
            })
            .await;
    }
}
