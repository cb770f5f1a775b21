//! What takes over where a service cannot serve.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Faults;
pub use crate::wire::fallback::On;
use crate::{name::ServiceName, wire};

/// What takes over, and for what.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// For which failures.
    pub on: Vec<On>,
    /// What it is.
    pub to: FallbackTo,
}

/// What takes over.
#[derive(Debug, Clone, PartialEq)]
pub enum FallbackTo {
    /// Another service. Its own fallback does not count: one step, never a circle.
    Backend {
        /// Which…
        service: ServiceName,
        /// …and its port.
        port: u16,
    },
    /// An answer.
    Response(FixedResponse),
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedResponse {
    /// To HTTP.
    pub status: StatusCode,
    /// With `content-type`.
    pub headers: HeaderMap,
    /// To HTTP.
    pub body: bytes::Bytes,
    /// To gRPC.
    pub grpc_status: u8,
    /// To gRPC.
    pub grpc_message: String,
}

/// The longest body of a fixed response: it is part of what every caller's sidecar keeps.
pub const MAX_FIXED_BODY: usize = 16 * 1024;

/// Where the policy does not say which failures it is for.
pub const FALLBACK_ON: [On; 3] = [On::NoEndpoints, On::NoReadyEndpoints, On::BreakersOpen];

impl Faults {
    pub(super) fn fallback(&mut self, fallback: wire::Fallback) -> Option<Fallback> {
        let mut on = Vec::with_capacity(fallback.on.len());
        for number in &fallback.on {
            match On::try_from(*number) {
                Ok(one) => on.push(one),
                Err(_) => {
                    self.say("policy.fallback.on", format_args!("{number} is not known to this version"))
                }
            }
        }
        if fallback.on.is_empty() {
            on.extend(FALLBACK_ON);
        }
        let to = match fallback.response {
            Some(response) => FallbackTo::Response(self.fixed_response(response)),
            None => FallbackTo::Backend {
                service: self.parse("policy.fallback.service", &fallback.service)?,
                port: self.port("policy.fallback.port", fallback.port),
            },
        };
        Some(Fallback { on, to })
    }

    fn fixed_response(&mut self, response: wire::FixedResponse) -> FixedResponse {
        const AT: &str = "policy.fallback.response";
        let mut headers = HeaderMap::new();
        let own = [("content-type", &*response.content_type)];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        let others = response.headers.iter().map(|header| (&*header.name, &*header.value));
        for (name, value) in own.chain(others) {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => drop(headers.append(name, value)),
                _ => self.say(&format!("{AT}.headers"), format_args!("{name:?} is no header")),
            }
        }
        if response.body.len() > MAX_FIXED_BODY {
            self.say(&format!("{AT}.body"), format_args!("is longer than {MAX_FIXED_BODY} bytes"));
        }
        let status = u16::try_from(response.status).ok().filter(|status| (200..=599).contains(status));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or_else(|| {
            self.say(&format!("{AT}.status"), format_args!("{} is no final status", response.status));
            StatusCode::SERVICE_UNAVAILABLE
        });
        let grpc_status = u8::try_from(response.grpc_status).ok().filter(|code| *code <= 16);
        FixedResponse {
            status,
            headers,
            body: response.body.into(),
            grpc_status: grpc_status.unwrap_or_else(|| {
                self.say(&format!("{AT}.grpc_status"), format_args!("{} is none", response.grpc_status));
                14
            }),
            grpc_message: response.grpc_message,
        }
    }
}
