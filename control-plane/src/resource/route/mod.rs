//! The rules for a Gateway API `HTTPRoute` or `GRPCRoute` (v1) with Services as parents, the GAMMA profile.
//!
//! Limits and defaults are those of the Gateway API's own definition. What the API knows and the mesh does not do
//! is refused by name, never ignored. A `GRPCRoute` is an `HTTPRoute` with [other matches](grpc).

use std::{borrow::Cow, collections::BTreeSet};

use gateway_api::experimental::httproutes::{HttpRouteRules as Rule, HttpRouteSpec};

use self::filters::Place;
use super::{
    Document,
    fault::{Faults, Path},
    metadata,
};

mod filters;
pub mod grpc;
mod headers;
mod matches;
mod targets;
mod timing;

pub(super) use self::matches::check_plain;
pub(crate) use self::{headers::Changes, targets::filters_of};

/// What a route of either kind says, as an `HTTPRoute` says it. A `GRPCRoute`'s matches are left out.
pub fn of(document: &Document) -> Option<Cow<'_, HttpRouteSpec>> {
    match document {
        Document::HttpRoute(route) => Some(Cow::Borrowed(&route.spec)),
        Document::GrpcRoute(route) => Some(Cow::Owned(grpc::without_matches(&route.spec))),
        _ => None,
    }
}

/// Notes everything that is wrong with a route by itself.
pub(super) fn check(spec: &HttpRouteSpec, faults: &mut Faults) {
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
    let parents = spec.parent_refs.as_deref().unwrap_or_default();
    targets::check_parents(parents, &at.field("parentRefs"), faults);

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
        check_rule(rule, &at, faults);
    }
}

fn check_rule(rule: &Rule, at: &Path, faults: &mut Faults) {
    let matches = rule.matches.as_deref().unwrap_or_default();
    faults.check_length(&at.field("matches"), matches.len(), 64);
    for (index, one) in matches.iter().enumerate() {
        matches::check(one, &at.field("matches").index(index), faults);
    }
    let backends = rule.backend_refs.as_deref().unwrap_or_default();
    let filters = rule.filters.as_deref().unwrap_or_default();
    let place = Place::Rule(matches, !backends.is_empty());
    filters::check(filters, place, &at.field("filters"), faults);
    faults.check_length(&at.field("backendRefs"), backends.len(), 16);
    for (index, backend) in backends.iter().enumerate() {
        targets::check_backend(backend, &at.field("backendRefs").index(index), faults);
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

fn check_port(port: Option<i32>, at: &Path, faults: &mut Faults) {
    if let Some(port) = port {
        faults.check_range(&at.field("port"), port.into(), 1, 65535);
    }
}
