//! What follows from a rule, whatever it matches.

use gateway_api::experimental::httproutes::{
    HttpRouteRules as Rule, HttpRouteRulesBackendRefs as BackendRef, HttpRouteRulesFilters as Filter,
    HttpRouteRulesFiltersRequestMirror as RequestMirror, HttpRouteRulesFiltersRequestRedirect as Redirect,
    HttpRouteRulesFiltersRequestRedirectScheme as Scheme, HttpRouteRulesFiltersUrlRewrite as Rewrite,
    HttpRouteRulesRetry as Retry, HttpRouteRulesSessionPersistence as Session,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType as Lifetime,
    HttpRouteRulesSessionPersistenceType as SessionType,
};
use pillion_api::{
    hash::hash,
    wire::{self, path_change::Change, session_persistence::Type},
};

use crate::resource::{
    Key, Kind,
    duration::{given_ms, wire_ms},
    route::{Changes, filters_of},
};

/// A rule for requests yet to be filled in.
pub(super) fn without_match(key: &Key, index: usize, rule: &Rule) -> wire::RouteRule {
    let timeouts = rule.timeouts.as_ref();
    let filters = rule.filters.as_deref().unwrap_or_default();
    let (request_headers, response_headers) = modifiers(filters);
    let route = format!("{}/{}", key.namespace, key.name);
    let name = rule.name.clone().unwrap_or_else(|| index.to_string());
    wire::RouteRule {
        session: rule.session_persistence.as_ref().map(|it| session(it, &route, &name)),
        route,
        rule: name,
        backends: rule.backend_refs.iter().flatten().map(|it| backend(key, it)).collect(),
        request_timeout_ms: given_ms(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
        backend_request_timeout_ms: given_ms(timeouts.and_then(|timeouts| timeouts.backend_request.as_ref())),
        request_headers,
        response_headers,
        redirect: filters.iter().find_map(|filter| filter.request_redirect.as_ref()).map(redirect),
        rewrite: filters.iter().find_map(|filter| filter.url_rewrite.as_ref()).map(rewrite),
        mirrors: filters
            .iter()
            .filter_map(|filter| filter.request_mirror.as_ref())
            .map(|it| mirror(key, it))
            .collect(),
        retry: rule.retry.as_ref().map(retry),
        ..Default::default()
    }
}

fn backend(key: &Key, backend: &BackendRef) -> wire::Backend {
    let (request_headers, response_headers) = modifiers(&filters_of(backend));
    wire::Backend {
        service: service(key, backend.namespace.as_ref(), &backend.name),
        port: number(backend.port),
        weight: backend.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0)),
        request_headers,
        response_headers,
    }
}

fn service(route: &Key, namespace: Option<&String>, name: &str) -> String {
    let namespace = namespace.unwrap_or(&route.namespace);
    Key::new(Kind::Service, namespace.as_str(), name).to_wire()
}

/// Of what was never admitted: zero, which sidecars refuse.
fn number(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// What is done to headers of requests, and of responses.
fn modifiers(filters: &[Filter]) -> (Option<wire::HeaderModifier>, Option<wire::HeaderModifier>) {
    let request = filters.iter().find_map(|filter| filter.request_header_modifier.as_ref());
    let response = filters.iter().find_map(|filter| filter.response_header_modifier.as_ref());
    (request.map(|it| modifier(it.into())), response.map(|it| modifier(it.into())))
}

fn modifier(Changes { set, add, remove }: Changes<'_>) -> wire::HeaderModifier {
    let headers = |changes: Vec<(&str, &str)>| {
        let header = |(name, value): (&str, &str)| wire::Header {
            name: name.to_ascii_lowercase(),
            value: value.to_owned(),
        };
        changes.into_iter().map(header).collect()
    };
    wire::HeaderModifier {
        set: headers(set),
        add: headers(add),
        remove: remove.into_iter().map(str::to_ascii_lowercase).collect(),
    }
}

fn redirect(redirect: &Redirect) -> wire::Redirect {
    let scheme = match redirect.scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        None => "",
    };
    let path = redirect.path.as_ref();
    wire::Redirect {
        scheme: scheme.to_owned(),
        hostname: redirect.hostname.clone().unwrap_or_default(),
        port: number(redirect.port),
        path: path.and_then(|path| path_change(&path.replace_full_path, &path.replace_prefix_match)),
        status: redirect.status_code.map_or(302, |status| u32::try_from(status).unwrap_or(0)),
    }
}

fn rewrite(rewrite: &Rewrite) -> wire::Rewrite {
    let path = rewrite.path.as_ref();
    wire::Rewrite {
        hostname: rewrite.hostname.clone().unwrap_or_default(),
        path: path.and_then(|path| path_change(&path.replace_full_path, &path.replace_prefix_match)),
    }
}

fn path_change(full: &Option<String>, prefix: &Option<String>) -> Option<wire::PathChange> {
    let change = match (full, prefix) {
        (Some(full), _) => Change::ReplaceFull(full.clone()),
        (None, prefix) => Change::ReplacePrefix(prefix.clone()?),
    };
    Some(wire::PathChange { change: Some(change) })
}

fn mirror(key: &Key, mirror: &RequestMirror) -> wire::Mirror {
    let (numerator, denominator) = match (&mirror.fraction, mirror.percent) {
        (Some(fraction), _) => (number(Some(fraction.numerator)), number(fraction.denominator.or(Some(100)))),
        (None, Some(percent)) => (number(Some(percent)), 100),
        (None, None) => (100, 100),
    };
    let backend = &mirror.backend_ref;
    wire::Mirror {
        service: service(key, backend.namespace.as_ref(), &backend.name),
        port: number(backend.port),
        numerator,
        denominator,
    }
}

fn retry(retry: &Retry) -> wire::Retry {
    wire::Retry {
        codes: retry.codes.iter().flatten().filter_map(|code| u32::try_from(*code).ok()).collect(),
        attempts: retry.attempts.and_then(|attempts| u32::try_from(attempts).ok()),
        backoff_ms: wire_ms(retry.backoff.as_ref()),
    }
}

/// What names neither its cookie nor its header has one of its rule's own: rules of one host would write over each other's.
fn session(session: &Session, route: &str, rule: &str) -> wire::SessionPersistence {
    let name = || format!("mesh-session-{:08x}", hash(format!("{route}/{rule}").as_bytes()) as u32);
    let header = matches!(session.r#type, Some(SessionType::Header));
    let lifetime = session.cookie_config.as_ref().and_then(|cookie| cookie.lifetime_type.as_ref());
    wire::SessionPersistence {
        r#type: if header { Type::Header.into() } else { Type::Cookie.into() },
        name: session.session_name.clone().unwrap_or_else(name),
        absolute_timeout_ms: wire_ms(session.absolute_timeout.as_ref()),
        idle_timeout_ms: wire_ms(session.idle_timeout.as_ref()),
        permanent: matches!(lifetime, Some(Lifetime::Permanent)),
    }
}
