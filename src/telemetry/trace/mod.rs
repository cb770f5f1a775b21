//! Traces: which request is of which ([`context`], [`b3`]), whether it is recorded, and what its spans say ([`conventions`]). They
//! go to a [`queue`], from where the main thread sends them.
//!
//! What is sent on names this sidecar's own span as the cause, so that the next hop's is below it. With tracing off, a request's
//! fields are not even looked at.

pub mod b3;
pub mod context;
pub mod conventions;
pub mod queue;
pub mod span;
#[cfg(test)]
mod tests;

use http::{HeaderMap, HeaderName};
use pillion_api::model::Percent;
use rand::{Rng, rngs::SmallRng};
use smallvec::SmallVec;

use self::{
    context::{Context, SpanId, TRACESTATE, TraceId},
    queue::Queue,
};
use super::exchange::Exchange;

/// A longer `tracestate` is passed on, but not recorded.
const LONGEST_STATE: usize = 1024;

/// Has requests traced; where there is none, tracing is off.
#[derive(Debug, Clone)]
pub struct Spans {
    /// Of requests that are of no trace yet, so many are recorded.
    pub sampling: Percent,
    /// Where spans wait until they are sent.
    pub queue: Queue,
}

impl Spans {
    /// Finds out which trace a request is of that has just come, and has it name us as the cause.
    pub fn begin(&self, headers: &mut HeaderMap, random: &mut SmallRng) -> Trace {
        let chance = Chance {
            trace: random.random(),
            span: random.random(),
            share: random.random_range(0..Percent::OF),
        };
        Trace::find(self.sampling, headers, chance)
    }

    /// A request has ended: what is recorded of it is to be sent.
    pub fn ended(&self, exchange: &Exchange) {
        conventions::spans(exchange).into_iter().for_each(|span| self.queue.put(span));
    }
}

/// What chance gives for a request.
#[derive(Debug, Clone, Copy)]
struct Chance {
    trace: u128,
    span: u64,
    /// Below [`Percent::OF`].
    share: u32,
}

/// Of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Where in its trace it is: with our own span, where it is recorded, else with that of whoever has sent it.
    context: Context,
    parent: Option<SpanId>,
    b3: Option<b3::Form>,
    state: String,
    /// The spans of its tries, in order. The first one's is the request's.
    tries: SmallVec<[SpanId; 1]>,
    /// The request's own, where there is more than one try.
    whole: Option<SpanId>,
}

impl Trace {
    /// Goes by the parent where there is one, else by chance. What is not recorded says so to all who come after, or they would each
    /// cast a die of their own.
    fn find(share: Percent, headers: &mut HeaderMap, chance: Chance) -> Self {
        let told = context::read(headers);
        let by_b3 = b3::read(headers);
        let (parent, sampled) = match (told, by_b3) {
            (Some(parent), _) => (Some(parent), parent.sampled),
            (None, Some(said)) => (said.context, said.sampled),
            (None, None) => (None, None),
        };
        let sampled = sampled.unwrap_or_else(|| share.takes(chance.share));
        let mut state = String::new();
        if told.is_some() {
            state = context::take_state(headers);
        } else {
            headers.remove(TRACESTATE);
        }
        if !sampled || state.len() > LONGEST_STATE {
            state = String::new();
        }
        let span = match parent {
            // There is none of ours.
            Some(parent) if !sampled => parent.span,
            _ => span_id(chance.span),
        };
        let trace = parent.map_or_else(|| trace_id(chance.trace), |parent| parent.trace);
        let random = parent.is_none_or(|parent| parent.random);
        let context = Context { trace, span, sampled: Some(sampled), random };
        let (parent, b3) = (parent.map(|parent| parent.span), by_b3.map(|said| said.form));
        if sampled || told.is_none() {
            context::write(headers, &context);
        }
        let left_open = by_b3.is_some_and(|said| said.sampled.is_none());
        if (sampled || left_open)
            && let Some(form) = b3
        {
            b3::write(headers, form, &context, parent.filter(|_| sampled));
        }
        Self { context, parent, b3, state, tries: SmallVec::new(), whole: None }
    }

    /// That of a copy of the request that others get, too, whose head is to name a span of its own, below the request's: as Envoy does
    /// it, so that what the copy causes is not taken for the request's doing.
    pub fn copied(&self, headers: &mut HeaderMap) -> Self {
        let (parent, span) = (self.context.span, span_id(rand::rng().random()));
        let context = Context { span, ..self.context };
        context::write(headers, &context);
        if let Some(form) = self.b3 {
            b3::write(headers, form, &context, Some(parent));
        }
        let (b3, state) = (self.b3, self.state.clone());
        Self { context, parent: Some(parent), b3, state, tries: SmallVec::new(), whole: None }
    }

    /// By which people find it.
    pub fn id(&self) -> TraceId {
        self.context.trace
    }

    /// The request's own span; for one that is not recorded, that of whoever has sent it.
    pub fn span(&self) -> SpanId {
        self.whole.unwrap_or(self.context.span)
    }

    /// Whether it is recorded.
    pub fn is_recorded(&self) -> bool {
        self.context.sampled == Some(true)
    }

    /// A try of the request begins, whose head is to name its span.
    ///
    /// The first one's is that of the request, so that nothing has to be said anew. Where another follows, the request gets a span of
    /// its own above theirs, which nobody else has heard of yet.
    pub fn attempt(&mut self, headers: &mut HeaderMap) {
        if !self.is_recorded() {
            return;
        }
        if self.tries.is_empty() {
            self.tries.push(self.context.span);
            return;
        }
        let mut random = rand::rng();
        let whole = *self.whole.get_or_insert_with(|| span_id(random.random()));
        let context = Context { span: span_id(random.random()), ..self.context };
        context::write(headers, &context);
        if let Some(form) = self.b3 {
            b3::write(headers, form, &context, Some(whole));
        }
        self.tries.push(context.span);
    }
}

/// The trace that a request is of, as its fields say, which stay as they are: others may record it, and we do not.
pub fn of_others(headers: &HeaderMap) -> Option<TraceId> {
    // Most have no such field: to see that once is less than to look for each.
    if !headers.keys().any(is_of_a_trace) {
        return None;
    }
    let by_b3 = || b3::read(headers).and_then(|said| said.context);
    context::read(headers).or_else(by_b3).map(|context| context.trace)
}

fn is_of_a_trace(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == context::TRACEPARENT.as_str() || name == "b3" || name.starts_with("x-b3-")
}

fn trace_id(random: u128) -> TraceId {
    TraceId::new(random).unwrap_or_else(|| TraceId::new(1).expect("it is not zero"))
}

fn span_id(random: u64) -> SpanId {
    SpanId::new(random).unwrap_or_else(|| SpanId::new(1).expect("it is not zero"))
}
