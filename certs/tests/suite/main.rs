//! Real handshakes over in-memory pipes: who gets in, who doesn't and why, and what rotation leaves alone.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod authorities;
mod bootstrap;
mod peers;
mod refusals;
mod renewal;
mod sessions;
