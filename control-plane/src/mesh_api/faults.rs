//! The faults that callers are made to see now, and word of each that begins or is over.

use std::time::Duration;

use pillion_api::model::Percent;
use tokio::time::{MissedTickBehavior, interval};

use super::{MeshState, view::FaultView};
use crate::{
    clock::unix_ms,
    history::EventKind,
    resource::{Documents, policy, references},
};

/// Between looks for faults that have begun or are over.
const PERIOD: Duration = Duration::from_secs(1);

/// Those that are under way.
pub(super) fn active(documents: &Documents, now_ms: i64) -> Vec<FaultView> {
    let any = documents.policies(None).any(|(_, policy)| policy.spec.faults.is_some());
    if !any {
        return Vec::new();
    }
    let (policies, _) = references::policies(documents);
    let views = policies.into_iter().flat_map(|(service, (key, policy))| {
        let list = policy.spec.faults.as_deref().unwrap_or_default();
        let faults = policy::faults::to_wire(list, &key.namespace, now_ms);
        faults.into_iter().map(move |fault| FaultView {
            service: service.to_wire(),
            policy: format!("{}/{}", key.namespace, key.name),
            name: fault.name,
            until_ms: fault.until_ms,
            delay_ms: fault.delay_ms,
            delay_percent: percent(fault.delay_per_million),
            abort_status: fault.abort_status,
            abort_percent: percent(fault.abort_per_million),
            callers: (fault.callers.iter())
                .map(|caller| {
                    let name = if caller.service.is_empty() { "*" } else { &caller.service };
                    format!("{name}.{}", caller.namespace)
                })
                .collect(),
            matches: !fault.matches.is_empty(),
        })
    });
    views.collect()
}

/// Tells as events which faults begin and end, for ever.
pub async fn tell(state: &MeshState) {
    let mut known: Vec<FaultView> = Vec::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = unix_ms();
        let now = active(&state.compiler.documents(), now_ms);
        for (kind, verb, faults, others) in [
            (EventKind::FaultOver, "is over", &known, &now),
            (EventKind::FaultInjected, "is injected", &now, &known),
        ] {
            for fault in faults.iter().filter(|fault| !others.contains(fault)) {
                let FaultView { service, policy, name, .. } = fault;
                let text = format!("fault {name} of policy {policy} {verb}: {}", words(fault, kind));
                state.history.happened(kind, Some(service.clone()), None, text, now_ms);
            }
        }
        known = now;
    }
}

fn percent(per_million: u32) -> f64 {
    f64::from(per_million) / f64::from(Percent::OF / 100)
}

/// `50 % of requests to payments.shop wait for 200 ms, 10 % are answered with 503`; of one that is over: `waited`, `were`.
fn words(fault: &FaultView, kind: EventKind) -> String {
    let (wait, are) = match kind {
        EventKind::FaultOver => ("waited", "were"),
        _ => ("wait", "are"),
    };
    let delay = (fault.delay_ms > 0).then(|| format!("{wait} for {} ms", fault.delay_ms));
    let abort = (fault.abort_status > 0).then(|| format!("{are} answered with {}", fault.abort_status));
    let parts = [(delay, fault.delay_percent), (abort, fault.abort_percent)];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(what, percent)| Some(format!("{percent} % of requests to {} {}", fault.service, what?)))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_of_the_past() {
        let fault = FaultView {
            service: "pay.demo".into(),
            delay_ms: 200,
            delay_percent: 50.0,
            abort_status: 503,
            abort_percent: 20.0,
            ..FaultView::default()
        };
        assert_eq!(
            words(&fault, EventKind::FaultInjected),
            "50 % of requests to pay.demo wait for 200 ms, 20 % of requests to pay.demo are answered with 503"
        );
        assert_eq!(
            words(&fault, EventKind::FaultOver),
            "50 % of requests to pay.demo waited for 200 ms, 20 % of requests to pay.demo were answered with 503"
        );
    }
}
