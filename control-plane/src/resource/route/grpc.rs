//! What a `GRPCRoute` has of its own: its matches.

use gateway_api::experimental::{
    grpcroutes::{
        GrpcRouteRulesMatches as Match, GrpcRouteRulesMatchesHeadersType as HeaderType,
        GrpcRouteRulesMatchesMethodType as MethodType, GrpcRouteSpec,
    },
    httproutes::HttpRouteSpec,
};

use pillion_api::model::whole;

use super::{
    super::fault::{Faults, Path},
    matches::{check_headers, check_regex},
};

/// The same as an `HTTPRoute`, but for the matches: in all else the one is defined as the other, with less in it.
pub fn without_matches(spec: &GrpcRouteSpec) -> HttpRouteSpec {
    let mut value = serde_json::to_value(spec).expect("it was made from such a value");
    for rule in value["rules"].as_array_mut().into_iter().flatten() {
        rule.as_object_mut().expect("a rule is an object").remove("matches");
    }
    serde_json::from_value(value).expect("what is left is an HTTPRoute's")
}

/// Notes everything that is wrong with one by itself.
pub(in super::super) fn check(spec: &GrpcRouteSpec, faults: &mut Faults) {
    super::check(&without_matches(spec), faults);
    let rules = spec.rules.as_deref().unwrap_or_default();
    let at = Path::root().field("spec").field("rules");
    let matches: usize = rules.iter().map(|rule| rule.matches.as_ref().map_or(0, Vec::len)).sum();
    if matches > 128 {
        faults.add(&at, format!("must have at most 128 matches together, has {matches}"));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = at.index(index).field("matches");
        let matches = rule.matches.as_deref().unwrap_or_default();
        faults.check_length(&at, matches.len(), 64);
        for (index, one) in matches.iter().enumerate() {
            check_match(one, &at.index(index), faults);
        }
    }
}

/// The expression of the paths that a match by regular expressions is for; gRPC's are `/<service>/<method>`.
pub fn expression(service: Option<&str>, method: Option<&str>) -> String {
    let [service, method] = [service, method].map(|part| part.unwrap_or("[^/]+"));
    format!("/(?:{service})/(?:{method})")
}

fn check_match(one: &Match, at: &Path, faults: &mut Faults) {
    if let Some(method) = &one.method {
        let at = at.field("method");
        let regex = matches!(method.r#type, Some(MethodType::RegularExpression));
        let parts = [("service", &method.service), ("method", &method.method)];
        if parts.iter().all(|(_, part)| part.as_deref().unwrap_or_default().is_empty()) {
            faults.add(&at, "must have a service or a method");
        }
        for (field, part) in parts {
            let Some(part) = part.as_deref().filter(|part| !part.is_empty()) else { continue };
            let at = at.field(field);
            if part.len() > 1024 {
                faults.add(&at, format!("must have at most 1024 characters, has {}", part.len()));
            }
            if regex {
                check_regex(part, &at, faults);
            } else if !is_name(part, field == "service") {
                faults.add(&at, format!("is not the name of a {field} of gRPC: {part:?}"));
            }
        }
        if let (true, Some(service), Some(called)) = (regex, &method.service, &method.method)
            && [service, called].iter().all(|part| whole(part).is_ok())
        {
            // Two that are sound can be too much together, or give a group's name twice.
            check_regex(&expression(Some(service), Some(called)), &at, faults);
        }
    }
    let headers = one
        .headers
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|it| (&*it.name, &*it.value, matches!(it.r#type, Some(HeaderType::RegularExpression))));
    check_headers(headers, &at.field("headers"), faults);
}

/// As in the Gateway API's definition: words of letters, digits and `_`; a service's with dots between.
fn is_name(text: &str, dots: bool) -> bool {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if dots { text.split('.').all(word) } else { word(text) }
}
