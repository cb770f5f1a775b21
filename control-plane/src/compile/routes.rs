//! `HTTPRoute`s into one list per parent service, sorted by the Gateway API's precedence.
//!
//! The first rule that fits is taken by sidecars, so the order written here is the decision. It is that of the
//! `HTTPRouteRule.matches` documentation: an exact path, then the longest prefix, then a regular expression
//! (left open there); a method; the most headers; the most query parameters; the oldest route; its name; its rules
//! in their order.

use std::{cmp::Reverse, collections::BTreeMap};

use gateway_api::experimental::httproutes::{
    HttpRouteParentRefs as ParentRef, HttpRouteRules as Rule, HttpRouteRulesFiltersType as FilterType,
    HttpRouteRulesMatches as Match, HttpRouteRulesMatchesHeadersType as HeaderType,
    HttpRouteRulesMatchesPathType as PathType, HttpRouteRulesMatchesQueryParamsType as QueryType,
    HttpRouteRulesRetry as Retry, HttpRouteRulesSessionPersistence as Session,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as Lifetime,
    HttpRouteRulesSessionPersistenceType as SessionType, HttpRouteSpec,
};
use pillion_api::wire::{self, session_persistence::Type, string_match::Type as MatchType};

use crate::resource::{Documents, Fault, Key, Kind, Resource, duration::wire_ms};

/// Of a session that names neither its cookie nor its header.
const SESSION_NAME: &str = "mesh-session";

/// What decides between two matches; the smaller goes first.
type Precedence = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>, String, String, usize, usize);

/// Every parent's rules, in the order in which sidecars try them.
pub(super) fn by_parent(
    documents: &Documents,
    faults: &mut Vec<Fault>,
) -> BTreeMap<Key, Vec<wire::RouteRule>> {
    let mut unsorted: BTreeMap<Key, Vec<(Precedence, wire::RouteRule)>> = BTreeMap::new();
    for (key, route) in documents.routes(None) {
        let rules = rules(key, route);
        for (index, parent) in route.spec.parent_refs.iter().flatten().enumerate() {
            let service = Key::new(Kind::Service, key.namespace.as_str(), parent.name.as_str());
            match parent_port(parent, &service, documents) {
                Ok(port) => {
                    unsorted.entry(service).or_default().extend(rules.iter().cloned().map(
                        |(precedence, rule)| (precedence, wire::RouteRule { parent_port: port, ..rule }),
                    ))
                }
                Err(message) => faults.push(Fault {
                    document: Some(key.to_string()),
                    ..Fault::new(format!("spec.parentRefs[{index}]"), message)
                }),
            }
        }
    }
    unsorted
        .into_iter()
        .map(|(service, mut rules)| {
            rules.sort_by(|(one, _), (other, _)| one.cmp(other));
            (service, rules.into_iter().map(|(_, rule)| rule).collect())
        })
        .collect()
}

/// The port of the parent that a route is for; zero: every port.
fn parent_port(parent: &ParentRef, service: &Key, documents: &Documents) -> Result<u32, String> {
    let found = documents
        .service(&service.namespace, &service.name)
        .ok_or_else(|| format!("is not used: there is no {service}"))?;
    let number = parent.port.map(|port| u32::try_from(port).unwrap_or_default());
    let Some(section) = &parent.section_name else {
        return match number {
            Some(number) if found.spec.port(number).is_none() => {
                Err(format!("is not used: {service} has no port {number}"))
            }
            number => Ok(number.unwrap_or(0)),
        };
    };
    let named = found.spec.ports.iter().find(|port| port.name.as_ref() == Some(section));
    match named.map(|port| u32::from(port.port)) {
        Some(port) if number.is_none_or(|number| number == port) => Ok(port),
        Some(_) => Err(format!("is not used: port and sectionName are two ports of {service}")),
        None => Err(format!("is not used: {service} has no port named {section:?}")),
    }
}

/// Each match of each rule, for a parent yet to be filled in.
fn rules(key: &Key, route: &Resource<HttpRouteSpec>) -> Vec<(Precedence, wire::RouteRule)> {
    let everything = [Match::default()];
    let mut compiled = Vec::new();
    for (rule_index, rule) in route.spec.rules.iter().flatten().enumerate() {
        let shared = rule_without_match(key, rule_index, rule);
        // No match: any request, as a prefix of "/".
        let matches = rule.matches.as_deref().filter(|matches| !matches.is_empty()).unwrap_or(&everything);
        for (match_index, one) in matches.iter().enumerate() {
            let wire = route_match(one);
            let path = wire.path.as_ref().expect("route_match always sets a path");
            let (rank, length) = match path.r#type() {
                MatchType::Exact => (0, 0),
                MatchType::PathPrefix => (1, path.value.chars().count()),
                MatchType::RegularExpression => (2, 0),
            };
            let precedence = (
                rank,
                Reverse(length),
                wire.method.is_empty(),
                Reverse(wire.headers.len()),
                Reverse(wire.query.len()),
                route.metadata.creation_timestamp.clone(),
                shared.route.clone(),
                rule_index,
                match_index,
            );
            compiled.push((precedence, wire::RouteRule { r#match: Some(wire), ..shared.clone() }));
        }
    }
    compiled
}

fn rule_without_match(key: &Key, index: usize, rule: &Rule) -> wire::RouteRule {
    let backends = rule.backend_refs.iter().flatten().map(|backend| wire::Backend {
        service: Key::new(Kind::Service, key.namespace.as_str(), backend.name.as_str()).to_wire(),
        port: backend.port.and_then(|port| u32::try_from(port).ok()).unwrap_or(0),
        weight: backend.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0)),
    });
    let timeouts = rule.timeouts.as_ref();
    let filters = rule.filters.as_deref().unwrap_or_default();
    let request_headers = filters
        .iter()
        .filter(|filter| matches!(filter.r#type, FilterType::RequestHeaderModifier))
        .find_map(|filter| filter.request_header_modifier.as_ref())
        .map(|modifier| wire::HeaderModifier {
            set: modifier.set.iter().flatten().map(|it| header(&it.name, &it.value)).collect(),
            add: modifier.add.iter().flatten().map(|it| header(&it.name, &it.value)).collect(),
            remove: modifier.remove.iter().flatten().map(|name| name.to_ascii_lowercase()).collect(),
        });
    let response_headers = filters
        .iter()
        .filter(|filter| matches!(filter.r#type, FilterType::ResponseHeaderModifier))
        .find_map(|filter| filter.response_header_modifier.as_ref())
        .map(|modifier| wire::HeaderModifier {
            set: modifier.set.iter().flatten().map(|it| header(&it.name, &it.value)).collect(),
            add: modifier.add.iter().flatten().map(|it| header(&it.name, &it.value)).collect(),
            remove: modifier.remove.iter().flatten().map(|name| name.to_ascii_lowercase()).collect(),
        });
    wire::RouteRule {
        route: format!("{}/{}", key.namespace, key.name),
        rule: rule.name.clone().unwrap_or_else(|| index.to_string()),
        r#match: None,
        backends: backends.collect(),
        request_timeout_ms: wire_ms(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
        backend_request_timeout_ms: wire_ms(timeouts.and_then(|timeouts| timeouts.backend_request.as_ref())),
        request_headers,
        response_headers,
        parent_port: 0,
        retry: rule.retry.as_ref().map(retry),
        session: rule.session_persistence.as_ref().map(session),
    }
}

fn retry(retry: &Retry) -> wire::Retry {
    wire::Retry {
        codes: retry.codes.iter().flatten().filter_map(|code| u32::try_from(*code).ok()).collect(),
        attempts: retry.attempts.and_then(|attempts| u32::try_from(attempts).ok()),
        backoff_ms: wire_ms(retry.backoff.as_ref()),
    }
}

fn session(session: &Session) -> wire::SessionPersistence {
    let header = matches!(session.r#type, Some(SessionType::Header));
    let lifetime = session.cookie_config.as_ref().and_then(|cookie| cookie.lifetime_type.as_ref());
    wire::SessionPersistence {
        r#type: if header { Type::Header.into() } else { Type::Cookie.into() },
        name: session.session_name.clone().unwrap_or_else(|| SESSION_NAME.to_owned()),
        absolute_timeout_ms: wire_ms(session.absolute_timeout.as_ref()),
        idle_timeout_ms: wire_ms(session.idle_timeout.as_ref()),
        permanent: matches!(lifetime, Some(Lifetime::Permanent)),
    }
}

fn header(name: &str, value: &str) -> wire::Header {
    wire::Header { name: name.to_ascii_lowercase(), value: value.to_owned() }
}

fn route_match(one: &Match) -> wire::RouteMatch {
    let path = one.path.as_ref();
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    let path = match path.and_then(|path| path.r#type.as_ref()) {
        Some(PathType::Exact) => string_match(MatchType::Exact, value),
        Some(PathType::RegularExpression) => string_match(MatchType::RegularExpression, value),
        // "A PathPrefix match ignores a trailing slash."
        Some(PathType::PathPrefix) | None => {
            let trimmed = value.trim_end_matches('/');
            string_match(MatchType::PathPrefix, if trimmed.is_empty() { "/" } else { trimmed })
        }
    };
    let headers = one.headers.iter().flatten().map(|header| wire::NamedMatch {
        name: header.name.to_ascii_lowercase(),
        value: Some(string_match(
            exact_or_regex(matches!(header.r#type, Some(HeaderType::RegularExpression))),
            &header.value,
        )),
    });
    let query = one.query_params.iter().flatten().map(|param| wire::NamedMatch {
        name: param.name.clone(),
        value: Some(string_match(
            exact_or_regex(matches!(param.r#type, Some(QueryType::RegularExpression))),
            &param.value,
        )),
    });
    // The type's own serialised form is the method's name.
    let method = serde_json::to_value(&one.method).ok().and_then(|value| value.as_str().map(str::to_owned));
    wire::RouteMatch {
        path: Some(path),
        method: method.unwrap_or_default(),
        headers: headers.collect(),
        query: query.collect(),
    }
}

fn exact_or_regex(regex: bool) -> MatchType {
    if regex { MatchType::RegularExpression } else { MatchType::Exact }
}

fn string_match(kind: MatchType, value: &str) -> wire::StringMatch {
    wire::StringMatch { r#type: kind.into(), value: value.to_owned() }
}
