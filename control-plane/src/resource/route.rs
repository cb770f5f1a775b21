//! The rules for a Gateway API `HTTPRoute` (v1) with Services as parents, the GAMMA profile.
//!
//! Limits and defaults are those of the Gateway API's own definition. What the API knows and the mesh does not do yet
//! is refused by name, never ignored.

use std::{collections::BTreeSet, time::Duration};

use gateway_api::httproutes::{
    HttpRouteParentRefs as ParentRef, HttpRouteRules as Rule, HttpRouteRulesBackendRefs as BackendRef,
    HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersType as FilterType, HttpRouteRulesMatches as Match,
    HttpRouteRulesMatchesHeadersType as HeaderType, HttpRouteRulesMatchesPath as PathMatch,
    HttpRouteRulesMatchesPathType as PathType, HttpRouteRulesMatchesQueryParamsType as QueryType,
    HttpRouteRulesTimeouts as Timeouts, HttpRouteSpec,
};
use pillion_api::model::whole;

use super::{
    Kind, duration,
    fault::{Faults, Path},
    metadata,
};

/// Notes everything that is wrong with a route by itself; `namespace` is its own.
pub(super) fn check(spec: &HttpRouteSpec, namespace: &str, faults: &mut Faults) {
    let at = Path::root().field("spec");
    if spec.hostnames.as_ref().is_some_and(|it| !it.is_empty()) {
        faults.add(
            &at.field("hostnames"),
            "has no meaning for a Service parent; match the header \"host\" instead",
        );
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
        check_match(one, &at.field("matches").index(index), faults);
    }
    let filters = rule.filters.as_deref().unwrap_or_default();
    faults.check_length(&at.field("filters"), filters.len(), 16);
    for (index, filter) in filters.iter().enumerate() {
        let at = at.field("filters").index(index);
        check_filter(filter, &at, faults);
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
        check_timeouts(timeouts, &at.field("timeouts"), faults);
    }
}

fn check_match(one: &Match, at: &Path, faults: &mut Faults) {
    if let Some(path) = &one.path {
        check_path(path, &at.field("path"), faults);
    }
    let headers = one.headers.as_deref().unwrap_or_default();
    faults.check_length(&at.field("headers"), headers.len(), 16);
    let mut names = BTreeSet::new();
    for (index, header) in headers.iter().enumerate() {
        let at = at.field("headers").index(index);
        check_header_name(&header.name, &mut names, &at.field("name"), faults);
        if matches!(header.r#type, Some(HeaderType::RegularExpression)) {
            check_regex(&header.value, &at.field("value"), faults);
        }
    }
    let params = one.query_params.as_deref().unwrap_or_default();
    faults.check_length(&at.field("queryParams"), params.len(), 16);
    let mut names = BTreeSet::new();
    for (index, param) in params.iter().enumerate() {
        let at = at.field("queryParams").index(index);
        if param.name.is_empty() {
            faults.add(&at.field("name"), "must not be empty");
        } else if !names.insert(&param.name) {
            faults.add(&at.field("name"), format!("{:?} is in the list already", param.name));
        }
        if matches!(param.r#type, Some(QueryType::RegularExpression)) {
            check_regex(&param.value, &at.field("value"), faults);
        }
    }
}

fn check_path(path: &PathMatch, at: &Path, faults: &mut Faults) {
    let at = at.field("value");
    let value = path.value.as_deref().unwrap_or("/");
    if value.len() > 1024 {
        faults.add(&at, format!("must have at most 1024 characters, has {}", value.len()));
    }
    if matches!(path.r#type, Some(PathType::RegularExpression)) {
        check_regex(value, &at, faults);
        return;
    }
    if !value.starts_with('/') {
        faults.add(&at, format!("must begin with \"/\", is {value:?}"));
    }
    // As in the Gateway API's definition: a request's path never holds these once it is normalised.
    for never in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(never) {
            faults.add(&at, format!("must not contain {never:?}, is {value:?}"));
        }
    }
    for never in ["/..", "/."] {
        if value.ends_with(never) {
            faults.add(&at, format!("must not end with {never:?}, is {value:?}"));
        }
    }
}

fn check_regex(expression: &str, at: &Path, faults: &mut Faults) {
    if expression.is_empty() {
        faults.add(at, "must not be empty");
    } else if let Err(error) = whole(expression) {
        // The library draws the place over several lines; its last line says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        faults.add(at, format!("is not a regular expression: {reason}"));
    }
}

fn check_filter(filter: &Filter, at: &Path, faults: &mut Faults) {
    let (used, name) = match filter.r#type {
        FilterType::RequestHeaderModifier => {
            if let Some(modifier) = &filter.request_header_modifier {
                let set = modifier.set.iter().flatten().map(|it| (&it.name, &it.value));
                let add = modifier.add.iter().flatten().map(|it| (&it.name, &it.value));
                let remove = modifier.remove.iter().flatten();
                check_header_changes(set, add, remove, &at.field("requestHeaderModifier"), faults);
            }
            (filter.request_header_modifier.is_some(), "requestHeaderModifier")
        }
        FilterType::ResponseHeaderModifier => {
            if let Some(modifier) = &filter.response_header_modifier {
                let set = modifier.set.iter().flatten().map(|it| (&it.name, &it.value));
                let add = modifier.add.iter().flatten().map(|it| (&it.name, &it.value));
                let remove = modifier.remove.iter().flatten();
                check_header_changes(set, add, remove, &at.field("responseHeaderModifier"), faults);
            }
            (filter.response_header_modifier.is_some(), "responseHeaderModifier")
        }
        _ => {
            let kind = serde_json::to_value(&filter.r#type).unwrap_or_default();
            faults.add(
                &at.field("type"),
                format!("{} is not supported yet", kind.as_str().unwrap_or_default()),
            );
            return;
        }
    };
    if !used {
        faults.add(&at.field(name), "is required for a filter of this type");
    }
    let others = [
        ("requestHeaderModifier", filter.request_header_modifier.is_some()),
        ("responseHeaderModifier", filter.response_header_modifier.is_some()),
        ("requestMirror", filter.request_mirror.is_some()),
        ("requestRedirect", filter.request_redirect.is_some()),
        ("urlRewrite", filter.url_rewrite.is_some()),
        ("extensionRef", filter.extension_ref.is_some()),
        ("cors", filter.cors.is_some()),
    ];
    for (other, _) in others.iter().filter(|(other, present)| *present && *other != name) {
        faults.add(&at.field(other), "does not belong to a filter of this type");
    }
}

fn check_header_changes<'filter>(
    set: impl Iterator<Item = (&'filter String, &'filter String)>,
    add: impl Iterator<Item = (&'filter String, &'filter String)>,
    remove: impl Iterator<Item = &'filter String>,
    at: &Path,
    faults: &mut Faults,
) {
    // One name in two of the lists has no defined order of effects.
    let mut names = BTreeSet::new();
    let set: Vec<_> = set.collect();
    let add: Vec<_> = add.collect();
    for (list, items) in [("set", set), ("add", add)] {
        faults.check_length(&at.field(list), items.len(), 16);
        for (index, (name, value)) in items.into_iter().enumerate() {
            let at = at.field(list).index(index);
            check_header_name(name, &mut names, &at.field("name"), faults);
            if http::HeaderValue::from_str(value).is_err() {
                faults.add(&at.field("value"), format!("is not a header value (RFC 9110): {value:?}"));
            }
        }
    }
    let mut removed = 0;
    for (index, name) in remove.enumerate() {
        removed += 1;
        check_header_name(name, &mut names, &at.field("remove").index(index), faults);
    }
    faults.check_length(&at.field("remove"), removed, 16);
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

fn check_timeouts(timeouts: &Timeouts, at: &Path, faults: &mut Faults) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let request = at.field("request");
    let request = duration::check(faults, &request, timeouts.request.as_ref(), Duration::ZERO, DAY);
    let at = at.field("backendRequest");
    let backend = duration::check(faults, &at, timeouts.backend_request.as_ref(), Duration::ZERO, DAY);
    // Zero: no limit.
    if let (Some(request), Some(backend)) = (request, backend)
        && !request.is_zero()
        && backend > request
    {
        faults.add(&at, "must not be longer than request");
    }
}
