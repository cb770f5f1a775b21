//! The wire types made plain: checked, typed, defaults filled in. What cannot be understood is refused whole, with
//! every fault named, and the sidecar goes on with what it had.

mod access_log;
mod balancer;
mod fallback;
mod filters;
mod health;
mod injected;
mod limits;
mod mesh;
mod policy;
mod retry;
mod route;
mod session;
mod tracing;

use std::{fmt, time::Duration};

pub use self::{
    access_log::*, balancer::*, fallback::*, filters::*, health::*, injected::*, limits::*, mesh::*,
    policy::*, retry::*, route::*, session::*, tracing::*,
};
/// How a port's application speaks.
pub use crate::wire::Protocol;
use crate::{
    name::{ServiceName, is_host},
    wire,
};

/// Everything a sidecar needs to know to call a service, but for its endpoints.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What it listens on, as callers see it.
    pub ports: Vec<Port>,
    /// Those of consumers first, then by precedence: the first that fits is taken; none fits: 404; none there: the service itself.
    pub routes: Vec<RouteRule>,
    /// How to treat its endpoints.
    pub policy: TrafficPolicy,
    /// What mesh DNS answers with, and applications connect to. `None`: it has none.
    pub virtual_address: Option<std::net::IpAddr>,
    /// The DNS name of a service outside the mesh, whose endpoints are what the name resolves to. `None`: it is of the mesh.
    pub external: Option<String>,
}

impl Service {
    /// The port that a caller addressed; `None`: the service has no such port.
    pub fn port(&self, port: u16) -> Option<&Port> {
        self.ports.iter().find(|candidate| candidate.port == port)
    }

    /// Whether any route is for requests of a caller of `namespace` to a port.
    pub fn has_routes(&self, port: u16, namespace: &str) -> bool {
        self.routes.iter().any(|route| {
            let (parent, consumer) = (route.parent_port, route.consumer_namespace.as_deref());
            parent.is_none_or(|parent| parent == port) && consumer.is_none_or(|it| it == namespace)
        })
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// As callers see it.
    pub port: u16,
    /// As the workload's application is known to its sidecar.
    pub target_port: u16,
    /// Declared, or to be detected.
    pub protocol: Protocol,
}
/// One workload that serves a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload instance; the key of everything kept about it.
    pub uid: String,
    /// What people call it.
    pub workload: String,
    /// Of its sidecar's inbound listener.
    pub address: std::net::SocketAddr,
    /// Whom its sidecar must prove to be. `None`: it is outside the mesh, and has none.
    pub identity: Option<pillion_certs::spiffe::SpiffeId>,
    /// Its application's health, as its own sidecar sees it.
    pub ready: bool,
    /// Where it runs; empty: unknown.
    pub zone: String,
    /// Its share beside the others', 1 to [`MAX_WEIGHT`].
    pub weight: u32,
}

/// Why a message of the control plane was not applied: every fault in it, each with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refused(pub Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl TryFrom<wire::ServiceConfig> for Service {
    type Error = Refused;

    fn try_from(config: wire::ServiceConfig) -> Result<Self, Refused> {
        let mut faults = Faults::default();
        let name = faults.parse("service", &config.service);
        let ports = (config.ports.iter().enumerate())
            .map(|(i, port)| Port {
                port: faults.port(&format!("ports[{i}].port"), port.port),
                target_port: faults.port(&format!("ports[{i}].target_port"), port.target_port),
                protocol: faults.protocol(&format!("ports[{i}].protocol"), port.protocol),
            })
            .collect();
        let routes = (config.routes.iter().enumerate())
            .map(|(i, route)| faults.route(&format!("routes[{i}]"), route))
            .collect();
        let policy = config.policy.map(|policy| faults.policy(policy)).unwrap_or_default();
        let virtual_address = match config.virtual_address.as_str() {
            "" => None,
            text => faults.parse("virtual_address", text),
        };
        let external = config.external.map(|external| external.host);
        if external.as_deref().is_some_and(|host| !is_host(host)) {
            faults.say("external.host", "is no DNS name");
        }
        match name {
            Some(name) if faults.0.is_empty() => {
                Ok(Self { name, ports, routes, policy, virtual_address, external })
            }
            _ => Err(Refused(faults.0)),
        }
    }
}

/// The endpoints of a list, or every fault in it.
pub fn endpoints(list: &wire::EndpointList) -> Result<Vec<Endpoint>, Refused> {
    let mut faults = Faults::default();
    let mut endpoints = Vec::with_capacity(list.endpoints.len());
    for (i, endpoint) in list.endpoints.iter().enumerate() {
        let address = faults.parse(&format!("endpoints[{i}].address"), &endpoint.address);
        let identity = faults.parse(&format!("endpoints[{i}].spiffe_id"), &endpoint.spiffe_id);
        if endpoint.uid.is_empty() {
            faults.say(&format!("endpoints[{i}].uid"), "is empty");
        }
        let weight = faults.weight(&format!("endpoints[{i}].weight"), endpoint.weight);
        if let (Some(address), Some(identity)) = (address, identity) {
            endpoints.push(Endpoint {
                uid: endpoint.uid.clone(),
                workload: endpoint.workload.clone(),
                address,
                identity: Some(identity),
                ready: endpoint.ready,
                zone: endpoint.zone.clone(),
                weight,
            });
        }
    }
    if faults.0.is_empty() { Ok(endpoints) } else { Err(Refused(faults.0)) }
}

/// Collects faults, so that all are reported at once.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn say(&mut self, field: &str, what: impl fmt::Display) {
        self.0.push(format!("{field}: {what}"));
    }

    fn parse<T: std::str::FromStr<Err: fmt::Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.say(field, error)).ok()
    }

    fn port(&mut self, field: &str, port: u32) -> u16 {
        match u16::try_from(port) {
            Ok(port) if port != 0 => port,
            _ => {
                self.say(field, format_args!("{port} is no port"));
                0
            }
        }
    }

    fn protocol(&mut self, field: &str, number: i32) -> Protocol {
        Protocol::try_from(number).unwrap_or_else(|_| {
            self.say(field, format_args!("{number} is no protocol known to this version"));
            Protocol::Detect
        })
    }
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

/// What is zero was not written.
fn some(value: u32) -> Option<u32> {
    (value != 0).then_some(value)
}

fn milliseconds(ms: u32) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(ms.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_policy_means_the_defaults() {
        let config = wire::ServiceConfig {
            service: "a.b".into(),
            policy: Some(wire::TrafficPolicy::default()),
            ..Default::default()
        };
        let service = Service::try_from(config).expect("a valid service");
        assert_eq!(format!("{:?}", service.policy), format!("{:?}", TrafficPolicy::default()));
    }

    #[test]
    fn every_fault_is_reported() {
        let string = |r#type, value: &str| wire::StringMatch { r#type, value: value.into() };
        let config = wire::ServiceConfig {
            service: "nonsense".into(),
            ports: vec![wire::ServicePort {
                port: 70_000,
                target_port: 0,
                protocol: 99,
                name: String::new(),
            }],
            routes: vec![wire::RouteRule {
                r#match: Some(wire::RouteMatch {
                    path: Some(string(2, "(")),
                    headers: vec![wire::NamedMatch { name: "a b".into(), value: Some(string(9, "")) }],
                    ..Default::default()
                }),
                backends: vec![wire::Backend { service: "x".into(), weight: 1, ..Default::default() }],
                ..Default::default()
            }],
            policy: Some(wire::TrafficPolicy {
                circuit_breaker: Some(wire::CircuitBreaker { failure_percent: 101, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let Refused(faults) = Service::try_from(config).expect_err("nothing in it is valid");
        for start in [
            "service:",
            "ports[0].port:",
            "ports[0].target_port:",
            "ports[0].protocol:",
            "routes[0].match.path:",
            "routes[0].match.headers[0]: invalid HTTP header name",
            "routes[0].match.headers[0]: match type 9",
            "routes[0].backends[0].port:",
            "routes[0].backends[0].service:",
            "policy.circuit_breaker.failure_percent:",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start} in {faults:#?}");
        }
        assert_eq!(faults.len(), 10, "{faults:#?}");
    }
}
