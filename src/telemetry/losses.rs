//! Which telemetry does not reach whoever is to have it, for the control plane: `pillion check` tells people of it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pillion_api::wire::{TelemetryLoss, telemetry_loss::Kind};
use tokio::time::Instant;

/// For so long is told that something was lost, or that a try has failed: nobody knows whether the next one would, where none
/// follows. As long as the alert looks back.
const TOLD_FOR: Duration = Duration::from_secs(300);
/// What is lost so soon after the receiver is back was lost for its absence.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Where a receiver says no word of its own.
const SLOW: &str = "more come than it takes";
const SILENT: &str = "it does not say why";

/// Of one process. Its methods take locks: they are for the main thread.
#[derive(Debug, Default)]
pub struct Losses {
    spans: Mutex<Loss>,
    /// Of batches that were taken but for some.
    rejected: Mutex<Loss>,
    lines: Mutex<Loss>,
}

#[derive(Debug, Default)]
struct Loss {
    receiver: String,
    /// Why it did not take what it was sent last, and when that was.
    away: Option<(String, Instant)>,
    /// Why anything is lost while it is there.
    reason: String,
    /// Not told yet.
    count: u64,
    /// When anything was lost last.
    last: Option<Instant>,
    /// When the receiver was back.
    back: Option<Instant>,
}

impl Losses {
    /// Spans go there from now on, of whom nothing is known yet; empty: nowhere.
    pub fn spans_go_to(&self, receiver: impl ToString) {
        let receiver = receiver.to_string();
        *lock(&self.rejected) = Loss::at(receiver.clone(), String::new());
        *lock(&self.spans) = Loss::at(receiver, SLOW.to_owned());
    }

    /// Their receiver does not take them.
    pub fn spans_not_taken(&self, why: &str, now: Instant) {
        lock(&self.spans).away = Some((why.to_owned(), now));
    }

    /// It does again.
    pub fn spans_taken(&self, now: Instant) {
        let mut spans = lock(&self.spans);
        *spans = Loss { back: Some(now), ..Loss::at(std::mem::take(&mut spans.receiver), SLOW.to_owned()) };
    }

    /// It has taken a batch but for so many.
    pub fn spans_rejected(&self, count: u64, why: &str, now: Instant) {
        let mut rejected = lock(&self.rejected);
        rejected.reason = if why.is_empty() { SILENT } else { why }.to_owned();
        rejected.add(count, now);
    }

    /// So many will never reach it.
    pub fn spans_lost(&self, count: u64, now: Instant) {
        lock(&self.spans).add(count, now);
    }

    /// So many lines of the access log are left out of what is written there.
    pub fn lines_lost(&self, to: &str, count: u64, now: Instant) {
        let mut lines = lock(&self.lines);
        if count > 0 && lines.receiver != to {
            (lines.receiver, lines.reason) = (to.to_owned(), SLOW.to_owned());
        }
        lines.add(count, now);
    }

    /// What there is to tell, with what was lost since this was asked last.
    pub(crate) fn take(&self, now: Instant) -> Vec<TelemetryLoss> {
        let told = [
            (Kind::Spans, &self.spans),
            (Kind::RejectedSpans, &self.rejected),
            (Kind::AccessLogLines, &self.lines),
        ];
        told.into_iter().filter_map(|(kind, loss)| lock(loss).take(kind, now)).collect()
    }
}

impl Loss {
    fn at(receiver: String, reason: String) -> Self {
        Self { receiver, reason, ..Self::default() }
    }

    fn add(&mut self, count: u64, now: Instant) {
        let catching_up = self.back.is_some_and(|back| now - back < CATCH_UP);
        if count == 0 || (catching_up && self.away.is_none()) {
            return;
        }
        self.count += count;
        self.last = Some(now);
    }

    fn take(&mut self, kind: Kind, now: Instant) -> Option<TelemetryLoss> {
        self.away.take_if(|(_, tried)| now - *tried >= TOLD_FOR);
        let lately = self.last.is_some_and(|last| now - last < TOLD_FOR);
        if self.receiver.is_empty() || (self.away.is_none() && !lately) {
            return None;
        }
        let reason = self.away.as_ref().map_or(&self.reason, |(why, _)| why);
        Some(TelemetryLoss {
            kind: kind.into(),
            receiver: self.receiver.clone(),
            reason: reason.clone(),
            count: std::mem::take(&mut self.count),
        })
    }
}

fn lock(loss: &Mutex<Loss>) -> MutexGuard<'_, Loss> {
    loss.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is told: what, where, why and how many.
    fn told(losses: &Losses, now: Instant) -> Vec<(Kind, String, String, u64)> {
        let told = losses.take(now).into_iter();
        told.map(|loss| (loss.kind(), loss.receiver, loss.reason, loss.count)).collect()
    }

    #[test]
    fn a_receiver_that_is_away_is_told_of_until_it_is_back() {
        let (losses, began) = (Losses::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        losses.spans_lost(7, at(0));
        assert_eq!(told(&losses, at(0)), [], "there is no receiver");
        losses.spans_go_to("http://jaeger:4317");
        losses.spans_not_taken("refused", at(1));
        let of = |reason: &str, count| [(Kind::Spans, "http://jaeger:4317".into(), reason.into(), count)];
        assert_eq!(told(&losses, at(1)), of("refused", 0));
        losses.spans_lost(512, at(30));
        assert_eq!(told(&losses, at(31)), of("refused", 512));
        losses.spans_not_taken("refused", at(3600));
        assert_eq!(told(&losses, at(3600)), of("refused", 0));
        losses.spans_lost(9, at(3600));
        losses.spans_taken(at(3600));
        losses.spans_lost(9, at(3601));
        assert_eq!(told(&losses, at(3601)), []);
        losses.spans_lost(3, at(3606));
        assert_eq!(told(&losses, at(3606)), of(SLOW, 3));
        assert_eq!(told(&losses, at(3905)), of(SLOW, 0));
        assert_eq!(told(&losses, at(3906)), []);
        losses.spans_not_taken("refused", at(3906));
        losses.spans_go_to("");
        assert_eq!(told(&losses, at(3907)), []);
    }

    #[test]
    fn of_a_receiver_that_is_sent_nothing_more_nobody_knows() {
        let (losses, began) = (Losses::default(), Instant::now());
        losses.spans_go_to("http://jaeger:4317");
        losses.spans_not_taken("refused", began);
        losses.spans_lost(1, began);
        let last = began + TOLD_FOR - Duration::from_secs(1);
        assert_eq!(told(&losses, last), [(Kind::Spans, "http://jaeger:4317".into(), "refused".into(), 1)]);
        assert_eq!(told(&losses, began + TOLD_FOR), []);
    }

    #[test]
    fn spans_that_are_rejected_are_told_apart_from_a_receiver_that_takes_none() {
        let (losses, began) = (Losses::default(), Instant::now());
        losses.spans_go_to("http://jaeger:4317");
        losses.spans_rejected(1, "too old", began);
        losses.spans_rejected(2, "", began);
        let of = |kind, reason: &str, count| (kind, "http://jaeger:4317".into(), reason.into(), count);
        assert_eq!(told(&losses, began), [of(Kind::RejectedSpans, SILENT, 3)]);
        losses.spans_not_taken("refused", began);
        losses.spans_rejected(1, "too old", began);
        let both = [of(Kind::Spans, "refused", 0), of(Kind::RejectedSpans, "too old", 1)];
        assert_eq!(told(&losses, began), both);
        assert_eq!(told(&losses, began + TOLD_FOR), []);
        losses.spans_rejected(1, "too old", began + TOLD_FOR);
        losses.spans_go_to("http://tempo:4317");
        assert_eq!(told(&losses, began + TOLD_FOR), []);
    }

    #[test]
    fn lines_that_were_left_out_are_told_of_for_a_while() {
        let (losses, began) = (Losses::default(), Instant::now());
        losses.lines_lost("access.log", 0, began);
        assert_eq!(told(&losses, began), []);
        losses.lines_lost("access.log", 5, began);
        let of = |count| [(Kind::AccessLogLines, "access.log".into(), SLOW.into(), count)];
        assert_eq!(told(&losses, began), of(5));
        losses.lines_lost("access.log", 0, began + TOLD_FOR);
        assert_eq!(told(&losses, began + TOLD_FOR - Duration::from_secs(1)), of(0));
        assert_eq!(told(&losses, began + TOLD_FOR), []);
    }
}
