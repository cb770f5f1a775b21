//! HTTP/2 to a sidecar, stream by stream, for what a client that pools and repeats would hide.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use tokio::net::TcpStream;

use super::soon;

/// One connection, with prior knowledge (RFC 9113, 3.3). It ends with the last handle to it.
pub(crate) async fn connect(to: SocketAddr) -> SendRequest<Bytes> {
    soon("an HTTP/2 connection", async {
        let stream = TcpStream::connect(to).await.expect("somebody listens");
        let (sender, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        sender
    })
    .await
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
