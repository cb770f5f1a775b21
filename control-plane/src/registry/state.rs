//! Who is registered, and until when: every decision pure, with the time as an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use pillion_api::wire;
use tokio::time::Instant;

use crate::compile::Workload;

/// One stream of one sidecar; a newer stream of the same workload has a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// A registered workload.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who it is, with its latest health.
    pub workload: Arc<Workload>,
    /// Its stream is open, or its lease runs.
    pub presence: Presence,
    /// Since when it has a stream without a gap, or has none; milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Shared with its stream, which writes it without the registry's lock.
    pub waiting: Waiting,
}

/// Since when a sidecar's answer to an update is waited for.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<AtomicI64>);

impl Waiting {
    /// Milliseconds since the Unix epoch; `None`: it has answered what it was sent.
    pub fn since_ms(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// From now on that is so.
    pub fn set(&self, since_ms: Option<i64>) {
        self.0.store(since_ms.unwrap_or_default(), Ordering::Relaxed);
    }
}

impl Member {
    /// The key of everything kept about it.
    pub fn uid(&self) -> &str {
        &self.workload.hello.instance_uid
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.workload.hello.workload
    }

    /// Whether its stream is open.
    pub fn connected(&self) -> bool {
        matches!(self.presence, Presence::Connected(_))
    }

    /// Its application's health, as last reported. Silence counts as not ready.
    pub fn health(&self) -> wire::Health {
        self.workload.hello.health.clone().unwrap_or_else(|| wire::Health {
            reason: "its sidecar has not reported yet".to_owned(),
            ..Default::default()
        })
    }
}

/// Whether a workload's sidecar is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// By this stream.
    Connected(Connection),
    /// Not now; registered until then.
    Lost {
        /// The end of its lease.
        expires: Instant,
    },
}

/// What a registration was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// A workload that was not known.
    Joined,
    /// A known one on a new stream.
    Resumed {
        /// It says something else of itself than before.
        changed: bool,
    },
}

/// Why a workload may not register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Somebody else has that UID.
    #[error("instance_uid {uid:?} is registered to {owner}")]
    Taken {
        /// The UID.
        uid: String,
        /// Who has it.
        owner: String,
    },
    /// The registry's bound.
    #[error("{0} workloads are registered, which is as many as this server takes")]
    Full(usize),
    /// The bound of one identity.
    #[error("{identity} has {most} workloads, which is as many as one identity may have")]
    TooMany {
        /// Whose they are.
        identity: String,
        /// How many it may have.
        most: usize,
    },
}

/// How many workloads there may be.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Together.
    pub all: usize,
    /// Of each identity.
    pub of_one_identity: usize,
}

/// The registered workloads by UID.
#[derive(Debug)]
pub struct State {
    members: BTreeMap<String, Member>,
    /// How many each identity has; none is not kept.
    by_identity: BTreeMap<String, usize>,
    /// The running leases by their ends, with whose they are.
    leases: BTreeSet<(Instant, String)>,
    lease: Duration,
    room: Room,
}

impl State {
    /// Nobody is registered.
    pub fn new(lease: Duration, room: Room) -> Self {
        Self { members: BTreeMap::new(), by_identity: BTreeMap::new(), leases: BTreeSet::new(), lease, room }
    }

    /// Takes back a workload that an earlier run of the server knew, until `expires`.
    pub fn restore(&mut self, workload: Workload, expires: Instant, now_ms: i64) {
        let member = Member {
            presence: Presence::Lost { expires },
            since_ms: now_ms,
            workload: Arc::new(workload),
            waiting: Waiting::default(),
        };
        self.count(&member);
        self.leases.insert((expires, member.uid().to_owned()));
        self.members.insert(member.uid().to_owned(), member);
    }

    /// A stream was opened. It takes over from an older stream of the same workload.
    pub fn connect(
        &mut self,
        workload: impl Into<Arc<Workload>>,
        connection: Connection,
        now_ms: i64,
    ) -> Result<Registered, Refused> {
        let workload = workload.into();
        let uid = workload.hello.instance_uid.clone();
        let registered = match self.members.get(&uid) {
            Some(known) if known.workload.spiffe_id != workload.spiffe_id => {
                return Err(Refused::Taken { uid, owner: known.workload.spiffe_id.clone() });
            }
            Some(known) => Registered::Resumed { changed: known.workload != workload },
            None if self.members.len() >= self.room.all => return Err(Refused::Full(self.room.all)),
            None if self.of_identity(&workload.spiffe_id) >= self.room.of_one_identity => {
                let most = self.room.of_one_identity;
                return Err(Refused::TooMany { identity: workload.spiffe_id.clone(), most });
            }
            None => Registered::Joined,
        };
        // One stream after the other, with the next certificate, is no new beginning.
        let unbroken = self.members.get(&uid).filter(|known| known.connected());
        let member = Member {
            workload,
            presence: Presence::Connected(connection),
            since_ms: unbroken.map_or(now_ms, |known| known.since_ms),
            waiting: Waiting::default(),
        };
        if registered == Registered::Joined {
            self.count(&member);
        }
        let before = self.members.insert(uid.clone(), member);
        if let Some(Member { presence: Presence::Lost { expires }, .. }) = before {
            self.leases.remove(&(expires, uid));
        }
        Ok(registered)
    }

    /// A new report of health. Tells whether it differs; a superseded stream changes nothing.
    pub fn report(&mut self, uid: &str, connection: Connection, health: wire::Health) -> bool {
        let Some(member) = self.owned(uid, connection) else { return false };
        if member.workload.hello.health.as_ref() == Some(&health) {
            return false;
        }
        Arc::make_mut(&mut member.workload).hello.health = Some(health);
        true
    }

    /// The stream was lost: the lease starts. A superseded stream changes nothing.
    pub fn disconnect(&mut self, uid: &str, connection: Connection, now: Instant, now_ms: i64) {
        let expires = now + self.lease;
        if let Some(member) = self.owned(uid, connection) {
            member.presence = Presence::Lost { expires };
            member.since_ms = now_ms;
            self.leases.insert((expires, uid.to_owned()));
        }
    }

    /// The workload says goodbye: it is gone at once.
    pub fn deregister(&mut self, uid: &str, connection: Connection) -> Option<Member> {
        self.owned(uid, connection)?;
        let gone = self.members.remove(uid)?;
        self.discount(&gone);
        Some(gone)
    }

    /// Removes all whose lease has ended.
    pub fn expire(&mut self, now: Instant) -> Vec<Member> {
        let mut gone = Vec::new();
        while let Some((expires, _)) = self.leases.first()
            && *expires <= now
            && let Some((_, uid)) = self.leases.pop_first()
            && let Some(member) = self.members.remove(&uid)
        {
            self.discount(&member);
            gone.push(member);
        }
        gone
    }

    /// When the next lease ends, if any runs.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.leases.first().map(|(expires, _)| *expires)
    }

    /// Everybody, by UID.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One.
    pub fn member(&self, uid: &str) -> Option<&Member> {
        self.members.get(uid)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many an identity has.
    fn of_identity(&self, identity: &str) -> usize {
        self.by_identity.get(identity).copied().unwrap_or_default()
    }

    fn count(&mut self, member: &Member) {
        *self.by_identity.entry(member.workload.spiffe_id.clone()).or_default() += 1;
    }

    fn discount(&mut self, member: &Member) {
        let identity = &member.workload.spiffe_id;
        if let Some(count) = self.by_identity.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                self.by_identity.remove(identity);
            }
        }
    }

    fn owned(&mut self, uid: &str, connection: Connection) -> Option<&mut Member> {
        self.members.get_mut(uid).filter(|member| member.presence == Presence::Connected(connection))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn workload(uid: &str, ready: bool) -> Workload {
        Workload {
            hello: wire::Hello {
                instance_uid: uid.to_owned(),
                workload: uid.to_owned(),
                health: Some(wire::Health { ready, ..Default::default() }),
                ..wire::Hello::default()
            },
            spiffe_id: "spiffe://mesh.local/ns/demo/sa/payments".to_owned(),
            namespace: "demo".to_owned(),
        }
    }

    const LEASE: Duration = Duration::from_secs(10);
    const ROOM: Room = Room { all: 10, of_one_identity: 10 };
    const FIRST: Connection = Connection(1);
    const SECOND: Connection = Connection(2);

    fn connected() -> State {
        let mut state = State::new(LEASE, ROOM);
        assert_eq!(state.connect(workload("a", true), FIRST, 0), Ok(Registered::Joined));
        state
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_stream_keeps_its_lease_and_no_longer() {
        let (mut state, start) = (connected(), Instant::now());
        state.disconnect("a", FIRST, start, 0);
        assert_eq!(state.next_expiry(), Some(start + LEASE));
        assert!(state.expire(start + LEASE - Duration::from_millis(1)).is_empty());
        assert_eq!(state.expire(start + LEASE).len(), 1);
        assert!(state.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_stream_takes_over_and_the_old_one_ends_nothing() {
        let (mut state, now) = (connected(), Instant::now());
        assert_eq!(state.connect(workload("a", true), SECOND, 5), Ok(Registered::Resumed { changed: false }));
        state.disconnect("a", FIRST, now, 6);
        let since = |state: &State| state.member("a").expect("registered").since_ms;
        assert_eq!(since(&state), 0, "it has had a stream all the time");
        assert!(state.deregister("a", FIRST).is_none());
        assert!(!state.report("a", FIRST, wire::Health::default()));
        assert_eq!(state.next_expiry(), None);
        assert!(state.member("a").expect("registered").connected());
        state.disconnect("a", SECOND, now, 7);
        state.connect(workload("a", true), Connection(3), 8).expect("it is known");
        assert_eq!(since(&state), 8);
    }

    #[test]
    fn what_a_workload_says_anew_is_noticed() {
        let mut state = connected();
        assert_eq!(state.connect(workload("a", false), SECOND, 0), Ok(Registered::Resumed { changed: true }));
        assert!(state.report("a", SECOND, wire::Health { ready: true, ..Default::default() }));
        assert!(!state.report("a", SECOND, wire::Health { ready: true, ..Default::default() }));
        assert!(state.deregister("a", SECOND).is_some());
        assert_eq!(state.len(), 0);
    }

    #[test]
    fn nobody_takes_anothers_uid_nor_more_than_there_is_room_for() {
        let mut state = State::new(LEASE, Room { all: 1, ..ROOM });
        state.connect(workload("a", true), FIRST, 0).expect("room for one");
        let mut thief = workload("a", true);
        thief.spiffe_id = "spiffe://mesh.local/ns/demo/sa/web".to_owned();
        assert!(matches!(state.connect(thief, SECOND, 0), Err(Refused::Taken { .. })));
        assert_eq!(state.connect(workload("b", true), SECOND, 0), Err(Refused::Full(1)));
    }
    #[tokio::test(start_paused = true)]
    async fn one_identity_takes_its_share_and_no_more_whoever_of_it_comes_and_goes() {
        let (mut state, now) = (State::new(LEASE, Room { of_one_identity: 2, ..ROOM }), Instant::now());
        state.restore(workload("a", true), now + LEASE, 0);
        state.connect(workload("b", true), FIRST, 0).expect("room for a second");
        let third = state.connect(workload("c", true), FIRST, 0);
        assert!(matches!(third, Err(Refused::TooMany { most: 2, .. })), "{third:?}");
        let mut other = workload("d", true);
        other.spiffe_id = "spiffe://mesh.local/ns/demo/sa/web".to_owned();
        state.connect(other, FIRST, 0).expect("room for another identity");
        state
            .connect(workload("b", true), SECOND, 0)
            .expect("a new stream of a known one takes no more room");

        state.deregister("b", SECOND).expect("it is registered");
        state.connect(workload("c", true), FIRST, 0).expect("room again");
        assert_eq!(state.expire(now + LEASE).len(), 1, "the restored one has not come back");
        state.connect(workload("e", true), FIRST, 0).expect("room again");
        assert!(state.connect(workload("f", true), FIRST, 0).is_err());
    }
}
