//! Which requests a rule is for.

use std::collections::BTreeSet;

use gateway_api::experimental::httproutes::{
    HttpRouteRulesMatches as Match, HttpRouteRulesMatchesHeadersType as HeaderType,
    HttpRouteRulesMatchesPath as PathMatch, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use pillion_api::model::whole;

use super::{
    super::fault::{Faults, Path},
    headers::check_name,
};

pub(super) fn check(one: &Match, at: &Path, faults: &mut Faults) {
    if let Some(path) = &one.path {
        check_path(path, &at.field("path"), faults);
    }
    let headers = one
        .headers
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|it| (&*it.name, &*it.value, matches!(it.r#type, Some(HeaderType::RegularExpression))));
    check_headers(headers, &at.field("headers"), faults);
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

/// Says what is wrong with the headers that a match asks for, each with whether its value is a regular expression.
pub(super) fn check_headers<'a>(
    headers: impl ExactSizeIterator<Item = (&'a str, &'a str, bool)>,
    at: &Path,
    faults: &mut Faults,
) {
    faults.check_length(at, headers.len(), 16);
    let mut names = BTreeSet::new();
    for (index, (name, value, regex)) in headers.enumerate() {
        let at = at.index(index);
        check_name(name, &mut names, &at.field("name"), faults);
        if regex {
            check_regex(value, &at.field("value"), faults);
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
    check_plain(value, &at, faults);
}

/// Says what is wrong with a path, or the beginning of one: no request's path could fit it.
pub(in crate::resource) fn check_plain(value: &str, at: &Path, faults: &mut Faults) {
    if !value.starts_with('/') {
        faults.add(at, format!("must begin with \"/\", is {value:?}"));
    }
    // As in the Gateway API's definition: a request's path never holds these once it is normalised, or they are not what is matched.
    for never in ["//", "/./", "/../", "%2f", "%2F", "%00", "#"] {
        if value.contains(never) {
            faults.add(at, format!("must not contain {never:?}, is {value:?}"));
        }
    }
    for never in ["/..", "/."] {
        if value.ends_with(never) {
            faults.add(at, format!("must not end with {never:?}, is {value:?}"));
        }
    }
}

pub(super) fn check_regex(expression: &str, at: &Path, faults: &mut Faults) {
    if expression.is_empty() {
        faults.add(at, "must not be empty");
    } else if let Err(error) = whole(expression) {
        // The library draws the place over several lines; its last line says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        faults.add(at, format!("is not a regular expression: {reason}"));
    }
}
