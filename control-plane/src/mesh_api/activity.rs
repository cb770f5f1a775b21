//! What the policies of a service did, in figures: for the page of the service, over the span that it shows.

use std::collections::BTreeMap;

use pillion_api::model::{Budget, TrafficPolicy};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::rounded;
use crate::history::{self, Action, Actions, Counts, Tally};

/// Clients named of those that rate limits were for.
const CLIENTS: usize = 5;

/// Retries and hedges. What is zero is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RepeatsView {
    /// Attempts beyond the first of a request.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// Requests that ended well for them.
    #[serde(skip_serializing_if = "is_zero")]
    pub recovered: u64,
    /// Retries that the budget did not allow.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries_over_budget: u64,
    /// Requests sent to a second endpoint as well.
    #[serde(skip_serializing_if = "is_zero")]
    pub hedges: u64,
    /// Those that it answered first.
    #[serde(skip_serializing_if = "is_zero")]
    pub hedges_won: u64,
    /// Hedges that the budget did not allow.
    #[serde(skip_serializing_if = "is_zero")]
    pub hedges_over_budget: u64,
}

impl RepeatsView {
    pub(super) fn of(actions: &Actions) -> Self {
        Self {
            retries: actions.total(Action::Retry),
            recovered: actions.total(Action::Recovered),
            retries_over_budget: actions.total(Action::RetryOverBudget),
            hedges: actions.total(Action::Hedge),
            hedges_won: actions.total(Action::HedgeWon),
            hedges_over_budget: actions.total(Action::HedgeOverBudget),
        }
    }

    /// `None` where there were none.
    pub(super) fn some(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// Counts by a name: of a reason, an outcome, a limit.
type Named = BTreeMap<String, u64>;

/// What the policies of a service did. What did not happen is not sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityView {
    /// Over how long.
    pub seconds: i64,
    /// Of its requests, how many may be retries; null for what is no service.
    pub retry_budget_percent: Option<u32>,
    /// How many may be hedges; null without such a policy.
    pub hedge_budget_percent: Option<u32>,
    /// Retries and hedges of requests to it.
    #[serde(flatten)]
    pub repeats: RepeatsView,
    /// Requests that its fallback took over, by why it was needed.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub fallbacks_served: Named,
    /// Those that it could not serve either.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub fallbacks_failed: Named,
    /// Copies of others' requests that were sent to it, by what became of them.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub mirrored: Named,
    /// Endpoints chosen whatever their breakers say.
    #[serde(skip_serializing_if = "is_zero")]
    pub panic_picks: u64,
    /// Times that a breaker stayed closed, since enough others were open.
    #[serde(skip_serializing_if = "is_zero")]
    pub breakers_spared: u64,
    /// Requests that had to wait, by fault.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub faults_delayed: Named,
    /// Requests that were answered with an error, by fault.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub faults_aborted: Named,
    /// Requests that passed a rate limit.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub rate_admitted: Named,
    /// Requests that did not.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub rate_limited: Named,
    /// Whose these were: those with the most, the most first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limited_clients: Vec<ClientView>,
    /// Requests that were more than its workloads can work on, by priority.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub shed: Named,
    /// How many requests its workloads work on at a time; none without such a policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub concurrency: Vec<ConcurrencyView>,
}

/// A client that was limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClientView {
    /// As the limit knows it.
    pub client: String,
    /// Its requests that did not pass.
    pub limited: u64,
}

/// A workload's limit now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyView {
    /// Whose.
    pub workload: String,
    /// For which port of the application.
    pub port: u32,
    /// Requests that may be under way.
    pub limit: u32,
    /// Those that are.
    pub in_flight: u32,
    /// Those that wait.
    pub queued: u32,
    /// The latency against which an adaptive limit is held; null where there is none (yet).
    pub min_rtt_ms: Option<f64>,
}

pub(super) fn activity(
    service: &str,
    policy: Option<&TrafficPolicy>,
    history: &history::State,
    seconds: i64,
    now_ms: i64,
) -> ActivityView {
    let mut edges = Counts::default();
    for (_, series) in history.edges().iter().filter(|(key, _)| key.leads_to(service)) {
        edges.add(&series.recent(now_ms, seconds).0);
    }
    let series = history.policies(service);
    let actions = series.map(|series| series.recent(now_ms, seconds).0.actions).unwrap_or_default();
    let by = |action| actions.by(action).map(|(about, count)| (about.to_owned(), count)).collect();
    ActivityView {
        seconds,
        retry_budget_percent: policy.map(|policy| budget(policy).percent),
        hedge_budget_percent: policy.and_then(|policy| Some(policy.hedge.as_ref()?.budget.percent)),
        repeats: RepeatsView::of(&edges.actions),
        fallbacks_served: by(Action::FallbackServed),
        fallbacks_failed: by(Action::FallbackFailed),
        mirrored: by(Action::Mirrored),
        panic_picks: actions.total(Action::PanicPick),
        breakers_spared: actions.total(Action::BreakerSpared),
        faults_delayed: by(Action::FaultDelayed),
        faults_aborted: by(Action::FaultAborted),
        rate_admitted: by(Action::RateAdmitted),
        rate_limited: by(Action::RateLimited),
        limited_clients: clients(&actions),
        shed: by(Action::Shed),
        concurrency: concurrency(service, history),
    }
}

/// What is surely not processed is retried without a policy, too.
fn budget(policy: &TrafficPolicy) -> Budget {
    policy.retry.as_ref().map_or(Budget::RETRY, |retry| retry.budget)
}

fn clients(actions: &Actions) -> Vec<ClientView> {
    let mut clients: Vec<ClientView> = (actions.by(Action::RateLimitedClient))
        .map(|(client, limited)| ClientView { client: client.to_owned(), limited })
        .collect();
    clients.sort_by_key(|client| std::cmp::Reverse(client.limited));
    clients.truncate(CLIENTS);
    clients
}

fn concurrency(service: &str, history: &history::State) -> Vec<ConcurrencyView> {
    let all = history.sidecars().values().flat_map(|sidecar| {
        let of_service = sidecar.concurrency.iter().filter(|gauge| gauge.service == service);
        of_service.map(|gauge| ConcurrencyView {
            workload: sidecar.workload.clone(),
            port: gauge.port,
            limit: gauge.limit,
            in_flight: gauge.in_flight,
            queued: gauge.queued,
            min_rtt_ms: (gauge.min_rtt_us > 0).then(|| rounded(f64::from(gauge.min_rtt_us) / 1000.0)),
        })
    });
    let mut all: Vec<ConcurrencyView> = all.collect();
    all.sort_by(|one, other| (&one.workload, one.port).cmp(&(&other.workload, other.port)));
    all
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::{EdgeDelta, PolicyCount, Telemetry, policy_count};

    use super::*;
    use crate::history::{History, Reporter};

    const NOW_MS: i64 = 1_000_000_000_000;

    #[test]
    fn what_did_not_happen_is_not_sent_and_the_rest_is_by_name() {
        let history = History::default();
        let reporter =
            Reporter { uid: "u", workload: "web-1", source: "web.demo", services: &[], registered: true };
        let edge = |backend: &str, retries| EdgeDelta {
            peer: "payments.demo".into(),
            backend: backend.into(),
            retries,
            ..EdgeDelta::default()
        };
        let limited = |client: &str, count| PolicyCount {
            service: "payments.demo".into(),
            action: policy_count::Action::RateLimitedClient.into(),
            about: client.into(),
            count,
        };
        let telemetry = Telemetry {
            interval_ms: 1000,
            edges: vec![edge("payments-v1.demo", 3), edge("payments-v2.demo", 1)],
            policies: (1..10).map(|count| limited(&format!("c{count}"), count)).collect(),
            ..Telemetry::default()
        };
        history.record(reporter, &telemetry, NOW_MS, |_| None);
        let of = |service: &str| {
            let view = history.read(|state| activity(service, None, state, 60, NOW_MS + 1000));
            serde_json::to_value(view).expect("it is plain")
        };
        assert_eq!(
            of("payments-v1.demo"),
            serde_json::json!({"seconds": 60, "retryBudgetPercent": null, "hedgeBudgetPercent": null, "retries": 3})
        );
        assert_eq!(of("cart.demo").as_object().map(serde_json::Map::len), Some(3));
        let payments = of("payments.demo");
        assert_eq!(payments["retries"], 4);
        let clients = payments["limitedClients"].as_array().expect("a list");
        assert_eq!((clients.len(), &clients[0]), (5, &serde_json::json!({"client": "c9", "limited": 9})));
    }
}
