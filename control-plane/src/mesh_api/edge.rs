//! The document of one edge: all that goes from one node to a service.

use std::collections::BTreeSet;

use super::{
    MeshState,
    build::{self, SHARE_WINDOW_S, edge},
    hops,
    nodes::Nodes,
    series::{Span, series, summed},
    view::{Edge, EdgeView, EndpointView, PolicyReference},
};
use crate::history::{EdgeKey, Series};

/// `None`: nothing has gone that way for as long as anything is kept.
pub(super) fn page(state: &MeshState, from: &str, to: &str, span: Span) -> Option<EdgeView> {
    let Span { seconds, until_ms: at_ms, now_ms } = span;
    let nodes = Nodes::of(state);
    state.history.read(|history| {
        let ways: Vec<(&EdgeKey, &Series)> =
            history.edges().iter().filter(|(key, _)| key.from == from && key.to == to).collect();
        let measured: Vec<&Series> = ways.iter().map(|(_, series)| *series).collect();
        let key = EdgeKey { from: from.to_owned(), to: to.to_owned(), backend: String::new() };
        let (_, first) = ways.first()?;
        let whole = edge(&key, measured.iter().copied(), seconds, at_ms);
        // One that has fallen silent has its past still.
        let whole = whole.unwrap_or_else(|| Edge::silent(&key, first.recent(at_ms, seconds).0.encrypted()));
        let serving: BTreeSet<&str> = ways.iter().map(|(key, _)| key.serving()).collect();
        let mut endpoints: Vec<EndpointView> = Vec::new();
        for member in serving.iter().filter_map(|name| nodes.by_name.get(*name)).flatten() {
            if endpoints.iter().any(|known| known.uid == member.uid()) {
                continue;
            }
            let mut view = build::endpoint(member, history, at_ms, now_ms);
            view.breakers.retain(|breaker| breaker.from == from);
            endpoints.push(view);
        }
        let documents = serving.iter().copied().chain([to]).filter_map(|name| build::config(state, name));
        let documents: BTreeSet<PolicyReference> =
            documents.flat_map(|config| build::policies(&config)).collect();
        let (counts, _) = summed(measured.iter().copied(), SHARE_WINDOW_S, at_ms);
        let look = hops::Look::new(history, SHARE_WINDOW_S, at_ms);
        Some(EdgeView {
            edge: whole,
            server_time_ms: now_ms,
            series: series(&measured, &measured, span),
            hops: look.at_ways(ways.iter().copied(), &counts, to),
            backends: ways.iter().filter_map(|(key, series)| edge(key, [*series], seconds, at_ms)).collect(),
            endpoints,
            policies: documents.into_iter().collect(),
        })
    })
}
