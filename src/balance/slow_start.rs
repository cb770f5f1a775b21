//! The part of its share that a new endpoint has. Pure.

use std::time::Duration;

use pillion_api::model::SlowStart;

/// From the minimum to 1, evenly over the window. `since`: how long it has been there.
pub fn part(slow_start: SlowStart, since: Duration) -> f64 {
    let passed = since.as_secs_f64() / slow_start.window.as_secs_f64().max(1e-3);
    passed.clamp(slow_start.minimum, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_evenly_from_the_minimum() {
        let slow_start = SlowStart { window: Duration::from_secs(10), minimum: 0.2 };
        for (ms, expected) in [(0, 0.2), (1000, 0.2), (2000, 0.2), (5000, 0.5), (10_000, 1.0), (99_000, 1.0)]
        {
            let part = part(slow_start, Duration::from_millis(ms));
            assert!((part - expected).abs() < 1e-9, "{ms}: {part}");
        }
    }
}
