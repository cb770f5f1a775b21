//! Accepts connections on one thread, up to a limit, until told to stop.

use std::{
    cell::Cell,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener},
    rc::Rc,
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

/// How long to leave the listener alone when the system has no more sockets or memory to give.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Binds a listening socket that several threads can accept from.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    listening(address, false)
}

/// Binds `address`, and the same port where redirection leads connections of the other IP version: loopback beside loopback,
/// and any address beside any. Without it where this host does not have that version.
pub fn bind_both(address: SocketAddr) -> io::Result<Vec<StdListener>> {
    let first = bind(address)?;
    let twin = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(Ipv6Addr::UNSPECIFIED.into()),
        IpAddr::V4(ip) if ip.is_loopback() => Some(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_loopback() => Some(Ipv4Addr::LOCALHOST.into()),
        // IPv6's any address takes IPv4, too; any other is a choice of somebody.
        _ => None,
    };
    let port = first.local_addr()?.port();
    match twin.map(|ip: IpAddr| listening(SocketAddr::new(ip, port), ip.is_ipv6())) {
        Some(Ok(second)) => Ok(vec![first, second]),
        Some(Err(error))
            if !matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            Err(error)
        }
        Some(Err(_)) | None => Ok(vec![first]),
    }
}

fn listening(address: SocketAddr, only_ipv6: bool) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    if only_ipv6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Counts what is open; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Open(Rc<Cell<usize>>);

impl Open {
    /// How many there are now.
    pub fn count(&self) -> usize {
        self.0.get()
    }

    /// One more, until the guard is dropped.
    pub fn enter(&self) -> OpenGuard {
        self.0.set(self.0.get() + 1);
        OpenGuard(self.0.clone())
    }
}

/// Counts as one while it lives.
#[derive(Debug)]
pub struct OpenGuard(Rc<Cell<usize>>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts until `stop` completes; each connection is handled by a task of its own on this thread, which holds the
/// guard for as long as it counts as open. At `limit` open connections new ones wait in the kernel's queue.
pub async fn accept<H, F>(
    listener: StdListener,
    open: Open,
    limit: usize,
    stop: impl Future<Output = ()>,
    handle: H,
) -> io::Result<()>
where
    H: Fn(TcpStream, SocketAddr, OpenGuard) -> F,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // The peer was gone again before we took the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again shortly");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        super::connect::prepare(&stream);
        crate::task::start(handle(stream, peer, open.enter()));
        if open.count() >= limit {
            tracing::warn!(limit, "as many connections as allowed are open; new ones wait");
        }
        while open.count() >= limit {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_share_a_port() {
        let ipv6 = StdListener::bind("[::1]:0").is_ok();
        for (address, twin) in
            [("127.0.0.1:0", "[::1]"), ("0.0.0.0:0", "[::]"), ("[::1]:0", "127.0.0.1"), ("[::]:0", "")]
        {
            let address: SocketAddr = address.parse().expect("an address");
            if address.is_ipv6() && !ipv6 {
                continue;
            }
            let bound = bind_both(address).expect("free ports");
            let addresses: Vec<_> = bound.iter().map(|l| l.local_addr().expect("it is bound")).collect();
            assert_eq!(addresses[0].ip(), address.ip());
            assert_eq!(addresses.len(), if ipv6 && !twin.is_empty() { 2 } else { 1 });
            for second in &addresses[1..] {
                assert_eq!(second.to_string(), format!("{twin}:{}", addresses[0].port()));
            }
        }
    }
}
