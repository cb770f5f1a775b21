//! Which of several rules goes first.

use super::*;

/// A route's name, when it was made, and its match.
type Written = (&'static str, &'static str, &'static str);

/// Each row: two rules as (route, when it was made, match); the first must win over the second.
#[test]
fn precedence_is_that_of_the_gateway_api() {
    let old = "2026-01-01T00:00:00Z";
    let new = "2026-02-01T00:00:00Z";
    let cases: [(Written, Written, &str); 12] = [
        (
            ("z", new, "{path: {type: Exact, value: /a}}"),
            ("a", old, "{path: {value: /a/longer}, method: GET}"),
            "exact path",
        ),
        (
            ("z", new, "{path: {value: /abc}}"),
            ("a", old, "{path: {value: /ab}, method: GET}"),
            "longest prefix",
        ),
        (
            ("z", new, "{path: {type: RegularExpression, value: '/v[0-9]+'}}"),
            ("a", old, "{path: {value: /v1}, method: GET}"),
            "a regular expression before prefixes",
        ),
        (
            ("z", new, "{path: {type: RegularExpression, value: '/v[0-9]+'}}"),
            ("a", old, "{}"),
            "a regular expression before what fits everything",
        ),
        (
            ("z", new, "{path: {type: Exact, value: /v1}}"),
            ("a", old, "{path: {type: RegularExpression, value: '/v[0-9]+'}, method: GET}"),
            "an exact path before regular expressions",
        ),
        (
            ("z", new, "{method: GET}"),
            ("a", old, "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}"),
            "method before headers",
        ),
        (
            ("z", new, "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}"),
            ("a", old, "{headers: [{name: x, value: '1'}], queryParams: [{name: q, value: '1'}]}"),
            "more headers",
        ),
        (
            ("z", new, "{queryParams: [{name: q, value: '1'}, {name: r, value: '1'}]}"),
            ("a", old, "{queryParams: [{name: q, value: '1'}]}"),
            "more query parameters",
        ),
        (("z", old, "{path: {value: /ab}}"), ("a", new, "{path: {value: /cd}}"), "the oldest route"),
        (("a", old, "{path: {value: /ab}}"), ("z", old, "{path: {value: /cd}}"), "the alphabetically first"),
        (
            ("a", old, "{path: {value: /ab/}}"),
            ("z", old, "{path: {value: /abc}}"),
            "a trailing slash counts for nothing",
        ),
        (("a", old, "{}"), ("z", old, "{path: {value: /}}"), "no match is a prefix of /"),
    ];
    for (winner, loser, why) in cases {
        // The one exception to "the first row wins": the longer prefix in the row about trailing slashes.
        let expected = if why.starts_with("a trailing slash") { loser.0 } else { winner.0 };
        for order in [[winner, loser], [loser, winner]] {
            let routes: String = order
                .iter()
                .map(|(name, created, one)| route(name, created, &format!("[{{matches: [{one}]}}]")))
                .collect();
            let (compiled, faults) =
                compile(&documents(&(service("web", "[{port: 80}]", "{}") + &routes)), &[]);
            assert_eq!(faults, []);
            let rules = config(&compiled, "web.demo").routes;
            assert_eq!(rules.len(), 2, "{why}");
            assert_eq!(rules[0].route, format!("demo/{expected}"), "{why}");
        }
    }
}

/// Each row: two matches of a GRPCRoute; the first must win over the second, which is of the older route.
#[test]
fn precedence_of_grpc_is_that_of_the_gateway_api() {
    let cases = [
        (
            "{method: {service: aa.B}}",
            "{method: {service: a.B, method: LongName}}",
            "characters of a service",
        ),
        ("{method: {service: a.B, method: Get}}", "{method: {service: a.B}}", "characters of a method"),
        ("{method: {method: Get}}", "{headers: [{name: x, value: '1'}]}", "a method before headers"),
        (
            "{headers: [{name: x, value: '1'}, {name: y, value: '1'}]}",
            "{headers: [{name: x, value: '1'}]}",
            "more headers",
        ),
        (
            "{method: {method: Get}}",
            "{method: {type: RegularExpression, service: 'long.+'}}",
            "exact names before expressions",
        ),
        ("{method: {type: RegularExpression, method: 'G.*'}}", "{}", "an expression before anything"),
    ];
    for (winner, loser, why) in cases {
        let grpc = |name: &str, created: &str, one: &str| {
            route(name, created, &format!("[{{matches: [{one}]}}]")).replace("HTTPRoute", "GRPCRoute")
        };
        let routes = grpc("z", "2026-02-01T00:00:00Z", winner) + &grpc("a", "2026-01-01T00:00:00Z", loser);
        let (compiled, faults) = compile(&documents(&(service("web", "[{port: 80}]", "{}") + &routes)), &[]);
        assert_eq!(faults, []);
        let rules = config(&compiled, "web.demo").routes;
        assert_eq!(rules[0].route, "demo/z", "{why}");
        assert!(rules.iter().all(|rule| rule.grpc), "{why}");
    }
}

#[test]
fn grpc_methods_are_paths() {
    use wire::string_match::Type::{Exact, PathPrefix, RegularExpression};
    for (method, expected) in [
        ("{service: a.B, method: Get}", (Exact, "/a.B/Get")),
        ("{service: a.B}", (PathPrefix, "/a.B")),
        ("{method: Get}", (RegularExpression, "/(?:[^/]+)/(?:Get)")),
        ("{type: RegularExpression, service: 'a|b'}", (RegularExpression, "/(?:a|b)/(?:[^/]+)")),
    ] {
        let rules = format!("[{{matches: [{{method: {method}}}]}}]");
        let grpc = route("r", "", &rules).replace("HTTPRoute", "GRPCRoute");
        let (compiled, _) = compile(&documents(&(service("web", "[{port: 80}]", "{}") + &grpc)), &[]);
        let rule = config(&compiled, "web.demo").routes.remove(0);
        let path = rule.r#match.unwrap().path.unwrap();
        assert_eq!((path.r#type(), path.value.as_str()), expected, "{method}");
    }
}

#[test]
fn consumers_go_first_and_grpc_takes_its_port() {
    let route_of = |kind: &str, name: &str, namespace: &str, more: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{parentRefs: [{{group: '', kind: Service, name: web, namespace: demo{more}}}], rules: [{{backendRefs: [{{name: \
             v1, port: 80}}]}}]}}}}\n"
        )
    };
    let text = service("web", "[{name: a, port: 80}, {name: b, port: 81}]", "{}")
        + &route_of("HTTPRoute", "producer", "demo", "")
        + &route_of("GRPCRoute", "grpc", "demo", ", port: 80")
        + &route_of("HTTPRoute", "loser", "demo", ", port: 80")
        + &route_of("HTTPRoute", "consumer", "other", "");
    let (compiled, faults) = compile(&documents(&text), &[]);
    let told: Vec<_> = config(&compiled, "web.demo")
        .routes
        .into_iter()
        .map(|rule| (rule.route, rule.parent_port, rule.consumer_namespace, rule.backends[0].service.clone()))
        .collect();
    let expected = [
        ("other/consumer", 0, "other", "v1.other"),
        ("demo/grpc", 80, "", "v1.demo"),
        ("demo/producer", 81, "", "v1.demo"),
    ];
    let mut told: Vec<_> =
        told.iter().map(|(route, port, of, to)| (route.as_str(), *port, of.as_str(), to.as_str())).collect();
    assert_eq!(told[0], expected[0], "consumers first");
    told.sort_unstable_by_key(|it| std::cmp::Reverse(it.2));
    told[1..].sort_unstable();
    assert_eq!(told, expected);
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "HTTPRoute demo/loser: spec.parentRefs[0]: is not used: GRPCRoute demo/grpc is for the same port of Service demo/web, \
          and a GRPCRoute goes before an HTTPRoute",
            "HTTPRoute demo/producer: spec.parentRefs[0]: not for port 80 of Service demo/web, which GRPCRoute demo/grpc has: a \
          GRPCRoute goes before an HTTPRoute"
        ]
    );
}
