//! Fields that a proxy takes off, keeps and adds.

use super::*;

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    map
}

#[test]
fn cookies_are_one_field() {
    let mut headers = map(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
    join_cookies(&mut headers);
    assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3"), ("x", "y")]));
}

#[test]
fn hop_by_hop_fields_go() {
    let mut headers = map(&[
        ("connection", "close, x-mine"),
        ("connection", "Keep-Alive"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip, trailers"),
        ("accept", "*/*"),
    ]);
    strip_hop_by_hop(&mut headers, false);
    assert_eq!(headers, map(&[("te", "trailers"), ("accept", "*/*")]));
}

#[test]
fn a_carried_upgrade_stays() {
    let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
    assert!(is_upgrade(&headers));
    strip_hop_by_hop(&mut headers, true);
    assert_eq!(headers, map(&[("upgrade", "websocket"), ("connection", "upgrade")]));
}

#[test]
fn connection_cannot_remove_trailer_negotiation() {
    let mut headers = map(&[("connection", "te"), ("te", "trailers")]);
    strip_hop_by_hop(&mut headers, false);
    assert_eq!(headers, map(&[("te", "trailers")]));
}

#[test]
fn private_fields_go() {
    let fields = [
        ("x-forwarded-client-cert", "URI=spiffe://a/b"),
        ("pillion-error", "x"),
        ("pillion-names", "Y"),
        ("pillion-anything", "y"),
        ("pillions", "z"),
    ];
    let mut headers = map(&fields);
    strip_private(&mut headers, true);
    assert_eq!(headers, map(&[("pillion-names", "Y"), ("pillions", "z")]));
    strip_private(&mut headers, false);
    assert_eq!(headers, map(&[("pillions", "z")]));
}

#[test]
fn connection_cannot_take_off_how_a_message_was_written() {
    let mut headers = map(&[("connection", "pillion-names"), ("pillion-names", "X")]);
    strip_hop_by_hop(&mut headers, false);
    assert_eq!(headers, map(&[("pillion-names", "X")]));
}

#[test]
fn forms_of_a_target() {
    let mut request = Request::get("/a?b").header(HOST, "web.demo.mesh:80").body(()).expect("a request");
    let host = authority(&request).expect("valid").expect("a host");
    assert_eq!(host.as_str(), "web.demo.mesh:80");
    to_http2(&mut request, host);
    assert_eq!(request.uri(), "http://web.demo.mesh:80/a?b");
    assert!(!request.headers().contains_key(HOST));
    to_http1(&mut request);
    assert_eq!(request.uri(), "/a?b");
    assert_eq!(request.headers()[HOST], "web.demo.mesh:80");
}

#[test]
fn a_query_without_a_path_has_the_root_for_one() {
    let mut request = Request::get("http://app.demo.mesh?q=1").body(()).expect("a request");
    to_http2(&mut request, Authority::from_static("app.demo.mesh"));
    assert_eq!(request.uri(), "http://app.demo.mesh/?q=1");
    to_http1(&mut request);
    assert_eq!(request.uri(), "/?q=1");
}

#[test]
fn trailers_that_are_none() {
    for (name, expected) in [
        ("x-checksum", false),
        ("connection", true),
        ("host", true),
        ("pillion-error", true),
        ("x-forwarded-client-cert", true),
        ("keep-alive", true),
    ] {
        assert_eq!(is_no_trailer(&HeaderName::from_static(name)), expected, "{name}");
    }
}

#[test]
fn asterisk_form_and_empty_hosts() {
    let mut request = Request::options("*").header(HOST, "a").body(()).expect("a request");
    to_http2(&mut request, Authority::from_static("a"));
    assert_eq!(request.uri().path(), "*");
    let request = Request::get("/").header(HOST, "").body(()).expect("a request");
    assert_eq!(authority(&request).expect("none"), None);
}

#[test]
fn hosts_that_are_refused() {
    for hosts in [&["a", "b"][..], &["a", "a"], &["a b"], &["user@a"], &[":80"], &["a:x"], &["a:99999"]] {
        let mut request = Request::get("/").body(()).expect("a request");
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_static(host));
        }
        let refusal = authority(&request).expect_err("malformed");
        assert_eq!(refusal.reason, Reason::MalformedRequest, "{hosts:?}");
    }
}

#[test]
fn in_http2_there_is_one_host() {
    for (host, right) in [("a:80", true), ("A:80", true), ("a", false), ("b:80", false)] {
        let over = |version| {
            let request = Request::get("http://a:80/").header(HOST, host).version(version);
            let request = request.body(()).expect("a request");
            authority(&request).map(|found| found.expect("a host").to_string())
        };
        assert_eq!(over(http::Version::HTTP_2).is_ok(), right, "{host}");
        assert_eq!(over(http::Version::HTTP_11).expect("the target's holds"), "a:80");
    }
}

#[test]
fn an_upgrade_to_http2_is_none() {
    let mut headers =
        map(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")]);
    assert!(!is_upgrade(&headers));
    strip_hop_by_hop(&mut headers, false);
    assert!(headers.is_empty());
    assert!(!is_upgrade(&map(&[("connection", "upgrade"), ("upgrade", "foo, h2c")])));
    assert!(is_upgrade(&map(&[("connection", "upgrade"), ("upgrade", "websocket")])));
}

#[test]
fn what_concerns_both_ends_stays() {
    let mut headers = map(&[
        ("connection", "host, authorization, content-length, x-mine"),
        ("host", "a"),
        ("authorization", "b"),
        ("x-mine", "c"),
    ]);
    strip_hop_by_hop(&mut headers, false);
    assert_eq!(headers, map(&[("host", "a"), ("authorization", "b")]));
}
