//! Buckets of time over a span that moves with the clock.

use std::collections::VecDeque;

use super::packed::{self, Packed};

/// Buckets of one width. Times are whole seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ring<T> {
    pub(super) width: i64,
    pub(super) length: i64,
    /// By start, ascending; each start is a multiple of `width`. Packed: of many buckets hardly one is looked at.
    buckets: VecDeque<(i64, Box<[u8]>)>,
    of: std::marker::PhantomData<T>,
}

impl<T: Packed> Ring<T> {
    pub(super) fn new(width: i64, length: i64) -> Self {
        Self { width, length, buckets: VecDeque::new(), of: std::marker::PhantomData }
    }

    pub(super) fn add(&mut self, at: i64, counts: &T) {
        let start = at - at.rem_euclid(self.width);
        let newest = self.newest().map_or(start, |newest| newest.max(start));
        self.forget(newest);
        if start <= newest - self.width * self.length {
            return;
        }
        let place = self.buckets.partition_point(|(other, _)| *other < start);
        let mut packed = Vec::with_capacity(128);
        match self.buckets.get_mut(place) {
            Some((other, bucket)) if *other == start => {
                let mut sum = T::unpack(bucket);
                sum.add(counts);
                sum.pack(&mut packed);
                *bucket = packed.as_slice().into();
            }
            _ => {
                counts.pack(&mut packed);
                self.buckets.insert(place, (start, packed.as_slice().into()));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The start of the newest bucket.
    pub(super) fn newest(&self) -> Option<i64> {
        self.buckets.back().map(|(start, _)| *start)
    }

    /// Takes another's buckets if it has none itself.
    pub(super) fn take_missing(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        }
    }

    /// Writes everything kept: how many buckets, and of each how many widths after the one before it begins.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        packed::put(to, self.buckets.len() as u64);
        let mut previous = 0;
        for (start, bucket) in &self.buckets {
            // Neither is before the epoch, but for a clock that is very wrong.
            packed::put(to, ((start - previous) / self.width).unsigned_abs());
            packed::put_bytes(to, bucket);
            previous = *start;
        }
    }

    /// Puts back what was written before a restart and is not too old at `now`. Nothing from later than that, as after a clock was set back: it
    /// would push out what is counted next. `None`: these bytes are no such thing, or have what only a later release knows.
    pub(super) fn restore(&mut self, now: i64, from: &mut &[u8]) -> Option<()> {
        let oldest = now - now.rem_euclid(self.width) - self.width * self.length;
        let mut start = 0i64;
        let mut known = T::default();
        for _ in 0..packed::take(from)? {
            let widths = i64::try_from(packed::take(from)?).ok()?;
            start = start.checked_add(widths.checked_mul(self.width)?)?;
            let bucket = packed::take_bytes(from)?;
            // Nobody who reads it later could say so.
            let mut rest = bucket;
            known.add_packed(&mut rest)?;
            if !rest.is_empty() {
                return None;
            }
            if start > oldest && start <= now && self.newest().is_none_or(|newest| newest < start) {
                self.buckets.push_back((start, bucket.into()));
            }
        }
        Some(())
    }

    fn forget(&mut self, now: i64) {
        let oldest = now - self.width * self.length;
        while self.buckets.front().is_some_and(|(start, _)| *start <= oldest) {
            self.buckets.pop_front();
        }
    }

    /// Whether nothing at or after `from` was forgotten yet.
    pub(super) fn reaches(&self, from: i64) -> bool {
        self.newest().is_none_or(|newest| from > newest - self.width * self.length)
    }

    pub(super) fn between(&self, from: i64, until: i64) -> impl Iterator<Item = (i64, T)> {
        self.packed_between(from, until).map(|(start, bucket)| (*start, T::unpack(bucket)))
    }

    /// All of a span together.
    pub(super) fn sum(&self, from: i64, until: i64) -> T {
        let mut sum = T::default();
        for (_, bucket) in self.packed_between(from, until) {
            let whole = sum.add_packed(&mut &bucket[..]);
            debug_assert!(whole.is_some(), "only what was packed is kept");
        }
        sum
    }

    fn packed_between(&self, from: i64, until: i64) -> impl Iterator<Item = &(i64, Box<[u8]>)> {
        let first = self.buckets.partition_point(|(start, _)| *start < from);
        let between = self.buckets.range(first..).take_while(move |(start, _)| *start < until);
        #[cfg(test)]
        let between = between.inspect(|_| READ.set(READ.get() + 1));
        between
    }
}

#[cfg(test)]
thread_local! {
    /// Buckets that this thread has looked into.
    pub(crate) static READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
impl<T> Ring<T> {
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// About what it takes of memory besides itself: an allocation is of whole 16 bytes, with 8 of its own.
    pub(super) fn bytes(&self) -> usize {
        let boxes = self.buckets.iter().map(|(_, bucket)| (bucket.len() + 8).next_multiple_of(16).max(32));
        self.buckets.capacity() * size_of::<(i64, Box<[u8]>)>() + boxes.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Action, Counts, Spent, SpentSums},
        *,
    };

    const NOW: i64 = 1_000_000_000;

    /// Two good buckets with one between them, or one alone.
    fn restored<T: Packed>(good: &T, bucket: &[u8], alone: bool) -> Option<usize> {
        let mut ring = Ring::<T>::new(10, 30);
        if !alone {
            ring.add(NOW - 20, good);
            ring.add(NOW, good);
        }
        let place = ring.buckets.len().min(1);
        ring.buckets.insert(place, (NOW - 10, bucket.into()));
        let mut written = Vec::new();
        ring.write(&mut written);
        let mut read = Ring::<T>::new(10, 30);
        read.restore(NOW, &mut &written[..]).map(|()| read.len())
    }

    fn only_whole_buckets<T: Packed>(good: &T) {
        let mut packed = Vec::new();
        good.pack(&mut packed);
        for alone in [true, false] {
            assert_eq!(restored(good, &packed, alone), Some(if alone { 1 } else { 3 }));
            for end in 0..packed.len() {
                assert_eq!(restored(good, &packed[..end], alone), None, "cut at {end}");
            }
            let more = [&packed[..], &[0]].concat();
            assert_eq!(restored(good, &more, alone), None, "more than is known");
        }
    }

    #[test]
    fn only_buckets_that_can_be_read_whole_are_restored() {
        let mut counts = Counts { requests: 300, ..Counts::default() };
        counts.actions.count(Action::Shed, "low", 3);
        only_whole_buckets(&counts);
        let mut spent = Spent { requests: 300, ..Spent::default() };
        spent.counts.push(((3, 9), 7));
        only_whole_buckets(&spent);
        only_whole_buckets(&SpentSums::of(&spent));
        // What policies do in a later release.
        let mut later = Vec::new();
        counts.pack(&mut later);
        let action = later.len() - 3;
        assert_eq!(later[action], Action::Shed as u8);
        later[action] = Action::ALL.len() as u8;
        assert_eq!(restored(&counts, &later, false), None);
    }
}
