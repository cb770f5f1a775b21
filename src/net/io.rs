//! Any connection that messages are carried on, as one type: the codecs are compiled once for all of them, and what is
//! large of a connection is moved about as a pointer.

use std::{
    io::{IoSlice, Result},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
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

/// Any connection, erased: where it does not matter which.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl std::fmt::Debug for dyn Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Duplex")
    }
}

impl Io {
    /// Has it end by a reset when it is dropped, where it is a plain connection: what was refused must not look like one
    /// that went well.
    pub fn abort(&self) {
        if let Self::Tcp(stream) = self {
            // It is gone already, then.
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
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
