//! Routes in plain words: what a rule asks of a request, which of it a request fails, and what follows from the rule.

use std::time::Duration;

use pillion_api::{
    model::{
        Filters, HeaderModifier, Mirror, PathChange, Redirect, Rewrite, RouteMatch, RouteRetry, RouteRule,
        SessionPersistence, SessionToken, StringMatch,
    },
    route::{Miss, RequestHead, parameter},
};

/// What a request must be like; empty: any will do.
pub fn conditions(rule: &RouteRule) -> Vec<String> {
    let RouteMatch { path, method, headers, query } = &rule.matches;
    let consumer = rule.consumer_namespace.as_ref().map(|it| format!("the caller is of namespace {it}"));
    let port = rule.parent_port.map(|port| format!("port is {port}"));
    let method = method.as_ref().map(|method| format!("method is {method}"));
    let path = path.iter().filter(|path| !is_any(path)).map(|path| format!("path {}", like(path)));
    let headers = headers.iter().map(|(name, value)| format!("header {name} {}", like(value)));
    let query = query.iter().map(|(name, value)| format!("query parameter {name} {}", like(value)));
    consumer.into_iter().chain(port).chain(method).chain(path).chain(headers).chain(query).collect()
}

/// The condition that a request fails, and what it has instead.
pub(super) fn why_not(miss: Miss<'_>, rule: &RouteRule, port: u16, head: RequestHead<'_>) -> String {
    let matches = &rule.matches;
    let instead = |found: Option<String>| match found {
        Some(found) => format!("it is {found:?}"),
        None => "there is none".to_owned(),
    };
    match miss {
        Miss::Port(parent) => format!("it is for port {parent}, not {port}"),
        Miss::Namespace(consumers) => format!("it is for callers of namespace {consumers}"),
        Miss::Method => {
            let wanted = matches.method.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("method is {}, not {wanted}", head.method)
        }
        Miss::Path => {
            let wanted = matches.path.as_ref().map(like).unwrap_or_default();
            format!("path {} is not one that {wanted}", head.uri.path())
        }
        Miss::Header(name) => {
            let wanted = matches.headers.iter().find(|(other, _)| other == name);
            let wanted = wanted.map(|(_, value)| like(value)).unwrap_or_default();
            let found = head.headers.get(name).map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
            format!("no header {name} that {wanted}: {}", instead(found))
        }
        Miss::Query(name) => {
            let wanted = matches.query.iter().find(|(other, _)| other == name);
            let wanted = wanted.map(|(_, value)| like(value)).unwrap_or_default();
            let found = parameter(head.uri.query().unwrap_or_default(), name).map(|it| it.into_owned());
            format!("no query parameter {name} that {wanted}: {}", instead(found))
        }
    }
}

/// What a rule does to requests and answers. Every field by its name, so that a new one is missed here.
pub fn effects(rule: &RouteRule, default_timeout: Option<Duration>) -> Vec<String> {
    let RouteRule {
        route: _,
        rule: _,
        consumer_namespace: _,
        parent_port: _,
        matches: _,
        backends: _,
        request_timeout,
        backend_request_timeout,
        request_headers,
        response_headers,
        filters,
        retry,
        session,
    } = rule;
    let mut effects = changes(request_headers, "request");
    effects.extend(changes(response_headers, "response"));
    effects.extend(filters.iter().flat_map(|filters| filtered(filters)));
    effects.extend(match (request_timeout, default_timeout) {
        (Some(Duration::ZERO), _) => Some("the request may take any time (this rule)".to_owned()),
        (Some(timeout), _) => Some(format!("the request may take {} (this rule)", time(*timeout))),
        (None, Some(timeout)) => Some(format!("the request may take {} (its TrafficPolicy)", time(timeout))),
        (None, None) => None,
    });
    effects.extend(backend_request_timeout.map(|each| match each {
        Duration::ZERO => "each try may take any time".to_owned(),
        each => format!("each try may take {}", time(each)),
    }));
    effects.extend(retry.as_ref().map(retries));
    effects.extend(session.as_ref().map(keeps));
    effects
}

pub(super) fn changes(modifier: &HeaderModifier, whose: &str) -> Vec<String> {
    let HeaderModifier { remove, set, add } = modifier;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let removed = remove.iter().map(|name| format!("removes the {whose} header {name}"));
    let set = set.iter().map(|(name, value)| format!("sets the {whose} header {name}: {}", text(value)));
    let added = add.iter().map(|(name, value)| format!("adds the {whose} header {name}: {}", text(value)));
    removed.chain(set).chain(added).collect()
}

fn filtered(filters: &Filters) -> Vec<String> {
    let Filters { redirect, rewrite, mirrors } = filters;
    let path = |change: &PathChange| match change {
        PathChange::Full(path) => format!("the path {path}"),
        PathChange::Prefix(prefix) => format!("{prefix:?} for the prefix that matched"),
    };
    let mut words = Vec::new();
    if let Some(Redirect { scheme, hostname, port, path: change, status }) = redirect {
        let scheme = scheme.map(|scheme| format!("scheme {}", scheme.as_str()));
        let host = hostname.as_ref().map(|host| format!("host {host}"));
        let port = port.map(|port| format!("port {port}"));
        let to: Vec<_> = [scheme, host, port, change.as_ref().map(path)].into_iter().flatten().collect();
        words.push(format!("redirects with {status}: {}", to.join(", ")));
    }
    if let Some(Rewrite { hostname, path: change }) = rewrite {
        words.extend(hostname.as_ref().map(|host| format!("rewrites the host to {host}")));
        words.extend(change.as_ref().map(|change| format!("rewrites the path: {}", path(change))));
    }
    words.extend(mirrors.iter().map(|Mirror { service, port, numerator, denominator }| {
        format!("mirrors {numerator} of {denominator} requests to {service}:{port}")
    }));
    words
}

fn retries(retry: &RouteRetry) -> String {
    let RouteRetry { codes, attempts, backoff } = retry;
    let mut text = match attempts {
        Some(attempts) => format!("tries again, {attempts} times at most"),
        None => "tries again".to_owned(),
    };
    if !codes.is_empty() {
        let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
        text += &format!(", on {}", codes.join(", "));
    }
    if let Some(backoff) = backoff {
        text += &format!(", at first after {}", time(*backoff));
    }
    text
}

fn keeps(session: &SessionPersistence) -> String {
    let SessionPersistence { token, absolute_timeout, idle_timeout } = session;
    let mut text = match token {
        SessionToken::Cookie { name, permanent: false } => {
            format!("keeps a client with its endpoint by the cookie {name}")
        }
        SessionToken::Cookie { name, permanent: true } => {
            format!("keeps a client with its endpoint by the lasting cookie {name}")
        }
        SessionToken::Header(name) => format!("keeps a client with its endpoint by the header {name}"),
    };
    if let Some(absolute) = absolute_timeout {
        text += &format!(", for {} at most", time(*absolute));
    }
    if let Some(idle) = idle_timeout {
        text += &format!(", until unused for {}", time(*idle));
    }
    text
}

/// A time as documents have it: `1m 30s`.
pub(super) fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn is_any(path: &StringMatch) -> bool {
    matches!(path, StringMatch::PathPrefix(prefix) if prefix.is_empty())
}

fn like(value: &StringMatch) -> String {
    match value {
        StringMatch::Exact(text) => format!("is {text}"),
        StringMatch::PathPrefix(prefix) if prefix.is_empty() => "is any".to_owned(),
        StringMatch::PathPrefix(prefix) => format!("is {prefix} or below"),
        StringMatch::Regex(regex) => {
            // As it was written, without the brackets and anchors around it.
            let whole = regex.as_str();
            let written = whole.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
            format!("fits {}", written.unwrap_or(whole))
        }
    }
}
