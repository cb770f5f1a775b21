//! HTTP/2 that asks for more than it is worth, at both entries of a sidecar: the application's, and that of other sidecars.
//! Each attack is bounded, answered by name, and counted; and who else is served does not notice.

use std::collections::BTreeMap;

use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::apps::{HttpApp, Version};
use crate::support::http2::{self, Field, block, frame};
use crate::support::pair::Pair;
use crate::support::{eventually, resident, soon, stalled};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Kinds of frames (RFC 9113 6), and what they end a connection with (7).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const FLOW_CONTROL_ERROR: u32 = 3;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Resident memory may grow by so much, bytes: less than any of the attacks sends or asks for.
const ROOM: u64 = 48 << 20;

/// What a peer does over and over.
struct Attack {
    name: &'static str,
    /// Once.
    opening: Vec<u8>,
    /// So many times, with the stream's number.
    times: u32,
    again: fn(u32) -> Vec<u8>,
    /// How the connection must end.
    ends: &'static [u32],
}

const USUAL: [Field; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app.demo.mesh"), (b":path", b"/who")];

/// A request's head, complete or not.
fn headers(flags: u8, stream: u32, fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(fields))
}

fn attacks() -> Vec<Attack> {
    let attack =
        |name, opening, times, again: fn(u32) -> Vec<u8>, ends| Attack { name, opening, times, again, ends };
    vec![
        // CVE-2023-44487.
        attack(
            "rapid reset",
            vec![],
            100_000,
            |stream| {
                let request = headers(END_STREAM | END_HEADERS, stream, &USUAL);
                [request, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            },
            &[ENHANCE_YOUR_CALM],
        ),
        // CVE-2024-27316: a head without end.
        attack(
            "CONTINUATION without end",
            headers(END_STREAM, 1, &USUAL),
            100_000,
            |_| frame(CONTINUATION, 0, 1, &block(&[(b"x", &[b'a'; 100])])),
            &[ENHANCE_YOUR_CALM, COMPRESSION_ERROR],
        ),
        attack(
            "empty CONTINUATION",
            headers(END_STREAM, 1, &USUAL),
            100_000,
            |_| frame(CONTINUATION, 0, 1, b""),
            &[ENHANCE_YOUR_CALM],
        ),
        // CVE-2019-9512, 9515, and 9518.
        attack("PING", vec![], 200_000, |_| frame(PING, 0, 0, b"pingpong"), &[ENHANCE_YOUR_CALM]),
        attack("SETTINGS", vec![], 200_000, |_| frame(SETTINGS, 0, 0, b""), &[ENHANCE_YOUR_CALM]),
        attack(
            "PRIORITY",
            vec![],
            200_000,
            |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]),
            &[ENHANCE_YOUR_CALM],
        ),
        attack(
            "empty DATA",
            headers(END_HEADERS, 1, &[(b":method", b"POST"), USUAL[1], USUAL[2], USUAL[3]]),
            200_000,
            |_| frame(DATA, 0, 1, b""),
            &[ENHANCE_YOUR_CALM],
        ),
        attack(
            "DATA of nothing but padding",
            headers(END_HEADERS, 1, &[(b":method", b"POST"), USUAL[1], USUAL[2], USUAL[3]]),
            200_000,
            |_| frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
            &[ENHANCE_YOUR_CALM],
        ),
        // Each is refused by itself, as a request without a method.
        attack(
            "HEADERS without fields",
            vec![],
            200_000,
            |stream| headers(END_STREAM | END_HEADERS, stream, &[]),
            &[ENHANCE_YOUR_CALM],
        ),
        // One entry of the dynamic table, named again and again (RFC 7541 4).
        attack(
            "a header list that unpacks to too much",
            [
                frame(
                    HEADERS,
                    END_STREAM | END_HEADERS,
                    1,
                    &[block(&USUAL), vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e], vec![b'a'; 4000]].concat(),
                ),
                headers(END_STREAM, 3, &USUAL),
            ]
            .concat(),
            1000,
            |_| frame(CONTINUATION, 0, 3, &[0xbe; 1000]),
            &[ENHANCE_YOUR_CALM],
        ),
        attack(
            "more streams than are allowed",
            vec![],
            100_000,
            |stream| headers(END_HEADERS, stream, &[(b":method", b"POST"), USUAL[1], USUAL[2], USUAL[3]]),
            &[ENHANCE_YOUR_CALM],
        ),
        attack(
            "a window beyond its largest",
            vec![],
            4,
            |_| frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            &[FLOW_CONTROL_ERROR],
        ),
    ]
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Sends the attack until the connection ends; gives the code that it ends with.
async fn carry_out(attack: &Attack, io: Box<dyn Stream>) -> Option<u32> {
    let (mut read, mut write) = tokio::io::split(io);
    let sending = async {
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, b""), &attack.opening].concat();
        let mut open = write.write_all(&opening).await.is_ok();
        let mut times = 0..attack.times;
        while open && !times.is_empty() {
            let some = times.by_ref().take(1000);
            let bytes: Vec<u8> = some.flat_map(|number| (attack.again)(2 * number + 1)).collect();
            open = write.write_all(&bytes).await.is_ok();
        }
        let _ = write.flush().await;
    };
    let hearing = async {
        let (mut bytes, mut code) = (Vec::new(), None);
        while let Ok(1..) = read.read_buf(&mut bytes).await {
            while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = &bytes[..] {
                let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
                let Some(payload) = rest.get(..length) else { break };
                if let (GOAWAY, [_, _, _, _, said @ ..]) = (*kind, payload) {
                    code = Some(u32::from_be_bytes(said[..4].try_into().expect("four bytes")));
                }
                bytes.drain(..9 + length);
            }
        }
        code
    };
    soon(&format!("the end of: {}", attack.name), async { tokio::join!(sending, hearing).1 }).await
}

/// Requests through both sidecars all the while, one after the other, each of which must be answered well.
struct Others {
    answered: watch::Receiver<u32>,
    task: tokio::task::JoinHandle<()>,
}

impl Others {
    fn call(pair: &Pair) -> Self {
        let (answers, answered) = watch::channel(0);
        let outbound = pair.caller.outbound();
        let task = tokio::spawn(async move {
            let connection = http2::connect(outbound).await;
            while !answers.is_closed() {
                let response = http2::request(&connection, Method::GET, "http://app.demo.mesh/who").await;
                let (status, content) = (response.status(), http2::content(response).await);
                let content = String::from_utf8_lossy(&content).into_owned();
                assert_eq!(
                    (status.as_u16(), &*content),
                    (200, "app-1"),
                    "after {} good ones",
                    *answers.borrow()
                );
                answers.send_modify(|answered| *answered += 1);
            }
        });
        Self { answered, task }
    }

    fn answered(&self) -> u32 {
        *self.answered.borrow()
    }

    /// Waits for so many more.
    async fn until_answered(&mut self, more: u32) {
        let enough = self.answered() + more;
        soon("more answers", self.answered.wait_for(|answered| *answered >= enough))
            .await
            .expect("they go on");
    }

    /// Fails where one of them went wrong.
    async fn end(self) {
        drop(self.answered);
        soon("the last answer", self.task).await.expect("all were answered well");
    }
}

/// Connects to an entry as whoever it expects.
async fn connect(pair: &Pair, entry: &str) -> Box<dyn Stream> {
    if entry == "outbound" {
        return Box::new(TcpStream::connect(pair.caller.outbound()).await.expect("it listens"));
    }
    Box::new(pair.member().await)
}

async fn endured(entry: &str) {
    let app = HttpApp::start("app-1", Version::Http2).await;
    let pair = Pair::around(app.address(), "kubernetes.io/h2c").await;
    let sidecar = if entry == "outbound" { &pair.caller } else { &pair.callee };
    let mut others = Others::call(&pair);
    others.until_answered(1).await;
    let before = resident(sidecar);
    let (attacks, mut ends) = (attacks(), BTreeMap::new());
    // Again and again, as long as it takes the others to be served for a while.
    let mut endless = attacks.iter().cycle();
    let mut carried_out = 0;
    while carried_out < attacks.len() || others.answered() < 50 {
        let attack = endless.next().expect("it has no end");
        assert!(!others.task.is_finished(), "another was not answered well");
        carried_out += 1;
        let code = carry_out(attack, connect(&pair, entry).await).await;
        assert!(code.is_some_and(|code| attack.ends.contains(&code)), "{}: {code:?}", attack.name);
        let calm = code == Some(ENHANCE_YOUR_CALM);
        *ends.entry(if calm { "http2-abuse" } else { "malformed-request" }).or_insert(0.0) += 1.0;
        let grown = resident(sidecar).saturating_sub(before);
        assert!(grown < ROOM, "{}: {} MiB more", attack.name, grown >> 20);
    }
    eventually("each is counted", async || {
        let metrics = sidecar.metrics().await;
        let counted = |reason| {
            metrics.sum("pillion_malformed_requests_total", &[("direction", entry), ("reason", reason)])
        };
        ends.iter().all(|(reason, times)| counted(reason) == *times).then_some(())
    })
    .await;
    others.end().await;
    eventually("nothing is left of them", async || (pair.in_flight().await == (0.0, 0.0)).then_some(()))
        .await;
}

#[tokio::test]
async fn from_the_application() {
    endured("outbound").await;
}

#[tokio::test]
async fn from_another_sidecar() {
    endured("inbound").await;
}

#[tokio::test]
async fn readers_who_take_nothing_cost_little() {
    const STREAMS: u32 = 500;
    let app = HttpApp::start("app-1", Version::Http2).await;
    let pair = Pair::around(app.address(), "kubernetes.io/h2c").await;
    let mut others = Others::call(&pair);
    others.until_answered(1).await;
    let before = [resident(&pair.caller), resident(&pair.callee)];
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    for number in 0..STREAMS {
        let fields = [USUAL[0], USUAL[1], USUAL[2], (&b":path"[..], &b"/bytes/100000000"[..])];
        bytes.extend(headers(END_STREAM | END_HEADERS, 2 * number + 1, &fields));
    }
    let mut io = connect(&pair, "outbound").await;
    soon("room for the requests", io.write_all(&bytes)).await.expect("it is open");
    eventually("all of them are under way", async || {
        (pair.in_flight().await.0 >= f64::from(STREAMS)).then_some(())
    })
    .await;
    let produced = stalled(|| app.produced()).await;
    // Each may fill its windows on the way, and the application's own buffers: never what was asked for.
    assert!(produced < u64::from(STREAMS) * (2 << 20), "{} MiB", produced >> 20);
    for (sidecar, before) in [&pair.caller, &pair.callee].into_iter().zip(before) {
        let grown = resident(sidecar).saturating_sub(before);
        assert!(grown < 3 * ROOM, "{}: {} MiB more", sidecar.workload, grown >> 20);
    }
    others.until_answered(20).await;
    others.end().await;
    drop(io);
    eventually("nothing is left of them", async || (pair.in_flight().await == (0.0, 0.0)).then_some(()))
        .await;
}
