//! Accepts connections on one thread, up to a limit, until told to stop.

use std::{
    cell::Cell,
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

/// How long to leave the listener alone when the system has no more sockets or memory to give.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Binds a listening socket that several threads can accept from.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
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
        // Boxed first: a task's future is moved about before it has its place.
        tokio::task::spawn_local(Box::pin(handle(stream, peer, open.enter())));
        while open.count() >= limit {
            tracing::warn!(limit, "as many connections as allowed are open; new ones wait");
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
            }
        }
    }
}
