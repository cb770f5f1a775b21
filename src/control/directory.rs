//! How workers get to know services.

use std::{sync::Arc, time::Duration};

use pillion_api::{
    model::{Endpoint, Service},
    name::ServiceName,
};
use tokio::sync::{mpsc, oneshot, watch};

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

/// Asks the main thread about services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    wishes: mpsc::Sender<Follow>,
    patience: Duration,
}

impl Directory {
    /// With where wishes arrive. Nobody waits longer than `patience`.
    pub fn new(patience: Duration) -> (Self, mpsc::Receiver<Follow>) {
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
            self.wishes.send(Follow { service: service.clone(), reply }).await.map_err(|_| unknown())?;
            let mut snapshots = answer.await.map_err(|_| unknown())?;
            let known = snapshots.wait_for(|known| !matches!(known, Snapshot::Pending)).await;
            drop(known.map_err(|_| unknown())?);
            Ok(snapshots)
        };
        tokio::time::timeout(self.patience, known).await.unwrap_or_else(|_| Err(unknown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ServiceName {
        "a.n".parse().expect("a name")
    }

    async fn answer(mut arriving: mpsc::Receiver<Follow>, snapshot: Snapshot) -> watch::Sender<Snapshot> {
        let follow = arriving.recv().await.expect("a wish");
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
