//! The way out: word is spread, nothing new comes in, what is under way ends, and only then the process.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::worker::Worker;
use crate::drain::{Phase, Trigger, grace};

/// Between looks at what is still open.
const LOOK: Duration = Duration::from_millis(50);

/// What ends a process: SIGTERM, or SIGINT from a terminal.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What is to be drained.
#[derive(Clone, Copy)]
pub(super) struct Served<'a> {
    pub(super) workers: &'a [Worker],
    /// Whether anybody calls this workload.
    pub(super) serves: bool,
}

/// Waits for a signal, then drains, for `within` at most. A second signal ends it at once.
///
/// # Errors
/// A worker has ended by itself: nothing is served any more, and whoever restarts processes had better know.
pub(super) async fn run(
    mut signals: Signals,
    trigger: Trigger,
    served: Served<'_>,
    within: Duration,
) -> Result<(), String> {
    let fault =
        futures_util::future::select_all(served.workers.iter().map(|worker| Box::pin(worker.ended())));
    tokio::select! {
        () = signals.next() => {}
        ((), worker, _) = fault => return Err(format!("worker {worker} has ended by a fault")),
    }
    let deadline = Instant::now() + within;
    tracing::info!(?within, "shutting down: new connections are still taken while word spreads");
    tokio::select! {
        left = drain(&trigger, served, deadline) => match left {
            0 => tracing::info!("shut down with nothing left open"),
            left => tracing::warn!(left, "shut down with connections still open, because time is up"),
        },
        () = signals.next() => tracing::warn!("shut down at once by a second signal"),
    }
    Ok(())
}

async fn drain(trigger: &Trigger, served: Served<'_>, deadline: Instant) -> usize {
    trigger.advance(Phase::Leaving);
    if served.serves {
        // Callers need a while to hear of it; until then they are served as ever.
        tokio::time::sleep(grace(deadline - Instant::now())).await;
    }
    trigger.advance(Phase::Closing);
    loop {
        let left = open(served.workers).await;
        if left == 0 || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Connections still open. A worker that is too busy to say has some.
async fn open(workers: &[Worker]) -> usize {
    let mut open = 0;
    for worker in workers {
        open += worker.open(LOOK * 4).await.unwrap_or(1);
    }
    open
}
