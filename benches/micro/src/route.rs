//! Which of a service's rules a request takes.

use http::{HeaderMap, Method, Uri};
use pillion_api::{
    model::Service,
    route::{self, Decision, RequestHead},
    wire::{self, string_match::Type},
};

use crate::Case;

/// A request that fits the last of so many rules: as long as choosing can take.
#[derive(Debug)]
pub struct Choose {
    service: Service,
    uri: Uri,
    headers: HeaderMap,
}

impl Choose {
    /// With this many rules, each for a path prefix of its own.
    pub fn among(rules: usize) -> Self {
        let rule = |index: usize| wire::RouteRule {
            route: "bench/route".into(),
            rule: index.to_string(),
            r#match: Some(wire::RouteMatch {
                path: Some(wire::StringMatch {
                    r#type: Type::PathPrefix.into(),
                    value: format!("/api/v1/resource-{index:04}"),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = wire::ServiceConfig {
            service: "backend.bench".into(),
            routes: (0..rules).map(rule).collect(),
            ..Default::default()
        };
        let uri = format!("/api/v1/resource-{:04}/items?page=2", rules - 1);
        Self {
            service: config.try_into().expect("a valid configuration"),
            uri: uri.parse().expect("a valid path"),
            headers: HeaderMap::new(),
        }
    }
}

impl Case for Choose {
    type Output = bool;

    fn run(&mut self) -> bool {
        let head = RequestHead { method: &Method::GET, uri: &self.uri, headers: &self.headers };
        matches!(route::choose(&self.service, 80, "bench", head), Decision::Rule(_))
    }
}
