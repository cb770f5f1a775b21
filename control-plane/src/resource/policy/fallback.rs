//! What takes over where a service cannot serve.

use pillion_api::{model::MAX_FIXED_BODY, wire::fallback::On};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{
    fault::{Faults, Path},
    metadata,
};

/// Either another backend or a fixed response. One step, never a circle: the fallback of a fallback does not count. Of opaque
/// connections only another backend can take over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// For which failures: `NoEndpoints`, `NoReadyEndpoints`, `BreakersOpen`, `LimitReached` (of requests, connections or waiting
    /// ones) and `ConnectFailure` (of all attempts). Default: NoEndpoints, NoReadyEndpoints, BreakersOpen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// Another Service of the same namespace; not an ExternalService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<FallbackBackend>,
    /// An answer that is always the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<FixedResponse>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FallbackBackend {
    /// The service's name.
    pub name: String,
    /// Its port.
    pub port: u32,
}

/// An answer that is always the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FixedResponse {
    /// To HTTP. Default: 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Of the body. Default: text/plain; charset=utf-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// To HTTP, at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Further headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<ResponseHeader>>,
    /// To gRPC, which has no use for the body. Default: 14.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// To gRPC, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_message: Option<String>,
}

/// A header of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What a fallback can be for.
pub const ON: [On; 5] =
    [On::NoEndpoints, On::NoReadyEndpoints, On::BreakersOpen, On::LimitReached, On::ConnectFailure];

/// Sidecars write these themselves, or would break a message by them.
const RESERVED: [&str; 6] =
    ["content-length", "transfer-encoding", "connection", "upgrade", "content-type", "trailer"];

impl Fallback {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(on) = &self.on {
            let at = at.field("on");
            if on.is_empty() {
                faults.add(&at, "must name at least one failure");
            }
            let known = ON.map(|on| format!("{on:?}"));
            for (index, name) in on.iter().enumerate() {
                if !known.contains(name) {
                    faults.add(&at.index(index), format!("must be one of {}, is {name:?}", known.join(", ")));
                } else if on[..index].contains(name) {
                    faults.add(&at.index(index), format!("{name:?} is in the list already"));
                }
            }
        }
        match (&self.backend_ref, &self.response) {
            (Some(backend), None) => {
                let at = at.field("backendRef");
                if let Err(message) = metadata::service_name(&backend.name) {
                    faults.add(&at.field("name"), message);
                }
                faults.check_range(&at.field("port"), backend.port.into(), 1, 65535);
            }
            (None, Some(response)) => response.check(faults, &at.field("response")),
            _ => faults.add(at, "must have either backendRef or response"),
        }
    }

    /// What it is for, as sidecars are told; what was never admitted is left out.
    pub(crate) fn on(&self) -> impl Iterator<Item = On> {
        let names = self.on.iter().flatten();
        names.filter_map(|name| ON.into_iter().find(|on| format!("{on:?}") == *name))
    }
}

impl FixedResponse {
    fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(status) = self.status {
            faults.check_range(&at.field("status"), status.into(), 200, 599);
        }
        if let Some(code) = self.grpc_status {
            faults.check_range(&at.field("grpcStatus"), code.into(), 0, 16);
        }
        if self.body.as_ref().is_some_and(|body| body.len() > MAX_FIXED_BODY) {
            faults.add(&at.field("body"), format!("must be at most {MAX_FIXED_BODY} bytes"));
        }
        if self.grpc_message.as_ref().is_some_and(|message| message.len() > 1024) {
            faults.add(&at.field("grpcMessage"), "must be at most 1024 bytes");
        }
        let is_value = |text: &str| text.len() <= 4096 && http::HeaderValue::try_from(text).is_ok();
        if self.content_type.as_deref().is_some_and(|text| !is_value(text)) {
            faults.add(&at.field("contentType"), "is no header value");
        }
        let headers = self.headers.as_deref().unwrap_or_default();
        let at = at.field("headers");
        faults.check_length(&at, headers.len(), 16);
        for (index, header) in headers.iter().enumerate() {
            let at = at.index(index);
            let lower = header.name.to_ascii_lowercase();
            if http::HeaderName::try_from(&*header.name).is_err() {
                faults.add(&at.field("name"), format!("{:?} is no header name", header.name));
            } else if RESERVED.contains(&&*lower)
                || lower.starts_with("pillion-")
                || lower.starts_with("grpc-")
            {
                faults.add(&at.field("name"), format!("{:?} is not to be set here", header.name));
            }
            if !is_value(&header.value) {
                faults.add(&at.field("value"), "is no header value");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        let fallback: Fallback = serde_json::from_str(yaml).expect("a fallback");
        let mut faults = Faults::default();
        fallback.check(&mut faults, &Path::root());
        faults.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(faults(r#"{"backendRef":{"name":"spare","port":80}}"#), [""; 0]);
        assert_eq!(faults(r#"{"on":["LimitReached"],"response":{"status":200,"body":"{}"}}"#), [""; 0]);
        assert_eq!(faults("{}"), ["must have either backendRef or response"]);
        let wrong = faults(
            r#"{"on":["Never","NoEndpoints","NoEndpoints"],"response":{"status":101,"grpcStatus":17,
                "headers":[{"name":"content-length","value":"1"},{"name":"a b","value":"c"}]}}"#,
        );
        let fields: Vec<_> = wrong.iter().map(|fault| fault.split(':').next().unwrap_or_default()).collect();
        let expected = [
            "on[0]",
            "on[2]",
            "response.status",
            "response.grpcStatus",
            "response.headers[0].name",
            "response.headers[1].name",
        ];
        assert_eq!(fields, expected, "{wrong:?}");
    }
}
