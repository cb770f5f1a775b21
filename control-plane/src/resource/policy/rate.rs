//! How many requests a workload of the service takes in a time, in all and of each client.

use std::collections::BTreeSet;

use pillion_api::wire;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    HOUR, MANY, SECOND, check_number,
    matching::{Client, RequestMatch, check_matches, matches_to_wire},
};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// For each workload of the service by itself, held by its own sidecar. A connection that carries bytes counts as one
/// request of those limits that are for every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// By which answers and metrics name it. Default: its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Requests that it is for: those that any of these fits. Default: every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<RequestMatch>>,
    /// Of all clients together. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Rate>,
    /// Of each client, told by the identity of its certificate; all without one count as one client. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_client: Option<Rate>,
    /// What some clients have instead of `perClient`; the first that names a client holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Vec<Override>>,
    /// Whether the responses to requests that pass say, too, what the client has left of it, in `RateLimit` and
    /// `RateLimit-Policy`: of several limits that of which least is left. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<bool>,
}

/// So many requests in a time, evenly, with a few at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// 1 to 1000000.
    pub requests: u32,
    /// From 1s to 1h. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// At once, after a pause. Default: what half a second brings, at least 2; 1 if there are fewer than one in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// A rate for some clients, each by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// Whose.
    pub client: Client,
    /// How much.
    pub rate: Rate,
}

impl RateLimit {
    fn check(&self, faults: &mut Faults, at: &Path) {
        check_matches(self.matches.as_ref(), faults, &at.field("matches"));
        let overrides = self.overrides.as_deref().unwrap_or_default();
        if self.total.is_none() && self.per_client.is_none() && overrides.is_empty() {
            faults.add(at, "must have total, perClient or overrides");
        }
        for (field, rate) in [("total", &self.total), ("perClient", &self.per_client)] {
            if let Some(rate) = rate {
                rate.check(faults, &at.field(field));
            }
        }
        faults.check_length(&at.field("overrides"), overrides.len(), 64);
        for (index, Override { client, rate }) in overrides.iter().enumerate() {
            let at = at.field("overrides").index(index);
            client.check(faults, &at.field("client"));
            rate.check(faults, &at.field("rate"));
        }
    }
}

impl Rate {
    fn check(&self, faults: &mut Faults, at: &Path) {
        faults.check_range(&at.field("requests"), self.requests.into(), 1, MANY);
        duration::check(faults, &at.field("per"), self.per.as_ref(), SECOND, HOUR);
        check_number(faults, &at.field("burst"), self.burst, 1, MANY);
    }

    fn to_wire(&self) -> wire::Rate {
        wire::Rate {
            requests: self.requests,
            per_ms: duration::wire_ms(self.per.as_ref()),
            burst: self.burst.unwrap_or(0),
        }
    }
}

/// Notes what is wrong with names of a list: each is a label, and there once.
pub(super) fn check_names<'a>(
    names: impl Iterator<Item = Option<&'a String>>,
    faults: &mut Faults,
    at: &Path,
) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let Some(name) = name else { continue };
        let at = at.index(index).field("name");
        match crate::resource::dns_label(name) {
            Err(message) => faults.add(&at, message),
            Ok(()) if !seen.insert(name) => faults.add(&at, format!("{name:?} is in the list already")),
            Ok(()) => {}
        }
    }
}

pub(super) fn check(limits: &[RateLimit], faults: &mut Faults, at: &Path) {
    faults.check_length(at, limits.len(), 16);
    check_names(limits.iter().map(|limit| limit.name.as_ref()), faults, at);
    for (index, limit) in limits.iter().enumerate() {
        limit.check(faults, &at.index(index));
    }
}

/// As sidecars are told; `namespace` is the policy's.
pub fn to_wire(limits: &[RateLimit], namespace: &str) -> Vec<wire::RateLimit> {
    let limit = |(index, limit): (usize, &RateLimit)| wire::RateLimit {
        name: limit.name.clone().unwrap_or_else(|| index.to_string()),
        matches: matches_to_wire(limit.matches.as_ref()),
        total: limit.total.as_ref().map(Rate::to_wire),
        per_client: limit.per_client.as_ref().map(Rate::to_wire),
        overrides: (limit.overrides.iter().flatten())
            .map(|it| wire::ClientRate {
                client: Some(it.client.to_wire(namespace)),
                rate: Some(it.rate.to_wire()),
            })
            .collect(),
        response_headers: limit.response_headers.unwrap_or(false),
    };
    limits.iter().enumerate().map(limit).collect()
}
