//! From [`Raw`] to [`Config`]: parses every field, fills in defaults, reports every fault.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    str::FromStr,
    time::Duration,
};

use pillion_api::{
    model::{MAX_WEIGHT, USUAL_WEIGHT},
    name::{is_label, is_label_key, is_label_value, is_port_name},
};

use super::{AppPort, Config, HealthCheck, JoinToken, Listener, Probe, raw::Raw, tracing::OwnTracing};
use crate::telemetry::{
    access_log::Choice,
    log::{self, Format},
};

/// The longest zone, as control planes take it.
const MAX_ZONE: usize = 63;
/// The longest of any setting.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Every fault of the settings, each with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

/// Merges flags and environment over a file, and checks the whole. `host` is this host's name.
///
/// # Errors
/// All faults together.
pub fn load(given: Raw, file: Option<&Path>, host: &str) -> Result<Config, Faults> {
    match read(file) {
        Ok(under) => check(given.over(under), host),
        Err(fault) => {
            let more = check(given, host).err().map(|faults| faults.0).unwrap_or_default();
            Err(Faults([vec![fault], more].concat()))
        }
    }
}

/// Settings as a file has them, none without a file.
///
/// # Errors
/// Why it cannot be read, with its name.
pub fn read(file: Option<&Path>) -> Result<Raw, String> {
    let Some(path) = file else { return Ok(Raw::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| Raw::from_yaml(&text)).map_err(|error| format!("{}: {error}", path.display()))
}

/// Checks settings.
///
/// # Errors
/// All faults together.
pub fn check(raw: Raw, host: &str) -> Result<Config, Faults> {
    let mut c = Checker::default();
    let tracing = OwnTracing::check(&mut c, &raw);
    let workload =
        raw.workload.unwrap_or_else(|| host.split('.').next().unwrap_or(host).to_ascii_lowercase());
    if !is_label(&workload) {
        c.say("workload", format_args!("{workload:?} is no DNS label (1 to 63 of a-z, 0-9 and -)"));
    }
    let labels = c.labels(raw.labels.as_deref());
    let ports = c.ports(raw.ports.as_deref());
    let listeners = c.listeners(raw.listeners.as_deref());
    let redirected = c.parse("redirected", raw.redirected, false);
    let split_latency = c.parse("splitLatency", raw.split_latency, true);
    let dns_listen = raw.dns_listen.and_then(|text| c.value("dnsListen", &text));
    let plaintext_ports = items(raw.plaintext_ports.as_deref())
        .filter_map(|item| c.value::<std::num::NonZeroU16>("plaintextPorts", item))
        .map(std::num::NonZeroU16::get)
        .collect();
    let probes = c.probes(raw.probes.as_deref());
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let inbound_listen = c.parse("inboundListen", raw.inbound_listen, SocketAddr::new(any, 15006));
    let outbound_listen = c.parse("outboundListen", raw.outbound_listen, SocketAddr::new(loopback, 15001));
    let admin_listen = c.parse("adminListen", raw.admin_listen, SocketAddr::new(loopback, 15020));
    if !outbound_listen.ip().is_loopback() {
        // Whoever reaches it speaks with this workload's identity.
        c.say("outboundListen", format_args!("{outbound_listen} is not a loopback address"));
    }
    if let Some(open) = dns_listen.filter(|listen: &SocketAddr| !listen.ip().is_loopback()) {
        // Nobody else is to be told, nor anything to be looked up for others.
        c.say("dnsListen", format_args!("{open} is not a loopback address"));
    }
    let advertise = raw.advertise.and_then(|text| c.value("advertise", &text));
    let control_plane = raw.control_plane.unwrap_or_else(|| "127.0.0.1:15010".into());
    let port =
        control_plane.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    if !matches!(port, Some((host, 1..)) if !host.is_empty()) {
        c.say("controlPlane", format_args!("{control_plane:?} is not HOST:PORT"));
    }
    let join_token = match (raw.join_token, raw.join_token_file) {
        (Some(_), Some(_)) => {
            c.say("joinToken", "and joinTokenFile exclude each other");
            None
        }
        (Some(token), None) => Some(JoinToken::Text(token.trim().to_owned())),
        (None, Some(file)) => Some(JoinToken::File(file)),
        (None, None) => {
            c.say("joinToken", "or joinTokenFile is needed: `pillion token create` makes one");
            None
        }
    };
    let health = c.health(raw.health.as_deref());
    let drain_timeout = c.duration("drainTimeout", raw.drain_timeout, Duration::from_secs(30));
    let discovery_timeout = c.duration("discoveryTimeout", raw.discovery_timeout, Duration::from_secs(5));
    let detection_timeout = c.duration("detectionTimeout", raw.detection_timeout, Duration::from_secs(5));
    let max_connections = c.count("maxConnections", raw.max_connections, 16384);
    let workers = c.count("workers", raw.workers, 1);
    let zone = raw.zone.unwrap_or_default();
    if zone.len() > MAX_ZONE || zone.chars().any(char::is_control) {
        c.say("zone", format_args!("{zone:?} is not at most {MAX_ZONE} printable characters"));
    }
    let weight = c.parse("weight", raw.weight, USUAL_WEIGHT);
    if !(1..=MAX_WEIGHT).contains(&weight) {
        c.say("weight", format_args!("{weight} is not between 1 and {MAX_WEIGHT}"));
    }
    let access_log = raw.access_log.and_then(|text| c.value::<Choice>("accessLog", &text));
    let log_format = match raw.log_format.as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            c.say("logFormat", format_args!("{other:?} is neither text nor json"));
            Format::Text
        }
    };
    let log_level = raw.log_level.unwrap_or_else(|| "info".into());
    if let Err(error) = log::parse(&log_level) {
        c.say("logLevel", error);
    }
    match join_token {
        Some(join_token) if c.0.is_empty() => Ok(Config {
            workload,
            labels,
            ports,
            inbound_listen,
            advertise,
            outbound_listen,
            admin_listen,
            listeners,
            redirected,
            split_latency,
            dns_listen,
            plaintext_ports,
            probes,
            control_plane,
            join_token,
            health,
            addresses_file: raw.addresses_file,
            drain_timeout,
            discovery_timeout,
            detection_timeout,
            max_connections,
            workers,
            zone,
            weight,
            access_log,
            access_log_file: raw.access_log_file,
            tracing,
            log_format,
            log_level,
        }),
        _ => Err(Faults(c.0)),
    }
}

#[derive(Default)]
pub(super) struct Checker(Vec<String>);

impl Checker {
    pub(super) fn say(&mut self, field: &str, what: impl Display) {
        self.0.push(format!("{field}: {what}"));
    }

    fn value<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.trim().parse().map_err(|error| self.say(field, format_args!("{text:?}: {error}"))).ok()
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: Option<String>, default: T) -> T {
        match text {
            Some(text) => self.value(field, &text).unwrap_or(default),
            None => default,
        }
    }

    fn count(&mut self, field: &str, text: Option<String>, default: usize) -> usize {
        let count = self.parse(field, text, default);
        if count == 0 {
            self.say(field, "must be at least 1");
        }
        count
    }

    fn duration(&mut self, field: &str, text: Option<String>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        duration(&text).filter(|duration| *duration <= LONGEST).unwrap_or_else(|| {
            let form = "is no duration of up to a day such as 500ms, 10s, 1m30s or 2h";
            self.say(field, format_args!("{text:?} {form}"));
            default
        })
    }

    fn labels(&mut self, text: Option<&str>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for pair in items(text) {
            match pair.split_once('=') {
                Some((key, value)) => {
                    if !is_label_key(key) {
                        self.say(
                            "labels",
                            format_args!("{key:?} in {pair:?} is no label's key (as Kubernetes has them)"),
                        );
                    }
                    if !is_label_value(value) {
                        let what = "is no label's value (up to 63 letters, digits, '-', '_' and '.')";
                        self.say("labels", format_args!("{value:?} in {pair:?} {what}"));
                    }
                    if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                        self.say("labels", format_args!("{key:?} twice"));
                    }
                }
                None => self.say("labels", format_args!("{pair:?} is not KEY=VALUE")),
            }
        }
        labels
    }

    fn ports(&mut self, text: Option<&str>) -> Vec<AppPort> {
        let mut ports: Vec<AppPort> = Vec::new();
        for item in items(text) {
            let (name, address) = match item.split_once('=') {
                Some((name, address)) => (name, Some(address)),
                None => (item, None),
            };
            let (number, name) = name.split_once(':').unwrap_or((name, ""));
            let Some(port) = number.parse::<u16>().ok().filter(|port| *port != 0) else {
                self.say("ports", format_args!("{number:?} in {item:?} is no port"));
                continue;
            };
            let default = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            let address = self.parse("ports", address.map(str::to_owned), default);
            if ports.iter().any(|known| known.port == port) {
                self.say("ports", format_args!("{port} twice"));
            }
            if !name.is_empty() && !is_port_name(name) {
                let form = "is no port's name (RFC 6335: 1 to 15 of a-z, 0-9 and -, with a letter)";
                self.say("ports", format_args!("{name:?} in {item:?} {form}"));
            } else if !name.is_empty() && ports.iter().any(|known| known.name == name) {
                self.say("ports", format_args!("the name {name:?} twice"));
            }
            ports.push(AppPort { port, address, name: name.to_owned() });
        }
        ports
    }

    fn probes(&mut self, text: Option<&str>) -> Vec<Probe> {
        let mut probes = Vec::new();
        for item in items(text) {
            let (port, path) = item.split_at(item.find('/').unwrap_or(item.len()));
            match port.parse::<std::num::NonZeroU16>() {
                Ok(port) if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    probes.push(Probe { port: port.get(), path: path.to_owned() });
                }
                _ => self.say("probes", format_args!("{item:?} is not PORT/PATH, such as 8080/healthz")),
            }
        }
        probes
    }

    fn listeners(&mut self, text: Option<&str>) -> Vec<Listener> {
        let mut listeners = Vec::new();
        for item in items(text) {
            let parts = item.split_once('=').and_then(|(listen, target)| {
                let (service, port) = target.rsplit_once(':')?;
                Some((listen, service, port))
            });
            let Some((listen, service, port)) = parts else {
                self.say("listeners", format_args!("{item:?} is not ADDRESS=SERVICE.NAMESPACE:PORT"));
                continue;
            };
            let listen = self.value("listeners", listen);
            let service = self.value("listeners", service);
            let port = self.value::<std::num::NonZeroU16>("listeners", port);
            if let Some(open) = listen.filter(|listen: &SocketAddr| !listen.ip().is_loopback()) {
                // Whoever reaches it speaks with this workload's identity.
                self.say("listeners", format_args!("{open} is not a loopback address"));
            }
            if let (Some(listen), Some(service), Some(port)) = (listen, service, port) {
                listeners.push(Listener { listen, service, port: port.get() });
            }
        }
        listeners
    }

    fn health(&mut self, text: Option<&str>) -> Option<HealthCheck> {
        let text = text?;
        match text.split_once("://") {
            None if text == "none" => Some(HealthCheck::None),
            Some(("tcp", address)) => self.value("health", address).map(HealthCheck::Tcp),
            Some(("http", rest)) => {
                let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let path = if path.is_empty() { "/" } else { path }.to_owned();
                if path.parse::<http::uri::PathAndQuery>().is_err() {
                    self.say("health", format_args!("{path:?} is no path"));
                }
                self.value("health", address).map(|address| HealthCheck::Http { address, path })
            }
            Some(("grpc", rest)) => {
                let (address, service) = rest.split_once('/').unwrap_or((rest, ""));
                let service = service.to_owned();
                self.value("health", address).map(|address| HealthCheck::Grpc { address, service })
            }
            _ => {
                let kinds = "http://ADDRESS/PATH, grpc://ADDRESS/SERVICE, tcp://ADDRESS, none";
                self.say("health", format_args!("{text:?} is none of {kinds}"));
                None
            }
        }
    }
}

fn items(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A duration in the Gateway API's format (GEP-2257): `1h30m`, `10s`, `500ms`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (unit, left) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        total = total.checked_add(match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        })?;
        rest = left;
    }
    (total > Duration::ZERO).then_some(total)
}

#[cfg(test)]
mod tests;
