//! What an attempt came to, and what that says of its endpoint and of another attempt.

use std::{future::poll_fn, rc::Rc, task::Poll};

use ::http::{HeaderMap, Request, Response, StatusCode};
use pillion_api::retry::Ended;
use tokio::time::Instant;

use super::{Held, Sending};
use crate::{
    balance::Pick,
    error::{Reason, Refusal},
    http::{
        Body, client,
        headers::{self, ATTEMPTS, ERROR},
    },
    middleware::Served,
    outbound::reach::Reach,
    telemetry::{
        edge::{Edge, Outcome},
        hops::Timeline,
        repeats::Repeat,
    },
};

/// What an attempt came to.
pub(super) struct Tried {
    pub(super) result: Result<Response<Body>, Refusal>,
    pub(super) ended: Ended,
    pub(super) edge: Rc<Edge>,
    pub(super) pick: Pick<Reach>,
    /// The request, if nothing of it was sent.
    pub(super) unsent: Option<Request<Body>>,
    /// One failed attempt to connect is one failure, however many requests waited for it.
    pub(super) counts: bool,
    /// Its place among those that listeners hear of.
    pub(super) noted: usize,
}

impl Tried {
    pub(super) fn served(mut self) -> Served<Held> {
        // Its trailers have been seen, unlike those of a stream that has only begun.
        if let Ended::Grpc(1..) = self.ended {
            self.settle();
        }
        let end = self.counts.then(|| Held { pick: self.pick, place: None });
        Served { result: self.result, edge: Some(self.edge), end }
    }

    /// Whether it is gRPC's answer, and its status, which is not in its head, may matter.
    pub(super) fn may_tell_more(&self, sending: &Sending<'_>) -> bool {
        let Ok(response) = &self.result else { return false };
        self.ended == Ended::Status(StatusCode::OK)
            && sending.plan.rules.is_some()
            && headers::is_grpc(response.headers())
    }

    /// Looks at how an answer of gRPC goes on, as far as that has come together with its head.
    ///
    /// Servers that have taken a call say UNAVAILABLE in trailers right after their headers, seldom in headers alone. A client does
    /// not try again once it has had headers, because its application may have acted on them (gRFC A6, "When Retries are Valid");
    /// of this answer nobody has had anything yet. Envoy goes by the headers, and so leaves these failures to the caller; to
    /// wait for the first frame, as others do, would hold up a stream that begins with silence. So nothing is waited for here but
    /// one turn of the connection, which may have more to hand on.
    pub(super) async fn look_ahead(&mut self) {
        let Ok(response) = &mut self.result else { return };
        let mut waited = false;
        poll_fn(|cx| {
            let first = response.body_mut().poll_first(cx);
            if first.is_pending() && !std::mem::replace(&mut waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        if let Some(code) = response.body().trailers().and_then(grpc_status) {
            self.ended = Ended::Grpc(code);
        }
    }

    /// Tells its endpoint's breaker how it was, whatever becomes of the request.
    pub(super) fn settle(&mut self) {
        if self.counts {
            self.pick.settle(self.pick.verdict(self.outcome()), Instant::now());
        }
    }

    /// Notes for listeners what it came to.
    pub(super) fn note(&self, timeline: &Timeline) {
        timeline.try_ended(self.noted, Instant::now(), self.outcome());
    }

    fn outcome(&self) -> Outcome {
        match (&self.result, self.ended) {
            (_, Ended::Grpc(code)) => Outcome::Grpc(u8::try_from(code).unwrap_or(2)),
            (Ok(response), _) => Outcome::Status(response.status()),
            (Err(refusal), _) => Outcome::Refused(refusal.reason),
        }
    }

    /// Frees its endpoint; gives what is left to say if there is no other attempt.
    pub(super) fn give_up(mut self) -> Served<Held> {
        self.settle();
        Served { result: self.result, edge: Some(self.edge), end: None }
    }
}

/// What is given to the caller after several attempts, or instead of another.
pub(super) fn last(mut tried: Tried, number: u32) -> Served<Held> {
    let good = match tried.ended {
        Ended::Status(status) => !status.is_server_error(),
        Ended::Grpc(code) => code == 0,
        Ended::Unprocessed | Ended::Reset | Ended::Timeout | Ended::Final => false,
    };
    if number > 1 {
        if good {
            tried.edge.repeat(Repeat::Recovered);
        } else {
            match &mut tried.result {
                Ok(response) => drop(response.headers_mut().insert(ATTEMPTS, number.into())),
                Err(refusal) => refusal.attempts = number,
            }
        }
    }
    tried.served()
}

/// Whether the peer's sidecar has answered only that its application has not.
pub(super) fn is_too_late(result: &Result<Result<Response<Body>, client::Failure>, bool>) -> bool {
    let Ok(Ok(response)) = result else { return false };
    told(response.headers()) == Some(Reason::DeadlineExceeded)
}

/// Why a sidecar has answered itself.
pub(in crate::outbound) fn told(headers: &HeaderMap) -> Option<Reason> {
    let error = headers.get(ERROR)?.to_str().ok()?;
    Reason::from_name(error.split(';').next()?)
}

/// How an attempt has ended that a sidecar has refused. `None`: its status says.
pub(super) fn refused(reason: Reason) -> Option<Ended> {
    match reason {
        // They are about the request: whoever gets it would say the same.
        Reason::MalformedRequest
        | Reason::HeadersTooLarge
        | Reason::UriTooLong
        | Reason::DeadlineExceeded => Some(Ended::Final),
        reason if reason.unprocessed() => Some(Ended::Unprocessed),
        Reason::Reset => Some(Ended::Reset),
        _ => None,
    }
}

/// What an answer says of the attempt.
pub(super) fn ended(response: &Response<Body>, told: Option<Reason>, sending: &Sending<'_>) -> Ended {
    if let Some(ended) = told.and_then(refused) {
        return ended;
    }
    let headers = response.headers();
    if !sending.plan.is_plain()
        && headers::is_grpc(headers)
        && let Some(code) = grpc_status(headers)
    {
        return Ended::Grpc(code);
    }
    Ended::Status(response.status())
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sidecar_refuses_is_repeated_where_another_could_take_it() {
        for (reason, expected) in [
            (Reason::AppConnect, Some(Ended::Unprocessed)),
            (Reason::PortNotServed, Some(Ended::Unprocessed)),
            (Reason::TooManyConnections, Some(Ended::Unprocessed)),
            (Reason::Reset, Some(Ended::Reset)),
            (Reason::MalformedRequest, Some(Ended::Final)),
            (Reason::HeadersTooLarge, Some(Ended::Final)),
            (Reason::UriTooLong, Some(Ended::Final)),
            (Reason::DeadlineExceeded, Some(Ended::Final)),
            (Reason::Overloaded, None),
            (Reason::RateLimited, None),
        ] {
            let mut headers = HeaderMap::new();
            let error = format!("{}; hop=inbound; workload=app-1", reason.as_str());
            headers.insert(ERROR, error.parse().expect("a value"));
            assert_eq!(told(&headers), Some(reason));
            assert_eq!(refused(reason), expected, "{reason:?}");
        }
        assert_eq!(told(&HeaderMap::new()), None);
    }
}
