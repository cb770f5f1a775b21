//! Requests that a workload works on at a time: up to a limit; some more wait, by priority and not for long; the rest is
//! refused by name. One gate for all threads: a lock that is held for a few steps, and only where a policy asks for it.

mod controller;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use pillion_api::model::{Concurrency, Priority};
use pillion_certs::SpiffeId;
use rand::Rng;
use tokio::{sync::oneshot, time::Instant};

use self::controller::Controller;
use crate::error::{More, Reason, Refusal};

/// Who was refused may ask again after so long: about what a limit takes to find its place.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// From first to last.
const RANKS: [&str; 3] = ["critical", "default", "sheddable"];

fn rank(priority: Priority) -> usize {
    match priority {
        Priority::Critical => 0,
        Priority::Default => 1,
        Priority::Sheddable => 2,
    }
}

/// The one gate of a port.
#[derive(Debug)]
pub struct Gate(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Concurrency,
    /// `None`: the limit is fixed.
    controller: Option<Controller>,
    under_way: u32,
    /// By rank; the oldest first.
    queues: [VecDeque<Waiter>; 3],
    next_waiter: u64,
    /// Refused, by rank.
    refused: [u64; 3],
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    let_in: oneshot::Sender<Permit>,
}

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Requests that may be under way.
    pub limit: u32,
    /// Those that are.
    pub under_way: u32,
    /// Those that wait.
    pub queued: u32,
    /// The best latency, where one is measured.
    pub min_rtt: Option<Duration>,
}

/// A request's place among those under way; free again when dropped, if not before.
#[derive(Debug)]
pub struct Permit {
    /// `None`: handed back already.
    gate: Option<Arc<Gate>>,
    began: Instant,
    /// Whoever had the head of an answer does not give up when it goes.
    answered: bool,
}

/// Why a place is left.
enum Left {
    /// The application has begun to answer.
    Answered,
    /// It failed to, or has answered long before: neither says how long it takes.
    Untold,
    /// Nobody waits for its answer any more.
    GivenUp,
}

impl Permit {
    /// The application has begun to answer, or failed to. An adaptive limit has a place free again with the head, as it is
    /// found by how long heads take: held by streams that go on, no request would come in to find it by. A fixed limit is
    /// for all that is under way, to the last byte.
    pub fn answered(&mut self, well: bool, now: Instant) {
        self.answered = true;
        let Some(gate) = self.gate.take() else { return };
        let mut inner = gate.lock();
        if inner.controller.is_some() {
            gate.leave(&mut inner, self.began, if well { Left::Answered } else { Left::Untold }, now);
        } else {
            drop(inner);
            self.gate = Some(gate);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let left = if self.answered { Left::Untold } else { Left::GivenUp };
            gate.leave(&mut gate.lock(), self.began, left, Instant::now());
        }
    }
}

impl Gate {
    /// With nothing under way.
    pub fn new(settings: Concurrency, now: Instant) -> Arc<Self> {
        let controller = settings.adaptive.clone();
        let controller = controller.map(|adaptive| Controller::new(adaptive, settings.limit, now));
        let inner = Inner {
            settings,
            controller,
            under_way: 0,
            queues: Default::default(),
            next_waiter: 0,
            refused: [0; 3],
        };
        Arc::new(Self(Mutex::new(inner)))
    }

    /// Goes on with other settings; what was found out stays.
    pub fn set(self: &Arc<Self>, settings: &Concurrency, now: Instant) {
        let mut inner = self.lock();
        if inner.settings == *settings {
            return;
        }
        match (&mut inner.controller, &settings.adaptive) {
            (Some(controller), Some(adaptive)) => controller.set(adaptive.clone()),
            (controller, adaptive) => {
                let adaptive = adaptive.clone();
                *controller = adaptive.map(|adaptive| Controller::new(adaptive, settings.limit, now));
            }
        }
        inner.settings = settings.clone();
        self.let_in(&mut inner, now);
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let inner = self.lock();
        Standing {
            limit: inner.limit(),
            under_way: inner.under_way,
            queued: inner.queued(),
            min_rtt: inner.controller.as_ref().and_then(Controller::min_rtt),
        }
    }

    /// Requests refused since this was asked last, by priority.
    pub fn take_refused(&self) -> Vec<(&'static str, u64)> {
        let refused = std::mem::take(&mut self.lock().refused);
        RANKS.into_iter().zip(refused).filter(|(_, refused)| *refused > 0).collect()
    }

    /// Lets a request in, at once or after others have ended.
    ///
    /// # Errors
    /// [`Reason::Overloaded`].
    pub async fn enter(self: &Arc<Self>, priority: Priority) -> Result<Permit, Refusal> {
        let rank = rank(priority);
        let waiting = match self.come(rank, Instant::now()) {
            Ok(permit) => return Ok(permit),
            Err(waiting) => waiting,
        };
        let Some((number, let_in, within)) = waiting else {
            return Err(refusal(rank, "the queue is full"));
        };
        let mut waits = Waits { gate: self, rank, number: Some(number) };
        let waited = tokio::time::timeout(within, let_in).await;
        match waited {
            Ok(Ok(permit)) => {
                waits.number = None;
                Ok(permit)
            }
            // Its place was taken by one that goes first.
            Ok(Err(_)) => {
                waits.number = None;
                Err(refusal(rank, "others go first"))
            }
            Err(_) => {
                drop(waits);
                self.lock().refused[rank] += 1;
                Err(refusal(rank, format_args!("waited {within:?}")))
            }
        }
    }

    /// A place, or one in the queue, or none at all.
    fn come(
        self: &Arc<Self>,
        rank: usize,
        now: Instant,
    ) -> Result<Permit, Option<(u64, oneshot::Receiver<Permit>, Duration)>> {
        let mut inner = self.lock();
        if let Some(controller) = &mut inner.controller {
            controller.turn(now, rand::rng().random());
            self.let_in(&mut inner, now);
        }
        let nobody_before = inner.queues[..=rank].iter().all(VecDeque::is_empty);
        if inner.under_way < inner.limit() && nobody_before {
            return Ok(self.permit(&mut inner, now));
        }
        if inner.queued() >= inner.settings.max_queue {
            // The last to come of the least important gives way, and hears of it by losing its channel.
            let least = (rank + 1..RANKS.len()).rev().find(|lower| !inner.queues[*lower].is_empty());
            match least {
                Some(lower) => {
                    drop(inner.queues[lower].pop_back());
                    inner.refused[lower] += 1;
                }
                None => {
                    inner.refused[rank] += 1;
                    return Err(None);
                }
            }
        }
        let (let_in, waits) = oneshot::channel();
        let number = inner.next_waiter;
        inner.next_waiter += 1;
        inner.queues[rank].push_back(Waiter { number, let_in });
        Err(Some((number, waits, inner.settings.queue_timeout)))
    }

    fn permit(self: &Arc<Self>, inner: &mut Inner, now: Instant) -> Permit {
        inner.under_way += 1;
        let under_way = inner.under_way;
        if let Some(controller) = &mut inner.controller {
            controller.under_way(under_way);
        }
        Permit { gate: Some(self.clone()), began: now, answered: false }
    }

    fn leave(self: &Arc<Self>, inner: &mut Inner, began: Instant, left: Left, now: Instant) {
        inner.under_way -= 1;
        if let Some(controller) = &mut inner.controller {
            match left {
                Left::Answered => controller.answered(began, now),
                Left::Untold => {}
                Left::GivenUp => controller.given_up(began, now),
            }
            controller.turn(now, rand::rng().random());
        }
        self.let_in(inner, now);
    }

    /// Lets in who waits, as many as may be.
    fn let_in(self: &Arc<Self>, inner: &mut Inner, now: Instant) {
        while inner.under_way < inner.limit() {
            let Some(next) = inner.queues.iter_mut().find_map(VecDeque::pop_front) else { return };
            let permit = self.permit(inner, now);
            // One that has gone meanwhile hands it back, without coming here again: the lock is held.
            if let Err(mut unwanted) = next.let_in.send(permit) {
                unwanted.gate = None;
                inner.under_way -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn limit(&self) -> u32 {
        self.controller.as_ref().map_or(self.settings.limit, Controller::limit)
    }

    fn queued(&self) -> u32 {
        self.queues.iter().map(VecDeque::len).sum::<usize>() as u32
    }
}

/// A place in the queue, left when dropped.
struct Waits<'a> {
    gate: &'a Arc<Gate>,
    rank: usize,
    /// `None`: it is not in the queue any more.
    number: Option<u64>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.gate.lock().queues[self.rank].retain(|waiter| waiter.number != number);
        }
    }
}

fn refusal(rank: usize, why: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Overloaded, format_args!("{why}; priority {}; by concurrency", RANKS[rank]))
        .with(More { retry_after: Some(RETRY_AFTER), ..More::default() })
}

/// What a client's requests have: its own priority, else what they say.
#[derive(Debug)]
pub struct OfClient {
    gate: Arc<Gate>,
    fixed: Option<Priority>,
    header: Option<http::HeaderName>,
    /// Whoever has not proven who it is does not go before those who have, whatever it says.
    proven: bool,
}

impl OfClient {
    /// By who it is.
    pub fn new(gate: Arc<Gate>, settings: &Concurrency, identity: Option<&SpiffeId>) -> Self {
        Self {
            gate,
            fixed: settings.of_client(identity),
            header: settings.priority_header.clone(),
            proven: identity.is_some(),
        }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// [`Reason::Overloaded`].
    pub async fn enter(&self, headers: &HeaderMap) -> Result<Permit, Refusal> {
        self.gate.enter(self.fixed.unwrap_or_else(|| self.said(headers))).await
    }

    fn said(&self, headers: &HeaderMap) -> Priority {
        let value = self.header.as_ref().and_then(|header| headers.get(header));
        match value.and_then(|value| RANKS.iter().position(|word| value == word)) {
            Some(0) if self.proven => Priority::Critical,
            Some(2) => Priority::Sheddable,
            _ => Priority::Default,
        }
    }
}
