//! `/v1/mesh/stat`: figures of services, workloads or edges over a window that the asker chooses.

use std::collections::BTreeMap;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Handlers, MeshState,
    activity::RepeatsView,
    fresh, hops,
    nodes::{Callers, Nodes, lone_name},
    problem,
    series::summed,
    view::{NodeKind, StatKind, StatRow, StatView, rounded, rounded_share},
};
use crate::{
    clock::unix_ms,
    history::{self, Counts, EdgeKey, SPAN_S},
    registry::Member,
    resource::hint,
};

/// What is asked.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Default: services.
    #[serde(default)]
    kind: StatKind,
    /// Seconds. Default: 60.
    #[serde(default = "a_minute")]
    window: i64,
    /// Only those of this namespace.
    namespace: Option<String>,
    /// Only this service, or workload that belongs to none; of edges those that lead to it or come from it.
    of: Option<String>,
    /// Only requests of this caller.
    from: Option<String>,
    /// Only requests to this service.
    to: Option<String>,
}

fn a_minute() -> i64 {
    60
}

/// Figures of services, workloads or edges over a window
#[utoipa::path(
    get,
    path = "/v1/mesh/stat",
    params(Wanted),
    responses(
        (status = 200, description = "The figures", body = StatView),
        (status = 400, description = "The question is wrong"),
        (status = 404, description = "The mesh knows no such service or workload"),
    ),
)]
pub(super) async fn stat(
    State(handlers): State<Handlers>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let wanted = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    if !(1..=SPAN_S).contains(&wanted.window) {
        let detail = format!("window must be from 1 to {SPAN_S} seconds, is {}", wanted.window);
        return problem(StatusCode::BAD_REQUEST, &detail);
    }
    let narrowed = wanted.of.is_some() || wanted.from.is_some() || wanted.to.is_some();
    if wanted.kind == StatKind::Workloads && narrowed {
        let detail = "from and to are for services and edges, and so is of: of workloads only all that reaches them is known";
        return problem(StatusCode::BAD_REQUEST, detail);
    }
    let nodes = Nodes::of(&handlers.state);
    match handlers.state.history.read(|history| absent(&nodes, history, &wanted)) {
        Some(absent) => problem(StatusCode::NOT_FOUND, &absent),
        None => fresh(figures(&handlers.state, &nodes, &wanted, unix_ms())),
    }
}

/// What is asked about that the mesh does not know, and did not within the time of which anything is kept.
fn absent(nodes: &Nodes, history: &history::State, wanted: &Wanted) -> Option<String> {
    let is_known = |name: &str| {
        let told = || {
            history.edges().keys().any(|key| [&key.from, &key.to, &key.backend].iter().any(|it| *it == name))
        };
        nodes.kind(name) != NodeKind::Unknown || told()
    };
    let mut names = [&wanted.of, &wanted.from, &wanted.to].into_iter().flatten();
    let absent = names.find(|name| !is_known(name))?;
    let hint = hint::did_you_mean(absent, nodes.names());
    Some(format!("there is neither a service nor a workload {absent:?} (a name is NAME.NAMESPACE){hint}"))
}

fn figures(state: &MeshState, nodes: &Nodes, wanted: &Wanted, now_ms: i64) -> StatView {
    let rows = state.history.read(|history| match wanted.kind {
        StatKind::Services => services(nodes, history, wanted, now_ms),
        StatKind::Workloads => workloads(state, history, wanted, now_ms),
        StatKind::Edges => edges(history, wanted, now_ms),
    });
    StatView { server_time_ms: now_ms, kind: wanted.kind, window_seconds: wanted.window, rows }
}

fn services(nodes: &Nodes, history: &history::State, wanted: &Wanted, now_ms: i64) -> Vec<StatRow> {
    if wanted.from.is_some() || wanted.to.is_some() {
        return of_edges(nodes, history, wanted, now_ms);
    }
    let look = hops::Look::new(history, wanted.window, now_ms);
    let callers = Callers::of(history);
    // Nothing is summed twice: of a long window that is what takes the time, while reports wait.
    let row = |(name, members): (&String, &Vec<Member>)| {
        let ways = callers.of_service(name);
        let of_callers = summed(ways.iter().map(|(_, series)| *series), wanted.window, now_ms);
        let own = history.service(name).filter(|_| !members.is_empty());
        let of_own = (!members.is_empty()).then(|| summed(own, wanted.window, now_ms));
        let figures = of_own.as_ref().unwrap_or(&of_callers);
        let mut row = row(name, figures);
        row.hops = look
            .at_ways(ways.iter().copied(), &of_callers.0, name)
            .or_else(|| hops::of_all(own, &figures.0, wanted.window, now_ms));
        row.repeats = RepeatsView::of(&of_callers.0.actions).some();
        (row.ready, row.instances) = (Some(nodes.ready(name)), Some(members.len()));
        row
    };
    let is_wanted = |name: &str| match &wanted.of {
        Some(of) => of == name,
        None => nodes.kind(name) == NodeKind::Service,
    };
    let wanted_ones = nodes.by_name.iter().filter(|(name, _)| is_wanted(name) && within(wanted, name));
    wanted_ones.map(row).collect()
}

/// One side of the edges that fit: whom the caller calls; else who calls the service.
fn of_edges(nodes: &Nodes, history: &history::State, wanted: &Wanted, now_ms: i64) -> Vec<StatRow> {
    let mut by_name: BTreeMap<&str, Vec<hops::Way<'_>>> = BTreeMap::new();
    for way @ (key, _) in history.edges().iter().filter(|(key, _)| fits(key, wanted)) {
        let side = if wanted.from.is_some() { &key.to } else { &key.from };
        by_name.entry(side).or_default().push(way);
    }
    let look = hops::Look::new(history, wanted.window, now_ms);
    let of_side = by_name.into_iter().filter(|(name, _)| within(wanted, name)).map(|(name, ways)| {
        let sum = summed(ways.iter().map(|(_, series)| *series), wanted.window, now_ms);
        let mut row = row(name, &sum);
        let called = wanted.to.as_deref().filter(|_| wanted.from.is_none()).unwrap_or(name);
        row.hops = look.at_ways(ways, &sum.0, called);
        (row.ready, row.instances) = (Some(nodes.ready(name)), Some(nodes.members(name).len()));
        row
    });
    of_side.collect()
}

fn workloads(state: &MeshState, history: &history::State, wanted: &Wanted, now_ms: i64) -> Vec<StatRow> {
    let memberships = state.publisher.memberships();
    let mut rows: Vec<StatRow> = (state.registry.members().iter())
        .map(|member| {
            let measured = history.instance(member.uid());
            let sum = summed(measured, wanted.window, now_ms);
            let mut row = row(&lone_name(member), &sum);
            let service = memberships.get(member.uid()).and_then(|services| services.first());
            row.service = service.map(ToString::to_string);
            // As its own sidecar sees it.
            row.hops = hops::of_all(measured, &sum.0, wanted.window, now_ms);
            (row.ready, row.instances) = (Some(usize::from(member.health().ready)), Some(1));
            row
        })
        .filter(|row| within(wanted, &row.name))
        .collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

fn edges(history: &history::State, wanted: &Wanted, now_ms: i64) -> Vec<StatRow> {
    let look = hops::Look::new(history, wanted.window, now_ms);
    let fitting = history.edges().iter().filter(|(key, _)| fits(key, wanted));
    let fitting = fitting.filter(|(key, _)| within(wanted, &key.from) || within(wanted, &key.to));
    fitting
        .map(|(key, series)| {
            let sum = summed([series], wanted.window, now_ms);
            let mut row = row(&key.to, &sum);
            row.hops = look.at_ways([(key, series)], &sum.0, key.serving());
            row.from = Some(key.from.clone());
            row.backend = Some(key.backend.clone()).filter(|backend| !backend.is_empty());
            row
        })
        .filter(|row| {
            row.rps > 0.0
                || row.connections > 0
                || !row.refusals.is_empty()
                || !row.refusals_by_callee.is_empty()
        })
        .collect()
}

fn fits(key: &EdgeKey, wanted: &Wanted) -> bool {
    wanted.of.as_ref().is_none_or(|of| [&key.from, &key.to, &key.backend].contains(&of))
        && wanted.from.as_ref().is_none_or(|from| *from == key.from)
        && wanted.to.as_ref().is_none_or(|to| *to == key.to || *to == key.backend)
}

fn within(wanted: &Wanted, name: &str) -> bool {
    let namespace = name.split_once('.').map(|(_, namespace)| namespace);
    wanted.namespace.is_none() || wanted.namespace.as_deref() == namespace
}

/// Of what was counted, and for how many seconds.
fn row(name: &str, (sum, existed): &(Counts, f64)) -> StatRow {
    StatRow {
        name: name.to_owned(),
        from: None,
        backend: None,
        service: None,
        ready: None,
        instances: None,
        requests: sum.requests,
        rps: rounded(sum.requests as f64 / existed),
        success_rate: sum.success_rate().map(rounded_share),
        p50_ms: sum.quantile_ms(0.5).map(rounded),
        p95_ms: sum.quantile_ms(0.95).map(rounded),
        p99_ms: sum.quantile_ms(0.99).map(rounded),
        connections: sum.connections,
        mtls: sum.encrypted(),
        refusals: some(&sum.refusals),
        refusals_by_callee: some(&sum.refusals_by_callee),
        hops: None,
        repeats: RepeatsView::of(&sum.actions).some(),
    }
}

fn some(refusals: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let told = refusals.iter().filter(|(_, count)| **count > 0);
    told.map(|(reason, count)| (reason.clone(), *count)).collect()
}

#[cfg(test)]
mod tests;
