//! Where requests' time went, as it is told.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use pillion_api::hops::Segment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    series::summed,
    verdict::{Between, Means, Onward, SHORT_OF_CPU, Served, VerdictView, verdict},
    view::{rounded, rounded_share},
};
use crate::history::{self, Counts, EdgeKey, Series, Spent, Tally};

/// What the requests of an edge, or all to a service, spent their time with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HopsView {
    /// Whose time was split.
    pub requests: u64,
    /// Of the whole request, milliseconds.
    pub mean_ms: f64,
    /// The same; null while nothing has been counted for whole seconds.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// In the order of the way; those that had any.
    pub segments: Vec<SegmentView>,
    /// What stands out; null where it is not of whole ways.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// The same by the workload that served, as callers see it; the slowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadHops>,
}

/// What the requests that one workload served spent their time with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadHops {
    /// What people call it.
    pub workload: String,
    /// Whose time was split.
    pub requests: u64,
    /// Of the whole request, milliseconds.
    pub mean_ms: f64,
    /// In the order of the way; those that had any.
    pub segments: Vec<WorkloadSegment>,
}

/// One segment of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSegment {
    /// As in the whole.
    pub segment: String,
    /// Milliseconds.
    pub mean_ms: f64,
    /// Of the whole, 0 to 1.
    pub share: f64,
}

/// One segment of requests' way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SegmentView {
    /// `caller`, `client-sidecar`, `retries`, `network`, `server-sidecar`, `application`, `application-body` or `upstream`.
    pub segment: String,
    /// Milliseconds; those of all segments add up to the whole's.
    pub mean_ms: f64,
    /// Of the whole, 0 to 1.
    pub share: f64,
    /// Over all requests, milliseconds.
    pub p50_ms: f64,
    /// Over all requests, milliseconds.
    pub p99_ms: f64,
}

/// The same, of one edge.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeHops {
    /// The caller.
    pub from: String,
    /// The service called.
    pub to: String,
    /// The service that served it where a route chose another, else null.
    pub backend: Option<String>,
    /// As the caller's sidecars, and with them the callee's, measured it.
    #[serde(flatten)]
    pub hops: HopsView,
}

impl HopsView {
    /// Of what was counted of the same requests. `None`: no time was split.
    pub(super) fn of(spent: &Spent, counts: &Counts) -> Option<Self> {
        let means = Segment::ALL.map(|segment| (segment, spent.mean_ms(segment)));
        let whole: f64 = means.iter().map(|(_, mean)| mean).sum();
        let segment = |(segment, mean_ms): (Segment, f64)| SegmentView {
            segment: segment.name().to_owned(),
            mean_ms: rounded(mean_ms),
            share: rounded_share(mean_ms / whole),
            p50_ms: rounded(spent.quantile_ms(segment, 0.5)),
            p99_ms: rounded(spent.quantile_ms(segment, 0.99)),
        };
        let segments = means.into_iter().filter(|(_, mean)| *mean > 0.0).map(segment).collect();
        (whole > 0.0).then(|| Self {
            requests: spent.requests(),
            mean_ms: rounded(whole),
            p50_ms: counts.quantile_ms(0.5).map(rounded),
            p99_ms: counts.quantile_ms(0.99).map(rounded),
            segments,
            verdict: None,
            workloads: Vec::new(),
        })
    }
}

/// Of several series together, of which `counts` were counted in that time.
pub(super) fn of_all<'a>(
    series: impl IntoIterator<Item = &'a Series>,
    counts: &Counts,
    seconds: i64,
    now_ms: i64,
) -> Option<HopsView> {
    let mut spent = Spent::default();
    series.into_iter().for_each(|series| spent.add(&series.hops(now_ms, seconds)));
    HopsView::of(&spent, counts)
}

/// Workloads that are told apart at once.
const MAX_WORKLOADS: usize = 100;

/// A caller's way to a service, and what was counted there.
pub(super) type Way<'a> = (&'a EdgeKey, &'a Series);

/// A look at the last `seconds` before some moment.
pub(super) struct Look<'a> {
    history: &'a history::State,
    /// Sidecars that are short of CPU: nearly always none.
    starved: Vec<&'a history::Sidecar>,
    seconds: i64,
    at_ms: i64,
    /// What was read of an edge: it is asked for those who call, and for those who are called.
    read: RefCell<BTreeMap<&'a EdgeKey, Rc<Spent>>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(history: &'a history::State, seconds: i64, at_ms: i64) -> Self {
        let is_starved = |sidecar: &&history::Sidecar| sidecar.stalled(at_ms) >= SHORT_OF_CPU;
        let starved = history.sidecars().values().filter(is_starved).collect();
        Self { history, starved, seconds, at_ms, read: RefCell::default() }
    }

    fn spent(&self, (key, series): Way<'a>) -> Rc<Spent> {
        let mut read = self.read.borrow_mut();
        read.entry(key).or_insert_with(|| Rc::new(series.hops(self.at_ms, self.seconds))).clone()
    }

    /// Several ways together, as their callers see them, who know the whole of it. `counts`: what was counted there in that
    /// time. `to`: what is called.
    pub(super) fn at_ways(
        &self,
        ways: impl IntoIterator<Item = Way<'a>>,
        counts: &Counts,
        to: &str,
    ) -> Option<HopsView> {
        let mut spent = Spent::default();
        let mut callers = BTreeSet::new();
        // A workload's name is one of its namespace, which need not be that of what is called.
        let mut by_workload = BTreeMap::<(Option<&str>, &str), history::Served>::new();
        for (key, series) in ways {
            let of_way = self.spent((key, series));
            if of_way.requests() > 0 {
                callers.insert(key.from.as_str());
            }
            spent.add(&of_way);
            for (workload, served) in self.history.served(key, self.at_ms, self.seconds) {
                by_workload.entry((namespace(key.serving()), workload)).or_default().add(&served);
            }
        }
        let view = HopsView::of(&spent, counts)?;
        let served =
            by_workload.into_iter().map(|((within, workload), history::Served { spent, failed })| Served {
                workload: workload.to_owned(),
                means: Means::from(&spent),
                failing: u64::from(failed) * 2 >= u64::from(spent.requests()),
                short_of_cpu: self
                    .starved
                    .iter()
                    .any(|sidecar| sidecar.workload == workload && namespace(&sidecar.source) == within),
            });
        let mut served: Vec<Served> = served.collect();
        served.sort_by(|one, other| other.means.whole().total_cmp(&one.means.whole()));
        let is_caller = |sidecar: &&history::Sidecar| callers.contains(sidecar.source.as_str());
        let starved_callers: Vec<String> =
            self.starved.iter().copied().filter(is_caller).map(|sidecar| sidecar.workload.clone()).collect();
        let calling = if starved_callers.is_empty() {
            0
        } else {
            self.history.sidecars().values().filter(is_caller).count()
        };
        let between = Between {
            from: callers.first().filter(|_| callers.len() == 1).map(|name| short(name)),
            to: short(to),
            starved_callers,
            calling,
            onward: self.onward(to, spent.requests()),
        };
        Some(HopsView {
            verdict: Some(verdict(&Means::from(&spent), &served, &between)),
            workloads: served.iter().take(MAX_WORKLOADS).map(WorkloadHops::from).collect(),
            ..view
        })
    }

    /// What a service that was asked so often has called itself.
    fn onward(&self, service: &str, requests: u64) -> Vec<Onward> {
        let of_service = EdgeKey { from: service.to_owned(), to: String::new(), backend: String::new() };
        let ways = self.history.edges().range(of_service..).take_while(|(key, _)| key.from == service);
        let mut onward = BTreeMap::<&str, f64>::new();
        for (key, series) in ways {
            let spent = self.spent((key, series));
            let ms = Means::from(&*spent).whole() * spent.requests() as f64 / requests.max(1) as f64;
            *onward.entry(&key.to).or_default() += ms;
        }
        onward.into_iter().map(|(to, ms)| Onward { to: short(to), ms }).collect()
    }

    /// All requests to a node: as its callers see it; else by what was measured of it.
    pub(super) fn at_node(&self, callers: &[Way<'a>], measured: &[&Series], name: &str) -> Option<HopsView> {
        let (counts, _) = self.counts(callers.iter().map(|(_, series)| *series));
        let own = || {
            let (counts, _) = self.counts(measured.iter().copied());
            of_all(measured.iter().copied(), &counts, self.seconds, self.at_ms)
        };
        self.at_ways(callers.iter().copied(), &counts, name).or_else(own)
    }

    fn counts<'s>(&self, series: impl IntoIterator<Item = &'s Series>) -> (Counts, f64) {
        summed(series, self.seconds, self.at_ms)
    }

    /// Each edge that `which` is true of.
    pub(super) fn at_edges(&self, which: impl Fn(&EdgeKey) -> bool) -> Vec<EdgeHops> {
        let edges = self.history.edges().iter().filter(|(key, _)| which(key));
        let view = |way @ (key, series): Way<'a>| {
            let (counts, _) = self.counts([series]);
            self.at_ways([way], &counts, key.serving()).map(|hops| EdgeHops {
                from: key.from.clone(),
                to: key.to.clone(),
                backend: Some(key.backend.clone()).filter(|backend| !backend.is_empty()),
                hops,
            })
        };
        edges.filter_map(view).collect()
    }
}

impl From<&Served> for WorkloadHops {
    fn from(Served { workload, means, .. }: &Served) -> Self {
        let whole = means.whole();
        let segment = |segment: Segment| WorkloadSegment {
            segment: segment.name().to_owned(),
            mean_ms: rounded(means.of(segment)),
            share: rounded_share(means.of(segment) / whole),
        };
        let segments = Segment::ALL.into_iter().filter(|it| means.of(*it) > 0.0).map(segment).collect();
        Self { workload: workload.clone(), requests: means.requests, mean_ms: rounded(whole), segments }
    }
}

fn namespace(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, namespace)| namespace)
}

fn short(name: &str) -> String {
    name.split_once('.').map_or(name, |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::{EdgeDelta, SegmentDelta, Telemetry};

    use super::*;
    use crate::history::{History, Reporter};

    const NOW_MS: i64 = 1_000_000_000_000;

    fn told(history: &History, source: &str, workload: &str, telemetry: &Telemetry) {
        let reporter = Reporter { uid: workload, workload, source, services: &[], registered: true };
        history.record(reporter, telemetry, NOW_MS, |_| None);
    }

    /// 20 requests of 80 ms, most of which they spent in the sidecar of `pay-1`, to which another namespace's service leads.
    fn to_another_namespace(interval_ms: u32) -> Telemetry {
        let segment = |segment: Segment, ms: u64| SegmentDelta {
            segment: segment as i32,
            sum_us: ms * 20_000,
            ..SegmentDelta::default()
        };
        let delta = EdgeDelta {
            peer: "shop.demo".into(),
            backend: "pay.bank".into(),
            workload: "pay-1".into(),
            requests: 20,
            split_requests: 20,
            segments: vec![segment(Segment::Server, 70), segment(Segment::Application, 10)],
            ..EdgeDelta::default()
        };
        Telemetry { interval_ms, edges: vec![delta], ..Telemetry::default() }
    }

    fn verdict_of_shop(history: &History) -> VerdictView {
        history.read(|state| {
            let ways = state.edges().iter();
            let (look, counts) = (Look::new(state, 60, NOW_MS), Counts::default());
            let view = look.at_ways(ways, &counts, "shop.demo").expect("it was asked");
            view.verdict.expect("something is said")
        })
    }

    #[test]
    fn a_workload_is_known_by_the_namespace_of_what_it_serves() {
        let starved = |interval_ms| Telemetry {
            interval_ms,
            watched_us: 10_000_000,
            stalled_us: 6_000_000,
            ..Telemetry::default()
        };
        for (source, interval_ms, expected) in [
            ("pay.bank", 1000, "the sidecar of pay-1 is short of CPU: most of the time is there"),
            ("pay.demo", 1000, "most of the time requests wait in the sidecar of shop"),
            // Ten minutes that are told at once say nothing of now.
            ("pay.bank", 600_000, "most of the time requests wait in the sidecar of shop"),
        ] {
            let history = History::default();
            told(&history, "web.demo", "web-1", &to_another_namespace(1000));
            told(&history, source, "pay-1", &starved(interval_ms));
            let VerdictView { text, .. } = verdict_of_shop(&history);
            assert!(text.starts_with(expected), "{source} {interval_ms}: {text}");
        }
    }

    #[test]
    fn what_was_gathered_for_long_is_told_by_service_only() {
        let history = History::default();
        told(&history, "web.demo", "web-1", &to_another_namespace(600_000));
        let (edges, workloads) = history.read(|state| {
            let (look, counts) = (Look::new(state, 60, NOW_MS), Counts::default());
            let view = look.at_ways(state.edges(), &counts, "shop.demo").expect("it was asked");
            (view.requests, view.workloads.len())
        });
        assert_eq!((edges, workloads), (20, 0));
    }
}
