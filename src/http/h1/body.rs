//! The body of a message received over HTTP/1: of a request, read from a connection that its server goes on with; of a
//! response, read from a connection that is free again at its end.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{client::Http1, connection::Connection};
use crate::http::body::BodyError;

/// A body's next frame (none at its end), and whether nothing comes after it.
pub(super) type Next = (Option<Result<Frame<Bytes>, BodyError>>, bool);

/// A received body. Dropped before its end, the rest is the connection's business.
#[derive(Debug)]
pub struct Incoming(From);

#[derive(Debug)]
enum From {
    Caller(Rc<Connection>),
    Callee(Box<Http1>),
    /// It has ended.
    Nobody,
}

impl Incoming {
    /// Of the request that the connection is at.
    pub(super) fn of_request(connection: Rc<Connection>) -> Self {
        connection.lend();
        Self(From::Caller(connection))
    }

    /// Of the response that the connection is at.
    pub(super) fn of_response(connection: Box<Http1>) -> Self {
        Self(From::Callee(connection))
    }

    /// Waits for the next frame. `None`: the body has ended.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (frame, ended) = match &mut self.0 {
            From::Caller(connection) => ready!(connection.poll_body(cx)),
            From::Callee(connection) => ready!(connection.poll_body(cx)),
            From::Nobody => return Poll::Ready(None),
        };
        let failed = matches!(frame, Some(Err(_)));
        if ended || failed {
            match std::mem::replace(&mut self.0, From::Nobody) {
                From::Callee(connection) if !failed => connection.finish(),
                From::Caller(connection) => connection.take_back(cx),
                From::Callee(_) | From::Nobody => {}
            }
        }
        Poll::Ready(frame)
    }

    /// Sends what is left of the request, of which this is the response's.
    pub fn poll_progress(&mut self, cx: &mut Context<'_>) {
        if let From::Callee(connection) = &mut self.0 {
            connection.poll_progress(cx);
        }
    }

    /// Whether nothing is left of it.
    pub fn is_end_stream(&self) -> bool {
        matches!(self.0, From::Nobody)
    }

    /// How much is left, where that is known.
    pub fn size_hint(&self) -> SizeHint {
        let left = match &self.0 {
            From::Caller(connection) => connection.body_left(),
            From::Callee(connection) => connection.body_left(),
            From::Nobody => Some(0),
        };
        left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let From::Caller(connection) = &self.0 {
            connection.drop_body();
        }
    }
}
