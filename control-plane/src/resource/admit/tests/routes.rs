//! Routes.

use super::*;

#[test]
fn every_fault_of_a_route_is_told_at_once() {
    let rule = "{backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: -1, wieght: 2}, {name: v3}], \
                matches: [{path: {type: Exact, value: pay}, method: FETCH}, {headers: [{name: a, value: '(', type: \
                RegularExpression}, {name: A, value: b}]}], timeouts: {request: 1s, backendRequest: 2s}, retry: {codes: [200], attempts: -1, backoff: soon}}";
    check(&[(
        route(rule),
        &[
            "spec.rules[0].backendRefs[1].wieght: is not a known field; did you mean \"weight\"?",
            "spec.rules[0].matches[0].method: must be one of \"GET\", \"HEAD\", \"POST\", \"PUT\", \"DELETE\", \
             \"CONNECT\", \"OPTIONS\", \"TRACE\", \"PATCH\", is the string \"FETCH\"",
            "spec.rules[0].matches[0].path.value: must begin with \"/\", is \"pay\"",
            "spec.rules[0].matches[1].headers[0].value: is not a regular expression: unclosed group",
            "spec.rules[0].matches[1].headers[1].name: \"A\" is in the list already (header names ignore case)",
            "spec.rules[0].backendRefs[1].weight: must be between 0 and 1000000, is -1",
            "spec.rules[0].backendRefs[2].port: is required: which port of the Service",
            "spec.rules[0].timeouts.backendRequest: must not be longer than request",
            "spec.rules[0].retry.codes[0]: must be between 400 and 599, is 200",
            "spec.rules[0].retry.attempts: must be between 0 and 100, is -1",
            "spec.rules[0].retry.backoff: must be a duration such as \"10s\", \"250ms\" or \"1h30m\", is \"soon\"",
        ],
    )]);
}

#[test]
fn routes_are_checked() {
    check(&[
        (route("{backendRefs: [{name: v1, port: 80}]}"), &[]),
        (
            route("{filters: [{type: CORS, cors: {}}, {type: RequestHeaderModifier}]}"),
            &[
                "spec.rules[0].filters[0].type: CORS is not supported: browsers do not call through sidecars, and services \
                 do not ask",
                "spec.rules[0].filters[1].requestHeaderModifier: is required for a filter of this type",
            ],
        ),
        (
            route("{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: x}, {name: \
                   ok, value: \"a\\nb\"}], remove: [OK]}}]}"),
            &[
                "spec.rules[0].filters[0].requestHeaderModifier.set[0].name: is not a header name (RFC 9110): \"a b\"",
                "spec.rules[0].filters[0].requestHeaderModifier.set[1].value: is not a header value (RFC 9110): \
                 \"a\\nb\"",
                "spec.rules[0].filters[0].requestHeaderModifier.remove[0]: \"OK\" is in the list already (header names \
                 ignore case)",
            ],
        ),
        (
            route("{timeouts: {request: 10}, backendRefs: [{name: v1, port: 80, namespace: other, filters: [{type: \
                   CORS}]}]}"),
            &[
                "spec.rules[0].timeouts.request: must be a duration such as \"10s\", is 10",
                "spec.rules[0].backendRefs[0].filters[0].type: CORS is not supported: browsers do not call through \
                 sidecars, and services do not ask",
            ],
        ),
        (
            "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: web}, spec: {hostnames: [a.b], \
             parentRefs: [{name: gate}]}}"
                .into(),
            &[
                "spec.hostnames: has no meaning for a Service parent; match the header \"host\" instead",
                "spec.parentRefs[0].kind: must be \"Service\", is \"Gateway\": routes of a mesh belong to Services",
                "spec.parentRefs[0].group: must be \"\", the group of Service, is \"gateway.networking.k8s.io\", the \
                 default",
                "spec.rules: must have at least one rule",
            ],
        ),
    ]);
}

#[test]
fn filters_are_checked_by_themselves_and_together() {
    let redirect = |redirect: &str| format!("{{type: RequestRedirect, requestRedirect: {redirect}}}");
    let rewrite = |rewrite: &str| format!("{{type: URLRewrite, urlRewrite: {rewrite}}}");
    let mirror = |more: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: v2, port: 80}}, {more}}}}}")
    };
    let rule =
        |more: &str, filters: &[String]| route(&format!("{{{more} filters: [{}]}}", filters.join(", ")));
    let prefix = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}";
    check(&[
        (rule("", &[redirect("{scheme: https, hostname: a.example, port: 8443, statusCode: 308}")]), &[]),
        (rule("matches: [{path: {value: /old}}],", &[redirect(prefix)]), &[]),
        (rule("", &[rewrite(prefix)]), &[]),
        (
            rule(
                "backendRefs: [{name: v1, port: 80, namespace: other}],",
                &[mirror("percent: 10"), mirror("")],
            ),
            &[],
        ),
        (
            rule("", &[redirect("{hostname: A_b, port: 0, statusCode: 304, scheme: ftp}")]),
            &[
                "spec.rules[0].filters[0].requestRedirect.scheme: must be one of \"http\", \"https\", is the string \"ftp\"",
                "spec.rules[0].filters[0].requestRedirect.hostname: must be a DNS name in lower case, is \"A_b\"",
                "spec.rules[0].filters[0].requestRedirect.port: must be between 1 and 65535, is 0",
                "spec.rules[0].filters[0].requestRedirect.statusCode: must be one of 301, 302, 303, 307, 308, is 304",
            ],
        ),
        (
            rule("backendRefs: [{name: v1, port: 80}],", &[redirect("{}"), rewrite("{}"), rewrite("{}")]),
            &[
                "spec.rules[0].filters[0].type: RequestRedirect cannot be together with URLRewrite",
                "spec.rules[0].filters[0].type: a rule with RequestRedirect has no backendRefs: none is asked",
                "spec.rules[0].filters[2].type: a rule can have a filter of this type once",
            ],
        ),
        (
            rule("matches: [{path: {type: Exact, value: /a}}],", &[rewrite(prefix)]),
            &[
                "spec.rules[0].filters[0].urlRewrite.path.type: ReplacePrefixMatch needs a rule with exactly one match, by \
               PathPrefix",
            ],
        ),
        (
            rule("", &[rewrite("{path: {type: ReplaceFullPath, replacePrefixMatch: '/a?b'}}")]),
            &[
                "spec.rules[0].filters[0].urlRewrite.path.replaceFullPath: is required for this type",
                "spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch: does not belong to this type",
            ],
        ),
        (
            rule("", &[mirror("percent: 101, fraction: {numerator: 3, denominator: 2}")]),
            &[
                "spec.rules[0].filters[0].requestMirror.percent: must be between 0 and 100, is 101",
                "spec.rules[0].filters[0].requestMirror.fraction: cannot be together with percent",
                "spec.rules[0].filters[0].requestMirror.fraction.numerator: must be between 0 and 2, is 3",
            ],
        ),
        (
            route(
                "{backendRefs: [{name: v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: \
                 [{name: Host, value: a}, {name: TE, value: a}]}}, {type: URLRewrite}]}]}",
            ),
            &[
                "spec.rules[0].backendRefs[0].filters[0].requestHeaderModifier.set[0].name: is changed by a filter \
                 URLRewrite, in its hostname",
                "spec.rules[0].backendRefs[0].filters[0].requestHeaderModifier.set[1].name: \"TE\" belongs to the \
                 connection or the mesh; no route changes it",
                "spec.rules[0].backendRefs[0].filters[1].type: a backend can only modify headers; other filters belong to \
                 its rule",
            ],
        ),
    ]);
}

#[test]
fn grpc_routes_are_checked() {
    let grpc = |rule: &str| route(rule).replace("HTTPRoute", "GRPCRoute");
    check(&[
        (
            grpc(
                "{matches: [{method: {service: foo.Bar, method: Get}, headers: [{name: a, value: b}]}], backendRefs: \
                 [{name: v1, port: 80}], sessionPersistence: {}}",
            ),
            &[],
        ),
        (grpc("{matches: [{method: {type: RegularExpression, service: 'foo[.].*'}}]}"), &[]),
        (grpc("{matches: [{method: {type: RegularExpression, service: 'a|b', method: 'c|d'}}]}"), &[]),
        // Sidecars compile the two as one.
        (
            grpc(
                "{matches: [{method: {type: RegularExpression, service: '(?P<x>a)', method: '(?P<x>b)'}}, {method: {type: \
                 RegularExpression, service: '(?:a{100}){250}', method: '(?:b{100}){250}'}}]}",
            ),
            &[
                "spec.rules[0].matches[0].method: is not a regular expression: duplicate capture group name",
                "spec.rules[0].matches[1].method: is not a regular expression: Compiled regex exceeds size limit of 1048576 \
                 bytes.",
            ],
        ),
        (
            grpc(
                "{matches: [{method: {}}, {method: {service: 'a b', method: 1x}}, {method: {type: RegularExpression, method: \
                 '('}}], backendRefs: [{name: v1}], filters: [{type: RequestMirror}], timeouts: {request: 1s}}",
            ),
            &[
                "spec.rules[0].timeouts: is not a known field",
                "spec.rules[0].filters[0].requestMirror: is required for a filter of this type",
                "spec.rules[0].backendRefs[0].port: is required: which port of the Service",
                "spec.rules[0].matches[0].method: must have a service or a method",
                "spec.rules[0].matches[1].method.service: is not the name of a service of gRPC: \"a b\"",
                "spec.rules[0].matches[1].method.method: is not the name of a method of gRPC: \"1x\"",
                "spec.rules[0].matches[2].method.method: is not a regular expression: unclosed group",
            ],
        ),
    ]);
}

#[test]
fn retries_and_sessions_are_checked() {
    check(&[
        (route("{retry: {}, sessionPersistence: {}}"), &[]),
        (
            route(
                "{retry: {codes: [500, 429], attempts: 3, backoff: 100ms}, sessionPersistence: {sessionName: X-S, type: \
                 Header, idleTimeout: 10m}}",
            ),
            &[],
        ),
        (
            route(
                "{sessionPersistence: {sessionName: 'a b', idleTimeout: 0s, cookieConfig: {lifetimeType: Permanent}}}",
            ),
            &[
                "spec.rules[0].sessionPersistence.sessionName: is not a cookie's name (RFC 6265): \"a b\"",
                "spec.rules[0].sessionPersistence.idleTimeout: must be between 1ms and 576h, is \"0s\"",
                "spec.rules[0].sessionPersistence.absoluteTimeout: is required where cookieConfig.lifetimeType is \
                 \"Permanent\"",
            ],
        ),
        (
            route("{sessionPersistence: {sessionName: pillion-x, type: Header, cookieConfig: {}}}"),
            &[
                "spec.rules[0].sessionPersistence.sessionName: \"pillion-x\" is a header of the mesh's own",
                "spec.rules[0].sessionPersistence.cookieConfig: does not belong to a session by header",
            ],
        ),
    ]);
}
