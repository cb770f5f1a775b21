//! Who listens: the one place where a request, or a connection, is told when it has ended.
//!
//! [`Listeners::begin`] asks, when a request's head is here, whether anybody wants it. Where nobody does, that is one look, and
//! there is no [`Exchange`]; else those on its way note in it what they know ([`super::exchange::Notes`], which every
//! [`super::hops::Timeline`] has), and [`Listeners::ended`] hands it out: of requests by the recording when it is dropped, so also of
//! refused and cancelled ones; of connections by [`super::edge::Edge`].
//!
//! The next listener needs: a bit in [`Wanted`]; a part of [`Heard`], which says by chance whether it wants a request
//! ([`Heard::wants`]) and which of its fields; and a line in [`Listeners::ended`] that hands on a copy, or takes what it needs.
//! None may wait: what it cannot take at once it leaves out, and counts. What has to go along with a request that is sent onward
//! is put on it where a try begins (`outbound::attempt`) and by the inbound tail (`inbound::forward`).

use std::{
    cell::{Cell, RefCell},
    ops::BitOr,
    sync::Arc,
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, Request, header::HOST};
use pillion_api::{hops::Split, model::Percent};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    access_log::AccessLog,
    edge::{EdgeKey, Outcome},
    exchange::{Caller, Exchange, put},
    tap::Watching,
    trace::{self, Spans, Trace},
};
use crate::error::Refusal;

/// Exchanges that are kept for the next requests: most of them nobody takes in the end.
const SPARE: usize = 64;

/// What listeners want of a request; decided when it begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted(u8);

impl Wanted {
    /// A line in the access log, if it does not end well.
    pub const LOG_ERROR: Self = Self(1);
    /// The same, if it does.
    pub const LOG_SUCCESS: Self = Self(1 << 1);
    /// To be told live.
    pub const TAP: Self = Self(1 << 2);
    /// Its spans.
    pub const SPANS: Self = Self(1 << 3);

    /// Whether nobody wants anything.
    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// Whether this is wanted.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Wanted {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who listens at the moment; swapped as a whole when that changes.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Writes lines.
    pub log: Option<AccessLog>,
    /// Tells those who watch.
    pub watching: Option<Watching>,
    /// Takes spans.
    pub spans: Option<Spans>,
}

impl Heard {
    /// What the log wants of a request or connection that begins. `chance` gives numbers below [`Percent::OF`], any as likely as the
    /// other.
    fn logs(&self, mut chance: impl FnMut() -> u32) -> Wanted {
        self.log.as_ref().map(|log| log.wants(chance())).unwrap_or_default()
    }

    /// Whether those who watch may want a request that begins. What is surely not for them is not noted for them, either.
    fn watches<B>(&self, request: &Request<B>, edge: &EdgeKey) -> Wanted {
        let watching = self.watching.as_ref().filter(|watching| watching.may_want(request, edge));
        watching.map_or(Wanted::default(), |_| Wanted::TAP)
    }

    /// The fields of requests that anybody wants.
    fn headers(&self, wanted: Wanted) -> impl Iterator<Item = &HeaderName> {
        let watched =
            self.watching.iter().filter(move |_| wanted.has(Wanted::TAP)).flat_map(Watching::headers);
        self.log.iter().flat_map(AccessLog::headers).chain(watched)
    }

    fn is_nobody(&self) -> bool {
        self.log.is_none() && self.spans.is_none() && self.watching.is_none()
    }
}

/// One worker's listeners.
#[derive(Debug)]
pub struct Listeners {
    /// Whether there are any.
    any: Cell<bool>,
    heard: RefCell<Heard>,
    #[expect(clippy::vec_box, reason = "the boxes are what is used again")]
    spare: RefCell<Vec<Box<Exchange>>>,
    random: RefCell<SmallRng>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            any: Cell::default(),
            heard: RefCell::default(),
            spare: RefCell::default(),
            random: RefCell::new(SmallRng::from_os_rng()),
        }
    }
}

/// How it was.
#[derive(Debug)]
pub struct End<'a> {
    /// Where it was counted.
    pub edge: &'a Arc<EdgeKey>,
    /// `None`: a connection that was carried to its end.
    pub outcome: Option<Outcome>,
    /// Microseconds.
    pub took_us: u64,
    /// Where that went.
    pub split: Option<Split>,
    /// Bytes to the caller.
    pub received: u64,
}

impl Listeners {
    /// Others listen from now on. What is under way is told to those who listen when it ends.
    pub fn set(&self, heard: Heard) {
        self.any.set(!heard.is_nobody());
        self.heard.replace(heard);
    }

    /// Whether there are any at all.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.get()
    }

    /// Where requests are traced, finds out which trace one is of that begins, and has its fields say so from now on.
    pub fn trace(&self, headers: &mut HeaderMap) -> Option<Trace> {
        let heard = self.heard.borrow();
        heard.spans.as_ref().map(|spans| spans.begin(headers, &mut self.random.borrow_mut()))
    }

    /// A request begins, for now on this edge. `None`: nobody wants to hear of it.
    pub fn begin<B>(
        &self,
        request: &Request<B>,
        trace: Option<Trace>,
        edge: &EdgeKey,
    ) -> Option<Box<Exchange>> {
        let recorded = trace.as_ref().is_some_and(Trace::is_recorded);
        let spans = if recorded { Wanted::SPANS } else { Wanted::default() };
        let watched = self.heard.borrow().watches(request, edge);
        let mut exchange = self.wanted(spans | watched)?;
        let (uri, headers) = (request.uri(), request.headers());
        exchange.trace_id = match &trace {
            Some(trace) => Some(trace.id()),
            None if exchange.wanted.has(Wanted::LOG_ERROR | Wanted::LOG_SUCCESS) => trace::of_others(headers),
            None => None,
        };
        exchange.trace = trace.filter(|_| recorded).map(Box::new);
        exchange.version = Some(request.version());
        exchange.method.clone_from(request.method());
        put(&mut exchange.path, uri.path_and_query().map_or("", |path| path.as_str()));
        match (uri.authority(), headers.get(HOST)) {
            (Some(authority), _) => put(&mut exchange.authority, authority.as_str()),
            (None, Some(host)) => put(&mut exchange.authority, &String::from_utf8_lossy(host.as_bytes())),
            (None, None) => {}
        }
        for name in self.heard.borrow().headers(exchange.wanted) {
            if let Some(value) = headers.get(name)
                && !exchange.headers.iter().any(|(known, _)| known == name)
            {
                exchange.headers.push((name.clone(), value.clone()));
            }
        }
        Some(exchange)
    }

    /// A connection begins that is carried as bytes, or refused. `None`: nobody wants to hear of it.
    pub fn connection(&self) -> Option<Box<Exchange>> {
        if self.any() { self.wanted(Wanted::default()) } else { None }
    }

    fn wanted(&self, already: Wanted) -> Option<Box<Exchange>> {
        let wants = self.heard.borrow().logs(|| self.random.borrow_mut().random_range(0..Percent::OF));
        let wanted = already | wants;
        if wanted.is_nothing() {
            return None;
        }
        let mut exchange = self.spare.borrow_mut().pop().unwrap_or_default();
        exchange.wanted = wanted;
        Some(exchange)
    }

    /// It has ended: all who want it are told.
    pub fn ended(&self, mut exchange: Box<Exchange>, end: &End<'_>) {
        exchange.outcome = end.outcome;
        exchange.took_us = end.took_us;
        exchange.split = end.split;
        exchange.received = end.received;
        let heard = self.heard.borrow();
        if let Some(watching) = heard.watching.as_ref().filter(|_| exchange.wanted.has(Wanted::TAP)) {
            watching.tell(&exchange, end);
        }
        let spans = heard.spans.as_ref().filter(|_| exchange.wanted.has(Wanted::SPANS));
        let log = heard.log.as_ref().filter(|_| AccessLog::takes(&exchange));
        if spans.is_some() || log.is_some() {
            exchange.edge = Some(end.edge.clone());
            exchange.ended.get_or_insert_with(SystemTime::now);
        }
        if let Some(spans) = spans {
            spans.ended(&exchange);
        }
        if let Some(log) = log {
            log.write(exchange);
            return;
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE {
            exchange.clear();
            spare.push(exchange);
        }
    }
}

/// A connection on its way, from its beginning.
#[derive(Debug)]
pub struct Carried {
    began: Instant,
    exchange: Option<Box<Exchange>>,
}

impl Carried {
    /// Of one that began at `began`.
    pub fn begin(listeners: &Listeners, caller: Option<&Caller>, began: Instant) -> Self {
        let mut exchange = listeners.connection();
        if let (Some(exchange), Some(caller)) = (&mut exchange, caller) {
            exchange.peer.clone_from(&caller.identity);
            exchange.peer_address = Some(caller.address);
        }
        Self { began, exchange }
    }

    /// Notes something, if anybody wants to hear of it; the second is the time since it began, microseconds.
    pub fn note(&mut self, note: impl FnOnce(&mut Exchange, u32)) {
        if let Some(exchange) = &mut self.exchange {
            note(exchange, u32::try_from(self.began.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// It is over: `sent` and `received` bytes were carried, or it was refused.
    pub(super) fn ended(
        self,
        listeners: &Listeners,
        edge: &Arc<EdgeKey>,
        refusal: Option<&Refusal>,
        (sent, received): (u64, u64),
    ) {
        let Some(mut exchange) = self.exchange else { return };
        match refusal {
            Some(refusal) => put(&mut exchange.detail, &refusal.detail),
            None => exchange.sent = Some(Arc::new(sent.into())),
        }
        let took_us = self.began.elapsed().as_micros() as u64;
        let outcome = refusal.map(|refusal| Outcome::Refused(refusal.reason));
        listeners.ended(exchange, &End { edge, outcome, took_us, split: None, received });
    }
}
