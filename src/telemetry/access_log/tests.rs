use std::{
    collections::HashMap,
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, UNIX_EPOCH},
};

use http::{Method, Request, StatusCode, Version};
use pillion_api::{
    hops::{Course, Side},
    model::Percent,
};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    error::{Hop, Reason},
    telemetry::{
        edge::{EdgeKey, Outcome},
        exchange::{Callee, Try},
        listeners::{End, Heard, Listeners},
        trace::{
            self,
            context::{TRACEPARENT, TraceId},
        },
    },
};

fn callee(number: u8) -> Arc<Callee> {
    Arc::new(Callee {
        uid: format!("payments-{number}-0a").into(),
        workload: format!("payments-{number}").into(),
        address: ([10, 0, 0, number], 15006).into(),
        identity: Some("spiffe://mesh.local/ns/demo/sa/payments".into()),
    })
}

fn edge() -> Arc<EdgeKey> {
    Arc::new(EdgeKey {
        direction: Hop::Outbound,
        source: "web.demo".into(),
        target: "payments.demo".into(),
        backend: "payments-v2.demo".into(),
        workload: "payments-2".into(),
        mtls: true,
    })
}

fn traced() -> Option<TraceId> {
    let named = HeaderValue::from_static("00-00000000000000000000000000004bf9-00f067aa0ba902b7-00");
    trace::of_others(&[(TRACEPARENT, named)].into_iter().collect())
}

fn answered(status: u16) -> Option<Outcome> {
    Some(Outcome::Status(StatusCode::from_u16(status).expect("a status")))
}

/// A request that was repeated, and all that can be known of it.
fn full() -> Exchange {
    let tried = |number, began_us, ended_us, status| Try {
        callee: callee(number),
        hedge: false,
        began_us,
        ended: Some((ended_us, answered(status))),
    };
    let course = Course { sent: Some(2_000), head: Some(11_500), whole: 12_345, ..Course::default() };
    Exchange {
        version: Some(Version::HTTP_11),
        method: Method::POST,
        path: "/pay?card=1234".into(),
        authority: "payments.demo".into(),
        edge: Some(edge()),
        route: "demo/split".into(),
        rule: "canary".into(),
        tries: [tried(1, 100, 1_000, 503), tried(2, 2_000, 11_500, 200)].into_iter().collect(),
        headers: [(HeaderName::from_static("user-agent"), HeaderValue::from_static("curl/8"))]
            .into_iter()
            .collect(),
        sent: Some(Arc::new(7.into())),
        received: 42,
        status: StatusCode::from_u16(200).ok(),
        outcome: answered(200),
        took_us: 12_345,
        split: Some(course.split(Side::Client)),
        ended: Some(UNIX_EPOCH + Duration::from_micros(1_709_210_096_012_345)),
        trace_id: traced(),
        ..Exchange::default()
    }
}

fn log(format: LineFormat) -> model::AccessLog {
    let headers = vec![HeaderName::from_static("user-agent")];
    model::AccessLog { format, headers, ..model::AccessLog::default() }
}

fn written(exchange: &Exchange, log: &model::AccessLog) -> String {
    let mut text = Vec::new();
    Formatter::default().line((Box::new(exchange.clone()), Arc::new(log.clone())), &mut text);
    String::from_utf8(text).expect("text")
}

fn object(exchange: &Exchange, log: &model::AccessLog) -> Value {
    serde_json::from_str(&written(exchange, log)).expect("JSON")
}

#[test]
fn what_reached_nobody_was_carried_by_nothing() {
    let log = log(LineFormat::Json);
    let line = |direction, workload: &str, mtls| {
        let edge = EdgeKey { direction, workload: workload.into(), mtls, ..EdgeKey::clone(&edge()) };
        object(&Exchange { edge: Some(Arc::new(edge)), ..full() }, &log)["mtls"].clone()
    };
    assert_eq!(line(Hop::Outbound, "", true), Value::Null);
    assert_eq!(line(Hop::Outbound, "payments-2", true), true);
    assert_eq!(line(Hop::Outbound, "legacy-1", false), false);
    assert_eq!(line(Hop::Outbound, "", false), false, "what goes outside");
    assert_eq!(line(Hop::Inbound, "", true), true);
}

#[test]
fn json_says_all_there_is() {
    let expected = serde_json::json!({
        "time": "2024-02-29T12:34:56.000Z",
        "direction": "outbound", "protocol": "HTTP/1.1", "method": "POST", "path": "/pay",
        "authority": "payments.demo", "status": 200, "outcome": "completed",
        "peer": "spiffe://mesh.local/ns/demo/sa/payments", "mtls": true,
        "source": "web.demo", "target": "payments.demo", "backend": "payments-v2.demo",
        "workload": "payments-2", "route": "demo/split", "rule": "canary",
        "endpoint": "10.0.0.2:15006", "endpointUid": "payments-2-0a", "attempts": 2,
        "tries": [
            { "endpoint": "10.0.0.1:15006", "workload": "payments-1", "uid": "payments-1-0a",
              "afterMs": 0.1, "durationMs": 0.9, "outcome": "503" },
            { "endpoint": "10.0.0.2:15006", "workload": "payments-2", "uid": "payments-2-0a",
              "afterMs": 2.0, "durationMs": 9.5, "outcome": "200" },
        ],
        "requestBytes": 7, "responseBytes": 42, "durationMs": 12.345,
        "split": { "caller": 0.845, "client-sidecar": 2.0, "upstream": 9.5 },
        "traceId": "00000000000000000000000000004bf9", "headers": { "user-agent": "curl/8" },
    });
    let found = object(&full(), &log(LineFormat::Json));
    assert_eq!(found, expected, "{found:#}");
    // Fields are in that order, for whoever reads them as text.
    let line = written(&full(), &log(LineFormat::Json));
    assert!(line.starts_with("{\"time\":\"2024-02-29T12:34:56.000Z\",\"direction\":\"outbound\","), "{line}");
}

#[test]
fn text_has_every_field_at_its_place() {
    let line = written(&full(), &log(LineFormat::Text));
    assert_eq!(
        line,
        "[2024-02-29T12:34:56.000Z] \"POST /pay HTTP/1.1\" 200 completed 7 42 12.345 2 outbound web.demo \
         payments.demo payments-v2.demo payments-2 10.0.0.2:15006 \"payments.demo\" \
         \"spiffe://mesh.local/ns/demo/sa/payments\" \"demo/split\" \"canary\" \
         00000000000000000000000000004bf9 caller=0.845,client-sidecar=2.000,upstream=9.500 \
         \"tries: payments-1 503, payments-2 200\" user-agent=\"curl/8\"\n"
    );
    let nothing = written(&Exchange::default(), &log(LineFormat::Text));
    assert_eq!(
        nothing,
        "[] \"- - TCP\" - closed 0 0 0.000 0 - - - - - - \"-\" \"-\" \"-\" \"-\" - - \"-\"\n"
    );
}

#[test]
fn a_refusal_says_why_and_a_connection_how_it_ended() {
    let json = log(LineFormat::Json);
    let refused = Exchange {
        version: Some(Version::HTTP_2),
        grpc: true,
        status: Some(StatusCode::OK),
        outcome: Some(Outcome::Refused(Reason::NoEndpoints)),
        detail: "payments.demo".into(),
        ..Exchange::default()
    };
    let line = object(&refused, &json);
    for (field, expected) in [
        ("protocol", "HTTP/2"),
        ("outcome", "refused"),
        ("reason", "no-endpoints"),
        ("detail", "payments.demo"),
    ] {
        assert_eq!(line[field], expected);
    }
    assert_eq!((&line["status"], &line["grpcStatus"]), (&200.into(), &14.into()));
    let text = written(&refused, &log(LineFormat::Text));
    assert!(text.contains(" 200/14 no-endpoints 0 0 "), "{text}");

    let by_the_peer = Exchange {
        outcome: answered(429),
        told: Some(HeaderValue::from_static("rate-limited; hop=inbound; workload=payments-1")),
        ..full()
    };
    assert!(by_the_peer.is_error());
    assert_eq!(object(&by_the_peer, &json)["peerError"], "rate-limited; hop=inbound; workload=payments-1");

    let connection = Exchange { sent: Some(Arc::new(9.into())), received: 8, ..Exchange::default() };
    let line = object(&connection, &json);
    assert_eq!((&line["protocol"], &line["outcome"]), (&"TCP".into(), &"closed".into()));
    assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&9.into(), &8.into()));
    assert!(line.get("method").is_none() && !connection.is_error());
    let broken = Exchange { detail: "Connection reset by peer".into(), ..connection };
    assert_eq!(object(&broken, &json)["outcome"], "broken");
    assert!(broken.is_error());
}

#[test]
fn queries_are_written_only_where_that_is_asked_for() {
    let full_path = model::AccessLog { query: true, ..log(LineFormat::Json) };
    assert_eq!(object(&full(), &full_path)["path"], "/pay?card=1234");
}

#[test]
fn times_are_those_of_the_calendar() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_868_799, "2000-02-29T23:59:59.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        let mut text = Vec::new();
        words::time(UNIX_EPOCH + Duration::from_secs(seconds), &mut text);
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }
}

#[test]
fn what_did_not_end_well_is_told_apart() {
    for (outcome, error) in [
        (answered(200), false),
        (answered(404), false),
        (answered(503), true),
        (Some(Outcome::Grpc(5)), false),
        (Some(Outcome::Grpc(14)), true),
        (Some(Outcome::Cancelled), true),
        (Some(Outcome::Refused(Reason::RateLimited)), true),
        (None, false),
    ] {
        assert_eq!(Exchange { outcome, ..Exchange::default() }.is_error(), error, "{outcome:?}");
    }
}

#[test]
fn a_share_is_wanted_of_each_kind() {
    let percent = |million| Percent::per_million(million).expect("a share");
    let log = model::AccessLog { errors: percent(500_000), successes: percent(10_000), ..Default::default() };
    for (chance, errors, successes) in [
        (0, true, true),
        (9_999, true, true),
        (10_000, true, false),
        (499_999, true, false),
        (500_000, false, false),
        (999_999, false, false),
    ] {
        let wanted = wants(&log, chance);
        assert_eq!(
            (wanted.has(Wanted::LOG_ERROR), wanted.has(Wanted::LOG_SUCCESS)),
            (errors, successes),
            "{chance}"
        );
        assert_eq!(wanted.is_nothing(), !errors, "{chance}");
    }
}

#[test]
fn a_sidecars_own_word_goes_before_the_meshs() {
    let told = Arc::new(model::AccessLog { query: true, ..log(LineFormat::Text) });
    assert_eq!(Choice::in_force(None, None), None);
    assert_eq!(Choice::in_force(None, Some(&told)), Some(told.clone()));
    assert_eq!(Choice::in_force(Some(Choice::Off), Some(&told)), None);
    let json = Choice::in_force(Some(Choice::On(LineFormat::Json)), Some(&told));
    assert_eq!(json.as_deref(), Some(&model::AccessLog { format: LineFormat::Json, ..(*told).clone() }));
    let alone = Choice::in_force(Some(Choice::On(LineFormat::Text)), None);
    let default = model::AccessLog { format: LineFormat::Text, ..model::AccessLog::default() };
    assert_eq!(alone.as_deref(), Some(&default));
}

/// Gives on what is written; waits for whoever takes it.
struct Handed(std::sync::mpsc::SyncSender<Vec<u8>>);

impl Write for Handed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sink() -> (Arc<Sink>, Receiver<Vec<u8>>) {
    let (sender, lines) = sync_channel(0);
    let state = Mutex::new(State::Unused(Box::new(Handed(sender))));
    (Arc::new(Sink { state, counts: Arc::default(), name: String::new() }), lines)
}

fn end(edge: &Arc<EdgeKey>, status: u16) -> End<'_> {
    End { edge, outcome: answered(status), took_us: 1, split: None, received: 0 }
}

#[test]
fn nobody_waits_for_a_log_that_is_not_taken_and_what_is_left_out_is_counted() {
    let (sink, lines) = sink();
    let (listeners, edge) = (Listeners::default(), edge());
    let log = model::AccessLog { successes: Percent::ALL, ..model::AccessLog::default() };
    let log = AccessLog::new(Arc::new(log), sink.clone());
    listeners.set(Heard { log: Some(log), ..Heard::default() });
    let request = Request::get("http://payments.demo/pay").body(()).expect("a request");
    let all = 5_000;
    for _ in 0..all {
        let exchange = listeners.begin(&request, None, &edge).expect("it is wanted");
        listeners.ended(exchange, &end(&edge, 200));
    }
    let dropped = sink.counts.dropped.load(Ordering::Relaxed);
    assert!(dropped > all / 2, "{dropped} of {all}");
    assert_eq!(sink.counts.written.load(Ordering::Relaxed), 0, "nobody has taken any yet");
    let taken = std::thread::spawn(move || lines.into_iter().flatten().filter(|byte| *byte == b'\n').count());
    sink.end();
    // What the log holds on to ends with it.
    listeners.set(Heard::default());
    let counts = sink.counts.clone();
    drop(sink);
    let taken = taken.join().expect("it does not panic") as u64;
    assert_eq!((taken, counts.written.load(Ordering::Relaxed)), (all - dropped, taken));
}

#[test]
fn only_what_is_wanted_is_written_and_the_rest_is_used_again() {
    let (sink, lines) = sink();
    let (listeners, edge) = (Listeners::default(), edge());
    let request = Request::get("http://payments.demo/pay").body(()).expect("a request");
    assert!(!listeners.any() && listeners.begin(&request, None, &edge).is_none());
    let successes = Percent::per_million(0).expect("none");
    let log = model::AccessLog { successes, ..model::AccessLog::default() };
    let log = AccessLog::new(Arc::new(log), sink.clone());
    listeners.set(Heard { log: Some(log), ..Heard::default() });
    let taken = std::thread::spawn(move || {
        let bytes: Vec<u8> = lines.into_iter().flatten().collect();
        String::from_utf8(bytes).expect("text")
    });
    for status in [200, 404, 503, 200] {
        let exchange = listeners.begin(&request, None, &edge).expect("it may be wanted");
        assert_eq!((exchange.authority.as_str(), exchange.path.as_str()), ("payments.demo", "/pay"));
        listeners.ended(exchange, &end(&edge, status));
    }
    sink.end();
    listeners.set(Heard::default());
    let lines = taken.join().expect("it does not panic");
    let statuses: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["status"].clone())
        .collect();
    assert_eq!(statuses.len(), 1, "{lines}");
}

/// Words and quoted texts of a line, as whoever reads it takes it apart.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut within, mut escaped) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            ' ' if !within => fields.push(std::mem::take(&mut field)),
            '"' if !escaped => {
                within = !within;
                field.push(character);
            }
            other => field.push(other),
        }
        escaped = character == '\\' && !escaped;
    }
    fields.push(field);
    fields
}

fn value() -> impl Strategy<Value = HeaderValue> {
    proptest::collection::vec(any::<u8>(), 0..40)
        .prop_filter_map("a field's value", |bytes| HeaderValue::from_bytes(&bytes).ok())
}

proptest! {
    /// Whatever a peer sends, a line is one line, of as many fields as ever, and JSON gives back what it was.
    #[test]
    fn nobody_can_write_lines_of_their_own(
        path in any::<String>(), authority in any::<String>(), detail in any::<String>(),
        header in value(), told in value(), query in any::<bool>(),
    ) {
        let exchange = Exchange {
            path: path.clone(), authority: authority.clone(), detail: detail.clone(),
            headers: [(HeaderName::from_static("user-agent"), header.clone())].into_iter().collect(),
            told: Some(told.clone()),
            ..full()
        };
        let json = model::AccessLog { query, ..log(LineFormat::Json) };
        let line = written(&exchange, &json);
        prop_assert!(line.is_ascii() && line.matches('\n').count() == 1 && !line.contains(|it: char| it != '\n' && it.is_control()));
        let object: HashMap<String, Value> = serde_json::from_str(&line).expect("JSON");
        let path = if query { path.as_str() } else { path.split('?').next().unwrap_or_default() };
        let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        for (field, expected) in [("path", path), ("authority", &*authority), ("detail", &*detail), ("peerError", &*lossy(&told))] {
            let found = object.get(field).and_then(Value::as_str).unwrap_or_default();
            prop_assert_eq!(found, expected, "{}", field);
        }
        prop_assert_eq!(object["headers"]["user-agent"].as_str(), Some(&*lossy(&header)));

        let line = written(&exchange, &model::AccessLog { format: LineFormat::Text, ..json });
        prop_assert!(line.is_ascii() && line.matches('\n').count() == 1 && !line.contains(|it: char| it != '\n' && it.is_control()));
        prop_assert_eq!(fields(line.trim_end()).len(), 22, "{}", line);
    }
}
