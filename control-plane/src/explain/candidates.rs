//! Who may get a request that is for one backend, as each caller's sidecar sees them.

use pillion_api::{
    ejection,
    model::{self, FallbackTo, On},
    wire::{self, EndpointGauge, endpoint_gauge::Breaker},
};

use super::{
    caveats, sidecar,
    view::{CandidateView, SightView},
};
use crate::{history, registry::Member};

/// What becomes of a request that reaches an endpoint.
pub(super) const SENT: &str = "sent";
/// It differs between the callers.
pub(super) const DEPENDS: &str = "depends";

/// The service's fallback takes over.
pub(super) const FALLBACK: &str = "fallback";

/// There is no such service or port.
pub(super) const NO_BACKEND: &str = "no-backend";

/// Those whose sidecars decide.
pub(super) struct Callers<'a> {
    /// Who they are.
    pub members: &'a [Member],
    /// What their sidecars reported.
    pub history: &'a history::State,
}

/// What becomes of requests for a backend, in a word and in words, and who serves it.
pub(super) fn of(
    backend: &model::Backend,
    route: &str,
    found: Option<&(model::Service, Vec<wire::Endpoint>)>,
    uid: Option<&str>,
    callers: &Callers<'_>,
) -> (&'static str, String, Vec<CandidateView>) {
    let (outcome, text, candidates) = by_itself(backend, route, found, uid, callers);
    // Whoever names one endpoint means that one.
    let fallback = found.filter(|_| uid.is_none()).and_then(|(service, _)| instead(&service.policy, outcome));
    match fallback {
        Some(words) if outcome == DEPENDS => (outcome, format!("{text}; there {words}"), candidates),
        Some(words) => (FALLBACK, format!("{text}; so {words}"), candidates),
        None => (outcome, text, candidates),
    }
}

/// What a policy's fallback does where a service cannot serve for this reason; `None`: it is not for that.
fn instead(policy: &model::TrafficPolicy, outcome: &str) -> Option<String> {
    let occasion = match outcome {
        "no-endpoints" => On::NoEndpoints,
        "no-ready-endpoints" => On::NoReadyEndpoints,
        "breakers-open" | DEPENDS => On::BreakersOpen,
        _ => return None,
    };
    let fallback = policy.fallback.as_ref().filter(|fallback| fallback.on.contains(&occasion))?;
    Some(match &fallback.to {
        FallbackTo::Backend { service, port } => format!("the fallback {service}:{port} gets it"),
        FallbackTo::Response(response) => {
            format!("the fallback answers with {}", response.status.as_u16())
        }
    })
}

/// The same without a fallback.
fn by_itself(
    backend: &model::Backend,
    route: &str,
    found: Option<&(model::Service, Vec<wire::Endpoint>)>,
    uid: Option<&str>,
    callers: &Callers<'_>,
) -> (&'static str, String, Vec<CandidateView>) {
    let name = &backend.service;
    let Some((service, endpoints)) = found else {
        let text = format!("refused with 500: {name}, named by route {route}, does not exist");
        return (NO_BACKEND, text, Vec::new());
    };
    if service.port(backend.port).is_none() {
        let text = format!("refused with 500: {name}, named by route {route}, has no port {}", backend.port);
        return (NO_BACKEND, text, Vec::new());
    }
    if let Some(host) = &service.external {
        let text = format!("sent to {host}:{}, looked up by the caller's sidecar", backend.port);
        return (SENT, text, Vec::new());
    }
    let named = endpoints.iter().filter(|endpoint| uid.is_none_or(|uid| uid == endpoint.uid));
    let candidates: Vec<CandidateView> =
        named.map(|endpoint| candidate(name.as_str(), endpoint, callers)).collect();
    let ready = candidates.iter().filter(|endpoint| endpoint.ready).count();
    if candidates.is_empty() {
        return ("no-endpoints", format!("refused with 503: no workload serves {name}"), candidates);
    }
    if ready == 0 {
        let text = match candidates.as_slice() {
            [only] => format!("refused with 503: {}, all that serves {name}, is not ready", only.workload),
            all => {
                format!("refused with 503: none of the {} workloads that serve {name} is ready", all.len())
            }
        };
        return ("no-ready-endpoints", text, candidates);
    }
    // Whoever names one endpoint gets it: its breaker does not matter.
    let broken: Vec<&str> = match uid {
        Some(_) => Vec::new(),
        None => (callers.members.iter().map(Member::name))
            .filter(|caller| all_broken(&candidates, caller, &service.policy))
            .collect(),
    };
    if broken.is_empty() {
        let text = match uid.and(candidates.first()) {
            Some(only) => format!("sent to {}", only.workload),
            None => format!("sent to one of {ready} ready of {} endpoints of {name}", candidates.len()),
        };
        return (SENT, text, candidates);
    }
    let all = broken.len() == callers.members.len();
    let text = format!(
        "refused with 503 until a breaker's open time is over: at {} the breakers of all ready endpoints of {name} are open",
        broken.join(", ")
    );
    (if all { "breakers-open" } else { DEPENDS }, text, candidates)
}

/// Whether a caller's sidecar has no endpoint left, by what it last reported.
fn all_broken(candidates: &[CandidateView], caller: &str, policy: &model::TrafficPolicy) -> bool {
    let Some(breaker) = &policy.breaker else { return false };
    let ready: Vec<&CandidateView> = candidates.iter().filter(|endpoint| endpoint.ready).collect();
    let open = |endpoint: &&CandidateView| {
        endpoint.seen_by.iter().any(|sight| sight.workload == caller && sight.breaker == "open")
    };
    let broken = caveats::broken(candidates, caller);
    !ejection::panics(breaker, ready.len(), broken) && ready.iter().all(open)
}

fn candidate(service: &str, endpoint: &wire::Endpoint, callers: &Callers<'_>) -> CandidateView {
    let sights = callers.members.iter().flat_map(|member| {
        let gauges = sidecar(callers.history, member).into_iter();
        let gauges = gauges.flat_map(|sidecar| sidecar.gauges_of(&endpoint.uid));
        gauges.filter(|gauge| gauge.service == service).map(|gauge| sight(member, gauge))
    });
    CandidateView {
        uid: endpoint.uid.clone(),
        workload: endpoint.workload.clone(),
        address: endpoint.address.clone(),
        zone: endpoint.zone.clone(),
        weight: if endpoint.weight == 0 { model::USUAL_WEIGHT } else { endpoint.weight },
        ready: endpoint.ready,
        reason: if endpoint.ready { String::new() } else { "its application is not ready".to_owned() },
        seen_by: sights.collect(),
    }
}

fn sight(member: &Member, gauge: &EndpointGauge) -> SightView {
    SightView {
        workload: member.name().to_owned(),
        breaker: breaker(gauge.breaker()).to_owned(),
        in_flight: gauge.in_flight,
        share: (f64::from(gauge.share) * 1000.0).round() / 1000.0,
        latency_ms: f64::from(gauge.latency_us) / 1000.0,
        opened_reason: gauge.opened_reason.clone(),
    }
}

fn breaker(state: Breaker) -> &'static str {
    match state {
        Breaker::Closed => "closed",
        Breaker::Open => "open",
        Breaker::HalfOpen => "half-open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_is_what_becomes_of_it() {
        let config = |on: &[On], to: wire::Fallback| wire::ServiceConfig {
            service: "s.demo".into(),
            ports: vec![wire::ServicePort { port: 80, target_port: 80, ..Default::default() }],
            policy: Some(wire::TrafficPolicy {
                fallback: Some(wire::Fallback { on: on.iter().map(|on| (*on).into()).collect(), ..to }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = || wire::Fallback {
            response: Some(wire::FixedResponse { status: 200, ..Default::default() }),
            ..Default::default()
        };
        let other = || wire::Fallback { service: "t.demo".into(), port: 81, ..Default::default() };
        let history = history::State::default();
        let callers = Callers { members: &[], history: &history };
        let asleep = wire::Endpoint { uid: "u".into(), workload: "s-1".into(), ..Default::default() };
        for (on, to, endpoints, uid, outcome, words) in [
            (
                &[][..],
                answer(),
                vec![],
                None,
                FALLBACK,
                "no workload serves s.demo; so the fallback answers with 200",
            ),
            (
                &[],
                other(),
                vec![asleep.clone()],
                None,
                FALLBACK,
                "is not ready; so the fallback t.demo:81 gets it",
            ),
            (&[On::BreakersOpen], answer(), vec![], None, "no-endpoints", "no workload serves s.demo"),
            (&[], answer(), vec![asleep], Some("u"), "no-ready-endpoints", "is not ready"),
        ] {
            let service = model::Service::try_from(config(on, to)).expect("a valid configuration");
            let backend =
                model::Backend { service: service.name.clone(), port: 80, weight: 1, filters: None };
            let (found, text, _) = of(&backend, "", Some(&(service, endpoints)), uid, &callers);
            assert_eq!(found, outcome, "{text}");
            assert!(text.ends_with(words), "{text}");
        }
    }
}
