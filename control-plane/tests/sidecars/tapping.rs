//! Live requests as sidecars hear of them: only those that are concerned, again and again, and of the end.

use std::{path::Path, time::SystemTime};

use pillion::{
    config::ServerArgs,
    token::{Role, Tokens},
};
use pillion_api::wire::{
    Header, StartTap, Subscribe, TapAnswer, TapEvent, TapEvents, TapSegment, control_message::Message,
    sidecar_message,
};
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{PATIENCE, Sidecar, TestServer, eventually, settings};

/// A reader's stream.
struct Reader {
    response: Response,
    text: String,
}

impl Reader {
    async fn open(server: &TestServer, query: &str) -> Self {
        let tokens = Tokens::new(std::sync::Arc::clone(&server.store));
        let token = tokens.create_api(Role::Operator, None, None, SystemTime::now()).await.expect("a token");
        let url = format!("{}/v1/mesh/tap?{query}", server.http);
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let response = client.get(url).bearer_auth(token.token).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// The next event of this name; others are passed over.
    async fn next(&mut self, name: &str) -> Value {
        let found = async {
            loop {
                while let Some((event, rest)) = self.text.split_once("\n\n") {
                    let field = |field: &str| {
                        event.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default().to_owned()
                    };
                    let (is, data) = (field("event: "), field("data: "));
                    self.text = rest.to_owned();
                    if is == name {
                        return serde_json::from_str(&data).expect("JSON");
                    }
                }
                let chunk = self.response.chunk().await.expect("it is whole").expect("it goes on");
                self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {name} in time"))
    }
}

impl Sidecar {
    /// The next word about taps; updates are passed over.
    async fn word(&mut self) -> Message {
        loop {
            match self.hear().await.expect("the stream goes on") {
                Message::Update(_) | Message::Welcome(_) => {}
                word => return word,
            }
        }
    }

    async fn started(&mut self) -> StartTap {
        match self.word().await {
            Message::StartTap(start) => start,
            other => panic!("expected a tap, not {other:?}"),
        }
    }

    async fn stopped(&mut self) {
        loop {
            match self.word().await {
                Message::StopTap(_) => return,
                // It was renewed meanwhile.
                Message::StartTap(_) => {}
                other => panic!("expected the end of a tap, not {other:?}"),
            }
        }
    }

    async fn answer(&self, id: u64, refusal: &str) {
        let answer = TapAnswer { id, refusal: refusal.to_owned() };
        self.say(sidecar_message::Message::TapAnswer(answer)).await;
    }

    async fn tell(&self, events: TapEvents) {
        self.say(sidecar_message::Message::TapEvents(events)).await;
    }
}

async fn taps(server: &TestServer) -> f64 {
    let answer = reqwest::get(format!("{}/metrics", server.http)).await.expect("an answer");
    let text = answer.text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("pillion_server_taps ")).expect("the gauge");
    line.parse().expect("a number")
}

async fn mesh(folder: &Path) -> (TestServer, Sidecar, Sidecar) {
    // Who is lost is not gone while a test looks.
    let server =
        TestServer::start_with(ServerArgs { lease: Some("60s".to_owned()), ..settings(folder) }).await;
    for name in ["web", "payments"] {
        server.apply_service(name).await;
    }
    let web = server.sidecar(folder, "web", "web-1").await;
    let payments = server.sidecar(folder, "payments", "payments-1").await;
    (server, web, payments)
}

#[tokio::test]
async fn only_sidecars_that_are_meant_hear_of_a_tap_and_what_they_tell_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut web, mut payments) = mesh(folder.path()).await;
    let mut reader = Reader::open(&server, "resource=svc/payments.demo&path=/pay&status=5xx&maxRate=7").await;
    let start = payments.started().await;
    let filter = start.filter.clone().expect("a filter");
    assert_eq!((filter.path_prefix.as_str(), &filter.statuses[..]), ("/pay", &["5xx".to_owned()][..]));
    assert_eq!((start.max_per_second, start.lease_ms), (7, 1200), "four heartbeats");
    payments.answer(start.id, "").await;
    loop {
        if reader.next("status").await["listening"] == 1 {
            break;
        }
    }
    let event = TapEvent {
        took_us: 1500,
        method: "POST".into(),
        path: "/pay".into(),
        source: "web.demo".into(),
        target: "payments.demo".into(),
        status: 503,
        refusal: "overloaded".into(),
        refused_by: "inbound".into(),
        mtls: true,
        segments: vec![TapSegment { segment: 4, us: 1500 }],
        headers: vec![Header { name: "x-request-id".into(), value: "7\u{1b}[2J".into() }],
        ..TapEvent::default()
    };
    let events = TapEvents { id: start.id, events: vec![event], limited: 3, overflowed: 1, passed_by: 7 };
    payments.tell(TapEvents { id: start.id + 1, ..events.clone() }).await;
    payments.tell(events).await;
    let told = reader.next("request").await;
    assert_eq!(told["sidecar"], "payments-1");
    assert_eq!(
        (&told["status"], &told["reason"], &told["durationMs"]),
        (&503.into(), &"overloaded".into(), &1.5.into())
    );
    assert_eq!(told["segments"], serde_json::json!([{ "segment": "server-sidecar", "ms": 1.5 }]));
    assert_eq!(told["headers"][0]["value"], "7 [2J", "nothing that a terminal would obey");
    let status = reader.next("status").await;
    assert_eq!(status["dropped"], serde_json::json!({ "limited": 3, "overflowed": 1, "unread": 0 }));

    assert_eq!(payments.started().await, start, "it is renewed");
    drop(reader);
    payments.stopped().await;
    eventually("the gauge falls", || async { taps(&server).await == 0.0 }).await;
    // Of all that web has heard nothing.
    server.delete("Service", "web").await;
    web.subscribe("web.demo").await;
    match web.hear().await.expect("the stream goes on") {
        Message::Update(_) | Message::Welcome(_) => {}
        other => panic!("web is none of it: {other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn callers_tell_from_their_first_call_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut web, payments) = mesh(folder.path()).await;
    let mut reader = Reader::open(&server, "resource=svc/payments.demo&seenBy=callers").await;
    let status = reader.next("status").await;
    assert_eq!(status["notes"][0], "no sidecar calls payments.demo at this moment");
    // What a workload asks for about its own service is no call.
    let own = Subscribe { service: "payments.demo".into(), config_only: true, ..Subscribe::default() };
    payments.say(sidecar_message::Message::Subscribe(own)).await;
    web.subscribe("payments.demo").await;
    let start = web.started().await;
    assert_eq!(start.filter.expect("a filter").called, "payments.demo");
    web.answer(start.id, "it has 16 taps already").await;
    loop {
        let status = reader.next("status").await;
        if status["refused"] == 1 {
            assert_eq!(status["notes"][0], "the sidecar of web-1 tells nothing: it has 16 taps already");
            break;
        }
    }
    let unsubscribe = pillion_api::wire::Unsubscribe { service: "payments.demo".into() };
    web.say(sidecar_message::Message::Unsubscribe(unsubscribe)).await;
    web.stopped().await;
    server.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_comes_later_is_asked_and_one_that_goes_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, web, payments) = mesh(folder.path()).await;
    let mut reader = Reader::open(&server, "resource=ns/demo").await;
    let mut late = server.sidecar(folder.path(), "payments", "payments-2").await;
    late.started().await;
    drop((web, payments));
    loop {
        let status = reader.next("status").await;
        // Nobody answers the heartbeats of the third, so that may be away as well by then.
        if status["away"].as_u64() >= Some(2) {
            let note = status["notes"][0].as_str().expect("words");
            assert!(note.contains("payments-1") && note.contains("web-1"), "{note}");
            break;
        }
    }
    server.stop().await;
}
