//! The response's body of a request that is counted, watched to its end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use super::{End, Ends, Recording};
use crate::{
    error::Reason,
    http::{
        Body,
        body::{BodyError, Progress},
        headers::{ERROR, HOPS},
    },
    middleware::idle::Watch,
    telemetry::{edge::Outcome, exchange},
};

/// What the application was waited for within its response; less is not worth trailers.
const WORTH_TELLING: Duration = Duration::from_millis(1);

impl<E: End> Recording<E> {
    /// Counts on, until the response has ended.
    pub(in crate::middleware) fn until_the_last_byte(
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
        self.is_bounded = length.is_some();
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

    /// `detail`: for the access log, as the head is out.
    fn cut_off(&mut self, reason: Reason, detail: &str) -> BodyError {
        if let Some(recording) = &self.recording {
            recording.timeline.note(|exchange| exchange::put(&mut exchange.detail, detail));
        }
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
            let detail = "the response had begun, and had not ended in time";
            return Poll::Ready(Some(Err(this.cut_off(reason, detail))));
        }
        let Poll::Ready(mut frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Some(recording) = &mut this.recording {
                recording.waits.begin();
            }
            if let Some(idle) = &mut this.idle
                && idle.poll(cx).is_ready()
            {
                let detail = idle.detail();
                return Poll::Ready(Some(Err(this.cut_off(Reason::IdleTimeout, &detail))));
            }
            return Poll::Pending;
        };
        if let Some(idle) = &this.idle {
            idle.moved();
        }
        let last = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || this.body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(recording) = &mut this.recording {
            recording.waits.end();
            if recording.timeline.is_reported() {
                frame = recording.listen(frame, last);
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
                } else if last {
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
