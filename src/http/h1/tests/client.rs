//! The calling side.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{block_on, content, shown, talk, timeline};
use crate::{
    error::Reason,
    http::{
        Body, InterimSink, NoInterim,
        h1::client::{Failed, Home, Http1},
        upgrade,
    },
};

/// Counts what comes home.
#[derive(Default)]
struct Shelf(Cell<usize>);

impl Home for Shelf {
    fn take_back(&self, _: Box<Http1>) {
        self.0.set(self.0.get() + 1);
    }
}

fn home(shelf: &Rc<Shelf>) -> Weak<dyn Home> {
    Rc::downgrade(shelf) as Weak<dyn Home>
}

fn request(method: Method) -> Request<Body> {
    Request::builder().method(method).uri("/a?b").header("host", "a").body(Body::Empty).expect("valid")
}

/// Sends a request to a callee that says these pieces, whatever it is sent. Gives the response as text, and whether the
/// connection could be used again.
fn call(method: Method, pieces: &[&[u8]]) -> (Result<String, Failed>, bool) {
    block_on(async {
        let (peer, io) = tokio::io::duplex(256 * 1024);
        let shelf = Rc::<Shelf>::default();
        let called = async {
            let response =
                Http1::new(io).send(request(method), &NoInterim, home(&shelf), &timeline()).await?;
            let (head, body) = response.into_parts();
            let text = format!("{}\n{}", head.status.as_u16(), shown(&head.headers));
            Ok(text + &content(body).await)
        };
        let (result, _) = tokio::join!(called, talk(peer, pieces));
        let kept = shelf.0.get() == 1;
        (result, kept)
    })
}

#[test]
fn responses_that_are_taken() {
    for (method, response, expected, kept) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi",
            "200\nX-A: 1\nContent-Length: 2\nhi",
            true,
        ),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200\nContent-Length: 0\n", true),
        (
            "GET",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
            "200\nContent-Length: 2\nhi",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            "200\nContent-Length: 2\nConnection: close\nhi",
            false,
        ),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200\nContent-Length: 2\nhi", false),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "200\nuntil the end", false),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204\n", true),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304\nContent-Length: 5\n", true),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200\nContent-Length: 5\n", true),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "200\nTransfer-Encoding: chunked\n",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "200\nTransfer-Encoding: Chunked\nhi",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "200\nContent-Length: 0\n",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi, and more",
            "200\nContent-Length: 2\nhi",
            false,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nstray", "204\n", false),
    ] {
        let method: Method = method.parse().expect("a method");
        let (result, reusable) = call(method, &[response.as_bytes()]);
        assert_eq!((&*result.expect("taken"), reusable), (expected, kept), "{response}");
    }
}

#[test]
fn responses_that_are_refused() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "nonsense",
        &large,
    ] {
        let (result, kept) = call(Method::GET, &[response.as_bytes()]);
        let failure = result.expect_err("refused");
        assert_eq!(failure.refusal.reason, Reason::PeerProtocol, "{}", &response[..response.len().min(80)]);
        assert!(failure.request.is_none() && !kept);
    }
    for response in ["", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let failure = call(Method::GET, &[response.as_bytes()]).0.expect_err("incomplete");
        assert_eq!(failure.refusal.reason, Reason::Reset, "{response}");
        assert_eq!(failure.request.is_some(), response.is_empty(), "{response}");
    }
}

#[test]
fn bodies_that_fail_are_not_taken_for_whole() {
    for body in [
        "Content-Length: 3\r\n\r\nhi",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx\r\n\r\n",
    ] {
        let (result, kept) = call(Method::GET, &[format!("HTTP/1.1 200 OK\r\n{body}").as_bytes()]);
        let text = result.expect("the head is taken");
        assert!(text.contains("hi\nfailed: ") && !kept, "{body}: {text}");
    }
}

#[test]
fn what_is_sent() {
    let sent = |request: Request<Body>| {
        block_on(async {
            let (mut peer, io) = tokio::io::duplex(1 << 20);
            let (answered, mut seen) = (b"HTTP/1.1 204 No Content\r\n\r\n", vec![0; 1 << 20]);
            let shelf = Rc::<Shelf>::default();
            let script = async {
                // All of it comes with one write.
                let length = peer.read(&mut seen).await.expect("a request");
                peer.write_all(answered).await.expect("room");
                String::from_utf8_lossy(&seen[..length]).into_owned()
            };
            let timeline = timeline();
            let (response, text) =
                tokio::join!(Http1::new(io).send(request, &NoInterim, home(&shelf), &timeline), script);
            response.expect("an answer");
            text
        })
    };
    assert_eq!(sent(request(Method::GET)), "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = || Request::post("/").header("host", "a").header("content-length", "2");
    let body = || Body::Full(Bytes::from_static(b"hi"));
    let names = head().header("pillion-names", "HOST,Content-Length").body(body()).expect("valid");
    assert_eq!(sent(names), "POST / HTTP/1.1\r\nHOST: a\r\nContent-Length: 2\r\n\r\nhi");
    let chunked = Request::post("/").header("host", "a").body(body()).expect("valid");
    let expected = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert_eq!(sent(chunked), expected);
    let large = Request::post("/").body(Body::Full(vec![b'x'; 100_000].into())).expect("valid");
    assert!(sent(large).ends_with("x\r\n0\r\n\r\n"));
}

#[test]
fn a_connection_that_the_peer_ends_while_it_is_idle_is_not_used() {
    block_on(async {
        for stray in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let (mut peer, io) = tokio::io::duplex(1024);
            let mut connection = Http1::new(io);
            assert!(connection.is_usable());
            peer.write_all(stray).await.expect("room");
            drop(peer);
            assert!(!connection.is_usable());
        }
    });
}

#[test]
fn what_was_not_sent_comes_back() {
    block_on(async {
        for body in [Body::Empty, Body::Full(Bytes::from_static(b"hi"))] {
            let has_body = !http_body::Body::is_end_stream(&body);
            let (peer, io) = tokio::io::duplex(1024);
            drop(peer);
            let sent = Http1::new(io)
                .send(request(Method::PUT).map(|_| body), &NoInterim, home(&Rc::default()), &timeline())
                .await;
            let failure = sent.expect_err("nobody is there");
            assert_eq!(failure.refusal.reason, Reason::NotProcessed);
            // What a body has given once it does not give again.
            assert_eq!(failure.request.is_some(), !has_body);
            if let Some(unsent) = failure.request {
                assert_eq!((unsent.method(), unsent.uri().path()), (&Method::PUT, "/a"));
            }
        }
    });
}

#[derive(Default)]
struct Heard(RefCell<Vec<StatusCode>>);

impl InterimSink for Heard {
    fn interim(&self, response: Response<()>) {
        assert_eq!(response.headers()["a"], "b");
        self.0.borrow_mut().push(response.status());
    }
}

#[test]
fn interim_responses_are_heard() {
    block_on(async {
        let (peer, io) = tokio::io::duplex(1024);
        let heard = Heard::default();
        let script = talk(
            peer,
            &[
                b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 100 Continue\r\na: b\r\n\r\n",
                b"HTTP/1.1 204 X\r\n\r\n",
            ],
        );
        let shelf = Rc::<Shelf>::default();
        let timeline = timeline();
        let (response, _) =
            tokio::join!(Http1::new(io).send(request(Method::GET), &heard, home(&shelf), &timeline), script);
        response.expect("an answer");
        assert_eq!(*heard.0.borrow(), [StatusCode::EARLY_HINTS, StatusCode::CONTINUE]);
    });
}

#[test]
fn an_upgraded_connection_comes_with_what_was_read_of_it() {
    block_on(tokio::task::LocalSet::new().run_until(async {
        let (mut callee, io) = tokio::io::duplex(1024);
        callee.write_all(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\nearly ").await.expect("room");
        let shelf = Rc::<Shelf>::default();
        let sent = Http1::new(io).send(request(Method::GET), &NoInterim, home(&shelf), &timeline()).await;
        let mut response = sent.expect("an answer");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let (mut caller, theirs) = tokio::io::duplex(1024);
        let mut asked = Request::new(Body::Empty);
        upgrade::promise(asked.extensions_mut()).keep(Box::new(theirs), Bytes::from_static(b"first "));
        upgrade::Pending::of(&mut asked).join(&mut response, (), |(), _| {});
        callee.write_all(b"late").await.expect("room");
        caller.write_all(b"then").await.expect("room");
        callee.shutdown().await.expect("open");
        caller.shutdown().await.expect("open");
        let (mut to_caller, mut to_callee) = (String::new(), String::new());
        caller.read_to_string(&mut to_caller).await.expect("it ends");
        callee.read_to_string(&mut to_callee).await.expect("it ends");
        assert_eq!(to_caller, "early late");
        assert!(to_callee.ends_with("\r\n\r\nfirst then"), "{to_callee}");
        assert_eq!(shelf.0.get(), 0);
    }));
}

proptest! {
    #[test]
    fn any_split_reads_the_same(
        which in 0_usize..6,
        spoil in proptest::option::of((0_usize..400, any::<u8>())),
        cuts in proptest::collection::vec(0_usize..400, 0..6),
    ) {
        let mut bytes = [
            "HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 10\r\n\r\n0123456789",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx: y\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it",
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
            "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        ][which].as_bytes().to_vec();
        if let Some((at, byte)) = spoil {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let outcome = |pieces: &[&[u8]]| {
            let (result, _) = call(Method::GET, pieces);
            result.map_err(|failure| failure.refusal.reason)
        };
        prop_assert_eq!(outcome(&super::whole::cut(&bytes, cuts)), outcome(&[&bytes]));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = call(Method::GET, &[&bytes]);
        let _ = call(Method::GET, &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes]);
    }
}
