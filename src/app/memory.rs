//! Gives memory that is free back to the system. glibc keeps what was freed for the next time; a sidecar that has had a
//! busy minute should not hold on to it for a week.

use std::time::Duration;

use tokio::time::Instant;

/// What may be free without being given back, bytes: less is not worth taking it up again.
const SPARE: u64 = 4 * 1024 * 1024;

/// Between two times that memory is given back.
const PAUSE: Duration = Duration::from_secs(10);

/// Decides when to give back.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Resident before there was any load, and when memory was last given back.
    since: Option<(u64, Instant)>,
}

impl Spare {
    /// To be told now and then how many bytes are resident.
    pub(super) fn look(&mut self, resident: u64, now: Instant) {
        if self.is_due(resident, now) {
            give_back();
        }
    }

    fn is_due(&mut self, resident: u64, now: Instant) -> bool {
        let (first, last) = self.since.get_or_insert((resident, now));
        let due = resident > *first + SPARE && now - *last >= PAUSE;
        if due {
            *last = now;
        }
        due
    }
}

/// Gives whole free pages back. Takes a few milliseconds for each 100 MB that are free, and holds up allocations
/// meanwhile.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe binding, and nothing that it asks of its caller")]
fn give_back() {
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_with_load_and_not_too_often() {
        let start = Instant::from_std(std::time::Instant::now());
        let mut spare = Spare::default();
        for (second, resident_mb, due) in [
            (0, 8, false),
            (1, 60, false),
            (10, 60, true),
            (11, 60, false),
            (20, 60, true),
            (60, 12, false),
            (90, 13, true),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(spare.is_due(resident_mb << 20, now), due, "at {second} s");
        }
    }
}
