//! Opens TCP connections, with a deadline and a name for what went wrong.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::error::{Reason, Refusal};

/// Connects to an address.
///
/// # Errors
/// [`Reason::Connect`] with the system's words, or [`Reason::ConnectTimeout`].
pub async fn tcp(address: SocketAddr, within: Duration) -> Result<TcpStream, Refusal> {
    match timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            prepare(&stream);
            Ok(stream)
        }
        Ok(Err(error)) => Err(Refusal::new(Reason::Connect, format_args!("{address}: {error}"))),
        Err(_) => Err(Refusal::new(Reason::ConnectTimeout, format_args!("{address}: not within {within:?}"))),
    }
}

/// How long a connection may be silent before the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Sets what every connection of ours needs: small writes go at once, since we write whole messages, and a peer that
/// has vanished is noticed.
pub(super) fn prepare(stream: &TcpStream) {
    let keep_alive = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 4);
    let prepared =
        stream.set_nodelay(true).and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive));
    if let Err(error) = prepared {
        tracing::debug!(%error, "socket options");
    }
}
