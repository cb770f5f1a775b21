//! An explanation and the decision are one.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use pillion_api::{
    model,
    route::{Decision, RequestHead, choose},
    wire::{self, string_match::Type},
};
use proptest::prelude::*;

use super::*;

fn string(r#type: Type, value: &str) -> wire::StringMatch {
    wire::StringMatch { r#type: r#type.into(), value: value.into() }
}

prop_compose! {
    fn rule()(
        port in prop::sample::select(vec![0u32, 80, 81]),
        path in prop::option::of((
            prop::sample::select(vec![Type::Exact, Type::PathPrefix, Type::RegularExpression]),
            prop::sample::select(vec!["/", "/a", "/a/b", "/.*"]),
        )),
        method in prop::sample::select(vec!["", "GET", "POST"]),
        header in prop::option::of(prop::sample::select(vec!["1", "2"])),
        query in prop::option::of(prop::sample::select(vec!["1", "2"])),
        weights in prop::collection::vec(0u32..3, 0..3),
    ) -> wire::RouteRule {
        let named = |name: &str, value: &str| wire::NamedMatch {
            name: name.into(),
            value: Some(string(Type::Exact, value)),
        };
        wire::RouteRule {
            route: "demo/r".into(),
            parent_port: port,
            r#match: Some(wire::RouteMatch {
                path: path.map(|(kind, value)| string(kind, value)),
                method: method.into(),
                headers: header.iter().map(|value| named("x-h", value)).collect(),
                query: query.iter().map(|value| named("q", value)).collect(),
            }),
            backends: (weights.iter())
                .map(|weight| wire::Backend { service: "b.demo".into(), port: 80, weight: *weight })
                .collect(),
            ..Default::default()
        }
    }
}

proptest! {
    #[test]
    fn the_rule_that_is_explained_is_the_rule_that_is_taken(
        mut rules in prop::collection::vec(rule(), 0..6),
        method in prop::sample::select(vec![Method::GET, Method::POST]),
        uri in prop::sample::select(vec!["/", "/a", "/a/b?q=1", "/c?q=2"]),
        header in prop::option::of(prop::sample::select(vec!["1", "2"])),
        port in prop::sample::select(vec![80u16, 81]),
    ) {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.rule = index.to_string();
        }
        let config = wire::ServiceConfig { service: "s.demo".into(), routes: rules, ..Default::default() };
        let service = model::Service::try_from(config).expect("a valid configuration");
        let headers: HeaderMap = header
            .map(|value| (HeaderName::from_static("x-h"), HeaderValue::from_static(value)))
            .into_iter()
            .collect();
        let uri: Uri = uri.parse().expect("a URI");
        let head = RequestHead { method: &method, uri: &uri, headers: &headers };
        let decision = choose(&service, port, head);
        let explained = considered(&service, port, head);
        let taken = explained.iter().find(|rule| rule.taken);
        match decision {
            Decision::Rule(rule) => {
                prop_assert_eq!(taken.map(|taken| &taken.rule), Some(&rule.rule));
                prop_assert_eq!(explained.last().map(|last| &last.rule), Some(&rule.rule));
            }
            Decision::NoMatch => {
                prop_assert!(taken.is_none());
                prop_assert!(explained.iter().any(|rule| !rule.why.starts_with("it is for port")));
            }
            Decision::Direct => {
                prop_assert!(explained.iter().all(|rule| rule.why.starts_with("it is for port")));
            }
        }
        for rule in &explained {
            prop_assert_eq!(rule.taken, rule.why.is_empty());
        }
        let text = decided(&service, decision, false, false).outcome;
        prop_assert_eq!(text == "rule", taken.is_some());
    }
}

#[test]
fn a_request_that_fails_is_told_what_it_has_instead() {
    let matches = wire::RouteMatch {
        path: Some(string(Type::RegularExpression, "/v[0-9]+")),
        headers: vec![wire::NamedMatch { name: "x-user".into(), value: Some(string(Type::Exact, "ann")) }],
        ..Default::default()
    };
    let rule = wire::RouteRule { route: "demo/r".into(), r#match: Some(matches), ..Default::default() };
    let config = wire::ServiceConfig { service: "s.demo".into(), routes: vec![rule], ..Default::default() };
    let service = model::Service::try_from(config).expect("a valid configuration");
    let explained = |uri: &str, user: Option<&'static str>| {
        let uri: Uri = uri.parse().expect("a URI");
        let headers: HeaderMap = user
            .map(|user| (HeaderName::from_static("x-user"), HeaderValue::from_static(user)))
            .into_iter()
            .collect();
        let head = RequestHead { method: &Method::GET, uri: &uri, headers: &headers };
        considered(&service, 80, head).remove(0).why
    };
    assert_eq!(explained("/x", None), "path /x is not one that fits /v[0-9]+");
    assert_eq!(explained("/v1", None), "no header x-user that is ann: there is none");
    assert_eq!(explained("/v1", Some("bob")), "no header x-user that is ann: it is \"bob\"");
    assert_eq!(explained("/v1", Some("ann")), "");
}
