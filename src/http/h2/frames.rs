//! Watches the frames that a peer sends for those that cost work and carry nothing: PING, SETTINGS, PRIORITY, and what no
//! specification knows. `h2` bounds everything else that can be too much, but answers these for ever.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// A frame's header, bytes (RFC 9113 4.1).
const HEADER: usize = 9;
/// What a client says before its first frame, bytes (RFC 9113 3.4).
const PREFACE: usize = 24;

/// What one such frame costs. More than its answer has bytes (17), so that answers never pay for questions.
const COST: u64 = 32;
/// What may be spent at once: 1,000 frames.
const MOST: u64 = 1000 * COST;
/// What a second is worth: 100 frames.
const PER_SECOND: u64 = 100 * COST;

/// What a peer may still spend on frames that carry nothing. Every byte of anything else earns one, whoever sends it: gRPC's
/// clients measure the connection with a PING for almost every message that they get.
#[derive(Debug)]
struct Allowance {
    left: u64,
    refilled: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: MOST, refilled: now }
    }

    fn earn(&mut self, bytes: usize) {
        self.left = (self.left + bytes as u64).min(MOST);
    }

    /// False: it is more than there is.
    fn spend(&mut self, frames: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).min(Duration::from_secs(60));
        self.refilled = now;
        self.left = (self.left + PER_SECOND * passed.as_millis() as u64 / 1000).min(MOST);
        let rest = self.left.checked_sub(frames as u64 * COST);
        self.left = rest.unwrap_or_default();
        rest.is_some()
    }
}

/// Where in the peer's frames we are.
#[derive(Debug)]
struct Frames {
    header: [u8; HEADER],
    /// Of `header`, how much has come.
    have: usize,
    /// Bytes up to the next header.
    skip: usize,
}

impl Frames {
    fn of_a_client() -> Self {
        Self { header: [0; HEADER], have: 0, skip: PREFACE }
    }

    /// Goes on with these bytes; gives how many frames that carry nothing begin in them.
    fn idle_among(&mut self, mut bytes: &[u8]) -> usize {
        let mut idle = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let (now, later) = bytes.split_at(bytes.len().min(HEADER - self.have));
            self.header[self.have..][..now.len()].copy_from_slice(now);
            self.have += now.len();
            bytes = later;
            if self.have == HEADER {
                let [high, middle, low, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.have = 0;
                idle += usize::from(carries_nothing(kind));
            }
        }
        idle
    }
}

/// PRIORITY, SETTINGS, PING (RFC 9113 6), and whatever has no meaning here (RFC 9113 5.5).
fn carries_nothing(kind: u8) -> bool {
    matches!(kind, 2 | 4 | 6 | 10..)
}

/// Whether a peer has sent too much that carries nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Flood(Rc<Cell<bool>>);

impl Flood {
    pub(super) fn is_on(&self) -> bool {
        self.0.get()
    }
}

/// A client's connection whose frames are watched. After too many of the idle kind nothing more is read from it.
#[derive(Debug)]
pub(super) struct Watched<T> {
    io: T,
    frames: Frames,
    allowance: Allowance,
    flood: Flood,
}

impl<T> Watched<T> {
    pub(super) fn new(io: T) -> (Self, Flood) {
        let flood = Flood::default();
        let allowance = Allowance::new(Instant::now());
        (Self { io, frames: Frames::of_a_client(), allowance, flood: flood.clone() }, flood)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flood.is_on() {
            // Whoever serves the connection looks for it after every turn, and ends it.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        match this.frames.idle_among(read) {
            0 => this.allowance.earn(read.len()),
            idle => this.flood.0.set(!this.allowance.spend(idle, Instant::now())),
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buffer))?;
        self.allowance.earn(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, buffers))?;
        self.allowance.earn(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        [&size[1..], &[kind, 0, 0, 0, 0, 1], &vec![6; length]].concat()
    }

    proptest! {
        #[test]
        fn frames_are_told_apart_however_they_come(
            sent in proptest::collection::vec((0_u8..20, 0_usize..300), 0..40),
            cut in 1_usize..100,
        ) {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            sent.iter().for_each(|(kind, length)| bytes.extend(frame(*kind, *length)));
            let mut frames = Frames::of_a_client();
            let found: usize = bytes.chunks(cut).map(|piece| frames.idle_among(piece)).sum();
            let expected = sent.iter().filter(|(kind, _)| matches!(kind, 2 | 4 | 6) || *kind > 9).count();
            prop_assert_eq!(found, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_ends_and_what_goes_with_messages_does_not() {
        let start = Instant::now();
        let mut flooded = Allowance::new(start);
        // Each is answered with 17 bytes.
        let taken = (0..10_000).take_while(|_| {
            flooded.earn(17);
            flooded.spend(1, start)
        });
        assert!((1000..3000).contains(&taken.count()));

        let mut measuring = Allowance::new(start);
        for message in 0..10_000 {
            measuring.earn(17 + 9 + 5 + 8);
            assert!(measuring.spend(1, start), "message {message}");
        }

        let mut keeping_alive = Allowance::new(start);
        for second in 0..10_000 {
            assert!(keeping_alive.spend(10, start + Duration::from_secs(second)), "second {second}");
        }
    }
}
