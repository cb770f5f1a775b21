//! What is known of one request, or of one connection carried as bytes, for those who listen ([`super::listeners`]): noted on
//! its way, told when it has ended.

use std::{
    cell::Cell,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pillion_api::hops::Split;
use smallvec::SmallVec;

use super::{
    edge::{EdgeKey, Outcome},
    listeners::Wanted,
    trace::{Trace, context::TraceId},
};

/// The most of a text that comes from a caller, bytes: nobody may fill the memory of who listens.
pub const LONGEST: usize = 2048;

/// One request, or one connection. What is not known is empty.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    /// Who wants to hear of it, as was decided when it began.
    pub wanted: Wanted,
    /// What the request came as; `None`: a connection, carried as bytes or refused before it has said anything.
    pub version: Option<Version>,
    /// The request's.
    pub method: Method,
    /// Path and query, the path in the spelling in which it is matched and sent on; cut off after [`LONGEST`].
    pub path: String,
    /// Whom the caller has named, likewise.
    pub authority: String,
    /// Whether it is gRPC's.
    pub grpc: bool,
    /// It is a copy of a request, and counts as none itself.
    pub mirror: bool,
    /// Where it is counted: direction, source, target, backend, workload, mutual TLS.
    pub edge: Option<Arc<EdgeKey>>,
    /// Who calls, as proven by mutual TLS; of the callee's sidecar.
    pub peer: Option<Arc<str>>,
    /// Where the caller's connection comes from; of the callee's sidecar.
    pub peer_address: Option<SocketAddr>,
    /// `<namespace>/<name>` of the route that it took.
    pub route: String,
    /// The rule's name, else its place.
    pub rule: String,
    /// Whom it was sent to, in order.
    pub tries: SmallVec<[Try; 2]>,
    /// Fields of the request: those that any of the listeners asks for.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
    /// Bytes of the request's body so far; of a connection, from the caller. `None`: it has no body.
    pub sent: Option<Arc<AtomicU64>>,
    /// Bytes of the response's body; of a connection, to the caller.
    pub received: u64,
    /// The answer's status.
    pub status: Option<StatusCode>,
    /// How it ended; `None`: a connection that was carried to its end.
    pub outcome: Option<Outcome>,
    /// Particulars of a refusal, or how a connection broke.
    pub detail: String,
    /// What the callee's sidecar says of an answer that is its own: its `pillion-error`.
    pub told: Option<HeaderValue>,
    /// From its beginning to its end, microseconds.
    pub took_us: u64,
    /// Where that went. `None`: it is not looked at.
    pub split: Option<Split>,
    /// When what happened on the way.
    pub moments: Moments,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// The trace that it is part of, by which people find it.
    pub trace_id: Option<TraceId>,
    /// The same, where a span of it is recorded here.
    pub trace: Option<Box<Trace>>,
}

/// When what happened to a request, microseconds since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moments {
    /// Its last try was sent.
    pub sent_us: Option<u32>,
    /// The answer's head was there.
    pub answered_us: Option<u32>,
}

/// One of the times that a request was sent, or that a connection was made.
#[derive(Debug, Clone)]
pub struct Try {
    /// To whom.
    pub callee: Arc<Callee>,
    /// Beside another one, which took long.
    pub hedge: bool,
    /// Microseconds since the request began.
    pub began_us: u32,
    /// The same, and what it came to; of a connection that was made, nothing more. `None`: it was given up.
    pub ended: Option<(u32, Option<Outcome>)>,
}

/// Whom a try is for.
#[derive(Debug)]
pub struct Callee {
    /// The workload instance's.
    pub uid: Box<str>,
    /// What people call it.
    pub workload: Arc<str>,
    /// Of its sidecar; outside the mesh, its own.
    pub address: SocketAddr,
    /// Who it has to prove to be. `None`: it is outside the mesh.
    pub identity: Option<Box<str>>,
}

/// Who calls, by a connection of its own.
#[derive(Debug)]
pub struct Caller {
    /// As proven by mutual TLS. `None`: it is outside the mesh.
    pub identity: Option<Arc<str>>,
    /// Where its connection comes from.
    pub address: SocketAddr,
}

impl Exchange {
    /// When it began.
    pub fn began(&self) -> Option<SystemTime> {
        self.ended?.checked_sub(std::time::Duration::from_micros(self.took_us))
    }

    /// Whether it did not end well: a failure of the callee or the mesh, a refusal, or given up by its caller.
    pub fn is_error(&self) -> bool {
        match self.outcome {
            Some(Outcome::Refused(_) | Outcome::Cancelled) => true,
            Some(outcome) => outcome.is_failure() || self.told.is_some(),
            None => !self.detail.is_empty(),
        }
    }

    /// Who was at the other end, as proven by mutual TLS: who called, or who has answered.
    pub fn peer(&self) -> Option<&str> {
        if self.peer.is_some() {
            return self.peer.as_deref();
        }
        let last = self.last()?;
        let (_, outcome) = last.ended?;
        let answered = matches!(outcome, None | Some(Outcome::Status(_) | Outcome::Grpc(_)));
        last.callee.identity.as_deref().filter(|_| answered)
    }

    /// The endpoint that it ended with.
    pub fn callee(&self) -> Option<&Callee> {
        self.last().map(|last| &*last.callee)
    }

    /// The try that it ended with. Of those beside each other the others were given up, also if they began later.
    fn last(&self) -> Option<&Try> {
        let ended = self.tries.iter().filter(|it| it.ended.is_some());
        ended.max_by_key(|it| it.ended.map(|(at, _)| at)).or(self.tries.last())
    }

    /// Bytes from the caller.
    pub fn sent(&self) -> u64 {
        self.sent.as_ref().map_or(0, |sent| sent.load(Ordering::Relaxed))
    }

    /// What is to be noted of a copy of the request, where its span is recorded, which the copy's head is to name.
    pub fn copied(&self, headers: &mut HeaderMap) -> Option<Box<Self>> {
        let trace = self.trace.as_ref()?.copied(headers);
        Some(Box::new(Self {
            wanted: Wanted::SPANS,
            version: self.version,
            method: self.method.clone(),
            path: self.path.clone(),
            authority: self.authority.clone(),
            grpc: self.grpc,
            mirror: true,
            route: self.route.clone(),
            rule: self.rule.clone(),
            trace_id: self.trace_id,
            trace: Some(Box::new(trace)),
            ..Self::default()
        }))
    }

    /// For another one, with the room for its texts and lists. Each field by itself: as a whole it would be moved twice.
    pub(super) fn clear(&mut self) {
        let Self { path, authority, route, rule, detail, .. } = self;
        for text in [path, authority, route, rule, detail] {
            text.clear();
        }
        // Whatever is added to it is named here, too.
        let Self {
            wanted,
            version,
            method,
            path: _,
            authority: _,
            grpc,
            mirror,
            edge,
            peer,
            peer_address,
            route: _,
            rule: _,
            tries,
            headers,
            sent,
            received,
            status,
            outcome,
            detail: _,
            told,
            took_us,
            split,
            moments,
            ended,
            trace_id,
            trace,
        } = self;
        tries.clear();
        headers.clear();
        (*wanted, *version, *method) = (Wanted::default(), None, Method::default());
        (*grpc, *mirror, *edge, *sent, *received) = (false, false, None, None, 0);
        (*peer, *peer_address, *told) = (None, None, None);
        (*status, *outcome, *split, *moments) = (None, None, None, Moments::default());
        (*took_us, *ended, *trace_id, *trace) = (0, None, None, None);
    }
}

/// Adds as much of a text as there may be of any.
pub fn put(field: &mut String, text: &str) {
    let end = text.floor_char_boundary(LONGEST);
    field.push_str(&text[..end]);
}

/// Where those on a request's way note what listeners want to know. Empty where nobody listens, and then nothing is done.
#[derive(Default)]
pub struct Notes(Cell<Option<Box<Exchange>>>);

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notes")
    }
}

impl Notes {
    /// There is somebody who listens.
    pub fn begin(&self, exchange: Option<Box<Exchange>>) {
        self.0.set(exchange);
    }

    /// Notes something.
    pub fn note(&self, note: impl FnOnce(&mut Exchange)) {
        if let Some(mut exchange) = self.0.take() {
            note(&mut exchange);
            self.0.set(Some(exchange));
        }
    }

    /// A try begins, so long after the request. Gives its place among them.
    pub fn try_began(&self, callee: &Arc<Callee>, hedge: bool, began_us: u32) -> usize {
        let mut place = 0;
        self.note(|exchange| {
            place = exchange.tries.len();
            exchange.tries.push(Try { callee: callee.clone(), hedge, began_us, ended: None });
        });
        place
    }

    /// A try has ended.
    pub fn try_ended(&self, place: usize, ended_us: u32, outcome: Outcome) {
        self.note(|exchange| {
            if let Some(it) = exchange.tries.get_mut(place) {
                it.ended = Some((ended_us, Some(outcome)));
            }
        });
    }

    /// What was noted, for the last time.
    pub fn take(&self) -> Option<Box<Exchange>> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_one_in_the_next() {
        let callee = Callee {
            uid: "a".into(),
            workload: "a".into(),
            address: ([127, 0, 0, 1], 1).into(),
            identity: None,
        };
        let mut exchange = Exchange {
            wanted: Wanted::TAP,
            version: Some(Version::HTTP_2),
            method: Method::POST,
            path: "/a".into(),
            authority: "a".into(),
            grpc: true,
            mirror: true,
            peer: Some("a".into()),
            peer_address: Some(callee.address),
            route: "a/a".into(),
            rule: "a".into(),
            tries: [Try { callee: Arc::new(callee), hedge: true, began_us: 1, ended: None }]
                .into_iter()
                .collect(),
            headers: [(http::header::VIA, HeaderValue::from_static("a"))].into_iter().collect(),
            sent: Some(Arc::default()),
            received: 1,
            status: Some(StatusCode::OK),
            outcome: Some(Outcome::Cancelled),
            detail: "because".into(),
            told: Some(HeaderValue::from_static("a")),
            took_us: 1,
            split: Some(Split::default()),
            moments: Moments { sent_us: Some(1), answered_us: Some(1) },
            ended: Some(SystemTime::UNIX_EPOCH),
            trace_id: TraceId::new(1),
            trace: None,
            edge: None,
        };
        exchange.clear();
        assert_eq!(format!("{exchange:?}"), format!("{:?}", Exchange::default()));
    }

    #[test]
    fn who_has_answered_is_not_who_was_asked_last() {
        let callee = |identity: &str| {
            Arc::new(Callee {
                uid: identity.into(),
                workload: identity.into(),
                address: ([127, 0, 0, 1], 1).into(),
                identity: Some(identity.into()),
            })
        };
        let tried = |identity, ended| Try { callee: callee(identity), hedge: false, began_us: 0, ended };
        let answer = Some(Outcome::Status(StatusCode::OK));
        for (tries, expected, peer) in [
            ([tried("a", Some((9, answer))), tried("b", None)], "a", Some("a")),
            ([tried("a", None), tried("b", Some((9, answer)))], "b", Some("b")),
            ([tried("a", Some((5, answer))), tried("b", Some((9, answer)))], "b", Some("b")),
            ([tried("a", None), tried("b", None)], "b", None),
        ] {
            let exchange = Exchange { tries: tries.into_iter().collect(), ..Exchange::default() };
            assert_eq!(exchange.callee().map(|callee| &*callee.workload), Some(expected));
            assert_eq!(exchange.peer(), peer);
        }
    }

    #[test]
    fn texts_are_bounded_between_characters() {
        let mut field = String::new();
        put(&mut field, &"ä".repeat(LONGEST));
        assert_eq!(field, "ä".repeat(LONGEST / 2));
        let mut field = String::from("x");
        put(&mut field, &format!("y{}", "ä".repeat(LONGEST)));
        assert_eq!(field.len(), LONGEST);
    }

    #[test]
    fn where_nobody_listens_nothing_is_noted() {
        let notes = Notes::default();
        notes.note(|_| unreachable!("there is nothing to note it in"));
        assert!(notes.take().is_none());
        notes.begin(Some(Box::default()));
        notes.note(|exchange| exchange.received = 7);
        assert_eq!(notes.take().expect("there is one").received, 7);
        assert!(notes.take().is_none());
    }
}
