//! How a stream to the control plane begins, and how one ends that another has taken the place of.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use pillion_api::wire::{
    ControlMessage, Health, Hello, SidecarMessage, Welcome, control_message, sidecar_message::Message,
};
use pillion_certs::{Identity, SpiffeId};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::channel::{self, ALPN, Client};
use crate::{
    drain::{Drain, Phase},
    net::resolve::Resolver,
};

/// Messages that may wait to be sent: more than all subscriptions together, which are sent anew after a loss. A
/// control plane that takes none for so long is not there.
pub(super) const QUEUE: usize = 8192;
/// For the answers that open a stream, and for those that end one.
pub(super) const OPENING: Duration = Duration::from_secs(5);

/// Something of a stream that goes on beside it, if there is any.
pub(super) type Beside<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

/// Everything that it takes to open a stream.
pub(super) struct Opening {
    /// The control plane's `host:port`.
    pub(super) address: String,
    pub(super) resolver: Resolver,
    pub(super) identity: Identity,
    /// How we introduce ourselves; health is filled in.
    pub(super) hello: Hello,
    pub(super) health: watch::Receiver<Health>,
    pub(super) drain: Drain,
}

/// A stream that the control plane has welcomed us on.
pub(super) struct Opened {
    pub(super) out: mpsc::Sender<SidecarMessage>,
    pub(super) incoming: Streaming<ControlMessage>,
    pub(super) welcome: Welcome,
    /// What was said of the application's health.
    pub(super) health: Option<Health>,
    /// The end of the certificate that it was opened with, and of the stream, at the latest.
    pub(super) not_after: SystemTime,
    /// The connection, which lasts for as long as somebody holds it.
    _client: Client,
}

impl Opening {
    /// Connects and introduces ourselves, with the certificate that there is now.
    pub(super) async fn run(self) -> Result<Opened, String> {
        let control_plane = SpiffeId::control_plane(self.identity.spiffe_id().trust_domain());
        let not_after = self.identity.not_after();
        let config = self.identity.client_config(&control_plane, &[ALPN]);
        let mut client = channel::connect(&self.address, &self.resolver, config).await?;
        let (out, queue) = mpsc::channel(QUEUE);
        let health = Some(told_first(&self.health, &self.drain));
        let hello = Message::Hello(Hello { health: health.clone(), ..self.hello });
        out.try_send(SidecarMessage { message: Some(hello) }).expect("the queue is new");
        let opening = async {
            let mut incoming = client.sync(ReceiverStream::new(queue)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let (incoming, first) = timeout(OPENING, opening)
            .await
            .map_err(|_| format!("the stream was not opened within {OPENING:?}"))?
            .map_err(|status| refusal(&status))?;
        let Some(control_message::Message::Welcome(welcome)) = first.and_then(|first| first.message) else {
            return Err("the control plane did not begin with a welcome".into());
        };
        Ok(Opened { out, incoming, welcome, health, not_after, _client: client })
    }
}

/// The application's health as a stream's first message tells it.
pub(super) fn told_first(health: &watch::Receiver<Health>, drain: &Drain) -> Health {
    let health = health.borrow().clone();
    match drain.phase() {
        Phase::Running => health,
        _ => Health { ready: false, reason: "shutting down".into(), ..health },
    }
}

impl Opened {
    /// Ends it so that everything that was said on it arrives. What the control plane still says holds on the one that took its place,
    /// too; a tap that ends just now does so with its lease.
    pub(super) async fn finish(mut self) {
        drop(self.out);
        let rest = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        // One that does not end is cut.
        let _ = timeout(OPENING, rest).await;
    }
}

/// Waits for what goes on beside; for ever, where there is nothing.
pub(super) async fn done<T>(beside: &mut Beside<T>) -> T {
    match beside {
        Some(beside) => beside.await,
        None => std::future::pending().await,
    }
}

pub(super) fn refusal(status: &tonic::Status) -> String {
    format!("the control plane says {:?}: {}", status.code(), status.message())
}
