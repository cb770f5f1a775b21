//! Applications close idle connections when they like, also just as a request is sent on one. What they have not begun to
//! process is sent once more on a fresh connection; what they may have processed is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::App;
use crate::support::pair::Pair;
use crate::support::{eventually, soon};

/// What an application does with its first connection once it has answered one request there.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It closes it at once, without having said so.
    Closes,
    /// It closes it when the next request comes, which it does not read: the caller's kernel hears a reset.
    ClosesUnread,
    /// It closes it when it has read the next request.
    ClosesRead,
}

/// An application, and how many requests it has read.
async fn impatient(then: Then, always: bool) -> (App, Arc<AtomicU64>) {
    let (requests, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let read = Arc::clone(&requests);
    let app = App::start(move |mut stream| {
        let read = Arc::clone(&read);
        let is_first = connections.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let mut answered = 0;
            while answered == 0 || !(is_first || always) {
                if !request(&mut stream).await {
                    return;
                }
                read.fetch_add(1, Ordering::Relaxed);
                answered += 1;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell").await.is_err() {
                    return;
                }
            }
            match then {
                Then::Closes => {}
                // One byte less than there is.
                Then::ClosesUnread => drop(stream.peek(&mut [0]).await),
                Then::ClosesRead => {
                    if request(&mut stream).await {
                        read.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    })
    .await;
    (app, requests)
}

/// Reads a request, whose body is none or "body".
async fn request(stream: &mut TcpStream) -> bool {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => return false,
        }
        if text.ends_with(b"\r\n\r\n") && !text.starts_with(b"POST") || text.ends_with(b"\r\n\r\nbody") {
            return true;
        }
    }
}

#[tokio::test]
async fn a_request_that_repeats_nothing_survives_any_way_of_closing() {
    for then in [Then::Closes, Then::ClosesUnread, Then::ClosesRead] {
        let (app, _) = impatient(then, false).await;
        let pair = Pair::around(app.address, "http").await;
        let client = pair.caller.client();
        for request in 1..=2 {
            let answer = client.get("http://app.demo.mesh/").send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{then:?}, request {request}: {answer:?}");
            assert_eq!(answer.text().await.expect("a whole answer"), "well");
        }
        assert_eq!(app.connections(), 2, "{then:?}");
    }
}

#[tokio::test]
async fn however_often_an_application_closes_without_a_word_nobody_notices() {
    const REQUESTS: u64 = 200;
    let (app, requests) = impatient(Then::Closes, true).await;
    let pair = Pair::around(app.address, "http").await;
    let client = pair.caller.client();
    for request in 1..=REQUESTS {
        let answer = client.get("http://app.demo.mesh/").send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "request {request}: {answer:?}");
        assert_eq!(answer.text().await.expect("a whole answer"), "well");
    }
    assert_eq!(requests.load(Ordering::Relaxed), REQUESTS);
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_repeated() {
    let (app, requests) = impatient(Then::ClosesRead, false).await;
    let pair = Pair::around(app.address, "http").await;
    let client = pair.caller.client();
    let post = || client.post("http://app.demo.mesh/").body("body").send();
    assert_eq!(post().await.expect("an answer").status(), 200);
    let failed = post().await.expect("an answer");
    assert_eq!(failed.status(), 502);
    let reason = failed.headers()["pillion-error"].to_str().expect("text");
    assert!(reason.starts_with("reset; hop=inbound"), "{reason}");
    assert_eq!(requests.load(Ordering::Relaxed), 2, "each was processed once");
    assert_eq!(post().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn what_an_application_that_ends_had_not_accepted_yet_may_go_elsewhere() {
    let application = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = application.local_addr().expect("it is bound");
    let pair = Pair::around(address, "http").await;
    let waiting = tokio::spawn(pair.caller.client().get("http://app.demo.mesh/").send());
    eventually("the request waits at the application", async || {
        (pair.in_flight().await == (1.0, 1.0)).then_some(())
    })
    .await;
    // Its kernel had taken the connection for it, and resets it now.
    drop(application);
    let answer = soon("an answer", waiting).await.expect("no panic").expect("an answer");
    let reason = answer.headers()["pillion-error"].to_str().expect("text");
    assert!(reason.starts_with("application-unreachable; hop=inbound"), "{reason}");
}
