//! Writes a message's body: framed as its head has said, as fast as the connection takes it, and no faster.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{encode, wire::Out};
use crate::{
    http::{
        body::{BodyError, Progress},
        headers,
    },
    telemetry::hops::Waits,
};

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoder {
    /// There is none: what the body has is dropped.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks; trailers only to those who take them.
    Chunked { trailers: bool },
    /// The connection's end is the body's.
    UntilClose,
}

/// Why a body was not sent whole. What has been sent of it must not look whole either: the connection is cut off.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The body failed, or is not as long as its head has said.
    Body(BodyError),
    /// The connection failed.
    Io(io::Error),
}

/// A body on its way out.
#[derive(Debug)]
pub(super) struct Sending<B> {
    body: B,
    encoder: Encoder,
    begun: bool,
    ended: bool,
    waits: Waits,
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Progress + Unpin,
{
    /// Nothing of it has been asked for yet.
    pub(super) fn new(body: B, encoder: Encoder) -> Self {
        let ended = encoder == Encoder::Nothing || encoder == Encoder::Length(0) && body.is_end_stream();
        Self { body, encoder, begun: false, ended, waits: Waits::default() }
    }

    /// The body, if nothing has been taken from it.
    pub(super) fn untouched(self) -> Option<B> {
        (!self.begun).then_some(self.body)
    }

    /// How long the body had nothing to say.
    pub(super) fn waited(&self) -> Duration {
        self.waits.total()
    }

    /// Writes what there is. Ready when all has been written. `flush` writes what is in `out`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Out,
        mut flush: impl FnMut(&mut Context<'_>, &mut Out) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            // As much as there is room for goes with one write, the head included.
            let mut waiting = false;
            while !self.ended && !waiting && out.has_room() {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending => {
                        self.waits.begin();
                        waiting = true;
                    }
                    Poll::Ready(frame) => {
                        self.waits.end();
                        self.begun = true;
                        let frame = frame.transpose().map_err(Unsent::Body)?;
                        self.take(frame, out).map_err(Unsent::Body)?;
                    }
                }
            }
            let Poll::Ready(flushed) = flush(cx, out) else {
                self.body.poll_progress(cx);
                return Poll::Pending;
            };
            flushed.map_err(Unsent::Io)?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if waiting {
                return Poll::Pending;
            }
        }
    }

    fn take(&mut self, frame: Option<Frame<Bytes>>, out: &mut Out) -> Result<(), BodyError> {
        let Some(frame) = frame else { return self.end(out, None) };
        match frame.into_data() {
            Ok(data) => {
                let last = self.body.is_end_stream();
                match &mut self.encoder {
                    Encoder::Nothing => {}
                    Encoder::UntilClose => out.push_data(data, b""),
                    Encoder::Length(left) => {
                        let rest = left.checked_sub(data.len() as u64);
                        *left = rest.ok_or("the body is longer than its Content-Length")?;
                        if last && *left > 0 {
                            return Err(SHORTER.into());
                        }
                        out.push_data(data, b"");
                    }
                    Encoder::Chunked { .. } => {
                        if !data.is_empty() {
                            encode::chunk_size(out.buffer(), data.len());
                            out.push_data(data, if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                        } else if last {
                            out.buffer().extend_from_slice(b"0\r\n\r\n");
                        }
                    }
                }
                self.ended = last;
                Ok(())
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.end(out, Some(&trailers)),
                Err(_) => Ok(()),
            },
        }
    }

    fn end(&mut self, out: &mut Out, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        self.ended = true;
        match self.encoder {
            Encoder::Length(1..) => return Err(SHORTER.into()),
            Encoder::Chunked { trailers: taken } => {
                let buffer = out.buffer();
                buffer.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if taken && !headers::is_no_trailer(name) {
                        encode::field(buffer, name.as_str().as_bytes(), value.as_bytes());
                    }
                }
                buffer.extend_from_slice(b"\r\n");
            }
            Encoder::Nothing | Encoder::Length(0) | Encoder::UntilClose => {}
        }
        Ok(())
    }
}

const SHORTER: &str = "the body is shorter than its Content-Length";
