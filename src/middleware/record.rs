//! Counts and times a request, from its head to the last byte of its response, whatever way it ends.

use std::{
    future::Future,
    ops::{Deref, DerefMut},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use pillion_api::hops::microseconds;
use tokio::time::{Instant, Sleep};

use super::{
    guard::Admitted,
    idle::{Idle, Watch},
    limit::Place,
    outlive::Outliving,
};
use crate::{
    error::{Reason, Refusal},
    http::{
        Body,
        body::{BodyError, Progress},
        headers::{ERROR, HOPS},
    },
    telemetry::{
        edge::{Edge, InFlight, Outcome},
        hops::{self, Timeline, Waits},
    },
};

/// What the application was waited for within its response; less is not worth trailers.
const WORTH_TELLING: Duration = Duration::from_millis(1);

/// Hears how a request went: the balancer's hold on an endpoint, for one. Dropped unheard, its caller went away.
pub trait End: Unpin + 'static {
    /// How it is, as far as the response's head tells.
    fn begun(&mut self, outcome: Outcome);

    /// How it ended, and when.
    fn ended(self, outcome: Outcome, now: Instant);
}

impl End for () {
    fn begun(&mut self, _: Outcome) {}

    fn ended(self, _: Outcome, _: Instant) {}
}

/// One request being counted. Dropped without an outcome, it was cancelled.
#[derive(Debug)]
pub struct Recording<E: End> {
    edge: Rc<Edge>,
    timeline: Timeline,
    /// For more of the response.
    waits: Waits,
    /// What the callee's sidecar says of its application's share in that, microseconds.
    body: u32,
    /// Bytes of the response's body.
    received: u64,
    in_flight: InFlight,
    place: Option<Place>,
    admitted: Option<Box<Admitted>>,
    outcome: Option<Outcome>,
    end: Option<E>,
}

/// How a response may end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) deadline: Option<(Instant, Reason)>,
    pub(super) idle: Option<Idle>,
    /// The caller's sidecar is told how long the application was waited for.
    pub(super) reports: bool,
}

/// A request that has no response yet. However that ends, what was noted on its way until then is the recording's.
#[derive(Debug)]
pub(super) struct UnderWay<'a, E: End> {
    timeline: &'a Timeline,
    recording: Option<Recording<E>>,
}

impl<E: End> UnderWay<'_, E> {
    pub(super) fn finish(mut self) -> Recording<E> {
        let mut recording = self.recording.take().expect("it is finished once");
        recording.timeline = self.timeline.take();
        recording
    }

    /// What is held for the request, for a connection that outlives its response.
    pub(super) fn hand_over(&mut self) -> Outliving<E> {
        // What it has become is no request that is worked on.
        self.admitted = None;
        let (exchange, held) = (self.timeline.notes().take(), (self.place.take(), self.end.take()));
        Outliving::new(self.edge.clone(), self.timeline.started(), exchange, held)
    }
}

impl<E: End> Deref for UnderWay<'_, E> {
    type Target = Recording<E>;

    fn deref(&self) -> &Recording<E> {
        self.recording.as_ref().expect("it is not finished")
    }
}

impl<E: End> DerefMut for UnderWay<'_, E> {
    fn deref_mut(&mut self) -> &mut Recording<E> {
        self.recording.as_mut().expect("it is not finished")
    }
}

impl<E: End> Drop for UnderWay<'_, E> {
    fn drop(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.timeline = self.timeline.take();
        }
    }
}

impl<E: End> Recording<E> {
    /// `timeline`: what the request's way goes on noting.
    pub(super) fn begin(edge: Rc<Edge>, timeline: &Timeline) -> UnderWay<'_, E> {
        let in_flight = edge.enter();
        let recording = Self {
            edge,
            timeline: Timeline::new(timeline.started()),
            waits: Waits::default(),
            body: 0,
            received: 0,
            in_flight,
            place: None,
            admitted: None,
            outcome: None,
            end: None,
        };
        UnderWay { timeline, recording: Some(recording) }
    }

    pub(super) fn hold(&mut self, place: Option<Place>) {
        self.place = place;
    }

    pub(super) fn admitted(&mut self, admitted: Admitted) {
        self.admitted = Some(Box::new(admitted));
    }

    /// The request was answered, or not, for a reason that its admission may know better.
    pub(super) fn answered(
        &mut self,
        result: Result<Response<Body>, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        match &mut self.admitted {
            None => result,
            Some(admitted) => admitted.answered(result, Instant::now()),
        }
    }

    pub(super) fn served_by(&mut self, edge: Option<Rc<Edge>>, end: Option<E>) {
        if let Some(edge) = edge
            && !Rc::ptr_eq(&edge, &self.edge)
        {
            self.in_flight = edge.enter();
            self.edge = edge;
        }
        self.end = end;
    }

    pub(super) fn decided(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    pub(super) fn until_the_last_byte(
        mut self,
        response: Response<Body>,
        grpc: bool,
        Ends { deadline, idle, reports }: Ends,
    ) -> Response<Recorded<E>> {
        self.timeline.note(|exchange| {
            exchange.status = Some(response.status());
            // What is refused here says so itself.
            exchange.told = response.headers().get(ERROR).filter(|_| self.outcome.is_none()).cloned();
        });
        let mut on_success = Outcome::Status(response.status());
        if grpc && let Outcome::Status(StatusCode::OK) = on_success {
            // Told by the trailers, or already by a trailers-only response.
            on_success = grpc_status(response.headers()).unwrap_or(Outcome::Grpc(2));
        }
        if let Some(end) = &mut self.end {
            end.begun(self.outcome.unwrap_or(match on_success {
                // Without a status yet: a stream that has begun well.
                Outcome::Grpc(_) if !response.headers().contains_key("grpc-status") => Outcome::Grpc(0),
                other => other,
            }));
        }
        // A refusal is not held up by the deadline that it may be about.
        let (deadline, idle) = if self.outcome.is_some() { (None, None) } else { (deadline, idle) };
        let length = response.headers().get(CONTENT_LENGTH).filter(|_| !grpc);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let mut recorded = response.map(|body| Recorded {
            ended: body.is_end_stream(),
            body,
            grpc,
            reports,
            last_words: None,
            length,
            on_success,
            recording: Some(self),
            deadline: deadline.map(|(at, reason)| (Box::pin(tokio::time::sleep_until(at)), reason)),
            idle: idle.map(|idle| Box::new(Watch::new(idle))),
        });
        if recorded.body().ended {
            recorded.body_mut().finish(None);
        }
        recorded
    }
}

impl<E: End> Recording<E> {
    /// Takes out of the trailers what the callee's sidecar says there.
    fn listen(
        &mut self,
        mut frame: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        if let Some(Ok(read)) = &mut frame
            && let Some(trailers) = read.trailers_mut()
            && let Some(waited) = trailers.remove(HOPS)
        {
            self.body = microseconds(waited.as_bytes()).unwrap_or_default();
            if trailers.is_empty() {
                return None;
            }
        }
        frame
    }
}

impl<E: End> Drop for Recording<E> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.timeline.started()).as_micros() as u64;
        let outcome = self.outcome.unwrap_or(Outcome::Cancelled);
        self.edge.request(outcome, took);
        let split = self.edge.splits().then(|| {
            let course = self.timeline.course(took, self.waits.total(), self.body);
            course.split(hops::side(self.edge.direction()))
        });
        if let Some(split) = &split {
            self.edge.split(split);
        }
        if let Some(mut exchange) = self.timeline.notes().take() {
            exchange.moments = self.timeline.moments();
            self.edge.tell(exchange, outcome, took, split, self.received);
        }
        if let (Some(end), Some(outcome)) = (self.end.take(), self.outcome) {
            end.ended(outcome, now);
        }
    }
}

/// A response's body, watched to its end.
#[derive(Debug)]
pub struct Recorded<E: End> {
    body: Body,
    ended: bool,
    grpc: bool,
    /// The caller's sidecar is told how long the application was waited for.
    reports: bool,
    last_words: Option<u32>,
    /// What its head says how long it is, where nothing that matters comes after that.
    length: Option<u64>,
    on_success: Outcome,
    recording: Option<Recording<E>>,
    deadline: Option<(Pin<Box<Sleep>>, Reason)>,
    idle: Option<Box<Watch>>,
}

impl<E: End> Recorded<E> {
    /// An answer that is not counted as a request's: it opens a tunnel, whose inside is.
    pub fn uncounted(response: Response<Body>) -> Response<Self> {
        let on_success = Outcome::Status(response.status());
        response.map(|body| Self {
            ended: body.is_end_stream(),
            body,
            grpc: false,
            reports: false,
            last_words: None,
            length: None,
            on_success,
            recording: None,
            deadline: None,
            idle: None,
        })
    }

    fn cut_off(&mut self, reason: Reason) -> BodyError {
        self.finish(Some(Outcome::Refused(reason)));
        reason.text().into()
    }

    fn finish(&mut self, outcome: Option<Outcome>) {
        self.ended = true;
        self.deadline = None;
        self.idle = None;
        if let Some(mut recording) = self.recording.take() {
            let waited = recording.waits.total();
            if self.reports && waited >= WORTH_TELLING {
                self.last_words = Some(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
            }
            // A refusal is decided before its few words are sent.
            recording.outcome = recording.outcome.or(outcome).or(Some(self.on_success));
        }
    }
}

impl<E: End> Drop for Recorded<E> {
    fn drop(&mut self) {
        let received = self.recording.as_ref().map(|recording| recording.received);
        // Who has had all of it need not wait for what a sidecar says after that.
        if received.is_some_and(|received| self.length.is_some_and(|length| received >= length)) {
            self.finish(None);
        }
    }
}

impl<E: End> Progress for Recorded<E> {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.body.poll_progress(cx);
    }

    fn last_words(&mut self) -> Option<HeaderMap> {
        let waited = self.last_words.take()?;
        Some(HeaderMap::from_iter([(HOPS, HeaderValue::from(waited))]))
    }
}

impl<E: End> http_body::Body for Recorded<E> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some((deadline, reason)) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let reason = *reason;
            return Poll::Ready(Some(Err(this.cut_off(reason))));
        }
        let Poll::Ready(mut frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Some(recording) = &mut this.recording {
                recording.waits.begin();
            }
            if let Some(idle) = &mut this.idle
                && idle.poll(cx).is_ready()
            {
                return Poll::Ready(Some(Err(this.cut_off(Reason::IdleTimeout))));
            }
            return Poll::Pending;
        };
        if let Some(idle) = &this.idle {
            idle.moved();
        }
        if let Some(recording) = &mut this.recording {
            recording.waits.end();
            if recording.timeline.is_reported() {
                frame = recording.listen(frame);
            }
        }
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(recording), Some(data)) = (&mut this.recording, frame.data_ref()) {
                    recording.received += data.len() as u64;
                }
                if this.grpc
                    && let Some(trailers) = frame.trailers_ref()
                {
                    this.finish(Some(grpc_status(trailers).unwrap_or(Outcome::Grpc(2))));
                } else if this.body.is_end_stream() {
                    this.finish(None);
                }
            }
            Some(Err(_)) => this.finish(Some(Outcome::Refused(Reason::Reset))),
            None => this.finish(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(Outcome::Grpc(code))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use http_body_util::BodyExt;

    use super::*;
    use crate::{
        error::Hop,
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
        let _response = recording.until_the_last_byte(
            response(StatusCode::NO_CONTENT, Body::Empty),
            false,
            Ends::default(),
        );
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
}
