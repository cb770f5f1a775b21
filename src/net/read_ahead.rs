//! Fewer system calls for bulk: rustls asks for 4 KiB at a time, and a record has up to 16 KiB.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes read at a time from a connection that carries bulk: four TLS records.
const AHEAD: usize = 64 * 1024;

/// A connection whose reads become larger than asked for, as long as there is enough to read. It holds a buffer only
/// while there is something in it: small messages are read straight into the caller's.
#[derive(Debug)]
pub struct ReadAhead<T> {
    io: T,
    ahead: BytesMut,
    /// The last read filled all the room that there was: more is waiting.
    bulk: bool,
}

impl<T> ReadAhead<T> {
    /// With nothing read yet.
    pub fn new(io: T) -> Self {
        Self { io, ahead: BytesMut::new(), bulk: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            if !this.bulk {
                let before = buffer.remaining();
                ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
                this.bulk = buffer.remaining() == 0 && before > 0;
                return Poll::Ready(Ok(()));
            }
            let mut ahead = BytesMut::with_capacity(AHEAD);
            let read = ready!(pin!(this.io.read_buf(&mut ahead)).poll(cx))?;
            this.bulk = read > buffer.remaining();
            this.ahead = ahead;
        }
        let taken = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..taken]);
        this.ahead.advance(taken);
        if this.ahead.is_empty() {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

write_through!(ReadAhead);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    proptest! {
        #[test]
        fn the_same_bytes_whatever_the_sizes_of_reads(
            writes in proptest::collection::vec(1..40_000_usize, 1..20), reads in 1..20_000_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (mut peer, io) = tokio::io::duplex(100_000);
                let sent: Vec<u8> = (0..writes.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
                let writing = {
                    let sent = sent.clone();
                    async move {
                        let mut rest = &sent[..];
                        for length in writes {
                            let (now, later) = rest.split_at(length);
                            peer.write_all(now).await.expect("read on");
                            rest = later;
                        }
                    }
                };
                let reading = async {
                    let (mut io, mut received) = (ReadAhead::new(io), Vec::new());
                    let mut buffer = vec![0; reads];
                    loop {
                        match io.read(&mut buffer).await.expect("readable") {
                            0 => break received,
                            read => received.extend_from_slice(&buffer[..read]),
                        }
                    }
                };
                let ((), received) = tokio::join!(writing, reading);
                assert!(received == sent);
            });
        }
    }

    #[tokio::test]
    async fn holds_nothing_when_all_is_taken() {
        let (mut peer, io) = tokio::io::duplex(100_000);
        peer.write_all(&[7; 50_000]).await.expect("room");
        let mut io = ReadAhead::new(io);
        let mut buffer = [0; 4096];
        io.read_exact(&mut buffer).await.expect("some");
        assert!(io.bulk && io.ahead.is_empty());
        io.read_exact(&mut buffer).await.expect("more");
        assert_eq!(io.ahead.len(), 50_000 - 2 * 4096);
        let mut rest = vec![0; 50_000 - 2 * 4096];
        io.read_exact(&mut rest).await.expect("the rest");
        assert_eq!(io.ahead.capacity(), 0);
    }
}
