//! Which `TrafficPolicy` a service has, and what sidecars are told of it.

use std::collections::BTreeMap;

use pillion_api::wire;

use crate::resource::{Documents, Fault, Key, Kind, Resource, duration::wire_ms, policy::TrafficPolicySpec};

/// A policy and which it is.
pub(super) type Policy<'documents> = (&'documents Key, &'documents Resource<TrafficPolicySpec>);

/// Each service's policy. Where several name the same service, the oldest has it, then the alphabetically first
/// (GEP-713); the others are faults.
pub(super) fn by_target<'documents>(
    documents: &'documents Documents,
    faults: &mut Vec<Fault>,
) -> BTreeMap<Key, Policy<'documents>> {
    let mut policies: Vec<Policy<'_>> = documents.policies(None).collect();
    policies.sort_by(|(one_key, one), (other_key, other)| {
        (&one.metadata.creation_timestamp, one_key).cmp(&(&other.metadata.creation_timestamp, other_key))
    });
    let mut chosen: BTreeMap<Key, Policy<'_>> = BTreeMap::new();
    for (key, policy) in policies {
        for (index, target) in policy.spec.target_refs.iter().enumerate() {
            let service = Key::new(Kind::Service, key.namespace.as_str(), target.name.as_str());
            match chosen.get(&service) {
                Some((holder, _)) => faults.push(Fault {
                    document: Some(key.to_string()),
                    ..Fault::new(
                        format!("spec.targetRefs[{index}]"),
                        format!("is not used: {holder} is for the same Service and older"),
                    )
                }),
                None => {
                    chosen.insert(service, (key, policy));
                }
            }
        }
    }
    chosen
}

/// The policy that a service has, and nothing where all is default.
pub fn policy_of<'documents>(service: &Key, documents: &'documents Documents) -> Option<&'documents Key> {
    by_target(documents, &mut Vec::new()).get(service).map(|(key, _)| *key)
}

pub(super) fn to_wire((key, policy): Policy<'_>) -> wire::TrafficPolicy {
    let spec = &policy.spec;
    wire::TrafficPolicy {
        source: format!("{}/{}", key.namespace, key.name),
        load_balancer: spec
            .load_balancer
            .as_ref()
            .map(|balancer| wire::LoadBalancer { decay_ms: wire_ms(balancer.decay.as_ref()) }),
        circuit_breaker: spec.circuit_breaker.as_ref().map(|breaker| {
            let ratio = breaker.failure_ratio.clone().unwrap_or_default();
            let open = breaker.open_time.clone().unwrap_or_default();
            wire::CircuitBreaker {
                consecutive_failures: breaker.consecutive_failures.unwrap_or(0),
                failure_percent: ratio.percent.unwrap_or(0),
                window_ms: wire_ms(ratio.window.as_ref()),
                minimum_requests: ratio.minimum_requests.unwrap_or(0),
                base_open_ms: wire_ms(open.base.as_ref()),
                max_open_ms: wire_ms(open.max.as_ref()),
                half_open_requests: breaker.half_open_requests.unwrap_or(0),
                panic_percent: breaker.panic_percent,
                disabled: breaker.disabled.unwrap_or(false),
            }
        }),
        connections: spec.connections.as_ref().map(|connections| wire::Connections {
            connect_timeout_ms: wire_ms(connections.connect_timeout.as_ref()),
            idle_timeout_ms: wire_ms(connections.idle_timeout.as_ref()),
            max_requests: connections.max_requests.unwrap_or(0),
            max_pending: connections.max_pending.unwrap_or(0),
        }),
        request_timeout_ms: wire_ms(spec.timeouts.as_ref().and_then(|timeouts| timeouts.request.as_ref())),
    }
}
