//! Which of the sidecars that are meant have no stream here, as far as that is worth telling.

use std::{collections::BTreeMap, time::Duration};

/// A stream that is lost for a shorter time mostly is being opened anew.
const GRACE: Duration = Duration::from_secs(5);
/// How long it is told that one is there again.
const BACK: Duration = Duration::from_secs(10);

/// What one tap's reader is told of it.
#[derive(Debug, Clone, Default)]
pub struct Away {
    /// Names of those that have had no stream for a while, by UID.
    lost: BTreeMap<String, String>,
    /// Names of those that were lost and are here again, with when that was seen.
    back: BTreeMap<String, i64>,
    /// Some have lost theirs just now.
    lately: bool,
}

/// A sidecar that is meant.
#[derive(Debug, Clone)]
pub struct Meant {
    /// Of its workload.
    pub uid: String,
    /// Of its workload.
    pub name: String,
    /// It has a stream here.
    pub connected: bool,
    /// Since when that is so; milliseconds since the Unix epoch.
    pub since_ms: i64,
}

impl Away {
    /// Takes in how it is now. One that is registered no more is neither lost nor back.
    pub fn review(&mut self, meant: impl IntoIterator<Item = Meant>, now_ms: i64) {
        let passed =
            |since_ms: i64, span: Duration| i128::from(now_ms - since_ms) >= span.as_millis() as i128;
        let before = std::mem::take(&mut self.lost);
        self.lately = false;
        for Meant { uid, name, connected, since_ms } in meant {
            match connected {
                true if before.contains_key(&uid) => drop(self.back.insert(name, now_ms)),
                true => {}
                false if before.contains_key(&uid) || passed(since_ms, GRACE) => {
                    self.back.remove(&name);
                    self.lost.insert(uid, name);
                }
                false => self.lately = true,
            }
        }
        self.back.retain(|_, at_ms| !passed(*at_ms, BACK));
    }

    /// How many are lost.
    pub(super) fn len(&self) -> usize {
        self.lost.len()
    }

    /// Whether all have a stream.
    pub(super) fn nobody(&self) -> bool {
        self.lost.is_empty() && !self.lately
    }

    pub(super) fn lost(&self) -> Vec<String> {
        self.lost.values().cloned().collect()
    }

    pub(super) fn back(&self) -> Vec<String> {
        self.back.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_as_lost_after_a_while_and_as_back_for_a_while() {
        let mut away = Away::default();
        let grace = GRACE.as_millis() as i64;
        let mut at = |connected: bool, since_ms: i64, now_ms: i64| {
            let meant = Meant { uid: "a-1".into(), name: "a".into(), connected, since_ms };
            away.review([meant], now_ms);
            (away.lost().len(), away.back().len(), away.nobody())
        };
        assert_eq!(at(true, 0, 1000), (0, 0, true));
        assert_eq!(at(false, 2000, 2000), (0, 0, false), "it has a moment to come back");
        assert_eq!(at(true, 3000, 3000), (0, 0, true), "and nobody heard that it was gone");
        assert_eq!(at(false, 4000, 4000 + grace - 1), (0, 0, false));
        assert_eq!(at(false, 4000, 4000 + grace), (1, 0, false));
        assert_eq!(at(true, 20_000, 20_000), (0, 1, true));
        assert_eq!(at(true, 20_000, 20_000 + BACK.as_millis() as i64), (0, 0, true));
        assert_eq!(at(false, 40_000, 40_000 + grace), (1, 0, false));
        away.review([], 50_000);
        assert!(away.lost().is_empty() && away.back().is_empty(), "who has left is not back");
    }
}
