//! Spans of requests that ended in this way or that.

use std::{sync::Arc, time::UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use pillion_api::{
    hops::{Course, Side},
    model::Percent,
};

use super::{
    super::{Chance, context::TRACEPARENT, span::Value},
    *,
};
use crate::telemetry::exchange::{Callee, Moments};

const START: Duration = Duration::from_secs(1_700_000_000);

fn status(code: u16) -> Outcome {
    Outcome::Status(StatusCode::from_u16(code).expect("a status"))
}

/// From the caller's side, as long as nothing else is said.
fn exchange(outcome: Outcome) -> Exchange {
    let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let chance = Chance { trace: 1, span: 2, share: 0 };
    let mut headers: HeaderMap = [(TRACEPARENT, parent)].into_iter().collect();
    let trace = Trace::find(Percent::per_million(0).expect("none"), &mut headers, chance);
    let course = Course { sent: Some(100), head: Some(900), whole: 1000, ..Course::default() };
    let edge = EdgeKey {
        direction: Hop::Outbound,
        source: "web.demo".into(),
        target: "pay.demo".into(),
        backend: "pay-v2.demo".into(),
        workload: "pay-1".into(),
        mtls: true,
    };
    Exchange {
        version: Some(Version::HTTP_11),
        method: Method::GET,
        path: "/a/b?secret=1".into(),
        authority: "pay.demo:8080".into(),
        edge: Some(Arc::new(edge)),
        route: "demo/split".into(),
        rule: "0".into(),
        outcome: Some(outcome),
        took_us: 1000,
        split: Some(course.split(Side::Client)),
        moments: Moments { sent_us: Some(100), answered_us: Some(900) },
        ended: Some(UNIX_EPOCH + START + Duration::from_micros(1000)),
        trace: Some(Box::new(trace)),
        ..Exchange::default()
    }
}

fn inbound(exchange: Exchange) -> Exchange {
    let edge = EdgeKey::clone(exchange.edge.as_ref().expect("it has one"));
    Exchange { edge: Some(Arc::new(EdgeKey { direction: Hop::Inbound, ..edge })), ..exchange }
}

fn again(exchange: &mut Exchange, began_us: u32, ended: Option<(u32, Outcome)>) {
    let place = exchange.tries.len();
    let callee = Callee {
        uid: format!("pay-{place}-0a").into(),
        workload: format!("pay-{place}").into(),
        address: ([10, 0, 0, 7], 15006).into(),
        identity: Some("spiffe://mesh.local/ns/demo/sa/pay".into()),
    };
    let ended = ended.map(|(at, outcome)| (at, Some(outcome)));
    exchange.tries.push(Try { callee: Arc::new(callee), hedge: place > 0, began_us, ended });
    exchange.trace.as_mut().expect("it has one").attempt(&mut HeaderMap::new());
}

fn says(span: &Span, name: &str) -> String {
    let mut found = span.attributes.iter().filter(|(known, _)| *known == name).map(|(_, value)| value);
    let said = match found.next() {
        None => String::new(),
        Some(Value::Text(text)) => text.to_string(),
        Some(Value::Number(number)) => number.to_string(),
    };
    assert!(found.next().is_none(), "{name} twice: {span:#?}");
    said
}

#[test]
fn how_it_ended_is_told_by_side() {
    let refused = Outcome::Refused;
    for (outcome, grpc, client, server) in [
        (status(200), false, ("200", "", ""), ("200", "", "")),
        (status(404), false, ("404", "", "404"), ("404", "", "")),
        (status(503), false, ("503", "", "503"), ("503", "", "503")),
        (Outcome::Grpc(0), true, ("", "0", ""), ("", "0", "")),
        (Outcome::Grpc(5), true, ("", "5", "5"), ("", "5", "")),
        (Outcome::Grpc(14), true, ("", "14", "14"), ("", "14", "14")),
        (status(502), true, ("502", "", "502"), ("502", "", "502")),
        (refused(Reason::RateLimited), false, ("429", "", "rate-limited"), ("429", "", "")),
        (refused(Reason::BreakersOpen), false, ("503", "", "breakers-open"), ("503", "", "breakers-open")),
        (refused(Reason::BreakersOpen), true, ("", "14", "breakers-open"), ("", "14", "breakers-open")),
        (Outcome::Cancelled, false, ("", "", "cancelled"), ("", "", "")),
        (Outcome::Cancelled, true, ("", "1", "1"), ("", "1", "")),
    ] {
        let exchange = Exchange { grpc, ..exchange(outcome) };
        for (exchange, expected, kind) in
            [(exchange.clone(), client, Kind::Client), (inbound(exchange), server, Kind::Server)]
        {
            let spans = spans(&exchange);
            let [span] = spans.as_slice() else { panic!("one span: {spans:#?}") };
            let said = ["http.response.status_code", "rpc.grpc.status_code", "error.type"]
                .map(|name| says(span, name));
            assert_eq!(said, [expected.0, expected.1, expected.2], "{outcome:?} {kind:?}");
            assert_eq!((span.kind, span.error.is_some()), (kind, !expected.2.is_empty()), "{outcome:?}");
        }
    }
}

#[test]
fn what_it_was_about() {
    let mut exchange = exchange(status(200));
    again(&mut exchange, 50, Some((900, status(200))));
    let spans = spans(&exchange);
    let [span] = spans.as_slice() else { panic!("one span: {spans:#?}") };
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a/b"),
        ("url.full", "http://pay.demo:8080/a/b"),
        ("server.address", "pay.demo"),
        ("server.port", "8080"),
        ("network.protocol.version", "1.1"),
        ("network.peer.address", "10.0.0.7"),
        ("network.peer.port", "15006"),
        ("pillion.source", "web.demo"),
        ("pillion.target", "pay.demo"),
        ("pillion.backend", "pay-v2.demo"),
        ("pillion.route", "demo/split"),
        ("pillion.rule", "0"),
        ("pillion.workload", "pay-0"),
        ("pillion.peer.id", "spiffe://mesh.local/ns/demo/sa/pay"),
        ("http.request.resend_count", ""),
    ] {
        assert_eq!(says(span, name), value, "{name}");
    }
    assert!(!format!("{span:?}").contains("secret"));
    assert_eq!((span.name.as_str(), span.remote), ("GET", true));
    let since = |at: SystemTime| at.duration_since(UNIX_EPOCH + START).expect("later").as_micros();
    assert_eq!((since(span.start), since(span.end)), (0, 1000));
    let events: Vec<_> = span.events.iter().map(|event| (event.name, since(event.at))).collect();
    assert_eq!(events, [("pillion.sent", 100), ("pillion.answered", 900), ("pillion.hops", 1000)]);
    let hops = [
        ("pillion.hop.caller", Value::Number(100)),
        ("pillion.hop.client-sidecar", Value::Number(100)),
        ("pillion.hop.upstream", Value::Number(800)),
    ];
    assert_eq!(span.events[2].attributes, hops);

    let odd = Exchange { method: "BREW".parse().expect("a method"), ..exchange.clone() };
    let span = &super::spans(&odd)[0];
    assert_eq!(span.name, "HTTP");
    let said = ["http.request.method", "http.request.method_original"].map(|name| says(span, name));
    assert_eq!(said, ["_OTHER", "BREW"]);
    let call =
        Exchange { grpc: true, path: "/shop.Pay/Charge".into(), authority: "[::1]:80".into(), ..exchange };
    let span = &super::spans(&call)[0];
    let said = ["rpc.system", "rpc.service", "rpc.method", "url.path", "server.address"]
        .map(|name| says(span, name));
    assert_eq!(said, ["grpc", "shop.Pay", "Charge", "", "::1"]);
    assert_eq!(span.name, "shop.Pay/Charge");
}

#[test]
fn of_several_tries_each_has_its_own() {
    let mut exchange = exchange(status(200));
    again(&mut exchange, 50, None);
    again(&mut exchange, 300, Some((500, Outcome::Refused(Reason::Reset))));
    again(&mut exchange, 600, Some((900, status(200))));
    let spans = spans(&exchange);
    let [whole, given_up, reset, won] = spans.as_slice() else { panic!("four spans: {spans:#?}") };
    assert_eq!((whole.kind, says(whole, "pillion.attempts")), (Kind::Internal, "3".to_owned()));
    let since = |at: SystemTime| at.duration_since(UNIX_EPOCH + START).expect("later").as_micros();
    for (span, again, from, to, error) in
        [(given_up, "", 50, 1000, "cancelled"), (reset, "1", 300, 500, "reset"), (won, "2", 600, 1000, "")]
    {
        assert_eq!((span.kind, span.parent), (Kind::Client, Some(whole.id)), "{span:#?}");
        assert_eq!((since(span.start), since(span.end)), (from, to), "{span:#?}");
        let said = ["http.request.resend_count", "error.type"].map(|name| says(span, name));
        assert_eq!(said, [again, error], "{span:#?}");
    }
}

#[test]
fn what_is_not_recorded_has_none() {
    let mut exchange = exchange(status(200));
    exchange.trace = None;
    assert_eq!(spans(&exchange), []);
}
