//! What became of each breaker between two reports of a sidecar.

use std::collections::BTreeMap;

use pillion_api::wire::{EndpointGauge, endpoint_gauge::Breaker};

use super::{EventKind, MAX_NAME};
use crate::said;

/// A sidecar's latest gauges by (service, endpoint UID).
pub(super) type Gauges = BTreeMap<(String, String), EndpointGauge>;

/// Gauges kept of one sidecar.
const MAX_GAUGES: usize = 8192;
/// An instance's UID, as the control plane takes it from a sidecar.
const MAX_UID: usize = 128;
/// Characters kept of why a breaker opened.
const MAX_REASON: usize = 200;

pub(super) fn gauges(reported: &[EndpointGauge]) -> Gauges {
    let possible = |gauge: &&EndpointGauge| {
        said::is_name(&gauge.service, MAX_NAME) && said::is_name(&gauge.uid, MAX_UID)
    };
    let keyed = |gauge: &EndpointGauge| {
        let opened_reason = said::words(&gauge.opened_reason, MAX_REASON);
        let kept =
            EndpointGauge { service: gauge.service.clone(), uid: gauge.uid.clone(), opened_reason, ..*gauge };
        ((gauge.service.clone(), gauge.uid.clone()), kept)
    };
    reported.iter().take(MAX_GAUGES).filter(possible).map(keyed).collect()
}

/// What happened to the breakers, with the gauge after it. An endpoint that is new counts as closed before; one that
/// opened and closed in between did both.
pub(super) fn transitions<'a>(before: &Gauges, after: &'a Gauges) -> Vec<(EventKind, &'a EndpointGauge)> {
    let mut happened = Vec::new();
    for (key, now) in after {
        let (was, opened) = match before.get(key) {
            Some(gauge) => (gauge.breaker(), gauge.opened),
            None if now.breaker() == Breaker::Closed => continue,
            None => (Breaker::Closed, now.opened.saturating_sub(1)),
        };
        // A count that went back is another sidecar process under the same name.
        let opened_again = now.opened > opened || (was == Breaker::Closed && now.breaker() == Breaker::Open);
        if opened_again {
            happened.push((EventKind::BreakerOpened, now));
        }
        match now.breaker() {
            Breaker::HalfOpen if was != Breaker::HalfOpen => {
                happened.push((EventKind::BreakerHalfOpened, now));
            }
            Breaker::Closed if was != Breaker::Closed || opened_again => {
                happened.push((EventKind::BreakerClosed, now));
            }
            _ => {}
        }
    }
    happened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_a_breaker_is_told_once() {
        use Breaker::{Closed, HalfOpen, Open};
        use EventKind::{BreakerClosed, BreakerHalfOpened, BreakerOpened};
        type Step = (Option<(Breaker, u64)>, (Breaker, u64), &'static [EventKind]);
        let table: [Step; 10] = [
            (None, (Closed, 0), &[]),
            (None, (Closed, 4), &[]),
            (None, (Open, 1), &[BreakerOpened]),
            (Some((Closed, 0)), (Open, 1), &[BreakerOpened]),
            (Some((Open, 1)), (Open, 1), &[]),
            (Some((Open, 1)), (HalfOpen, 1), &[BreakerHalfOpened]),
            (Some((HalfOpen, 1)), (Open, 2), &[BreakerOpened]),
            (Some((HalfOpen, 1)), (Closed, 1), &[BreakerClosed]),
            (Some((Closed, 1)), (Closed, 2), &[BreakerOpened, BreakerClosed]),
            (Some((Open, 3)), (Open, 4), &[BreakerOpened]),
        ];
        let of = |(breaker, opened): (Breaker, u64)| {
            let gauge = EndpointGauge {
                service: "payments.demo".into(),
                uid: "p3".into(),
                breaker: breaker.into(),
                opened,
                ..EndpointGauge::default()
            };
            gauges(&[gauge])
        };
        for (before, after, expected) in table {
            let (was, now) = (before.map(of).unwrap_or_default(), of(after));
            let kinds: Vec<EventKind> = transitions(&was, &now).iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds, expected, "{before:?} → {after:?}");
        }
    }
}
