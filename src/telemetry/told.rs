//! Counters of what policies do: Prometheus and the control plane are told the same numbers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::Counter;
use pillion_api::wire::{PolicyCount, policy_count::Action};

use super::names::Metric;

/// Clients named in one report of those that a service's limits were for.
const CLIENTS: usize = 5;

/// Cells that are counted in where things happen, and emptied about once a second.
#[derive(Debug, Default)]
pub(super) struct Told {
    cells: Mutex<HashMap<Labelled, Arc<AtomicU64>>>,
    /// Emptied, but the control plane has not been told yet.
    untold: Mutex<BTreeMap<Done, u64>>,
}

/// A metric with the values of its labels.
type Labelled = (Metric, Box<[Box<str>]>);
/// Of which service, what, and about what.
type Done = (String, Action, String);

impl Told {
    /// Whether the control plane is told of a metric.
    pub(super) fn includes(metric: Metric) -> bool {
        matches!(
            metric,
            Metric::Fallbacks
                | Metric::Mirrored
                | Metric::PanicPicks
                | Metric::BreakersSpared
                | Metric::FaultsInjected
                | Metric::RateLimitRequests
                | Metric::ConcurrencyShed
        )
    }

    /// The cell of a series, and whether there was none.
    pub(super) fn counter(&self, metric: Metric, values: &[&str]) -> (Counter, bool) {
        let labelled = (metric, values.iter().map(|value| Box::from(*value)).collect());
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !cells.contains_key(&labelled);
        (Counter::from_arc(cells.entry(labelled).or_default().clone()), new)
    }

    /// Empties the cells into `count`, and forgets those that nobody holds.
    pub(super) fn empty(&self, count: impl Fn(Metric, &[&str], u64)) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|(metric, values), cell| {
            // Nobody can come to hold it now; so what a last holder has counted is there.
            let held = Arc::strong_count(cell) > 1;
            let more = cell.swap(0, Ordering::AcqRel);
            if more > 0 {
                let values: Vec<&str> = values.iter().map(|value| &**value).collect();
                count(*metric, &values, more);
                for done in done(*metric, &values) {
                    *untold.entry(done).or_default() += more;
                }
            }
            held
        });
    }

    /// Everything since this was asked last.
    pub(super) fn take(&self) -> Vec<PolicyCount> {
        let done = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts: Vec<PolicyCount> = done
            .into_iter()
            .map(|((service, action, about), count)| PolicyCount {
                service,
                action: action.into(),
                about,
                count,
            })
            .collect();
        // The most first; so those that are left out are the least.
        counts.sort_by_key(|count| std::cmp::Reverse(count.count));
        let mut named = HashMap::<String, usize>::new();
        counts.retain(|count| {
            if count.action() != Action::RateLimitedClient {
                return true;
            }
            let named = named.entry(count.service.clone()).or_default();
            *named += 1;
            *named <= CLIENTS
        });
        counts
    }
}

/// What a series tells of: the same for all series that differ in what the control plane does not keep.
fn done(metric: Metric, values: &[&str]) -> Vec<Done> {
    let one = |action, about: &str| vec![(values[0].to_owned(), action, about.to_owned())];
    match (metric, values) {
        (Metric::Fallbacks, [_, reason, _, "served"]) => one(Action::FallbackServed, reason),
        (Metric::Fallbacks, [_, reason, ..]) => one(Action::FallbackFailed, reason),
        (Metric::Mirrored, [_, outcome]) => one(Action::Mirrored, outcome),
        (Metric::PanicPicks, _) => one(Action::PanicPick, ""),
        (Metric::BreakersSpared, _) => one(Action::BreakerSpared, ""),
        (Metric::FaultsInjected, [_, fault, "delay"]) => one(Action::FaultDelayed, fault),
        (Metric::FaultsInjected, [_, fault, _]) => one(Action::FaultAborted, fault),
        (Metric::RateLimitRequests, [_, limit, _, "admitted"]) => one(Action::RateAdmitted, limit),
        (Metric::RateLimitRequests, [service, limit, client, _]) => vec![
            ((*service).to_owned(), Action::RateLimited, (*limit).to_owned()),
            ((*service).to_owned(), Action::RateLimitedClient, (*client).to_owned()),
        ],
        (Metric::ConcurrencyShed, [_, _, priority]) => one(Action::Shed, priority),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Service, action, about and count of all that is told.
    fn told(told: &Told) -> Vec<(String, Action, String, u64)> {
        let counts = told.take();
        let mut counts: Vec<_> = counts
            .into_iter()
            .map(|count| {
                let action = count.action();
                (count.service, action, count.about, count.count)
            })
            .collect();
        counts.sort();
        counts
    }

    #[test]
    fn every_metric_that_is_told_becomes_something() {
        for metric in Metric::ALL.iter().filter(|metric| Told::includes(**metric)) {
            let values = vec!["payments.demo"; metric.labels().len()];
            assert!(!done(*metric, &values).is_empty(), "{}", metric.name());
            assert!(matches!(metric.labels()[0], "target" | "service"), "{}", metric.name());
        }
    }

    #[test]
    fn both_are_told_the_same_and_once() {
        let all = Told::default();
        let counted = std::cell::RefCell::new(Vec::new());
        let empty =
            || all.empty(|metric, values, more| counted.borrow_mut().push((metric, values.len(), more)));
        let (served, new) = all.counter(Metric::Fallbacks, &["a.n", "no-endpoints", "b.n", "served"]);
        assert!(new && !all.counter(Metric::Fallbacks, &["a.n", "no-endpoints", "b.n", "served"]).1);
        served.increment(2);
        all.counter(Metric::Fallbacks, &["a.n", "no-endpoints", "response", "served"]).0.increment(1);
        empty();
        empty();
        assert_eq!(told(&all), [("a.n".into(), Action::FallbackServed, "no-endpoints".into(), 3)]);
        assert!(all.take().is_empty());
        counted.borrow_mut().sort_by_key(|(.., more)| *more);
        assert_eq!(counted.take(), [(Metric::Fallbacks, 4, 1), (Metric::Fallbacks, 4, 2)]);
        assert_eq!(all.cells.lock().expect("it is whole").len(), 1, "one is held");
        drop(served);
        empty();
        assert!(all.cells.lock().expect("it is whole").is_empty());
    }

    #[test]
    fn of_clients_only_those_limited_most_are_named() {
        let all = Told::default();
        for client in 1..=20_u64 {
            let name = format!("client-{client}");
            let labels = ["a.n", "all", &*name];
            all.counter(Metric::RateLimitRequests, &[&labels[..], &["limited"]].concat()).0.increment(client);
            all.counter(Metric::RateLimitRequests, &[&labels[..], &["admitted"]].concat()).0.increment(1);
        }
        all.empty(|_, _, _| {});
        let told = told(&all);
        assert!(told.contains(&("a.n".into(), Action::RateAdmitted, "all".into(), 20)));
        assert!(told.contains(&("a.n".into(), Action::RateLimited, "all".into(), 210)));
        let clients: u64 = (told.iter().filter(|(_, action, ..)| *action == Action::RateLimitedClient))
            .map(|(.., count)| count)
            .sum();
        assert_eq!((told.len(), clients), (2 + CLIENTS, 20 + 19 + 18 + 17 + 16));
    }
}
