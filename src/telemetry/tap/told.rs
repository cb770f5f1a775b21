//! What is told of a request, from what is known of it.

use std::sync::Arc;

use http::{HeaderName, Request};
use pillion_api::{
    hops::Side,
    tap::{Begun, Ended, Facts, MAX_HEADER_VALUE, MAX_PATH, MAX_WORD, Who, cut},
    wire::{Header, TapEvent, TapSegment, edge_delta::Direction},
};
use tokio::time::Instant;

use super::Tap;
use crate::{
    error::Hop,
    telemetry::{
        edge::{EdgeKey, Outcome},
        exchange::Exchange,
        hops,
        listeners::End,
    },
};

/// What is known of a request when it begins.
pub(super) fn begun<'a, B>(request: &'a Request<B>, edge: &'a EdgeKey, workload: &'a str) -> Begun<'a> {
    Begun {
        side: hops::side(edge.direction),
        method: request.method().as_str(),
        path: request.uri().path_and_query().map_or("", |path| path.path()),
        from: from(edge, workload),
        // The callee's sidecar knows; the caller's may be led to another service yet.
        to: (edge.direction == Hop::Inbound).then(|| to(edge)),
    }
}

fn from<'a>(edge: &'a EdgeKey, workload: &'a str) -> Who<'a> {
    let workload = if edge.direction == Hop::Outbound { workload } else { "" };
    Who { services: [&edge.source, ""], workload }
}

fn to(edge: &EdgeKey) -> Who<'_> {
    Who { services: [&edge.target, &edge.backend], workload: &edge.workload }
}

/// Tells each tap that asks for it of a request that has ended. `workload`: our own.
pub(super) fn tell(taps: &[Arc<Tap>], workload: &str, exchange: &Exchange, end: &End<'_>) {
    // A connection is none.
    let (Some(_), Some(outcome)) = (exchange.version, end.outcome) else { return };
    let refusal = refusal(exchange, end, outcome);
    let edge = end.edge;
    let facts = Facts {
        side: hops::side(edge.direction),
        method: exchange.method.as_str(),
        path: exchange.path.split('?').next().unwrap_or_default(),
        ended: ended(exchange, outcome, refusal.is_some()),
        from: from(edge, workload),
        to: to(edge),
        took_us: end.took_us,
    };
    let now = Instant::now();
    for tap in taps {
        tap.tell(&facts, now, |headers| event(exchange, end, (&facts, refusal), headers));
    }
}

/// Why a sidecar refused it, and which of the two.
fn refusal<'a>(exchange: &'a Exchange, end: &End<'_>, outcome: Outcome) -> Option<(&'a str, &'a str)> {
    if let Outcome::Refused(reason) = outcome {
        return Some((reason.as_str(), end.edge.direction.as_str()));
    }
    // In its own words: `reason; hop=inbound; …`
    let mut words = exchange.told.as_ref()?.to_str().ok()?.split(';').map(str::trim);
    let reason = words.next()?;
    let hop = words.find_map(|word| word.strip_prefix("hop=")).unwrap_or(Hop::Inbound.as_str());
    Some((reason, hop))
}

fn ended(exchange: &Exchange, outcome: Outcome, refused: bool) -> Ended {
    let answered = exchange.status.map(|status| status.as_u16());
    let (http, grpc) = match outcome {
        Outcome::Status(status) => (Some(status.as_u16()), None),
        Outcome::Grpc(code) => (answered.or(Some(200)), Some(code)),
        Outcome::Refused(reason) if exchange.grpc => (answered, Some(reason.grpc() as u8)),
        Outcome::Refused(reason) => (answered.or(Some(reason.status().as_u16())), None),
        Outcome::Cancelled => (answered, None),
    };
    let cancelled = outcome == Outcome::Cancelled;
    Ended { http, grpc, refused, cancelled, failed: outcome.is_failure() }
}

fn event(
    exchange: &Exchange,
    end: &End<'_>,
    (facts, refusal): (&Facts<'_>, Option<(&str, &str)>),
    headers: &[HeaderName],
) -> TapEvent {
    let word = |text: &str| cut(text, MAX_WORD).to_owned();
    let direction = match facts.side {
        Side::Client => Direction::Outbound,
        Side::Server => Direction::Inbound,
    };
    let (refusal, refused_by) = refusal.unwrap_or_default();
    let segments = end.split.iter().flat_map(|split| split.shares());
    let asked = exchange.headers.iter().filter(|(name, _)| headers.contains(name));
    TapEvent {
        direction: direction.into(),
        began_ms: unix_ms_ago(end.took_us),
        took_us: end.took_us,
        method: word(facts.method),
        path: cut(facts.path, MAX_PATH).to_owned(),
        source: word(&end.edge.source),
        target: word(&end.edge.target),
        backend: word(&end.edge.backend),
        workload: word(&end.edge.workload),
        mtls: end.edge.mtls,
        peer_identity: word(exchange.peer().unwrap_or_default()),
        status: facts.ended.http.unwrap_or_default().into(),
        grpc_status: facts.ended.grpc.map(u32::from),
        refusal: word(refusal),
        refused_by: word(refused_by),
        cancelled: facts.ended.cancelled,
        failed: facts.ended.failed,
        attempts: u32::try_from(exchange.tries.len()).unwrap_or(u32::MAX),
        route: word(&exchange.route),
        rule: word(&exchange.rule),
        segments: segments.map(|(segment, us)| TapSegment { segment: segment as i32, us }).collect(),
        headers: asked
            .map(|(name, value)| Header {
                name: name.as_str().to_owned(),
                value: cut(&String::from_utf8_lossy(value.as_bytes()), MAX_HEADER_VALUE).to_owned(),
            })
            .collect(),
    }
}

fn unix_ms_ago(us: u64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX).saturating_sub_unsigned(us / 1000)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method, StatusCode, Version};
    use pillion_api::wire::{StartTap, TapFilter};

    use super::*;
    use crate::{
        error::Reason,
        telemetry::{
            listeners::{Heard, Listeners},
            tap::{Taps, Watching},
        },
    };

    fn edge(direction: Hop) -> Arc<EdgeKey> {
        Arc::new(EdgeKey {
            direction,
            source: "web.demo".into(),
            target: "payments.demo".into(),
            backend: "payments-v1.demo".into(),
            workload: "payments-3".into(),
            mtls: true,
        })
    }

    fn exchange() -> Exchange {
        let header =
            |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        Exchange {
            version: Some(Version::HTTP_11),
            method: Method::POST,
            path: "/pay?card=4111".into(),
            status: Some(StatusCode::OK),
            route: "demo/canary".into(),
            headers: [header("x-request-id", "7"), header("x-other", "1")].into_iter().collect(),
            ..Exchange::default()
        }
    }

    /// What one tap of `filter` is told.
    async fn told(
        filter: TapFilter,
        exchange: &Exchange,
        direction: Hop,
        outcome: Outcome,
    ) -> Option<TapEvent> {
        let mut taps = Taps::new(Arc::default());
        let headers = vec!["x-request-id".to_owned()];
        let filter = Some(filter);
        let start = StartTap { id: 1, filter, max_per_second: 9, headers, lease_ms: 1000 };
        assert_eq!(taps.start(start, Instant::now()).refusal, "");
        let watched = taps.follow().borrow().clone().expect("one");
        let edge = edge(direction);
        let end = End { edge: &edge, outcome: Some(outcome), took_us: 1500, split: None, received: 0 };
        tell(&watched, "web-1", exchange, &end);
        if taps.events.is_empty() {
            return None;
        }
        taps.told().await.remove(0).events.pop()
    }

    #[tokio::test(start_paused = true)]
    async fn the_query_is_never_told_and_of_headers_only_those_that_are_shown() {
        let outcome = Outcome::Status(StatusCode::OK);
        let event = told(TapFilter::default(), &exchange(), Hop::Outbound, outcome).await.expect("told");
        assert_eq!((event.method.as_str(), event.path.as_str(), event.status), ("POST", "/pay", 200));
        assert_eq!((event.source.as_str(), event.target.as_str()), ("web.demo", "payments.demo"));
        assert_eq!((event.backend.as_str(), event.workload.as_str()), ("payments-v1.demo", "payments-3"));
        let headers: Vec<_> = event.headers.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
        assert_eq!(headers, [("x-request-id", "7")]);
        assert!(event.mtls && !event.failed && event.refusal.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn how_it_ended_is_told_with_whose_word_it_is() {
        let grpc = |status| Exchange { grpc: true, status, ..exchange() };
        let by_callee = Exchange {
            status: Some(StatusCode::TOO_MANY_REQUESTS),
            told: Some(HeaderValue::from_static("rate-limited; hop=inbound; workload=payments-3")),
            ..exchange()
        };
        let unanswered = Exchange { status: None, ..exchange() };
        let too_many = Outcome::Status(StatusCode::TOO_MANY_REQUESTS);
        let table = [
            (grpc(Some(StatusCode::OK)), Outcome::Grpc(14), (200, Some(14), "", "", true)),
            (
                Exchange { status: Some(StatusCode::SERVICE_UNAVAILABLE), ..exchange() },
                Outcome::Refused(Reason::BreakersOpen),
                (503, None, "breakers-open", "outbound", true),
            ),
            (
                grpc(Some(StatusCode::OK)),
                Outcome::Refused(Reason::BreakersOpen),
                (200, Some(14), "breakers-open", "outbound", true),
            ),
            (by_callee, too_many, (429, None, "rate-limited", "inbound", false)),
            (unanswered, Outcome::Cancelled, (0, None, "", "", false)),
        ];
        for (exchange, outcome, expected) in table {
            let event = told(TapFilter::default(), &exchange, Hop::Outbound, outcome).await.expect("told");
            let TapEvent { status, grpc_status, refusal, refused_by, failed, .. } = &event;
            let found = (*status, *grpc_status, refusal.as_str(), refused_by.as_str(), *failed);
            assert_eq!(found, expected, "{outcome:?}");
            assert_eq!(event.cancelled, outcome == Outcome::Cancelled);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parties_are_known_by_either_side() {
        let from = |from: &str| TapFilter { from: from.into(), ..TapFilter::default() };
        let to = |to: &str| TapFilter { to: to.into(), ..TapFilter::default() };
        for (filter, hop, expected) in [
            (from("web.demo"), Hop::Inbound, true),
            (from("workload/web-1"), Hop::Outbound, true),
            // Of a caller the certificate is known, not the workload.
            (from("workload/web-1"), Hop::Inbound, false),
            (to("payments-v1.demo"), Hop::Outbound, true),
            (to("workload/payments-3"), Hop::Inbound, true),
            (to("workload/payments-1"), Hop::Inbound, false),
        ] {
            let outcome = Outcome::Status(StatusCode::OK);
            let event = told(filter.clone(), &exchange(), hop, outcome).await;
            assert_eq!(event.is_some(), expected, "{filter:?} {hop:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_no_request() {
        let connection = Exchange { version: None, ..exchange() };
        let outcome = Outcome::Refused(Reason::OpaqueRefused);
        assert!(told(TapFilter::default(), &connection, Hop::Outbound, outcome).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_hears_of_requests_while_nobody_watches() {
        let listeners = Listeners::default();
        let request = http::Request::new(());
        assert!(!listeners.any());
        let mut taps = Taps::new(Arc::default());
        taps.start(StartTap { id: 1, lease_ms: 1000, ..StartTap::default() }, Instant::now());
        let watching = taps.follow().borrow().clone().map(|taps| Watching { taps, workload: "web-1".into() });
        listeners.set(Heard { watching, ..Heard::default() });
        let edge = edge(Hop::Inbound);
        let exchange = listeners.begin(&request, None, &edge).expect("somebody watches");
        let outcome = Some(Outcome::Status(StatusCode::OK));
        listeners.ended(exchange, &End { edge: &edge, outcome, took_us: 1, split: None, received: 0 });
        assert_eq!(taps.told().await[0].events.len(), 1);
        listeners.set(Heard::default());
        assert!(!listeners.any());
    }

    #[tokio::test(start_paused = true)]
    async fn of_what_callers_do_only_what_they_send_to_the_service_passes_by() {
        let listeners = Listeners::default();
        for (called, direction, expected) in [
            ("", Hop::Outbound, 1),
            ("", Hop::Inbound, 1),
            ("payments.demo", Hop::Outbound, 1),
            ("payments-v1.demo", Hop::Outbound, 1),
            ("other.demo", Hop::Outbound, 0),
            ("payments.demo", Hop::Inbound, 0),
        ] {
            let mut taps = Taps::new(Arc::default());
            let filter =
                TapFilter { called: called.into(), path_prefix: "/other".into(), ..TapFilter::default() };
            let start = StartTap { id: 1, lease_ms: 1000, filter: Some(filter), ..StartTap::default() };
            assert_eq!(taps.start(start, Instant::now()).refusal, "");
            let watching =
                taps.follow().borrow().clone().map(|taps| Watching { taps, workload: "web-1".into() });
            listeners.set(Heard { watching, ..Heard::default() });
            let (request, edge) = (http::Request::post("/pay").body(()).expect("a request"), edge(direction));
            if let Some(exchange) = listeners.begin(&request, None, &edge) {
                let outcome = Some(Outcome::Status(StatusCode::OK));
                listeners
                    .ended(exchange, &End { edge: &edge, outcome, took_us: 1, split: None, received: 0 });
            }
            let passed_by: u64 = taps.left_out().iter().map(|it| it.passed_by).sum();
            assert_eq!(passed_by, expected, "{called:?} {direction:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_surely_not_asked_for_is_not_noted() {
        let listeners = Listeners::default();
        let noted = |filter: TapFilter, path: &str, direction: Hop| {
            let mut taps = Taps::new(Arc::default());
            let start = StartTap { id: 1, lease_ms: 1000, filter: Some(filter), ..StartTap::default() };
            assert_eq!(taps.start(start, Instant::now()).refusal, "");
            let watching =
                taps.follow().borrow().clone().map(|taps| Watching { taps, workload: "web-1".into() });
            listeners.set(Heard { watching, ..Heard::default() });
            let request = http::Request::post(path).body(()).expect("a request");
            listeners.begin(&request, None, &edge(direction)).is_some()
        };
        let path = |prefix: &str| TapFilter { path_prefix: prefix.into(), ..TapFilter::default() };
        let to = |to: &str| TapFilter { to: to.into(), ..TapFilter::default() };
        for (filter, hop, expected) in [
            (path("/pay"), Hop::Outbound, true),
            (path("/other"), Hop::Outbound, false),
            (TapFilter { methods: vec!["GET".into()], ..TapFilter::default() }, Hop::Inbound, false),
            (TapFilter { direction: "inbound".into(), ..TapFilter::default() }, Hop::Outbound, false),
            (TapFilter { from: "other.demo".into(), ..TapFilter::default() }, Hop::Outbound, false),
            // Only the end tells.
            (
                TapFilter { statuses: vec!["5xx".into()], errors: true, ..TapFilter::default() },
                Hop::Inbound,
                true,
            ),
            (to("other.demo"), Hop::Outbound, true),
            (to("other.demo"), Hop::Inbound, false),
            (to("workload/payments-3"), Hop::Inbound, true),
            (TapFilter { called: "payments.demo".into(), ..TapFilter::default() }, Hop::Outbound, true),
            (TapFilter { called: "payments.demo".into(), ..TapFilter::default() }, Hop::Inbound, false),
            // Where it is led to is known at its end: until then nobody knows whether it passes by.
            (TapFilter { called: "payments.demo".into(), ..path("/other") }, Hop::Outbound, true),
        ] {
            assert_eq!(noted(filter.clone(), "/pay?card=4111", hop), expected, "{filter:?} {hop:?}");
        }
        // A connection is no request.
        assert!(listeners.connection().is_none());
    }
}
