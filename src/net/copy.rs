//! Joins two connections byte for byte. An end is passed on as an end, and a reset as a reset: what one side takes for the
//! whole is what the other one sent.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::io::{Abort, Reset};
use crate::telemetry::{edge::Edge, listeners::Carried};

/// Bytes of one read: a full TLS record.
const SCRATCH: usize = 16 * 1024;
/// What a side that takes no more has still said is passed on for at most so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

thread_local! {
    /// What all joined connections of a thread read into, one at a time; each keeps only what the other side does not take
    /// at once, so that idle ones hold no buffers.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// What became of two joined connections.
#[derive(Debug)]
pub struct Copied {
    /// Bytes from the first to the second.
    pub sent: u64,
    /// Bytes from the second to the first.
    pub received: u64,
    /// Why they ended, where it was not that both sides had said all: both have been cut off then.
    pub broken: Option<io::Error>,
}

impl Copied {
    /// Counts them as a connection of an edge, and has those hear of it who listen.
    pub fn count(&self, edge: &Edge, carried: Carried) {
        edge.connection(carried, self.sent, self.received, self.broken.as_ref());
    }
}

/// Copies both ways until both directions have ended; the end of one is passed on as a half-close. When one connection
/// breaks, the other one is [cut off](Abort), so that its peer hears of it as of a reset, too: also after a half-close. Who
/// takes no more may still have said something: that is passed on first.
pub async fn both_ways<A, B>(a: &mut A, b: &mut B) -> Copied
where
    A: AsyncRead + AsyncWrite + Abort + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Abort + Unpin + ?Sized,
{
    let (mut there, mut back) = (Way::default(), Way::default());
    let mut patience: Option<Pin<Box<Sleep>>> = None;
    let joined = poll_fn(|cx| {
        // Both are polled, whichever has ended or waits.
        let over = (
            there.poll(cx, a, b, back.unheard.is_some())?.is_ready(),
            back.poll(cx, b, a, there.unheard.is_some())?.is_ready(),
        );
        match over {
            (true, true) => Poll::Ready(Ok(())),
            _ if there.unheard.is_some() || back.unheard.is_some() => {
                let patience = patience.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS)));
                patience.as_mut().poll(cx).map(Ok)
            }
            (true, false) => there.watch(cx, a),
            (false, true) => back.watch(cx, b),
            (false, false) => Poll::Pending,
        }
    });
    let broken = joined.await.err().or(there.unheard).or(back.unheard);
    if broken.is_some() {
        a.abort();
        b.abort();
    }
    Copied { sent: there.copied, received: back.copied, broken }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read, and not yet written.
    waiting: Vec<u8>,
    /// Of `waiting`, how much has been written.
    written: usize,
    copied: u64,
    unflushed: bool,
    /// There is nothing more to read.
    ended: bool,
    /// The other side has been told so.
    told: bool,
    /// Why the other side takes no more: this direction is over.
    unheard: Option<io::Error>,
    /// Tells when who has ended cleanly is reset after all.
    reset: Option<Reset>,
}

impl Way {
    /// Fails when there is no more to read because the connection broke. `last`: `from` takes no more, so that its end is none
    /// that may be passed on as a clean one.
    fn poll<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        last: bool,
    ) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin + ?Sized,
        T: AsyncWrite + Unpin + ?Sized,
    {
        while !self.told && self.unheard.is_none() {
            match ready!(self.step(cx, from, to, last)) {
                Ok(()) => {}
                Err(Broken::Read(error)) => return Poll::Ready(Err(error)),
                Err(Broken::Write(error)) => self.unheard = Some(error),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn step<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        last: bool,
    ) -> Poll<Result<(), Broken>>
    where
        F: AsyncRead + Unpin + ?Sized,
        T: AsyncWrite + Unpin + ?Sized,
    {
        ready!(self.poll_waiting(cx, to)).map_err(Broken::Write)?;
        if self.ended {
            let told = match last {
                true => Pin::new(to).poll_flush(cx),
                false => Pin::new(to).poll_shutdown(cx),
            };
            ready!(told).map_err(Broken::Write)?;
            self.told = true;
        } else if self.poll_read(cx, from, to)?.is_pending() {
            if self.unflushed {
                ready!(Pin::new(to).poll_flush(cx)).map_err(Broken::Write)?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Fails when `from`, which has ended, is reset.
    fn watch<F: Abort + ?Sized>(&mut self, cx: &mut Context<'_>, from: &F) -> Poll<io::Result<()>> {
        let reset = self.reset.get_or_insert_with(|| from.reset());
        reset.as_mut().poll(cx).map(|()| Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Writes what waits.
    fn poll_waiting<T>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>>
    where
        T: AsyncWrite + Unpin + ?Sized,
    {
        while self.written < self.waiting.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.waiting[self.written..]))?;
            self.count(written)?;
            self.written += written;
        }
        if self.written > 0 {
            (self.waiting, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes as much of it as is taken at once; the rest waits.
    fn poll_read<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<Result<(), Broken>>
    where
        F: AsyncRead + Unpin + ?Sized,
        T: AsyncWrite + Unpin + ?Sized,
    {
        READ.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer)).map_err(Broken::Read)?;
            let read = buffer.filled();
            self.ended = read.is_empty();
            if !self.ended {
                let written = match Pin::new(to).poll_write(cx, read) {
                    Poll::Ready(written) => {
                        written.and_then(|written| self.count(written)).map_err(Broken::Write)?
                    }
                    Poll::Pending => 0,
                };
                self.waiting.extend_from_slice(&read[written..]);
            }
            Poll::Ready(Ok(()))
        })
    }

    fn count(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.copied += written as u64;
        self.unflushed = true;
        Ok(written)
    }
}

/// Which of the two has failed.
enum Broken {
    Read(io::Error),
    Write(io::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("it listens"), far.expect("somebody connects").0)
    }

    /// The ends of two connections that are joined, and the joint.
    async fn joined() -> (TcpStream, TcpStream, tokio::task::JoinHandle<Copied>) {
        let ((near, mut a), (mut b, far)) = (tcp().await, tcp().await);
        (near, far, tokio::spawn(async move { both_ways(&mut a, &mut b).await }))
    }

    #[tokio::test]
    async fn an_end_is_half_an_end() {
        let (mut near, mut far, joint) = joined().await;
        near.write_all(b"question").await.expect("open");
        near.shutdown().await.expect("open");
        let mut question = String::new();
        far.read_to_string(&mut question).await.expect("a clean end");
        far.write_all(b"answer").await.expect("the other direction is open");
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.expect("a clean end");
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        let copied = joint.await.expect("no panic");
        assert_eq!((copied.sent, copied.received), (8, 6));
        assert!(copied.broken.is_none(), "{copied:?}");
    }

    #[tokio::test]
    async fn a_reset_is_a_reset_after_what_came_before_it() {
        for backwards in [false, true] {
            let (near, far, joint) = joined().await;
            let (mut breaks, mut hears) = if backwards { (far, near) } else { (near, far) };
            breaks.write_all(b"some").await.expect("open");
            let mut some = [0; 4];
            hears.read_exact(&mut some).await.expect("it arrives");
            breaks.set_zero_linger().expect("a socket has that option");
            drop(breaks);
            let error = hears.read_u8().await.expect_err("no clean end");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            let copied = joint.await.expect("no panic");
            assert_eq!(copied.sent + copied.received, 4, "what was carried counts");
            assert!(copied.broken.is_some());
        }
    }

    #[tokio::test]
    async fn a_reset_is_a_reset_also_after_a_half_close() {
        for backwards in [false, true] {
            let (near, far, joint) = joined().await;
            let (mut breaks, mut hears) = if backwards { (far, near) } else { (near, far) };
            breaks.write_all(b"some").await.expect("open");
            breaks.shutdown().await.expect("open");
            let mut some = String::new();
            hears.read_to_string(&mut some).await.expect("a clean end");
            assert_eq!(some, "some");
            breaks.set_zero_linger().expect("a socket has that option");
            drop(breaks);
            hears.ready(tokio::io::Interest::ERROR).await.expect("a socket");
            assert!(joint.await.expect("no panic").broken.is_some());
        }
    }

    #[tokio::test]
    async fn who_takes_no_more_is_heard_to_the_end() {
        for backwards in [false, true] {
            let ((near, mut a), (mut b, far)) = (tcp().await, tcp().await);
            let (mut talks, mut breaks) = if backwards { (far, near) } else { (near, far) };
            // All of it is there before anything is copied: the first write goes to one who is gone already.
            talks.write_all(b"too much").await.expect("open");
            let words = vec![b'w'; 50_000];
            breaks.write_all(&words).await.expect("it fits what the system keeps");
            breaks.set_zero_linger().expect("a socket has that option");
            drop(breaks);
            let joint = tokio::spawn(async move { both_ways(&mut a, &mut b).await });
            let mut heard = Vec::new();
            let error = talks.read_to_end(&mut heard).await.expect_err("no clean end");
            assert_eq!((heard.len(), error.kind()), (words.len(), io::ErrorKind::ConnectionReset));
            assert!(joint.await.expect("no panic").broken.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_holds_up_the_other_and_no_more() {
        let ((mut near, mut a), (mut b, mut far)) = (duplex(1024), duplex(1024));
        let joint = tokio::spawn(async move { both_ways(&mut a, &mut b).await });
        let sent: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let writing = tokio::time::timeout(std::time::Duration::from_secs(60), near.write_all(&sent));
        assert!(writing.await.is_err(), "nobody reads: it must not be taken in");
        far.write_all(b"meanwhile").await.expect("the other direction is open");
        let mut word = [0; 9];
        near.read_exact(&mut word).await.expect("it arrives");
        assert_eq!(&word, b"meanwhile");
        drop((near, far));
        assert!(joint.await.expect("no panic").broken.is_some());
    }

    async fn carry(writes: Vec<usize>, room: (usize, usize)) -> (Vec<u8>, Vec<u8>) {
        let (near, mut a): (DuplexStream, _) = duplex(room.0);
        let (mut b, mut far) = duplex(room.1);
        let sent: Vec<u8> = (0..writes.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
        let (mut rest, mut near) = (&sent[..], near);
        let writing = async {
            for length in writes {
                let (now, later) = rest.split_at(length);
                near.write_all(now).await.expect("it is read");
                rest = later;
            }
            near.shutdown().await.expect("open");
        };
        let reading = async {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.expect("a clean end");
            far.shutdown().await.expect("open");
            received
        };
        let ((), received, copied) = tokio::join!(writing, reading, both_ways(&mut a, &mut b));
        assert!(copied.broken.is_none());
        (sent, received)
    }

    proptest! {
        #[test]
        fn the_same_bytes_whatever_the_sizes(
            writes in proptest::collection::vec(1..40_000_usize, 0..12),
            room in (1..70_000_usize, 1..70_000_usize),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (sent, received) = runtime.block_on(carry(writes, room));
            prop_assert!(sent == received);
        }
    }
}
