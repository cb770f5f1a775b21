//! A refusal as the caller sees it: named in `pillion-error`, in words for people, and as gRPC's status for gRPC.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{body::Body, headers};
use crate::error::{Hop, Refusal};

/// On an answer after which an HTTP/1 connection ends: whoever sent a request that is none may mean what follows it otherwise,
/// too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last;

/// Who refuses.
#[derive(Debug, Clone)]
pub struct Voice {
    /// On which side of the request.
    pub hop: Hop,
    /// Whose sidecar.
    pub workload: std::sync::Arc<str>,
}

impl Voice {
    /// The value of `pillion-error`: `<reason>; hop=<inbound|outbound>; workload=<name>`, and `; attempts=<number>` after several.
    pub fn header(&self, refusal: &Refusal) -> HeaderValue {
        let mut text =
            format!("{}; hop={}; workload={}", refusal.reason.as_str(), self.hop.as_str(), self.workload);
        if refusal.attempts > 1 {
            text = format!("{text}; attempts={}", refusal.attempts);
        }
        HeaderValue::try_from(text).expect("reasons and workload names are visible ASCII")
    }

    /// The whole answer. To gRPC it is a trailers-only response, as its specification has it.
    pub fn response(&self, refusal: &Refusal, grpc: bool) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        let text = format!("pillion ({} sidecar of {}): {refusal}", self.hop.as_str(), self.workload);
        if refusal.reason.status() == StatusCode::BAD_REQUEST {
            response.extensions_mut().insert(Last);
        }
        let headers = response.headers_mut();
        headers.insert(headers::ERROR, self.header(refusal));
        let status = refusal.more.as_ref().and_then(|more| more.status);
        let (status, code) = status.unwrap_or((refusal.reason.status(), refusal.reason.grpc() as u8));
        if let Some(more) = &refusal.more {
            for (name, value) in &more.fields {
                headers.append(name, value.clone());
            }
            if let Some(wait) = more.retry_after {
                // Whole seconds (RFC 9110 10.2.3); gRPC's own word for it is finer (gRFC A6).
                headers.insert(
                    header::RETRY_AFTER,
                    HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64),
                );
                if grpc {
                    let wait = HeaderValue::from(wait.as_micros().div_ceil(1000) as u64);
                    headers.insert("grpc-retry-pushback-ms", wait);
                }
            }
        }
        if grpc {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
            headers.insert("grpc-message", percent_encoded(&text));
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.status_mut() = status;
        *response.body_mut() = Body::Full(Bytes::from(text + "\n"));
        response
    }

    /// Says it to a caller whose HTTP/1 never gets as far as the codec, and ends the connection.
    pub async fn end_http1<T: AsyncWrite + Unpin>(&self, io: &mut T, refusal: &Refusal) {
        let answer = self.http1_text(refusal.reason.status(), refusal);
        // Who does not stay to hear it does not need it.
        let _ = io.write_all(&answer).await;
        let _ = io.shutdown().await;
    }

    /// The same as HTTP/1 text, for the few refusals that are made below the codec. The connection ends with it.
    pub fn http1_text(&self, status: StatusCode, refusal: &Refusal) -> Vec<u8> {
        let body = format!("pillion ({} sidecar of {}): {refusal}\n", self.hop.as_str(), self.workload);
        let header = self.header(refusal);
        format!(
            "HTTP/1.1 {status}\r\npillion-error: {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            header.to_str().expect("made from visible ASCII"),
            body.len(),
        )
        .into_bytes()
    }
}

/// As `grpc-message` must be: percent-encoded outside of printable ASCII.
pub(crate) fn percent_encoded(text: &str) -> HeaderValue {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..=0x1f | 0x7f.. => write!(encoded, "%{byte:02X}").expect("a String takes everything"),
            _ => encoded.push(byte.into()),
        }
    }
    HeaderValue::try_from(encoded).expect("printable ASCII only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn voice() -> Voice {
        Voice { hop: Hop::Outbound, workload: "web-1".into() }
    }

    #[test]
    fn every_reason_says_who_where_and_why() {
        for &reason in Reason::ALL {
            let response = voice().response(&reason.into(), false);
            assert_eq!(response.status(), reason.status());
            let header = response.headers()["pillion-error"].to_str().expect("ASCII").to_owned();
            assert_eq!(header, format!("{}; hop=outbound; workload=web-1", reason.as_str()));
        }
    }

    #[test]
    fn grpc_gets_a_trailers_only_response() {
        let refusal = Refusal::new(Reason::Connect, "100 % – lost");
        let response = voice().response(&refusal, true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        let message = response.headers()["grpc-message"].to_str().expect("ASCII");
        assert!(message.ends_with("100 %25 %E2%80%93 lost"), "{message}");
        assert!(http_body::Body::is_end_stream(response.body()));
    }
}
