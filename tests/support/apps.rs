//! Applications to put behind sidecars.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A listener on a free port of loopback.
pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// An address of loopback where nobody accepts, for as long as the socket is held.
pub(crate) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback has free ports");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// A server of one kind of connection, ended when dropped.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl App {
    /// Gives every connection to `serve`.
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(listener().await.0, serve)
    }

    /// The same, on a listener that there is already.
    pub(crate) fn on<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicU64::new(0));
        let accepted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(stream));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { address, connections, task }
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Sends every byte back.
    pub(crate) async fn tcp_echo() -> Self {
        Self::start(|mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    /// Speaks HTTP/2 and takes so many streams at a time on a connection. `/stream` begins an answer that has no end; any
    /// other path gets a short one.
    pub(crate) async fn http2_with_few_streams(at_a_time: u32) -> Self {
        Self::start(move |stream| async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                let word =
                    futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("word")))]);
                let body = match request.uri().path() {
                    "/stream" => {
                        BodyExt::boxed_unsync(StreamBody::new(word.chain(futures_util::stream::pending())))
                    }
                    _ => BodyExt::boxed_unsync(StreamBody::new(word)),
                };
                Ok::<_, Infallible>(Response::new(body))
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(at_a_time);
            // How a connection ends is for the test to see at its own end.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        })
        .await
    }

    /// Reads one HTTP/1 request head, then writes `answer` as it stands and closes.
    pub(crate) async fn scripted(answer: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        })
        .await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which HTTP an application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// An HTTP application that a test can look into and spoil.
pub(crate) struct HttpApp {
    app: App,
    state: Arc<HttpState>,
}

/// What an [`HttpApp`] counts and obeys.
struct HttpState {
    name: String,
    requests: AtomicU64,
    produced: AtomicU64,
    failing: AtomicBool,
    unhealthy: AtomicBool,
    late_ms: AtomicU64,
}

impl HttpApp {
    pub(crate) async fn start(name: &str, version: Version) -> Self {
        Self::on(listener().await.0, name, version)
    }

    /// The same, on a listener that there is already.
    pub(crate) fn on(listener: TcpListener, name: &str, version: Version) -> Self {
        let state = Arc::new(HttpState {
            name: name.into(),
            requests: AtomicU64::new(0),
            produced: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            unhealthy: AtomicBool::new(false),
            late_ms: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        let app = App::on(listener, move |stream| {
            let state = Arc::clone(&shared);
            async move {
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let stream = TokioIo::new(stream);
                // How a connection ends is for the test to see at its own end.
                let _ = match version {
                    Version::Http1 => {
                        let mut builder = hyper::server::conn::http1::Builder::new();
                        // An application may take a header section as large as the sidecar lets through.
                        builder.timer(TokioTimer::new()).max_buf_size(1024 * 1024);
                        builder.serve_connection(stream, service).await
                    }
                    Version::Http2 => {
                        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        // Callers share connections to an application: it should not end one because some of them have
                        // given up at once, as it does by default after 20.
                        builder.max_pending_accept_reset_streams(2048);
                        builder.serve_connection(stream, service).await
                    }
                };
            }
        });
        Self { app, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// What it answers to `/who`.
    pub(crate) fn name(&self) -> &str {
        &self.state.name
    }

    /// Requests that reached it, health checks not counted.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Bytes that `/bytes/<n>` was asked for by the connection, frame by frame.
    pub(crate) fn produced(&self) -> u64 {
        self.state.produced.load(Ordering::Relaxed)
    }

    /// How long it takes for every answer.
    pub(crate) fn set_late(&self, late: Duration) {
        let late = u64::try_from(late.as_millis()).expect("a delay for a test");
        self.state.late_ms.store(late, Ordering::Relaxed);
    }

    /// Whether every answer is a 500.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.state.failing.store(failing, Ordering::Relaxed);
    }

    /// Whether `/healthz` says so.
    pub(crate) fn set_unhealthy(&self, unhealthy: bool) {
        self.state.unhealthy.store(unhealthy, Ordering::Relaxed);
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

async fn answer(state: Arc<HttpState>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/healthz" {
        let healthy = !state.unhealthy.load(Ordering::Relaxed);
        return Ok(plain(if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, ""));
    }
    state.requests.fetch_add(1, Ordering::Relaxed);
    let late = state.late_ms.load(Ordering::Relaxed);
    if late > 0 {
        tokio::time::sleep(Duration::from_millis(late)).await;
    }
    if state.failing.load(Ordering::Relaxed) {
        return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "failing on purpose"));
    }
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
    Ok(if path == "/who" {
        plain(StatusCode::OK, &state.name)
    } else if path == "/echo" {
        // As it comes in, trailers and all.
        let announced = request.headers().get("content-length").cloned();
        let mut response = Response::new(request.into_body().boxed_unsync());
        if let Some(length) = announced {
            response.headers_mut().insert("content-length", length);
        }
        response
    } else if path == "/head" {
        plain(StatusCode::OK, &shown(&request))
    } else if path == "/trailers" {
        with_trailers(&state.name)
    } else if let Some(code) = number("/status/") {
        let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        plain(status.unwrap_or(StatusCode::BAD_REQUEST), if matches!(code, 204 | 304) { "" } else { "body" })
    } else if let Some(milliseconds) = number("/after-ms/") {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        plain(StatusCode::OK, &state.name)
    } else if let Some(length) = number("/bytes/") {
        bytes(length, state)
    } else if path == "/sum" {
        sum(request.into_body()).await
    } else {
        plain(StatusCode::OK, &state.name)
    })
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

/// The request's head, one header a line, as it arrived.
fn shown(request: &Request<Incoming>) -> String {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

fn with_trailers(name: &str) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc123"));
    let frames = [Frame::data(Bytes::copy_from_slice(name.as_bytes())), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum"));
    response
}

/// So many bytes, made as they are asked for.
fn bytes(length: u64, state: Arc<HttpState>) -> Answer {
    const CHUNK: u64 = 64 * 1024;
    let chunk = Bytes::from(vec![b'p'; CHUNK as usize]);
    let frames = futures_util::stream::unfold(length, move |left| {
        let (chunk, state) = (chunk.clone(), Arc::clone(&state));
        async move {
            let now = left.min(CHUNK);
            state.produced.fetch_add(now, Ordering::Relaxed);
            (now > 0).then(|| (Ok(Frame::data(chunk.slice(..now as usize))), left - now))
        }
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// Reads the whole body and says how long it was.
async fn sum(body: impl Body<Data = Bytes, Error = hyper::Error> + Unpin) -> Answer {
    let mut data = body.into_data_stream();
    let mut total = 0;
    while let Some(chunk) = data.next().await {
        match chunk {
            Ok(chunk) => total += chunk.len(),
            Err(error) => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
    plain(StatusCode::OK, &total.to_string())
}
