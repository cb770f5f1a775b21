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

/// Waits for a signal, then drains, for `within` at most. A second signal ends it at once.
pub(super) async fn run(mut signals: Signals, trigger: Trigger, workers: &[Worker], within: Duration) {
    signals.next().await;
    let deadline = Instant::now() + within;
    tracing::info!(?within, "shutting down: new connections are still taken while word spreads");
    tokio::select! {
        left = drain(&trigger, workers, deadline) => match left {
            0 => tracing::info!("shut down with nothing left open"),
            left => tracing::warn!(left, "shut down with connections still open, because time is up"),
        },
        () = signals.next() => tracing::warn!("shut down at once by a second signal"),
    }
}

async fn drain(trigger: &Trigger, workers: &[Worker], deadline: Instant) -> usize {
    trigger.advance(Phase::Leaving);
    let spread = grace(deadline - Instant::now());
    // With nobody connected there is nobody to wait for.
    let began = Instant::now();
    while began.elapsed() < spread && open(workers).await > 0 {
        tokio::time::sleep(LOOK).await;
    }
    trigger.advance(Phase::Closing);
    loop {
        let left = open(workers).await;
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
        let report = worker.report(LOOK * 4).await;
        open += report.map_or(1, |report| report.inbound_connections + report.outbound_connections);
    }
    open
}
