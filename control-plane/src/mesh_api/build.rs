//! Makes the dashboard's documents. Each looks at registry, publisher and history once, in that order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use pillion_api::{
    model::{self, USUAL_WEIGHT},
    wire::{self, EndpointGauge, endpoint_gauge::Breaker, health::Redirection, update::Kind},
};
use prost::Message;
use tokio::time::Instant;

use super::{
    MeshState,
    activity::{self, RepeatsView},
    faults, hops,
    hops::Way,
    nodes::{Callers, Nodes},
    series::{Span, series, summed},
    shares,
    view::{
        BreakerView, ControlPlaneView, Edge, EndpointView, Golden, MeshView, PolicyReference, RefusedUpdate,
        RouteBackend, RouteView, ServiceView, Window, WorkloadView, rounded, rounded_share,
    },
};
use crate::{
    explain,
    history::{self, EdgeKey, FINE_SPAN_S, Series},
    publish::Refusal,
    registry::{Member, Presence},
    resource::Documents,
};

/// Current figures are taken over this many seconds.
pub(super) const WINDOW_S: i64 = 10;
/// Shares of backends are taken over this many seconds: a small share needs more requests to show.
pub(super) const SHARE_WINDOW_S: i64 = 60;
/// Events on the first page.
const EVENTS: usize = 50;

/// Figures as they were at some moment; who is registered, and the documents, as they are now.
pub(super) fn mesh(state: &MeshState, at_ms: i64, now_ms: i64) -> MeshView {
    let nodes = Nodes::of(state);
    state.history.read(|history| {
        let edges: Vec<Edge> =
            history.edges().iter().filter_map(|(key, series)| edge(key, [series], WINDOW_S, at_ms)).collect();
        let mut names: BTreeSet<&str> = nodes.by_name.keys().map(String::as_str).collect();
        names.extend(edges.iter().flat_map(|edge| [edge.from.as_str(), edge.to.as_str()]));
        names.extend(edges.iter().filter_map(|edge| edge.backend.as_deref()));
        let callers = Callers::of(history);
        let summary = |name| nodes.summary(name, history, callers.of_service(name), at_ms);
        let services = names.into_iter().map(summary).collect();
        MeshView {
            server_time_ms: now_ms,
            started_ms: state.started_ms,
            version: env!("CARGO_PKG_VERSION"),
            trust_domain: state.trust_domain.clone(),
            window: Window { seconds: WINDOW_S },
            services,
            edges,
            faults: faults::active(&state.compiler.documents(), now_ms),
            events: history.events(EVENTS),
        }
    })
}

/// `None`: neither a service nor a workload is known by that name.
pub(super) fn service(
    state: &MeshState,
    documents: &Documents,
    name: &str,
    span: Span,
) -> Option<ServiceView> {
    let Span { seconds, until_ms: at_ms, now_ms } = span;
    let nodes = Nodes::of(state);
    let members = nodes.by_name.get(name)?;
    let config = config(state, name);
    // As sidecars read it.
    let known = config.clone().and_then(|config| model::Service::try_from(config).ok());
    let policy =
        known.as_ref().map(|known| explain::policy(name, &known.policy, documents, SystemTime::now()));
    state.history.read(|history| {
        let edges = || history.edges().iter();
        let seen = |(key, series): Way<'_>| edge(key, [series], seconds, at_ms);
        let callers: Vec<Way<'_>> = edges().filter(|(key, _)| key.leads_to(name)).collect();
        let measured = nodes.measured(name, history, &callers);
        let of_callers: Vec<&Series> = callers.iter().map(|(_, series)| *series).collect();
        // Callers know the whole way.
        let split = if of_callers.is_empty() { &measured } else { &of_callers };
        let look = hops::Look::new(history, SHARE_WINDOW_S, at_ms);
        Some(ServiceView {
            summary: nodes.summary(name, history, &callers, at_ms),
            server_time_ms: now_ms,
            series: series(&measured, split, span),
            endpoints: members.iter().map(|member| endpoint(member, history, at_ms, now_ms)).collect(),
            callers: callers.iter().copied().filter_map(seen).collect(),
            callees: edges().filter(|(key, _)| key.from == name).filter_map(seen).collect(),
            hops: look.at_node(&callers, &measured, name),
            edge_hops: look.at_edges(|key| [&key.from, &key.to, &key.backend].iter().any(|it| *it == name)),
            policies: config.as_ref().map(policies).unwrap_or_default(),
            backends: shares::backends(name, config.as_ref(), history, at_ms),
            policy,
            activity: activity::activity(
                name,
                known.as_ref().map(|known| &known.policy),
                history,
                seconds,
                at_ms,
            ),
            routes: known
                .iter()
                .flat_map(|known| known.routes.iter().map(|rule| route(rule, known)))
                .collect(),
        })
    })
}

pub(super) fn config(state: &MeshState, name: &str) -> Option<wire::ServiceConfig> {
    let service = state.publisher.service(name)?;
    let decoded = wire::ServiceConfig::decode(service.config.bytes.clone());
    Some(decoded.expect("the compiler encodes what it can decode"))
}

pub(super) fn workloads(state: &MeshState, now_ms: i64, now: Instant) -> Vec<WorkloadView> {
    listed(state, &state.registry.members(), now_ms, now)
}

pub(super) fn listed(state: &MeshState, members: &[Member], now_ms: i64, now: Instant) -> Vec<WorkloadView> {
    let memberships = state.publisher.memberships();
    state.history.read(|history| {
        let view = |member: &Member| {
            let (uid, hello, health) = (member.uid(), &member.workload.hello, member.health());
            let sidecar = history.sidecars().get(uid);
            WorkloadView {
                uid: uid.to_owned(),
                workload: hello.workload.clone(),
                service: memberships.get(uid).and_then(|services| services.first()).map(ToString::to_string),
                namespace: member.workload.namespace.clone(),
                spiffe_id: member.workload.spiffe_id.clone(),
                address: hello.inbound_address.clone(),
                version: hello.version.clone(),
                connected: member.connected(),
                connected_ms: member.since_ms,
                lease_ends_ms: match member.presence {
                    Presence::Connected(_) => None,
                    Presence::Lost { expires } => {
                        let left = expires.saturating_duration_since(now).as_millis();
                        Some(now_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX)))
                    }
                },
                waiting_since_ms: member.waiting.since_ms().filter(|_| member.connected()),
                redirected: match health.redirection() {
                    Redirection::Untold => None,
                    Redirection::Redirected => Some(true),
                    Redirection::Amiss => Some(false),
                },
                ready: health.ready,
                reason: health.reason,
                certificate_not_before_ms: sidecar
                    .map(|sidecar| sidecar.certificate_not_before_ms)
                    .filter(|not_before| *not_before > 0),
                certificate_not_after_ms: sidecar
                    .map(|sidecar| sidecar.certificate_not_after_ms)
                    .filter(|not_after| *not_after > 0),
                clock_skew_ms: sidecar.and_then(|sidecar| sidecar.clock_skew_ms),
                certificates_renewed: sidecar.map_or(0, |sidecar| sidecar.certificates_renewed),
                subscriptions: state.publisher.subscriptions_of(uid),
                lost_telemetry: sidecar
                    .map_or(&[][..], |sidecar| &sidecar.losses)
                    .iter()
                    .map(Into::into)
                    .collect(),
                refused_updates: state.publisher.refusals.of_sidecar(uid).iter().map(refused).collect(),
            }
        };
        members.iter().map(view).collect()
    })
}

pub(super) fn control_plane(state: &MeshState, now_ms: i64) -> ControlPlaneView {
    let (members, last) = (state.registry.members(), state.publisher.last());
    ControlPlaneView {
        version: env!("CARGO_PKG_VERSION"),
        server_time_ms: now_ms,
        started_ms: state.started_ms,
        trust_domain: state.trust_domain.clone(),
        workloads: members.len(),
        connected: members.iter().filter(|member| member.connected()).count(),
        store_revision: last.revision,
        compile_ms: rounded(last.took.as_secs_f64() * 1000.0),
        authority_not_after_ms: state.authority_not_after_ms,
        trust_anchors: state.trust_anchors.clone(),
        leaf_ttl_seconds: state.leaf_ttl.as_secs(),
        compile_faults: last.faults,
        refused_updates: state.publisher.refusals.list().iter().map(refused).collect(),
    }
}

fn golden<'a>(measured: impl IntoIterator<Item = &'a Series>, at_ms: i64) -> Golden {
    let (sum, existed) = summed(measured, WINDOW_S, at_ms);
    Golden::of(&sum, existed)
}

/// `None` for an edge that was not used within the two minutes before. Retries are few: they are of the last `seconds`.
pub(super) fn edge<'a>(
    key: &EdgeKey,
    measured: impl IntoIterator<Item = &'a Series> + Clone,
    seconds: i64,
    at_ms: i64,
) -> Option<Edge> {
    let (counts, existed) = summed(measured.clone(), WINDOW_S, at_ms);
    let lately = if counts.any() { None } else { Some(summed(measured.clone(), FINE_SPAN_S, at_ms).0) };
    if lately.as_ref().is_some_and(|lately| !lately.any()) {
        return None;
    }
    let repeats = match seconds {
        WINDOW_S => RepeatsView::of(&counts.actions),
        seconds => RepeatsView::of(&summed(measured, seconds, at_ms).0.actions),
    };
    // Between calls an edge keeps the lock that its last calls had.
    let mtls = counts.encrypted().or_else(|| lately.as_ref()?.encrypted());
    Some(Edge {
        from: key.from.clone(),
        to: key.to.clone(),
        backend: Some(key.backend.clone()).filter(|backend| !backend.is_empty()),
        golden: Golden::of(&counts, existed),
        mtls,
        // Sidecars speak nothing older to each other.
        tls_version: mtls.filter(|mtls| *mtls).map(|_| "TLS 1.3"),
        refusals: rates(&counts.refusals, existed),
        refusals_by_callee: rates(&counts.refusals_by_callee, existed),
        repeats: repeats.some(),
    })
}

pub(super) fn rates(counts: &BTreeMap<String, u64>, seconds: f64) -> BTreeMap<String, f64> {
    counts.iter().map(|(reason, &count)| (reason.clone(), rounded(count as f64 / seconds))).collect()
}

pub(super) fn endpoint(member: &Member, history: &history::State, at_ms: i64, now_ms: i64) -> EndpointView {
    let (hello, health) = (&member.workload.hello, member.health());
    let breakers = history
        .sidecars()
        .values()
        .flat_map(|sidecar| sidecar.gauges_of(member.uid()).map(|gauge| breaker(sidecar, gauge, now_ms)));
    EndpointView {
        uid: member.uid().to_owned(),
        workload: hello.workload.clone(),
        address: hello.inbound_address.clone(),
        ready: health.ready,
        reason: health.reason,
        spiffe_id: member.workload.spiffe_id.clone(),
        zone: hello.zone.clone(),
        weight: if hello.weight == 0 { USUAL_WEIGHT } else { hello.weight },
        golden: golden(history.instance(member.uid()), at_ms),
        hops: hops::of_all(
            history.instance(member.uid()),
            &summed(history.instance(member.uid()), SHARE_WINDOW_S, at_ms).0,
            SHARE_WINDOW_S,
            at_ms,
        ),
        breakers: breakers.collect(),
    }
}

fn breaker(sidecar: &history::Sidecar, gauge: &EndpointGauge, now_ms: i64) -> BreakerView {
    let since = (now_ms - sidecar.reported_ms).max(0);
    BreakerView {
        from: sidecar.source.clone(),
        workload: sidecar.workload.clone(),
        service: gauge.service.clone(),
        state: match gauge.breaker() {
            Breaker::Closed => "closed",
            Breaker::Open => "open",
            Breaker::HalfOpen => "half-open",
        },
        in_flight: gauge.in_flight,
        share: if (0.0..=1.0).contains(&gauge.share) { rounded_share(gauge.share.into()) } else { 0.0 },
        latency_ms: f64::from(gauge.latency_us) / 1000.0,
        opened: gauge.opened,
        opened_reason: gauge.opened_reason.clone(),
        open_ms: (i64::from(gauge.open_ms) - since).max(0),
    }
}

/// The documents that took part in a service's configuration.
pub(super) fn policies(config: &wire::ServiceConfig) -> Vec<PolicyReference> {
    let kind = |rule: &wire::RouteRule| if rule.grpc { "GRPCRoute" } else { "HTTPRoute" };
    let routes = config.routes.iter().map(|rule| (kind(rule), rule.route.as_str()));
    let policy = config.policy.iter().map(|policy| ("TrafficPolicy", policy.source.as_str()));
    let references: BTreeSet<PolicyReference> = routes
        .chain(policy)
        .filter_map(|(kind, source)| {
            let (namespace, name) = source.split_once('/')?;
            Some(PolicyReference { kind, namespace: namespace.to_owned(), name: name.to_owned() })
        })
        .collect();
    references.into_iter().collect()
}

fn route(rule: &model::RouteRule, service: &model::Service) -> RouteView {
    let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let backends = rule.backends.iter().map(|backend| RouteBackend {
        service: backend.service.to_string(),
        port: backend.port,
        share_percent: match total {
            0 => 0.0,
            total => rounded(f64::from(backend.weight) * 100.0 / total as f64),
        },
    });
    RouteView {
        route: rule.route.clone(),
        rule: rule.rule.clone(),
        conditions: explain::conditions(rule),
        effects: explain::effects(rule, service.policy.request_timeout),
        backends: backends.collect(),
    }
}

fn refused(refusal: &Refusal) -> RefusedUpdate {
    RefusedUpdate {
        service: refusal.service.clone(),
        kind: if refusal.kind == Kind::Config { "config" } else { "endpoints" },
        version: refusal.version.clone(),
        reason: refusal.reason.clone(),
        time_ms: refusal.at_ms,
        uid: refusal.uid.clone(),
    }
}
