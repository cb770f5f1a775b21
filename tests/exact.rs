//! HTTP/1 arrives as it was written: the names' case and the order of all fields, whatever carries it between the sidecars.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::App;
use crate::support::pair::Pair;
use crate::support::raw;

/// What an old application might answer: fields of one name apart, and no two words in the same case.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-zulu: 1\r\nSet-Cookie: a=1\r\nCONTENT-TYPE: text/plain\r\nx-Alpha: 2\r\n\
                      set-cookie: b=2\r\nEtag: \"x\"\r\nContent-length: 2\r\nPillion-Error: forged\r\n\r\nok";

/// Answers like that, and keeps the heads of requests.
async fn old() -> (App, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&heads);
    let app = App::start(move |mut stream| {
        let kept = Arc::clone(&kept);
        async move {
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    let text = String::from_utf8_lossy(&head).into_owned();
                    if !text.contains("/healthz") {
                        kept.lock().expect("nothing panics while holding it").push(text);
                    }
                    head.clear();
                    if stream.write_all(ANSWER.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await;
    (app, heads)
}

/// What the callee's sidecar says of the caller, after everything that the caller says.
const CALLER: &str = "x-forwarded-client-cert: By=spiffe://test.local/ns/demo/sa/app;URI=spiffe://test.local/ns/demo/sa/client\r\n";

#[tokio::test]
async fn case_and_order_of_fields_through_http2_and_http1() {
    let (app, heads) = old().await;
    let pair = Pair::around(app.address, "http").await;
    let fields = "X-zulu: 1\r\nHOST: app.demo.mesh\r\nx-Multi: a\r\nuser-AGENT: old/1.0\r\nX-MULTI: b\r\naccept: */*\r\n";
    let answer = "HTTP/1.1 200 OK\r\nX-zulu: 1\r\nSet-Cookie: a=1\r\nCONTENT-TYPE: text/plain\r\nx-Alpha: 2\r\n\
                  set-cookie: b=2\r\nEtag: \"x\"\r\nContent-length: 2\r\nconnection: close\r\n\r\nok";
    // What concerns one connection only may be anywhere, and does not come through; nor does what only we may say.
    let http2 = format!(
        "GET /a?b HTTP/1.1\r\nConnection: close, X-Hop, Pillion-Names\r\nX-Hop: 1\r\n{fields}Pillion-Names: Forged\r\n\
         pillion-error: forged\r\n\r\n"
    );
    assert_eq!(pair.exchange(&http2).await, answer);
    // An upgrade goes over HTTP/1 between the sidecars; the application need not take it.
    let http1 = format!("GET /a?b HTTP/1.1\r\nUpgrade: chat\r\n{fields}CONNECTION: close, Upgrade\r\n\r\n");
    assert_eq!(pair.exchange(&http1).await, answer);

    let heads = heads.lock().expect("nothing panics while holding it").clone();
    let expected = [
        format!("GET /a?b HTTP/1.1\r\n{fields}{CALLER}\r\n"),
        format!("GET /a?b HTTP/1.1\r\nUpgrade: chat\r\n{fields}CONNECTION: upgrade\r\n{CALLER}\r\n"),
    ];
    assert_eq!(heads, expected);
}

#[tokio::test]
async fn many_requests_on_one_connection_keep_their_own_names() {
    let (app, heads) = old().await;
    let pair = Pair::around(app.address, "http").await;
    let names = ["X-One", "x-one", "X-ONE", "X-Two", "X-One"];
    let requests: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let last = if index + 1 == names.len() { "Connection: close\r\n" } else { "" };
            format!("GET / HTTP/1.1\r\n{name}: 1\r\nHost: app.demo.mesh\r\n{last}\r\n")
        })
        .collect();
    let answer = raw::exchange(pair.caller.outbound(), &requests.concat()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\nX-zulu: 1\r\n").count(), names.len(), "{answer}");
    let expected =
        names.map(|name| format!("GET / HTTP/1.1\r\n{name}: 1\r\nHost: app.demo.mesh\r\n{CALLER}\r\n"));
    assert_eq!(*heads.lock().expect("nothing panics while holding it"), expected);
}
