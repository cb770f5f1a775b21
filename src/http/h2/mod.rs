//! HTTP/2 by the `h2` crate itself, on both sides: hyper would hide interim responses, and spend a task per body.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{
    body::{BodyError, Progress},
    client::MOST_STREAMS_PER_CONNECTION,
};
use crate::telemetry::hops::Waits;

pub mod client;
mod frames;
pub mod server;
#[cfg(test)]
mod tests;

/// One stream's window, bytes. Small, since every stream of a connection may fill it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The connection's window, bytes: room for more stalled streams than our client puts on one connection, so that readers
/// who take nothing cannot starve the others.
const CONNECTION_WINDOW: u32 = (MOST_STREAMS_PER_CONNECTION + 1) as u32 * STREAM_WINDOW;
/// Data that one stream may have waiting to be written, bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// The largest header section taken, bytes (RFC 9113 6.5.2).
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// A stream whose peer takes nothing of what waits for it for so long is reset: it holds a connection to the application, and
/// memory, for nobody. As long as Envoy's own.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Frames of this size carry bulk data with little overhead.
const MAX_FRAME: u32 = 64 * 1024;

/// The body of a received message. Flow-control credit goes back as data is taken, so a slow reader slows the
/// sender down.
#[derive(Debug)]
pub struct RecvBody {
    stream: RecvStream,
    data_ended: bool,
    length: Option<u64>,
    /// A response's share of its connection, and the request's body that may still be under way.
    sharing: Option<Sharing>,
}

type Sharing = (Arc<client::Share>, Option<client::Upload>);

impl RecvBody {
    fn new(stream: RecvStream, headers: &HeaderMap, sharing: Option<Sharing>) -> Self {
        let length = headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok())
            .and_then(|length| length.parse().ok());
        Self { stream, data_ended: false, length, sharing }
    }
}

impl Drop for RecvBody {
    fn drop(&mut self) {
        // A response may end before its request does; one that is given up ends both.
        if let Some((_, Some(upload))) = self.sharing.take_if(|_| self.stream.is_end_stream()) {
            upload.finish();
        }
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Only fails when the stream is gone, which the next poll tells better.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Also a reset with NO_ERROR: what ended before it has been told as ended (RFC 9113 8.1).
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => this.data_ended = true,
            }
        }
        Poll::Ready(match ready!(this.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) => None,
            Err(error) => Some(Err(error.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Writes a body into a stream as fast as the peer lets it, and no faster. If the body fails, the stream is reset,
/// so that the peer cannot take a part for the whole.
///
/// Gives how long the body had nothing to say.
async fn pump<B>(mut body: B, stream: &mut SendStream<Bytes>) -> Duration
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Progress + Unpin,
{
    let mut waits = Waits::default();
    loop {
        // A reset tells that nobody reads any more, even while the body has nothing to say.
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset));
            }
            let frame = Pin::new(&mut body).poll_frame(cx);
            if frame.is_pending() {
                waits.begin();
            }
            frame.map(Ok)
        });
        let Ok(frame) = frame.await else { break };
        waits.end();
        match frame {
            Some(Ok(frame)) if frame.is_data() => {
                let last = body.is_end_stream();
                let own = if last { body.last_words() } else { None };
                let data = frame.into_data().unwrap_or_default();
                if !send(&mut body, stream, data, last && own.is_none()).await {
                    break;
                }
                if let Some(own) = own {
                    let _ = stream.send_trailers(own);
                }
                if last {
                    break;
                }
            }
            end => {
                write(end, true, &mut body, stream);
                break;
            }
        }
    }
    waits.total()
}

/// What is left to do of a body after [`pump_ready`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pumped {
    /// All is written, or nobody wants it any more.
    Done,
    /// The rest has to be waited for, by [`pump`].
    Waits,
}

/// Writes what a body has ready, without waiting for anything. Most messages are small and whole by the time that
/// they are handled: those need no task, nor a second turn.
fn pump_ready<B>(cx: &mut Context<'_>, body: &mut B, stream: &mut SendStream<Bytes>) -> Pumped
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Progress + Unpin,
{
    loop {
        let frame = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Pumped::Waits,
            Poll::Ready(frame) => frame,
        };
        // One chunk may wait in h2 for the windows; the next one waits here.
        let windows = stream.capacity();
        match write(frame, body.is_end_stream(), body, stream) {
            Some(length) if length <= windows => {}
            Some(_) => return Pumped::Waits,
            None => return Pumped::Done,
        }
    }
}

/// Writes one frame, all of it; gives its length. `None`: nothing can follow it.
fn write<E>(
    frame: Option<Result<Frame<Bytes>, E>>,
    last: bool,
    body: &mut impl Progress,
    stream: &mut SendStream<Bytes>,
) -> Option<usize>
where
    E: std::fmt::Display,
{
    match frame {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => {
                let own = if last { body.last_words() } else { None };
                let length = data.len();
                let sent = stream.send_data(data, last && own.is_none()).is_ok();
                if let Some(own) = own {
                    let _ = stream.send_trailers(own);
                }
                (sent && !last).then_some(length)
            }
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    super::headers::clean_trailers(&mut trailers);
                    trailers.extend(body.last_words().unwrap_or_default());
                    let _ = stream.send_trailers(trailers);
                }
                None
            }
        },
        Some(Err(error)) => {
            tracing::debug!(%error, "the body failed; resetting the stream");
            stream.send_reset(Reason::INTERNAL_ERROR);
            None
        }
        None => {
            let _ = match body.last_words() {
                Some(own) => stream.send_trailers(own),
                None => stream.send_data(Bytes::new(), true),
            };
            None
        }
    }
}

/// Writes one chunk as the windows allow. False: the stream is gone.
async fn send<B: Progress>(
    body: &mut B,
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
) -> bool {
    if data.is_empty() {
        return !last || stream.send_data(data, true).is_ok();
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match stream.capacity() {
            0 => {
                // Capacity never comes to a stream that was reset: h2 answers `None` or an error then.
                let capacity = poll_fn(|cx| {
                    body.poll_progress(cx);
                    stream.poll_capacity(cx)
                });
                match tokio::time::timeout(STALL_TIMEOUT, capacity).await {
                    Ok(Some(Ok(granted))) => granted,
                    Ok(_) => return false,
                    Err(_) => {
                        tracing::debug!(
                            "the peer has taken nothing for {STALL_TIMEOUT:?}; resetting the stream"
                        );
                        stream.send_reset(Reason::CANCEL);
                        return false;
                    }
                }
            }
            granted => granted,
        };
        let part = data.split_to(granted.min(data.len()));
        if !part.is_empty() && stream.send_data(part, last && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}
