//! One request as a line.

use std::{
    fmt::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use super::super::table;
use crate::tap::{TapDropped, TapEvent};

/// Segments of less than this share of the whole are left out.
const WORTH_A_WORD: f64 = 0.01;

/// `12:00:00.123Z outbound  web.demo -> payments.demo (payments-3)  POST /pay  503 breakers-open (outbound)  12ms  network 10ms  mTLS`
pub(super) fn render(request: &TapEvent, wide: bool) -> String {
    let TapEvent { direction, from, method, path, .. } = request;
    let time = time(request.time_ms);
    let (to, status) = (to(request), status(request));
    let took = table::milliseconds(Some(request.duration_ms));
    let mut line = format!("{time} {direction:8}  {from} -> {to}  {method} {path}  {status}  {took}");
    let split: Vec<String> = (request.segments.iter())
        .filter(|segment| segment.ms >= request.duration_ms * WORTH_A_WORD)
        .map(|segment| format!("{} {}", segment.segment, table::milliseconds(Some(segment.ms))))
        .collect();
    if !split.is_empty() {
        let _ = write!(line, "  {}", split.join(", "));
    }
    line.push_str(match request.mtls {
        Some(true) => "  mTLS",
        Some(false) => "  plaintext",
        None => "",
    });
    if wide {
        widen(&mut line, request);
    }
    line.push('\n');
    line
}

fn widen(line: &mut String, request: &TapEvent) {
    let mut add = |name: &str, value: &str| {
        let _ = write!(line, "  {name}={value}");
    };
    add("sidecar", &format!("{}.{}", request.sidecar, request.namespace));
    if let Some(identity) = &request.peer_identity {
        add("peer", identity);
    }
    if let Some(route) = &request.route {
        add("route", &format!("{route}/{}", request.rule.as_deref().unwrap_or_default()));
    }
    if request.attempts > 1 {
        add("attempts", &request.attempts.to_string());
    }
    for header in &request.headers {
        add(&header.name, &format!("{:?}", header.value));
    }
}

/// Of the day, UTC.
fn time(unix_ms: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms.try_into().unwrap_or_default());
    let text = humantime::format_rfc3339_millis(time).to_string();
    text.split('T').next_back().unwrap_or_default().to_owned()
}

fn to(request: &TapEvent) -> String {
    let served: Vec<&str> =
        [&request.backend, &request.workload].into_iter().filter_map(|name| name.as_deref()).collect();
    if served.is_empty() { request.to.clone() } else { format!("{} ({})", request.to, served.join(", ")) }
}

fn status(request: &TapEvent) -> String {
    let mut words = Vec::new();
    match (request.grpc_status, request.status) {
        (Some(code), _) => words.push(format!("grpc-{code}")),
        (None, Some(status)) => words.push(status.to_string()),
        (None, None) => {}
    }
    if let Some(reason) = &request.reason {
        words.push(match &request.refused_by {
            Some(hop) => format!("{reason} ({hop})"),
            None => reason.clone(),
        });
    }
    if request.cancelled {
        words.push("cancelled".to_owned());
    }
    words.join(" ")
}

/// What is not shown, and why.
pub(super) fn left_out(dropped: TapDropped) -> String {
    let TapDropped { limited, overflowed, unread } = dropped;
    let parts = [
        (limited, "beyond --max-rate"),
        (overflowed, "that sidecars could not pass on"),
        (unread, "that were not read in time"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(many, _)| *many > 0).map(|(many, why)| format!("{many} {why}")).collect();
    format!("requests left out so far: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::{TapHeader, TapSegment};

    fn request() -> TapEvent {
        let segment = |segment: &str, ms| TapSegment { segment: segment.to_owned(), ms };
        TapEvent {
            time_ms: 1_764_288_000_123,
            sidecar: "web-1".to_owned(),
            namespace: "demo".to_owned(),
            direction: "outbound".to_owned(),
            from: "web.demo".to_owned(),
            to: "payments.demo".to_owned(),
            backend: Some("payments-v1.demo".to_owned()),
            workload: Some("payments-3".to_owned()),
            mtls: Some(true),
            peer_identity: Some("spiffe://mesh.local/ns/demo/sa/payments".to_owned()),
            method: "POST".to_owned(),
            path: "/pay".to_owned(),
            status: Some(200),
            duration_ms: 12.3,
            segments: vec![
                segment("client-sidecar", 0.1),
                segment("network", 2.2),
                segment("application", 10.0),
            ],
            attempts: 2,
            route: Some("demo/canary".to_owned()),
            rule: Some("0".to_owned()),
            headers: vec![TapHeader { name: "x-request-id".to_owned(), value: "7".to_owned() }],
            ..TapEvent::default()
        }
    }

    #[test]
    fn a_line_says_who_what_and_where_the_time_went() {
        assert_eq!(
            render(&request(), false),
            "00:00:00.123Z outbound  web.demo -> payments.demo (payments-v1.demo, payments-3)  POST /pay  200  12ms  \
             network 2.2ms, application 10ms  mTLS\n"
        );
        let wide = render(&request(), true);
        assert!(
            wide.ends_with(
                "mTLS  sidecar=web-1.demo  peer=spiffe://mesh.local/ns/demo/sa/payments  route=demo/canary/0  attempts=2  \
                 x-request-id=\"7\"\n"
            ),
            "{wide}"
        );
    }

    #[test]
    fn how_it_ended_is_said_with_whose_word_it_is() {
        let base = TapEvent { duration_ms: 0.2, ..TapEvent::default() };
        let refused = TapEvent {
            status: Some(503),
            reason: Some("breakers-open".to_owned()),
            refused_by: Some("outbound".to_owned()),
            ..base.clone()
        };
        assert_eq!(status(&refused), "503 breakers-open (outbound)");
        assert_eq!(status(&TapEvent { status: Some(200), grpc_status: Some(14), ..base.clone() }), "grpc-14");
        assert_eq!(status(&TapEvent { cancelled: true, ..base }), "cancelled");
    }

    #[test]
    fn what_is_left_out_is_said_with_the_reason() {
        let dropped = TapDropped { limited: 3, overflowed: 0, unread: 2 };
        assert_eq!(
            left_out(dropped),
            "requests left out so far: 3 beyond --max-rate, 2 that were not read in time"
        );
    }
}
