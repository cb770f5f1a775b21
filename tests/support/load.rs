//! Requests at a steady rate, each counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A load that runs until it is stopped.
pub(crate) struct Load {
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    good: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
}

/// What became of every request of a load.
pub(crate) struct Report {
    pub(crate) good: u64,
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// GETs `url` with `client` at `rate` per second; see [`Load::of`].
    pub(crate) fn start(client: reqwest::Client, url: &str, rate: u32) -> Self {
        Self::of(client.get(url), rate)
    }

    /// Sends `request` at `rate` per second, whether or not earlier ones have been answered. Anything but a whole answer of
    /// 2xx is a failure.
    pub(crate) fn of(request: reqwest::RequestBuilder, rate: u32) -> Self {
        let counts = Arc::new(Counts::default());
        let (stop, mut stopped) = watch::channel(false);
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
            // What a busy machine has kept from being sent is not sent later, all at once: a thousand requests at a time are more
            // than a service takes by default, and rightly refused.
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut requests = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = stopped.wait_for(|stop| *stop) => break,
                }
                let again = request.try_clone().expect("its body is in memory");
                let (request, counts) = (again, Arc::clone(&shared));
                requests.spawn(async move {
                    match once(request).await {
                        Ok(()) => drop(counts.good.fetch_add(1, Ordering::Relaxed)),
                        Err(failure) => counts.failures.lock().expect("no panic in there").push(failure),
                    }
                });
                while requests.try_join_next().is_some() {}
            }
            while requests.join_next().await.is_some() {}
        });
        Self { counts, stop, task }
    }

    /// Answers of 2xx so far.
    pub(crate) fn good(&self) -> u64 {
        self.counts.good.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests have been answered well.
    pub(crate) async fn until_good(&self, more: u64) {
        let target = self.good() + more;
        super::eventually(&format!("{more} more good answers"), async || {
            (self.good() >= target).then_some(())
        })
        .await;
    }

    /// Stops sending, waits for what is under way, and gives the counts.
    pub(crate) async fn finish(self) -> Report {
        self.stop.send_replace(true);
        super::soon("the last requests of a load", self.task).await.expect("the load does not panic");
        let failures = std::mem::take(&mut *self.counts.failures.lock().expect("no panic in there"));
        Report { good: self.counts.good.load(Ordering::Relaxed), failures }
    }
}

async fn once(request: reqwest::RequestBuilder) -> Result<(), String> {
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let reason = response.headers().get("pillion-error").map(|value| format!(" {value:?}"));
    let body = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(()) } else { Err(format!("{status}{}: {body}", reason.unwrap_or_default())) }
}
