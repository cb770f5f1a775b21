//! A relay in front of the control plane that counts what passes: TLS records and all.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, spawn_local},
};

use crate::Error;

/// Bytes that passed, TCP's payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// To the sidecar.
    pub(crate) down: u64,
    /// To the control plane.
    pub(crate) up: u64,
}

/// Relays connections until dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    passed: watch::Sender<Passed>,
    accepting: AbortHandle,
}

impl Relay {
    /// Relays to `target`, from a free port.
    pub(crate) async fn to(target: String) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, passed) = (listener.local_addr()?, watch::Sender::new(Passed::default()));
        let counted = passed.clone();
        let accepting = spawn_local(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&target).await else { continue };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                spawn_local(carry(near_read, far_write, counted.clone(), |passed, bytes| passed.up += bytes));
                spawn_local(carry(far_read, near_write, counted.clone(), |passed, bytes| {
                    passed.down += bytes
                }));
            }
        });
        Ok(Self { address, passed, accepting: accepting.abort_handle() })
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What has passed so far, and what will.
    pub(crate) fn passed(&self) -> watch::Receiver<Passed> {
        self.passed.subscribe()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    passed: watch::Sender<Passed>,
    count: fn(&mut Passed, u64),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        passed.send_modify(|passed| count(passed, bytes as u64));
        if to.write_all(&buffer[..bytes]).await.is_err() {
            break;
        }
    }
}
