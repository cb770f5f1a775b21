//! OTLP's messages, as far as spans need them: <https://opentelemetry.io/docs/specs/otlp/>. The crate of all of them is larger than
//! all of this room.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prost::{Message, Oneof};

use crate::telemetry::trace::{
    context::{SpanId, TraceId},
    span::{self, Attribute, Kind},
};

/// A batch.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// What a receiver says of one.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// Some were not taken; or, with none, a warning.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `google.rpc.Status`, which gRPC's errors may have with them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Delay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// Of the conventions that attributes follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
/// `SpanFlags`: the next one says whether the parent was told by a message.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// Those of W3C Trace Context: all that is exported is sampled.
const SAMPLED: u32 = 1;
const RANDOM: u32 = 2;
const ERROR: i32 = 2;

/// Whose spans they are: <https://opentelemetry.io/docs/specs/semconv/resource/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The service that it belongs to, else itself.
    pub service: Arc<str>,
    /// Of its identity.
    pub namespace: Arc<str>,
    /// What people call it.
    pub instance: Arc<str>,
}

impl ExportRequest {
    /// Of one workload.
    pub(super) fn of(workload: &Workload, spans: Vec<span::Span>) -> Self {
        let attributes = [
            ("service.name", &workload.service),
            ("service.namespace", &workload.namespace),
            ("service.instance.id", &workload.instance),
        ];
        let attributes = attributes.map(|(name, value)| key_value((name, value.clone().into())));
        let scope = Scope { name: "pillion-proxy".into(), version: env!("CARGO_PKG_VERSION").into() };
        let spans = ScopeSpans {
            scope: Some(scope),
            spans: spans.into_iter().map(Span::from).collect(),
            schema_url: SCHEMA.into(),
        };
        let resource = Some(Resource { attributes: attributes.into() });
        let of_workload = ResourceSpans { resource, scope_spans: vec![spans], schema_url: SCHEMA.into() };
        Self { resource_spans: vec![of_workload] }
    }
}

impl From<span::Span> for Span {
    fn from(span: span::Span) -> Self {
        let random = if span.random { RANDOM } else { 0 };
        let remote = if span.remote { IS_REMOTE } else { 0 };
        Self {
            trace_id: TraceId::bytes(span.trace).into(),
            span_id: SpanId::bytes(span.id).into(),
            trace_state: span.state,
            parent_span_id: span.parent.map(|parent| parent.bytes().into()).unwrap_or_default(),
            name: span.name,
            kind: match span.kind {
                Kind::Internal => 1,
                Kind::Server => 2,
                Kind::Client => 3,
            },
            start_time_unix_nano: nanoseconds(span.start),
            end_time_unix_nano: nanoseconds(span.end),
            attributes: span.attributes.into_iter().map(key_value).collect(),
            events: span.events.into_iter().map(Event::from).collect(),
            status: span.error.map(|message| Status { message, code: ERROR }),
            flags: SAMPLED | random | HAS_IS_REMOTE | remote,
        }
    }
}

impl From<span::Event> for Event {
    fn from(event: span::Event) -> Self {
        Self {
            time_unix_nano: nanoseconds(event.at),
            name: event.name.to_owned(),
            attributes: event.attributes.into_iter().map(key_value).collect(),
        }
    }
}

fn key_value((key, value): Attribute) -> KeyValue {
    let value = match value {
        span::Value::Text(text) => Value::Text(text.as_ref().to_owned()),
        span::Value::Number(number) => Value::Number(number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
