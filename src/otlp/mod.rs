//! Sends spans to whoever takes them, by OTLP (<https://opentelemetry.io/docs/specs/otlp/>), on the main thread. Nobody waits for
//! that but at the very end, and then not for long.

mod answer;
mod message;
mod receiver;

use std::{io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use pillion_api::model::{TraceCompression, Tracing};
use prost::Message;
use rand::Rng;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub use self::message::Workload;
use self::{answer::Answer, message::ExportRequest, receiver::Sender};
use crate::{
    net::resolve::Resolver,
    telemetry::{names::Metric, prometheus::Registry, trace::queue::Waiting},
};

/// The longest that a span waits for others.
const INTERVAL: Duration = Duration::from_secs(1);
/// Before a batch is sent again: the first wait, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// After so long a batch is given up: newer ones wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// A receiver that has rejected something takes everything again when it has rejected nothing for so long.
const RELIEF: Duration = Duration::from_secs(60);

/// Where spans go, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the mesh has it, or this sidecar's own settings.
    pub tracing: Tracing,
    /// What the receiver is to be sent besides.
    pub headers_file: Option<PathBuf>,
    /// Whose they are.
    pub workload: Workload,
}

/// Sends what waits in the queue.
pub struct Exporter {
    /// `None`: tracing is off.
    pub target: watch::Receiver<Option<Arc<Target>>>,
    /// What the workers have left.
    pub waiting: Waiting,
    /// The process is about to end.
    pub ending: watch::Receiver<bool>,
    /// Where it counts.
    pub registry: Arc<Registry>,
    /// How the receiver's name is looked up.
    pub resolver: Resolver,
    /// Addresses of ours, which are no receiver's.
    pub own: Arc<[SocketAddr]>,
}

/// What became of the last batch, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// It was taken; of one, the last time then, some spans were not.
    Rejecting(Instant),
    Failing,
}

impl State {
    /// When a batch was taken, but for so many of its spans.
    fn taken(self, rejected: u64, now: Instant) -> Self {
        match self {
            _ if rejected > 0 => Self::Rejecting(now),
            // A receiver may reject something in every other batch.
            Self::Rejecting(last) if now < last + RELIEF => self,
            _ => Self::Well,
        }
    }
}

impl Exporter {
    /// Until the process ends, and everything has been sent that could be.
    pub async fn run(mut self) {
        loop {
            let target = self.target.borrow_and_update().clone();
            match target {
                Some(target) => {
                    self.registry.losses.spans_go_to(&target.tracing.endpoint);
                    self.serve(&target).await;
                }
                None => {
                    self.registry.losses.spans_go_to("");
                    // Those of before it was turned off.
                    while !self.waiting.take().is_empty() {}
                    tokio::select! {
                        _ = self.target.changed() => {}
                        _ = self.ending.wait_for(|ending| *ending) => {}
                    }
                }
            }
            if *self.ending.borrow() || self.target.has_changed().is_err() {
                return;
            }
        }
    }

    /// Until there is another target, or an end.
    async fn serve(&mut self, target: &Target) {
        let mut state = State::Well;
        let sender = Sender::new(
            target.tracing.clone(),
            target.headers_file.clone(),
            self.resolver.clone(),
            self.own.clone(),
        );
        loop {
            tokio::select! {
                () = self.waiting.due(INTERVAL) => {}
                _ = self.ending.wait_for(|ending| *ending) => {}
                _ = self.target.changed() => return,
            }
            let batch = self.waiting.take();
            if batch.is_empty() {
                if *self.ending.borrow() {
                    return;
                }
                sender.sweep();
                continue;
            }
            let spans = batch.len() as u64;
            let batch = ExportRequest::of(&target.workload, batch).encode_to_vec();
            let batch = packed(target.tracing.compression, batch);
            self.deliver(&sender, batch, spans, target, &mut state).await;
        }
    }

    /// Sends a batch, again where that may help and there is time.
    async fn deliver(
        &mut self,
        sender: &Sender,
        batch: Bytes,
        spans: u64,
        target: &Target,
        state: &mut State,
    ) {
        let began = Instant::now();
        let mut backoff = BACKOFF.0;
        let (reason, words) = loop {
            match sender.send(batch.clone()).await {
                Answer::Taken(rejected, words) => {
                    let rejected = rejected.min(spans);
                    self.registry.counter(Metric::SpansExported, &[]).increment(spans - rejected);
                    return self.taken(target, rejected, cut(&words), state);
                }
                Answer::Refused(words) => break ("refused", words),
                Answer::Again(after, words) => {
                    let jittered = backoff.mul_f64(rand::rng().random_range(0.5..1.5));
                    let pause = after.unwrap_or(jittered);
                    let hurried = *self.ending.borrow() || self.target.has_changed().unwrap_or(true);
                    if hurried || pause > PATIENCE.saturating_sub(began.elapsed()) {
                        break ("unavailable", words);
                    }
                    self.registry.losses.spans_not_taken(cut(&words), Instant::now());
                    if *state != State::Failing {
                        *state = State::Failing;
                        let receiver = &target.tracing.endpoint;
                        tracing::warn!(%receiver, why = cut(&words), "spans are not taken; they are sent again, as long as there is room");
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        // Once more, at once.
                        _ = self.ending.wait_for(|ending| *ending) => {}
                        _ = self.target.changed() => self.target.mark_changed(),
                    }
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        };
        let now = Instant::now();
        self.registry.counter(Metric::SpansFailed, &[reason]).increment(spans);
        self.registry.losses.spans_not_taken(cut(&words), now);
        self.registry.losses.spans_lost(spans, now);
        // Once, until they are taken again: what is lost after that is counted.
        if *state != State::Failing {
            *state = State::Failing;
            tracing::warn!(receiver = %target.tracing.endpoint, spans, why = cut(&words), "spans are lost");
        }
    }

    /// A batch was taken, but for so many of its spans.
    fn taken(&self, target: &Target, rejected: u64, why: &str, state: &mut State) {
        let (now, receiver) = (Instant::now(), &target.tracing.endpoint);
        if *state == State::Failing {
            self.registry.losses.spans_taken(now);
        }
        let before = *state;
        *state = before.taken(rejected, now);
        if rejected > 0 {
            self.registry.counter(Metric::SpansFailed, &["refused"]).increment(rejected);
            self.registry.losses.spans_rejected(rejected, why, now);
        }
        // Each change once: what is lost after that is counted.
        match (before, *state) {
            (State::Well | State::Failing, State::Rejecting(_)) => {
                tracing::warn!(%receiver, spans = rejected, why, "some spans are lost: the receiver rejects them");
            }
            (State::Rejecting(_) | State::Failing, State::Well) => {
                tracing::info!(%receiver, "spans are taken again");
            }
            _ => {}
        }
    }
}

/// As it is sent, however often.
fn packed(compression: TraceCompression, batch: Vec<u8>) -> Bytes {
    match compression {
        TraceCompression::None => batch.into(),
        TraceCompression::Gzip => {
            // Spans are much alike: to look longer for what they have in common makes little of the rest.
            let mut encoder = GzEncoder::new(Vec::with_capacity(batch.len() / 8), Compression::fast());
            let packed = encoder.write_all(&batch).and_then(|()| encoder.finish());
            packed.expect("memory takes everything").into()
        }
    }
}

/// A receiver may say a lot.
fn cut(words: &str) -> &str {
    &words[..words.floor_char_boundary(200)]
}

#[cfg(test)]
mod tests;
