//! Durations as the Gateway API writes them (GEP-2257): "1h30m", "10s", "250ms".

use std::time::Duration;

use super::fault::{Faults, Path};

/// The longest duration that fits the wire, in milliseconds: 24 days, more than any timeout here needs.
const MAX_MS: u128 = 24 * 24 * 3600 * 1000;

/// Reads one.
///
/// # Errors
/// What the text must look like.
pub fn parse(text: &str) -> Result<Duration, String> {
    match text.parse::<gateway_api::Duration>() {
        Ok(duration) if duration.as_millis() <= MAX_MS => {
            Ok(Duration::from_millis(u64::try_from(duration.as_millis()).expect("checked against MAX_MS")))
        }
        Ok(_) => Err(format!("must be at most 24 days, is {text:?}")),
        Err(_) => Err(format!("must be a duration such as \"10s\", \"250ms\" or \"1h30m\", is {text:?}")),
    }
}

/// Milliseconds for the wire; a text that was never admitted counts as none given.
pub fn wire_ms(text: Option<&String>) -> u32 {
    given_ms(text).unwrap_or(0)
}

/// The same where zero is not what it is when nothing is given.
pub fn given_ms(text: Option<&String>) -> Option<u32> {
    let duration = parse(text?).ok()?;
    u32::try_from(duration.as_millis()).ok()
}

/// Notes a duration that is malformed or outside its bounds. Gives it where it is neither.
pub(super) fn check(
    faults: &mut Faults,
    at: &Path,
    text: Option<&String>,
    minimum: Duration,
    maximum: Duration,
) -> Option<Duration> {
    match parse(text?) {
        Ok(duration) if duration < minimum || duration > maximum => {
            let (minimum, maximum) = (written(minimum), written(maximum));
            faults.add(at, format!("must be between {minimum} and {maximum}, is {:?}", text?));
            None
        }
        Ok(duration) => Some(duration),
        Err(message) => {
            faults.add(at, message);
            None
        }
    }
}

/// As it may be written here: without days.
fn written(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && duration == Duration::from_secs(seconds / 3600 * 3600) => {
            format!("{}h", seconds / 3600)
        }
        _ => humantime::format_duration(duration).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_they_may_be_used() {
        for (ms, expected) in
            [(1, "1ms"), (1000, "1s"), (60_000, "1m"), (3_600_000, "1h"), (86_400_000, "24h")]
        {
            let text = written(Duration::from_millis(ms));
            assert_eq!((text.as_str(), parse(expected)), (expected, Ok(Duration::from_millis(ms))));
        }
    }

    #[test]
    fn reads_what_gep_2257_allows() {
        for (text, expected) in
            [("0s", Some(0)), ("250ms", Some(250)), ("1h30m", Some(5_400_000)), ("1m1m", Some(120_000))]
        {
            assert_eq!(parse(text).ok().map(|duration| duration.as_millis()), expected, "{text}");
        }
        for bad in ["", "1", "1.5s", "-1s", "10 s", "1d", "100000s", "99999h", "1us"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
