//! A piece of work that was recorded, as OpenTelemetry has it: <https://opentelemetry.io/docs/specs/otel/trace/api/#span>

use std::{sync::Arc, time::SystemTime};

use super::context::{SpanId, TraceId};

/// The most of a text from outside, bytes: receivers take few megabytes at once.
const LONGEST: usize = 512;

/// One that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The whole that it is of.
    pub trace: TraceId,
    /// Its own.
    pub id: SpanId,
    /// What it is caused by. `None`: it begins the trace.
    pub parent: Option<SpanId>,
    /// Its parent was told by a message.
    pub remote: bool,
    /// The trace's ID is by chance.
    pub random: bool,
    /// `tracestate`.
    pub state: String,
    /// What it is to others.
    pub kind: Kind,
    /// Of few different ones.
    pub name: String,
    /// By the clock on the wall.
    pub start: SystemTime,
    /// Never before.
    pub end: SystemTime,
    /// What it was about.
    pub attributes: Vec<Attribute>,
    /// What happened meanwhile.
    pub events: Vec<Event>,
    /// It failed, and why where that is not said by its attributes.
    pub error: Option<String>,
}

/// What a span is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Internal,
    /// An answer to somebody's request.
    Server,
    /// A request to somebody.
    Client,
}

/// What something is about.
pub type Attribute = (&'static str, Value);

/// Of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Words.
    Text(Arc<str>),
    /// A number.
    Number(i64),
}

/// What happened at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// By the clock on the wall.
    pub at: SystemTime,
    /// Of few different ones.
    pub name: &'static str,
    /// What it was about.
    pub attributes: Vec<Attribute>,
}

impl Span {
    /// Without anything but what it is known by.
    pub fn new(trace: TraceId, id: SpanId) -> Self {
        Self {
            trace,
            id,
            parent: None,
            remote: false,
            random: false,
            state: String::new(),
            kind: Kind::Internal,
            name: String::new(),
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    /// Adds what it is about.
    pub fn say(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(LONGEST)].into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}
