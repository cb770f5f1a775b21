//! Joins two connections byte for byte.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes per direction and read. One full TLS record each way.
const BUFFER: usize = 16 * 1024;

/// Copies both ways until both directions have ended; the end of one is passed on as a half-close. Gives the bytes
/// copied from `a` to `b` and from `b` to `a`.
pub async fn both_ways<A, B>(a: &mut A, b: &mut B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    tokio::io::copy_bidirectional_with_sizes(a, b, BUFFER, BUFFER).await
}
