//! How many requests a workload of the service works on at a time, and who goes first when that is too few.

use pillion_api::{model, wire};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HOUR, MILLISECOND, MINUTE, SECOND, check_number, matching::Client};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// For each workload of the service by itself, held by its own sidecar. Health probes are exempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// `adaptive`: as many as do not make requests slower (a gradient of latencies); a request counts until its response begins.
    /// `fixed`: `limit`; a request counts to the last byte of its response. Default: adaptive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Requests at a time; where it is adaptive, at first. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where it is adaptive, at most. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_limit: Option<u32>,
    /// Where it is adaptive: how the best latency is found, and how far from it requests may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// Those that wait for others to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Who goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityRules>,
}

/// As of Envoy's gradient controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adaptive {
    /// Between changes of the limit. Default: 100ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Between measurements of the best latency, for which 3 at a time are let through, so that others wait or are refused; by
    /// chance up to 15 % more. None is made where the workload has had quiet times meanwhile. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rtt_interval: Option<String>,
    /// Requests that a measurement takes. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rtt_requests: Option<u32>,
    /// How much slower than the best latency requests may be, percent. Default: 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer_percent: Option<u32>,
}

/// Requests that wait for others to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// At most; 0: none wait. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Each for so long. Default: 100ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// `critical`, `default` or `sheddable`: when too many want in, the sheddable are refused first, the critical last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriorityRules {
    /// A request header whose value is one of the three words; of clients outside the mesh, `critical` counts as
    /// `default`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// What some clients have whatever they say; the first that names a client holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<ClientPriority>>,
}

/// The priority of some clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientPriority {
    /// Whose.
    pub client: Client,
    /// `critical`, `default` or `sheddable`.
    pub priority: String,
}

const PRIORITIES: [(&str, wire::Priority); 3] = [
    ("critical", wire::Priority::Critical),
    ("default", wire::Priority::Default),
    ("sheddable", wire::Priority::Sheddable),
];

impl Concurrency {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        let fixed = match self.r#type.as_deref() {
            None | Some("adaptive") => false,
            Some("fixed") => true,
            Some(other) => {
                let message = format!("must be \"adaptive\" or \"fixed\", is {other:?}");
                faults.add(&at.field("type"), message);
                false
            }
        };
        if fixed && self.limit.is_none() {
            faults.add(&at.field("limit"), "is required where type is \"fixed\"");
        }
        for (field, given) in [("maxLimit", self.max_limit.is_some()), ("adaptive", self.adaptive.is_some())]
        {
            if fixed && given {
                faults.add(&at.field(field), "does not belong to type \"fixed\"");
            }
        }
        check_number(faults, &at.field("limit"), self.limit, 1, 100_000);
        let most = self.max_limit.unwrap_or(model::Adaptive::default().max_limit);
        if let Some(limit) = self.limit.filter(|limit| !fixed && *limit > most) {
            let message = format!("must not be above maxLimit, which is {most}, is {limit}");
            faults.add(&at.field("limit"), message);
        }
        check_number(faults, &at.field("maxLimit"), self.max_limit, 1, 100_000);
        if let Some(adaptive) = &self.adaptive {
            let at = at.field("adaptive");
            let (window, interval) = (adaptive.window.as_ref(), adaptive.min_rtt_interval.as_ref());
            duration::check(faults, &at.field("window"), window, 10 * MILLISECOND, MINUTE);
            duration::check(faults, &at.field("minRttInterval"), interval, SECOND, HOUR);
            check_number(faults, &at.field("minRttRequests"), adaptive.min_rtt_requests, 1, 10_000);
            check_number(faults, &at.field("bufferPercent"), adaptive.buffer_percent, 1, 1000);
        }
        if let Some(queue) = &self.queue {
            let at = at.field("queue");
            check_number(faults, &at.field("maxRequests"), queue.max_requests, 0, 10_000);
            duration::check(faults, &at.field("timeout"), queue.timeout.as_ref(), MILLISECOND, MINUTE);
        }
        if let Some(rules) = &self.priority {
            rules.check(faults, &at.field("priority"));
        }
    }

    /// As sidecars are told; `namespace` is the policy's.
    pub fn to_wire(&self, namespace: &str) -> wire::Concurrency {
        let adaptive = self.adaptive.clone().unwrap_or_default();
        let queue = self.queue.clone().unwrap_or_default();
        let rules = self.priority.clone().unwrap_or_default();
        let clients = rules.clients.iter().flatten().map(|it| wire::ClientPriority {
            client: Some(it.client.to_wire(namespace)),
            priority: priority(&it.priority).unwrap_or_default().into(),
        });
        wire::Concurrency {
            fixed: self.r#type.as_deref() == Some("fixed"),
            limit: self.limit.unwrap_or(0),
            max_limit: self.max_limit.unwrap_or(0),
            window_ms: duration::wire_ms(adaptive.window.as_ref()),
            min_rtt_interval_ms: duration::wire_ms(adaptive.min_rtt_interval.as_ref()),
            min_rtt_requests: adaptive.min_rtt_requests.unwrap_or(0),
            buffer_percent: adaptive.buffer_percent.unwrap_or(0),
            max_queue: queue.max_requests,
            queue_timeout_ms: duration::wire_ms(queue.timeout.as_ref()),
            priority_header: rules.header.as_deref().unwrap_or_default().to_ascii_lowercase(),
            clients: clients.collect(),
        }
    }
}

impl PriorityRules {
    fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(name) = &self.header {
            let at = at.field("header");
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                faults.add(&at, format!("is not a header name (RFC 9110): {name:?}"));
            } else if name.to_ascii_lowercase().starts_with("pillion-") {
                faults.add(&at, "fields that begin with \"pillion-\" do not go from caller to callee");
            }
        }
        let clients = self.clients.as_deref().unwrap_or_default();
        faults.check_length(&at.field("clients"), clients.len(), 64);
        for (index, it) in clients.iter().enumerate() {
            let at = at.field("clients").index(index);
            it.client.check(faults, &at.field("client"));
            if priority(&it.priority).is_none() {
                let words = PRIORITIES.map(|(name, _)| format!("{name:?}")).join(", ");
                faults.add(&at.field("priority"), format!("must be one of {words}, is {:?}", it.priority));
            }
        }
    }
}

fn priority(word: &str) -> Option<wire::Priority> {
    PRIORITIES.iter().find(|(name, _)| *name == word).map(|(_, priority)| *priority)
}
