//! Both sides of a connection against peers that are written byte for byte.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::names;
use crate::{
    drain,
    error::{Hop, Reason, Refusal},
    http::{Body, InterimSink, body::BodyError, refusal::Voice, serve::Handler},
    telemetry::hops::Timeline,
};

mod client;
mod pool;
mod refused;
mod server;
mod whole;

/// Of a request whose times do not matter.
fn timeline() -> Timeline {
    Timeline::new(tokio::time::Instant::now())
}

/// Answers with what it was asked, and remembers it.
struct Mirror {
    voice: Voice,
    seen: RefCell<Vec<String>>,
    malformed: RefCell<Vec<Reason>>,
    /// What is answered instead, where a test has something to say.
    answer: Script,
    interim: Option<StatusCode>,
    /// Whether the body is taken before the answer.
    reads: bool,
}

type Script = Box<dyn Fn(&Request<()>) -> Option<Response<Answer>>>;
type Answer = UnsyncBoxBody<Bytes, BodyError>;

impl crate::http::body::Progress for Answer {}

impl Mirror {
    fn new() -> Self {
        Self {
            voice: Voice { hop: Hop::Outbound, workload: "web-1".into() },
            seen: RefCell::default(),
            malformed: RefCell::default(),
            answer: Box::new(|_| None),
            interim: None,
            reads: true,
        }
    }

    fn answering(answer: impl Fn(&Request<()>) -> Response<Answer> + 'static) -> Self {
        Self { answer: Box::new(move |request| Some(answer(request))), ..Self::new() }
    }
}

impl Handler for Mirror {
    type Body = Answer;

    async fn handle(&self, request: Request<Body>, interim: &dyn InterimSink) -> Response<Answer> {
        if let Some(status) = self.interim {
            let mut response = Response::new(());
            *response.status_mut() = status;
            response.headers_mut().insert("link", "</a.css>".parse().expect("a value"));
            interim.interim(response);
        }
        let (head, body) = request.into_parts();
        let seen = self.seen.borrow().len();
        self.seen.borrow_mut().push(format!("{} {} {:?}\n", head.method, head.uri, head.version));
        self.seen.borrow_mut()[seen] += &shown(&head.headers);
        let text = if self.reads { content(body).await } else { String::new() };
        self.seen.borrow_mut()[seen] += &text;
        let head = Request::from_parts(head, ());
        (self.answer)(&head).unwrap_or_else(|| Response::new(full(&self.seen.borrow()[seen])))
    }

    fn voice(&self) -> &Voice {
        &self.voice
    }

    fn malformed(&self, reason: Reason) {
        self.malformed.borrow_mut().push(reason);
    }
}

/// Fields as they were written.
fn shown(headers: &HeaderMap) -> String {
    let mut text = String::new();
    names::as_written(headers, |name, _, value| {
        text +=
            &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value.as_bytes()));
    });
    text
}

/// A body as text, with its trailers, or with how it failed.
async fn content(mut body: Body) -> String {
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => text += &String::from_utf8_lossy(&data),
            Ok(Err(frame)) => text += &format!("\n{:?}", frame.trailers_ref()),
            Err(error) => text += &format!("\nfailed: {error}"),
        }
    }
    text
}

/// Lets a peer send these pieces, one after the other has been taken notice of, and end; gives all that it is sent.
async fn talk(mut peer: DuplexStream, pieces: &[&[u8]]) -> String {
    for piece in pieces {
        // Who refuses need not read to the end.
        let _ = peer.write_all(piece).await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    let _ = peer.shutdown().await;
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Serves a caller that sends these pieces. Gives what it was answered, and how serving ended.
async fn serve(handler: &Rc<Mirror>, pieces: &[&[u8]]) -> (String, Result<(), Refusal>) {
    let (peer, io) = tokio::io::duplex(256 * 1024);
    let (_trigger, drain) = drain::channel();
    let (answer, ended) = tokio::join!(talk(peer, pieces), super::server::serve(io, handler.clone(), drain));
    (answer, ended)
}

/// A body of known length.
fn full(text: &str) -> Answer {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

/// A body of a length that is not known before its end: these pieces, then perhaps a trailer.
fn pieces(pieces: &[&str], trailer: Option<(&'static str, &'static str)>) -> Answer {
    let mut frames: Vec<Result<Frame<Bytes>, BodyError>> =
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece.as_bytes())))).collect();
    frames.extend(trailer.map(|(name, value)| {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, value.parse().expect("a value"));
        Ok(Frame::trailers(trailers))
    }));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// Runs to its end what needs no other thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let within = std::time::Duration::from_secs(3600);
    runtime.block_on(async { tokio::time::timeout(within, future).await }).expect("somebody waits for ever")
}
