//! Opens TCP connections, with a deadline and a name for what went wrong.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::resolve::Resolver;
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

/// Connects to a host by its name or address: to the first of its addresses that takes the connection. `permitted` may
/// forbid an address, and with it the whole.
///
/// # Errors
/// Those of [`Resolver::lookup`], of `permitted`, and of [`tcp`] for the address tried last.
pub async fn host(
    resolver: &Resolver,
    (host, port): (&str, u16),
    within: Duration,
    permitted: impl Fn(SocketAddr) -> Result<(), Refusal>,
) -> Result<TcpStream, Refusal> {
    let late = || Refusal::new(Reason::ConnectTimeout, format_args!("{host}:{port}: not within {within:?}"));
    let deadline = Instant::now() + within;
    let addresses = timeout(within, resolver.lookup(host)).await.map_err(|_| late())??.addresses;
    let mut failed = late();
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let address = SocketAddr::new(address, port);
        permitted(address)?;
        // Each has its share of the time, so that one that is silent leaves some for the others.
        match tcp(address, deadline.saturating_duration_since(Instant::now()) / left).await {
            Ok(stream) => return Ok(stream),
            Err(refusal) => failed = refusal,
        }
        left -= 1;
    }
    Err(failed)
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

/// Whether connecting to `address` would reach a listener of ours: by its address, or by any of the other ways to say
/// "this host".
pub fn leads_to(address: SocketAddr, own: SocketAddr) -> bool {
    let (there, here) = (address.ip().to_canonical(), own.ip().to_canonical());
    let this_host = there.is_loopback() || there.is_unspecified();
    let anywhere = here.is_loopback() || here.is_unspecified();
    address.port() == own.port() && (there == here || this_host && anywhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_say_ourselves() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (address, own, expected) in [
            ("127.0.0.1:15001", "127.0.0.1:15001", true),
            ("0.0.0.0:15001", "127.0.0.1:15001", true),
            ("[::ffff:127.0.0.1]:15001", "127.0.0.1:15001", true),
            ("[::1]:15006", "0.0.0.0:15006", true),
            ("127.9.9.9:15006", "0.0.0.0:15006", true),
            ("127.0.0.1:80", "127.0.0.1:15001", false),
            ("10.0.0.1:15001", "127.0.0.1:15001", false),
        ] {
            assert_eq!(leads_to(at(address), at(own)), expected, "{address} {own}");
        }
    }
}
