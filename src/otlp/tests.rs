//! Batches on real sockets: to a receiver that wants some of them again, and to none. Over gRPC the mesh's own tests send them.

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::LocalSet,
    time::timeout,
};

use pillion_api::wire::telemetry_loss::Kind;

use super::{message::PartialSuccess, *};
use crate::telemetry::trace::{
    context::{SpanId, TraceId},
    queue::{Queue, queue},
    span::Span,
};

struct Started {
    target: watch::Sender<Option<Arc<Target>>>,
    queue: Queue,
    ending: watch::Sender<bool>,
    registry: Arc<Registry>,
    running: tokio::task::JoinHandle<()>,
}

fn target(address: SocketAddr) -> Option<Arc<Target>> {
    let tracing = Tracing {
        endpoint: format!("http://{address}").parse().expect("a receiver"),
        protocol: pillion_api::model::TraceProtocol::HttpProtobuf,
        compression: TraceCompression::None,
        sampling: Tracing::usual_sampling(),
    };
    let [service, namespace, instance] = ["web", "demo", "web-1"].map(Arc::from);
    let workload = Workload { service, namespace, instance };
    Some(Arc::new(Target { tracing, headers_file: None, workload }))
}

/// Sends to `address`; nothing leads back to `own`.
fn start(address: SocketAddr, own: &[SocketAddr]) -> Started {
    let (queue, waiting) = queue();
    let (target_sender, targets) = watch::channel(target(address));
    let (ending, ended) = watch::channel(false);
    let registry = Arc::new(Registry::new());
    let exporter = Exporter {
        target: targets,
        waiting,
        ending: ended,
        registry: registry.clone(),
        resolver: Resolver::system(),
        own: own.into(),
    };
    let running = tokio::task::spawn_local(exporter.run());
    Started { target: target_sender, queue, ending, registry, running }
}

impl Started {
    fn put(&self, count: u64) {
        for id in 1..=count {
            let id = SpanId::new(id).expect("not zero");
            self.queue.put(Span::new(TraceId::new(7).expect("not zero"), id));
        }
    }

    async fn end(self) -> String {
        self.ending.send_replace(true);
        timeout(PATIENCE, self.running).await.expect("it ends").expect("it does not panic");
        drop(self.target);
        self.registry.render()
    }
}

/// Answers requests with these, one after the other, and tells how many bytes came each time, and to what path.
async fn receiver(answers: Vec<String>) -> (SocketAddr, mpsc::Receiver<(String, usize)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, tells) = mpsc::channel(16);
    tokio::task::spawn_local(async move {
        let mut answers = answers.into_iter();
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
            read.extend_from_slice(&buffer[..length]);
            let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(read[..end].to_vec()).expect("a head").to_ascii_lowercase();
            let body = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body: usize = body.expect("a length").parse().expect("a number");
            if read.len() < end + 4 + body {
                continue;
            }
            read.drain(..end + 4 + body);
            told.send((head.lines().next().unwrap_or_default().to_owned(), body))
                .await
                .expect("it is wanted");
            let Some(answer) = answers.next() else { return };
            stream.write_all(answer.as_bytes()).await.expect("it listens");
        }
    });
    (address, tells)
}

fn answer(status: StatusCode, more: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n{more}\r\n")
}

#[tokio::test]
async fn a_batch_is_sent_until_it_is_taken_and_what_is_refused_is_lost() {
    let answers = vec![
        answer(StatusCode::SERVICE_UNAVAILABLE, "retry-after: 0\r\n"),
        answer(StatusCode::TOO_MANY_REQUESTS, "retry-after: 0\r\n"),
        answer(StatusCode::OK, ""),
        answer(StatusCode::BAD_REQUEST, "retry-after: 0\r\n"),
    ];
    let local = LocalSet::new();
    let work = local.run_until(async {
        let (address, mut told) = receiver(answers).await;
        let started = start(address, &[]);
        started.put(3);
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let (line, size) = told.recv().await.expect("it was sent");
            assert_eq!(line, "post /v1/traces http/1.1");
            sizes.push(size);
        }
        assert!(sizes.iter().all(|size| *size == sizes[0] && *size > 100), "{sizes:?}");
        started.put(2);
        told.recv().await.expect("it was sent");
        started.end().await
    });
    let metrics = timeout(PATIENCE, work).await.expect("in time");
    assert!(metrics.contains("pillion_trace_spans_exported_total 3"), "{metrics}");
    assert!(metrics.contains("pillion_trace_spans_failed_total{reason=\"refused\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_receiver_that_rejects_some_spans_is_not_away() {
    let partial = PartialSuccess { rejected_spans: 1, error_message: "too old".into() };
    let body = message::ExportResponse { partial_success: Some(partial) }.encode_to_vec();
    let body = String::from_utf8(body).expect("so short a message is text");
    let answers = vec![
        answer(StatusCode::BAD_REQUEST, ""),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
    ];
    let local = LocalSet::new();
    let work = local.run_until(async {
        let (address, mut told) = receiver(answers).await;
        let started = start(address, &[]);
        let registry = started.registry.clone();
        started.put(2);
        told.recv().await.expect("it was sent");
        started.put(3);
        told.recv().await.expect("it was sent");
        (started.end().await, registry.losses.take(Instant::now()))
    });
    let (metrics, losses) = timeout(PATIENCE, work).await.expect("in time");
    assert!(metrics.contains("pillion_trace_spans_exported_total 2"), "{metrics}");
    assert!(metrics.contains("pillion_trace_spans_failed_total{reason=\"refused\"} 3"), "{metrics}");
    let told: Vec<_> = losses.iter().map(|it| (it.kind(), it.reason.as_str(), it.count)).collect();
    assert_eq!(told, [(Kind::RejectedSpans, "too old", 1)]);
}

#[test]
fn a_receiver_that_rejects_now_and_then_is_not_told_each_time() {
    let began = Instant::now();
    let mut state = State::Well;
    for batch in 0..600 {
        state = state.taken(u64::from(batch % 2), began + batch * INTERVAL);
        assert_eq!(matches!(state, State::Rejecting(_)), batch > 0, "{batch}: {state:?}");
    }
    let last = began + 599 * INTERVAL;
    assert_eq!(state.taken(0, last + RELIEF - INTERVAL), State::Rejecting(last));
    assert_eq!(state.taken(0, last + RELIEF), State::Well);
    assert_eq!(State::Failing.taken(0, began), State::Well);
    assert_eq!(State::Failing.taken(1, began), State::Rejecting(began));
}

#[tokio::test]
async fn at_the_end_everything_is_sent_and_what_cannot_be_is_counted() {
    let local = LocalSet::new();
    let work = local.run_until(async {
        let (address, _told) = receiver(vec![answer(StatusCode::OK, ""); 8]).await;
        let started = start(address, &[]);
        started.put(1500);
        let well = started.end().await;
        let nobody =
            TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let started = start(nobody, &[]);
        started.put(5);
        (well, started.end().await)
    });
    let (well, lost) = timeout(PATIENCE, work).await.expect("in time");
    assert!(well.contains("pillion_trace_spans_exported_total 1500"), "{well}");
    assert!(lost.contains("pillion_trace_spans_failed_total{reason=\"unavailable\"} 5"), "{lost}");
}

#[tokio::test]
async fn nothing_leads_back_into_the_sidecar() {
    let local = LocalSet::new();
    let work = local.run_until(async {
        let own = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = own.local_addr().expect("an address");
        let started = start(address, &[address]);
        started.put(1);
        let metrics = started.end().await;
        let nobody = timeout(Duration::ZERO, own.accept()).await;
        assert!(nobody.is_err(), "it has connected to itself");
        metrics
    });
    let metrics = timeout(PATIENCE, work).await.expect("in time");
    assert!(metrics.contains("pillion_trace_spans_failed_total{reason=\"unavailable\"} 1"), "{metrics}");
}

#[tokio::test]
async fn turned_off_and_on_it_sends_to_another() {
    let local = LocalSet::new();
    let work = local.run_until(async {
        let (first, mut told_first) = receiver(vec![answer(StatusCode::OK, "")]).await;
        let (second, mut told_second) = receiver(vec![answer(StatusCode::OK, "")]).await;
        let started = start(first, &[]);
        started.put(1);
        told_first.recv().await.expect("it was sent");
        started.target.send_replace(None);
        started.target.send_replace(target(second));
        started.put(1);
        told_second.recv().await.expect("it was sent");
        started.end().await
    });
    let metrics = timeout(PATIENCE, work).await.expect("in time");
    assert!(metrics.contains("pillion_trace_spans_exported_total 2"), "{metrics}");
}
