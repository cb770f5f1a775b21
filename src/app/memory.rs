//! When memory that is free goes back to the system. glibc gives back what is free at the end of a heap as soon as it is
//! 128 KiB, which under load is to take it up again at once, page by page; and what is free elsewhere never, although a
//! sidecar that has had a busy minute should not hold on to it for a week. So: not at once, but later and all of it.

use std::time::Duration;

use tokio::time::Instant;

/// What may be free without being given back, bytes: less is not worth taking it up again.
const SPARE: u64 = 4 * 1024 * 1024;

/// The end of a heap is kept up to this size, bytes.
const KEPT: i32 = 8 * 1024 * 1024;
/// What is larger than this is mapped by itself, bytes. To be said along with the other, or it would become fixed at 128 KiB.
const MAPPED: i32 = 1024 * 1024;

/// Between two times that memory is given back; longer and longer, up to the second, while that brings little.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// What starting has left over is given back after so long.
const STARTED: Duration = Duration::from_secs(2);

/// Decides when to give back.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// When this was first asked.
    began: Option<Instant>,
    last: Option<Last>,
}

/// The last time.
#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    /// Resident after the start.
    first: u64,
    /// Resident before.
    before: u64,
    /// Resident after it, once that is known.
    after: Option<u64>,
    pause: Duration,
}

impl Spare {
    /// To be told now and then how many bytes are resident.
    pub(super) fn look(&mut self, resident: u64, now: Instant) {
        if self.is_due(resident, now) {
            give_back();
        }
    }

    fn is_due(&mut self, resident: u64, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        let Some(last) = &mut self.last else {
            let due = now - began >= STARTED;
            if due {
                let last = Last { at: now, first: resident, before: resident, after: None, pause: PAUSE.0 };
                self.last = Some(last);
            }
            return due;
        };
        let after = *last.after.get_or_insert_with(|| {
            // What is in use cannot be given back: there is no hurry to find that again.
            let little = resident > last.first + SPARE && resident.abs_diff(last.before) < SPARE;
            last.pause = if little { (last.pause * 2).min(PAUSE.1) } else { PAUSE.0 };
            resident.min(last.before)
        });
        let grown = resident > after + SPARE;
        let pause = if grown { PAUSE.0 } else { last.pause };
        let due = resident > last.first + SPARE && now - last.at >= pause;
        if due {
            *last = Last { at: now, before: resident, after: None, ..*last };
        }
        due
    }
}

/// Makes the allocator keep what is free for now. To be called before there are other threads.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe binding, and nothing that it asks of its caller")]
pub(super) fn keep() {
    // SAFETY: mallopt(3) may be called at any time.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Other allocators have their own ways.
#[cfg(not(target_env = "gnu"))]
pub(super) fn keep() {}

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
    fn what_starting_left_over_then_what_came_with_load_and_not_too_often() {
        let start = Instant::from_std(std::time::Instant::now());
        let mut spare = Spare::default();
        for (second, resident_mb, due) in [
            (0, 9, false),
            (1, 9, false),
            (2, 8, true),
            (3, 60, false),
            (12, 60, true),
            // It was free: the next is not far.
            (13, 10, false),
            (22, 60, true),
            // It is in use: the next waits.
            (23, 60, false),
            (32, 60, false),
            (42, 60, true),
            (43, 60, false),
            (62, 60, false),
            // More has come.
            (63, 70, true),
            (64, 10, false),
            (600, 11, false),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(spare.is_due(resident_mb << 20, now), due, "at {second} s");
        }
    }
}
