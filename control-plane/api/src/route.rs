//! Which rule of a service's routes a request takes, and which backend: pure, and the same for a sidecar that acts
//! on it and a control plane that explains it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, Request, Uri};

use crate::{
    model::{Backend, RouteMatch, RouteRule, Service, StringMatch},
    path,
};

/// The part of a request that routing looks at.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// As the caller sent it.
    pub method: &'a Method,
    /// Its path and query are used; the path in its normal form ([`path::normal`]).
    pub uri: &'a Uri,
    /// As the caller sent them.
    pub headers: &'a HeaderMap,
}

impl RequestHead<'_> {
    /// The same by itself.
    pub fn to_request(self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// What is to be done with a request.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// The service has no routes for this port: it goes to the service itself.
    Direct,
    /// The first rule that fits.
    Rule(&'a RouteRule),
    /// There are routes, but none fits: 404 (Gateway API).
    NoMatch,
}

/// Decides on one request to `port` of `service`, of a caller of `namespace`.
///
/// A caller whose own namespace has routes for the service is concerned by those alone (GEP-1294, "Multiple routes for a
/// Service"); they stand first.
pub fn choose<'a>(service: &'a Service, port: u16, namespace: &str, head: RequestHead<'_>) -> Decision<'a> {
    let mut decision = Decision::Direct;
    let mut consumer = false;
    for rule in &service.routes {
        match miss(rule, port, namespace, head) {
            Some(Miss::Port(_) | Miss::Namespace(_)) => continue,
            _ if consumer && rule.consumer_namespace.is_none() => break,
            None => return Decision::Rule(rule),
            Some(_) => decision = Decision::NoMatch,
        }
        consumer |= rule.consumer_namespace.is_some();
    }
    decision
}

/// The first condition of a rule that a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss<'a> {
    /// The rule is for requests to this port only.
    Port(u16),
    /// It is for callers of this namespace only.
    Namespace(&'a str),
    /// It is for another method.
    Method,
    /// It is for other paths.
    Path,
    /// Of this header.
    Header(&'a HeaderName),
    /// Of this query parameter.
    Query(&'a str),
}

/// Why a rule is not for a request of a caller of `namespace` to `port`; `None`: it is.
pub fn miss<'a>(rule: &'a RouteRule, port: u16, namespace: &str, head: RequestHead<'_>) -> Option<Miss<'a>> {
    if let Some(parent) = rule.parent_port.filter(|parent| *parent != port) {
        return Some(Miss::Port(parent));
    }
    if let Some(consumers) = rule.consumer_namespace.as_deref().filter(|it| *it != namespace) {
        return Some(Miss::Namespace(consumers));
    }
    mismatch(&rule.matches, head, |path| path.fits(head.uri.path()))
}

/// The backend that a random number in `0..total weight` falls to. `None`: no backend has any weight.
pub fn backend(backends: &[Backend], random: impl FnOnce(u64) -> u64) -> Option<&Backend> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = random(total);
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let found = left < weight;
        left = left.saturating_sub(weight);
        found
    })
}

/// Whether all of a match's conditions hold.
pub fn fits(matches: &RouteMatch, head: RequestHead<'_>) -> bool {
    mismatch(matches, head, |path| path.fits(head.uri.path())).is_none()
}

/// Whether any of them fits; without any, every request does.
pub fn fits_any(matches: &[RouteMatch], head: RequestHead<'_>) -> bool {
    matches.is_empty() || matches.iter().any(|one| fits(one, head))
}

/// The same of what restricts: also where a match fits only the path as a careless application would read it ([`path::loose`]), so
/// that no other spelling is a way around it.
pub fn restricts_any(matches: &[RouteMatch], head: RequestHead<'_>) -> bool {
    fits_any(matches, head)
        || path::loose(head.uri.path()).is_some_and(|loose| {
            let fits = |one| mismatch(one, head, |path| path.fits_loosely(&loose)).is_none();
            matches.iter().any(fits)
        })
}

/// The first of a match's conditions that does not hold.
fn mismatch<'a>(
    matches: &'a RouteMatch,
    head: RequestHead<'_>,
    fits_path: impl Fn(&StringMatch) -> bool,
) -> Option<Miss<'a>> {
    let RouteMatch { path, method, headers, query } = matches;
    if method.as_ref().is_some_and(|method| method != head.method) {
        return Some(Miss::Method);
    }
    if path.as_ref().is_some_and(|path| !fits_path(path)) {
        return Some(Miss::Path);
    }
    let header = headers.iter().find(|(name, value)| {
        // HTTP/2 has no such field, and in HTTP/1 an absolute target stands over it.
        let authority = head.uri.authority().filter(|_| *name == http::header::HOST);
        let first = match authority {
            Some(authority) => Some(authority.as_str()),
            None => head.headers.get(name).and_then(|first| first.to_str().ok()),
        };
        !first.is_some_and(|first| value.fits(first))
    });
    if let Some((name, _)) = header {
        return Some(Miss::Header(name));
    }
    let parameter = query.iter().find(|(name, value)| {
        let first = parameter(head.uri.query().unwrap_or_default(), name);
        !first.is_some_and(|first| value.fits(&first))
    });
    parameter.map(|(name, _)| Miss::Query(name))
}

impl StringMatch {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::PathPrefix(prefix) => begins_with(prefix, text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// The same where the text is a path that was read loosely: read likewise.
    fn fits_loosely(&self, text: &str) -> bool {
        let loose = |path: &str| path::loose(path).unwrap_or_else(|| path.to_owned());
        match self {
            Self::Exact(exact) => loose(exact) == text,
            Self::PathPrefix(prefix) => begins_with(&loose(prefix), text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// By whole elements; `prefix` has no slash at its end.
fn begins_with(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The first value of a query parameter, decoded as `application/x-www-form-urlencoded`.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| {
            bytes.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16)).map(|digit| digit as u8)
        };
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    fn service(rules: Vec<wire::RouteRule>) -> Service {
        wire::ServiceConfig { service: "s.n".into(), routes: rules, ..Default::default() }
            .try_into()
            .expect("a valid configuration")
    }

    fn rule(name: &str, matches: wire::RouteMatch) -> wire::RouteRule {
        wire::RouteRule { rule: name.into(), r#match: Some(matches), ..Default::default() }
    }

    fn path(r#type: wire::string_match::Type, value: &str) -> wire::RouteMatch {
        let path = wire::StringMatch { r#type: r#type.into(), value: value.into() };
        wire::RouteMatch { path: Some(path), ..Default::default() }
    }

    fn decide(
        service: &Service,
        method: Method,
        uri: &str,
        headers: &[(&'static str, &'static str)],
    ) -> String {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        let uri = uri.parse().expect("a URI");
        match choose(service, 80, "n", RequestHead { method: &method, uri: &uri, headers: &headers }) {
            Decision::Direct => "direct".into(),
            Decision::Rule(rule) => rule.rule.clone(),
            Decision::NoMatch => "none".into(),
        }
    }

    #[test]
    fn paths() {
        use wire::string_match::Type::{Exact, PathPrefix, RegularExpression};
        let service = service(vec![
            rule("exact", path(Exact, "/a")),
            rule("prefix", path(PathPrefix, "/a/")),
            rule("regex", path(RegularExpression, "/x[0-9]+")),
        ]);
        let table = [
            ("/a", "exact"),
            ("/a?q=1", "exact"),
            ("/a/", "prefix"),
            ("/a/b", "prefix"),
            ("/ab", "none"),
            ("/x12", "regex"),
            ("/x12/", "none"),
            ("/", "none"),
        ];
        for (uri, expected) in table {
            assert_eq!(decide(&service, Method::GET, uri, &[]), expected, "{uri}");
        }
    }

    #[test]
    fn what_is_matched_is_spelled_as_paths_are() {
        use wire::string_match::Type::{Exact, PathPrefix};
        let service = service(vec![
            rule("exact", path(Exact, "/caf%c3%a9")),
            rule("prefix", path(PathPrefix, "/%7euser/")),
        ]);
        for (uri, expected) in [("/caf%C3%A9", "exact"), ("/~user/x", "prefix"), ("/%7Euser", "none")] {
            assert_eq!(decide(&service, Method::GET, uri, &[]), expected, "{uri}");
        }
    }

    #[test]
    fn what_restricts_does_so_in_every_reading() {
        use wire::string_match::Type::{Exact, PathPrefix};
        let service = service(vec![
            rule("", path(PathPrefix, "/admin")),
            rule("", wire::RouteMatch { method: "PUT".into(), ..path(Exact, "/v1/x:cancel") }),
        ]);
        let matches: Vec<RouteMatch> = service.routes.into_iter().map(|rule| rule.matches).collect();
        for (method, uri, strictly, in_any) in [
            (Method::GET, "/admin/x", true, true),
            (Method::GET, "//admin", false, true),
            (Method::GET, "/admin%2Fx", false, true),
            (Method::GET, "/x%2F..%5Cadmin", false, true),
            (Method::PUT, "/v1/x%3Acancel", false, true),
            (Method::GET, "/v1/x%3Acancel", false, false),
            (Method::GET, "/admin%2Dx", false, false),
            (Method::GET, "/x%2Fadmin", false, false),
        ] {
            let (uri, headers): (Uri, _) = (uri.parse().expect("a URI"), HeaderMap::new());
            let head = RequestHead { method: &method, uri: &uri, headers: &headers };
            assert_eq!(
                (fits_any(&matches, head), restricts_any(&matches, head)),
                (strictly, in_any),
                "{uri}"
            );
        }
        let (method, uri, headers) = (Method::GET, Uri::from_static("//x"), HeaderMap::new());
        assert!(restricts_any(&[], RequestHead { method: &method, uri: &uri, headers: &headers }));
    }

    #[test]
    fn methods_headers_and_queries_must_all_hold() {
        let named = |name: &str, value: &str| wire::NamedMatch {
            name: name.into(),
            value: Some(wire::StringMatch { r#type: 0, value: value.into() }),
        };
        let service = service(vec![rule(
            "all",
            wire::RouteMatch {
                path: None,
                method: "POST".into(),
                headers: vec![named("x-who", "me")],
                query: vec![named("q", "a b")],
            },
        )]);
        let yes = [("x-who", "me")];
        for (method, uri, headers, expected) in [
            (Method::POST, "/?q=a+b", &yes[..], "all"),
            (Method::POST, "/?q=a%20b&q=c", &yes[..], "all"),
            (Method::POST, "/?q=c&q=a+b", &yes[..], "none"),
            (Method::POST, "/?p", &yes[..], "none"),
            (Method::GET, "/?q=a+b", &yes[..], "none"),
            (Method::POST, "/?q=a+b", &[][..], "none"),
            (Method::POST, "/?q=a+b", &[("x-who", "you")][..], "none"),
        ] {
            assert_eq!(decide(&service, method, uri, headers), expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn the_host_is_the_authority_where_there_is_one() {
        let host = wire::NamedMatch {
            name: "host".into(),
            value: Some(wire::StringMatch { r#type: 0, value: "web".into() }),
        };
        let matches = wire::RouteMatch { headers: vec![host], ..Default::default() };
        let service = service(vec![rule("host", matches)]);
        for (uri, headers, expected) in [
            ("/", &[("host", "web")][..], "host"),
            ("http://web/", &[][..], "host"),
            ("http://other/", &[("host", "web")][..], "none"),
            ("/", &[][..], "none"),
        ] {
            assert_eq!(decide(&service, Method::GET, uri, headers), expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn no_routes_for_a_port_is_direct() {
        assert_eq!(decide(&service(vec![]), Method::GET, "/", &[]), "direct");
        let other_port = wire::RouteRule { parent_port: 81, ..rule("other", wire::RouteMatch::default()) };
        assert_eq!(decide(&service(vec![other_port]), Method::GET, "/", &[]), "direct");
    }

    #[test]
    fn a_caller_with_routes_of_its_own_namespace_has_no_others() {
        use wire::string_match::Type::PathPrefix;
        let of = |namespace: &str, rule: wire::RouteRule| wire::RouteRule {
            consumer_namespace: namespace.into(),
            ..rule
        };
        let elsewhere = wire::RouteRule { parent_port: 81, ..rule("port", wire::RouteMatch::default()) };
        let service = service(vec![
            of("mine", elsewhere),
            of("mine", rule("own", path(PathPrefix, "/own"))),
            of("port-81", wire::RouteRule { parent_port: 81, ..rule("81", wire::RouteMatch::default()) }),
            rule("producer", path(PathPrefix, "/")),
        ]);
        let (method, headers) = (Method::GET, HeaderMap::new());
        for (namespace, path, expected) in [
            ("mine", "/own", "own"),
            ("mine", "/", "none"),
            ("theirs", "/own", "producer"),
            ("port-81", "/own", "producer"),
        ] {
            let uri = path.parse().expect("a URI");
            let head = RequestHead { method: &method, uri: &uri, headers: &headers };
            let decided = match choose(&service, 80, namespace, head) {
                Decision::Rule(rule) => rule.rule.as_str(),
                Decision::NoMatch => "none",
                Decision::Direct => "direct",
            };
            assert_eq!(decided, expected, "{namespace} {path}");
        }
        assert!(service.has_routes(80, "mine") && service.has_routes(80, "theirs"));
    }

    #[test]
    fn a_miss_names_the_first_condition_that_fails() {
        let named = |name: &str| wire::NamedMatch {
            name: name.into(),
            value: Some(wire::StringMatch { r#type: 0, value: "1".into() }),
        };
        let matches = wire::RouteMatch {
            method: "GET".into(),
            headers: vec![named("x-a"), named("x-b")],
            query: vec![named("q")],
            ..path(wire::string_match::Type::PathPrefix, "/a")
        };
        let service = service(vec![wire::RouteRule { parent_port: 80, ..rule("r", matches) }]);
        let rule = &service.routes[0];
        let b = HeaderName::from_static("x-b");
        let both = [("x-a", "1"), ("x-b", "1")];
        for (port, method, uri, headers, expected) in [
            (81, Method::GET, "/a?q=1", &both[..], Some(Miss::Port(80))),
            (80, Method::PUT, "/a?q=1", &both[..], Some(Miss::Method)),
            (80, Method::GET, "/b?q=1", &both[..], Some(Miss::Path)),
            (80, Method::GET, "/a?q=1", &both[..1], Some(Miss::Header(&b))),
            (80, Method::GET, "/a?q=2", &both[..], Some(Miss::Query("q"))),
            (80, Method::GET, "/a?q=1", &both[..], None),
        ] {
            let headers: HeaderMap = (headers.iter())
                .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
                .collect();
            let uri = uri.parse().expect("a URI");
            let head = RequestHead { method: &method, uri: &uri, headers: &headers };
            assert_eq!(miss(rule, port, "n", head), expected, "{port} {method} {uri}");
        }
    }

    #[test]
    fn malformed_percent_escapes_stand_for_themselves() {
        assert_eq!(decode("%"), "%");
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%41+%ff"), "A \u{fffd}");
    }

    proptest! {
        #[test]
        fn each_backend_gets_its_weight(weights in proptest::collection::vec(0u32..5, 1..6)) {
            let backends: Vec<Backend> = weights.iter().enumerate().map(|(i, &weight)| Backend {
                service: format!("b{i}.n").parse().expect("a name"), port: 80, weight, filters: None,
            }).collect();
            let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            let mut hits = vec![0u32; weights.len()];
            for random in 0..total {
                let chosen = backend(&backends, |_| random).expect("some weight");
                hits[backends.iter().position(|b| b == chosen).expect("from the list")] += 1;
            }
            prop_assert_eq!(hits, weights);
            if total == 0 { prop_assert!(backend(&backends, |_| 0).is_none()); }
        }
    }
}
