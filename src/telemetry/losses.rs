//! Which telemetry does not reach whoever is to have it, for the control plane: `pillion check` tells people of it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pillion_api::wire::{TelemetryLoss, telemetry_loss::Kind};
use tokio::time::Instant;

/// Something was lost, and the receiver is there: that is told for so long. As long as the alert looks back.
const TOLD_FOR: Duration = Duration::from_secs(300);
/// What is lost so soon after the receiver is back was lost for its absence.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Where a receiver says no word of its own.
const SLOW: &str = "more come than it takes";

/// Of one process. Its methods take locks: they are for the main thread.
#[derive(Debug, Default)]
pub struct Losses {
    spans: Mutex<Loss>,
    lines: Mutex<Loss>,
}

#[derive(Debug, Default)]
struct Loss {
    receiver: String,
    /// Why it takes nothing now.
    away: Option<String>,
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
        *lock(&self.spans) = Loss { receiver: receiver.to_string(), ..Loss::default() };
    }

    /// Their receiver does not take them.
    pub fn spans_not_taken(&self, why: &str) {
        lock(&self.spans).away = Some(why.to_owned());
    }

    /// It does again.
    pub fn spans_taken(&self, now: Instant) {
        let mut spans = lock(&self.spans);
        *spans = Loss { receiver: std::mem::take(&mut spans.receiver), back: Some(now), ..Loss::default() };
    }

    /// So many will never reach it.
    pub fn spans_lost(&self, count: u64, now: Instant) {
        lock(&self.spans).add(count, now);
    }

    /// So many lines of the access log are left out of what is written there.
    pub fn lines_lost(&self, to: &str, count: u64, now: Instant) {
        let mut lines = lock(&self.lines);
        if count > 0 && lines.receiver != to {
            lines.receiver = to.to_owned();
        }
        lines.add(count, now);
    }

    /// What there is to tell, with what was lost since this was asked last.
    pub(super) fn take(&self, now: Instant) -> Vec<TelemetryLoss> {
        let told = [(Kind::Spans, &self.spans), (Kind::AccessLogLines, &self.lines)];
        told.into_iter().filter_map(|(kind, loss)| lock(loss).take(kind, now)).collect()
    }
}

impl Loss {
    fn add(&mut self, count: u64, now: Instant) {
        let catching_up = self.back.is_some_and(|back| now - back < CATCH_UP);
        if count == 0 || (catching_up && self.away.is_none()) {
            return;
        }
        self.count += count;
        self.last = Some(now);
    }

    fn take(&mut self, kind: Kind, now: Instant) -> Option<TelemetryLoss> {
        let lately = self.last.is_some_and(|last| now - last < TOLD_FOR);
        if self.receiver.is_empty() || (self.away.is_none() && !lately) {
            return None;
        }
        Some(TelemetryLoss {
            kind: kind.into(),
            receiver: self.receiver.clone(),
            reason: self.away.as_deref().unwrap_or(SLOW).to_owned(),
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
        losses.spans_not_taken("refused");
        let of = |reason: &str, count| [(Kind::Spans, "http://jaeger:4317".into(), reason.into(), count)];
        assert_eq!(told(&losses, at(1)), of("refused", 0));
        losses.spans_lost(512, at(30));
        assert_eq!(told(&losses, at(31)), of("refused", 512));
        assert_eq!(told(&losses, at(3600)), of("refused", 0));
        losses.spans_lost(9, at(3600));
        losses.spans_taken(at(3600));
        losses.spans_lost(9, at(3601));
        assert_eq!(told(&losses, at(3601)), []);
        losses.spans_lost(3, at(3606));
        assert_eq!(told(&losses, at(3606)), of(SLOW, 3));
        assert_eq!(told(&losses, at(3905)), of(SLOW, 0));
        assert_eq!(told(&losses, at(3906)), []);
        losses.spans_not_taken("refused");
        losses.spans_go_to("");
        assert_eq!(told(&losses, at(3907)), []);
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
