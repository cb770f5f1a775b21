//! The word that the server ends, passed to everything that must finish for it.

use tokio::sync::watch;

/// Says that the server ends.
pub struct Trigger(watch::Sender<bool>);

/// Hears that the server ends. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A pair; dropping the trigger counts as pulling it.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Everybody who waits or will wait goes on.
    pub fn pull(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when the server ends, at once if it already does.
    pub async fn requested(&mut self) {
        // An error means that the trigger is gone.
        let _ = self.0.wait_for(|ending| *ending).await;
    }

    /// The same as a plain value to watch: true once the server ends.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}
