//! Where requests' time went, as it is told.

use pillion_api::hops::Segment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    build::Nodes,
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
        })
    }
}

/// Of several series together.
pub(super) fn of_all<'a>(
    series: impl IntoIterator<Item = &'a Series>,
    seconds: i64,
    now_ms: i64,
) -> Option<HopsView> {
    let (mut spent, mut counts) = (Spent::default(), Counts::default());
    for series in series {
        spent.add(&series.hops(now_ms, seconds));
        counts.add(&series.recent(now_ms, seconds).0);
    }
    HopsView::of(&spent, &counts)
}

/// Of all requests to a node: as its callers see it, who know the whole way; else by its own sidecars.
pub(super) fn of_node(
    nodes: &Nodes,
    name: &str,
    history: &history::State,
    seconds: i64,
    now_ms: i64,
) -> Option<HopsView> {
    let called = |key: &EdgeKey| key.to == name || key.backend == name;
    let edges = history.edges().iter().filter(|(key, _)| called(key)).map(|(_, series)| series);
    of_all(edges, seconds, now_ms).or_else(|| of_all(nodes.measured(name, history), seconds, now_ms))
}

/// Of each edge that `which` is true of.
pub(super) fn of_edges(
    history: &history::State,
    which: impl Fn(&EdgeKey) -> bool,
    seconds: i64,
    now_ms: i64,
) -> Vec<EdgeHops> {
    let edges = history.edges().iter().filter(|(key, _)| which(key));
    let view = |(key, series): (&EdgeKey, &Series)| {
        of_all([series], seconds, now_ms).map(|hops| EdgeHops {
            from: key.from.clone(),
            to: key.to.clone(),
            backend: Some(key.backend.clone()).filter(|backend| !backend.is_empty()),
            hops,
        })
    };
    edges.filter_map(view).collect()
}
