//! What is to be said next on one sidecar's stream, and whether the sidecar still answers. Time is an argument.

use std::time::Duration;

use pillion_api::wire::{ControlMessage, Heartbeat, Welcome, control_message::Message};
use tokio::time::Instant;

use crate::publish::Subscriber;

/// A sidecar that leaves heartbeats unanswered for this many intervals is given up.
const SILENT_INTERVALS: u32 = 3;

/// The control plane's half of a stream. Nothing queues in it: a welcome, at most one heartbeat, and the subscriptions that
/// differ from what is compiled.
pub(super) struct Session {
    pub(super) subscriber: Subscriber,
    welcome: Option<Welcome>,
    heartbeat_due: bool,
    sequence: u64,
    interval: Duration,
    last_reply: Instant,
}

impl Session {
    pub(super) fn new(subscriber: Subscriber, welcome: Welcome, interval: Duration, now: Instant) -> Self {
        Self {
            subscriber,
            welcome: Some(welcome),
            heartbeat_due: false,
            sequence: 0,
            interval,
            last_reply: now,
        }
    }

    /// Something that the sidecar was told first is not so any more: it is told again.
    pub(super) fn welcome(&mut self, welcome: Welcome) {
        self.welcome = Some(welcome);
    }

    /// Whether [`next_message`](Self::next_message) may have something.
    pub(super) fn is_ready(&self) -> bool {
        self.welcome.is_some() || self.heartbeat_due || self.subscriber.is_dirty()
    }

    /// The next message; it counts as sent. The digest of a heartbeat is over what was sent before it, so that it never
    /// disagrees with a sidecar that has read everything so far.
    pub(super) fn next_message(&mut self, server_time_ms: i64) -> Option<ControlMessage> {
        let message = if let Some(welcome) = self.welcome.take() {
            Message::Welcome(welcome)
        } else if std::mem::take(&mut self.heartbeat_due) {
            self.sequence += 1;
            let digest = self.subscriber.digest();
            Message::Heartbeat(Heartbeat { server_time_ms, sequence: self.sequence, digest })
        } else {
            Message::Update(self.subscriber.next_update()?)
        };
        Some(ControlMessage { message: Some(message) })
    }

    /// The sidecar answered a heartbeat. One that was never sent is no answer.
    pub(super) fn replied(&mut self, sequence: u64, now: Instant) {
        if (1..=self.sequence).contains(&sequence) {
            self.last_reply = now;
        }
    }

    /// An interval has passed: a heartbeat is due, and everything is compared again.
    pub(super) fn tick(&mut self) {
        self.heartbeat_due = true;
        self.subscriber.recheck();
    }

    /// For how long the sidecar has been silent, if that is too long. Sending to one that does not read counts too.
    pub(super) fn silent_for(&self, now: Instant) -> Option<Duration> {
        let silent = now.saturating_duration_since(self.last_reply);
        (silent > self.interval * (SILENT_INTERVALS + 1)).then_some(silent)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pillion_api::digest;

    use super::*;
    use crate::{
        compile::Changed,
        publish::{LastCompile, Publisher},
    };

    const INTERVAL: Duration = Duration::from_secs(5);

    fn session() -> Session {
        let publisher = Arc::new(Publisher::new(Changed::default(), LastCompile::default()));
        Session::new(publisher.subscriber("u"), Welcome::default(), INTERVAL, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_welcome_comes_first_and_heartbeats_carry_what_was_sent() {
        let mut session = session();
        session.subscriber.subscribe("a.x", "1", "2").expect("room");
        let message = session.next_message(7).and_then(|message| message.message);
        assert!(matches!(message, Some(Message::Welcome(_))));
        session.tick();
        let Some(Message::Heartbeat(heartbeat)) = session.next_message(7).and_then(|message| message.message)
        else {
            panic!("expected a heartbeat")
        };
        assert_eq!((heartbeat.sequence, heartbeat.server_time_ms), (1, 7));
        assert_eq!(heartbeat.digest, digest::holdings([("a.x", "1", "2")]));
        // There is no such service, and then nothing more to say.
        let message = session.next_message(7).and_then(|message| message.message);
        assert!(matches!(message, Some(Message::Update(_))));
        assert_eq!(session.next_message(7), None);
        assert!(!session.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_never_answers_is_given_up() {
        let (mut session, start) = (session(), Instant::now());
        session.next_message(0);
        session.tick();
        session.next_message(0);
        session.replied(2, start + INTERVAL * 2);
        assert_eq!(
            session.silent_for(start + INTERVAL * 4),
            None,
            "three whole intervals to answer the first"
        );
        assert!(session.silent_for(start + INTERVAL * 5).is_some(), "an answer to nothing is none");
        session.replied(1, start + INTERVAL * 5);
        assert_eq!(session.silent_for(start + INTERVAL * 5), None);
    }
}
