//! How a sidecar asks its application whether it is well.

use std::time::Duration;

use super::{Faults, milliseconds, or};
use crate::wire;

/// How a sidecar asks its application whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// In which words.
    pub probe: Probe,
    /// The application's port as the mesh knows it. `None`: that of the service's first port.
    pub port: Option<u16>,
    /// How often, and how many answers decide.
    pub pace: Pace,
}

/// In which words an application is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It accepts connections.
    Tcp,
    /// A GET over HTTP/1.
    Http {
        /// With its query.
        path: String,
        /// `None`: the address that is asked.
        host: Option<String>,
        /// Empty: 200 to 399.
        expected: Vec<u16>,
    },
    /// `grpc.health.v1`, over HTTP/2 without TLS.
    Grpc {
        /// Empty: the server as a whole.
        service: String,
    },
}

/// How often an application is asked, and how many answers decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row that make a ready application unready.
    pub unhealthy: u32,
    /// Successes in a row that make an unready one ready.
    pub healthy: u32,
    /// Before the first check.
    pub initial_delay: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy: 2,
            healthy: 1,
            initial_delay: Duration::ZERO,
        }
    }
}

impl Faults {
    pub(super) fn health_check(&mut self, check: wire::HealthCheck) -> Option<HealthCheck> {
        const AT: &str = "policy.health_check";
        let probe = match (check.http, check.grpc, check.tcp) {
            (Some(http), None, None) => {
                if http.path.parse::<http::uri::PathAndQuery>().is_err() || !http.path.starts_with('/') {
                    self.say(&format!("{AT}.http.path"), format_args!("{:?} is no path", http.path));
                }
                if http.host.bytes().any(|byte| !byte.is_ascii_graphic()) {
                    self.say(&format!("{AT}.http.host"), format_args!("{:?} is no host", http.host));
                }
                let mut expected = Vec::new();
                for status in http.expected_statuses {
                    match u16::try_from(status) {
                        Ok(status @ 200..=599) => expected.push(status),
                        _ => self.say(
                            &format!("{AT}.http.expected_statuses"),
                            format_args!("{status} is no final status"),
                        ),
                    }
                }
                let host = (!http.host.is_empty()).then_some(http.host);
                Probe::Http { path: http.path, host, expected }
            }
            (None, Some(grpc), None) => Probe::Grpc { service: grpc.service },
            (None, None, Some(_)) => Probe::Tcp,
            _ => {
                self.say(AT, "is not one of http, grpc and tcp");
                return None;
            }
        };
        let default = Pace::default();
        Some(HealthCheck {
            probe,
            port: (check.port != 0).then(|| self.port(&format!("{AT}.port"), check.port)),
            pace: Pace {
                interval: milliseconds(check.interval_ms).unwrap_or(default.interval),
                timeout: milliseconds(check.timeout_ms).unwrap_or(default.timeout),
                unhealthy: or(check.unhealthy_threshold, default.unhealthy),
                healthy: or(check.healthy_threshold, default.healthy),
                initial_delay: Duration::from_millis(check.initial_delay_ms.into()),
            },
        })
    }
}
