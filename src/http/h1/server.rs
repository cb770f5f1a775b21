//! The answering side of an HTTP/1 connection.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    MAX_HEAD, MAX_HEADERS,
    guard::{Guarded, Shared},
};
use crate::{
    drain::{Drain, Phase},
    error::Refusal,
    http::{Body, serve::Handler},
};

/// After a refusal, what the peer still sends is read and dropped for so long, and up to so many bytes, so that the
/// answer is not lost to a TCP reset (RFC 9112 9.6).
const LINGER: (Duration, u64) = (Duration::from_secs(2), 4 * 1024 * 1024);

/// Serves requests until the peer leaves, asks to, or the drain began and the current one is answered.
pub async fn serve<T, H>(io: T, handler: Rc<H>, mut drain: Drain) -> Result<(), Refusal>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let shared = Shared::new(handler.voice().clone());
    let service = service_fn({
        let (handler, shared) = (handler.clone(), shared.clone());
        move |request: Request<Incoming>| {
            let (handler, shared) = (handler.clone(), shared.clone());
            shared.request_taken(request.version());
            async move {
                let response = handler.handle(request.map(incoming), &*shared).await;
                Ok::<_, std::convert::Infallible>(response.map(|body| Answer { body, shared }))
            }
        }
    });
    // No deadline for a head: hyper's also ends connections that are merely idle, just as their peer may send on them
    // (and costs a timer per request). Peers here are the application or have proven who they are; those that are
    // gone are noticed by TCP keep-alive, and connections are bounded in number.
    let mut connection = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Guarded::new(io, shared.clone())), service)
        .with_upgrades();
    let ended = {
        let mut closing = pin!(drain.reached(Phase::Closing));
        let mut told = false;
        poll_fn(|cx| {
            if !told && closing.as_mut().poll(cx).is_ready() {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Pin::new(&mut connection).poll(cx)
        })
        .await
    };
    let Some(reason) = shared.refused() else {
        // Any other end of a connection is the peer's business: whoever was waiting for it knows already.
        return Ok(());
    };
    handler.malformed(reason);
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner().into_inner()).await;
    }
    Err(Refusal::new(reason, ended.err().map(|error| error.to_string()).unwrap_or_default()))
}

fn incoming(body: Incoming) -> Body {
    if http_body::Body::is_end_stream(&body) { Body::Empty } else { Body::Http1(body, None) }
}

async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) {
    let (time, bytes) = LINGER;
    let drained = async {
        tokio::io::AsyncWriteExt::shutdown(&mut io).await?;
        tokio::io::copy(&mut io.take(bytes), &mut tokio::io::sink()).await
    };
    // However it ends, the connection is done with.
    let _ = tokio::time::timeout(time, drained).await;
}

/// A response's body that tells the guard when it has ended, in whatever way.
struct Answer<B> {
    body: B,
    shared: Arc<Shared>,
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.shared.response_ended();
    }
}

impl<B> http_body::Body for Answer<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
