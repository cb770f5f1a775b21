//! What a rule does to requests and responses.

use gateway_api::experimental::httproutes::{
    HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersRequestMirror as RequestMirror,
    HttpRouteRulesFiltersRequestRedirect as Redirect,
    HttpRouteRulesFiltersRequestRedirectPathType as RedirectPathType,
    HttpRouteRulesFiltersType as FilterType, HttpRouteRulesFiltersUrlRewrite as Rewrite,
    HttpRouteRulesFiltersUrlRewritePathType as RewritePathType, HttpRouteRulesMatches as Match,
    HttpRouteRulesMatchesPathType as PathType,
};
use pillion_api::name::is_host;

use super::{
    super::fault::{Faults, Path},
    check_port, headers, targets,
};

/// Where filters stand.
#[derive(Clone, Copy)]
pub(super) enum Place<'rule> {
    /// In a rule with these matches, and with backends or without.
    Rule(&'rule [Match], bool),
    /// With one of its backends.
    Backend,
}

/// Each filter by itself, and what they are together.
pub(super) fn check(filters: &[Filter], place: Place<'_>, at: &Path, faults: &mut Faults) {
    faults.check_length(at, filters.len(), 16);
    let has = |kind: FilterType| filters.iter().any(|filter| filter.r#type == kind);
    for (index, filter) in filters.iter().enumerate() {
        let at = at.index(index);
        check_one(filter, place, &at, faults);
        let repeated = filters[..index].iter().any(|earlier| earlier.r#type == filter.r#type);
        if repeated && !matches!(filter.r#type, FilterType::RequestMirror | FilterType::ExtensionRef) {
            faults.add(&at.field("type"), "a rule can have a filter of this type once");
        }
        if filter.r#type == FilterType::RequestRedirect {
            if has(FilterType::UrlRewrite) {
                faults.add(&at.field("type"), "RequestRedirect cannot be together with URLRewrite");
            }
            if let Place::Rule(_, true) = place {
                faults
                    .add(&at.field("type"), "a rule with RequestRedirect has no backendRefs: none is asked");
            }
            if has(FilterType::RequestMirror) {
                faults.add(&at.field("type"), "RequestRedirect cannot be together with RequestMirror");
            }
        }
    }
}

fn check_one(filter: &Filter, place: Place<'_>, at: &Path, faults: &mut Faults) {
    let (field, used) = match filter.r#type {
        FilterType::RequestHeaderModifier => {
            ("requestHeaderModifier", filter.request_header_modifier.is_some())
        }
        FilterType::ResponseHeaderModifier => {
            ("responseHeaderModifier", filter.response_header_modifier.is_some())
        }
        FilterType::RequestMirror => ("requestMirror", filter.request_mirror.is_some()),
        FilterType::RequestRedirect => ("requestRedirect", filter.request_redirect.is_some()),
        FilterType::UrlRewrite => ("urlRewrite", filter.url_rewrite.is_some()),
        FilterType::ExtensionRef | FilterType::Cors | FilterType::ExternalAuth => {
            faults.add(&at.field("type"), why_not(&filter.r#type));
            return;
        }
    };
    let modifies =
        matches!(filter.r#type, FilterType::RequestHeaderModifier | FilterType::ResponseHeaderModifier);
    if let (Place::Backend, false) = (place, modifies) {
        faults.add(&at.field("type"), "a backend can only modify headers; other filters belong to its rule");
        return;
    }
    if !used {
        faults.add(&at.field(field), "is required for a filter of this type");
    }
    let others = [
        ("requestHeaderModifier", filter.request_header_modifier.is_some()),
        ("responseHeaderModifier", filter.response_header_modifier.is_some()),
        ("requestMirror", filter.request_mirror.is_some()),
        ("requestRedirect", filter.request_redirect.is_some()),
        ("urlRewrite", filter.url_rewrite.is_some()),
        ("extensionRef", filter.extension_ref.is_some()),
        ("cors", filter.cors.is_some()),
        ("externalAuth", filter.external_auth.is_some()),
    ];
    for (other, _) in others.iter().filter(|(other, present)| *present && *other != field) {
        faults.add(&at.field(other), "does not belong to a filter of this type");
    }
    let at = at.field(field);
    match filter.r#type {
        FilterType::RequestHeaderModifier => {
            let changes = filter.request_header_modifier.iter();
            changes.for_each(|it| headers::check_changes(it.into(), &at, faults));
        }
        FilterType::ResponseHeaderModifier => {
            let changes = filter.response_header_modifier.iter();
            changes.for_each(|it| headers::check_changes(it.into(), &at, faults));
        }
        FilterType::RequestMirror => {
            filter.request_mirror.iter().for_each(|it| check_mirror(it, &at, faults))
        }
        FilterType::RequestRedirect => {
            filter.request_redirect.iter().for_each(|it| check_redirect(it, place, &at, faults));
        }
        _ => filter.url_rewrite.iter().for_each(|it| check_rewrite(it, place, &at, faults)),
    }
}

fn why_not(kind: &FilterType) -> &'static str {
    match kind {
        FilterType::Cors => {
            "CORS is not supported: browsers do not call through sidecars, and services do not ask"
        }
        FilterType::ExternalAuth => "ExternalAuth is not supported",
        _ => "ExtensionRef is not supported: there are no filters beyond the Gateway API's",
    }
}

fn check_mirror(mirror: &RequestMirror, at: &Path, faults: &mut Faults) {
    targets::check_mirrored(&mirror.backend_ref, &at.field("backendRef"), faults);
    if let Some(percent) = mirror.percent {
        faults.check_range(&at.field("percent"), percent.into(), 0, 100);
        if mirror.fraction.is_some() {
            faults.add(&at.field("fraction"), "cannot be together with percent");
        }
    }
    if let Some(fraction) = &mirror.fraction {
        let at = at.field("fraction");
        let denominator = fraction.denominator.unwrap_or(100);
        faults.check_range(&at.field("denominator"), denominator.into(), 1, i32::MAX.into());
        faults.check_range(&at.field("numerator"), fraction.numerator.into(), 0, denominator.max(0).into());
    }
}

fn check_redirect(redirect: &Redirect, place: Place<'_>, at: &Path, faults: &mut Faults) {
    check_hostname(redirect.hostname.as_deref(), at, faults);
    check_port(redirect.port, at, faults);
    if let Some(status) = redirect.status_code
        && !matches!(status, 301 | 302 | 303 | 307 | 308)
    {
        let message = format!("must be one of 301, 302, 303, 307, 308, is {status}");
        faults.add(&at.field("statusCode"), message);
    }
    if let Some(path) = &redirect.path {
        let full = path.r#type == RedirectPathType::ReplaceFullPath;
        let change = Change { full, path: &path.replace_full_path, prefix: &path.replace_prefix_match };
        change.check(place, &at.field("path"), faults);
    }
}

fn check_rewrite(rewrite: &Rewrite, place: Place<'_>, at: &Path, faults: &mut Faults) {
    check_hostname(rewrite.hostname.as_deref(), at, faults);
    if let Some(path) = &rewrite.path {
        let full = path.r#type == RewritePathType::ReplaceFullPath;
        let change = Change { full, path: &path.replace_full_path, prefix: &path.replace_prefix_match };
        change.check(place, &at.field("path"), faults);
    }
}

fn check_hostname(hostname: Option<&str>, at: &Path, faults: &mut Faults) {
    if let Some(hostname) = hostname.filter(|it| !is_host(it) || it.parse::<std::net::Ipv4Addr>().is_ok()) {
        faults.add(&at.field("hostname"), format!("must be a DNS name in lower case, is {hostname:?}"));
    }
}

/// What a redirect or a rewrite makes of a path.
struct Change<'filter> {
    full: bool,
    path: &'filter Option<String>,
    prefix: &'filter Option<String>,
}

impl Change<'_> {
    fn check(&self, place: Place<'_>, at: &Path, faults: &mut Faults) {
        let fields =
            [("replaceFullPath", self.path, self.full), ("replacePrefixMatch", self.prefix, !self.full)];
        for (field, value, wanted) in fields {
            let at = at.field(field);
            match (value, wanted) {
                (None, true) => faults.add(&at, "is required for this type"),
                (Some(_), false) => faults.add(&at, "does not belong to this type"),
                (Some(value), true) if value.len() > 1024 => {
                    faults.add(&at, format!("must have at most 1024 characters, has {}", value.len()));
                }
                (Some(value), true) if !is_path(value) => {
                    faults.add(&at, format!("is not a path: {value:?}"));
                }
                _ => {}
            }
        }
        if let (false, Place::Rule(matches, _)) = (self.full, place)
            && !of_one_prefix(matches)
        {
            faults.add(
                &at.field("type"),
                "ReplacePrefixMatch needs a rule with exactly one match, by PathPrefix",
            );
        }
    }
}

fn is_path(text: &str) -> bool {
    !text.contains(['?', '#'])
        && (text.is_empty()
            || format!("/{}", text.trim_start_matches('/')).parse::<http::uri::PathAndQuery>().is_ok())
}

/// No match is one of the prefix "/", and so is one without a path.
fn of_one_prefix(matches: &[Match]) -> bool {
    match matches {
        [] => true,
        [one] => {
            let kind = one.path.as_ref().and_then(|path| path.r#type.as_ref());
            kind.is_none_or(|kind| *kind == PathType::PathPrefix)
        }
        _ => false,
    }
}
