//! Which telemetry of a sidecar does not reach whoever is to have it, and since when.

use pillion_api::wire::{TelemetryLoss, telemetry_loss::Kind};

use crate::said;

/// Taken of one report: there is one of each kind.
const MAX: usize = 4;
/// Characters kept of a receiver, and of a reason.
const MAX_WORDS: usize = 300;

/// Of one kind, to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Of what.
    pub kind: Kind,
    /// Who does not get it.
    pub receiver: String,
    /// Why, in the sidecar's words.
    pub reason: String,
    /// Lost since then.
    pub count: u64,
    /// When it was told first; milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When anything was lost last. `None`: nothing yet.
    pub last_lost_ms: Option<i64>,
}

/// As a report tells them after `known`. What it does not tell of any more is over.
pub(super) fn after(known: &[Loss], told: &[TelemetryLoss], now_ms: i64) -> Vec<Loss> {
    let named = told.iter().take(MAX).filter(|told| told.kind() != Kind::Unspecified);
    named
        .map(|told| {
            let (kind, receiver) = (told.kind(), said::words(&told.receiver, MAX_WORDS));
            let known = known.iter().find(|known| known.kind == kind && known.receiver == receiver);
            let before = known.map_or((0, now_ms, None), |it| (it.count, it.since_ms, it.last_lost_ms));
            Loss {
                kind,
                receiver,
                reason: said::words(&told.reason, MAX_WORDS),
                count: before.0.saturating_add(told.count),
                since_ms: before.1,
                last_lost_ms: if told.count > 0 { Some(now_ms) } else { before.2 },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_from_when_it_was_told_first_for_as_long_as_it_is() {
        let told = |kind: Kind, receiver: &str, reason: &str, count| TelemetryLoss {
            kind: kind.into(),
            receiver: receiver.into(),
            reason: reason.into(),
            count,
        };
        let shown = |known: &[Loss]| {
            let each = known
                .iter()
                .map(|it| (it.receiver.clone(), it.reason.clone(), it.count, it.since_ms, it.last_lost_ms));
            each.collect::<Vec<_>>()
        };
        let first = after(&[], &[told(Kind::Spans, "jaeger", "refused", 0)], 1000);
        assert_eq!(shown(&first), [("jaeger".into(), "refused".into(), 0, 1000, None)]);
        let both =
            [told(Kind::Spans, "jaeger", "no answer", 512), told(Kind::AccessLogLines, "jaeger", "slow", 1)];
        let second = after(&first, &both, 2000);
        let lines = ("jaeger".to_owned(), "slow".to_owned(), 1, 2000, Some(2000));
        assert_eq!(shown(&second), [("jaeger".into(), "no answer".into(), 512, 1000, Some(2000)), lines]);
        let third = after(&second, &[told(Kind::Spans, "jaeger", "no answer", 0)], 3000);
        assert_eq!(shown(&third), [("jaeger".into(), "no answer".into(), 512, 1000, Some(2000))]);
        let other = [told(Kind::Spans, "tempo", "refused", 1), told(Kind::Unspecified, "x", "", 1)];
        let fourth = after(&third, &other, 4000);
        assert_eq!(shown(&fourth), [("tempo".into(), "refused".into(), 1, 4000, Some(4000))]);
        assert_eq!(after(&fourth, &[], 5000), []);
        let harmful = [told(Kind::Spans, "a\nb", "\u{1b}[2J\tgone", 1)];
        let tamed = ("a b".into(), " [2J gone".into(), 1, 6000, Some(6000));
        let once = after(&[], &harmful, 6000);
        assert_eq!(shown(&once), [tamed]);
        assert_eq!(after(&once, &harmful, 7000)[0].count, 2, "it is known by what is kept");
        let much = vec![told(Kind::Spans, &"x".repeat(999), "", 1); 99];
        let kept = after(&[], &much, 1);
        assert_eq!((kept.len(), kept[0].receiver.len()), (MAX, MAX_WORDS));
    }
}
