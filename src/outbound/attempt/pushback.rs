//! What an answer says about another attempt: `Retry-After` (RFC 9110 10.2.3) and gRPC's `grpc-retry-pushback-ms` (gRFC A6).

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, header::RETRY_AFTER};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushback {
    /// Nothing.
    None,
    /// Not before so long.
    After(Duration),
    /// No other attempt.
    Never,
}

/// Reads it from an answer's header section, and its trailers where they have come already; `now` is by the clock on the wall.
pub(super) fn of(
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
    now: impl Fn() -> SystemTime,
) -> Pushback {
    let name = "grpc-retry-pushback-ms";
    if let Some(value) = headers.get(name).or_else(|| trailers?.get(name)) {
        let milliseconds = value.to_str().ok().and_then(|text| text.parse().ok());
        // Whatever is not a positive number means: do not.
        return milliseconds.map_or(Pushback::Never, |ms| Pushback::After(Duration::from_millis(ms)));
    }
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()) else {
        return Pushback::None;
    };
    if let Ok(seconds) = text.parse() {
        return Pushback::After(Duration::from_secs(seconds));
    }
    match httpdate::parse_http_date(text) {
        Ok(date) => Pushback::After(date.duration_since(now()).unwrap_or_default()),
        // Nobody knows what it means.
        Err(_) => Pushback::None,
    }
}

/// Of those who were asked to come back at the same moment, each comes at its own: up to a quarter later. `random` is in 0..1.
pub(super) fn spread(least: Duration, random: f64) -> Duration {
    least + least.mul_f64(0.25 * random)
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn nobody_comes_too_early_nor_all_together() {
        let second = Duration::from_secs(1);
        assert_eq!(spread(second, 0.0), second);
        assert_eq!(spread(second, 0.5), Duration::from_millis(1125));
        assert_eq!(spread(Duration::ZERO, 0.9), Duration::ZERO);
    }

    #[test]
    fn all_forms() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:00 GMT").expect("a date");
        let seconds = |seconds| Pushback::After(Duration::from_secs(seconds));
        for (name, value, expected) in [
            ("retry-after", "3", seconds(3)),
            ("retry-after", "0", seconds(0)),
            ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT", seconds(59)),
            ("retry-after", "Friday, 31-Dec-99 23:59:59 GMT", seconds(59)),
            ("retry-after", "Fri, 31 Dec 1999 23:58:00 GMT", seconds(0)),
            ("retry-after", "soon", Pushback::None),
            ("retry-after", "-1", Pushback::None),
            ("grpc-retry-pushback-ms", "250", Pushback::After(Duration::from_millis(250))),
            ("grpc-retry-pushback-ms", "-1", Pushback::Never),
            ("grpc-retry-pushback-ms", "soon", Pushback::Never),
            ("x-other", "1", Pushback::None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(of(&headers, None, || now), expected, "{name}: {value}");
            let in_trailers = if name.starts_with("grpc") { expected } else { Pushback::None };
            assert_eq!(of(&HeaderMap::new(), Some(&headers), || now), in_trailers, "{name}: {value}");
        }
    }
}
