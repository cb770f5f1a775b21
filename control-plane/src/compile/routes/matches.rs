//! Which requests a rule is for, and which of two matches goes first.
//!
//! For an `HTTPRoute` that is, by its documentation of `matches`: an exact path, then the longest prefix; a method; the most
//! headers; the most query parameters. It leaves regular expressions open: they go between the two, for a match without a path
//! is one of the prefix "/", beside which they would never be tried. For a `GRPCRoute`: the most characters of a service,
//! then of a method, then the most headers; regular expressions (left open there) after exact names.

use std::cmp::Reverse;

use gateway_api::experimental::{
    grpcroutes::{
        GrpcRouteRulesMatches as GrpcMatch, GrpcRouteRulesMatchesHeadersType as GrpcHeaderType,
        GrpcRouteRulesMatchesMethodType as MethodType,
    },
    httproutes::{
        HttpRouteRulesMatches as Match, HttpRouteRulesMatchesHeadersType as HeaderType,
        HttpRouteRulesMatchesPathType as PathType, HttpRouteRulesMatchesQueryParamsType as QueryType,
    },
};
use pillion_api::wire::{self, string_match::Type as MatchType};

use crate::resource::{Document, route::grpc::expression};

/// The larger in the first place where two differ goes first.
pub(super) type Rank = [Reverse<usize>; 5];

/// The matches of one rule; one that fits everything where it has none.
pub(super) fn of(document: &Document, rule: usize) -> Vec<(Rank, wire::RouteMatch)> {
    match document {
        Document::HttpRoute(route) => {
            let rule = route.spec.rules.iter().flatten().nth(rule);
            let matches = rule.and_then(|rule| rule.matches.as_deref()).unwrap_or_default();
            or_everything(matches).iter().map(ranked_http).collect()
        }
        Document::GrpcRoute(route) => {
            let rule = route.spec.rules.iter().flatten().nth(rule);
            let matches = rule.and_then(|rule| rule.matches.as_deref()).unwrap_or_default();
            or_everything(matches).iter().map(grpc).collect()
        }
        _ => Vec::new(),
    }
}

fn or_everything<M: Clone + Default>(matches: &[M]) -> Vec<M> {
    if matches.is_empty() { vec![M::default()] } else { matches.to_vec() }
}

fn ranked_http(one: &Match) -> (Rank, wire::RouteMatch) {
    let wire = http(one);
    let path = wire.path.as_ref().expect("every match of an HTTPRoute has a path");
    let (kind, length) = match path.r#type() {
        MatchType::Exact => (2, 0),
        MatchType::RegularExpression => (1, 0),
        MatchType::PathPrefix => (0, path.value.chars().count()),
    };
    let method = usize::from(!wire.method.is_empty());
    let rank = [kind, length, method, wire.headers.len(), wire.query.len()].map(Reverse);
    (rank, wire)
}

/// gRPC's requests are for `/<service>/<method>`.
fn grpc(one: &GrpcMatch) -> (Rank, wire::RouteMatch) {
    let part = |part: &Option<String>| part.clone().filter(|part| !part.is_empty());
    let method = one.method.as_ref();
    let (service, called) = method.map(|it| (part(&it.service), part(&it.method))).unwrap_or_default();
    let regex = method.is_some_and(|it| matches!(it.r#type, Some(MethodType::RegularExpression)));
    let lengths = [&service, &called].map(|it| it.as_ref().map_or(0, |it| it.chars().count()));
    let path = match (service, called) {
        (None, None) => None,
        (Some(service), Some(called)) if !regex => {
            Some(string_match(MatchType::Exact, &format!("/{service}/{called}")))
        }
        (Some(service), None) if !regex => Some(string_match(MatchType::PathPrefix, &format!("/{service}"))),
        (service, called) => {
            let expression = expression(service.as_deref(), called.as_deref());
            Some(string_match(MatchType::RegularExpression, &expression))
        }
    };
    let headers = one.headers.iter().flatten().map(|header| {
        let regex = matches!(header.r#type, Some(GrpcHeaderType::RegularExpression));
        named(header.name.to_ascii_lowercase(), regex, &header.value)
    });
    let headers: Vec<_> = headers.collect();
    let kind = match (&path, regex) {
        (None, _) => 0,
        (_, true) => 1,
        (_, false) => 2,
    };
    let rank = [kind, lengths[0], lengths[1], headers.len(), 0].map(Reverse);
    (rank, wire::RouteMatch { path, headers, ..Default::default() })
}

fn http(one: &Match) -> wire::RouteMatch {
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
    let headers = one.headers.iter().flatten().map(|header| {
        let regex = matches!(header.r#type, Some(HeaderType::RegularExpression));
        named(header.name.to_ascii_lowercase(), regex, &header.value)
    });
    let query = one.query_params.iter().flatten().map(|param| {
        let regex = matches!(param.r#type, Some(QueryType::RegularExpression));
        named(param.name.clone(), regex, &param.value)
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

fn named(name: String, regex: bool, value: &str) -> wire::NamedMatch {
    let kind = if regex { MatchType::RegularExpression } else { MatchType::Exact };
    wire::NamedMatch { name, value: Some(string_match(kind, value)) }
}

fn string_match(kind: MatchType, value: &str) -> wire::StringMatch {
    wire::StringMatch { r#type: kind.into(), value: value.to_owned() }
}
