//! The way out: word is spread, nothing new comes in, what is under way ends, then the application, and only then the
//! process.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::worker::{Open, Worker};
use crate::{
    drain::{Phase, Trigger, grace},
    run::{Application, Ended, Endings, Signal},
};

/// Between looks at what is still open.
const LOOK: Duration = Duration::from_millis(50);
/// Without connections for so long, a sidecar whose application is not known to have ended takes it that it has: one that
/// connects anew for each call has no connection between two.
const QUIET: Duration = Duration::from_millis(500);
/// For the kernel to end what cannot refuse.
const KILLED: Duration = Duration::from_secs(5);

/// What ends a sidecar.
pub(super) struct Reasons {
    pub(super) signals: Endings,
    /// Somebody asked for it on the operators' port.
    pub(super) asked: watch::Receiver<bool>,
}

/// What is to be drained.
#[derive(Clone, Copy)]
pub(super) struct Served<'a> {
    pub(super) workers: &'a [Worker],
    /// Whether anybody calls this workload.
    pub(super) serves: bool,
    /// Where it was started here.
    pub(super) application: Option<&'a Application>,
}

/// Waits for a reason to end, then drains, for `within` at most. A second signal ends it at once. Gives the exit code.
///
/// # Errors
/// A worker has ended by itself: nothing is served any more, and whoever restarts processes had better know.
pub(super) async fn run(
    mut reasons: Reasons,
    trigger: Trigger,
    served: Served<'_>,
    within: Duration,
) -> Result<u8, String> {
    let fault =
        futures_util::future::select_all(served.workers.iter().map(|worker| Box::pin(worker.ended())));
    let signal = tokio::select! {
        signal = reasons.signals.next() => {
            tracing::info!(?within, "shutting down: new connections are still taken while word spreads");
            signal
        }
        Ok(_) = reasons.asked.wait_for(|asked| *asked) => {
            tracing::info!(?within, "shutting down, because the operators' port was asked for it");
            Signal::TERM
        }
        ended = ended(served.application) => {
            tracing::info!(%ended, "the application has ended");
            Signal::TERM
        }
        ((), worker, _) = fault => {
            if let Some(application) = served.application {
                tracing::error!(worker, "a worker has ended by a fault: the application is told to end");
                end(application, Signal::TERM, Instant::now() + within).await;
            }
            return Err(format!("worker {worker} has ended by a fault"));
        }
    };
    let deadline = Instant::now() + within;
    tokio::select! {
        left = drain(&trigger, served, signal, deadline) => match left {
            0 => tracing::info!("shut down with nothing left open"),
            left => tracing::warn!(left, "shut down with connections still open, because time is up"),
        },
        _ = reasons.signals.next() => tracing::warn!("shut down at once by a second signal"),
    }
    Ok(match served.application {
        Some(application) => end(application, Signal::KILL, Instant::now()).await.exit_code(),
        None => 0,
    })
}

/// The order that loses nothing, whatever the application does when it is told to end: many take no more connections from
/// then on, and some drop what they are doing. So it is told last, when nobody sends to it any more and everything that
/// was sent is answered. What it has yet to ask of others it can, until it has ended.
async fn drain(trigger: &Trigger, served: Served<'_>, signal: Signal, deadline: Instant) -> usize {
    trigger.advance(Phase::Leaving);
    if served.serves {
        // Callers need a while to hear of it; until then they are served as ever.
        let _ = timeout(grace(deadline - Instant::now()), ended(served.application)).await;
    }
    trigger.advance(Phase::Closing);
    if let Some(application) = served.application {
        // Some connections go on for as long as the application lets them: it must get time to end those.
        let answered = until_closed(served, |open| open.inbound == 0, LOOK);
        let halfway = Instant::now() + (deadline - Instant::now()) / 2;
        tokio::select! {
            _ = timeout_at(halfway, answered) => end(application, signal, deadline).await,
            ended = application.ended() => ended,
        };
    }
    // Of another process nobody knows whether it has ended.
    let quiet = if served.application.is_some() { LOOK } else { QUIET };
    let closed = until_closed(served, |open| open.all() == 0, quiet);
    match timeout_at(deadline, closed).await {
        Ok(()) => 0,
        Err(_) => open(served.workers).await.all(),
    }
}

/// Waits until what is open has been found `enough` for so long.
async fn until_closed(served: Served<'_>, enough: impl Fn(Open) -> bool, period: Duration) {
    let mut since = Instant::now();
    loop {
        // First, so that word of our leaving gets out in any case.
        tokio::time::sleep(LOOK).await;
        if !enough(open(served.workers).await) {
            since = Instant::now();
        } else if since.elapsed() >= period {
            return;
        }
    }
}

/// The application's end; never, where it was not started here.
async fn ended(application: Option<&Application>) -> Ended {
    match application {
        Some(application) => application.ended().await,
        None => std::future::pending().await,
    }
}

/// Tells the application to end, and kills it at the deadline.
async fn end(application: &Application, signal: Signal, deadline: Instant) -> Ended {
    application.tell(signal);
    if let Ok(ended) = timeout_at(deadline, application.ended()).await {
        return ended;
    }
    if signal != Signal::KILL {
        tracing::warn!("the application has not ended in time: it is killed");
        application.tell(Signal::KILL);
    }
    let killed = timeout(KILLED, application.ended()).await;
    killed.unwrap_or(Ended::Killed(Signal::KILL.as_raw() as u8))
}

/// What is still open. A worker that is too busy to say has some.
async fn open(workers: &[Worker]) -> Open {
    let mut open = Open::default();
    for worker in workers {
        let more = worker.open(LOOK * 4).await.unwrap_or(Open { inbound: 1, outbound: 1 });
        open.inbound += more.inbound;
        open.outbound += more.outbound;
    }
    open
}
