//! What a request's spans say, by OpenTelemetry's semantic conventions: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>
//! and <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>. What those have no name for begins with `pillion.`.
//!
//! A path's query is left out: it is where secrets are.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, Version};
use pillion_api::hops::Segment;

use super::{
    Trace,
    context::SpanId,
    span::{Event, Kind, Span},
};
use crate::{
    error::{Hop, Reason},
    telemetry::{
        edge::{EdgeKey, Outcome},
        exchange::{Exchange, Try},
    },
};

/// The spans of a request that has ended: its own, and one for each of its tries where there was more than one. None, where it
/// is not recorded.
pub(super) fn spans(exchange: &Exchange) -> Vec<Span> {
    let about = Option::zip(exchange.trace.as_deref(), exchange.edge.as_deref());
    match (about, exchange.began()) {
        (Some((trace, edge)), Some(began)) if trace.is_recorded() => {
            let path = exchange.path.split('?').next().unwrap_or_default();
            let rpc = path.strip_prefix('/').filter(|_| exchange.grpc).and_then(|path| path.rsplit_once('/'));
            About { exchange, trace, edge, began, path, rpc }.spans()
        }
        _ => Vec::new(),
    }
}

/// A request that has ended.
struct About<'a> {
    exchange: &'a Exchange,
    trace: &'a Trace,
    edge: &'a EdgeKey,
    began: SystemTime,
    path: &'a str,
    /// gRPC's service and method.
    rpc: Option<(&'a str, &'a str)>,
}

/// Whether they are names as protocol buffers have them, and no longer than those are.
fn is_rpc(service: &str, method: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    service.len() + method.len() <= 128 && service.split('.').all(is_name) && is_name(method)
}

impl About<'_> {
    fn spans(&self) -> Vec<Span> {
        let tries = &self.exchange.tries;
        let several = tries.len() > 1;
        let mut whole = self.span(self.trace.span(), self.trace.parent);
        whole.remote = whole.parent.is_some() && !self.exchange.mirror;
        whole.kind = match self.edge.direction {
            Hop::Inbound => Kind::Server,
            // Those that went out are its tries.
            Hop::Outbound if several => Kind::Internal,
            Hop::Outbound => Kind::Client,
        };
        self.describe(&mut whole);
        self.tell_mesh(&mut whole);
        if let [only] = tries.as_slice() {
            tell_callee(&mut whole, only);
        }
        self.tell_end(&mut whole);
        self.tell_hops(&mut whole);
        let mut spans = vec![whole];
        if several {
            spans[0].say("pillion.attempts", tries.len() as u64);
            let own = tries.iter().zip(&self.trace.tries).enumerate();
            spans.extend(own.map(|(place, (it, id))| self.of_try(place, it, *id)));
        }
        spans
    }

    /// As long as the request.
    fn span(&self, id: SpanId, parent: Option<SpanId>) -> Span {
        let mut span = Span::new(self.trace.id(), id);
        (span.parent, span.random) = (parent, self.trace.context.random);
        span.state.clone_from(&self.trace.state);
        span.name = self.name();
        span.start = self.began;
        span.end = self.at(self.exchange.took_us);
        span
    }

    fn of_try(&self, place: usize, it: &Try, id: SpanId) -> Span {
        let mut span = self.span(id, Some(self.trace.span()));
        span.kind = Kind::Client;
        span.start = self.at(it.began_us.into());
        self.describe(&mut span);
        if place > 0 {
            span.say("http.request.resend_count", place as u64);
        }
        if it.hedge {
            span.say("pillion.hedge", "true");
        }
        tell_callee(&mut span, it);
        let last = self.exchange.tries.iter().filter_map(|it| Some(it.ended?.0)).max();
        match it.ended {
            // Its answer went on after its head, and how it ended is how the request did.
            Some((at, Some(Outcome::Status(_) | Outcome::Grpc(_)))) if Some(at) == last => {
                self.tell_end(&mut span)
            }
            Some((at, Some(outcome))) => {
                span.end = self.at(at.into());
                self.tell_outcome(&mut span, outcome, None, Hop::Outbound);
            }
            // It was given up.
            _ => self.tell_outcome(&mut span, Outcome::Cancelled, None, Hop::Outbound),
        }
        span.end = span.end.max(span.start);
        span
    }

    fn at(&self, us: u64) -> SystemTime {
        self.began + Duration::from_micros(us)
    }

    /// Of few different ones: what clients make up stays out.
    fn name(&self) -> String {
        match self.rpc {
            Some((service, method)) if is_rpc(service, method) => format!("{service}/{method}"),
            Some(_) => "grpc".to_owned(),
            None => known(&self.exchange.method).unwrap_or("HTTP").to_owned(),
        }
    }

    fn describe(&self, span: &mut Span) {
        let Exchange { method, authority, version, .. } = self.exchange;
        match self.rpc {
            Some((service, method)) => {
                span.say("rpc.system", "grpc");
                span.say("rpc.service", service);
                span.say("rpc.method", method);
            }
            None => {
                span.say("http.request.method", known(method).unwrap_or("_OTHER"));
                if known(method).is_none() {
                    span.say("http.request.method_original", method.as_str());
                }
                span.say("url.scheme", "http");
                span.say("url.path", self.path);
                if span.kind != Kind::Server {
                    span.say("url.full", format!("http://{authority}{}", self.path));
                }
            }
        }
        if !authority.is_empty() {
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()),
                _ => (authority.as_str(), None),
            };
            span.say("server.address", host.trim_matches(['[', ']']));
            span.say("server.port", port.unwrap_or(80));
        }
        let version = match *version {
            Some(Version::HTTP_10) => "1.0",
            Some(Version::HTTP_2) => "2",
            _ => "1.1",
        };
        span.say("network.protocol.version", version);
        if self.exchange.mirror {
            span.say("pillion.mirror", "true");
        }
    }

    fn tell_mesh(&self, span: &mut Span) {
        let EdgeKey { direction, source, target, backend, .. } = self.edge;
        span.say("pillion.source", source.clone());
        span.say("pillion.target", target.clone());
        if *direction == Hop::Outbound && backend != target {
            span.say("pillion.backend", backend.clone());
        }
        if !self.exchange.route.is_empty() {
            span.say("pillion.route", self.exchange.route.as_str());
            span.say("pillion.rule", self.exchange.rule.as_str());
        }
        if let Some(peer) = &self.exchange.peer {
            span.say("pillion.peer.id", peer.clone());
        }
        if let Some(address) = self.exchange.peer_address {
            span.say("client.address", address.ip().to_string());
        }
    }

    fn tell_end(&self, span: &mut Span) {
        let Exchange { outcome, status, .. } = self.exchange;
        self.tell_outcome(span, outcome.unwrap_or(Outcome::Cancelled), *status, self.edge.direction);
        if let Some(told) = self.exchange.told.as_ref().and_then(|told| told.to_str().ok()) {
            span.say("pillion.error", told);
        }
    }

    /// How it ended, and whether that is a failure, as seen from one side.
    fn tell_outcome(&self, span: &mut Span, outcome: Outcome, status: Option<StatusCode>, side: Hop) {
        let refused = match outcome {
            Outcome::Refused(reason) => Some(reason),
            _ => None,
        };
        if let Some(reason) = refused {
            span.say("pillion.refusal", reason.as_str());
        }
        let grpc = match outcome {
            Outcome::Grpc(code) => Some(code),
            Outcome::Refused(reason) if self.exchange.grpc => Some(reason.grpc() as u8),
            Outcome::Cancelled if self.exchange.grpc => Some(1),
            _ => None,
        };
        let status = match outcome {
            Outcome::Status(status) => Some(status),
            Outcome::Cancelled => None,
            _ => status.or(refused.map(Reason::status)),
        };
        match (grpc, status) {
            (Some(code), _) => span.say("rpc.grpc.status_code", u32::from(code)),
            (None, Some(status)) => span.say("http.response.status_code", status.as_u16()),
            (None, None) => {}
        }
        let client = side == Hop::Outbound;
        let failed = match (grpc, status) {
            (Some(code), _) => grpc_failed(code, client),
            (None, Some(status)) => status.is_server_error() || client && status.is_client_error(),
            (None, None) => client,
        };
        if failed {
            let kind = match (refused, grpc, status) {
                (Some(reason), ..) => reason.as_str().to_owned(),
                (None, Some(code), _) => code.to_string(),
                (None, None, Some(status)) => status.as_str().to_owned(),
                (None, None, None) => "cancelled".to_owned(),
            };
            span.say("error.type", kind);
            span.error = Some(refused.map(|reason| reason.text().to_owned()).unwrap_or_default());
        }
    }

    /// When what happened, and where the time went: microseconds by segment.
    fn tell_hops(&self, span: &mut Span) {
        let moments = self.exchange.moments;
        for (moment, name) in [(moments.sent_us, "pillion.sent"), (moments.answered_us, "pillion.answered")] {
            if let Some(us) = moment.filter(|us| u64::from(*us) <= self.exchange.took_us) {
                span.events.push(Event { at: self.at(us.into()), name, attributes: Vec::new() });
            }
        }
        if let Some(split) = &self.exchange.split {
            let attributes = split.shares().map(|(segment, us)| (hop(segment), us.into())).collect();
            span.events.push(Event { at: span.end, name: "pillion.hops", attributes });
        }
    }
}

/// Whom it was sent to.
fn tell_callee(span: &mut Span, it: &Try) {
    let callee = &it.callee;
    span.say("pillion.workload", callee.workload.clone());
    if let Some(identity) = &callee.identity {
        span.say("pillion.peer.id", &**identity);
    }
    span.say("network.peer.address", callee.address.ip().to_string());
    span.say("network.peer.port", callee.address.port());
}

/// The methods that the conventions know (RFC 9110 and 5789).
fn known(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

/// Of what callers have asked for wrongly, a server is not to blame.
fn grpc_failed(code: u8, client: bool) -> bool {
    match code {
        0 => false,
        2 | 4 | 12 | 13 | 14 | 15 => true,
        _ => client,
    }
}

/// As an attribute.
fn hop(segment: Segment) -> &'static str {
    match segment {
        Segment::Caller => "pillion.hop.caller",
        Segment::Client => "pillion.hop.client-sidecar",
        Segment::Retries => "pillion.hop.retries",
        Segment::Network => "pillion.hop.network",
        Segment::Server => "pillion.hop.server-sidecar",
        Segment::Application => "pillion.hop.application",
        Segment::Body => "pillion.hop.application-body",
        Segment::Upstream => "pillion.hop.upstream",
    }
}

#[cfg(test)]
mod tests;
