//! What documents say of each other: routes name Services, policies those and ExternalServices.

use std::collections::BTreeMap;

use super::{
    Document, Documents, Fault, Key, Kind, Resource, fault::covers, policy::TrafficPolicySpec, route,
};

/// A policy and which it is.
pub type Policy<'documents> = (&'documents Key, &'documents Resource<TrafficPolicySpec>);

/// A field of a document that names a Service or an ExternalService.
struct Reference {
    field: String,
    service: Key,
    port: Option<i32>,
    /// By its name; only of a parent.
    section: Option<String>,
}

/// The field of a policy that names what takes over.
pub(super) const FALLBACK: &str = "spec.fallback.backendRef";

/// What such a field has that does not say whom it means.
const BESIDE: [&str; 3] = ["port", "weight", "filters"];

fn references(document: &Document) -> Vec<Reference> {
    let namespace = document.metadata().namespace.as_str();
    match document {
        Document::MeshConfig(_) | Document::Service(_) | Document::ExternalService(_) => Vec::new(),
        Document::HttpRoute(_) | Document::GrpcRoute(_) => route_references(document),
        Document::TrafficPolicy(policy) => {
            let targets = policy.spec.target_refs.iter().enumerate().map(|(index, target)| Reference {
                field: format!("spec.targetRefs[{index}]"),
                service: target.key(namespace),
                port: None,
                section: None,
            });
            let fallback = policy.spec.fallback.as_ref().and_then(|fallback| fallback.backend_ref.as_ref());
            // What is outside the mesh would be asked by the name of the service that it stands in for.
            let fallback = fallback.map(|backend| Reference {
                field: FALLBACK.to_owned(),
                service: Key::new(Kind::Service, namespace, backend.name.as_str()),
                port: i32::try_from(backend.port).ok(),
                section: None,
            });
            targets.chain(fallback).collect()
        }
    }
}

fn route_references(document: &Document) -> Vec<Reference> {
    let route = route::of(document).expect("it is a route");
    let key = document.key();
    let service = |namespace: Option<&String>, name: &str| {
        Key::new(Kind::Service, namespace.unwrap_or(&key.namespace).as_str(), name)
    };
    let parents = route.parent_refs.iter().flatten().enumerate();
    let mut references: Vec<Reference> = parents
        .map(|(index, parent)| Reference {
            field: format!("spec.parentRefs[{index}]"),
            service: service(parent.namespace.as_ref(), &parent.name),
            port: parent.port,
            section: parent.section_name.clone(),
        })
        .collect();
    for (rule, it) in route.rules.iter().flatten().enumerate() {
        let mirrors = it.filters.iter().flatten().enumerate();
        let mirrors = mirrors.filter_map(|(index, filter)| {
            let backend = &filter.request_mirror.as_ref()?.backend_ref;
            Some(Reference {
                field: format!("spec.rules[{rule}].filters[{index}].requestMirror.backendRef"),
                service: service(backend.namespace.as_ref(), &backend.name),
                port: backend.port,
                section: None,
            })
        });
        references.extend(mirrors);
        let backends = it.backend_refs.iter().flatten().enumerate();
        references.extend(backends.map(|(index, backend)| Reference {
            field: format!("spec.rules[{rule}].backendRefs[{index}]"),
            service: service(backend.namespace.as_ref(), &backend.name),
            port: backend.port,
            section: None,
        }));
    }
    references
}

/// What a document names that is not among `documents`.
pub fn missing(document: &Document, documents: &Documents) -> Vec<Fault> {
    missing_but(document, documents, &[], &[])
}

/// The same of a document that has `wrong` in itself, where nothing can be said of those in `unknown` either.
pub fn missing_but(
    document: &Document,
    documents: &Documents,
    unknown: &[Key],
    wrong: &[Fault],
) -> Vec<Fault> {
    let mut faults = Vec::new();
    // Whom a field means is known only where all that says so is right.
    let is_known = |reference: &Reference| {
        let beside = BESIDE.map(|field| format!("{}.{field}", reference.field));
        let names = |field: &String| !beside.iter().any(|other| covers(other, field));
        let mut wrong = wrong.iter().map(|fault| &fault.field).filter(|field| names(field));
        !unknown.contains(&reference.service)
            && !wrong.any(|field| covers(field, &reference.field) || covers(&reference.field, field))
    };
    for reference in references(document).into_iter().filter(is_known) {
        let Reference { field, service, port, section } = reference;
        let Some(found) = documents.get(&service) else {
            faults.push(Fault::new(format!("{field}.name"), not_there(&service, documents)));
            continue;
        };
        // Only Services are named with their ports.
        let Document::Service(found) = &**found else { continue };
        let ports = &found.spec.ports;
        if let Some(port) = port
            && !ports.iter().any(|it| i32::from(it.port) == port)
        {
            let has = ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ");
            faults.push(Fault::new(
                format!("{field}.port"),
                format!("{service} has no port {port}; it has {has}"),
            ));
        }
        if let Some(section) = section {
            let named = ports.iter().find(|it| it.name.as_ref() == Some(&section));
            match (named, port) {
                (None, _) => faults.push(Fault::new(
                    format!("{field}.sectionName"),
                    format!("{service} has no port named {section:?}"),
                )),
                (Some(named), Some(port)) if i32::from(named.port) != port => faults.push(Fault::new(
                    format!("{field}.sectionName"),
                    format!("is port {}, but port says {port}", named.port),
                )),
                _ => {}
            }
        }
    }
    faults.retain(|fault| !wrong.iter().any(|other| covers(&other.field, &fault.field)));
    faults
}

fn not_there(service: &Key, documents: &Documents) -> String {
    let Key { kind, namespace, name } = service;
    let mut message = format!("there is no {kind} {name:?} in namespace {namespace:?}");
    let (other, what) = match kind {
        Kind::Service => (Kind::ExternalService, "an ExternalService"),
        _ => (Kind::Service, "a Service"),
    };
    if documents.get(&Key { kind: other, ..service.clone() }).is_some() {
        message += &format!("; {name:?} is {what}");
    }
    message
}

fn is_route(document: &Document) -> bool {
    matches!(document, Document::HttpRoute(_) | Document::GrpcRoute(_))
}

/// The documents that name a Service or an ExternalService.
pub fn users<'documents>(service: &Key, documents: &'documents Documents) -> Vec<&'documents Key> {
    documents
        .iter()
        // Only routes name what is of another namespace.
        .filter(|(key, document)| key.namespace == service.namespace || is_route(document))
        .filter(|(_, document)| references(document).iter().any(|reference| reference.service == *service))
        .map(|(key, _)| key)
        .collect()
}

/// Why one policy holds for a service and another does not.
pub(super) fn goes_before(
    (holder, held): Policy<'_>,
    other: &Resource<TrafficPolicySpec>,
    service: &Key,
) -> String {
    let created = |policy: &Resource<TrafficPolicySpec>| policy.metadata.creation_timestamp.clone();
    let why = if created(held) == created(other) { "as old, and first in the alphabet" } else { "older" };
    format!("{holder} is for the same {} and {why}", service.kind)
}

/// Each service's policy. Where several name the same service, the oldest has it, then the alphabetically first
/// (GEP-713); the others are faults.
pub fn policies(documents: &Documents) -> (BTreeMap<Key, Policy<'_>>, Vec<Fault>) {
    let mut policies: Vec<Policy<'_>> = documents.policies(None).collect();
    policies.sort_by(|(one_key, one), (other_key, other)| {
        (&one.metadata.creation_timestamp, one_key).cmp(&(&other.metadata.creation_timestamp, other_key))
    });
    let mut chosen: BTreeMap<Key, Policy<'_>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (key, policy) in policies {
        for (index, target) in policy.spec.target_refs.iter().enumerate() {
            let service = target.key(&key.namespace);
            if let Some(holder) = chosen.get(&service) {
                let message = format!("is not used: {}", goes_before(*holder, policy, &service));
                let fault = Fault::new(format!("spec.targetRefs[{index}]"), message);
                faults.push(Fault { document: Some(key.to_string()), ..fault });
            } else {
                chosen.insert(service, (key, policy));
            }
        }
    }
    (chosen, faults)
}
