//! Where sidecars send the traces of requests, and of which.

use std::{fmt, str::FromStr};

use super::{Faults, Percent};
use crate::wire;

/// How requests are traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Who takes the spans.
    pub endpoint: Receiver,
    /// How they are sent.
    pub protocol: TraceProtocol,
    /// Whether they are made smaller for that.
    pub compression: TraceCompression,
    /// Of requests that are of no trace yet, so many are recorded. Where there is a trace, it goes by that.
    pub sampling: Percent,
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceProtocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP, in protobuf.
    HttpProtobuf,
}

/// How spans are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceCompression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
}

/// Who takes spans: `http://HOST:PORT/PATH` or `https://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// By TLS, proving who it is.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The scheme's where none is written.
    pub port: u16,
    /// Below which the signals' paths are; without a slash at its end, and so often empty.
    pub path: String,
}

impl Tracing {
    /// Of requests without a trace of their own, where nothing else is said.
    pub fn usual_sampling() -> Percent {
        Percent::per_million(Percent::OF / 100).expect("it is less than all")
    }

    /// What does not go together. `None`: nothing.
    pub fn fault(receiver: &Receiver, protocol: TraceProtocol) -> Option<&'static str> {
        let path = protocol == TraceProtocol::Grpc && !receiver.path.is_empty();
        path.then_some("must have no path where the protocol is grpc")
    }
}

impl TraceProtocol {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

impl FromStr for TraceProtocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Grpc, Self::HttpProtobuf];
        all.into_iter().find(|it| it.as_str() == text).ok_or("is neither grpc nor http/protobuf")
    }
}

impl TraceCompression {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        }
    }
}

impl FromStr for TraceCompression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::None, Self::Gzip];
        all.into_iter().find(|it| it.as_str() == text).ok_or("is neither none nor gzip")
    }
}

impl Receiver {
    /// The host as it stands in a URL.
    pub fn authority(&self) -> String {
        let brackets = self.host.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }

    /// What spans are posted to over HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>).
    pub fn traces_path(&self) -> String {
        const TRACES: &str = "/v1/traces";
        let more = if self.path.ends_with(TRACES) { "" } else { TRACES };
        format!("{}{more}", self.path)
    }
}

impl FromStr for Receiver {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "is not http://HOST:PORT or https://HOST:PORT, with or without a path";
        let uri: http::Uri = text.parse().map_err(|_| FORM)?;
        let (tls, usual) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(FORM),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("must have no user: credentials are a sidecar's own setting");
        }
        if uri.query().is_some() {
            return Err("must have no query");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let written = &authority.as_str()[authority.host().len()..];
        let port = if written.is_empty() { Some(usual) } else { authority.port_u16() };
        match port {
            Some(port @ 1..) if !host.is_empty() => Ok(Self {
                tls,
                host: host.to_owned(),
                port,
                path: uri.path().trim_end_matches('/').to_owned(),
            }),
            _ => Err(FORM),
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Faults {
    /// `None`: it could not be understood.
    pub(super) fn tracing(&mut self, tracing: &wire::Tracing) -> Option<Tracing> {
        use wire::tracing::{Compression, Protocol};
        let endpoint: Option<Receiver> = self.parse("tracing.endpoint", &tracing.endpoint);
        let protocol = match Protocol::try_from(tracing.protocol) {
            Ok(Protocol::Grpc) => TraceProtocol::Grpc,
            Ok(Protocol::HttpProtobuf) => TraceProtocol::HttpProtobuf,
            Err(_) => {
                self.say(
                    "tracing.protocol",
                    format_args!("{} is not known to this version", tracing.protocol),
                );
                return None;
            }
        };
        let compression = match Compression::try_from(tracing.compression) {
            Ok(Compression::None) => TraceCompression::None,
            Ok(Compression::Gzip) => TraceCompression::Gzip,
            Err(_) => {
                let what = format_args!("{} is not known to this version", tracing.compression);
                self.say("tracing.compression", what);
                return None;
            }
        };
        let sampling = Percent::per_million(tracing.sampling_per_million);
        if sampling.is_none() {
            self.say("tracing.sampling_per_million", "is more than a million");
        }
        let (endpoint, sampling) = (endpoint?, sampling?);
        if let Some(fault) = Tracing::fault(&endpoint, protocol) {
            self.say("tracing.endpoint", fault);
            return None;
        }
        Some(Tracing { endpoint, protocol, compression, sampling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_read_as_urls() {
        for (text, shown, path) in [
            ("http://collector:4317", "http://collector:4317", "/v1/traces"),
            (
                "http://collector.observability.svc:4318/",
                "http://collector.observability.svc:4318",
                "/v1/traces",
            ),
            ("https://otlp.example.com/otlp", "https://otlp.example.com:443/otlp", "/otlp/v1/traces"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces", "/v1/traces"),
            ("http://[::1]:4317", "http://[::1]:4317", "/v1/traces"),
            ("http://collector", "http://collector:80", "/v1/traces"),
        ] {
            let receiver: Receiver = text.parse().expect(text);
            assert_eq!((receiver.to_string(), receiver.traces_path()), (shown.into(), path.into()));
            assert_eq!(receiver.to_string().parse(), Ok(receiver));
        }
        for (text, fault) in [
            ("", "is not http://"),
            ("collector:4317", "is not http://"),
            ("grpc://collector:4317", "is not http://"),
            ("http://", "is not http://"),
            ("http://collector:0", "is not http://"),
            ("http://collector:99999", "is not http://"),
            ("http://collector:", "is not http://"),
            ("http://me:secret@collector:4317", "must have no user"),
            ("http://collector:4318/?key=secret", "must have no query"),
        ] {
            let found = text.parse::<Receiver>().expect_err(text);
            assert!(found.starts_with(fault), "{text}: {found}");
        }
    }

    #[test]
    fn what_is_told_is_checked() {
        let settings = |tracing| {
            let tracing = Some(tracing);
            super::super::MeshSettings::try_from(wire::MeshSettings { tracing, ..Default::default() })
        };
        let wire = |endpoint: &str, protocol, sampling_per_million| wire::Tracing {
            endpoint: endpoint.into(),
            protocol,
            sampling_per_million,
            ..Default::default()
        };
        let told = |endpoint: &str, protocol, sampling| settings(wire(endpoint, protocol, sampling));
        let compressed =
            |compression| settings(wire::Tracing { compression, ..wire("http://collector:4318", 1, 10_000) });
        let gzip = compressed(1).expect("it is valid").tracing.expect("it is on").compression;
        assert_eq!(gzip, TraceCompression::Gzip);
        let valid = told("http://collector:4318", 1, 10_000).expect("it is valid");
        let tracing = valid.tracing.expect("it is on");
        assert_eq!((tracing.protocol, tracing.sampling.percent()), (TraceProtocol::HttpProtobuf, 1.0));
        for (settings, fault) in [
            (told("collector", 0, 0), "tracing.endpoint: "),
            (told("http://collector:4317/x", 0, 0), "tracing.endpoint: must have no path"),
            (told("http://collector:4317", 9, 0), "tracing.protocol: 9 "),
            (compressed(9), "tracing.compression: 9 "),
            (told("http://collector:4317", 0, 1_000_001), "tracing.sampling_per_million: "),
        ] {
            let refused = settings.expect_err(fault);
            assert!(refused.to_string().starts_with(fault), "{refused}");
        }
    }
}
