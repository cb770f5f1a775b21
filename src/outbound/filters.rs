//! What a route's rule does to a request besides choosing its backend: answers it with a redirect, or changes its target.

use ::http::{HeaderValue, Request, Response, header, uri::Authority};
use pillion_api::model::{Redirect, Rewrite, RouteRule};

use crate::http::Body;

/// The answer that leads the caller elsewhere; no backend is asked.
pub(super) fn redirect(
    redirect: &Redirect,
    rule: &RouteRule,
    request: &Request<Body>,
    authority: &Authority,
    port: u16,
) -> Response<Body> {
    let location = redirect.location(request.uri(), authority, port, rule.matches.path.as_ref());
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = redirect.status;
    let location = HeaderValue::try_from(location).expect("hosts and paths are visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// Changes a request's path and its host.
pub(super) fn rewrite(
    rewrite: &Rewrite,
    rule: &RouteRule,
    request: &mut Request<Body>,
    authority: &mut Authority,
) {
    let mut uri = std::mem::take(request.uri_mut());
    rewrite.apply(rule.matches.path.as_ref(), &mut uri, request.headers_mut());
    *request.uri_mut() = uri;
    if let Some(hostname) = &rewrite.hostname {
        authority.clone_from(hostname);
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::{model, wire};

    use super::*;

    fn rule(prefix: &str) -> RouteRule {
        let r#type = wire::string_match::Type::PathPrefix.into();
        let path = wire::StringMatch { r#type, value: prefix.into() };
        let matches = wire::RouteMatch { path: Some(path), ..Default::default() };
        let rule = wire::RouteRule { r#match: Some(matches), ..Default::default() };
        let config = wire::ServiceConfig { service: "s.n".into(), routes: vec![rule], ..Default::default() };
        model::Service::try_from(config).expect("a valid configuration").routes.remove(0)
    }

    #[test]
    fn a_rewrite_changes_path_and_host_in_every_form_of_target() {
        let to = Rewrite {
            hostname: Some(Authority::from_static("new.example")),
            path: Some(model::PathChange::Prefix("/new".into())),
        };
        for target in ["/old/x?q=1", "http://web.demo/old/x?q=1"] {
            let mut request = Request::new(Body::Empty);
            *request.uri_mut() = target.parse().expect("a target");
            let mut authority = Authority::from_static("web.demo");
            rewrite(&to, &rule("/old"), &mut request, &mut authority);
            assert_eq!(request.uri(), "/new/x?q=1");
            assert_eq!(authority.as_str(), "new.example");
            assert_eq!(request.headers()["host"], "new.example");
        }
    }
}
