//! How workers get to know services.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pillion_api::{
    model::{Endpoint, Service},
    name::ServiceName,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::error::{Reason, Refusal};

/// What is known about a service.
#[derive(Debug, Clone, Default)]
pub enum Snapshot {
    /// Asked for, not answered yet.
    #[default]
    Pending,
    /// There is none of that name.
    Absent,
    /// All of it.
    Present(Arc<Service>, Arc<Vec<Endpoint>>),
}

/// A worker's wish to follow a service.
#[derive(Debug)]
pub struct Follow {
    /// Which.
    pub service: ServiceName,
    /// Where what becomes known will be seen. The subscription ends when all receivers are gone.
    pub reply: oneshot::Sender<watch::Receiver<Snapshot>>,
}

/// What an application names, and the mesh may know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// Where it connects.
    Address(SocketAddr),
    /// What it looks up: lower case, no dot at its end.
    Host(Arc<str>),
}

/// What a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of this service…
    pub service: ServiceName,
    /// …and this port of it. 0 for a host, which names none.
    pub port: u16,
    /// The one endpoint that the address is of; `None`: the service as a whole.
    pub uid: Option<Arc<str>>,
    /// The service's own address; said of hosts only.
    pub virtual_address: Option<IpAddr>,
}

/// What was answered, and when.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `None`: the mesh does not know the destination.
    pub answer: Option<Answer>,
    /// By the control plane.
    pub at: Instant,
}

/// A worker's question.
#[derive(Debug)]
pub struct Ask {
    /// What it wants to know.
    pub question: Question,
    /// What is known already is of no use.
    pub anew: bool,
    /// Dropped: too many wait for it.
    pub reply: oneshot::Sender<Result<Heard, Away>>,
}

/// There is no control plane to ask, and has not been for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// What workers want of the main thread.
#[derive(Debug)]
pub enum Wish {
    /// To follow a service.
    Follow(Follow),
    /// To know what a destination is.
    Resolve(Ask),
}

/// Asks the main thread about services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    wishes: mpsc::Sender<Wish>,
    patience: Duration,
}

impl Directory {
    /// With where wishes arrive. Nobody waits longer than `patience`.
    pub fn new(patience: Duration) -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, arriving) = mpsc::channel(256);
        (Self { wishes, patience }, arriving)
    }

    /// Follows a service, and waits until something is known about it, be it that there is none.
    ///
    /// # Errors
    /// [`Reason::DiscoveryTimeout`].
    pub async fn follow(&self, service: &ServiceName) -> Result<watch::Receiver<Snapshot>, Refusal> {
        let unknown = || {
            let detail = format_args!("{service}: nothing heard within {:?}", self.patience);
            Refusal::new(Reason::DiscoveryTimeout, detail)
        };
        let known = async {
            let (reply, answer) = oneshot::channel();
            let follow = Follow { service: service.clone(), reply };
            self.wishes.send(Wish::Follow(follow)).await.map_err(|_| unknown())?;
            let mut snapshots = answer.await.map_err(|_| unknown())?;
            let known = snapshots.wait_for(|known| !matches!(known, Snapshot::Pending)).await;
            drop(known.map_err(|_| unknown())?);
            Ok(snapshots)
        };
        tokio::time::timeout(self.patience, known).await.unwrap_or_else(|_| Err(unknown()))
    }

    /// What a destination is to the mesh; `None`: nothing that it knows. Answers are kept for a while (see
    /// [`super::addresses`]), also while the control plane is away.
    ///
    /// # Errors
    /// For one that was never answered: [`Reason::ControlPlaneAway`], [`Reason::DiscoveryTimeout`], [`Reason::QueueFull`].
    pub async fn resolve(&self, question: Question) -> Result<Option<Answer>, Refusal> {
        self.hear(question, false).await.map(|heard| heard.answer)
    }

    /// The same, with how old it is; `anew`: what was answered before has turned out to hold no more.
    ///
    /// # Errors
    /// As those of [`resolve`](Self::resolve).
    pub async fn hear(&self, question: Question, anew: bool) -> Result<Heard, Refusal> {
        let unknown = |question: &Question| {
            let detail = format_args!("{question}: nothing heard within {:?}", self.patience);
            Refusal::new(Reason::DiscoveryTimeout, detail)
        };
        let asking = async {
            let (reply, answer) = oneshot::channel();
            let ask = Ask { question: question.clone(), anew, reply };
            self.wishes.send(Wish::Resolve(ask)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(self.patience, asking).await {
            Ok(Some(Ok(heard))) => Ok(heard),
            Ok(Some(Err(Away))) => Err(Refusal::new(Reason::ControlPlaneAway, question)),
            Ok(None) => Err(Refusal::new(Reason::QueueFull, question)),
            Err(_) => Err(unknown(&question)),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host) => f.write_str(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ServiceName {
        "a.n".parse().expect("a name")
    }

    async fn answer(mut arriving: mpsc::Receiver<Wish>, snapshot: Snapshot) -> watch::Sender<Snapshot> {
        let Some(Wish::Follow(follow)) = arriving.recv().await else { panic!("no wish to follow") };
        let (sender, receiver) = watch::channel(snapshot);
        follow.reply.send(receiver).expect("somebody waits");
        sender
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_answer_and_absence_is_one() {
        let (directory, arriving) = Directory::new(Duration::from_secs(5));
        let service = name();
        let (_sender, followed) =
            tokio::join!(answer(arriving, Snapshot::Absent), directory.follow(&service));
        assert!(matches!(*followed.expect("an answer").borrow(), Snapshot::Absent));

        let (directory, arriving) = Directory::new(Duration::from_secs(5));
        let (_sender, followed) =
            tokio::join!(answer(arriving, Snapshot::Pending), directory.follow(&service));
        assert_eq!(followed.expect_err("nothing is known").reason, Reason::DiscoveryTimeout);

        let (directory, _arriving) = Directory::new(Duration::from_secs(5));
        assert_eq!(directory.follow(&service).await.expect_err("nobody").reason, Reason::DiscoveryTimeout);
    }
}
