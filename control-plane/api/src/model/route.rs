//! A service's routes: what they match, and what follows.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::{Regex, RegexBuilder};

use super::{BackendFilters, Faults, Filters, RouteRetry, SessionPersistence};
use crate::{
    name::ServiceName,
    path,
    wire::{self, string_match::Type},
};

/// One match of one rule of an `HTTPRoute` or `GRPCRoute`, and what follows from it.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// `<namespace>/<name>` of the route.
    pub route: String,
    /// The rule's name, else its index.
    pub rule: String,
    /// Only for callers of this namespace, who are concerned by no rules without one if they have any. `None`: for all
    /// who have no rules of their own.
    pub consumer_namespace: Option<String>,
    /// Only for requests to this port; `None`: to all.
    pub parent_port: Option<u16>,
    /// Which requests it is for.
    pub matches: RouteMatch,
    /// Where they go, by weight. A rule with none, or only of weight zero, answers 500 (Gateway API).
    pub backends: Vec<Backend>,
    /// For the whole request, from its first byte to the end of the response; see [`timeout`].
    pub request_timeout: Option<Duration>,
    /// For each try; see [`timeout`].
    pub backend_request_timeout: Option<Duration>,
    /// Applied to requests.
    pub request_headers: HeaderModifier,
    /// Applied to responses.
    pub response_headers: HeaderModifier,
    /// Redirect, rewrite and mirrors, where there are any.
    pub filters: Option<Box<Filters>>,
    /// What it says of sending a request again; over what the service's policy says.
    pub retry: Option<RouteRetry>,
    /// Keeps a client with the endpoint that it had first.
    pub session: Option<SessionPersistence>,
}

/// How long something may take: what the rule says, else what policies say. Zero in a rule: no limit, whatever they say
/// (GEP-1742).
pub fn timeout(rule: Option<Duration>, policies: Option<Duration>) -> Option<Duration> {
    rule.or(policies).filter(|limit| !limit.is_zero())
}

/// All conditions must hold. The default fits every request.
#[derive(Debug, Clone, Default)]
pub struct RouteMatch {
    /// On the path without its query.
    pub path: Option<StringMatch>,
    /// `None`: any.
    pub method: Option<Method>,
    /// Each on the first value of the header.
    pub headers: Vec<(HeaderName, StringMatch)>,
    /// Each on the first value of the parameter, percent-decoded.
    pub query: Vec<(String, StringMatch)>,
}

/// A condition on a text.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The same bytes.
    Exact(String),
    /// Whole elements of a path. Stored without a trailing slash; empty fits all.
    PathPrefix(String),
    /// Anchored at both ends.
    Regex(Regex),
}

/// A weighted target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// May not exist (any more): requests it wins are refused by name.
    pub service: ServiceName,
    /// Of that service.
    pub port: u16,
    /// Its share is `weight / sum of weights`.
    pub weight: u32,
    /// For the requests that it gets, where there are any.
    pub filters: Option<Box<BackendFilters>>,
}

/// Changes to a header section, in this order: remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Taken out.
    pub remove: Vec<HeaderName>,
    /// Replaces all values.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Joins existing values.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderModifier {
    /// Whether it changes anything.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

impl Faults {
    pub(super) fn route(&mut self, field: &str, route: &wire::RouteRule) -> RouteRule {
        let matches = route.r#match.as_ref();
        let backends = (route.backends.iter().enumerate())
            .filter_map(|(i, backend)| {
                let port = self.port(&format!("{field}.backends[{i}].port"), backend.port);
                let service = self.parse(&format!("{field}.backends[{i}].service"), &backend.service)?;
                let filters = self.backend_filters(&format!("{field}.backends[{i}]"), backend);
                Some(Backend { service, port, weight: backend.weight, filters })
            })
            .collect();
        RouteRule {
            route: route.route.clone(),
            rule: route.rule.clone(),
            consumer_namespace: (!route.consumer_namespace.is_empty())
                .then(|| route.consumer_namespace.clone()),
            parent_port: (route.parent_port != 0)
                .then(|| self.port(&format!("{field}.parent_port"), route.parent_port)),
            matches: matches.map(|m| self.route_match(&format!("{field}.match"), m)).unwrap_or_default(),
            backends,
            request_timeout: route.request_timeout_ms.map(duration),
            backend_request_timeout: route.backend_request_timeout_ms.map(duration),
            request_headers: self.modifier(&format!("{field}.request_headers"), &route.request_headers),
            response_headers: self.modifier(&format!("{field}.response_headers"), &route.response_headers),
            filters: self.filters(field, route),
            retry: route.retry.as_ref().map(|retry| self.route_retry(&format!("{field}.retry"), retry)),
            session: route
                .session
                .as_ref()
                .and_then(|session| self.session(&format!("{field}.session"), session)),
        }
    }

    pub(super) fn route_match(&mut self, field: &str, matches: &wire::RouteMatch) -> RouteMatch {
        let method = match matches.method.as_str() {
            "" => None,
            text => self.parse(&format!("{field}.method"), text),
        };
        let path = matches.path.as_ref().and_then(|path| self.string_match(&format!("{field}.path"), path));
        let path = path.map(in_normal_form);
        let mut headers = Vec::new();
        for (i, header) in matches.headers.iter().enumerate() {
            let field = format!("{field}.headers[{i}]");
            let name = self.parse::<HeaderName>(&field, &header.name);
            let value = header.value.as_ref().and_then(|value| self.string_match(&field, value));
            headers.extend(name.zip(value));
        }
        let mut query = Vec::new();
        for (i, parameter) in matches.query.iter().enumerate() {
            let field = format!("{field}.query[{i}]");
            let value = parameter.value.as_ref().and_then(|value| self.string_match(&field, value));
            query.extend(value.map(|value| (parameter.name.clone(), value)));
        }
        RouteMatch { path, method, headers, query }
    }

    pub(super) fn string_match(&mut self, field: &str, string: &wire::StringMatch) -> Option<StringMatch> {
        match Type::try_from(string.r#type) {
            Ok(Type::Exact) => Some(StringMatch::Exact(string.value.clone())),
            Ok(Type::PathPrefix) => {
                Some(StringMatch::PathPrefix(string.value.trim_end_matches('/').to_owned()))
            }
            Ok(Type::RegularExpression) => match whole(&string.value) {
                Ok(regex) => Some(StringMatch::Regex(regex)),
                Err(error) => {
                    self.say(field, error);
                    None
                }
            },
            Err(_) => {
                self.say(field, format_args!("match type {} is not known to this version", string.r#type));
                None
            }
        }
    }

    pub(super) fn modifier(
        &mut self,
        field: &str,
        modifier: &Option<wire::HeaderModifier>,
    ) -> HeaderModifier {
        let Some(modifier) = modifier else { return HeaderModifier::default() };
        let mut pairs = |kind: &str, headers: &[wire::Header]| {
            let mut pairs = Vec::new();
            for (i, header) in headers.iter().enumerate() {
                let field = format!("{field}.{kind}[{i}]");
                let name = self.parse::<HeaderName>(&field, &header.name);
                let value = self.parse::<HeaderValue>(&field, &header.value);
                pairs.extend(name.zip(value));
            }
            pairs
        };
        let (set, add) = (pairs("set", &modifier.set), pairs("add", &modifier.add));
        let remove = (modifier.remove.iter().enumerate())
            .filter_map(|(i, name)| self.parse(&format!("{field}.remove[{i}]"), name))
            .collect();
        HeaderModifier { remove, set, add }
    }
}

/// Spelled as requests' paths are when they are matched.
fn in_normal_form(path: StringMatch) -> StringMatch {
    let normal = |text: String| path::normal(&text).ok().flatten().unwrap_or(text);
    match path {
        StringMatch::Exact(text) => StringMatch::Exact(normal(text)),
        StringMatch::PathPrefix(text) => StringMatch::PathPrefix(normal(text)),
        StringMatch::Regex(regex) => StringMatch::Regex(regex),
    }
}

fn duration(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// The largest program that an expression of a route may compile to, bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// An expression that fits whole texts only. What admits a route compiles its expressions by this too: so nothing is
/// admitted that a sidecar refuses.
///
/// # Errors
/// What is wrong with the expression.
pub fn whole(expression: &str) -> Result<Regex, regex::Error> {
    let compile = |expression: &str| RegexBuilder::new(expression).size_limit(REGEX_SIZE_LIMIT).build();
    // By itself first: "a)|(?:b" would only be one between the brackets, and out of them.
    compile(expression)?;
    compile(&format!("^(?:{expression})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_fits_whole_texts_and_cannot_leave_its_brackets() {
        let either = whole("a|b").expect("an expression");
        assert!(either.is_match("a") && !either.is_match("ab"));
        for wrong in ["(?x)a # b", "a)|(?:b", "(?:a{1000}){1000}"] {
            assert!(whole(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_goes_before_policies_and_its_zero_lifts_their_limit() {
        let limits = |rule: Option<u64>, policies: Option<u64>| {
            let found = timeout(rule.map(Duration::from_millis), policies.map(Duration::from_millis));
            found.map(|limit| limit.as_millis())
        };
        for (rule, policies, expected) in [
            (None, None, None),
            (None, Some(5), Some(5)),
            (Some(9), Some(5), Some(9)),
            (Some(9), None, Some(9)),
            (Some(0), Some(5), None),
            (Some(0), None, None),
        ] {
            assert_eq!(limits(rule, policies), expected, "{rule:?} before {policies:?}");
        }
    }

    #[test]
    fn header_changes_in_order() {
        let mut headers = http::HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("b", HeaderValue::from_static("1"));
        let modifier = HeaderModifier {
            remove: vec![HeaderName::from_static("a")],
            set: vec![(HeaderName::from_static("b"), HeaderValue::from_static("2"))],
            add: vec![(HeaderName::from_static("b"), HeaderValue::from_static("3"))],
        };
        modifier.apply(&mut headers);
        assert!(!headers.contains_key("a"));
        assert_eq!(headers.get_all("b").iter().collect::<Vec<_>>(), ["2", "3"]);
    }
}
