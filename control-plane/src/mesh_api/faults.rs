//! The faults that callers are made to see now, and word of each that begins or is over.

use std::time::Duration;

use pillion_api::model::Percent;
use tokio::time::{MissedTickBehavior, interval};

use super::{MeshState, view::FaultView};
use crate::{
    clock::unix_ms,
    history::{EVENTS_KEPT, Event, EventKind},
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
    let told = state.history.read(|history| history.events(EVENTS_KEPT));
    let mut known = active(&state.compiler.documents(), unix_ms());
    known.retain(|fault| is_told(fault, &told));
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = unix_ms();
        let now = active(&state.compiler.documents(), now_ms);
        for (kind, faults, others) in
            [(EventKind::FaultOver, &known, &now), (EventKind::FaultInjected, &now, &known)]
        {
            for fault in faults.iter().filter(|fault| !others.contains(fault)) {
                let service = Some(fault.service.clone());
                state.history.happened(kind, service, None, text(fault, kind), now_ms);
            }
        }
        known = now;
    }
}

/// Whether the last that was told of it, before a restart, is that it began. `events`: the newest first.
fn is_told(fault: &FaultView, events: &[Event]) -> bool {
    let texts = [EventKind::FaultInjected, EventKind::FaultOver].map(|kind| text(fault, kind));
    let last = events.iter().find(|event| texts.contains(&event.text));
    last.is_some_and(|event| event.kind == EventKind::FaultInjected)
}

fn text(fault: &FaultView, kind: EventKind) -> String {
    let FaultView { policy, name, .. } = fault;
    let verb = if kind == EventKind::FaultOver { "is over" } else { "is injected" };
    format!("fault {name} of policy {policy} {verb}: {}", words(fault, kind))
}

fn percent(per_million: u32) -> f64 {
    f64::from(per_million) / f64::from(Percent::OF / 100)
}

/// `50 % of requests of web.shop to payments.shop that match wait for 200 ms`; of one that is over: `waited`, `were`.
fn words(fault: &FaultView, kind: EventKind) -> String {
    let (wait, are) = match kind {
        EventKind::FaultOver => ("waited", "were"),
        _ => ("wait", "are"),
    };
    let delay = (fault.delay_ms > 0).then(|| format!("{wait} for {} ms", fault.delay_ms));
    let abort = (fault.abort_status > 0).then(|| format!("{are} answered with {}", fault.abort_status));
    let parts = [(delay, fault.delay_percent), (abort, fault.abort_percent)];
    let which = if fault.matches { " that match" } else { "" };
    let callers =
        if fault.callers.is_empty() { String::new() } else { format!(" of {}", fault.callers.join(", ")) };
    let service = &fault.service;
    let part = |(what, percent): (Option<String>, f64)| {
        Some(format!("{percent} % of requests{callers} to {service}{which} {}", what?))
    };
    let parts: Vec<String> = parts.into_iter().filter_map(part).collect();
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
        let callers = vec!["web.demo".into(), "*.jobs".into()];
        let drill = FaultView { delay_ms: 0, matches: true, callers, ..fault };
        assert_eq!(
            words(&drill, EventKind::FaultInjected),
            "20 % of requests of web.demo, *.jobs to pay.demo that match are answered with 503"
        );
    }

    #[test]
    fn after_a_restart_a_fault_is_told_anew_only_where_it_was_not() {
        let fault = FaultView { name: "outage".into(), policy: "demo/pay".into(), ..FaultView::default() };
        let other = FaultView { name: "delay".into(), ..fault.clone() };
        let changed = FaultView { abort_status: 503, ..fault.clone() };
        let event = |fault: &FaultView, kind| Event {
            id: 1,
            time_ms: 0,
            kind,
            service: None,
            workload: None,
            text: text(fault, kind),
        };
        let (begun, over) = (EventKind::FaultInjected, EventKind::FaultOver);
        for (newest_first, expected) in [
            (vec![], false),
            (vec![event(&fault, begun)], true),
            (vec![event(&other, over), event(&fault, begun)], true),
            (vec![event(&other, begun), event(&changed, begun)], false),
            (vec![event(&fault, over), event(&fault, begun)], false),
            (vec![event(&fault, begun), event(&fault, over), event(&fault, begun)], true),
        ] {
            assert_eq!(is_told(&fault, &newest_first), expected, "{newest_first:?}");
        }
    }
}
