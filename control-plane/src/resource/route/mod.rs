//! The rules for a Gateway API `HTTPRoute` (v1) with Services as parents, the GAMMA profile.
//!
//! Limits and defaults are those of the Gateway API's own definition. What the API knows and the mesh does not do yet
//! is refused by name, never ignored.

use std::collections::BTreeSet;

use gateway_api::experimental::httproutes::{
    HttpRouteParentRefs as ParentRef, HttpRouteRules as Rule, HttpRouteRulesBackendRefs as BackendRef,
    HttpRouteSpec,
};

use super::{
    Kind,
    fault::{Faults, Path},
    metadata,
};

mod filters;
mod matches;
mod timing;

/// Notes everything that is wrong with a route by itself; `namespace` is its own.
pub(super) fn check(spec: &HttpRouteSpec, namespace: &str, faults: &mut Faults) {
    let at = Path::root().field("spec");
    if spec.hostnames.as_ref().is_some_and(|it| !it.is_empty()) {
        faults.add(
            &at.field("hostnames"),
            "has no meaning for a Service parent; match the header \"host\" instead",
        );
    }
    if spec.use_default_gateways.is_some() {
        faults.add(&at.field("useDefaultGateways"), "has no meaning for a Service parent");
    }
    check_parents(
        spec.parent_refs.as_deref().unwrap_or_default(),
        namespace,
        &at.field("parentRefs"),
        faults,
    );

    let rules = spec.rules.as_deref().unwrap_or_default();
    let at = at.field("rules");
    if rules.is_empty() {
        faults.add(&at, "must have at least one rule");
    }
    faults.check_length(&at, rules.len(), 16);
    let matches: usize = rules.iter().map(|rule| rule.matches.as_ref().map_or(0, Vec::len)).sum();
    if matches > 128 {
        faults.add(&at, format!("must have at most 128 matches together, has {matches}"));
    }
    let mut names = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = &rule.name {
            match metadata::dns_subdomain(name) {
                Err(message) => faults.add(&at.field("name"), message),
                Ok(()) if !names.insert(name) => {
                    faults.add(&at.field("name"), format!("{name:?} is the name of another rule already"));
                }
                Ok(()) => {}
            }
        }
        check_rule(rule, namespace, &at, faults);
    }
}

fn check_parents(parents: &[ParentRef], namespace: &str, at: &Path, faults: &mut Faults) {
    if parents.is_empty() {
        faults.add(at, "must name at least one Service");
    }
    faults.check_length(at, parents.len(), 32);
    for (index, parent) in parents.iter().enumerate() {
        let at = at.index(index);
        // The Gateway API's defaults are its own group and `Gateway`.
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if kind != "Service" {
            faults.add(&at.field("kind"), format!("must be \"Service\", is {kind:?}: {}", why_not(kind)));
        }
        let group = parent.group.as_deref().unwrap_or("gateway.networking.k8s.io");
        if !group.is_empty() {
            let default = if parent.group.is_none() { ", the default" } else { "" };
            faults.add(
                &at.field("group"),
                format!("must be \"\", the group of Service, is {group:?}{default}"),
            );
        }
        if let Err(message) = metadata::service_name(&parent.name) {
            faults.add(&at.field("name"), message);
        }
        check_same_namespace(parent.namespace.as_deref(), namespace, &at, faults);
        check_port(parent.port, &at, faults);
        if let Some(Err(message)) = parent.section_name.as_deref().map(metadata::dns_subdomain) {
            faults.add(&at.field("sectionName"), message);
        }
        if parents[..index].contains(parent) {
            faults.add(&at, "is in the list already");
        }
    }
}

fn check_rule(rule: &Rule, namespace: &str, at: &Path, faults: &mut Faults) {
    let matches = rule.matches.as_deref().unwrap_or_default();
    faults.check_length(&at.field("matches"), matches.len(), 64);
    for (index, one) in matches.iter().enumerate() {
        matches::check(one, &at.field("matches").index(index), faults);
    }
    let filters = rule.filters.as_deref().unwrap_or_default();
    faults.check_length(&at.field("filters"), filters.len(), 16);
    for (index, filter) in filters.iter().enumerate() {
        let at = at.field("filters").index(index);
        filters::check(filter, &at, faults);
        if filters[..index].iter().any(|earlier| earlier.r#type == filter.r#type) {
            faults.add(&at.field("type"), "a rule can have a filter of this type once");
        }
    }
    let backends = rule.backend_refs.as_deref().unwrap_or_default();
    faults.check_length(&at.field("backendRefs"), backends.len(), 16);
    for (index, backend) in backends.iter().enumerate() {
        check_backend(backend, namespace, &at.field("backendRefs").index(index), faults);
    }
    if let Some(timeouts) = &rule.timeouts {
        timing::check_timeouts(timeouts, &at.field("timeouts"), faults);
    }
    if let Some(retry) = &rule.retry {
        timing::check_retry(retry, &at.field("retry"), faults);
    }
    if let Some(session) = &rule.session_persistence {
        timing::check_session(session, &at.field("sessionPersistence"), faults);
    }
}

fn check_header_name(name: &str, seen: &mut BTreeSet<String>, at: &Path, faults: &mut Faults) {
    if name.len() > 256 || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        faults.add(at, format!("is not a header name (RFC 9110): {name:?}"));
    } else if !seen.insert(name.to_ascii_lowercase()) {
        faults.add(at, format!("{name:?} is in the list already (header names ignore case)"));
    }
}

fn check_backend(backend: &BackendRef, namespace: &str, at: &Path, faults: &mut Faults) {
    if let Some(group) = backend.group.as_deref().filter(|group| !group.is_empty()) {
        faults.add(&at.field("group"), format!("must be \"\", the group of Service, is {group:?}"));
    }
    if let Some(kind) = backend.kind.as_deref().filter(|kind| *kind != "Service") {
        faults.add(&at.field("kind"), format!("must be \"Service\", is {kind:?}: {}", why_not(kind)));
    }
    if let Err(message) = metadata::service_name(&backend.name) {
        faults.add(&at.field("name"), message);
    }
    check_same_namespace(backend.namespace.as_deref(), namespace, at, faults);
    if backend.port.is_none() {
        faults.add(&at.field("port"), "is required: which port of the Service");
    }
    check_port(backend.port, at, faults);
    if let Some(weight) = backend.weight {
        faults.check_range(&at.field("weight"), weight.into(), 0, 1_000_000);
    }
    if backend.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
        faults.unsupported(&at.field("filters"));
    }
}

/// Why a route can have nothing to do with a kind.
fn why_not(kind: &str) -> &'static str {
    if kind == Kind::ExternalService.name() {
        "an ExternalService cannot be routed yet; a TrafficPolicy can be for one"
    } else {
        "routes of a mesh belong to Services"
    }
}

fn check_same_namespace(named: Option<&str>, own: &str, at: &Path, faults: &mut Faults) {
    if let Some(other) = named.filter(|named| *named != own) {
        let at = at.field("namespace");
        faults.add(&at, format!("another namespace is not supported yet: must be {own:?}, is {other:?}"));
    }
}

fn check_port(port: Option<i32>, at: &Path, faults: &mut Faults) {
    if let Some(port) = port {
        faults.check_range(&at.field("port"), port.into(), 1, 65535);
    }
}
