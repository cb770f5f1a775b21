//! What would happen, from what would become of the request at each backend.

use pillion_api::{model, route::Decision};

use super::{
    candidates,
    view::{BackendView, Verdict},
};

fn refused(reason: &str, text: String) -> Verdict {
    Verdict { outcome: "refused".to_owned(), reasons: vec![reason.to_owned()], text, caveats: Vec::new() }
}

pub(super) fn redirect(decision: Decision<'_>) -> Option<&model::Redirect> {
    let Decision::Rule(rule) = decision else { return None };
    rule.filters.as_deref()?.redirect.as_ref()
}

pub(super) fn verdict(service: &model::Service, decision: Decision<'_>, backends: &[BackendView]) -> Verdict {
    if matches!(decision, Decision::NoMatch) {
        let text = format!("refused with 404: no rule of {} fits the request", service.name);
        return refused("route-not-matched", text);
    }
    if let Some(redirect) = redirect(decision) {
        let text = format!("answered by the caller's sidecar: a redirect, {}", redirect.status);
        return Verdict { outcome: "redirected".to_owned(), reasons: Vec::new(), text, caveats: Vec::new() };
    }
    let weighted: Vec<&BackendView> = backends.iter().filter(|backend| backend.weight > 0).collect();
    let Some(first) = weighted.first() else {
        return refused("no-backend", "refused with 500: the rule has no backend of any weight".to_owned());
    };
    let share = |backend: &BackendView| match weighted.len() {
        1 => backend.text.clone(),
        _ => format!("{} %: {}", backend.share_percent, backend.text),
    };
    let text = weighted.iter().map(|backend| share(backend)).collect::<Vec<_>>().join("; ");
    let mut reasons: Vec<String> = Vec::new();
    for backend in weighted.iter().filter(|backend| backend.outcome != candidates::SENT) {
        if !reasons.contains(&backend.outcome) {
            reasons.push(backend.outcome.clone());
        }
    }
    let all_alike = weighted.iter().all(|backend| backend.outcome == first.outcome);
    let outcome = match (all_alike, reasons.is_empty()) {
        (_, true) => "sent",
        (true, false) if first.outcome == candidates::FALLBACK => "fallback",
        (true, false) if first.outcome != candidates::DEPENDS => "refused",
        _ => "depends",
    };
    reasons.retain(|reason| reason != candidates::DEPENDS && reason != candidates::FALLBACK);
    if outcome == "depends" && reasons.is_empty() {
        reasons.push("breakers-open".to_owned());
    }
    Verdict { outcome: outcome.to_owned(), reasons, text, caveats: Vec::new() }
}
