//! What is told of live requests, as the REST API shows it. What a sidecar says is cut to bounded lengths and cleaned of control
//! characters here.

use pillion_api::{
    hops::{self, Segment},
    tap::{MAX_HEADER_VALUE, MAX_HEADERS, MAX_PATH, MAX_WORD, cut},
    wire::{self, edge_delta::Direction},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::said;

/// One request that has ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TapEvent {
    /// When it began, by the clock of the sidecar's host; milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The workload whose sidecar tells.
    pub sidecar: String,
    /// Its namespace.
    pub namespace: String,
    /// `inbound` or `outbound`, seen from there.
    pub direction: String,
    /// Who called. Inbound: as its certificate names it, or `outside`.
    pub from: String,
    /// The service called.
    pub to: String,
    /// The service that a route chose; absent where it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The workload that served it; absent where none was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Carried by mutual TLS of the mesh; absent where no callee was reached
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<bool>,
    /// The SPIFFE ID of the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_identity: Option<String>,
    /// Of the request.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Of the response; absent where none was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Where it was gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// Why a sidecar refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which of both sidecars did: `outbound` or `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// Its caller went away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// It counts as failed.
    pub failed: bool,
    /// From its head to the last byte of its response.
    pub duration_ms: f64,
    /// Where that time went; the parts add up to it.
    pub segments: Vec<TapSegment>,
    /// How often it was sent; absent where it was sent to nobody, and where it was served.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// The route that it took: namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The route's rule: its name or place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Of the request: those that the mesh's MeshConfig shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<TapHeader>,
}

/// A part of a request's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TapSegment {
    /// Such as `network`; the metrics' `segment`.
    pub segment: String,
    /// So long.
    pub ms: f64,
}

/// A header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TapHeader {
    /// In lower case.
    pub name: String,
    /// Cut to 256 bytes.
    pub value: String,
}

/// Who tells, what was left out, and why nothing comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TapStatus {
    /// Sidecars that tell.
    pub listening: usize,
    /// Those that were asked and have not answered.
    pub waiting: usize,
    /// Those that refuse.
    pub refused: usize,
    /// Those that are meant and not connected to this control plane.
    pub away: usize,
    /// Requests that have ended and do not fit, as far as sidecars tell that; since the stream began.
    #[serde(default)]
    pub passed_by: u64,
    /// Requests that fit and are not told.
    pub dropped: TapDropped,
    /// What of this somebody who waits for requests should know.
    pub notes: Vec<String>,
}

/// Requests that fit and are not told, since the stream began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TapDropped {
    /// Beyond the rate.
    pub limited: u64,
    /// Sidecars could not pass them on.
    pub overflowed: u64,
    /// The reader did not keep up.
    pub unread: u64,
}

/// The last word of a stream that the server ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TapEnded {
    /// Why.
    pub reason: String,
}

impl TapEvent {
    /// As a sidecar told it.
    pub(super) fn of(sidecar: (&str, &str), event: wire::TapEvent) -> Self {
        let direction = match event.direction() {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        };
        let segment = |it: wire::TapSegment| {
            let segment = Segment::ALL.get(usize::try_from(it.segment).ok()?)?;
            Some(TapSegment { segment: segment.name().to_owned(), ms: milliseconds(it.us) })
        };
        let header = |it: wire::Header| TapHeader {
            name: clean(&it.name, MAX_WORD),
            value: clean(&it.value, MAX_HEADER_VALUE),
        };
        let to = clean(&event.target, MAX_WORD);
        Self {
            time_ms: event.began_ms,
            sidecar: sidecar.0.to_owned(),
            namespace: sidecar.1.to_owned(),
            direction: direction.to_owned(),
            from: clean(&event.source, MAX_WORD),
            backend: word(&event.backend).filter(|backend| *backend != to),
            to,
            workload: word(&event.workload),
            mtls: hops::carried(event.direction().into(), event.mtls, &event.workload),
            peer_identity: word(&event.peer_identity),
            method: clean(&event.method, MAX_WORD),
            path: clean(&event.path, MAX_PATH),
            status: u16::try_from(event.status).ok().filter(|status| *status > 0),
            grpc_status: event.grpc_status.and_then(|code| u8::try_from(code).ok()),
            reason: word(&event.refusal),
            refused_by: word(&event.refused_by),
            cancelled: event.cancelled,
            failed: event.failed,
            duration_ms: milliseconds(event.took_us),
            segments: event.segments.into_iter().take(Segment::ALL.len()).filter_map(segment).collect(),
            attempts: event.attempts,
            route: word(&event.route),
            rule: word(&event.rule),
            headers: event.headers.into_iter().take(MAX_HEADERS).map(header).collect(),
        }
    }
}

/// Of serde.
fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn word(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| clean(text, MAX_WORD))
}

/// At most `most` bytes.
fn clean(text: &str, most: usize) -> String {
    said::words(cut(text, most), most)
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::segment_delta;

    use super::*;

    #[test]
    fn what_a_sidecar_says_is_cut_and_cleaned() {
        let event = wire::TapEvent {
            direction: Direction::Inbound.into(),
            took_us: 1500,
            path: format!("/{}", "x".repeat(2 * MAX_PATH)),
            source: "web\u{1b}[31m.demo".into(),
            target: "payments.demo".into(),
            backend: "payments.demo".into(),
            segments: vec![
                wire::TapSegment { segment: segment_delta::Segment::Application.into(), us: 1500 };
                100
            ],
            headers: vec![wire::Header { name: "x".into(), value: "ä".repeat(MAX_HEADER_VALUE) }; 100],
            ..Default::default()
        };
        let told = TapEvent::of(("payments-1", "demo"), event);
        assert_eq!((told.path.len(), told.headers.len(), told.segments.len()), (MAX_PATH, MAX_HEADERS, 8));
        assert_eq!(told.headers[0].value.len(), MAX_HEADER_VALUE);
        assert_eq!(told.from, "web [31m.demo");
        assert_eq!((told.direction.as_str(), told.backend, told.status), ("inbound", None, None));
        assert_eq!(told.segments[0], TapSegment { segment: "application".into(), ms: 1.5 });
    }

    #[test]
    fn what_does_not_apply_is_left_out() {
        let shown =
            |event| serde_json::to_value(TapEvent::of(("web-1", "demo"), event)).expect("string keys");
        let served = shown(wire::TapEvent {
            direction: Direction::Inbound.into(),
            mtls: true,
            ..wire::TapEvent::default()
        });
        assert_eq!((&served["mtls"], &served["attempts"]), (&true.into(), &serde_json::Value::Null));
        let sent = wire::TapEvent { workload: "pay-1".into(), mtls: true, attempts: 1, ..Default::default() };
        let sent = shown(sent);
        assert_eq!((&sent["mtls"], &sent["attempts"]), (&true.into(), &1.into()));
        let refused = shown(wire::TapEvent { mtls: true, ..wire::TapEvent::default() });
        assert_eq!(refused["mtls"], serde_json::Value::Null, "no callee was reached");
    }

    #[test]
    fn segments_have_the_names_that_they_have_everywhere() {
        use segment_delta::Segment as Wire;
        let all = [
            Wire::Caller,
            Wire::ClientSidecar,
            Wire::Retries,
            Wire::Network,
            Wire::ServerSidecar,
            Wire::Application,
            Wire::ApplicationBody,
            Wire::Upstream,
        ];
        for segment in all {
            let expected = segment.as_str_name().to_ascii_lowercase().replace('_', "-");
            assert_eq!(Segment::ALL[segment as usize].name(), expected);
        }
    }
}
