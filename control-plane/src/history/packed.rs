//! The form in which counts are kept, in memory and on disk: numbers, each of as many bytes as it needs, in a fixed order.
//!
//! A busy second of an edge is some twenty bytes so. As a structure with its maps and lists it would be several hundred.

use super::Tally;

/// Counts that can be kept so. Whatever changes the order or the meaning of their numbers raises the `VERSION` of the file on disk.
pub(super) trait Packed: Tally + Default {
    /// Writes all that was counted.
    fn pack(&self, to: &mut Vec<u8>);

    /// Adds what was packed. `None`: these bytes are no such thing, and what was added until then stays. Never panics.
    fn add_packed(&mut self, from: &mut &[u8]) -> Option<()>;

    /// What was packed.
    fn unpack(mut from: &[u8]) -> Self {
        let mut counts = Self::default();
        let whole = counts.add_packed(&mut from);
        debug_assert!(whole.is_some() && from.is_empty(), "only what was packed is kept");
        counts
    }
}

/// Seven bits to a byte, the lowest first.
pub(super) fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

pub(super) fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

pub(super) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

pub(super) fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

pub(super) fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(from)?).ok()
}

/// What sidecars say most: a byte each. Others are written out. New ones come last, since the file on disk has their numbers.
const WORDS: [&str; 44] = [
    "",
    "other",
    "unknown-service",
    "unknown-port",
    "outside-refused",
    "opaque-refused",
    "no-target",
    "route-not-matched",
    "no-backend",
    "no-identity",
    "discovery-timeout",
    "control-plane-away",
    "no-endpoints",
    "no-ready-endpoints",
    "breakers-open",
    "too-many-requests",
    "connection-limit",
    "queue-full",
    "no-address",
    "connect-failed",
    "connect-timeout",
    "tls-handshake",
    "peer-identity",
    "application-unreachable",
    "port-not-served",
    "not-processed",
    "reset",
    "peer-protocol",
    "deadline-exceeded",
    "idle-timeout",
    "request-timeout",
    "malformed-request",
    "headers-too-large",
    "uri-too-long",
    "upgrade-failed",
    "rate-limited",
    "overloaded",
    "too-many-connections",
    "body-too-large",
    "fault-injected",
    "plaintext-refused",
    "high",
    "normal",
    "low",
];

/// A word that is probably one of [`WORDS`]: its number is even, or the length of what is written out is odd.
pub(super) fn put_word(to: &mut Vec<u8>, word: &str) {
    match WORDS.iter().position(|known| *known == word) {
        Some(index) => put(to, (index as u64) << 1),
        None => {
            put(to, (word.len() as u64) << 1 | 1);
            to.extend_from_slice(word.as_bytes());
        }
    }
}

pub(super) fn take_word<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let told = take(from)?;
    let number = usize::try_from(told >> 1).ok()?;
    if told & 1 == 0 {
        return WORDS.get(number).copied();
    }
    let (word, rest) = from.split_at_checked(number)?;
    *from = rest;
    std::str::from_utf8(word).ok()
}

/// Counts by bucket, ascending; those that are zero are left out.
pub(super) fn put_histogram(to: &mut Vec<u8>, counts: impl Iterator<Item = (u8, u32)> + Clone) {
    let counts = counts.filter(|(_, count)| *count > 0);
    put(to, counts.clone().count() as u64);
    let mut next = 0;
    for (bucket, count) in counts {
        put(to, u64::from(bucket) - next);
        put(to, count.into());
        next = u64::from(bucket) + 1;
    }
}

/// Gives each bucket below `buckets` and its count to `add`.
pub(super) fn take_histogram(from: &mut &[u8], buckets: usize, mut add: impl FnMut(u8, u32)) -> Option<()> {
    let mut next = 0u64;
    for _ in 0..take(from)? {
        let bucket = next.checked_add(take(from)?)?;
        let count = u32::try_from(take(from)?).ok()?;
        let known = u8::try_from(bucket).ok().filter(|bucket| usize::from(*bucket) < buckets)?;
        add(known, count);
        next = bucket + 1;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Counts, Spent, SpentSums},
        *,
    };

    fn written(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    }

    #[test]
    fn numbers_and_words_come_back_in_as_few_bytes_as_they_need() {
        for (number, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            let bytes = written(|to| put(to, number));
            assert_eq!((bytes.len(), take(&mut &bytes[..])), (length, Some(number)), "{number}");
            assert_eq!(take(&mut &bytes[..length - 1]), None, "{number}, cut off");
        }
        for word in WORDS.into_iter().chain(["a-word-of-a-later-release", "wörter"]) {
            let bytes = written(|to| put_word(to, word));
            assert_eq!(take_word(&mut &bytes[..]), Some(word));
            assert_eq!(bytes.len() == 1, WORDS.contains(&word), "{word}");
        }
        assert_eq!(take(&mut &[0xff; 11][..]), None, "no end");
        assert_eq!(take_word(&mut &[200, 1][..]), None, "a number beyond the words");
        assert_eq!(take_word(&mut &[3, 0xff][..]), None, "no text");
    }

    #[test]
    fn words_are_told_apart() {
        let mut words = WORDS.to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), WORDS.len());
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_they_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Counts::default().add_packed(&mut &bytes[..]);
            let _ = Spent::default().add_packed(&mut &bytes[..]);
            let _ = SpentSums::default().add_packed(&mut &bytes[..]);
        }
    }
}
