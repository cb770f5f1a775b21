//! One sidecar's part in live requests: which taps concern it, and what it is to be told of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pillion_api::wire::{StopTap, TapAnswer, TapEvents, control_message::Message};
use tokio::{sync::watch, time::Instant};

use super::hello;
use crate::tap::{About, Joined, List, Taps};

/// A tap that is not renewed for so many heartbeats ends at the sidecar.
const LEASE_BEATS: u32 = 4;

/// The taps that a sidecar has a part in.
pub(super) struct Tapping {
    list: watch::Receiver<List>,
    joined: BTreeMap<u64, Joined>,
    /// Those that it is to be told of: anew, or that they are over.
    due: BTreeSet<u64>,
    lease: Duration,
}

impl Tapping {
    /// None before the first [`review`](Self::review).
    pub(super) fn new(taps: &Taps, heartbeat: Duration) -> Self {
        let mut list = taps.follow();
        list.mark_changed();
        let lease = heartbeat * LEASE_BEATS;
        Self { list, joined: BTreeMap::new(), due: BTreeSet::new(), lease }
    }

    /// Returns when taps have come or gone.
    pub(super) async fn changed(&mut self) {
        if self.list.changed().await.is_err() {
            // The server ends.
            std::future::pending().await
        }
    }

    /// Finds those that concern the sidecar as it is now; `serves` and `follows` as [`Scope`](crate::tap::Scope) asks.
    pub(super) fn review(
        &mut self,
        (about, version): (About<'_>, &str),
        serves: impl Fn(&str) -> bool,
        follows: impl Fn(&str) -> bool,
        now: Instant,
    ) {
        let list = self.list.borrow_and_update().clone();
        if list.is_empty() && self.joined.is_empty() {
            return;
        }
        let concerns: BTreeMap<_, _> = (list.iter())
            .filter(|tap| tap.scope().concerns(about, &serves, &follows))
            .map(|tap| (tap.id(), tap))
            .collect();
        let due = &mut self.due;
        self.joined.retain(|id, _| {
            let stays = concerns.contains_key(id);
            if !stays {
                due.insert(*id);
            }
            stays
        });
        for (id, tap) in concerns {
            self.joined.entry(id).or_insert_with(|| {
                due.insert(id);
                tap.join(about, version, now)
            });
        }
    }

    /// Everything is to be told again, so that it goes on.
    pub(super) fn renew(&mut self) {
        self.due.extend(self.joined.keys());
    }

    /// Whether [`next_message`](Self::next_message) has something.
    pub(super) fn is_ready(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next thing to say; it counts as said.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        let id = self.due.pop_first()?;
        Some(match self.joined.get(&id) {
            Some(joined) => Message::StartTap(joined.start(self.lease)),
            None => Message::StopTap(StopTap { id }),
        })
    }

    pub(super) fn answered(&self, answer: TapAnswer) {
        if let Some(joined) = self.joined.get(&answer.id) {
            joined.answered(hello::words(&answer.refusal));
        }
    }

    pub(super) fn told(&self, events: TapEvents, now: Instant) {
        // What was on its way when its reader went is for nobody.
        if let Some(joined) = self.joined.get(&events.id) {
            joined.told(events, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pillion_api::wire::TapFilter;

    use super::*;
    use crate::tap::{Reader, Scope, Wanted};

    const BEAT: Duration = Duration::from_secs(5);

    fn open(taps: &Arc<Taps>, resource: &str, callers: bool) -> Reader {
        let resource = resource.parse().expect("a resource");
        let scope = Scope { resource, callers, namespace: None };
        let wanted = Wanted { scope, filter: TapFilter::default(), max_per_second: 10, headers: Vec::new() };
        taps.open(wanted, Instant::now()).expect("room")
    }

    fn said(tapping: &mut Tapping) -> Vec<String> {
        let message = |message| match message {
            Message::StartTap(start) => format!("start {} for {} ms", start.id, start.lease_ms),
            Message::StopTap(stop) => format!("stop {}", stop.id),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| tapping.next_message()).map(message).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_hears_of_what_concerns_it_again_and_of_its_end() {
        let taps = Arc::new(Taps::new(Arc::default()));
        let mut tapping = Tapping::new(&taps, BEAT);
        let about = (About { namespace: "demo", workload: "web-1" }, "1");
        let review = |tapping: &mut Tapping, calls: &str| {
            tapping.review(
                about,
                |service| service == "web.demo",
                |service| service == calls,
                Instant::now(),
            );
        };
        let own = open(&taps, "svc/web.demo", false);
        let other = open(&taps, "svc/cart.demo", false);
        let callers = open(&taps, "svc/cart.demo", true);
        tapping.changed().await;
        review(&mut tapping, "");
        assert_eq!(said(&mut tapping), ["start 1 for 20000 ms"]);
        review(&mut tapping, "cart.demo");
        assert_eq!(said(&mut tapping), ["start 3 for 20000 ms"], "it calls it now");
        review(&mut tapping, "cart.demo");
        assert!(!tapping.is_ready());
        tapping.renew();
        assert_eq!(said(&mut tapping), ["start 1 for 20000 ms", "start 3 for 20000 ms"]);
        drop((own, other));
        tapping.changed().await;
        review(&mut tapping, "");
        assert_eq!(said(&mut tapping), ["stop 1", "stop 3"]);
        drop(callers);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_for_a_tap_that_is_over_is_for_nobody() {
        let taps = Arc::new(Taps::new(Arc::default()));
        let tapping = Tapping::new(&taps, BEAT);
        tapping.told(TapEvents { id: 7, ..TapEvents::default() }, Instant::now());
        tapping.answered(TapAnswer { id: 7, refusal: String::new() });
        assert!(!tapping.is_ready());
    }
}
