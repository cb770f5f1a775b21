//! What the services that this workload belongs to say of its own ports.

use std::sync::Arc;

use pillion_api::{
    model::{HealthCheck, Protocol, Service, TrafficPolicy},
    name::ServiceName,
    own,
};

/// The policies of this workload's services, by the ports of its application that they are for.
///
/// A port may be of several services. Then each part of a policy is that of the service which the caller means, where it
/// says anything on the matter; else that of the first by name that does. So nobody gets around a limit by calling the
/// workload by another of its names.
#[derive(Debug, Clone, Default)]
pub struct OwnPolicies {
    holdings: Vec<Holding>,
    /// Every service has been heard of.
    complete: bool,
}

/// One service's policy for one port.
#[derive(Debug, Clone)]
struct Holding {
    port: u16,
    service: Arc<Service>,
}

impl OwnPolicies {
    /// From the configuration of the services.
    pub fn new(services: impl IntoIterator<Item = Arc<Service>>) -> Self {
        let mut services: Vec<_> = services.into_iter().collect();
        // By the name alone, as the control plane sorts them: with its namespace "pay-v1.x" would go before "pay.x".
        services.sort_by(|one, other| one.name.name().cmp(other.name.name()));
        let mut holdings: Vec<Holding> = Vec::new();
        for service in services {
            for port in &service.ports {
                let known = |holding: &Holding| {
                    holding.port == port.target_port && holding.service.name == service.name
                };
                if !holdings.iter().any(known) {
                    holdings.push(Holding { port: port.target_port, service: service.clone() });
                }
            }
        }
        Self { holdings, complete: false }
    }

    /// Says whether there is none that has not been heard of yet.
    #[must_use]
    pub fn completed(self, complete: bool) -> Self {
        Self { complete, ..self }
    }

    /// Whether all that is to be known is known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// How the application is to be asked for its health: by which service, and that one's first port.
    pub fn health_checks(&self) -> impl Iterator<Item = (&ServiceName, &HealthCheck, Option<u16>)> {
        let services = self.holdings.iter().enumerate().filter(|(index, holding)| {
            let same = |other: &Holding| Arc::ptr_eq(&other.service, &holding.service);
            !self.holdings[..*index].iter().any(same)
        });
        services.filter_map(|(_, holding)| {
            let service = &*holding.service;
            let first = service.ports.first().map(|port| port.target_port);
            Some((&service.name, service.policy.health_check.as_deref()?, first))
        })
    }

    /// A part of the policy for a port of the application, with the service that it comes from. `called`: the service that
    /// the caller means, if it says so.
    pub fn part<'a, T>(
        &'a self,
        port: u16,
        called: Option<&ServiceName>,
        part: impl Fn(&'a TrafficPolicy) -> Option<T>,
    ) -> Option<(&'a ServiceName, T)> {
        self.of_port(port, called).find_map(|service| Some((&service.name, part(&service.policy)?)))
    }

    /// What a port of the application is declared to speak, by the service that is meant, else by the first that says so.
    pub fn protocol(&self, port: u16, called: Option<&ServiceName>) -> Protocol {
        let ports = self.of_port(port, called).flat_map(|service| &service.ports);
        let mut declared = ports.filter(|it| it.target_port == port).map(|it| it.protocol);
        declared.find(|protocol| *protocol != Protocol::Detect).unwrap_or(Protocol::Detect)
    }

    /// The services that lead to a port; the one that is meant comes first.
    fn of_port(&self, port: u16, called: Option<&ServiceName>) -> impl Iterator<Item = &Service> {
        let holdings = self.holdings.iter().filter(move |holding| holding.port == port);
        own::meant_first(holdings.map(|holding| &*holding.service), called)
    }

    /// Whether a service is one of this workload's, with that port of the application.
    pub fn serves(&self, port: u16, service: &ServiceName) -> bool {
        self.holdings.iter().any(|holding| holding.port == port && holding.service.name == *service)
    }

    /// The ports that services lead to.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.holdings.iter().map(|holding| holding.port)
    }

    /// Whether it says the same: configuration that is not replaced stays the same object.
    pub fn same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Holding, &Holding)| {
            one.port == other.port && Arc::ptr_eq(&one.service, &other.service)
        };
        let (one, other_ones) = (&self.holdings, &other.holdings);
        self.complete == other.complete
            && one.len() == other_ones.len()
            && one.iter().zip(other_ones).all(same)
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire;

    use super::*;

    #[test]
    fn a_port_speaks_what_the_service_says_that_is_meant() {
        let declared = |name: &str, protocol: Protocol| {
            let port = wire::ServicePort {
                port: 80,
                target_port: 8080,
                protocol: protocol.into(),
                ..Default::default()
            };
            let config =
                wire::ServiceConfig { service: name.to_owned(), ports: vec![port], ..Default::default() };
            Arc::new(Service::try_from(config).expect("a valid service"))
        };
        let own = OwnPolicies::new([
            declared("a.n", Protocol::Detect),
            declared("b.n", Protocol::Http1),
            declared("c.n", Protocol::Http2),
        ]);
        for (port, called, expected) in [
            (8080, Some("c.n"), Protocol::Http2),
            (8080, Some("b.n"), Protocol::Http1),
            (8080, Some("a.n"), Protocol::Http1),
            (8080, None, Protocol::Http1),
            (80, Some("b.n"), Protocol::Detect),
        ] {
            let called = called.map(|name| name.parse().expect("a name"));
            assert_eq!(own.protocol(port, called.as_ref()), expected, "{port} {called:?}");
        }
    }

    fn service(name: &str, ports: &[(u32, u32)], request_timeout_ms: u32) -> Arc<Service> {
        let ports = ports.iter().map(|(port, target_port)| wire::ServicePort {
            port: *port,
            target_port: *target_port,
            ..wire::ServicePort::default()
        });
        let config = wire::ServiceConfig {
            service: name.to_owned(),
            ports: ports.collect(),
            policy: Some(wire::TrafficPolicy { request_timeout_ms, ..wire::TrafficPolicy::default() }),
            ..wire::ServiceConfig::default()
        };
        Arc::new(Service::try_from(config).expect("a valid service"))
    }

    #[test]
    fn a_part_is_of_the_service_that_is_meant_else_of_the_first_that_has_it() {
        let own = OwnPolicies::new([
            service("a.n", &[(80, 8080)], 0),
            service("b.n", &[(80, 8080), (81, 8080)], 2),
            service("c.n", &[(80, 8080), (90, 9090)], 3),
        ]);
        let part = |port, called: Option<&str>| {
            let called = called.map(|name| name.parse().expect("a name"));
            let found = own.part(port, called.as_ref(), |policy| policy.request_timeout);
            found.map(|(service, timeout)| (service.to_string(), timeout.as_millis()))
        };
        for (port, called, expected) in [
            (8080, Some("c.n"), Some(("c.n", 3))),
            (8080, Some("b.n"), Some(("b.n", 2))),
            (8080, Some("a.n"), Some(("b.n", 2))),
            (8080, Some("x.n"), Some(("b.n", 2))),
            (8080, None, Some(("b.n", 2))),
            (9090, Some("b.n"), Some(("c.n", 3))),
            (80, None, None),
        ] {
            let expected = expected.map(|(name, timeout)| (name.to_owned(), timeout));
            assert_eq!(part(port, called), expected, "{port} {called:?}");
        }
        assert_eq!(own.ports().collect::<Vec<_>>(), [8080, 8080, 8080, 9090]);
    }
}
