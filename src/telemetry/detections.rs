//! What connections are found to carry, and how long it took to tell: with handles that are looked up once an outcome.

use std::{cell::RefCell, sync::Arc, time::Duration};

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use super::{
    names::Metric,
    prometheus::{IDLE_SERIES, Registry},
};
use crate::error::Hop;

/// A handle that has not been used for so long is looked up anew: the registry may have dropped its series by then, and would
/// not see what it counts.
const IDLE_HANDLE: Duration = IDLE_SERIES.checked_div(2).expect("2 is not 0");

/// Of one worker and one direction.
#[derive(Debug)]
pub struct Detections {
    registry: Arc<Registry>,
    hop: Hop,
    /// Few: outcomes are words of ours.
    outcomes: RefCell<Vec<Outcome>>,
}

#[derive(Debug)]
struct Outcome {
    word: &'static str,
    used: Instant,
    count: Counter,
    took: Histogram,
}

impl Outcome {
    fn of(registry: &Registry, hop: Hop, word: &'static str, used: Instant) -> Self {
        let labels = [hop.as_str(), word];
        let count = registry.counter(Metric::Detections, &labels);
        Self { word, used, count, took: registry.histogram(Metric::DetectionTime, &labels) }
    }
}

impl Detections {
    /// None yet.
    pub fn new(registry: Arc<Registry>, hop: Hop) -> Self {
        Self { registry, hop, outcomes: RefCell::default() }
    }

    /// Counts a connection that began at a time and has been told apart now.
    pub fn count(&self, word: &'static str, began: Instant, now: Instant) {
        let mut outcomes = self.outcomes.borrow_mut();
        let make = || Outcome::of(&self.registry, self.hop, word, now);
        let at = match outcomes.iter().position(|outcome| outcome.word == word) {
            Some(at) => at,
            None => {
                outcomes.push(make());
                outcomes.len() - 1
            }
        };
        let outcome = &mut outcomes[at];
        if now.saturating_duration_since(outcome.used) >= IDLE_HANDLE {
            *outcome = make();
        }
        outcome.used = now;
        outcome.count.increment(1);
        outcome.took.record(now.saturating_duration_since(began).as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_by_its_outcome_also_after_a_long_time() {
        let registry = Arc::new(Registry::new());
        let detections = Detections::new(registry.clone(), Hop::Outbound);
        let start = Instant::now();
        for (word, seconds) in [("tls", 0), ("tls", 1), ("http1", 1), ("tls", 4000)] {
            let now = start + Duration::from_secs(seconds);
            detections.count(word, now, now + Duration::from_millis(2));
        }
        let text = registry.render();
        for line in [
            "pillion_protocol_detections_total{direction=\"outbound\",outcome=\"tls\"} 3",
            "pillion_protocol_detections_total{direction=\"outbound\",outcome=\"http1\"} 1",
            "pillion_protocol_detection_duration_seconds_count{direction=\"outbound\",outcome=\"tls\"} 3",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
