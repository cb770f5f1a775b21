//! What is to be said next on one sidecar's stream, and whether the sidecar still answers. Time is an argument.

use std::{collections::VecDeque, time::Duration};

use pillion_api::wire::{ControlMessage, Heartbeat, Resolve, Welcome, control_message::Message};
use tokio::time::Instant;

use crate::publish::Subscriber;

/// A sidecar that leaves heartbeats unanswered for this many intervals is given up.
const SILENT_INTERVALS: u32 = 3;

/// Questions of one sidecar that are not answered yet. As many are read ahead of its reading the answers.
const QUESTIONS: usize = 256;

/// The control plane's half of a stream. Little queues in it: a welcome, at most one heartbeat, a bounded number of
/// questions, and the subscriptions that differ from what is compiled.
pub(super) struct Session {
    pub(super) subscriber: Subscriber,
    /// The sidecar's, to which a bare host name belongs.
    namespace: String,
    questions: VecDeque<Resolve>,
    /// The last message was an answer, so an update goes first.
    answered: bool,
    welcome: Option<Welcome>,
    heartbeat_due: bool,
    sequence: u64,
    interval: Duration,
    last_reply: Instant,
}

impl Session {
    pub(super) fn new(
        subscriber: Subscriber,
        namespace: &str,
        welcome: Welcome,
        interval: Duration,
        now: Instant,
    ) -> Self {
        Self {
            subscriber,
            namespace: namespace.to_owned(),
            questions: VecDeque::new(),
            answered: false,
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

    /// A question, which is answered when its turn comes, with what is known then.
    pub(super) fn ask(&mut self, question: Resolve) {
        self.questions.push_back(question);
    }

    /// Whether the sidecar may ask more. It is not read until then.
    pub(super) fn has_room(&self) -> bool {
        self.questions.len() < QUESTIONS
    }

    /// Whether [`next_message`](Self::next_message) may have something.
    pub(super) fn is_ready(&self) -> bool {
        self.welcome.is_some()
            || self.heartbeat_due
            || !self.questions.is_empty()
            || self.subscriber.is_dirty()
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
            self.next_answer_or_update()?
        };
        Some(ControlMessage { message: Some(message) })
    }

    /// In turns, so that neither many questions nor many changes keep the other waiting.
    fn next_answer_or_update(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.answered)
            && let Some(update) = self.subscriber.next_update()
        {
            return Some(Message::Update(update));
        }
        if let Some(question) = self.questions.pop_front() {
            self.answered = true;
            return Some(Message::Resolved(self.subscriber.resolve(question, &self.namespace)));
        }
        self.subscriber.next_update().map(Message::Update)
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

    use pillion_api::{digest, wire::resolve::Destination};

    use super::*;
    use crate::{
        compile::Changed,
        publish::{LastCompile, Publisher},
    };

    const INTERVAL: Duration = Duration::from_secs(5);

    fn session() -> Session {
        let publisher = Arc::new(Publisher::new(Changed::default(), LastCompile::default()));
        Session::new(publisher.subscriber("u"), "demo", Welcome::default(), INTERVAL, Instant::now())
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
    async fn answers_and_updates_take_turns() {
        let mut session = session();
        session.next_message(0);
        for index in 0..3 {
            session.subscriber.subscribe(&format!("s{index}.x"), "", "").expect("room");
            session.ask(Resolve { destination: Some(Destination::Host(format!("h{index}"))) });
        }
        let mut said = Vec::new();
        while session.is_ready() {
            match session.next_message(0).and_then(|message| message.message) {
                Some(Message::Resolved(resolved)) => {
                    assert_eq!(resolved.service, "");
                    said.push(resolved.question);
                }
                Some(Message::Update(_)) => said.push(None),
                None => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        let said: Vec<String> = said
            .into_iter()
            .map(|question| match question.and_then(|question| question.destination) {
                Some(Destination::Host(host)) => host,
                _ => "update".to_owned(),
            })
            .collect();
        assert_eq!(said, ["h0", "update", "h1", "update", "h2", "update"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_is_not_read_while_too_many_of_its_questions_wait() {
        let mut session = session();
        session.next_message(0);
        let question = || Resolve { destination: Some(Destination::Host("h".to_owned())) };
        (0..QUESTIONS).for_each(|_| session.ask(question()));
        assert!(!session.has_room());
        session.next_message(0);
        assert!(session.has_room());
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
