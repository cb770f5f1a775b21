//! The wire types made plain: checked, typed, defaults filled in. What cannot be understood is refused whole, with
//! every fault named, and the sidecar goes on with what it had.

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue, Method};
use regex::{Regex, RegexBuilder};

use crate::{
    name::{ServiceName, is_host},
    wire::{self, string_match::Type},
};

/// How a port's application speaks.
pub use crate::wire::Protocol;

/// Everything a sidecar needs to know to call a service, but for its endpoints.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What it listens on, as callers see it.
    pub ports: Vec<Port>,
    /// By precedence: the first that fits is taken; none fits: 404; none there: the service itself.
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

    /// Whether any route is for requests to a port.
    pub fn has_routes(&self, port: u16) -> bool {
        self.routes.iter().any(|route| route.parent_port.is_none_or(|parent| parent == port))
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

/// One match of one rule of an `HTTPRoute`, and what follows from it.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// `<namespace>/<name>` of the `HTTPRoute`.
    pub route: String,
    /// The rule's name, else its index.
    pub rule: String,
    /// Only for requests to this port; `None`: to all.
    pub parent_port: Option<u16>,
    /// Which requests it is for.
    pub matches: RouteMatch,
    /// Where they go, by weight. A rule with none, or only of weight zero, answers 500 (Gateway API).
    pub backends: Vec<Backend>,
    /// For the whole request, from its first byte to the end of the response.
    pub request_timeout: Option<Duration>,
    /// For each try.
    pub backend_request_timeout: Option<Duration>,
    /// Applied to requests.
    pub request_headers: HeaderModifier,
    /// Applied to responses.
    pub response_headers: HeaderModifier,
}

/// All conditions must hold. The default fits every request.
#[derive(Debug, Clone, Default)]
pub struct RouteMatch {
    /// On the path without its query.
    pub path: Option<StringMatch>,
    /// `None`: any.
    pub method: Option<Method>,
    /// Each on the first value of the header.
    pub headers: Vec<(HeaderName, StringMatch)>,
    /// Each on the first value of the parameter, percent-decoded.
    pub query: Vec<(String, StringMatch)>,
}

/// A condition on a text.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The same bytes.
    Exact(String),
    /// Whole elements of a path. Stored without a trailing slash; empty fits all.
    PathPrefix(String),
    /// Anchored at both ends.
    Regex(Regex),
}

/// A weighted target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// May not exist (any more): requests it wins are refused by name.
    pub service: ServiceName,
    /// Of that service.
    pub port: u16,
    /// Its share is `weight / sum of weights`.
    pub weight: u32,
}

/// Changes to a header section, in this order: remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Taken out.
    pub remove: Vec<HeaderName>,
    /// Replaces all values.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Joins existing values.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderModifier {
    /// Whether it changes anything.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// How a service's endpoints are balanced, broken and limited.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficPolicy {
    /// `<namespace>/<name>` of the `TrafficPolicy`; empty: all defaults.
    pub source: String,
    /// Time constant of an endpoint's latency average.
    pub decay: Duration,
    /// `None`: switched off.
    pub breaker: Option<CircuitBreaker>,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// After which an unused connection is closed.
    pub idle_timeout: Duration,
    /// Requests under way to the whole service from one sidecar; more are refused.
    pub max_requests: u32,
    /// Requests waiting for an endpoint from one sidecar; more are refused.
    pub max_pending: u32,
    /// For the whole request where no route says otherwise. `None`: no limit.
    pub request_timeout: Option<Duration>,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            source: String::new(),
            decay: Duration::from_secs(10),
            breaker: Some(CircuitBreaker::default()),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            max_requests: 1024,
            max_pending: 1024,
            request_timeout: None,
        }
    }
}

/// When an endpoint is left alone, and how it is let back in.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreaker {
    /// Opens after as many failures in a row.
    pub consecutive_failures: u32,
    /// Opens when this share of the window's requests failed, 0 to 1.
    pub failure_ratio: f64,
    /// Over which the ratio is taken.
    pub window: Duration,
    /// Fewer requests in the window say nothing.
    pub minimum_requests: u32,
    /// How long it stays open the first time; doubles while it keeps failing.
    pub base_open: Duration,
    /// The most it stays open.
    pub max_open: Duration,
    /// Requests let through at a time to see whether it has recovered.
    pub half_open_requests: u32,
    /// With less than this share of endpoints available, 0 to 1, breakers are ignored.
    pub panic_share: f64,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 7,
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
            minimum_requests: 10,
            base_open: Duration::from_secs(1),
            max_open: Duration::from_secs(60),
            half_open_requests: 1,
            panic_share: 0.5,
        }
    }
}

/// What holds for the whole mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshSettings {
    /// What becomes of destinations that the mesh does not know.
    pub outbound: OutboundMode,
    /// Who may call workloads.
    pub inbound: InboundMode,
    /// Of services' virtual addresses: the first address and the number of bits that they share.
    pub service_cidr: Option<(std::net::IpAddr, u8)>,
}

/// What becomes of destinations that the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundMode {
    /// Passed through as they are.
    AllowAny,
    /// Refused.
    RegistryOnly,
}

/// Who may call workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundMode {
    /// Other sidecars by mutual TLS, and anybody else with what they speak.
    Permissive,
    /// Other sidecars by mutual TLS.
    Strict,
}

impl MeshSettings {
    /// Where nothing else is said: nobody is let in who has not proven who they are.
    pub const UNTOLD: Self =
        Self { outbound: OutboundMode::AllowAny, inbound: InboundMode::Strict, service_cidr: None };

    /// Whether an address is one that only the mesh gives.
    pub fn is_virtual(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        let shares = |differ: u128, width: u32, bits: u8| {
            differ.checked_shr(width - u32::from(bits).min(width)).unwrap_or(0) == 0
        };
        match (self.service_cidr, address) {
            (Some((V4(first), bits)), V4(address)) => {
                shares((u32::from(first) ^ u32::from(address)).into(), 32, bits)
            }
            (Some((V6(first), bits)), V6(address)) => {
                shares(u128::from(first) ^ u128::from(address), 128, bits)
            }
            _ => false,
        }
    }
}

impl TryFrom<wire::MeshSettings> for MeshSettings {
    type Error = Refused;

    fn try_from(settings: wire::MeshSettings) -> Result<Self, Refused> {
        let mut faults = Faults::default();
        let outbound = match wire::mesh_settings::Outbound::try_from(settings.outbound) {
            Ok(wire::mesh_settings::Outbound::AllowAny) => OutboundMode::AllowAny,
            Ok(wire::mesh_settings::Outbound::RegistryOnly) => OutboundMode::RegistryOnly,
            Err(_) => {
                faults.say("outbound", format_args!("{} is not known to this version", settings.outbound));
                OutboundMode::AllowAny
            }
        };
        let inbound = match wire::mesh_settings::Inbound::try_from(settings.inbound) {
            Ok(wire::mesh_settings::Inbound::Permissive) => InboundMode::Permissive,
            Ok(wire::mesh_settings::Inbound::Strict) => InboundMode::Strict,
            Err(_) => {
                faults.say("inbound", format_args!("{} is not known to this version", settings.inbound));
                InboundMode::Strict
            }
        };
        let service_cidr = match settings.service_cidr.as_str() {
            "" => None,
            text => match cidr(text) {
                Some(cidr) => Some(cidr),
                None => {
                    faults.say("service_cidr", format_args!("{text:?} is not ADDRESS/BITS"));
                    None
                }
            },
        };
        if faults.0.is_empty() {
            Ok(Self { outbound, inbound, service_cidr })
        } else {
            Err(Refused(faults.0))
        }
    }
}

/// Reads `ADDRESS/BITS`.
pub fn cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    bits.parse().ok().filter(|bits| *bits <= width).map(|bits| (address, bits))
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
        if let (Some(address), Some(identity)) = (address, identity) {
            endpoints.push(Endpoint {
                uid: endpoint.uid.clone(),
                workload: endpoint.workload.clone(),
                address,
                identity: Some(identity),
                ready: endpoint.ready,
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

    fn route(&mut self, field: &str, route: &wire::RouteRule) -> RouteRule {
        let matches = route.r#match.as_ref();
        let backends = (route.backends.iter().enumerate())
            .filter_map(|(i, backend)| {
                let port = self.port(&format!("{field}.backends[{i}].port"), backend.port);
                let service = self.parse(&format!("{field}.backends[{i}].service"), &backend.service)?;
                Some(Backend { service, port, weight: backend.weight })
            })
            .collect();
        RouteRule {
            route: route.route.clone(),
            rule: route.rule.clone(),
            parent_port: (route.parent_port != 0)
                .then(|| self.port(&format!("{field}.parent_port"), route.parent_port)),
            matches: matches.map(|m| self.route_match(&format!("{field}.match"), m)).unwrap_or_default(),
            backends,
            request_timeout: milliseconds(route.request_timeout_ms),
            backend_request_timeout: milliseconds(route.backend_request_timeout_ms),
            request_headers: self.modifier(&format!("{field}.request_headers"), &route.request_headers),
            response_headers: self.modifier(&format!("{field}.response_headers"), &route.response_headers),
        }
    }

    fn route_match(&mut self, field: &str, matches: &wire::RouteMatch) -> RouteMatch {
        let method = match matches.method.as_str() {
            "" => None,
            text => self.parse(&format!("{field}.method"), text),
        };
        let path = matches.path.as_ref().and_then(|path| self.string_match(&format!("{field}.path"), path));
        let mut headers = Vec::new();
        for (i, header) in matches.headers.iter().enumerate() {
            let field = format!("{field}.headers[{i}]");
            let name = self.parse::<HeaderName>(&field, &header.name);
            let value = header.value.as_ref().and_then(|value| self.string_match(&field, value));
            headers.extend(name.zip(value));
        }
        let mut query = Vec::new();
        for (i, parameter) in matches.query.iter().enumerate() {
            let field = format!("{field}.query[{i}]");
            let value = parameter.value.as_ref().and_then(|value| self.string_match(&field, value));
            query.extend(value.map(|value| (parameter.name.clone(), value)));
        }
        RouteMatch { path, method, headers, query }
    }

    fn string_match(&mut self, field: &str, string: &wire::StringMatch) -> Option<StringMatch> {
        match Type::try_from(string.r#type) {
            Ok(Type::Exact) => Some(StringMatch::Exact(string.value.clone())),
            Ok(Type::PathPrefix) => {
                Some(StringMatch::PathPrefix(string.value.trim_end_matches('/').to_owned()))
            }
            Ok(Type::RegularExpression) => match whole(&string.value) {
                Ok(regex) => Some(StringMatch::Regex(regex)),
                Err(error) => {
                    self.say(field, error);
                    None
                }
            },
            Err(_) => {
                self.say(field, format_args!("match type {} is not known to this version", string.r#type));
                None
            }
        }
    }

    fn modifier(&mut self, field: &str, modifier: &Option<wire::HeaderModifier>) -> HeaderModifier {
        let Some(modifier) = modifier else { return HeaderModifier::default() };
        let mut pairs = |kind: &str, headers: &[wire::Header]| {
            let mut pairs = Vec::new();
            for (i, header) in headers.iter().enumerate() {
                let field = format!("{field}.{kind}[{i}]");
                let name = self.parse::<HeaderName>(&field, &header.name);
                let value = self.parse::<HeaderValue>(&field, &header.value);
                pairs.extend(name.zip(value));
            }
            pairs
        };
        let (set, add) = (pairs("set", &modifier.set), pairs("add", &modifier.add));
        let remove = (modifier.remove.iter().enumerate())
            .filter_map(|(i, name)| self.parse(&format!("{field}.remove[{i}]"), name))
            .collect();
        HeaderModifier { remove, set, add }
    }

    fn policy(&mut self, policy: wire::TrafficPolicy) -> TrafficPolicy {
        let default = TrafficPolicy::default();
        let connections = policy.connections.unwrap_or_default();
        let load_balancer = policy.load_balancer.unwrap_or_default();
        TrafficPolicy {
            source: policy.source,
            decay: milliseconds(load_balancer.decay_ms).unwrap_or(default.decay),
            breaker: self.breaker(policy.circuit_breaker.unwrap_or_default()),
            connect_timeout: milliseconds(connections.connect_timeout_ms).unwrap_or(default.connect_timeout),
            idle_timeout: milliseconds(connections.idle_timeout_ms).unwrap_or(default.idle_timeout),
            max_requests: or(connections.max_requests, default.max_requests),
            max_pending: or(connections.max_pending, default.max_pending),
            request_timeout: milliseconds(policy.request_timeout_ms),
        }
    }

    fn breaker(&mut self, breaker: wire::CircuitBreaker) -> Option<CircuitBreaker> {
        let default = CircuitBreaker::default();
        let mut share = |field: &str, percent: Option<u32>, default: f64| match percent {
            None => default,
            Some(percent @ 0..=100) => f64::from(percent) / 100.0,
            Some(percent) => {
                self.say(&format!("policy.circuit_breaker.{field}"), format_args!("{percent} is above 100"));
                default
            }
        };
        let failure_percent = (breaker.failure_percent != 0).then_some(breaker.failure_percent);
        let checked = CircuitBreaker {
            consecutive_failures: or(breaker.consecutive_failures, default.consecutive_failures),
            failure_ratio: share("failure_percent", failure_percent, default.failure_ratio),
            window: milliseconds(breaker.window_ms).unwrap_or(default.window),
            minimum_requests: or(breaker.minimum_requests, default.minimum_requests),
            base_open: milliseconds(breaker.base_open_ms).unwrap_or(default.base_open),
            max_open: milliseconds(breaker.max_open_ms).unwrap_or(default.max_open),
            half_open_requests: or(breaker.half_open_requests, default.half_open_requests),
            panic_share: share("panic_percent", breaker.panic_percent, default.panic_share),
        };
        (!breaker.disabled).then_some(checked)
    }
}

/// The largest program that an expression of a route may compile to, bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// An expression that fits whole texts only. What admits a route compiles its expressions by this too: so nothing is
/// admitted that a sidecar refuses.
///
/// # Errors
/// What is wrong with the expression.
pub fn whole(expression: &str) -> Result<Regex, regex::Error> {
    let compile = |expression: &str| RegexBuilder::new(expression).size_limit(REGEX_SIZE_LIMIT).build();
    // By itself first: "a)|(?:b" would only be one between the brackets, and out of them.
    compile(expression)?;
    compile(&format!("^(?:{expression})$"))
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
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
        assert_eq!(service.policy, TrafficPolicy::default());
    }

    #[test]
    fn an_expression_fits_whole_texts_and_cannot_leave_its_brackets() {
        let either = whole("a|b").expect("an expression");
        assert!(either.is_match("a") && !either.is_match("ab"));
        for wrong in ["(?x)a # b", "a)|(?:b", "(?:a{1000}){1000}"] {
            assert!(whole(wrong).is_err(), "{wrong}");
        }
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
                backends: vec![wire::Backend { service: "x".into(), port: 0, weight: 1 }],
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

    #[test]
    fn header_changes_in_order() {
        let mut headers = http::HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("b", HeaderValue::from_static("1"));
        let modifier = HeaderModifier {
            remove: vec![HeaderName::from_static("a")],
            set: vec![(HeaderName::from_static("b"), HeaderValue::from_static("2"))],
            add: vec![(HeaderName::from_static("b"), HeaderValue::from_static("3"))],
        };
        modifier.apply(&mut headers);
        assert!(!headers.contains_key("a"));
        assert_eq!(headers.get_all("b").iter().collect::<Vec<_>>(), ["2", "3"]);
    }
}
