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
            no_delay(&stream);
            Ok(stream)
        }
        Ok(Err(error)) => Err(Refusal::new(Reason::Connect, format_args!("{address}: {error}"))),
        Err(_) => Err(Refusal::new(Reason::ConnectTimeout, format_args!("{address}: not within {within:?}"))),
    }
}

/// Sends small writes at once: we write whole messages, and the kernel must not wait for more.
pub(super) fn no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
}
