//! How many of the requests stay in the caller's own zone. Pure.

use pillion_api::model::Locality;

/// What there is of a zone, by weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Zone {
    /// Of all its endpoints.
    pub all: u64,
    /// Of those that are ready and whose breakers are closed.
    pub well: u64,
}

/// The share of requests, 0 to 1, that stays in the own zone.
///
/// As Envoy's priorities with their overprovisioning factor: the zone keeps all while the well part of it, times the factor, is
/// the whole; below that as much goes to the other zones as is missing. So one endpoint of four lost changes nothing at a factor of
/// 1.4, and a zone that is lost has nothing. Envoy's other way, by the callers' number in each zone, would need every
/// caller to know of all others.
pub fn own_share(locality: Option<Locality>, own: Zone, others: Zone) -> f64 {
    let Some(Locality { overprovisioning }) = locality else { return 0.0 };
    if own.all == 0 {
        return 0.0;
    }
    if others.well == 0 && own.well > 0 {
        return 1.0;
    }
    (overprovisioning * own.well as f64 / own.all as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FACTOR: Option<Locality> = Some(Locality { overprovisioning: 1.4 });

    fn zone(well: u64, all: u64) -> Zone {
        Zone { all, well }
    }

    #[test]
    fn shares() {
        for (own, others, expected) in [
            (zone(4, 4), zone(8, 8), 1.0),
            (zone(3, 4), zone(8, 8), 1.0),
            (zone(2, 4), zone(8, 8), 0.7),
            (zone(1, 4), zone(8, 8), 0.35),
            (zone(0, 4), zone(8, 8), 0.0),
            // Nobody there, or nobody elsewhere.
            (zone(0, 0), zone(8, 8), 0.0),
            (zone(1, 4), zone(0, 8), 1.0),
            (zone(0, 4), zone(0, 8), 0.0),
        ] {
            assert!((own_share(FACTOR, own, others) - expected).abs() < 1e-9, "{own:?} {others:?}");
            assert_eq!(own_share(None, own, others), 0.0);
        }
    }

    proptest! {
        /// It is a share; more that is well never sends more away; and the zone is never asked to carry more than the factor times
        /// what each of its endpoints has when all are well.
        #[test]
        fn it_spills_over_evenly(all in 1u64..10_000, well in 0u64..10_000, others in 1u64..10_000, percent in 100u32..1000) {
            let well = well.min(all);
            let locality = Some(Locality { overprovisioning: f64::from(percent) / 100.0 });
            let share = |well| own_share(locality, zone(well, all), zone(others, others));
            prop_assert!((0.0..=1.0).contains(&share(well)));
            prop_assert!(share(well) <= share((well + 1).min(all)));
            prop_assert_eq!(share(all), 1.0);
            let each = share(well) / well.max(1) as f64;
            prop_assert!(each <= f64::from(percent) / 100.0 / all as f64 + 1e-9);
        }
    }
}
