//! The replicas: each serves a few requests at a time, the others wait in line; and what may be wrong with one.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{Semaphore, oneshot},
    task::LocalSet,
    time::Instant,
};

use super::figures::Counts;

/// What a replica is like when it is well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    /// The middle of its service times, which are spread log-normally.
    pub(super) median: Duration,
    pub(super) spread: f64,
    /// Requests that it works on at a time.
    pub(super) at_once: usize,
    /// Requests that may wait beyond those; more are answered at once, with a failure.
    pub(super) waiting: usize,
}

impl Default for Nature {
    fn default() -> Self {
        Self { median: Duration::from_millis(10), spread: 0.4, at_once: 4, waiting: 100 }
    }
}

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Well,
    /// Takes so many times as long.
    Slow(f64),
    /// Answers this share of requests with a failure, a millisecond later.
    Failing(f64),
    /// Takes no connection.
    Gone,
    /// Takes requests, and never answers them.
    Hanging,
}

/// What came of a request to one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    /// 503 of the application.
    Failed,
    /// Nothing was processed.
    NoConnection,
}

/// One replica of the service.
#[derive(Debug)]
pub(super) struct Replica {
    nature: Nature,
    pub(super) zone: &'static str,
    mood: Cell<Mood>,
    slots: Semaphore,
    in_line: Cell<usize>,
    random: RefCell<SmallRng>,
    /// What came to it.
    pub(super) offered: Counts,
}

impl Replica {
    pub(super) fn set(&self, mood: Mood) {
        self.mood.set(mood);
    }

    /// Takes a request. Who called may go away meanwhile: the work is done all the same, as most applications do.
    pub(super) async fn call(self: &Rc<Self>) -> Answer {
        self.offered.count();
        let mood = self.mood.get();
        match mood {
            Mood::Gone => return Answer::NoConnection,
            Mood::Failing(share) if self.random.borrow_mut().random::<f64>() < share => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Answer::Failed;
            }
            Mood::Hanging => std::future::pending().await,
            Mood::Failing(_) | Mood::Well | Mood::Slow(_) => {}
        }
        if self.in_line.get() >= self.nature.waiting + self.nature.at_once {
            return Answer::Failed;
        }
        let (done, answer) = oneshot::channel();
        let replica = self.clone();
        tokio::task::spawn_local(async move {
            replica.in_line.set(replica.in_line.get() + 1);
            let _slot = replica.slots.acquire().await.expect("it is never closed");
            tokio::time::sleep(replica.service_time()).await;
            replica.in_line.set(replica.in_line.get() - 1);
            let _ = done.send(());
        });
        let _ = answer.await;
        Answer::Good
    }

    fn service_time(&self) -> Duration {
        let factor = if let Mood::Slow(factor) = self.mood.get() { factor } else { 1.0 };
        let normal = normal(&mut *self.random.borrow_mut());
        self.nature.median.mul_f64(factor * (self.nature.spread * normal).exp())
    }
}

/// Box and Muller's way to a normally distributed number.
fn normal(random: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Until the next of independent arrivals.
pub(super) fn gap(random: &mut impl Rng, per_second: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / per_second)
}

/// All replicas.
#[derive(Debug)]
pub(super) struct World {
    pub(super) replicas: Vec<Rc<Replica>>,
    pub(super) began: Instant,
    seed: Cell<u64>,
}

impl World {
    /// With `count` replicas, by turns in these zones.
    pub(super) fn new(seed: u64, count: usize, zones: &[&'static str], nature: Nature) -> Rc<Self> {
        let began = Instant::now();
        let world = Self { replicas: Vec::new(), began, seed: Cell::new(seed << 32) };
        let replicas = (0..count).map(|index| {
            Rc::new(Replica {
                nature,
                zone: zones[index % zones.len()],
                mood: Cell::new(Mood::Well),
                slots: Semaphore::new(nature.at_once),
                in_line: Cell::new(0),
                random: RefCell::new(world.random()),
                offered: Counts::new(began),
            })
        });
        let replicas = replicas.collect();
        Rc::new(Self { replicas, ..world })
    }

    /// Another source of chance.
    pub(super) fn random(&self) -> SmallRng {
        self.seed.set(self.seed.get() + 1);
        SmallRng::seed_from_u64(self.seed.get())
    }

    pub(super) fn set_all(&self, mood: Mood) {
        self.replicas.iter().for_each(|replica| replica.set(mood));
    }

    /// What came to all of them.
    pub(super) fn offered(&self) -> impl Iterator<Item = &Counts> {
        self.replicas.iter().map(|replica| &replica.offered)
    }
}

/// Runs a story with its own clock, which jumps to whatever is next.
pub(super) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, story)
}
