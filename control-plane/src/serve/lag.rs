//! How long a sidecar takes from an update's sending to its answer. Time is an argument.

use std::time::Duration;

use pillion_api::wire::{Update, update::Kind};
use tokio::time::Instant;

/// Of one sidecar's stream: the one update whose answer is waited for. Others that are on their way meanwhile are not measured.
#[derive(Debug, Default)]
pub(super) struct Lag(Option<Awaited>);

#[derive(Debug)]
struct Awaited {
    service: String,
    kind: Kind,
    version: String,
    since: Instant,
}

impl Lag {
    /// An update was sent. In place of an awaited one of the same kind it is what the sidecar should have, for as long.
    pub(super) fn sent(&mut self, update: &Update, now: Instant) {
        match &mut self.0 {
            Some(awaited) if awaited.service == update.service => {
                if awaited.kind == update.kind() {
                    awaited.version.clone_from(&update.version);
                } else if update.kind() == Kind::Absent {
                    self.0 = None;
                }
            }
            Some(_) => {}
            None if update.kind() == Kind::Absent => {}
            None => {
                let (service, version) = (update.service.clone(), update.version.clone());
                self.0 = Some(Awaited { service, kind: update.kind(), version, since: now });
            }
        }
    }

    /// The sidecar answered; gives how long that took if it is what was waited for.
    pub(super) fn answered(
        &mut self,
        service: &str,
        kind: Kind,
        version: &str,
        now: Instant,
    ) -> Option<Duration> {
        let awaited = self.0.take_if(|awaited| {
            (awaited.service.as_str(), awaited.kind, awaited.version.as_str()) == (service, kind, version)
        })?;
        Some(now.saturating_duration_since(awaited.since))
    }

    /// Whether an answer is waited for.
    pub(super) fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// The sidecar does not want the service any more.
    pub(super) fn unsubscribed(&mut self, service: &str) {
        self.0.take_if(|awaited| awaited.service == service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(service: &str, kind: Kind, version: &str) -> Update {
        Update { service: service.into(), kind: kind.into(), version: version.into(), ..Update::default() }
    }

    #[test]
    fn one_update_at_a_time_is_waited_for() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        lag.sent(&update("a.x", Kind::Config, "1"), start);
        lag.sent(&update("b.x", Kind::Config, "1"), after(1));
        assert_eq!(lag.answered("b.x", Kind::Config, "1", after(2)), None);
        assert!(lag.waits());
        // A newer version in its place: the sidecar has been behind since the first.
        lag.sent(&update("a.x", Kind::Config, "2"), after(3));
        assert_eq!(lag.answered("a.x", Kind::Config, "1", after(4)), None);
        assert_eq!(lag.answered("a.x", Kind::Config, "2", after(5)), Some(Duration::from_millis(5)));
        assert_eq!(lag.answered("a.x", Kind::Config, "2", after(6)), None);
        assert!(!lag.waits());
    }

    #[test]
    fn what_is_not_answered_any_more_is_not_waited_for() {
        let (mut lag, now) = (Lag::default(), Instant::now());
        for end in [Lag::unsubscribed as fn(&mut Lag, &str), |lag, service| {
            lag.sent(&update(service, Kind::Absent, ""), Instant::now());
        }] {
            lag.sent(&update("a.x", Kind::Endpoints, "1"), now);
            end(&mut lag, "a.x");
            assert!(!lag.waits());
            lag.sent(&update("b.x", Kind::Config, "1"), now);
            assert_eq!(lag.answered("b.x", Kind::Config, "1", now), Some(Duration::ZERO));
        }
    }
}
