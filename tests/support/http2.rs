//! HTTP/2 to a sidecar, stream by stream, for what a client that pools and repeats would hide.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::soon;

/// One connection, with prior knowledge (RFC 9113, 3.3). It ends with the last handle to it.
pub(crate) async fn connect(to: SocketAddr) -> SendRequest<Bytes> {
    soon("an HTTP/2 connection", async {
        handshake(TcpStream::connect(to).await.expect("somebody listens")).await
    })
    .await
}

/// The same on a connection that there is already.
pub(crate) async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Sends a request without content, and waits for the head of its answer.
pub(crate) async fn request(
    connection: &SendRequest<Bytes>,
    method: Method,
    url: &str,
) -> Response<RecvStream> {
    soon(&format!("an answer to {method} {url}"), async {
        let request = Request::builder().method(method.clone()).uri(url).body(()).expect("a valid request");
        let mut sender = connection.clone().ready().await.expect("the connection is open");
        let (response, _) = sender.send_request(request, true).expect("the connection is open");
        response.await.expect("an answer")
    })
    .await
}

/// The whole content of an answer.
pub(crate) async fn content(response: Response<RecvStream>) -> Vec<u8> {
    soon("an answer's content", async {
        let (mut content, mut body) = (Vec::new(), response.into_body());
        while let Some(data) = body.data().await {
            let data = data.expect("the stream ends well");
            body.flow_control().release_capacity(data.len()).expect("it was received");
            content.extend_from_slice(&data);
        }
        content
    })
    .await
}

/// A field: its name and its value, any bytes there are.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// One frame (RFC 9113 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK literals that are not indexed (RFC 7541 6.2.2).
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [*name, *value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("they are short"));
            block.extend_from_slice(text);
        }
    }
    block
}
