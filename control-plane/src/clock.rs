//! The wall clock, read in one place. Decisions take the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the Unix epoch; zero for a clock set before it.
pub fn unix_ms() -> i64 {
    unix_ms_of(now())
}

/// The same of another time.
pub fn unix_ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
