//! `MeshConfig.spec.tracing`: where sidecars send the traces of requests, and of which.

use pillion_api::{
    model::{self, Receiver, TraceProtocol},
    wire,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    fault::{Faults, Path},
    percent::Percent,
};

/// A sidecar's own settings `tracingEndpoint`, `tracingProtocol`, `tracingCompression` and `tracingSampling` go before these; what a
/// receiver has to be sent besides, such as a key, is a setting of theirs only (`tracingHeadersFile`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Who takes spans by OTLP, an OpenTelemetry Collector, Jaeger or Tempo: such as `http://collector.observability:4317`, or
    /// `https://…`. Sidecars connect to it past the mesh. Over HTTP, `/v1/traces` is added, if it is not there.
    pub endpoint: String,
    /// `grpc` (the port is usually 4317) or `http/protobuf` (4318). Default: grpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// `gzip` or `none`: spans become a tenth, for some CPU time of the sidecar's. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Of requests that are of no trace yet, so many percent are recorded: 0 or 0.0001 to 100. A request of a trace is recorded
    /// exactly if that is. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Percent>,
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// OTLP/gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP/HTTP, in protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

impl From<Protocol> for TraceProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Grpc => Self::Grpc,
            Protocol::HttpProtobuf => Self::HttpProtobuf,
        }
    }
}

/// How spans are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
}

impl Tracing {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        let protocol = self.protocol.unwrap_or_default().into();
        let receiver = self.endpoint.parse::<Receiver>();
        let fault = receiver.map_or_else(Some, |receiver| model::Tracing::fault(&receiver, protocol));
        if let Some(fault) = fault {
            faults.add(&at.field("endpoint"), format!("{fault}: {:?}", self.endpoint));
        }
        self.sampling.iter().for_each(|percent| percent.check(faults, &at.field("sampling"), true));
    }

    /// With every default filled in.
    pub(super) fn in_force(&self) -> Self {
        let usual = model::Tracing::usual_sampling();
        Self {
            endpoint: self.endpoint.clone(),
            protocol: Some(self.protocol.unwrap_or_default()),
            compression: Some(self.compression.unwrap_or_default()),
            sampling: Some(self.sampling.unwrap_or(usual.into())),
        }
    }

    pub(super) fn to_wire(&self) -> wire::Tracing {
        let Self { endpoint, protocol, compression, sampling } = self.in_force();
        let protocol = match protocol.unwrap_or_default() {
            Protocol::Grpc => wire::tracing::Protocol::Grpc,
            Protocol::HttpProtobuf => wire::tracing::Protocol::HttpProtobuf,
        };
        let compression = match compression.unwrap_or_default() {
            Compression::None => wire::tracing::Compression::None,
            Compression::Gzip => wire::tracing::Compression::Gzip,
        };
        let sampling_per_million = sampling.map_or(0, Percent::per_million);
        let (protocol, compression) = (protocol.into(), compression.into());
        wire::Tracing { endpoint, protocol, sampling_per_million, compression }
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::model::TraceCompression;
    use serde_json::json;

    use super::*;
    use crate::resource::{Kind, schema};

    fn faults(tracing: serde_json::Value) -> Vec<String> {
        let tracing: Tracing = serde_json::from_value(tracing).expect("of the right shape");
        let mut faults = Faults::default();
        tracing.check(&mut faults, &Path::root().field("tracing"));
        faults.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_named() {
        for right in [
            json!({ "endpoint": "http://collector:4317" }),
            json!({ "endpoint": "https://otlp.example.com/otlp", "protocol": "http/protobuf", "sampling": 0 }),
            json!({ "endpoint": "http://10.0.0.1:4317", "protocol": "grpc", "compression": "gzip", "sampling": 0.01 }),
        ] {
            assert_eq!(faults(right), [""; 0]);
        }
        let form = "tracing.endpoint: is not http://HOST:PORT or https://HOST:PORT, with or without a path: \"collector\"";
        assert_eq!(faults(json!({ "endpoint": "collector" })), [form]);
        let found = faults(json!({ "endpoint": "http://collector:4317/x", "sampling": 101 }));
        let expected = [
            "tracing.endpoint: must have no path where the protocol is grpc: \"http://collector:4317/x\"",
            "tracing.sampling: must be 0 or between 0.0001 and 100, is 101",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn defaults_are_those_of_sidecars_and_documented() {
        let written = Tracing { endpoint: "http://collector:4317".into(), ..Tracing::default() };
        let settings = wire::MeshSettings { tracing: Some(written.to_wire()), ..Default::default() };
        let told = model::MeshSettings::try_from(settings).expect("what we say is understood");
        let told = told.tracing.expect("it is on");
        assert_eq!(
            (told.protocol, told.compression, told.sampling),
            (TraceProtocol::default(), TraceCompression::default(), model::Tracing::usual_sampling())
        );
        let in_force = serde_json::to_value(written.in_force()).expect("JSON");
        let fields = &schema::schema(Kind::MeshConfig)["properties"]["spec"]["properties"]["tracing"];
        for field in ["protocol", "compression", "sampling"] {
            let default = in_force[field].to_string().replace('"', "");
            let text = fields["properties"][field]["description"].as_str().unwrap_or_default();
            assert!(
                text.trim_end().ends_with(&format!("Default: {default}.")),
                "{field}: {text:?}, not {default}"
            );
        }
    }
}
