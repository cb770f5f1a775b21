//! Any connection that messages are carried on, as one type: the codecs are compiled once for all of them, and what is
//! large of a connection is moved about as a pointer.

use std::{
    io::{IoSlice, Result},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::{read_ahead::ReadAhead, sniff::Prefixed};

/// A connection.
#[derive(Debug)]
pub enum Io {
    /// With the application, or with a host outside.
    Tcp(TcpStream),
    /// From another sidecar.
    Accepted(Box<server::TlsStream<ReadAhead<Prefixed<TcpStream>>>>),
    /// To another sidecar.
    Connected(Box<client::TlsStream<ReadAhead<TcpStream>>>),
    /// What CONNECT has opened.
    Tunnel(Box<dyn Duplex>),
}

/// A connection that can be cut off, where a clean end would say that all had been said.
pub trait Abort {
    /// Has it end with a reset (RFC 9293 3.10.7.1) when it is dropped; what has not been sent by then is not sent any more.
    /// Through TLS, too: without a `close_notify` the peer's sidecar can tell (RFC 8446 6.1), and passes the reset on.
    fn abort(&mut self);

    /// Waits until the peer, which has ended its direction, resets the connection. Reading does not tell: it gives the end
    /// for ever.
    fn reset(&self) -> Reset;
}

/// Ends when a connection has been reset.
pub type Reset = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Abort for TcpStream {
    fn abort(&mut self) {
        // Only fails on what is no socket any more.
        let _ = self.set_zero_linger();
    }

    fn reset(&self) -> Reset {
        // By a descriptor of its own: who waits on this one would have to borrow it.
        let own = self.as_fd().try_clone_to_owned();
        let own = own.and_then(|own| Self::from_std(own.into()));
        Box::pin(async move {
            match own {
                Ok(own) if own.ready(Interest::ERROR).await.is_ok() => {}
                // No descriptor is left for that: the next write will tell.
                _ => std::future::pending().await,
            }
        })
    }
}

impl<T: Abort> Abort for client::TlsStream<T> {
    fn abort(&mut self) {
        self.get_mut().0.abort();
    }

    fn reset(&self) -> Reset {
        self.get_ref().0.reset()
    }
}

impl<T: Abort> Abort for server::TlsStream<T> {
    fn abort(&mut self) {
        self.get_mut().0.abort();
    }

    fn reset(&self) -> Reset {
        self.get_ref().0.reset()
    }
}

impl<T: Abort + ?Sized> Abort for Box<T> {
    fn abort(&mut self) {
        (**self).abort();
    }

    fn reset(&self) -> Reset {
        (**self).reset()
    }
}

/// In memory, where a dropped end is all there is.
#[cfg(test)]
impl Abort for tokio::io::DuplexStream {
    fn abort(&mut self) {}

    fn reset(&self) -> Reset {
        Box::pin(std::future::pending())
    }
}

/// Any connection, erased: where it does not matter which.
pub trait Duplex: AsyncRead + AsyncWrite + Abort + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Abort + Send + Unpin> Duplex for T {}

impl std::fmt::Debug for dyn Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Duplex")
    }
}

macro_rules! each {
    ($io:expr, $inner:ident => $do:expr) => {
        match $io {
            Io::Tcp($inner) => $do,
            Io::Accepted($inner) => $do,
            Io::Connected($inner) => $do,
            Io::Tunnel($inner) => $do,
        }
    };
}

impl Abort for Io {
    fn abort(&mut self) {
        each!(self, io => io.abort());
    }

    fn reset(&self) -> Reset {
        each!(self, io => io.reset())
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buffer))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
