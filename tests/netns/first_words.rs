//! What a connection to an undeclared port is taken for: by whoever speaks first, whenever that is, and never for less than the
//! server behind it makes of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{App, HttpApp, Version};
use crate::support::netns::{Workload, WorkloadSpec, connect, in_world, listen_on};
use crate::support::{eventually, raw, soon};

const HTTP: u16 = 8080;
const HTTP2: u16 = 8082;
/// One that answers only when its client has said all.
const LAST_WORD: u16 = 7013;
/// MySQL's, where servers speak first; here nobody listens.
const DEAD: u16 = 3306;

#[test]
fn nothing_is_taken_for_less_than_it_is() {
    in_world(async |world| {
        let place = world.place("web");
        let _http = HttpApp::on(listen_on(&place, HTTP), "web", Version::Http1);
        let _http2 = HttpApp::on(listen_on(&place, HTTP2), "web", Version::Http2);
        let _last = App::on(listen_on(&place, LAST_WORD), answer_at_the_end);
        let ports: Vec<String> =
            [HTTP, HTTP2, LAST_WORD, DEAD].map(|port| format!("{{ name: p{port}, port: {port} }}")).into();
        let ports = ports.join(", ");
        world
            .mesh
            .apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: web, namespace: demo }}\n\
                 spec: {{ selector: {{ app: web }}, ports: [{ports}] }}\n"
            ))
            .await;
        let spec = WorkloadSpec::serving("web-1", "web", &[HTTP, HTTP2, LAST_WORD, DEAD]);
        let web = world.workload(place, spec).await;
        let client = world.workload(world.place("client"), WorkloadSpec::caller("client")).await;
        world.until_registered(&[&web, &client]).await;
        client.until_endpoints("web", 1).await;
        let address = world.virtual_address("web").await;
        let at = |port| SocketAddr::new(address, port);

        // Servers ignore an empty line before a request: it must not bring forged fields past the sidecars as bytes.
        let forged = "\r\nGET /head HTTP/1.1\r\nHost: web\r\nx-forwarded-client-cert: forged\r\nConnection: close\r\n\r\n";
        let shown = said(&client, at(HTTP), forged).await;
        assert!(shown.contains("URI=spiffe://") && !shown.contains("forged"), "{shown}");

        late_http2(&client, at(HTTP2)).await;

        // A client that waits for a server that is not there hears so.
        let began = Instant::now();
        let mut waiting = connect(&client, at(DEAD)).await.expect("the sidecar listens");
        let heard = soon("an end", waiting.read(&mut [0; 1])).await;
        assert!(heard.is_err(), "not as if the server had ended it: {heard:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let refused = [("direction", "outbound"), ("reason", "application-unreachable")];
        assert!(client.count("pillion_refusals_total", &refused).await >= 1.0);

        // One that has nothing to say, and ends its side, still hears the answer.
        let mut listening = connect(&client, at(LAST_WORD)).await.expect("the sidecar listens");
        listening.shutdown().await.expect("it is open");
        let mut answer = String::new();
        soon("an answer", listening.read_to_string(&mut answer)).await.expect("it comes whole");
        assert_eq!(answer, "bye");

        // Those who say nothing take nobody's place: more than there may be requests.
        let mut idle = Vec::new();
        for _ in 0..1100 {
            idle.push(connect(&client, at(HTTP)).await.expect("the sidecar listens"));
        }
        let answer =
            said(&client, at(HTTP), "GET /who HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
        assert_eq!(raw::status(&answer), 200, "{answer}");
    });
}

/// A server of HTTP/2 says SETTINGS at once. A client that takes its time is one of HTTP/2 all the same.
async fn late_http2(client: &Workload, to: SocketAddr) {
    let stream = connect(client, to).await.expect("the sidecar listens");
    // Longer than the sidecar waits before it opens the server's side.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (sending, connection) = h2::client::handshake(stream).await.expect("a connection");
    tokio::spawn(connection);
    let mut sending = soon("room for a request", sending.ready()).await.expect("it is open");
    let request = http::Request::get("http://web/who").body(()).expect("a request");
    let (response, _) = sending.send_request(request, true).expect("it is open");
    assert_eq!(soon("a response", response).await.expect("one comes").status(), 200);
    let found = [("direction", "outbound"), ("outcome", "http2")];
    eventually("it is counted as what it is", async || {
        (client.count("pillion_protocol_detections_total", &found).await >= 1.0).then_some(())
    })
    .await;
}

async fn said(client: &Workload, to: SocketAddr, words: &str) -> String {
    let mut stream = connect(client, to).await.expect("the sidecar listens");
    stream.write_all(words.as_bytes()).await.expect("the sidecar reads");
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.expect("it comes whole");
    answer
}

async fn answer_at_the_end(mut stream: TcpStream) {
    let mut words = Vec::new();
    if stream.read_to_end(&mut words).await.is_ok() {
        let _ = stream.write_all(b"bye").await;
    }
}
