//! Where requests' time went, as it is told.

use std::collections::{BTreeMap, BTreeSet};

use pillion_api::hops::Segment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    series::summed,
    verdict::{Between, Means, SHORT_OF_CPU, Served, VerdictView, verdict},
    view::{rounded, rounded_share},
};
use crate::history::{self, Counts, EdgeKey, Series, Spent, SpentSums, Tally};

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
}

impl<'a> Look<'a> {
    pub(super) fn new(history: &'a history::State, seconds: i64, at_ms: i64) -> Self {
        let is_starved = |sidecar: &&history::Sidecar| sidecar.stalled(at_ms) >= SHORT_OF_CPU;
        let starved = history.sidecars().values().filter(is_starved).collect();
        Self { history, starved, seconds, at_ms }
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
        let (mut callers, mut by_workload) = (BTreeSet::new(), BTreeMap::<&str, SpentSums>::new());
        for (key, series) in ways {
            let of_way = series.hops(self.at_ms, self.seconds);
            if of_way.requests() > 0 {
                callers.insert(key.from.as_str());
            }
            spent.add(&of_way);
            for (workload, sums) in self.history.served(key, self.at_ms, self.seconds) {
                by_workload.entry(workload).or_default().add(&sums);
            }
        }
        let view = HopsView::of(&spent, counts)?;
        let served = by_workload.into_iter().map(|(workload, sums)| Served {
            workload: workload.to_owned(),
            means: Means::from(&sums),
            short_of_cpu: self
                .starved
                .iter()
                .any(|sidecar| sidecar.workload == workload && namespace(&sidecar.source) == namespace(to)),
        });
        let mut served: Vec<Served> = served.collect();
        served.sort_by(|one, other| other.means.whole().total_cmp(&one.means.whole()));
        let starved_caller = self.starved.iter().find(|sidecar| callers.contains(sidecar.source.as_str()));
        let between = Between {
            from: callers.first().filter(|_| callers.len() == 1).map(|name| short(name)),
            to: short(to),
            starved_caller: starved_caller.map(|sidecar| sidecar.workload.clone()),
        };
        Some(HopsView {
            verdict: Some(verdict(&Means::from(&spent), &served, &between)),
            workloads: served.iter().take(MAX_WORKLOADS).map(WorkloadHops::from).collect(),
            ..view
        })
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
    name.split_once('.').map(|(_, namespace)| namespace)
}

fn short(name: &str) -> String {
    name.split_once('.').map_or(name, |(name, _)| name).to_owned()
}
