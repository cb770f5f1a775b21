//! What destinations are: answers of the control plane, kept for a while.
//!
//! An application's connection waits for the answer about its destination only the first time. Later ones get the kept
//! answer at once; one that is old is asked for again meanwhile. While the control plane is away, kept answers stay.

use std::{collections::HashMap, sync::Arc, time::Duration};

use pillion_api::wire::{Resolve, Resolved, resolve::Destination};
use tokio::{sync::oneshot, time::Instant};

use super::directory::{Answer, Ask, Away, Heard, Question};

/// An answer older than this is asked for again when it is next needed.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// A question that was not answered for so long is asked again when it is asked by somebody else.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// An answer older than this is not given any more while the control plane can be asked: the destination may have
/// become another's. That the mesh does not know a destination is believed for [`FRESH`] only: it may have become a
/// workload's, which is not to be called as if it were outside.
const STALE: Duration = Duration::from_secs(60);
/// A workload that restarts is nobody for a while. So long, its address is still taken for its own: what is sent there must
/// not go past the mesh as if it had never been one.
const GONE: Duration = Duration::from_secs(60);
/// Destinations remembered at a time.
const MAX_KNOWN: usize = 8192;
/// Those who may wait for one answer.
const MAX_WAITING: usize = 1024;
/// While the control plane is away, somebody waits for a first answer only for so long after it was lost, or should have
/// been there: a restart is waited for, an outage is not.
const AWAY: Duration = Duration::from_secs(5);

/// Everything known about destinations.
#[derive(Debug)]
pub struct Addresses {
    known: HashMap<Question, Known>,
    /// Since when there is no stream; `None`: there is one.
    away: Option<Instant>,
}

#[derive(Debug, Default)]
struct Known {
    /// When it was answered, and how.
    answer: Option<Heard>,
    /// When it was asked last, if that is not answered yet.
    asked: Option<Instant>,
    waiting: Vec<oneshot::Sender<Result<Heard, Away>>>,
}

impl Addresses {
    /// Knows nothing yet, and has nobody to ask.
    pub fn new(now: Instant) -> Self {
        Self { known: HashMap::new(), away: Some(now) }
    }

    /// Answers at once, or when the answer comes; not at all where it is not to be expected. Gives what there is to ask
    /// the control plane.
    pub fn ask(&mut self, ask: Ask, now: Instant) -> Option<Resolve> {
        let outage = self.away.is_some_and(|since| now - since >= AWAY);
        if !self.known.contains_key(&ask.question) {
            if outage {
                let _ = ask.reply.send(Err(Away));
                return None;
            }
            if self.known.len() >= MAX_KNOWN {
                self.make_room(now);
            }
        }
        let connected = self.away.is_none();
        let wire = to_wire(&ask.question);
        let known = self.known.entry(ask.question).or_default();
        let age = known.answer.as_ref().map(|heard| now - heard.at);
        match &known.answer {
            Some(heard)
                if !connected
                    || !ask.anew && age < Some(if heard.answer.is_some() { STALE } else { FRESH }) =>
            {
                // Nobody may wait for it any more.
                let _ = ask.reply.send(Ok(heard.clone()));
            }
            _ if outage => drop(ask.reply.send(Err(Away))),
            _ => {
                known.waiting.retain(|waiting| !waiting.is_closed());
                // Beyond, its asker is dropped, and hears that too many wait.
                if known.waiting.len() < MAX_WAITING {
                    known.waiting.push(ask.reply);
                }
            }
        }
        let due = (ask.anew || age.is_none_or(|age| age >= FRESH))
            && known.asked.is_none_or(|asked| now - asked >= ASK_AGAIN);
        if !due || !connected {
            return None;
        }
        known.asked = Some(now);
        Some(wire)
    }

    /// Takes in an answer.
    ///
    /// # Errors
    /// What is wrong with it; those who wait go on waiting.
    pub fn answered(&mut self, resolved: Resolved, now: Instant) -> Result<(), String> {
        let (question, answer) = from_wire(resolved)?;
        // One that was not asked is not wanted.
        if let Some(known) = self.known.get_mut(&question) {
            known.asked = None;
            let left = answer.is_none()
                && known
                    .answer
                    .as_ref()
                    .is_some_and(|before| before.answer.is_some() && now - before.at < GONE);
            if !left {
                known.answer = Some(Heard { answer, at: now });
            }
            if let Some(heard) = &known.answer {
                for waiting in known.waiting.drain(..) {
                    let _ = waiting.send(Ok(heard.clone()));
                }
            }
        }
        Ok(())
    }

    /// There is nobody to ask any more.
    pub fn lost(&mut self, now: Instant) {
        self.away.get_or_insert(now);
    }

    /// There is somebody to ask (again): everything that somebody waits for.
    pub fn connected(&mut self, now: Instant) -> Vec<Resolve> {
        self.away = None;
        let mut all = Vec::new();
        for (question, known) in &mut self.known {
            known.waiting.retain(|waiting| !waiting.is_closed());
            known.asked = None;
            if !known.waiting.is_empty() {
                known.asked = Some(now);
                all.push(to_wire(question));
            }
        }
        all
    }

    /// Forgets the older half of what nobody waits for.
    fn make_room(&mut self, now: Instant) {
        let mut ages: Vec<_> = self
            .known
            .values()
            .filter_map(|known| known.answer.as_ref())
            .map(|heard| now - heard.at)
            .collect();
        let middle = ages.len() / 2;
        let limit = match ages.is_empty() {
            true => Duration::ZERO,
            false => *ages.select_nth_unstable(middle).1,
        };
        self.known.retain(|_, known| {
            known.waiting.retain(|waiting| !waiting.is_closed());
            !known.waiting.is_empty() || known.answer.as_ref().is_some_and(|heard| now - heard.at < limit)
        });
    }
}

fn to_wire(question: &Question) -> Resolve {
    let destination = match question {
        Question::Address(address) => Destination::Address(address.to_string()),
        Question::Host(host) => Destination::Host(host.to_string()),
    };
    Resolve { destination: Some(destination) }
}

fn from_wire(resolved: Resolved) -> Result<(Question, Option<Answer>), String> {
    let question = match resolved.question.and_then(|question| question.destination) {
        Some(Destination::Address(address)) => Question::Address(
            address.parse().map_err(|error| format!("question.address: {address:?}: {error}"))?,
        ),
        Some(Destination::Host(host)) => Question::Host(host.into()),
        None => return Err("question: is empty, or not known to this version".into()),
    };
    if resolved.service.is_empty() {
        return Ok((question, None));
    }
    let service = resolved.service.parse().map_err(|error| format!("service: {error}"))?;
    let port = u16::try_from(resolved.port).map_err(|_| format!("port: {} is no port", resolved.port))?;
    if port == 0 && matches!(question, Question::Address(_)) {
        return Err("port: is 0".into());
    }
    let virtual_address = match resolved.virtual_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| format!("virtual_address: {text:?}: {error}"))?),
    };
    let uid = Some(resolved.uid).filter(|uid| !uid.is_empty()).map(Arc::from);
    Ok((question, Some(Answer { service, port, uid, virtual_address })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Question {
        Question::Address("10.1.0.7:80".parse().expect("an address"))
    }

    struct Answered(oneshot::Receiver<Result<Heard, Away>>);

    impl Answered {
        /// `None`: not yet, or never.
        fn now(&mut self) -> Option<Result<Option<Answer>, Away>> {
            Some(self.0.try_recv().ok()?.map(|heard| heard.answer))
        }

        fn service(&mut self) -> Option<String> {
            let answer = self.now().expect("answered").expect("not away");
            answer.map(|answer| answer.service.to_string())
        }
    }

    fn ask(known: &mut Addresses, now: Instant) -> (Answered, Option<Resolve>) {
        let (reply, answer) = oneshot::channel();
        (Answered(answer), known.ask(Ask { question: address(), anew: false, reply }, now))
    }

    fn connected(now: Instant) -> Addresses {
        let mut known = Addresses::new(now);
        assert!(known.connected(now).is_empty());
        known
    }

    fn resolved(service: &str) -> Resolved {
        let question = Some(to_wire(&address()));
        Resolved { question, service: service.into(), port: 80, ..Resolved::default() }
    }

    #[test]
    fn all_wait_for_one_answer_and_later_ones_have_it() {
        let now = Instant::now();
        let mut known = connected(now);
        let (mut first, asked) = ask(&mut known, now);
        assert!(asked.is_some());
        let (mut second, asked) = ask(&mut known, now);
        assert!(asked.is_none() && first.now().is_none());
        known.answered(resolved("a.n"), now).expect("an answer");
        for answer in [&mut first, &mut second, &mut ask(&mut known, now).0] {
            let answer = answer.now().expect("answered").expect("not away").expect("known");
            assert_eq!((answer.service.as_str(), answer.port, answer.uid), ("a.n", 80, None));
        }
    }

    #[test]
    fn an_old_answer_is_given_and_asked_for_again_but_not_a_stale_one() {
        let now = Instant::now();
        let mut known = connected(now);
        assert!(ask(&mut known, now).1.is_some());
        known.answered(resolved("a.n"), now).expect("an answer");
        let old = now + FRESH;
        let (mut answer, asked) = ask(&mut known, old);
        assert!(answer.service().is_some());
        assert!(asked.is_some());
        assert!(ask(&mut known, old).1.is_none(), "it is being asked already");
        let stale = now + STALE;
        let (mut answer, asked) = ask(&mut known, stale);
        assert!(answer.now().is_none() && asked.is_some());
        known.answered(resolved("b.n"), stale).expect("an answer");
        assert!(answer.service().is_some());
    }

    #[test]
    fn that_a_destination_is_unknown_is_believed_for_a_short_time_only() {
        let now = Instant::now();
        let mut known = connected(now);
        ask(&mut known, now);
        known.answered(resolved(""), now).expect("an answer");
        assert_eq!(ask(&mut known, now + FRESH / 2).0.service(), None);
        let (mut answer, asked) = ask(&mut known, now + FRESH);
        assert!(answer.now().is_none() && asked.is_some(), "it may have joined since");
    }

    #[test]
    fn who_has_left_is_not_taken_for_one_outside_at_once() {
        let now = Instant::now();
        let mut known = connected(now);
        let after = |known: &mut Addresses, service, later| {
            let now = now + later;
            let (reply, answer) = oneshot::channel();
            assert!(known.ask(Ask { question: address(), anew: true, reply }, now).is_some());
            let mut answer = Answered(answer);
            assert!(answer.now().is_none(), "it is asked anew");
            known.answered(resolved(service), now).expect("an answer");
            answer.service()
        };
        assert_eq!(after(&mut known, "a.n", Duration::ZERO).as_deref(), Some("a.n"));
        assert_eq!(after(&mut known, "", GONE / 2).as_deref(), Some("a.n"));
        assert_eq!(after(&mut known, "b.n", GONE / 2).as_deref(), Some("b.n"));
        assert_eq!(after(&mut known, "", GONE / 2 + GONE), None);
    }

    #[test]
    fn without_the_control_plane_the_last_answer_holds() {
        let now = Instant::now();
        let mut known = Addresses::new(now);
        let (mut first, asked) = ask(&mut known, now);
        assert!(asked.is_none() && first.now().is_none());
        assert_eq!(known.connected(now).len(), 1, "asked when a stream opens");
        known.answered(resolved("a.n"), now).expect("an answer");
        assert!(first.now().is_some());
        known.lost(now);
        let (mut later, asked) = ask(&mut known, now + STALE * 10);
        assert!(later.service().is_some() && asked.is_none());
    }

    #[test]
    fn a_first_answer_is_waited_for_through_a_restart_but_not_through_an_outage() {
        let now = Instant::now();
        for lost_again in [false, true] {
            let mut known = Addresses::new(now);
            if lost_again {
                known.connected(now);
                known.lost(now);
                known.lost(now + AWAY * 2);
            }
            assert_eq!(ask(&mut known, now + AWAY / 2).0.now(), None);
            assert_eq!(ask(&mut known, now + AWAY).0.now(), Some(Err(Away)));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_field() {
        let mut known = Addresses::new(Instant::now());
        let port = Resolved { port: 70_000, ..resolved("a.n") };
        let nameless = Resolved { service: "x".into(), ..resolved("") };
        let address = Resolved { virtual_address: "x".into(), ..resolved("a.n") };
        for (resolved, field) in [
            (Resolved::default(), "question"),
            (port, "port"),
            (Resolved { port: 0, ..resolved("a.n") }, "port"),
            (nameless, "service"),
            (address, "virtual_address"),
        ] {
            let error = known.answered(resolved, Instant::now()).expect_err(field);
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn what_is_known_is_bounded() {
        let now = Instant::now();
        let mut known = connected(now);
        for i in 0..MAX_KNOWN as u32 * 2 {
            let host: Arc<str> = format!("h{i}").into();
            let question = Question::Host(host);
            let (reply, _gone) = oneshot::channel();
            let now = now + Duration::from_micros(i.into());
            known.ask(Ask { question: question.clone(), anew: false, reply }, now);
            let resolved = Resolved { question: Some(to_wire(&question)), ..Resolved::default() };
            known.answered(resolved, now).expect("an answer");
            assert!(known.known.len() <= MAX_KNOWN);
        }
        assert!(known.known.len() > MAX_KNOWN / 4);
    }
}
