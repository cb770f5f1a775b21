//! A response that ends, or does not: what is counted then.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;

use super::*;
use crate::{
    error::Hop,
    http::body::Progress,
    telemetry::edge::{EdgeKey, Edges},
};

#[derive(Debug, Default, Clone)]
struct Ended(Rc<RefCell<Vec<Outcome>>>);

impl End for Ended {
    fn begun(&mut self, _: Outcome) {}

    fn ended(self, outcome: Outcome, _: Instant) {
        self.0.borrow_mut().push(outcome);
    }
}

fn recording(edges: &Edges) -> (Recording<Ended>, Ended) {
    let edge = edges.edge(EdgeKey {
        direction: Hop::Outbound,
        source: "a.n".into(),
        target: "b.n".into(),
        backend: "b.n".into(),
        workload: "".into(),
        mtls: true,
    });
    let mut recording = Recording::begin(edge, &Timeline::new(Instant::now())).finish();
    let ended = Ended::default();
    recording.served_by(None, Some(ended.clone()));
    (recording, ended)
}

/// A body that has nothing to do while nobody reads it.
#[derive(Debug)]
struct Silent<B>(B);

impl<B> Progress for Silent<B> {}

impl<B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin> http_body::Body for Silent<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A second for each frame.
#[derive(Debug)]
struct Slow {
    wait: Pin<Box<tokio::time::Sleep>>,
    frames: std::vec::IntoIter<Result<Frame<Bytes>, BodyError>>,
}

impl Progress for Slow {}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.frames.len() > 0 {
            ready!(self.wait.as_mut().poll(cx));
            self.wait.as_mut().reset(Instant::now() + SECOND);
        }
        Poll::Ready(self.frames.next())
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

#[tokio::test(start_paused = true)]
async fn ends_with_the_last_byte() {
    let edges = Edges::default();
    let (recording, ended) = recording(&edges);
    let body = Body::Full(Bytes::from_static(b"abc"));
    let recorded = recording.until_the_last_byte(response(StatusCode::OK, body), false, Ends::default());
    assert_eq!(edges.take()[0].in_flight, 1);
    assert!(ended.0.borrow().is_empty());
    recorded.into_body().collect().await.expect("a body");
    assert_eq!(*ended.0.borrow(), [Outcome::Status(StatusCode::OK)]);
    assert_eq!(edges.take()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_cancels() {
    let edges = Edges::default();
    let (first, first_ended) = recording(&edges);
    drop(first);
    let (second, second_ended) = recording(&edges);
    let body = Body::Full(Bytes::from_static(b"abc"));
    drop(second.until_the_last_byte(response(StatusCode::OK, body), false, Ends::default()));
    assert!(first_ended.0.borrow().is_empty() && second_ended.0.borrow().is_empty());
    assert_eq!(edges.take()[0].outcomes, [(23, 2)]);
}

#[tokio::test(start_paused = true)]
async fn who_has_had_all_that_was_announced_has_not_gone_away() {
    let edges = Edges::default();
    for (read, expected) in [(true, &[Outcome::Status(StatusCode::OK)][..]), (false, &[])] {
        let (recording, ended) = recording(&edges);
        let source = http_body_util::StreamBody::new(futures_util::stream::iter([
            Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"abc"))),
            Ok(Frame::trailers(HeaderMap::new())),
        ]));
        let body = Body::Wrapped(Box::new(Silent(source)));
        let mut response = response(StatusCode::OK, body);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
        let recorded = recording.until_the_last_byte(response, false, Ends::default());
        let mut body = recorded.into_body();
        if read {
            body.frame().await.expect("a frame").expect("data");
        }
        drop(body);
        assert_eq!(*ended.0.borrow(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bodiless_response_has_ended_at_once() {
    let edges = Edges::default();
    let (recording, ended) = recording(&edges);
    let _response =
        recording.until_the_last_byte(response(StatusCode::NO_CONTENT, Body::Empty), false, Ends::default());
    assert_eq!(*ended.0.borrow(), [Outcome::Status(StatusCode::NO_CONTENT)]);
}

#[tokio::test(start_paused = true)]
async fn grpc_is_judged_by_its_status() {
    for (code, expected) in [(Some("0"), 0), (Some("14"), 14), (None, 2)] {
        let edges = Edges::default();
        let (recording, ended) = recording(&edges);
        let mut response = response(StatusCode::OK, Body::Empty);
        if let Some(code) = code {
            response.headers_mut().insert("grpc-status", http::HeaderValue::from_static(code));
        }
        recording.until_the_last_byte(response, true, Ends::default());
        assert_eq!(*ended.0.borrow(), [Outcome::Grpc(expected)]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_after_the_head_is_put_to_who_is_known_for_it() {
    use pillion_api::hops::{
        Report,
        Segment::{self, Body as ApplicationBody, Network},
    };
    type Frames = Vec<Result<Frame<Bytes>, BodyError>>;

    let data = || Ok(Frame::data(Bytes::from_static(b"abc")));
    let trailers = |fields: &[(&str, u32)]| {
        let fields =
            fields.iter().map(|(name, value)| (name.parse::<HeaderName>().expect("a name"), (*value).into()));
        Ok(Frame::trailers(fields.collect()))
    };
    /// What happens, and the segments that it counts for. `None`: not at all.
    type Case = (&'static str, Frames, Option<&'static [(Segment, u64)]>);
    let table: [Case; 6] = [
        (
            "its sidecar says that the application was waited for",
            vec![data(), trailers(&[(HOPS.as_str(), 900_000)])],
            Some(&[(Network, 1100), (ApplicationBody, 900)]),
        ),
        ("it does not", vec![data(), trailers(&[])], Some(&[(Network, 2000)])),
        ("it has no trailers", vec![data()], Some(&[(Network, 1000)])),
        ("it is broken off", vec![data(), Err("reset".into())], Some(&[(ApplicationBody, 2000)])),
        ("the caller ends it", vec![data(), data(), data()], None),
        (
            "the caller waits no longer for the rest",
            vec![data(), data(), data()],
            Some(&[(ApplicationBody, 2000)]),
        ),
    ];
    for (what, frames, expected) in table {
        let is_left = frames.len() > 2;
        let edges = Edges::new(true, Rc::default());
        let (mut recording, _) = recording(&edges);
        let started = Instant::now();
        recording.timeline = Timeline::new(started);
        recording.timeline.sent(started);
        recording.timeline.answered(started, Some(Report::default()), Duration::ZERO);
        let source = Slow { wait: Box::pin(tokio::time::sleep(SECOND)), frames: frames.into_iter() };
        let body = Body::Wrapped(Box::new(source));
        let mut response = response(StatusCode::OK, body);
        if is_left && expected.is_some() {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("9"));
        }
        let mut body = recording.until_the_last_byte(response, false, Ends::default()).into_body();
        while let Some(Ok(_)) = body.frame().await
            && (!is_left || started.elapsed() < 2 * SECOND)
        {}
        drop(body);
        let hops = edges.take().remove(0).hops;
        let told: Vec<_> = hops.segments.iter().map(|it| (it.segment, it.sum_us / 1000)).collect();
        assert_eq!((hops.requests > 0).then_some(told.as_slice()), expected, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_counted_where_it_was_sent() {
    let edges = Edges::default();
    let workload = |name: &str| EdgeKey {
        direction: Hop::Outbound,
        source: "a.n".into(),
        target: "b.n".into(),
        backend: "b.n".into(),
        workload: name.into(),
        mtls: true,
    };
    let (none, chosen) = (edges.edge(workload("")), edges.edge(workload("b-2")));
    for (is_chosen, is_ended, expected) in [(true, false, "b-2"), (false, false, ""), (true, true, "")] {
        let timeline = Timeline::new(Instant::now());
        let mut recording = Recording::<Ended>::begin(none.clone(), &timeline);
        if is_chosen {
            timeline.chose(&chosen);
        }
        if is_ended {
            recording.decided(Outcome::Refused(Reason::NoEndpoints));
        }
        drop(recording);
        let counted = edges.take().into_iter().find(|delta| !delta.outcomes.is_empty()).expect("a request");
        assert_eq!(&*counted.key.workload, expected);
    }
}
