//! A network between two sidecars that can be made slow.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::apps::App;

/// Passes every byte on, as late as it is told to.
pub(crate) struct Relay {
    app: App,
    target: Arc<OnceLock<SocketAddr>>,
    delay_ms: Arc<AtomicU64>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let target = Arc::<OnceLock<SocketAddr>>::default();
        let delay_ms = Arc::<AtomicU64>::default();
        let (to, late) = (Arc::clone(&target), Arc::clone(&delay_ms));
        let app = App::start(move |stream| {
            let (to, late) = (Arc::clone(&to), Arc::clone(&late));
            async move {
                let to = *to.get().expect("nobody is told of the relay before it is set");
                let Ok(upstream) = TcpStream::connect(to).await else { return };
                let _ = (stream.set_nodelay(true), upstream.set_nodelay(true));
                let ((read, write), (up_read, up_write)) = (stream.into_split(), upstream.into_split());
                tokio::join!(copy(read, up_write, &late), copy(up_read, write, &late));
            }
        })
        .await;
        Self { app, target, delay_ms }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// Where it leads; to be said once.
    pub(crate) fn leads_to(&self, target: SocketAddr) {
        self.target.set(target).expect("it is said once");
    }

    /// How late each byte arrives, in either direction.
    pub(crate) fn set_delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a delay for a test");
        self.delay_ms.store(delay, Ordering::Relaxed);
    }
}

/// What is read meanwhile is under way meanwhile: it is late, but no slower.
async fn copy(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, delay_ms: &AtomicU64) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::Relaxed));
            if sender.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
