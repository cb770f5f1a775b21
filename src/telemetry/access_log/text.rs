//! A line for people, in the manner of Envoy's: fields by their place, `-` where there is nothing to say.

use std::io::Write;

use pillion_api::model;

use super::words::{
    escaped, grpc_status, milliseconds, outcome, path, protocol, quoted, reason, time, tried,
};
use crate::telemetry::exchange::Exchange;

/// A word: what could be taken for the end of one is escaped, too.
fn word(text: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    if text.is_empty() {
        return out.push(b'-');
    }
    for (index, part) in text.split(' ').enumerate() {
        if index > 0 {
            out.extend(b"\\u0020");
        }
        escaped(part, out);
    }
}

fn phrase(text: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    quoted(if text.is_empty() { "-" } else { text }, out);
}

/// ```text
/// [time] "method path protocol" status[/grpc status] outcome request-bytes response-bytes duration-ms attempts direction
/// source target backend workload endpoint "authority" "peer" "route" "rule" trace-id split "detail" [name="value"…]
/// ```
pub(super) fn line(exchange: &Exchange, log: &model::AccessLog, out: &mut Vec<u8>) {
    out.push(b'[');
    if let Some(began) = exchange.began() {
        time(began, out);
    }
    out.extend(b"] \"");
    if exchange.version.is_some() {
        escaped(exchange.method.as_str(), out);
        out.push(b' ');
        escaped(path(exchange, log), out);
    } else {
        out.extend(b"- -");
    }
    let _ = write!(out, " {}\"", protocol(exchange));
    let _ = match exchange.status {
        Some(status) => write!(out, " {}", status.as_u16()),
        None => write!(out, " -"),
    };
    if let Some(code) = grpc_status(exchange) {
        let _ = write!(out, "/{code}");
    }
    word(reason(exchange).unwrap_or(outcome(exchange)), out);
    let _ = write!(out, " {} {} ", exchange.sent(), exchange.received);
    milliseconds(exchange.took_us, out);
    let _ = write!(out, " {}", exchange.tries.len());
    let edge = exchange.edge.as_deref();
    let names = edge.map(|edge| {
        let direction = edge.direction.as_str();
        [direction, &edge.source, &edge.target, &edge.backend, &edge.workload]
    });
    names.unwrap_or_default().iter().for_each(|name| word(name, out));
    let endpoint = exchange.callee().map(|callee| callee.address).or(exchange.peer_address);
    word(&endpoint.map(|address| address.to_string()).unwrap_or_default(), out);
    for text in
        [exchange.authority.as_str(), exchange.peer().unwrap_or_default(), &exchange.route, &exchange.rule]
    {
        phrase(text, out);
    }
    let trace = exchange.trace_id.map(|trace| trace.to_string());
    word(&trace.unwrap_or_default(), out);
    split(exchange, out);
    detail(exchange, out);
    for (name, value) in exchange.headers.iter().filter(|(name, _)| log.headers.contains(name)) {
        word(name.as_str(), out);
        out.push(b'=');
        quoted(&String::from_utf8_lossy(value.as_bytes()), out);
    }
    out.push(b'\n');
}

fn split(exchange: &Exchange, out: &mut Vec<u8>) {
    let mut before = b' ';
    for (segment, us) in exchange.split.iter().flat_map(|split| split.shares()) {
        out.push(std::mem::replace(&mut before, b','));
        let _ = write!(out, "{}=", segment.name());
        milliseconds(us, out);
    }
    if before == b' ' {
        out.extend(b" -");
    }
}

/// The refusal's, what the peer's sidecar says, and the tries where there were several.
fn detail(exchange: &Exchange, out: &mut Vec<u8>) {
    out.extend(b" \"");
    let mut parts = Vec::new();
    if !exchange.detail.is_empty() {
        parts.push(exchange.detail.clone());
    }
    if let Some(told) = &exchange.told {
        parts.push(format!("peer: {}", String::from_utf8_lossy(told.as_bytes())));
    }
    if exchange.tries.len() > 1 {
        let mut tries = b"tries: ".to_vec();
        for (index, one) in exchange.tries.iter().enumerate() {
            let _ = write!(tries, "{}{} ", if index > 0 { ", " } else { "" }, one.callee.workload);
            tried(one.ended.map(|(_, outcome)| outcome), &mut tries);
        }
        parts.push(String::from_utf8_lossy(&tries).into_owned());
    }
    escaped(if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }.as_str(), out);
    out.push(b'"');
}
