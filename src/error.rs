//! Why the proxy refuses: one list of reasons, and one table of what each means to the outside.
//!
//! A [`Refusal`] says what happened, on whose side, and whether the request may safely be sent again.

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use pillion_api::{holds::Policies, model::RouteRule};

/// Which of the two sidecars of a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    /// The callee's sidecar.
    Inbound,
    /// The caller's sidecar.
    Outbound,
}

impl Hop {
    /// As it stands in labels and in `pillion-error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// gRPC status codes that a refusal may map to.
/// <https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum GrpcCode {
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// Declares the reasons with their row of the table: name, HTTP status, gRPC code, whether the application surely
/// saw nothing of the request, and a sentence for people.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $grpc:ident, unprocessed: $unprocessed:literal, $text:literal;)+) => {
        /// Why the proxy answered a request, or ended a connection, itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* #[doc = $text] $variant,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable name: in `pillion-error`, logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The reason of a stable name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            /// The HTTP status of the answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// The gRPC status of the answer to a gRPC request.
            pub fn grpc(self) -> GrpcCode {
                match self { $(Self::$variant => GrpcCode::$grpc,)+ }
            }

            /// Whether the application surely processed nothing of the request, so that sending it again cannot
            /// repeat anything.
            pub fn unprocessed(self) -> bool {
                match self { $(Self::$variant => $unprocessed,)+ }
            }

            /// What it means, for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    UnknownService = "unknown-service", NOT_FOUND, Unimplemented, unprocessed: true, "the mesh has no service of that name";
    UnknownPort = "unknown-port", NOT_FOUND, Unimplemented, unprocessed: true, "the service has no such port";
    OutsideRefused = "outside-refused", FORBIDDEN, PermissionDenied, unprocessed: true, "the mesh lets nothing out to destinations that it does not know";
    OpaqueRefused = "opaque-refused", FORBIDDEN, PermissionDenied, unprocessed: true, "the service has routes, which cannot hold for a connection that is not HTTP";
    NoTarget = "no-target", BAD_REQUEST, Internal, unprocessed: true, "the request names no host";
    RouteNotMatched = "route-not-matched", NOT_FOUND, Unimplemented, unprocessed: true, "the service has routes, but none fits the request";
    NoBackend = "no-backend", INTERNAL_SERVER_ERROR, Unavailable, unprocessed: true, "the matched route has no backend that exists";
    NoIdentity = "no-identity", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "this sidecar has no certificate yet";
    DiscoveryTimeout = "discovery-timeout", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the control plane has not told this sidecar about the service yet";
    ControlPlaneAway = "control-plane-away", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the control plane cannot be asked what the destination is";
    NoEndpoints = "no-endpoints", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "no workload serves the service";
    NoReadyEndpoints = "no-ready-endpoints", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "workloads serve the service, but none of them is ready";
    BreakersOpen = "breakers-open", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the circuit breakers of all ready workloads are open";
    TooManyRequests = "too-many-requests", SERVICE_UNAVAILABLE, ResourceExhausted, unprocessed: true, "the service has as many requests under way as its policy allows";
    ConnectionLimit = "connection-limit", SERVICE_UNAVAILABLE, ResourceExhausted, unprocessed: true, "the service has as many connections open as its policy allows";
    QueueFull = "queue-full", SERVICE_UNAVAILABLE, ResourceExhausted, unprocessed: true, "too many requests are waiting already";
    NoAddress = "no-address", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the host's name could not be resolved";
    Connect = "connect-failed", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "no connection could be made";
    ConnectTimeout = "connect-timeout", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "no connection was made in time";
    TlsHandshake = "tls-handshake", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the TLS handshake failed";
    PeerIdentity = "peer-identity", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the peer did not prove the identity it must have";
    AppConnect = "application-unreachable", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the application does not accept connections";
    PortNotServed = "port-not-served", NOT_FOUND, Unimplemented, unprocessed: true, "the workload does not serve that port";
    NotProcessed = "not-processed", SERVICE_UNAVAILABLE, Unavailable, unprocessed: true, "the connection ended before the request was taken";
    Reset = "reset", BAD_GATEWAY, Unavailable, unprocessed: false, "the connection ended before the response did";
    PeerProtocol = "peer-protocol", BAD_GATEWAY, Internal, unprocessed: false, "the response was malformed";
    DeadlineExceeded = "deadline-exceeded", GATEWAY_TIMEOUT, DeadlineExceeded, unprocessed: false, "the caller would not wait any longer";
    IdleTimeout = "idle-timeout", GATEWAY_TIMEOUT, Unavailable, unprocessed: false, "nothing came for longer than the policy allows";
    RequestTimeout = "request-timeout", GATEWAY_TIMEOUT, DeadlineExceeded, unprocessed: false, "the request took longer than its policy allows";
    MalformedRequest = "malformed-request", BAD_REQUEST, Internal, unprocessed: true, "the request is malformed";
    HeadersTooLarge = "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, ResourceExhausted, unprocessed: true, "the request's header section is too large";
    UriTooLong = "uri-too-long", URI_TOO_LONG, ResourceExhausted, unprocessed: true, "the request's URI is too long";
    Http2Abuse = "http2-abuse", TOO_MANY_REQUESTS, ResourceExhausted, unprocessed: false, "an HTTP/2 connection asked for too much that carries nothing, or took too much room";
    UpgradeFailed = "upgrade-failed", BAD_GATEWAY, Internal, unprocessed: false, "the connection could not be upgraded";
    // Not sent to another workload unasked: what refuses because it is too much must not be made more of. A retry policy may.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, ResourceExhausted, unprocessed: false, "the workload takes no more requests for now, in all or of this client";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Unavailable, unprocessed: false, "the workload has as much to do as it can, and others go first";
    TooManyConnections = "too-many-connections", SERVICE_UNAVAILABLE, ResourceExhausted, unprocessed: true, "the workload has as many connections as its policy allows, in all or of this client";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, ResourceExhausted, unprocessed: false, "the request's body is larger than the workload's policy allows";
    FaultInjected = "fault-injected", SERVICE_UNAVAILABLE, Unavailable, unprocessed: false, "a policy of the service injects this fault, for a time";
    PlaintextRefused = "plaintext-refused", FORBIDDEN, PermissionDenied, unprocessed: true, "only mutual TLS of the mesh is taken here";
}

/// One refusal: what, where it was noticed, and the particulars.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// From the one list.
    pub reason: Reason,
    /// Particulars for people: the address, the limit, the peer's words. May be empty.
    pub detail: String,
    /// How many attempts there were; zero: it is not told.
    pub attempts: u32,
    /// What only few answers have.
    pub more: Option<Box<More>>,
}

/// What an answer to a refusal says besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// Instead of the reason's statuses: HTTP's, and gRPC's.
    pub status: Option<(StatusCode, u8)>,
    /// When the same request may fare better.
    pub retry_after: Option<Duration>,
    /// Further fields.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// With particulars.
    pub fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self { reason, detail: detail.to_string(), more: None, attempts: 0 }
    }

    /// The same, saying whose word it is: that of a policy, `<namespace>/<name>`, or of none, where that is empty.
    #[must_use]
    pub fn of_policy(mut self, policy: &str) -> Self {
        if !policy.is_empty() {
            self.detail = format!("{} of TrafficPolicy {policy}", self.detail);
        }
        self
    }

    /// The same, saying whose word it is that a request took too long, where it is that of the mesh's documents.
    #[must_use]
    pub fn by_timeout(mut self, policies: Option<Policies<'_>>, rule: Option<&RouteRule>) -> Self {
        if self.reason == Reason::RequestTimeout
            && let Some(policies) = policies
        {
            self.detail = format!("{}, {}", self.detail, policies.request_timeout_by(rule));
        }
        self
    }

    /// The same with more in its answer.
    #[must_use]
    pub fn with(self, more: More) -> Self {
        Self { more: Some(Box::new(more)), ..self }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new(), more: None, attempts: 0 }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.text())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_for_labels() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        for name in &names {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(name.bytes().all(fits), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn every_reason_is_an_error_to_the_caller() {
        for reason in Reason::ALL {
            assert!(reason.status().is_client_error() || reason.status().is_server_error(), "{reason:?}");
        }
    }

    #[test]
    fn what_is_forbidden_is_so_in_grpc_too() {
        for reason in Reason::ALL {
            let forbidden =
                (reason.status() == StatusCode::FORBIDDEN, reason.grpc() == GrpcCode::PermissionDenied);
            assert_eq!(forbidden.0, forbidden.1, "{reason:?}");
        }
    }
}
