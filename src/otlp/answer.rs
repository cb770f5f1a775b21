//! What a receiver's answer means: taken, to be sent again, or never to be.
//! <https://opentelemetry.io/docs/specs/otlp/#failures> for gRPC, <https://opentelemetry.io/docs/specs/otlp/#failures-1> for HTTP.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use prost::Message;

use super::message::{ExportResponse, RetryInfo, RpcStatus};

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken, but for so many of its spans; with the receiver's words, if it has any.
    Taken(u64, String),
    /// It may be at another time: not before so long, if anything is said of that.
    Again(Option<Duration>, String),
    /// It never will be.
    Refused(String),
}

/// Of a try that came to no answer.
pub(super) fn none(why: impl std::fmt::Display) -> Answer {
    Answer::Again(None, why.to_string())
}

/// Over HTTP.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: Bytes, now: SystemTime) -> Answer {
    if status.is_success() {
        return taken(body);
    }
    let said = RpcStatus::decode(body).map(|status| status.message).unwrap_or_default();
    let words = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Again(retry_after(headers, now), words),
        _ => Answer::Refused(words),
    }
}

/// Over gRPC: the status stands in the trailers, or in a header section that is all.
pub(super) fn of_grpc(status: StatusCode, headers: &HeaderMap, trailers: &HeaderMap, body: &Bytes) -> Answer {
    let found = [trailers, headers].into_iter().find(|fields| fields.contains_key("grpc-status"));
    let code = found.and_then(|fields| fields["grpc-status"].to_str().ok()?.parse::<u32>().ok());
    let (Some(fields), Some(code)) = (found, code) else {
        // It is no gRPC's, but a proxy's in between: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
        let words = format!("{status}, which is no answer of gRPC's");
        return match status.as_u16() {
            429 | 502 | 503 | 504 => Answer::Again(None, words),
            _ => Answer::Refused(words),
        };
    };
    let text = fields.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
    let words = format!("gRPC status {code}: {text}");
    match code {
        // One message, behind a flag and its length.
        0 => taken(body.slice(body.len().min(5)..)),
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
        1 | 4 | 10 | 11 | 14 | 15 => Answer::Again(retry_info(fields), words),
        // Exhausted: it may recover where it says when.
        8 => match retry_info(fields) {
            Some(after) => Answer::Again(Some(after), words),
            None => Answer::Refused(words),
        },
        _ => Answer::Refused(words),
    }
}

fn taken(body: Bytes) -> Answer {
    // An answer that is not understood says nothing against what it is for.
    let said = ExportResponse::decode(body).unwrap_or_default().partial_success.unwrap_or_default();
    Answer::Taken(u64::try_from(said.rejected_spans).unwrap_or_default(), said.error_message)
}

/// RFC 9110 10.2.3.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn retry_info(fields: &HeaderMap) -> Option<Duration> {
    let details = fields.get("grpc-status-details-bin")?.as_bytes();
    let details = details.strip_suffix(b"==").or(details.strip_suffix(b"=")).unwrap_or(details);
    let status = RpcStatus::decode(&*STANDARD_NO_PAD.decode(details).ok()?).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay.unwrap_or_default();
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::from_secs(seconds) + Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::{
        super::message::{Any, Delay, PartialSuccess},
        *,
    };

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        });
        pairs.collect()
    }

    /// Whether it is to be sent again, and when.
    fn seen(answer: &Answer) -> Option<Option<u128>> {
        match answer {
            Answer::Again(after, _) => Some(after.map(|after| after.as_millis())),
            Answer::Taken(..) | Answer::Refused(_) => None,
        }
    }

    #[test]
    fn of_http_answers_few_are_worth_another_try() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        for (status, after, expected) in [
            (429, None, Some(None)),
            (429, Some("7"), Some(Some(7000))),
            (502, None, Some(None)),
            (503, Some("Sun, 06 Nov 1994 08:49:39 GMT"), Some(Some(2000))),
            (503, Some("soon"), Some(None)),
            (504, None, Some(None)),
            (400, None, None),
            (401, Some("7"), None),
            (404, None, None),
            (413, None, None),
            (500, Some("7"), None),
            (301, None, None),
        ] {
            let headers: Vec<_> = after.iter().map(|after| ("retry-after", *after)).collect();
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = of_http(status, &fields(&headers), Bytes::new(), now);
            assert_eq!(seen(&answer), expected, "{status} {after:?}");
        }
        let said = RpcStatus { code: 3, message: "no such tenant".into(), details: Vec::new() };
        let answer = of_http(StatusCode::BAD_REQUEST, &HeaderMap::new(), said.encode_to_vec().into(), now);
        assert_eq!(answer, Answer::Refused("400 Bad Request: no such tenant".into()));
    }

    #[test]
    fn grpc_statuses_are_as_the_specification_has_them() {
        let info = RetryInfo { retry_delay: Some(Delay { seconds: 1, nanos: 500_000_000 }) };
        let detail =
            Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        let details = RpcStatus { code: 8, message: String::new(), details: vec![detail] }.encode_to_vec();
        let details = STANDARD_NO_PAD.encode(details);
        for code in 1..=16_u32 {
            let text = code.to_string();
            let plain = fields(&[("grpc-status", &text)]);
            let told = fields(&[("grpc-status", &text), ("grpc-status-details-bin", &details)]);
            let again = [1, 4, 10, 11, 14, 15].contains(&code);
            let none = HeaderMap::new();
            let answer = of_grpc(StatusCode::OK, &none, &plain, &Bytes::new());
            assert_eq!(seen(&answer), again.then_some(None), "{code}");
            // A header section that is all.
            let answer = of_grpc(StatusCode::OK, &told, &none, &Bytes::new());
            assert_eq!(seen(&answer), (again || code == 8).then_some(Some(1500)), "{code}");
        }
        let nothing = HeaderMap::new();
        for (status, again) in [(503, true), (502, true), (404, false), (200, false)] {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = of_grpc(status, &nothing, &nothing, &Bytes::new());
            assert_eq!(seen(&answer).is_some(), again, "{status}");
        }
    }

    #[test]
    fn what_was_not_taken_of_a_batch_is_known() {
        let partial = PartialSuccess { rejected_spans: 3, error_message: "too old".into() };
        let body = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
        let expected = Answer::Taken(3, "too old".into());
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), body.clone().into(), now), expected);
        let framed = [&[0, 0, 0, 0, body.len() as u8], &*body].concat();
        let trailers = fields(&[("grpc-status", "0")]);
        assert_eq!(of_grpc(StatusCode::OK, &HeaderMap::new(), &trailers, &framed.into()), expected);
        let nothing = of_grpc(StatusCode::OK, &HeaderMap::new(), &trailers, &Bytes::new());
        assert_eq!(nothing, Answer::Taken(0, String::new()));
        assert_eq!(
            of_http(StatusCode::OK, &HeaderMap::new(), "{}".into(), now),
            Answer::Taken(0, String::new())
        );
    }
}
