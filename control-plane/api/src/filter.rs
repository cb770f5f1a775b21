//! What a route's filters make of a request: pure, and the same for a sidecar that acts on it and a control plane that
//! explains it.

use http::{
    HeaderMap, HeaderValue, Request, Uri, header,
    uri::{Authority, PathAndQuery},
};

use crate::{
    model::{Backend, Mirror, PathChange, Redirect, Rewrite, RouteRule, Scheme, StringMatch},
    route::RequestHead,
};

impl PathChange {
    /// The path (without a query) that another one becomes, of which a rule matched `matched`.
    pub fn apply(&self, path: &str, matched: Option<&StringMatch>) -> String {
        let changed = match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(replacement) => {
                // Whole elements, and a slash at the end of either counts for nothing (HTTPPathModifier).
                let prefix = match matched {
                    Some(StringMatch::PathPrefix(prefix)) => prefix.as_str(),
                    _ => "",
                };
                let rest = path.strip_prefix(prefix).unwrap_or(path);
                format!("{}{rest}", replacement.trim_end_matches('/'))
            }
        };
        if changed.starts_with('/') { changed } else { format!("/{changed}") }
    }

    /// The same for a request's target; its query stays. `None`: that would be no target.
    pub fn target(&self, uri: &Uri, matched: Option<&StringMatch>) -> Option<PathAndQuery> {
        let path = self.apply(uri.path(), matched);
        match uri.query() {
            Some(query) => format!("{path}?{query}").try_into().ok(),
            None => path.try_into().ok(),
        }
    }
}

impl Rewrite {
    /// Changes a request's path and its host, where a rule matched `matched`.
    pub fn apply(&self, matched: Option<&StringMatch>, uri: &mut Uri, headers: &mut HeaderMap) {
        let path = self.path.as_ref().and_then(|path| path.target(uri, matched));
        let mut parts = std::mem::take(uri).into_parts();
        if let Some(path) = path {
            parts.path_and_query = Some(path);
        }
        if let Some(hostname) = &self.hostname {
            // An authority in the target would stand over the field.
            (parts.scheme, parts.authority) = (None, None);
            let host = HeaderValue::try_from(hostname.as_str()).expect("a host is visible ASCII");
            headers.insert(header::HOST, host);
        }
        *uri = Uri::from_parts(parts).expect("parts of a valid URI fit together");
    }
}

impl RouteRule {
    /// A request as one of the rule's backends gets it: in this order, as sidecars do it.
    pub fn changed(&self, head: RequestHead<'_>, backend: Option<&Backend>) -> Request<()> {
        let mut request = head.to_request();
        let mut uri = std::mem::take(request.uri_mut());
        let headers = request.headers_mut();
        self.request_headers.apply(headers);
        if let Some(rewrite) = self.filters.as_ref().and_then(|filters| filters.rewrite.as_ref()) {
            rewrite.apply(self.matches.path.as_ref(), &mut uri, headers);
        }
        if let Some(filters) = backend.and_then(|backend| backend.filters.as_ref()) {
            filters.request_headers.apply(headers);
        }
        *request.uri_mut() = uri;
        request
    }
}

impl Redirect {
    /// What `Location` says to a request for `uri`, sent to `port` of a service by the name that `authority` is.
    pub fn location(
        &self,
        uri: &Uri,
        authority: &Authority,
        port: u16,
        matched: Option<&StringMatch>,
    ) -> String {
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let host = self.hostname.as_deref().unwrap_or_else(|| authority.host());
        // No port said: the scheme's own where a scheme is said, else the one that the request was sent to.
        let port = self.port.unwrap_or(if self.scheme.is_some() { scheme.port() } else { port });
        let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
        let path = match &self.path {
            Some(change) => change.apply(uri.path(), matched),
            None => uri.path().to_owned(),
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}://{host}{port}{path}{query}", scheme.as_str())
    }
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Mirror {
    /// Whether a request is mirrored to which a random number in `0..denominator` falls.
    pub fn takes(&self, random: impl FnOnce(u32) -> u32) -> bool {
        self.numerator >= self.denominator
            || (self.numerator > 0 && random(self.denominator) < self.numerator)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> StringMatch {
        StringMatch::PathPrefix(text.trim_end_matches('/').to_owned())
    }

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_says() {
        let table = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
        ];
        for (path, matched, replacement, expected) in table {
            let change = PathChange::Prefix(replacement.into());
            assert_eq!(
                change.apply(path, Some(&prefix(matched))),
                expected,
                "{path} {matched} {replacement}"
            );
        }
        let full = PathChange::Full("/new".into());
        let uri = Uri::from_static("/a/b?q=1");
        assert_eq!(full.target(&uri, None).expect("a target"), "/new?q=1");
        assert_eq!(PathChange::Full("new".into()).apply("/x", None), "/new");
    }

    #[test]
    fn location_says_a_port_only_where_the_scheme_does_not() {
        let open =
            Redirect { scheme: None, hostname: None, port: None, path: None, status: StatusCode::FOUND };
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        let host = Some("example.org".to_owned());
        let table = [
            (open.clone(), 80, "http://web.demo/a?q"),
            (open.clone(), 8080, "http://web.demo:8080/a?q"),
            (Redirect { scheme: http, ..open.clone() }, 8080, "http://web.demo/a?q"),
            (Redirect { scheme: https, ..open.clone() }, 8080, "https://web.demo/a?q"),
            (Redirect { scheme: https, port: Some(80), ..open.clone() }, 80, "https://web.demo:80/a?q"),
            (Redirect { port: Some(443), ..open.clone() }, 80, "http://web.demo:443/a?q"),
            (Redirect { port: Some(80), ..open.clone() }, 8080, "http://web.demo/a?q"),
            (Redirect { hostname: host, port: Some(81), ..open.clone() }, 80, "http://example.org:81/a?q"),
            (Redirect { path: Some(PathChange::Full("/n".into())), ..open }, 80, "http://web.demo/n?q"),
        ];
        let authority = Authority::from_static("web.demo:1234");
        for (redirect, port, expected) in table {
            let location = redirect.location(&Uri::from_static("/a?q"), &authority, port, None);
            assert_eq!(location, expected, "{redirect:?} {port}");
        }
    }

    proptest! {
        #[test]
        fn a_mirror_takes_its_share(numerator in 0u32..20, denominator in 1u32..20) {
            let mirror = Mirror { service: "a.b".parse().expect("a name"), port: 80, numerator, denominator };
            let taken = (0..denominator).filter(|&random| mirror.takes(|_| random)).count();
            prop_assert_eq!(taken, numerator.min(denominator) as usize);
        }

        #[test]
        fn a_changed_path_stays_a_path(path in "/[a-z/]{0,9}", matched in "/[a-z/]{0,4}", to in "/?[a-z/]{0,5}") {
            let changed = PathChange::Prefix(to).apply(&path, Some(&prefix(&matched)));
            prop_assert!(changed.starts_with('/') && changed.parse::<PathAndQuery>().is_ok(), "{}", changed);
        }
    }
}
