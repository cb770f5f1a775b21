//! Live requests: who watches, and what sidecars tell them.
//!
//! A [`Reader`] opens a tap; every sidecar's stream follows the list of taps and [joins](Tap::join) those that concern it. What
//! sidecars tell goes to the reader at once or not at all: nothing waits for one that does not keep up, and all that is left out is
//! counted. When the reader goes the tap is off the list, and the streams tell their sidecars.

mod away;
mod scope;
mod view;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pillion_api::{
    gcra::{Arrival, Pace, nanos},
    wire,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub use self::{
    away::{Away, Meant},
    scope::{About, Resource, Scope},
    view::{TapDropped, TapEnded, TapEvent, TapHeader, TapSegment, TapStatus},
};
use crate::telemetry::{Counted, Telemetry};

/// Taps at once.
pub const MAX_TAPS: usize = 16;
/// Events on their way to one reader.
const AHEAD: usize = 1024;
/// Of one message of a sidecar; the rest counts as left out.
const MAX_BATCH: usize = 256;
/// Of all sidecars of one tap together, each second: with so many that more could come, each may tell less.
const MOST_RECEIVED: usize = 10_000;
/// A sidecar that has not answered for so long is told of.
const ANSWER: Duration = Duration::from_secs(2);
/// Sidecars that a note names.
const NAMED: usize = 3;

/// All taps of this server.
pub struct Taps {
    list: watch::Sender<List>,
    ids: AtomicU64,
    telemetry: Arc<Telemetry>,
}

/// Those that are open.
pub type List = Arc<[Arc<Tap>]>;

/// What a reader wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose sidecars tell.
    pub scope: Scope,
    /// Which requests.
    pub filter: wire::TapFilter,
    /// Told at most.
    pub max_per_second: u32,
    /// Of requests' headers, those that are told.
    pub headers: Vec<String>,
}

/// One reader's, as the streams of sidecars see it.
pub struct Tap {
    id: u64,
    wanted: Wanted,
    told: mpsc::Sender<TapEvent>,
    began: Instant,
    pace: Pace,
    arrival: Arrival,
    limited: AtomicU64,
    overflowed: AtomicU64,
    unread: AtomicU64,
    passed_by: AtomicU64,
    sidecars: Mutex<Sidecars>,
    telemetry: Arc<Telemetry>,
}

#[derive(Default)]
struct Sidecars {
    next: u64,
    joined: BTreeMap<u64, Sidecar>,
}

struct Sidecar {
    name: String,
    version: String,
    asked: Instant,
    /// `None` until it comes; a refusal's words.
    answer: Option<Result<(), String>>,
}

/// The reader's side; the tap ends when it is dropped.
pub struct Reader {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    told: mpsc::Receiver<TapEvent>,
    _counted: Counted,
}

/// A sidecar's part in a tap, for as long as it has one.
pub struct Joined {
    tap: Arc<Tap>,
    key: u64,
    sidecar: (String, String),
}

impl Taps {
    /// None yet.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { list: watch::Sender::default(), ids: AtomicU64::new(0), telemetry }
    }

    /// Follows those that are open.
    pub fn follow(&self) -> watch::Receiver<List> {
        self.list.subscribe()
    }

    /// Opens one; `None`: there are [`MAX_TAPS`] already.
    pub fn open(self: &Arc<Self>, wanted: Wanted, now: Instant) -> Option<Reader> {
        let (sender, told) = mpsc::channel(AHEAD);
        let rate = wanted.max_per_second;
        let tap = Arc::new(Tap {
            id: self.ids.fetch_add(1, Ordering::Relaxed) + 1,
            wanted,
            told: sender,
            began: now,
            pace: Pace::new(rate, Duration::from_secs(1), rate),
            arrival: Arrival::default(),
            limited: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            passed_by: AtomicU64::new(0),
            sidecars: Mutex::default(),
            telemetry: Arc::clone(&self.telemetry),
        });
        let opened = self.list.send_if_modified(|list| {
            let room = list.len() < MAX_TAPS;
            if room {
                *list = list.iter().cloned().chain([Arc::clone(&tap)]).collect();
            }
            room
        });
        let counted = Counted::new(&self.telemetry.taps);
        opened.then(|| Reader { taps: Arc::clone(self), tap, told, _counted: counted })
    }
}

impl Reader {
    /// The next request; waits for it.
    pub async fn next(&mut self) -> TapEvent {
        self.told.recv().await.expect("the tap is held here, and with it the sender")
    }

    /// How it goes. `away`: sidecars that are meant and not connected here; `nobody`: what to say where none is.
    pub fn status(&self, away: &Away, nobody: &str, now: Instant) -> TapStatus {
        self.tap.status(away, nobody, now)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.taps.list.send_modify(|list| {
            *list = list.iter().filter(|tap| tap.id != self.tap.id).cloned().collect();
        });
    }
}

impl Tap {
    /// Of this server.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whose sidecars tell.
    pub fn scope(&self) -> &Scope {
        &self.wanted.scope
    }

    /// What a sidecar is told, at first and to renew it.
    pub fn start(&self, lease: Duration) -> wire::StartTap {
        let sidecars = lock(&self.sidecars).joined.len().max(1);
        let share = u32::try_from(MOST_RECEIVED / sidecars).unwrap_or(u32::MAX).max(1);
        wire::StartTap {
            id: self.id,
            filter: Some(self.wanted.filter.clone()),
            max_per_second: self.wanted.max_per_second.min(share),
            headers: self.wanted.headers.clone(),
            lease_ms: u32::try_from(lease.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// A sidecar is asked; it is part of the tap until what is given is dropped.
    pub fn join(self: &Arc<Self>, about: About<'_>, version: &str, now: Instant) -> Joined {
        let mut sidecars = lock(&self.sidecars);
        let key = sidecars.next;
        sidecars.next += 1;
        let name = about.workload.to_owned();
        let sidecar = Sidecar { name: name.clone(), version: version.to_owned(), asked: now, answer: None };
        sidecars.joined.insert(key, sidecar);
        drop(sidecars);
        Joined { tap: Arc::clone(self), key, sidecar: (name, about.namespace.to_owned()) }
    }

    fn status(&self, away: &Away, nobody: &str, now: Instant) -> TapStatus {
        let sidecars = lock(&self.sidecars);
        let (mut listening, mut waiting, mut notes) = (0, 0, Vec::new());
        let (mut silent, mut refused) = (Vec::new(), BTreeMap::<&str, Vec<String>>::new());
        for sidecar in sidecars.joined.values() {
            match &sidecar.answer {
                Some(Ok(())) => listening += 1,
                Some(Err(why)) => refused.entry(why).or_default().push(sidecar.name.clone()),
                None => {
                    waiting += 1;
                    if now.saturating_duration_since(sidecar.asked) >= ANSWER {
                        let version = if sidecar.version.is_empty() { "unknown" } else { &sidecar.version };
                        silent.push(format!("{} (release {version})", sidecar.name));
                    }
                }
            }
        }
        if sidecars.joined.is_empty() && away.nobody() {
            notes.push(nobody.to_owned());
        }
        if !silent.is_empty() {
            let they = if silent.len() == 1 { "it" } else { "they" };
            notes.push(format!(
                "no answer from {}: {they} may be of a release without tap",
                sidecars_of(&silent)
            ));
        }
        for (why, who) in &refused {
            let tell = if who.len() == 1 { "tells" } else { "tell" };
            notes.push(format!("{} {tell} nothing: {why}", sidecars_of(who)));
        }
        let lost = away.lost();
        if !lost.is_empty() {
            let what = match lost.len() {
                1 => "is not connected to this control plane: its stream is lost, or is another's",
                _ => "are not connected to this control plane: their streams are lost, or are another's",
            };
            notes.push(format!("{} {what}", sidecars_of(&lost)));
        }
        let back = away.back();
        if !back.is_empty() {
            let are = if back.len() == 1 { "is" } else { "are" };
            notes.push(format!("{} {are} connected again", sidecars_of(&back)));
        }
        TapStatus {
            listening,
            waiting,
            refused: refused.values().map(Vec::len).sum(),
            away: away.len(),
            passed_by: self.passed_by.load(Ordering::Relaxed),
            dropped: TapDropped {
                limited: self.limited.load(Ordering::Relaxed),
                overflowed: self.overflowed.load(Ordering::Relaxed),
                unread: self.unread.load(Ordering::Relaxed),
            },
            notes,
        }
    }
}

impl Joined {
    /// The tap's.
    pub fn id(&self) -> u64 {
        self.tap.id
    }

    /// What to tell the sidecar.
    pub fn start(&self, lease: Duration) -> wire::StartTap {
        self.tap.start(lease)
    }

    /// It said whether it tells; empty: it does.
    pub fn answered(&self, refusal: String) {
        let answer = if refusal.is_empty() { Ok(()) } else { Err(refusal) };
        if let Some(sidecar) = lock(&self.tap.sidecars).joined.get_mut(&self.key) {
            sidecar.answer = Some(answer);
        }
    }

    /// What it told: to the reader, as far as that is to have it and takes it.
    pub fn told(&self, told: wire::TapEvents, now: Instant) {
        let (tap, telemetry) = (&self.tap, &self.tap.telemetry);
        let beyond = told.events.len().saturating_sub(MAX_BATCH) as u64;
        let (mut limited, mut unread, mut passed) = (told.limited, 0, 0);
        let at = nanos(now.saturating_duration_since(tap.began));
        for event in told.events.into_iter().take(MAX_BATCH) {
            if tap.arrival.take(tap.pace, at).is_err() {
                limited += 1;
                continue;
            }
            let event = TapEvent::of((&self.sidecar.0, &self.sidecar.1), event);
            match tap.told.try_send(event) {
                Ok(()) => passed += 1,
                Err(_) => unread += 1,
            }
        }
        let overflowed = told.overflowed.saturating_add(beyond);
        tap.passed_by.fetch_add(told.passed_by, Ordering::Relaxed);
        for (count, kept, metric) in [
            (limited, Some(&tap.limited), &telemetry.tap_limited),
            (overflowed, Some(&tap.overflowed), &telemetry.tap_overflowed),
            (unread, Some(&tap.unread), &telemetry.tap_unread),
            (passed, None, &telemetry.tap_told),
        ] {
            if let Some(kept) = kept {
                kept.fetch_add(count, Ordering::Relaxed);
            }
            metric.increment(count);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        lock(&self.tap.sidecars).joined.remove(&self.key);
    }
}

/// `the sidecar of a`, `the sidecars of a, b, c and 2 more`.
fn sidecars_of(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len() {
        1 => format!("the sidecar of {first}"),
        ..=NAMED => format!("the sidecars of {first}"),
        all => format!("the sidecars of {first} and {} more", all - NAMED),
    }
}

/// No code panics while it holds one of these locks, and what they guard is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
