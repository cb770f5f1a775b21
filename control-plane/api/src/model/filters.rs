//! What a route's rule does besides choosing a backend: redirects, rewrites, mirrors.

use http::{StatusCode, uri::Authority};

use super::{Faults, HeaderModifier};
use crate::{
    name::ServiceName,
    wire::{self, path_change::Change},
};

/// Filters that few rules have; so they are kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Answered by the sidecar; no backend is asked.
    pub redirect: Option<Redirect>,
    /// Of what is sent on.
    pub rewrite: Option<Rewrite>,
    /// Who gets copies.
    pub mirrors: Vec<Mirror>,
}

/// What `Location` says; what is open there stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// "http" or "https".
    pub scheme: Option<Scheme>,
    /// Without a port.
    pub hostname: Option<String>,
    /// Said as it is.
    pub port: Option<u16>,
    /// Of the path; the query stays.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// Which scheme a redirect leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Port 80 unless said otherwise.
    Http,
    /// Port 443 unless said otherwise.
    Https,
}

/// Changes to a request's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The backend's application sees this as the host.
    pub hostname: Option<Authority>,
    /// Of the path; the query stays.
    pub path: Option<PathChange>,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// It is this.
    Full(String),
    /// The prefix that the rule matched is this.
    Prefix(String),
}

/// Who gets a copy of how many requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// May not exist (any more).
    pub service: ServiceName,
    /// Of that service.
    pub port: u16,
    /// So many of each `denominator` requests.
    pub numerator: u32,
    /// Never zero.
    pub denominator: u32,
}

/// Changes for the requests that one backend gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendFilters {
    /// After the rule's own.
    pub request_headers: HeaderModifier,
    /// Before the rule's own.
    pub response_headers: HeaderModifier,
}

impl Faults {
    pub(super) fn filters(&mut self, field: &str, route: &wire::RouteRule) -> Option<Box<Filters>> {
        let redirect = route.redirect.as_ref().map(|it| self.redirect(&format!("{field}.redirect"), it));
        let rewrite = route.rewrite.as_ref().map(|it| self.rewrite(&format!("{field}.rewrite"), it));
        let mirrors: Vec<Mirror> = (route.mirrors.iter().enumerate())
            .filter_map(|(i, mirror)| self.mirror(&format!("{field}.mirrors[{i}]"), mirror))
            .collect();
        let filters = Filters { redirect, rewrite, mirrors };
        (filters != Filters::default()).then(|| Box::new(filters))
    }

    pub(super) fn backend_filters(
        &mut self,
        field: &str,
        backend: &wire::Backend,
    ) -> Option<Box<BackendFilters>> {
        let filters = BackendFilters {
            request_headers: self.modifier(&format!("{field}.request_headers"), &backend.request_headers),
            response_headers: self.modifier(&format!("{field}.response_headers"), &backend.response_headers),
        };
        (filters != BackendFilters::default()).then(|| Box::new(filters))
    }

    fn redirect(&mut self, field: &str, redirect: &wire::Redirect) -> Redirect {
        let scheme = match redirect.scheme.as_str() {
            "" => None,
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            other => {
                self.say(&format!("{field}.scheme"), format_args!("{other:?} is not known to this version"));
                None
            }
        };
        let status = u16::try_from(redirect.status).ok().and_then(|it| StatusCode::from_u16(it).ok());
        let status = status.filter(StatusCode::is_redirection).unwrap_or_else(|| {
            self.say(&format!("{field}.status"), format_args!("{} is no redirection", redirect.status));
            StatusCode::FOUND
        });
        let host = self.host(&format!("{field}.hostname"), &redirect.hostname);
        Redirect {
            scheme,
            hostname: host.map(|host| host.to_string()),
            port: (redirect.port != 0).then(|| self.port(&format!("{field}.port"), redirect.port)),
            path: path_change(redirect.path.as_ref()),
            status,
        }
    }

    fn rewrite(&mut self, field: &str, rewrite: &wire::Rewrite) -> Rewrite {
        Rewrite {
            hostname: self.host(&format!("{field}.hostname"), &rewrite.hostname),
            path: path_change(rewrite.path.as_ref()),
        }
    }

    fn host(&mut self, field: &str, text: &str) -> Option<Authority> {
        if text.is_empty() { None } else { self.parse(field, text) }
    }

    fn mirror(&mut self, field: &str, mirror: &wire::Mirror) -> Option<Mirror> {
        if mirror.denominator == 0 {
            self.say(&format!("{field}.denominator"), "is zero");
        }
        let port = self.port(&format!("{field}.port"), mirror.port);
        let service = self.parse(&format!("{field}.service"), &mirror.service)?;
        let (numerator, denominator) = (mirror.numerator, mirror.denominator);
        Some(Mirror { service, port, numerator, denominator })
    }
}

fn path_change(change: Option<&wire::PathChange>) -> Option<PathChange> {
    Some(match change?.change.as_ref()? {
        Change::ReplaceFull(path) => PathChange::Full(path.clone()),
        Change::ReplacePrefix(path) => PathChange::Prefix(path.clone()),
    })
}
