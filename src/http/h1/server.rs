//! The answering side of an HTTP/1 connection: one request after the other, in one task.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Duplex, Fault, Incoming, Malformed,
    connection::{Beside, Connection},
    encode::{self, Asked},
    head::Facts,
    sending::{Sending, Unsent},
};
use crate::{
    drain::{Drain, Phase},
    error::Refusal,
    http::{
        Body,
        body::{BodyError, Progress},
        refusal::Last,
        serve::Handler,
        upgrade,
    },
};

/// After the last answer, what the peer still sends is read and dropped for so long, and up to so many bytes, so that the
/// answer is not lost to a TCP reset (RFC 9112 9.6).
const LINGER: (Duration, u64) = (Duration::from_secs(2), 4 * 1024 * 1024);

/// How an exchange ended.
enum Next {
    /// Another request may come.
    Request,
    /// The connection ends with the answer. `linger`: the caller may not expect that, and be saying more already.
    Close { linger: bool },
    /// The caller has gone.
    Gone,
    /// The caller must not take what it got for a whole answer.
    CutOff,
    /// The connection is another protocol's.
    Upgraded,
    /// The request turned out to be none. `begun`: too late to say so.
    Malformed { malformed: Malformed, begun: bool },
}

/// Serves requests until the peer leaves, asks to, or the drain began and the current one is answered.
///
/// There is no deadline for a head: it would also end connections that are merely idle, just as their peer may send on
/// them (and cost a timer per request). Peers here are the application or have proven who they are; those that are gone
/// are noticed by TCP keep-alive, and connections are bounded in number.
///
/// # Errors
/// What was malformed; the peer has been told.
pub async fn serve<T, H>(io: T, handler: Rc<H>, drain: Drain) -> Result<(), Refusal>
where
    T: Duplex + 'static,
    H: Handler,
{
    let connection = Connection::new(Box::new(io));
    let _ending = Ending(&connection);
    let mut watch = drain.clone();
    let mut closing = pin!(watch.reached(Phase::Closing));
    loop {
        let head = poll_fn(|cx| match connection.poll_head(cx) {
            Poll::Pending if connection.is_idle() && closing.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Ok(None))
            }
            head => head,
        });
        let next = match head.await {
            Ok(Some((request, facts))) => {
                let (request, asked, promise) = begin(&connection, request, facts);
                // Boxed, since it is most of what a request needs: idle connections and long answers do without.
                let handled = Box::pin(handler.handle(request, &*connection));
                exchange(&connection, handled, asked, promise, &drain).await
            }
            Ok(None) => Next::Close { linger: false },
            Err(Fault::Malformed(malformed)) => Next::Malformed { malformed, begun: false },
            Err(Fault::Lost(_)) => Next::Gone,
        };
        match next {
            Next::Request => {}
            // However the peer ends its side, the connection is done with.
            Next::Close { linger } => {
                Box::pin(close(connection.end(), linger)).await;
                return Ok(());
            }
            Next::Gone | Next::Upgraded => return Ok(()),
            Next::CutOff => {
                cut_off(connection.end());
                return Ok(());
            }
            Next::Malformed { malformed: Malformed { reason, detail }, begun } => {
                handler.malformed(reason);
                let refusal = Refusal::new(reason, detail);
                // Nor in the middle of an interim response.
                if !begun && connection.write(|out, _| out.is_empty()) {
                    let answer = handler.voice().http1_text(reason.status(), &refusal);
                    Box::pin(refuse(connection.end(), answer)).await;
                } else {
                    cut_off(connection.end());
                }
                return Err(refusal);
            }
        }
    }
}

/// However serving ends, a body that is still being read elsewhere ends with it.
struct Ending<'a>(&'a Connection);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The request with its body; what its answer depends on; and the promise of the connection, if it asks for that.
fn begin(
    connection: &Rc<Connection>,
    request: Request<()>,
    facts: Facts,
) -> (Request<Body>, Asked, Option<upgrade::Promise>) {
    let asked = Asked {
        method: request.method().clone(),
        version: request.version(),
        takes_trailers: facts.takes_trailers,
        keep_alive: facts.keep_alive,
    };
    let body = if connection.is_body_read() {
        Body::Empty
    } else {
        Body::Http1(Incoming::of_request(connection.clone()))
    };
    let mut request = request.map(|()| body);
    let promise = facts.upgrade.then(|| upgrade::promise(request.extensions_mut()));
    (request, asked, promise)
}

/// Waits for the handler's response, and writes it.
async fn exchange<F, B>(
    connection: &Connection,
    mut handled: Pin<Box<F>>,
    mut asked: Asked,
    promise: Option<upgrade::Promise>,
    drain: &Drain,
) -> Next
where
    F: Future<Output = Response<B>>,
    B: http_body::Body<Data = Bytes, Error = BodyError> + Progress + Unpin,
{
    let response = poll_fn(|cx| {
        // First: the handler would hear of it as of an exchange that failed, and blame the callee.
        if let Some(broken) = connection.broken() {
            return Poll::Ready(Err(broken));
        }
        match handled.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => connection.poll_beside(cx).map(Err),
        }
    });
    let response = response.await;
    drop(handled);
    let response = match (response, connection.fault()) {
        (_, Some(malformed)) | (Err(Beside::Malformed(malformed)), _) => {
            return Next::Malformed { malformed, begun: false };
        }
        (Err(Beside::Gone), None) => return Next::Gone,
        (Ok(response), None) => response,
    };

    let (head, body) = response.into_parts();
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS
        || asked.method == Method::CONNECT && head.status.is_success();
    let expects_more = asked.keep_alive || !connection.is_idle() || !connection.is_body_read();
    asked.keep_alive &= drain.phase() < Phase::Closing
        && !connection.is_body_unwanted()
        && head.extensions.get::<Last>().is_none();
    let (encoder, keep_alive) =
        connection.write(|out, _| encode::response(out.buffer(), &head, &body, &asked));
    drop(head);
    let mut sending = Sending::new(body, encoder);
    let sent = poll_fn(|cx| match connection.write(|out, flush| sending.poll(cx, out, flush)) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(Unsent::Body(_))) => Poll::Ready(Err(Next::CutOff)),
        Poll::Ready(Err(Unsent::Io(_))) => Poll::Ready(Err(Next::Gone)),
        Poll::Pending => connection.poll_watch(cx).map(|beside| {
            Err(match beside {
                Beside::Gone => Next::Gone,
                Beside::Malformed(malformed) => Next::Malformed { malformed, begun: true },
            })
        }),
    });
    let sent = sent.await;
    drop(sending);
    match (sent, connection.fault()) {
        (Ok(()), None) => {}
        (_, Some(malformed)) => return Next::Malformed { malformed, begun: true },
        (Err(next), None) => return next,
    }
    if switches {
        if let (Some(promise), Some((io, ahead))) = (promise, connection.hand_over()) {
            promise.keep(io, ahead);
        }
        return Next::Upgraded;
    }
    if keep_alive && (connection.is_body_read() || Box::pin(rest(connection)).await) {
        Next::Request
    } else {
        Next::Close { linger: expects_more }
    }
}

/// Waits for the end of a request that was answered before it, or reads over it where nobody does. False: it does not end.
async fn rest(connection: &Connection) -> bool {
    // An upload goes on as long as somebody takes it.
    poll_fn(|cx| connection.poll_body_over(cx)).await;
    let discarded = tokio::time::timeout(LINGER.0, poll_fn(|cx| connection.poll_discard(cx))).await;
    matches!(discarded, Ok(Ok(true))) && connection.fault().is_none()
}

/// By a reset: a body may end with its connection (RFC 9112 6.3), and a clean end would look like the body's.
fn cut_off(io: Option<Box<dyn Duplex>>) {
    if let Some(mut io) = io {
        io.abort();
    }
}

async fn refuse(io: Option<Box<dyn Duplex>>, answer: Vec<u8>) {
    let Some(mut io) = io else { return };
    if matches!(tokio::time::timeout(LINGER.0, io.write_all(&answer)).await, Ok(Ok(()))) {
        close(Some(io), true).await;
    }
}

/// Ends our side; with `linger`, waits, within reason, for the peer to end its own.
async fn close(io: Option<Box<dyn Duplex>>, linger: bool) {
    let Some(mut io) = io else { return };
    let (time, bytes) = LINGER;
    let drained = async {
        io.shutdown().await?;
        if linger {
            tokio::io::copy(&mut io.take(bytes), &mut tokio::io::sink()).await?;
        }
        std::io::Result::Ok(())
    };
    // However it ends, the connection is done with.
    let _ = tokio::time::timeout(time, drained).await;
}
