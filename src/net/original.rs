//! Where a redirected connection was going before it was redirected.

use std::{fmt::Debug, io, net::SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// Tells where accepted connections were going.
pub trait OriginalDestination: Debug {
    /// Where `stream` was going; `None`: to where it was accepted, so nothing has redirected it.
    ///
    /// # Errors
    /// The system's: the connection is gone.
    fn of(&self, stream: &TcpStream) -> io::Result<Option<SocketAddr>>;
}

/// What the kernel's connection tracking remembers (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl OriginalDestination for Kernel {
    fn of(&self, stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
        let local = canonical(stream.local_addr()?);
        let socket = SockRef::from(stream);
        // What is asked for is of the packets' family: a socket for both carries IPv4 in IPv6's clothes.
        let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
        match original {
            Ok(address) => Ok(address.as_socket().map(canonical).filter(|original| *original != local)),
            // Not tracked, or there is no connection tracking at all: nothing can have redirected it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// IPv4 as such, also where a socket for both gives it as IPv6; without scope, which says nothing of a destination.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without any rules, nothing is redirected, in any family.
    #[tokio::test]
    async fn what_was_not_redirected_has_no_other_destination() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else {
                assert!(address.starts_with('['), "there is no IPv4");
                continue;
            };
            let mut there = listener.local_addr().expect("it is bound");
            if there.ip().is_unspecified() {
                // IPv4 by a socket for both.
                there.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            let connecting = TcpStream::connect(there);
            let (client, accepted) = tokio::join!(connecting, listener.accept());
            let _client = client.expect("it is listened on");
            let (stream, _) = accepted.expect("somebody connected");
            assert_eq!(Kernel.of(&stream).expect("it is open"), None, "{address}");
        }
    }
}
