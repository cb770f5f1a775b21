//! What becomes of a request and why: decided by the code that sidecars run, on what they are sent.
//!
//! It looks at everything once and may be slow: nothing of it is on the way of a request or of an update.

mod candidates;
mod caveats;
mod effective;
mod meaning;
mod policy;
mod request;
mod source;
mod verdict;
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
    source::{caller, callers, client},
    verdict::{redirect, verdict},
};
pub use self::{
    policy::{DEFAULT, policy},
    view::*,
    words::{conditions, effects},
};
use crate::{
    history::{self, History},
    publish::Publisher,
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
    let meant = meaning::of(sources, &asked, from.namespace(), &settings)?;
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
    let policies = policies(&service, decision, &backends, &taking, &own, sources.documents.1, sources.now);
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

/// What holds for the requests that each service gets; where none does, for those to the service called.
fn policies(
    called: &model::Service,
    decision: Decision<'_>,
    backends: &[BackendView],
    taking: &[model::Service],
    own: &dyn Fn(&str) -> Vec<model::Service>,
    documents: &Documents,
    now: SystemTime,
) -> Vec<PolicyView> {
    let rule = match decision {
        Decision::Rule(rule) => Some(rule),
        Decision::Direct | Decision::NoMatch => None,
    };
    let of = |serving: &model::Service| {
        let backend = backends.iter().find(|backend| *backend.service == *serving.name.as_str());
        let port = backend.and_then(|backend| serving.port(backend.port)).map_or(0, |port| port.target_port);
        // All of its workloads, as a rule, are of the same services.
        let first = backend.and_then(|backend| backend.endpoints.first());
        let own = first.map(|endpoint| own(&endpoint.uid)).unwrap_or_default();
        effective::effective(called, serving, rule, (&own, port), documents, now)
    };
    match taking {
        [] => vec![policy(called.name.as_str(), &called.policy, documents, now)],
        taking => taking.iter().map(of).collect(),
    }
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
