//! Leaving without cutting anything: the phases of a shutdown, and who is still at work.

use std::time::Duration;

use tokio::sync::watch;

/// How far the shutdown is. Only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Readiness fails and the mesh is told, but new connections are still taken: word takes a while to spread.
    Leaving,
    /// No new inbound connections; HTTP/1 answers with `connection: close`, HTTP/2 says GOAWAY.
    Closing,
}

/// Starts the phases.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Follows the phases; cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<Phase>);

/// A trigger and what it drives.
pub fn channel() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Drain(receiver))
}

impl Trigger {
    /// Goes forward to a phase.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = phase > *current;
            *current = (*current).max(phase);
            forward
        });
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits for a phase. Never returns if the trigger is gone before it.
    pub async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|current| *current >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// How long [`Phase::Leaving`] lasts, of the whole time that a drain may take: a sixth, 5 s at most.
pub fn grace(drain_timeout: Duration) -> Duration {
    (drain_timeout / 6).min(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_only_go_forward() {
        let (trigger, mut drain) = channel();
        assert_eq!(drain.phase(), Phase::Running);
        trigger.advance(Phase::Closing);
        trigger.advance(Phase::Leaving);
        assert_eq!(drain.phase(), Phase::Closing);
        drain.reached(Phase::Leaving).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_is_no_phase() {
        let (trigger, mut drain) = channel();
        drop(trigger);
        let waited = tokio::time::timeout(Duration::from_secs(3600), drain.reached(Phase::Closing)).await;
        assert!(waited.is_err());
    }

    #[test]
    fn grace_is_bounded() {
        assert_eq!(grace(Duration::from_secs(3)), Duration::from_millis(500));
        assert_eq!(grace(Duration::from_secs(300)), Duration::from_secs(5));
    }
}
