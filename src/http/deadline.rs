//! How long a caller will wait, as requests say it from hop to hop: gRPC's own `grpc-timeout`, and a field like it for HTTP.
//!
//! A time that is left, never a moment: clocks differ. Each sidecar shortens it by what has passed.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Milliseconds that the caller will wait. The application sees it, and may pass it on with the requests that it makes for this one.
pub const TIMEOUT: HeaderName = HeaderName::from_static("x-pillion-timeout-ms");
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a caller waits on top of what it says, to the next sidecar: it is the caller's own that should say when it is over.
pub const GRACE: Duration = Duration::from_millis(50);

/// How long the caller will wait; zero: no longer. `None`: it does not say, or in words that nobody understands.
pub fn asked(headers: &HeaderMap) -> Option<Duration> {
    let of_grpc = headers.get(GRPC_TIMEOUT).and_then(|value| grpc(value.as_bytes()));
    let of_http = headers.get(TIMEOUT).and_then(|value| milliseconds(value.as_bytes()));
    of_grpc.into_iter().chain(of_http).min()
}

/// Says how long is left: in gRPC's words where the message is gRPC's.
pub fn tell(headers: &mut HeaderMap, left: Duration) {
    let is_grpc = headers.contains_key(GRPC_TIMEOUT) || super::headers::is_grpc(headers);
    // Rounded up: nobody further on shall give up before us.
    let milliseconds = left.as_nanos().div_ceil(1_000_000);
    if is_grpc {
        // At most eight digits.
        let text = match milliseconds {
            0..=99_999_999 => format!("{milliseconds}m"),
            _ => format!("{}S", left.as_secs().saturating_add(1).min(99_999_999)),
        };
        headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(text).expect("digits and a letter"));
        headers.remove(TIMEOUT);
    } else {
        let value = HeaderValue::from(u64::try_from(milliseconds).unwrap_or(u64::MAX));
        headers.insert(TIMEOUT, value);
    }
}

fn milliseconds(text: &[u8]) -> Option<Duration> {
    number(text, 15).map(Duration::from_millis)
}

fn grpc(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let number = number(digits, 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

fn number(digits: &[u8], most: usize) -> Option<u64> {
    let valid = (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_a_caller_asks_for() {
        for (pairs, expected) in [
            (&[][..], None),
            (&[("x-pillion-timeout-ms", "1500")], Some(Duration::from_millis(1500))),
            (&[("x-pillion-timeout-ms", "0")], Some(Duration::ZERO)),
            (&[("x-pillion-timeout-ms", "-1")], None),
            (&[("x-pillion-timeout-ms", "")], None),
            (&[("x-pillion-timeout-ms", "1e3")], None),
            (&[("x-pillion-timeout-ms", "9999999999999999")], None),
            (&[("grpc-timeout", "2H")], Some(Duration::from_secs(7200))),
            (&[("grpc-timeout", "3M")], Some(Duration::from_secs(180))),
            (&[("grpc-timeout", "4S")], Some(Duration::from_secs(4))),
            (&[("grpc-timeout", "99999999m")], Some(Duration::from_millis(99_999_999))),
            (&[("grpc-timeout", "6u")], Some(Duration::from_micros(6))),
            (&[("grpc-timeout", "7n")], Some(Duration::from_nanos(7))),
            (&[("grpc-timeout", "100000000m")], None),
            (&[("grpc-timeout", "7")], None),
            (&[("grpc-timeout", "m")], None),
            (&[("grpc-timeout", "5S"), ("x-pillion-timeout-ms", "10")], Some(Duration::from_millis(10))),
        ] {
            assert_eq!(asked(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_is_left_is_told_in_the_messages_own_words() {
        let left = Duration::from_micros(1_500_001);
        let mut http = headers(&[("x-pillion-timeout-ms", "9000")]);
        tell(&mut http, left);
        assert_eq!(http, headers(&[("x-pillion-timeout-ms", "1501")]));
        let mut grpc = headers(&[("content-type", "application/grpc+proto"), ("x-pillion-timeout-ms", "7")]);
        tell(&mut grpc, left);
        assert_eq!(grpc, headers(&[("content-type", "application/grpc+proto"), ("grpc-timeout", "1501m")]));
        tell(&mut grpc, Duration::from_secs(1_000_000));
        assert_eq!(grpc["grpc-timeout"], "1000001S");
        assert_eq!(asked(&grpc), Some(Duration::from_secs(1_000_001)));
    }
}
