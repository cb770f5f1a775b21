//! How sidecars ask their applications whether they are well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DAY, HOUR, MILLISECOND, MINUTE, check_number};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// One of `http`, `grpc` and `tcp`. A sidecar's own `--health` goes before it. A workload of several services with checks
/// is ready when it passes all of them; without any, it is when its first port accepts connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// A GET over HTTP/1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// The health service of gRPC (`grpc.health.v1`), over HTTP/2 without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// It accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// From the end of one check to the next. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// For one check. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// So many failures in a row make it unready. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<u32>,
    /// So many successes in a row make it ready. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<u32>,
    /// Before the first check. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<String>,
}

/// A GET over HTTP/1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// Such as `/healthz`.
    pub path: String,
    /// A port of the application, as in `targetPort`. Default: that of the service's first port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Statuses that say that it is well. Default: 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_statuses: Option<Vec<u32>>,
    /// In the `Host` header. Default: the address that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// The health service of gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcProbe {
    /// Whose health; empty: the whole server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A port of the application, as in `targetPort`. Default: that of the service's first port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
}

/// It accepts connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpProbe {
    /// A port of the application, as in `targetPort`. Default: that of the service's first port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
}

impl HealthCheck {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        let port = |faults: &mut Faults, name: &str, port: Option<u32>| {
            check_number(faults, &at.field(name).field("port"), port, 1, 65535);
        };
        match (&self.http, &self.grpc, &self.tcp) {
            (Some(http), None, None) => {
                port(faults, "http", http.port);
                let at = at.field("http");
                let is_path =
                    http.path.starts_with('/') && http.path.parse::<http::uri::PathAndQuery>().is_ok();
                if !is_path || http.path.len() > 1024 {
                    faults.add(
                        &at.field("path"),
                        format!("must be a path such as /healthz, is {:?}", http.path),
                    );
                }
                if let Some(host) = &http.host
                    && (host.len() > 255 || host.parse::<http::uri::Authority>().is_err())
                {
                    faults.add(&at.field("host"), format!("must be a host, is {host:?}"));
                }
                let statuses = http.expected_statuses.as_deref().unwrap_or_default();
                faults.check_length(&at.field("expectedStatuses"), statuses.len(), 64);
                for (index, status) in statuses.iter().enumerate() {
                    let at = at.field("expectedStatuses").index(index);
                    faults.check_range(&at, (*status).into(), 200, 599);
                }
            }
            (None, Some(grpc), None) => {
                port(faults, "grpc", grpc.port);
                if grpc.service.as_ref().is_some_and(|service| service.len() > 255) {
                    faults.add(&at.field("grpc").field("service"), "must be at most 255 bytes");
                }
            }
            (None, None, Some(tcp)) => port(faults, "tcp", tcp.port),
            _ => faults.add(at, "must have one of http, grpc and tcp"),
        }
        duration::check(faults, &at.field("interval"), self.interval.as_ref(), 10 * MILLISECOND, HOUR);
        duration::check(faults, &at.field("timeout"), self.timeout.as_ref(), MILLISECOND, MINUTE);
        duration::check(
            faults,
            &at.field("initialDelay"),
            self.initial_delay.as_ref(),
            std::time::Duration::ZERO,
            DAY,
        );
        check_number(faults, &at.field("unhealthyThreshold"), self.unhealthy_threshold, 1, 1000);
        check_number(faults, &at.field("healthyThreshold"), self.healthy_threshold, 1, 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named() {
        let faults = |json: &str| {
            let check: HealthCheck = serde_json::from_str(json).expect("a health check");
            let mut faults = Faults::default();
            check.check(&mut faults, &Path::root());
            faults.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(faults(r#"{"tcp":{}}"#), [""; 0]);
        assert_eq!(faults(r#"{"grpc":{"service":"a.B"},"initialDelay":"0s"}"#), [""; 0]);
        assert_eq!(faults("{}"), ["must have one of http, grpc and tcp"]);
        let wrong =
            faults(r#"{"http":{"path":"x","port":0,"host":"a b","expectedStatuses":[42]},"interval":"1ms"}"#);
        let fields: Vec<_> = wrong.iter().map(|fault| fault.split(':').next().unwrap_or_default()).collect();
        let expected = ["http.port", "http.path", "http.host", "http.expectedStatuses[0]", "interval"];
        assert_eq!(fields, expected, "{wrong:?}");
    }
}
