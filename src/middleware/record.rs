//! Counts and times a request, from its head to the last byte of its response, whatever way it ends.

mod recorded;

use std::{
    ops::{Deref, DerefMut},
    rc::Rc,
};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use pillion_api::hops::microseconds;
use tokio::time::Instant;

pub use self::recorded::Recorded;
use super::{guard::Admitted, idle::Idle, limit::Place, outlive::Outliving};
use crate::{
    error::{Reason, Refusal},
    http::{Body, body::BodyError, headers::HOPS},
    telemetry::{
        edge::{Edge, InFlight, Outcome},
        hops::{self, Timeline, Waits},
    },
};

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
    /// What the callee's sidecar says of its application's share in that, microseconds; said at the end only.
    body: Option<u32>,
    /// Bytes of the response's body.
    received: u64,
    /// Its head said how long the response is, so that it is no stream that somebody watches.
    is_bounded: bool,
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
            body: None,
            received: 0,
            is_bounded: false,
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
}

impl<E: End> Recording<E> {
    /// Takes out of the trailers what the callee's sidecar says there. `last`: nothing follows.
    fn listen(
        &mut self,
        mut frame: Option<Result<Frame<Bytes>, BodyError>>,
        last: bool,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        if last {
            self.body = Some(0);
        }
        if let Some(Ok(read)) = &mut frame
            && let Some(trailers) = read.trailers_mut()
            && let Some(waited) = trailers.remove(HOPS)
        {
            self.body = Some(microseconds(waited.as_bytes()).unwrap_or_default());
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
        // Whoever was given up by the caller has been asked all the same.
        if let (None, Some(chosen)) = (self.outcome, self.timeline.take_chosen()) {
            self.edge = chosen;
        }
        self.edge.request(outcome, took);
        let split = self.edge.splits().then(|| {
            let course = self.timeline.course(took, self.waits.total(), self.body);
            course.split(hops::side(self.edge.direction()))
        });
        // How long a stream lasts that its caller ends is the caller's choice, and no time that anybody took.
        let is_broken_off = self.outcome.is_none() && self.timeline.is_answered() && !self.is_bounded;
        if let Some(split) = split.as_ref().filter(|_| !is_broken_off) {
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

#[cfg(test)]
mod tests;
