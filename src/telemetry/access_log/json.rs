//! A line as a JSON object. Fields that have nothing to say are not there.

use std::io::Write;

use pillion_api::model;

use super::words::{grpc_status, milliseconds, outcome, path, protocol, quoted, reason, time, tried};
use crate::telemetry::exchange::{Exchange, Try};

/// An object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, any: false }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    /// A field's name; its value is to be written next.
    fn field(&mut self, name: &str) -> &mut Vec<u8> {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
        quoted(name, self.out);
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            quoted(text, self.field(name));
        }
    }

    fn number(&mut self, name: &str, number: impl Into<u64>) {
        let _ = write!(self.field(name), "{}", number.into());
    }
}

pub(super) fn line(exchange: &Exchange, log: &model::AccessLog, out: &mut Vec<u8>) {
    let mut it = Object::begin(out);
    if let Some(began) = exchange.began() {
        let out = it.field("time");
        out.push(b'"');
        time(began, out);
        out.push(b'"');
    }
    let edge = exchange.edge.as_deref();
    it.text("direction", edge.map_or("", |edge| edge.direction.as_str()));
    it.text("protocol", protocol(exchange));
    if exchange.version.is_some() {
        it.text("method", exchange.method.as_str());
        it.text("path", path(exchange, log));
    }
    it.text("authority", &exchange.authority);
    if let Some(status) = exchange.status {
        it.number("status", status.as_u16());
    }
    if let Some(code) = grpc_status(exchange) {
        it.number("grpcStatus", code);
    }
    it.text("outcome", outcome(exchange));
    it.text("reason", reason(exchange).unwrap_or_default());
    it.text("detail", &exchange.detail);
    if let Some(told) = &exchange.told {
        it.text("peerError", &String::from_utf8_lossy(told.as_bytes()));
    }
    it.text("peer", exchange.peer().unwrap_or_default());
    if let Some(address) = exchange.peer_address {
        it.text("peerAddress", &address.to_string());
    }
    if let Some(edge) = edge {
        if let Some(mtls) = edge.carried() {
            let _ = write!(it.field("mtls"), "{mtls}");
        }
        it.text("source", &edge.source);
        it.text("target", &edge.target);
        it.text("backend", &edge.backend);
        it.text("workload", &edge.workload);
    }
    it.text("route", &exchange.route);
    it.text("rule", &exchange.rule);
    if let Some(callee) = exchange.callee() {
        it.text("endpoint", &callee.address.to_string());
        it.text("endpointUid", &callee.uid);
        it.number("attempts", exchange.tries.len() as u64);
    }
    if exchange.tries.len() > 1 {
        tries(&exchange.tries, it.field("tries"));
    }
    it.number("requestBytes", exchange.sent());
    it.number("responseBytes", exchange.received);
    milliseconds(exchange.took_us, it.field("durationMs"));
    if let Some(split) = &exchange.split {
        let mut shares = Object::begin(it.field("split"));
        for (segment, us) in split.shares() {
            milliseconds(us, shares.field(segment.name()));
        }
        shares.end();
    }
    if let Some(trace) = exchange.trace_id {
        it.text("traceId", &trace.to_string());
    }
    let mut headers = exchange.headers.iter().filter(|(name, _)| log.headers.contains(name)).peekable();
    if headers.peek().is_some() {
        let mut fields = Object::begin(it.field("headers"));
        for (name, value) in headers {
            quoted(&String::from_utf8_lossy(value.as_bytes()), fields.field(name.as_str()));
        }
        fields.end();
    }
    it.end();
    out.push(b'\n');
}

fn tries(tries: &[Try], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, one) in tries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let mut it = Object::begin(out);
        it.text("endpoint", &one.callee.address.to_string());
        it.text("workload", &one.callee.workload);
        it.text("uid", &one.callee.uid);
        if one.hedge {
            let _ = write!(it.field("hedge"), "true");
        }
        milliseconds(one.began_us.into(), it.field("afterMs"));
        if let Some((ended_us, _)) = one.ended {
            milliseconds(ended_us.saturating_sub(one.began_us).into(), it.field("durationMs"));
        }
        let out = it.field("outcome");
        out.push(b'"');
        tried(one.ended.map(|(_, outcome)| outcome), out);
        out.push(b'"');
        it.end();
    }
    out.push(b']');
}
