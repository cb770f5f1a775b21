//! Sockets: listening, connecting, copying, and telling a protocol from its first bytes.

/// Writes to the `io` of a connection that is special about reading only, and cuts it off.
macro_rules! write_through {
    ($connection:ident) => {
        impl<T: $crate::net::io::Abort> $crate::net::io::Abort for $connection<T> {
            fn abort(&mut self) {
                self.io.abort();
            }

            fn reset(&self) -> $crate::net::io::Reset {
                self.io.reset()
            }
        }

        impl<T: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for $connection<T> {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffer: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.io).poll_write(cx, buffer)
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buffers: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
            }

            fn is_write_vectored(&self) -> bool {
                self.io.is_write_vectored()
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.io).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
            }
        }
    };
}

pub mod connect;
pub mod copy;
pub mod io;
pub mod listen;
pub mod nameservers;
pub mod original;
pub mod read_ahead;
pub mod resolve;
pub mod self_test;
pub mod sniff;
