//! What becomes of a request and why: decided by the code that sidecars run, on what they are sent.
//!
//! It looks at everything once and may be slow: nothing of it is on the way of a request or of an update.

mod candidates;
mod caveats;
mod meaning;
mod policy;
mod request;
mod view;
mod words;

use std::time::SystemTime;

use pillion_api::{
    model::{self, InboundMode, MeshSettings, RouteRule},
    name::ServiceName,
    route::{self, Decision, Miss},
    wire,
};
use prost::Message;

use self::{
    candidates::Callers,
    caveats::{Circumstances, Client},
    request::Asked,
};
pub use self::{
    policy::{DEFAULT, policy},
    view::*,
    words::{conditions, effects},
};
use crate::{
    history::{self, History},
    publish::{Memberships, Publisher},
    registry::{Member, Registry},
    resource::{Documents, Fault},
};

/// What an explanation looks at.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Who is alive.
    pub registry: &'a Registry,
    /// What sidecars are sent.
    pub publisher: &'a Publisher,
    /// What sidecars measured.
    pub history: &'a History,
    /// What people wrote, and the revision of it.
    pub documents: (u64, &'a Documents),
    /// The wall clock: faults are over some time.
    pub now: SystemTime,
}

/// Why there is no explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    /// The question is wrong in these places.
    Wrong(Vec<Fault>),
    /// The mesh knows no such caller, service or port.
    Absent(String),
}

impl From<Vec<Fault>> for Unexplained {
    fn from(faults: Vec<Fault>) -> Self {
        Self::Wrong(faults)
    }
}

/// Explains one request.
///
/// # Errors
/// [`Unexplained`].
pub fn explain(sources: Sources<'_>, question: &ExplainRequest) -> Result<Explanation, Unexplained> {
    let asked = Asked::read(question)?;
    let (from, callers) = callers(sources, &question.from)?;
    let settings = sources.publisher.settings().borrow().clone();
    let settings = MeshSettings::try_from(settings).unwrap_or(MeshSettings::UNTOLD);
    let meant = meaning::of(sources.publisher, &asked, from.namespace(), &settings)?;
    let service = meant.service;
    let mut notes = Vec::new();
    let named = meant.uid.is_some();
    let head = asked.head();
    // The very call of the sidecar, but for whoever names an endpoint: routes are for the service.
    let decision = if named {
        Decision::Direct
    } else {
        route::choose(&service, meant.port.port, from.namespace(), head)
    };
    let opaque = meant.port.protocol == model::Protocol::Tcp;
    if opaque {
        notes.push(
            "The port is declared as opaque TCP: connections are balanced, requests are not looked at and routes do not \
             hold."
                .to_owned(),
        );
    }
    let decision = if opaque { Decision::Direct } else { decision };
    let considered = if named || opaque {
        Vec::new()
    } else {
        considered(&service, meant.port.port, from.namespace(), head)
    };
    let read = |name: &ServiceName| sources.publisher.service(name.as_str()).and_then(|it| decode(&it));
    let memberships = sources.publisher.memberships();
    let clients: Vec<Client> = callers.iter().map(|member| client(member, &memberships)).collect();
    let (mut backends, taking) = sources.history.read(|history| {
        notes.extend(caveats::not_http(
            &service,
            &meant.port,
            from.namespace(),
            &clients,
            history,
            sources.now,
        ));
        let callers = Callers { members: &callers, history };
        backends(&service, meant.port.port, meant.uid.as_deref(), decision, &callers, &read)
    });
    let rule = match decision {
        Decision::Rule(rule) => Some(rule),
        Decision::Direct | Decision::NoMatch => None,
    };
    let circumstances = Circumstances { head, rule, opaque, now: sources.now, clients: &clients };
    let timeout = match decision {
        Decision::Rule(rule) => rule.request_timeout.or(service.policy.request_timeout),
        Decision::Direct | Decision::NoMatch => service.policy.request_timeout,
    };
    let own = |uid: &str| {
        let names = memberships.get(uid).map(|names| &**names).unwrap_or_default();
        names.iter().filter_map(|name| Some(read(&name.parse().ok()?)?.0)).collect::<Vec<_>>()
    };
    let redirected = redirect(decision).is_some();
    let caveats = match redirected {
        true => Vec::new(),
        false => circumstances.come_between(&service, &mut backends, &taking, named, timeout, &own),
    };
    let verdict = Verdict { caveats, ..verdict(&service, decision, &backends) };
    let mut policies = vec![policy(service.name.as_str(), &service.policy, sources.documents.1)];
    for other in taking.iter().filter(|other| other.name != service.name) {
        policies.push(policy(other.name.as_str(), &other.policy, sources.documents.1));
    }
    let compiled = sources.publisher.last().revision;
    if sources.documents.0 > compiled {
        notes.push(format!(
            "Documents have just been changed (revision {}); this is what sidecars are told until that is compiled \
             (revision {compiled}).",
            sources.documents.0
        ));
    }
    let parts: Vec<&str> = backends.iter().map(|backend| backend.service.as_str()).collect();
    let source = SourceView {
        name: from.to_string(),
        workloads: callers
            .iter()
            .map(|member| caller(sources.publisher, member, service.name.as_str(), &parts))
            .collect(),
    };
    for caller in source.workloads.iter().filter(|caller| !caller.refused.is_empty()) {
        notes.push(format!(
            "The sidecar of {} could not use what it was sent, and goes on with what it had: {}",
            caller.workload,
            caller.refused.join("; ")
        ));
    }
    Ok(Explanation {
        request: asked.view(),
        source,
        verdict,
        decision: decided(&service, decision, named, opaque),
        target: TargetView {
            meaning: meant.text,
            service: service.name.to_string(),
            port: meant.port.port,
            target_port: meant.port.target_port,
            protocol: protocol(meant.port.protocol).to_owned(),
            workload: meant.uid,
            external: service.external.clone(),
        },
        rules: considered,
        backends,
        policies,
        authorization: authorization(&service, &settings),
        notes,
    })
}

/// The workloads that go by a name, the first being the source of their requests.
fn callers(sources: Sources<'_>, from: &str) -> Result<(ServiceName, Vec<Member>), Unexplained> {
    let wrong = |message| Unexplained::Wrong(vec![Fault::new("from", message)]);
    let name: ServiceName = from.parse().map_err(|_| {
        wrong(format!(
            "must be <name>.<namespace> of a service or of a workload, such as \"web.demo\", is {from:?}"
        ))
    })?;
    let memberships = sources.publisher.memberships();
    let goes_by = |member: &Member| {
        let services = memberships.get(member.uid());
        let of_service = services.is_some_and(|services| services.iter().any(|it| **it == *name.as_str()));
        of_service || (member.workload.namespace == name.namespace() && member.name() == name.name())
    };
    let members: Vec<Member> = sources.registry.members().into_iter().filter(goes_by).collect();
    if members.is_empty() {
        let known = sources.publisher.service(name.as_str()).is_some();
        return Err(Unexplained::Absent(if known {
            format!("the service {name} has no workloads, so nobody calls as it")
        } else {
            format!(
                "there is neither a Service nor a workload {} in namespace {}",
                name.name(),
                name.namespace()
            )
        }));
    }
    Ok((name, members))
}

/// A service as its callers' sidecars read it, and who serves it.
type Known = (model::Service, Vec<wire::Endpoint>);

/// What sidecars read. `None`: they would refuse it, too.
fn decode(compiled: &crate::compile::CompiledService) -> Option<Known> {
    let config = wire::ServiceConfig::decode(compiled.config.bytes.clone()).ok()?;
    let list = wire::EndpointList::decode(compiled.endpoints.bytes.clone()).ok()?;
    Some((model::Service::try_from(config).ok()?, list.endpoints))
}

fn considered(
    service: &model::Service,
    port: u16,
    namespace: &str,
    head: route::RequestHead<'_>,
) -> Vec<RuleView> {
    let mut considered = Vec::new();
    let mut consumer = false;
    for rule in &service.routes {
        let miss = route::miss(rule, port, namespace, head);
        let elsewhere = matches!(miss, Some(Miss::Port(_) | Miss::Namespace(_)));
        // Who has rules of its own namespace is not concerned by the producer's.
        if !elsewhere && consumer && rule.consumer_namespace.is_none() {
            break;
        }
        consumer |= !elsewhere && rule.consumer_namespace.is_some();
        considered.push(RuleView {
            route: rule.route.clone(),
            rule: rule.rule.clone(),
            conditions: conditions(rule),
            taken: miss.is_none(),
            why: miss.map(|miss| words::why_not(miss, rule, port, head)).unwrap_or_default(),
        });
        if miss.is_none() {
            break;
        }
    }
    considered
}

fn decided(service: &model::Service, decision: Decision<'_>, named: bool, opaque: bool) -> Decided {
    let (outcome, text, effects) = match decision {
        Decision::Direct if named => (
            "direct",
            "the workload's own address is called: routes are for the service".to_owned(),
            Vec::new(),
        ),
        Decision::Direct if opaque => {
            ("direct", "the connection goes to the service itself".to_owned(), Vec::new())
        }
        Decision::Direct => {
            let timeout = service.policy.request_timeout;
            let timeout = timeout
                .map(|timeout| format!("the request may take {} (its TrafficPolicy)", words::time(timeout)));
            let text = "no route is for this port: it goes to the service itself".to_owned();
            ("direct", text, timeout.into_iter().collect())
        }
        Decision::Rule(rule) => {
            let text = format!("rule {} of route {} is taken", rule.rule, rule.route);
            ("rule", text, effects(rule, service.policy.request_timeout))
        }
        Decision::NoMatch => {
            ("no-match", "the service has routes, but none fits the request".to_owned(), Vec::new())
        }
    };
    Decided { outcome: outcome.to_owned(), text, effects }
}

/// Who gets the request, with what would become of it there; and the services that those are.
fn backends(
    service: &model::Service,
    port: u16,
    uid: Option<&str>,
    decision: Decision<'_>,
    callers: &Callers<'_>,
    read: &dyn Fn(&ServiceName) -> Option<Known>,
) -> (Vec<BackendView>, Vec<model::Service>) {
    let itself = [model::Backend { service: service.name.clone(), port, weight: 1, filters: None }];
    let (backends, route): (&[model::Backend], _) = match decision {
        Decision::NoMatch => (&[], ""),
        Decision::Direct => (&itself, ""),
        Decision::Rule(RouteRule { backends, route, .. }) => (backends, route.as_str()),
    };
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut views = Vec::new();
    let mut services: Vec<model::Service> = Vec::new();
    for backend in backends {
        let share = if total == 0 { 0.0 } else { f64::from(backend.weight) * 100.0 / total as f64 };
        let found = read(&backend.service);
        let (outcome, text, endpoints) = candidates::of(backend, route, found.as_ref(), uid, callers);
        views.push(BackendView {
            service: backend.service.to_string(),
            port: backend.port,
            weight: backend.weight,
            share_percent: (share * 100.0).round() / 100.0,
            outcome: outcome.to_owned(),
            text,
            effects: (backend.filters.iter())
                .flat_map(|filters| {
                    let mut changed = words::changes(&filters.request_headers, "request");
                    changed.extend(words::changes(&filters.response_headers, "response"));
                    changed
                })
                .collect(),
            endpoints,
        });
        if let Some((found, _)) = found
            && services.iter().all(|known| known.name != found.name)
        {
            services.push(found);
        }
    }
    (views, services)
}

/// Who calls, as the callee's sidecar and policies know it.
fn client(member: &Member, memberships: &Memberships) -> Client {
    let service = memberships.get(member.uid()).and_then(|services| services.first());
    Client {
        workload: member.name().to_owned(),
        source: match service {
            Some(service) => service.to_string(),
            None => format!("{}.{}", member.name(), member.workload.namespace),
        },
        identity: member.workload.spiffe_id.parse().ok(),
    }
}

fn refused(reason: &str, text: String) -> Verdict {
    Verdict { outcome: "refused".to_owned(), reasons: vec![reason.to_owned()], text, caveats: Vec::new() }
}

fn redirect(decision: Decision<'_>) -> Option<&model::Redirect> {
    let Decision::Rule(rule) = decision else { return None };
    rule.filters.as_deref()?.redirect.as_ref()
}

fn verdict(service: &model::Service, decision: Decision<'_>, backends: &[BackendView]) -> Verdict {
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

fn authorization(service: &model::Service, settings: &MeshSettings) -> String {
    if service.external.is_some() {
        return "not of the mesh: whether the host answers is its own affair".to_owned();
    }
    let who = match settings.inbound {
        InboundMode::Strict => "mutual TLS of the mesh is required (MeshConfig inbound: strict)",
        InboundMode::Permissive => {
            "callers without a sidecar are let in as well (MeshConfig inbound: permissive)"
        }
    };
    format!("not restricted: every workload of the mesh may call; {who}")
}

fn caller(publisher: &Publisher, member: &Member, called: &str, backends: &[&str]) -> CallerView {
    let refused = publisher.refusals.of_sidecar(member.uid());
    let of_these = |name: &str| name == called || backends.contains(&name);
    CallerView {
        uid: member.uid().to_owned(),
        workload: member.name().to_owned(),
        zone: member.workload.hello.zone.clone(),
        connected: member.connected(),
        refused: refused
            .into_iter()
            .filter(|refusal| of_these(&refusal.service))
            .map(|refusal| format!("{}: {}", refusal.service, refusal.reason))
            .collect(),
    }
}

fn protocol(protocol: model::Protocol) -> &'static str {
    match protocol {
        model::Protocol::Detect => "detected",
        model::Protocol::Http1 => "http/1.1",
        model::Protocol::Http2 => "http/2",
        model::Protocol::Grpc => "grpc",
        model::Protocol::Tcp => "tcp",
    }
}

/// A caller's view of breakers, from what its sidecar last reported.
fn sidecar<'a>(history: &'a history::State, member: &Member) -> Option<&'a history::Sidecar> {
    history.sidecars().get(member.uid())
}

#[cfg(test)]
mod tests;
