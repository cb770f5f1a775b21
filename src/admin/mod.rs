//! The operators' port: is it alive, is it ready, what does it count, what does it know; and, from this host
//! only, to shut down. All else reads.

use std::{
    cell::RefCell,
    convert::Infallible,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pillion_api::model::Probe;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::AppPort,
    control::health,
    drain::{Drain, Phase},
    net::listen,
    telemetry::{gather::Gathered, openmetrics, prometheus::Registry},
};

/// Operators' connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// For the application to take a connection.
const ACCEPTS: Duration = Duration::from_secs(1);
/// For a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the operators' port shows.
#[derive(Debug)]
pub struct Admin {
    /// The counts.
    pub registry: Arc<Registry>,
    /// Endpoints as the workers see them.
    pub gathered: Rc<RefCell<Gathered>>,
    /// A shutdown makes it unready.
    pub drain: Drain,
    /// Why it is not ready although it runs, in words; `None`: it is.
    pub unready: watch::Receiver<Option<String>>,
    /// The settings in force, as YAML without secrets.
    pub config: String,
    /// What the application serves.
    pub ports: Vec<AppPort>,
    /// Asks for a fresh round of reports before something is shown.
    pub refresh: mpsc::Sender<oneshot::Sender<()>>,
    /// Asks for a shutdown.
    pub shut_down: watch::Sender<bool>,
}

impl Admin {
    /// Serves for ever.
    pub async fn serve(self: Rc<Self>, listener: StdListener) -> std::io::Result<()> {
        let handle = move |stream, peer: SocketAddr, open| {
            let admin = self.clone();
            async move {
                let _open = open;
                let service = service_fn(move |request: Request<Incoming>| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.answer(&request, peer.ip()).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    // One request a connection: a kept one would end by the timeout just as a scrape begins on it.
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "admin connection");
                }
            }
        };
        listen::accept(listener, listen::Open::default(), MAX_CONNECTIONS, std::future::pending(), handle)
            .await
    }

    async fn answer(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let (method, path) = (request.method(), request.uri().path());
        if path == "/drain" {
            return self.drain(request, peer);
        }
        if ![Method::GET, Method::HEAD].contains(method) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match path {
            "/live" => text(StatusCode::OK, "live\n"),
            "/ready" => match self.drain.phase() {
                Phase::Running => match self.unready.borrow().as_deref() {
                    None => text(StatusCode::OK, "ready\n"),
                    Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
                },
                Phase::Leaving | Phase::Closing => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
            },
            "/metrics" => {
                self.refresh().await;
                let (shown, format) = if openmetrics::is_asked_for(request.headers()) {
                    (self.registry.render_openmetrics(), openmetrics::CONTENT_TYPE)
                } else {
                    (self.registry.render(), "text/plain; version=0.0.4; charset=utf-8")
                };
                let mut response = text(StatusCode::OK, shown);
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format));
                response
            }
            "/config" => text(StatusCode::OK, self.config.clone()),
            "/endpoints" => {
                self.refresh().await;
                let gathered = self.gathered.borrow();
                let endpoints: Vec<_> = gathered.endpoints().map(EndpointView::from).collect();
                let json = serde_json::to_string_pretty(&endpoints).expect("texts and numbers make JSON");
                let mut response = text(StatusCode::OK, json + "\n");
                let format = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, format);
                response
            }
            _ => match path.strip_prefix("/accepts/").and_then(|port| port.parse().ok()) {
                Some(port) => self.accepts(port).await,
                None => text(
                    StatusCode::NOT_FOUND,
                    "pillion-proxy's operators' port: /live /ready /metrics /config /endpoints /accepts/PORT /drain\n",
                ),
            },
        }
    }

    /// Whether the application takes connections on a port: for probes that would try themselves, and be answered by the
    /// sidecar that the connection is redirected to.
    async fn accepts(&self, port: u16) -> Response<Full<Bytes>> {
        let Some(served) = self.ports.iter().find(|served| served.port == port) else {
            return text(StatusCode::NOT_FOUND, format!("{port} is no port of the application\n"));
        };
        match health::probe::ask(served.address, &Probe::Tcp, ACCEPTS).await {
            Ok(()) => text(StatusCode::OK, "it takes connections\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    /// Shuts down as SIGTERM does: for whoever has no right to send signals, such as a job's container that is done.
    fn drain(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        }
        // A page in a browser on this host can make it POST anywhere, but says so.
        if !peer.to_canonical().is_loopback() || request.headers().contains_key(header::ORIGIN) {
            return text(StatusCode::FORBIDDEN, "only programs on this host may shut it down\n");
        }
        self.shut_down.send_replace(true);
        text(StatusCode::ACCEPTED, "shutting down\n")
    }

    async fn refresh(&self) {
        let (done, refreshed) = oneshot::channel();
        if self.refresh.send(done).await.is_ok() {
            // Without an answer, what is known is shown.
            let _ = refreshed.await;
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// One endpoint, for `/endpoints`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView<'a> {
    service: &'a str,
    workload: &'a str,
    uid: &'a str,
    address: std::net::SocketAddr,
    ready: bool,
    breaker: &'static str,
    opened: u64,
    opened_reason: &'a str,
    open_ms: u32,
    in_flight: u32,
    latency_ms: f64,
    zone: &'a str,
    weight: u32,
    share: f32,
}

impl<'a> From<&'a crate::telemetry::report::EndpointStatus> for EndpointView<'a> {
    fn from(status: &'a crate::telemetry::report::EndpointStatus) -> Self {
        Self {
            service: &status.service,
            workload: &status.workload,
            uid: &status.uid,
            address: status.address,
            ready: status.ready,
            breaker: status.breaker.as_str(),
            opened: status.opened,
            opened_reason: &status.opened_reason,
            open_ms: status.open_ms,
            in_flight: status.in_flight,
            latency_ms: f64::from(status.latency_us) / 1000.0,
            zone: &status.zone,
            weight: status.weight,
            share: status.share,
        }
    }
}
