//! Serves one connection, whichever HTTP version it speaks.

use std::{future::Future, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};

use super::{
    Body, InterimSink, Version,
    body::{BodyError, Progress},
    h1, h2,
};
use crate::{
    drain::Drain,
    error::{Reason, Refusal},
    http::refusal::Voice,
    net::{io::Io, sniff::Prefixed},
};

/// Answers requests. One handler serves all of a connection's requests, on the connection's thread.
pub trait Handler: 'static {
    /// The body of its answers.
    type Body: http_body::Body<Data = Bytes, Error = BodyError> + Progress + Unpin + 'static;

    /// Answers one request; refusals are answers too.
    fn handle(
        &self,
        request: Request<Body>,
        interim: &dyn InterimSink,
    ) -> impl Future<Output = Response<Self::Body>>;

    /// Requests that one connection may have under way, where that is fewer than usual (HTTP/2).
    fn max_streams(&self) -> Option<u32> {
        None
    }

    /// How this handler's own refusals are signed.
    fn voice(&self) -> &Voice;

    /// Hears of requests that the codec refused before they became requests.
    fn malformed(&self, reason: Reason);
}

/// Serves one connection to its end. Boxed by version, so that a connection has memory for the one that it speaks.
///
/// # Errors
/// What the peer did wrong, for the log; whoever sent it has been answered already.
pub async fn serve<H>(io: Prefixed<Io>, version: Version, handler: Rc<H>, drain: Drain) -> Result<(), Refusal>
where
    H: Handler,
{
    match version {
        Version::Http1 => Box::pin(h1::server::serve(io, handler, drain)).await,
        Version::Http2 => Box::pin(h2::server::serve(io, handler.clone(), drain)).await.or_else(|error| {
            // A peer that just goes away is normal.
            if error.is_io() || error.reason() == Some(::h2::Reason::NO_ERROR) {
                return Ok(());
            }
            let abused = error.reason() == Some(::h2::Reason::ENHANCE_YOUR_CALM) && !error.is_remote();
            let reason = if abused { Reason::Http2Abuse } else { Reason::MalformedRequest };
            handler.malformed(reason);
            Err(Refusal::new(reason, format_args!("HTTP/2: {error}")))
        }),
    }
}
