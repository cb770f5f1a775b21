//! The answering side.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::{Mirror, block_on, full, pieces, serve};
use crate::{
    drain::{self, Phase},
    http::{Body, InterimSink, refusal::Voice, serve::Handler, upgrade},
};

fn answers(handler: Mirror, request: &str) -> String {
    let (answer, ended) = block_on(serve(&Rc::new(handler), &[request.as_bytes()]));
    ended.expect("nothing is wrong");
    answer
}

#[test]
fn a_request_is_handed_on_as_it_was_written() {
    let request = "POST /a?b=c HTTP/1.1\r\nHOST: web\r\nX-b: 1\r\nx-A:  2 \r\nX-B: 3\r\nContent-Length: 5\r\n\
                   pillion-names: Forged\r\n\r\nhello";
    let handler = Rc::new(Mirror::new());
    let (_, ended) = block_on(serve(&handler, &[request.as_bytes()]));
    ended.expect("nothing is wrong");
    let seen = &handler.seen.borrow()[0];
    let expected = "POST /a?b=c HTTP/1.1\nHOST: web\nX-b: 1\nx-A: 2\nX-B: 3\nContent-Length: 5\nhello";
    assert_eq!(seen, expected);
}

#[test]
fn an_answer_is_written_as_its_names_say() {
    let handler = Mirror::answering(|_| {
        let response = Response::builder().header("content-type", "text/plain").header("x-new", "1");
        response
            .header("pillion-names", "X-Gone,Content-Type,Content-Length")
            .body(full("hi"))
            .expect("valid")
    });
    let answer = answers(handler, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nx-new: 1\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(answer, expected);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let handler = Mirror::answering(|request| Response::new(full(request.uri().path())));
    let request = "\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                   POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\r\n\r\n\
                   GET /4 HTTP/1.1\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\n\r\n";
    let answer = answers(handler, request);
    let bodies: Vec<&str> = answer
        .split("HTTP/1.1 200 OK\r\n")
        .skip(1)
        .map(|part| part.rsplit("\r\n\r\n").next().unwrap())
        .collect();
    assert_eq!(bodies, ["/1", "/2", "/3", "/4"], "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
}

#[test]
fn who_keeps_a_connection() {
    for (request, kept, said) in [
        ("GET / HTTP/1.1\r\n\r\n", true, ""),
        ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false, "connection: close\r\n"),
        ("GET / HTTP/1.0\r\n\r\n", false, "connection: close\r\n"),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true, "connection: keep-alive\r\n"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false, "connection: close\r\n"),
    ] {
        let handler = Mirror::answering(|_| Response::new(full("x")));
        let answer = answers(handler, &request.repeat(2));
        assert_eq!(
            answer.matches("HTTP/1.1 200 OK").count(),
            if kept { 2 } else { 1 },
            "{request}: {answer}"
        );
        let expected = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n{said}\r\nx");
        assert!(answer.starts_with(&expected), "{request}: {answer}");
    }
}

#[test]
fn where_bodies_end() {
    let answer = |request: &str, response: fn() -> Response<super::Answer>| {
        answers(Mirror::answering(move |_| response()), request)
    };
    let unknown = || Response::new(pieces(&["one", "", "two"], Some(("x-sum", "1"))));
    let get = "GET / HTTP/1.1\r\n\r\n";
    assert_eq!(
        answer(get, unknown),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        "trailers only for those who take them"
    );
    let takes = "GET / HTTP/1.1\r\nTE: gzip, trailers\r\n\r\n";
    assert!(answer(takes, unknown).ends_with("two\r\n0\r\nx-sum: 1\r\n\r\n"));
    let framing = || Response::new(pieces(&["one"], Some(("content-length", "1"))));
    assert!(answer(takes, framing).ends_with("one\r\n0\r\n\r\n"), "no framing in trailers");
    assert_eq!(
        answer("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", unknown),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo",
        "HTTP/1.0 knows no chunks"
    );
    assert_eq!(
        answer(get, || Response::builder()
            .status(204)
            .header("content-length", "0")
            .body(full(""))
            .expect("valid")),
        "HTTP/1.1 204 No Content\r\n\r\n"
    );
    assert_eq!(
        answer(get, || Response::builder()
            .status(304)
            .header("content-length", "7")
            .body(full(""))
            .expect("valid")),
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"
    );
    assert_eq!(
        answer("HEAD / HTTP/1.1\r\n\r\n", || Response::builder()
            .header("content-length", "7")
            .body(full(""))
            .expect("valid")),
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
    );
    assert_eq!(answer(get, || Response::new(full(""))), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_ends_the_connection() {
    for (declared, body) in [("2", "abc"), ("4", "abc")] {
        let handler = Mirror::answering(move |_| {
            Response::builder().header("content-length", declared).body(full(body)).expect("valid")
        });
        let answer = answers(handler, &"GET / HTTP/1.1\r\n\r\n".repeat(2));
        assert!(answer.matches("HTTP/1.1 ").count() <= 1 && !answer.ends_with(body), "{declared}: {answer}");
    }
}

#[test]
fn a_body_that_nobody_reads_is_read_over_up_to_a_bound() {
    let post = |length: usize, coding: bool| {
        let body = "x".repeat(length);
        if coding {
            format!("POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
        } else {
            format!("POST /1 HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}")
        }
    };
    for (length, coding, kept) in
        [(10_000, false, true), (10_000, true, true), (200_000, false, false), (200_000, true, false)]
    {
        let handler =
            Mirror { reads: false, ..Mirror::answering(|request| Response::new(full(request.uri().path()))) };
        let answer = answers(handler, &(post(length, coding) + "GET /2 HTTP/1.1\r\n\r\n"));
        assert!(answer.contains("\r\n\r\n/1"), "{answer}");
        assert_eq!(answer.ends_with("/2"), kept, "{length} {coding}: {answer}");
        // What is known beforehand is said beforehand.
        assert_eq!(answer.contains("connection: close"), !kept && !coding, "{length} {coding}: {answer}");
    }
}

#[test]
fn a_caller_that_waits_is_told_to_go_on_by_the_application_alone() {
    let request: [&[u8]; 2] =
        [b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", b"hi"];
    for (interim, expected) in [
        (Some(StatusCode::CONTINUE), "HTTP/1.1 100 Continue\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        // It need not wait for ever.
        (None, "HTTP/1.1 200 OK\r\n"),
    ] {
        let handler = Rc::new(Mirror { interim, ..Mirror::answering(|_| Response::new(full("x"))) });
        let (answer, _) = block_on(serve(&handler, &request));
        assert!(answer.starts_with(expected) && !answer.contains("connection: close"), "{answer}");
        assert!(handler.seen.borrow()[0].contains("Expect: 100-continue\n"), "only the application can tell");
        assert!(handler.seen.borrow()[0].ends_with("\nhi"));
    }

    let unread = Rc::new(Mirror { reads: false, ..Mirror::answering(|_| Response::new(full("x"))) });
    let (answer, _) = block_on(serve(&unread, &request[..1]));
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";
    assert_eq!(answer, expected, "nobody could tell the body from the next request");
}

#[test]
fn interim_answers_go_first_and_not_to_http10() {
    for (version, expected) in [("1.1", "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"), ("1.0", "")] {
        let handler = Mirror {
            interim: Some(StatusCode::EARLY_HINTS),
            ..Mirror::answering(|_| Response::new(full("x")))
        };
        let answer = answers(handler, &format!("GET / HTTP/{version}\r\n\r\n"));
        assert!(answer.starts_with(&(expected.to_owned() + "HTTP/1.1 200 OK")), "{answer}");
    }
}

/// Never answers; tells when it has been given up.
struct Silent(Voice, Rc<std::cell::Cell<bool>>);

struct GivenUp(Rc<std::cell::Cell<bool>>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl Handler for Silent {
    type Body = Body;

    async fn handle(&self, _: Request<Body>, _: &dyn InterimSink) -> Response<Body> {
        let _given_up = GivenUp(self.1.clone());
        std::future::pending().await
    }

    fn voice(&self) -> &Voice {
        &self.0
    }

    fn malformed(&self, _: crate::error::Reason) {}
}

#[test]
fn a_caller_that_goes_away_ends_what_is_done_for_it() {
    block_on(async {
        let given_up = Rc::<std::cell::Cell<bool>>::default();
        let handler = Rc::new(Silent(Mirror::new().voice, given_up.clone()));
        let (mut peer, io) = tokio::io::duplex(1024);
        let (_trigger, drain) = drain::channel();
        let goes = async {
            peer.write_all(b"GET / HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n").await.expect("room");
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!given_up.get(), "more that it says is no reason");
            drop(peer);
        };
        let ((), ended) = tokio::join!(goes, super::super::server::serve(io, handler, drain));
        ended.expect("that is normal");
        assert!(given_up.get());
    });
}

#[test]
fn a_drain_ends_idle_connections_at_once_and_others_after_their_answer() {
    block_on(async {
        let (trigger, drain) = drain::channel();
        let (mut idle, io) = tokio::io::duplex(1024);
        let handler = Rc::new(Mirror::answering(|_| Response::new(full("x"))));
        let script = async {
            idle.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("room");
            tokio::time::sleep(Duration::from_secs(1)).await;
            trigger.advance(Phase::Closing);
            let mut all = String::new();
            idle.read_to_string(&mut all).await.expect("it ends");
            all
        };
        let serving = super::super::server::serve(io, handler.clone(), drain.clone());
        let (answer, ended) = tokio::join!(script, serving);
        ended.expect("that is normal");
        assert!(answer.ends_with("\r\n\r\nx") && !answer.contains("close"), "{answer}");

        let (mut late, io) = tokio::io::duplex(1024);
        late.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("room");
        let serving = super::super::server::serve(io, handler, drain);
        let mut answer = String::new();
        let (read, ended) = tokio::join!(late.read_to_string(&mut answer), serving);
        read.expect("it ends");
        ended.expect("that is normal");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    });
}

/// Turns every connection into an echo.
struct Echo(Voice);

impl Handler for Echo {
    type Body = Body;

    async fn handle(&self, mut request: Request<Body>, _: &dyn InterimSink) -> Response<Body> {
        let pending = upgrade::Pending::of(&mut request);
        tokio::task::spawn_local(async move {
            let mut io = pending.upgraded().await.expect("the answer is written");
            let mut all = Vec::new();
            io.read_to_end(&mut all).await.expect("it ends");
            io.write_all(&all).await.expect("it is open");
            io.shutdown().await.expect("it is open");
        });
        let mut response = Response::new(Body::Empty);
        if request.method() != Method::CONNECT {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", "echo".parse().expect("a value"));
            response.headers_mut().insert("connection", "upgrade".parse().expect("a value"));
        }
        response
    }

    fn voice(&self) -> &Voice {
        &self.0
    }

    fn malformed(&self, _: crate::error::Reason) {}
}

#[test]
fn an_upgrade_hands_over_all_that_comes_after_the_head() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
    for (request, head) in [
        ("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", switching),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let (peer, io) = tokio::io::duplex(1024);
        let (_trigger, drain) = drain::channel();
        let handler = Rc::new(Echo(Mirror::new().voice));
        let local = tokio::task::LocalSet::new();
        let first = format!("{request}early ");
        let pieces = [first.as_bytes(), b"late"];
        let both = async {
            tokio::join!(super::talk(peer, &pieces), super::super::server::serve(io, handler, drain)).0
        };
        let answer = block_on(local.run_until(both));
        assert_eq!(answer, format!("{head}early late"));
    }
}

/// Counts the writes to it.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl crate::net::io::Abort for Counted {
    fn abort(&mut self) {
        self.0.abort();
    }

    fn reset(&self) -> crate::net::io::Reset {
        self.0.reset()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Relaxed);
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[test]
fn head_and_body_go_with_one_write() {
    for length in [0, 100, 100_000] {
        for known in [true, false] {
            let (peer, io) = tokio::io::duplex(1 << 20);
            let writes = Arc::<AtomicUsize>::default();
            let (_trigger, drain) = drain::channel();
            let handler = Rc::new(Mirror::answering(move |_| {
                let body = "x".repeat(length);
                Response::new(if known { full(&body) } else { pieces(&[&body], None) })
            }));
            let io = Counted(io, writes.clone());
            let (answer, _) = block_on(async {
                tokio::join!(
                    super::talk(peer, &[b"GET / HTTP/1.1\r\n\r\n"]),
                    super::super::server::serve(io, handler, drain)
                )
            });
            assert!(answer.len() > length);
            // That a large piece is the last is known only once the next is asked for.
            let expected = if length == 100_000 && !known { 2 } else { 1 };
            assert_eq!(writes.load(Relaxed), expected, "{length} {known}");
        }
    }
}

#[test]
fn an_idle_connection_is_small() {
    let (_peer, io) = tokio::io::duplex(64);
    let (_trigger, drain) = drain::channel();
    let silent = Rc::new(Silent(Mirror::new().voice, Rc::default()));
    let (task, shared, kept) = (
        size_of_val(&super::super::server::serve(io, silent, drain)),
        size_of::<super::super::connection::Connection>(),
        size_of::<super::super::client::Http1>(),
    );
    assert!(task < 1536, "the server's task takes {task} bytes");
    assert!(shared < 512, "a caller's connection takes {shared} bytes");
    assert!(kept < 512, "a kept connection takes {kept} bytes");
}

#[test]
fn a_body_that_turns_out_to_be_none_after_its_answer_began_ends_the_connection() {
    let request = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\nGET / HTTP/1.1\r\n\r\n";
    // A piece too large for the pipe, so that the answer is still being written when the body is looked at.
    let handler =
        Rc::new(Mirror { reads: false, ..Mirror::answering(|_| Response::new(full(&"x".repeat(1 << 20)))) });
    let (answer, ended) = block_on(serve(&handler, &[request.as_bytes()]));
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.len() < 1 << 20, "{}", answer.len());
    assert_eq!(ended.expect_err("malformed").reason, crate::error::Reason::MalformedRequest);
    assert_eq!(*handler.malformed.borrow(), [crate::error::Reason::MalformedRequest]);
}
