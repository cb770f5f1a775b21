//! A sidecar's own settings of tracing, and what is in force with the mesh's.

use std::{path::PathBuf, str::FromStr};

use pillion_api::model::{Percent, Receiver, TraceCompression, TraceProtocol, Tracing};

use super::{check::Checker, raw::Raw};

/// What goes before the mesh's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnTracing {
    /// Where spans go.
    pub to: Option<To>,
    /// Of requests that are of no trace yet, so many are recorded.
    pub sampling: Option<Percent>,
    /// What the receiver is to be sent besides.
    pub headers_file: Option<PathBuf>,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Nowhere: tracing is off.
    Nobody,
    /// There, and how.
    Receiver(Receiver, TraceProtocol, TraceCompression),
}

impl OwnTracing {
    pub(super) fn check(checker: &mut Checker, raw: &Raw) -> Self {
        let protocol = how::<TraceProtocol>(checker, raw, "tracingProtocol", &raw.tracing_protocol);
        let compression =
            how::<TraceCompression>(checker, raw, "tracingCompression", &raw.tracing_compression);
        let to = match raw.tracing_endpoint.as_deref() {
            None => None,
            Some("none") => Some(To::Nobody),
            Some(text) => {
                let receiver = text.parse::<Receiver>();
                let fault = match &receiver {
                    Ok(receiver) => Tracing::fault(receiver, protocol),
                    Err(fault) => Some(*fault),
                };
                if let Some(fault) = fault {
                    checker.say("tracingEndpoint", format_args!("{text:?} {fault}"));
                }
                receiver.ok().map(|receiver| To::Receiver(receiver, protocol, compression))
            }
        };
        let sampling = raw.tracing_sampling.as_deref().and_then(|text| {
            let percent = share(text);
            if percent.is_none() {
                checker.say("tracingSampling", format_args!("{text:?} is not 0, nor between 0.0001 and 100"));
            }
            percent
        });
        Self { to, sampling, headers_file: raw.tracing_headers_file.clone() }
    }

    /// As it is written.
    pub(super) fn show(&self, raw: &mut Raw) {
        match &self.to {
            None => {}
            Some(To::Nobody) => raw.tracing_endpoint = Some("none".into()),
            Some(To::Receiver(receiver, protocol, compression)) => {
                raw.tracing_endpoint = Some(receiver.to_string());
                raw.tracing_protocol = Some(protocol.as_str().into());
                raw.tracing_compression = Some(compression.as_str().into());
            }
        }
        raw.tracing_sampling = self.sampling.map(|percent| percent.to_string());
        raw.tracing_headers_file.clone_from(&self.headers_file);
    }

    /// What is in force where the mesh has these settings. `None`: tracing is off.
    pub fn in_force(&self, mesh: Option<&Tracing>) -> Option<Tracing> {
        let (endpoint, protocol, compression) = match (&self.to, mesh) {
            (Some(To::Nobody), _) | (None, None) => return None,
            (Some(To::Receiver(receiver, protocol, compression)), _) => {
                (receiver.clone(), *protocol, *compression)
            }
            (None, Some(mesh)) => (mesh.endpoint.clone(), mesh.protocol, mesh.compression),
        };
        let usual = mesh.map_or_else(Tracing::usual_sampling, |mesh| mesh.sampling);
        Some(Tracing { endpoint, protocol, compression, sampling: self.sampling.unwrap_or(usual) })
    }
}

/// How spans are sent, which goes with where.
fn how<T: FromStr<Err = &'static str> + Default>(
    checker: &mut Checker,
    raw: &Raw,
    field: &'static str,
    written: &Option<String>,
) -> T {
    let Some(text) = written else { return T::default() };
    let parsed = text.parse::<T>();
    if let Err(fault) = parsed {
        checker.say(field, format_args!("{text:?} {fault}"));
    }
    if matches!(raw.tracing_endpoint.as_deref(), None | Some("none")) {
        checker.say(field, "goes with tracingEndpoint, which is not set");
    }
    parsed.unwrap_or_default()
}

/// A share as it is written, in percent.
fn share(text: &str) -> Option<Percent> {
    let percent: f64 = text.trim().parse().ok()?;
    if percent != 0.0 && !(0.0001..=100.0).contains(&percent) {
        return None;
    }
    Percent::per_million((percent * f64::from(Percent::OF / 100)).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::{super::check::check, *};

    fn read(
        endpoint: Option<&str>,
        protocol: Option<&str>,
        sampling: Option<&str>,
    ) -> Result<OwnTracing, Vec<String>> {
        let raw = Raw {
            join_token: Some("t".into()),
            tracing_endpoint: endpoint.map(Into::into),
            tracing_protocol: protocol.map(Into::into),
            tracing_sampling: sampling.map(Into::into),
            ..Raw::default()
        };
        check(raw, "host").map(|config| config.tracing).map_err(|faults| faults.0)
    }

    #[test]
    fn its_own_go_before_the_mesh_s() {
        let percent = |percent| share(percent).expect("a share");
        let mesh = Tracing {
            endpoint: "http://collector:4318".parse().expect("a receiver"),
            protocol: TraceProtocol::HttpProtobuf,
            compression: TraceCompression::Gzip,
            sampling: percent("5"),
        };
        let shown = |own: &OwnTracing, mesh: Option<&Tracing>| {
            let tracing = own.in_force(mesh)?;
            Some(format!("{} {} {}", tracing.endpoint, tracing.protocol.as_str(), tracing.sampling))
        };
        for (endpoint, protocol, sampling, with, without) in [
            (None, None, None, Some("http://collector:4318 http/protobuf 5"), None),
            (None, None, Some("0.01"), Some("http://collector:4318 http/protobuf 0.01"), None),
            (Some("none"), None, Some("100"), None, None),
            (
                Some("http://own:4317"),
                None,
                None,
                Some("http://own:4317 grpc 5"),
                Some("http://own:4317 grpc 1"),
            ),
            (
                Some("https://own/otlp"),
                Some("http/protobuf"),
                Some("0"),
                Some("https://own:443/otlp http/protobuf 0"),
                Some("https://own:443/otlp http/protobuf 0"),
            ),
        ] {
            let own = read(endpoint, protocol, sampling).expect("valid");
            assert_eq!(shown(&own, Some(&mesh)).as_deref(), with, "{endpoint:?}");
            assert_eq!(shown(&own, None).as_deref(), without, "{endpoint:?}");
        }
    }

    #[test]
    fn every_fault_is_reported() {
        for (endpoint, protocol, sampling, expected) in [
            (
                Some("collector"),
                Some("json"),
                Some("101"),
                &[
                    "tracingProtocol: \"json\" is neither",
                    "tracingEndpoint: \"collector\" is not",
                    "tracingSampling: \"101\" is not",
                ][..],
            ),
            (
                None,
                Some("grpc"),
                Some("0.00001"),
                &["tracingProtocol: goes with tracingEndpoint", "tracingSampling: "],
            ),
            (Some("none"), Some("grpc"), None, &["tracingProtocol: goes with"]),
            (
                Some("http://own:4317/x"),
                None,
                Some("many"),
                &["tracingEndpoint: \"http://own:4317/x\" must have no path", "tracingSampling: "],
            ),
        ] {
            let faults = read(endpoint, protocol, sampling).expect_err("nothing of it is valid");
            assert_eq!(faults.len(), expected.len(), "{faults:#?}");
            for (fault, expected) in faults.iter().zip(expected) {
                assert!(fault.starts_with(expected), "{fault}, not {expected}");
            }
        }
    }

    #[test]
    fn how_they_are_sent_goes_with_where() {
        let read = |endpoint: Option<&str>, compression: &str| {
            let raw = Raw {
                join_token: Some("t".into()),
                tracing_endpoint: endpoint.map(Into::into),
                tracing_compression: Some(compression.into()),
                ..Raw::default()
            };
            check(raw, "host").map(|config| config.tracing).map_err(|faults| faults.0)
        };
        let own = read(Some("http://own:4317"), "gzip").expect("valid");
        assert_eq!(own.in_force(None).expect("it is on").compression, TraceCompression::Gzip);
        for (endpoint, compression, expected) in [
            (None, "gzip", "tracingCompression: goes with tracingEndpoint"),
            (Some("http://own:4317"), "zstd", "tracingCompression: \"zstd\" is neither none nor gzip"),
        ] {
            let faults = read(endpoint, compression).expect_err("it is not valid");
            assert!(faults.len() == 1 && faults[0].starts_with(expected), "{faults:?}");
        }
    }
}
