//! Ends a response that has begun, when nothing moves any more: no byte of it, and none of its request.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pillion_api::model;
use tokio::time::{Instant, Sleep};

use crate::http::{
    Body,
    through::{Hook, Passing},
};

/// For how long nothing may move, and when something last did.
#[derive(Debug, Clone)]
pub struct Idle {
    most: Duration,
    /// Whose policy says so.
    of: Arc<model::Service>,
    last: Rc<Cell<Instant>>,
}

impl Idle {
    /// At `now` something has moved.
    pub fn new(most: Duration, of: Arc<model::Service>, now: Instant) -> Self {
        Self { most, of, last: Rc::new(Cell::new(now)) }
    }

    /// Has a request's body say when it moves.
    pub fn watch(&self, body: Body) -> Body {
        match body {
            Body::Empty => Body::Empty,
            body => body.through(Moves(self.last.clone())),
        }
    }
}

/// The clock of a response under way.
#[derive(Debug)]
pub(super) struct Watch {
    idle: Idle,
    sleep: Pin<Box<Sleep>>,
}

impl Watch {
    pub(super) fn new(idle: Idle) -> Self {
        idle.last.set(Instant::now());
        let sleep = Box::pin(tokio::time::sleep(idle.most));
        Self { idle, sleep }
    }

    /// For how long nothing has moved, and whose limit that is.
    pub(super) fn detail(&self) -> String {
        let Idle { most, of, .. } = &self.idle;
        format!("{most:?}, timeouts.idle of TrafficPolicy {}", of.policy.source)
    }

    pub(super) fn moved(&self) {
        self.idle.last.set(Instant::now());
    }

    /// Ready when nothing has moved for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let end = self.idle.last.get() + self.idle.most;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// A request's body says when it moves.
#[derive(Debug)]
struct Moves(Rc<Cell<Instant>>);

impl Hook for Moves {
    fn pass(&mut self, passing: Passing, _: &mut Body) -> Passing {
        self.0.set(Instant::now());
        passing
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whatever_moves_puts_off_the_end() {
        let start = Instant::now();
        let service = model::Service {
            name: "app.demo".parse().expect("a name"),
            ports: Vec::new(),
            routes: Vec::new(),
            policy: model::TrafficPolicy { source: "demo/app".into(), ..model::TrafficPolicy::default() },
            virtual_address: None,
            external: None,
        };
        let idle = Idle::new(Duration::from_secs(10), Arc::new(service), start);
        let mut watch = Watch::new(idle.clone());
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(6)).await;
                idle.last.set(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = poll_fn(|cx| watch.poll(cx)) => {}
            () = moving => {}
        }
        assert_eq!(start.elapsed().as_secs(), 28);
        assert_eq!(watch.detail(), "10s, timeouts.idle of TrafficPolicy demo/app");
    }
}
