//! A request as it may be sent more than once.

use std::rc::Rc;

use ::http::{HeaderName, HeaderValue, Request};
use http_body::Body as _;

use super::Sending;
use crate::http::{
    Body, Version, client,
    headers::{self, ATTEMPT},
    replay::{Replay, Room},
};

/// How many attempts there were before, as gRPC servers are told it (gRFC A6).
const GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// What is needed to send a request again.
pub(super) enum Outgoing {
    /// It cannot be.
    Once,
    /// It has no body.
    Bodiless(Request<()>),
    /// Its body is kept, as long as it is small; no longer than this is, which is until an answer has begun.
    Kept(Request<()>, Replay),
}

impl Outgoing {
    /// Gives the request for the first attempt, too. Without a policy no body is kept, but one that a fallback has kept is used.
    pub(super) fn of(
        request: Request<Body>,
        sending: &Sending<'_>,
        kept: &Rc<Room>,
    ) -> (Request<Body>, Self) {
        let plain = sending.plan.is_plain();
        let there_twice = matches!(request.body(), Body::Kept(_)) || request.body().is_end_stream();
        // An upgrade is a conversation; and HTTP/1 notes of a message how it was written.
        let upgrade = sending.carry == Version::Http1 && headers::is_upgrade(request.headers());
        if upgrade || plain && (sending.carry == Version::Http1 || !there_twice) {
            return (request, Self::Once);
        }
        let head = client::copy_head(&request);
        if request.body().is_end_stream() {
            return (request, Self::Bodiless(head));
        }
        let (parts, body) = request.into_parts();
        let (body, replay) = Replay::of(body, sending.plan.kept(), kept);
        (Request::from_parts(parts, body), Self::Kept(head, replay))
    }

    /// The request once more, as attempt `number`. `None`: that is not possible any more.
    pub(super) fn next(&self, number: u32) -> Option<Request<Body>> {
        let (head, body) = match self {
            Self::Once => return None,
            Self::Bodiless(head) => (head, Body::Empty),
            Self::Kept(head, replay) => (head, replay.reader()?),
        };
        let mut next = client::copy_head(head).map(|()| body);
        next.headers_mut().insert(ATTEMPT, HeaderValue::from(number));
        if headers::is_grpc(next.headers()) {
            // With those that the client has made itself.
            let own = next.headers().get(GRPC_ATTEMPTS).and_then(|it| it.to_str().ok()?.parse::<u32>().ok());
            let before = own.unwrap_or(0).saturating_add(number - 1);
            next.headers_mut().insert(GRPC_ATTEMPTS, HeaderValue::from(before));
        }
        Some(next)
    }
}
