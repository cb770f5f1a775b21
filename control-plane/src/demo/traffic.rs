//! The traffic generator: requests at a steady rate, sent whether or not earlier ones have been answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

/// Requests per second.
pub(super) const RATE: u32 = 40;
/// More than this under way at once would say that the mesh is stuck; they are counted as failures, unsent.
const MOST_UNDER_WAY: usize = 400;

/// What became of the requests so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    last_failure: std::sync::Mutex<Option<String>>,
}

impl Tally {
    /// Requests with a good answer.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Requests without.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// What the last failure was, for people.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().expect("no panic while noting a failure").clone()
    }

    pub(super) fn fail(&self, what: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.last_failure.lock().expect("no panic while noting a failure") = Some(what);
    }
}

/// Calls the `web` service until `stop` turns true, then waits for what is under way.
pub(super) async fn generate(client: reqwest::Client, tally: Arc<Tally>, mut stop: watch::Receiver<bool>) {
    let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    // After a stall the missed requests are sent at once: what users do does not wait for us.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let Ok(permit) = Arc::clone(&under_way).try_acquire_owned() else {
            tally.fail(format!("{MOST_UNDER_WAY} requests are under way already"));
            continue;
        };
        // Three visitors in four buy something.
        let path = if number.is_multiple_of(4) { "/" } else { "/checkout" };
        let (client, tally) = (client.clone(), Arc::clone(&tally));
        tokio::spawn(async move {
            match client.get(format!("http://web.demo.mesh{path}")).send().await {
                Ok(response) if response.status().is_success() => match response.bytes().await {
                    Ok(_) => {
                        tally.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => tally.fail(error.to_string()),
                },
                Ok(response) => tally.fail(format!("{path} answers {}", response.status())),
                Err(error) => tally.fail(error.to_string()),
            }
            drop(permit);
        });
    }
    // Every request has a deadline of its own, so this ends.
    let _ = under_way.acquire_many(MOST_UNDER_WAY as u32).await;
}
