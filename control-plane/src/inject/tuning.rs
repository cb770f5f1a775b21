//! What people say about one workload's sidecar: annotations of a pod template, labels of a Compose service.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pillion_api::{model::MAX_WEIGHT, network::Network};

use crate::resource::{Faults, Path, duration, label_key, label_value};

/// As servers take it.
const MAX_ZONE: usize = 63;
/// Before every name.
const PREFIX: &str = "pillion.dev/";
/// Carries what is needed to undo an injection; ours alone.
pub(super) const INJECTED: &str = "pillion.dev/injected";

/// Which names mean something, beyond those that do everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Kubernetes,
    Compose,
}

/// Names that mean something everywhere.
const EVERYWHERE: [&str; 10] = [
    "inject",
    "exclude-inbound-ports",
    "exclude-outbound-ports",
    "exclude-outbound-cidrs",
    "plaintext-ports",
    "redirect-dns",
    "drain-timeout",
    "log-level",
    "weight",
    "zone",
];
const KUBERNETES_ONLY: [&str; 5] = [
    "join-token-secret",
    "proxy-cpu-request",
    "proxy-cpu-limit",
    "proxy-memory-request",
    "proxy-memory-limit",
];
const COMPOSE_ONLY: [&str; 1] = ["labels"];

/// How one workload is treated. Lists are texts as the sidecar takes them, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tuning {
    /// The workload wants no sidecar.
    pub(super) disabled: bool,
    pub(super) exclude_inbound_ports: Option<String>,
    pub(super) exclude_outbound_ports: Option<String>,
    pub(super) exclude_outbound_cidrs: Option<String>,
    pub(super) plaintext_ports: Option<String>,
    pub(super) redirect_dns: bool,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) log_level: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) zone: Option<String>,
    /// A Secret of the same namespace with a join token, in place of the projected service-account token.
    pub(super) join_token_secret: Option<String>,
    /// By Kubernetes' names: `requests` and `limits`, then `cpu` and `memory`.
    pub(super) resources: BTreeMap<(&'static str, &'static str), String>,
    /// The workload's labels, where its definition has none that the mesh could take.
    pub(super) labels: Option<String>,
}

impl Tuning {
    /// Reads what is meant for us among `named` texts, `at` their place in the document.
    pub(super) fn read<'a>(
        named: impl Iterator<Item = (&'a str, Option<String>)>,
        place: Place,
        at: &Path,
        faults: &mut Faults,
    ) -> Self {
        let mut tuning = Self::default();
        for (full, value) in named {
            let Some(name) = full.strip_prefix(PREFIX).filter(|_| full != INJECTED) else { continue };
            let at = at.field(full);
            let further: &[&str] = match place {
                Place::Kubernetes => &KUBERNETES_ONLY,
                Place::Compose => &COMPOSE_ONLY,
            };
            if !EVERYWHERE.contains(&name) && !further.contains(&name) {
                let known = [&EVERYWHERE[..], further].concat().join(", ");
                faults.add(&at, format!("is not known; there are {known}"));
                continue;
            }
            match value {
                Some(value) => {
                    if let Err(message) = tuning.set(name, value.trim()) {
                        faults.add(&at, message);
                    }
                }
                None => faults.add(&at, "must be a text"),
            }
        }
        tuning
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "inject" => {
                self.disabled = match value {
                    "enabled" => false,
                    "disabled" => true,
                    _ => return Err(format!("must be enabled or disabled, is {value:?}")),
                }
            }
            "exclude-inbound-ports" => self.exclude_inbound_ports = Some(checked(value, ports)?),
            "exclude-outbound-ports" => self.exclude_outbound_ports = Some(checked(value, ports)?),
            "exclude-outbound-cidrs" => self.exclude_outbound_cidrs = Some(checked(value, cidr)?),
            "plaintext-ports" => self.plaintext_ports = Some(checked(value, port)?),
            "redirect-dns" => {
                self.redirect_dns =
                    value.parse().map_err(|_| format!("must be true or false, is {value:?}"))?;
            }
            "drain-timeout" => {
                let timeout = duration::parse(value)?;
                if timeout < Duration::from_secs(1) || timeout > Duration::from_secs(24 * 3600) {
                    return Err(format!("must be from 1s to 24h, is {value:?}"));
                }
                self.drain_timeout = Some(timeout);
            }
            "log-level" => {
                value.parse::<tracing_subscriber::filter::Targets>().map_err(|error| {
                    format!("must be a level such as info or debug ({error}), is {value:?}")
                })?;
                self.log_level = Some(value.to_owned());
            }
            "weight" => {
                let weight = value.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
                self.weight =
                    Some(weight.ok_or_else(|| format!("must be from 1 to {MAX_WEIGHT}, is {value:?}"))?);
            }
            "zone" => {
                if value.len() > MAX_ZONE || value.chars().any(char::is_control) {
                    return Err(format!("must be at most {MAX_ZONE} printable characters, is {value:?}"));
                }
                self.zone = Some(value.to_owned());
            }
            "join-token-secret" => {
                crate::resource::dns_subdomain(value)?;
                self.join_token_secret = Some(value.to_owned());
            }
            "labels" => {
                let labels = checked(value, label)?;
                let mut keys = BTreeSet::new();
                let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
                if let Some((twice, _)) = pairs.find(|(key, _)| !keys.insert(*key)) {
                    return Err(format!("has {twice:?} twice"));
                }
                self.labels = Some(labels);
            }
            "proxy-cpu-request" => self.resource("requests", "cpu", value)?,
            "proxy-cpu-limit" => self.resource("limits", "cpu", value)?,
            "proxy-memory-request" => self.resource("requests", "memory", value)?,
            "proxy-memory-limit" => self.resource("limits", "memory", value)?,
            _ => unreachable!("only known names come here"),
        }
        Ok(())
    }

    fn resource(&mut self, kind: &'static str, what: &'static str, value: &str) -> Result<(), String> {
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let units: &[&str] = if what == "cpu" { &["", "m"] } else { &["", "k", "M", "G", "Ki", "Mi", "Gi"] };
        let number = digits.parse::<f64>().is_ok_and(|number| number.is_finite() && number > 0.0);
        if !number || !units.contains(&&value[digits.len()..]) {
            let example = if what == "cpu" { "100m or 1" } else { "64Mi" };
            return Err(format!("must be a quantity of {what} such as {example}, is {value:?}"));
        }
        self.resources.insert((kind, what), value.to_owned());
        Ok(())
    }
}

/// A comma-separated list, without spaces. Every wrong item is named.
fn checked(text: &str, check: fn(&str) -> Result<(), String>) -> Result<String, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let wrong: Vec<String> = items
        .iter()
        .filter_map(|item| check(item).err().map(|message| format!("{item:?} {message}")))
        .collect();
    if items.is_empty() {
        return Err("is empty".into());
    }
    if wrong.is_empty() { Ok(items.join(",")) } else { Err(wrong.join("; ")) }
}

fn port(text: &str) -> Result<(), String> {
    text.parse::<std::num::NonZeroU16>().map(drop).map_err(|_| "is no port".into())
}

/// One, or a range of them.
fn ports(text: &str) -> Result<(), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let numbers = (first.parse::<std::num::NonZeroU16>(), last.parse::<std::num::NonZeroU16>());
    match numbers {
        (Ok(first), Ok(last)) if first <= last => Ok(()),
        _ => Err("is neither a port nor a range such as 8000-8010".into()),
    }
}

fn cidr(text: &str) -> Result<(), String> {
    text.parse::<Network>().map(drop)
}

fn label(text: &str) -> Result<(), String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    label_key(key)?;
    label_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(place: Place, named: &[(&str, &str)]) -> (Tuning, Vec<String>) {
        let mut faults = Faults::default();
        let named = named.iter().map(|(name, value)| (*name, Some((*value).to_owned())));
        let tuning = Tuning::read(named, place, &Path::root(), &mut faults);
        (tuning, faults.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_right() {
        let (tuning, faults) = read(
            Place::Kubernetes,
            &[
                ("example.com/other", "x"),
                ("pillion.dev/inject", "disabled"),
                ("pillion.dev/exclude-inbound-ports", "9090, 9091-9099"),
                ("pillion.dev/exclude-outbound-cidrs", "10.0.0.0/8,fd00::/8"),
                ("pillion.dev/drain-timeout", "1m30s"),
                ("pillion.dev/redirect-dns", "true"),
                ("pillion.dev/log-level", "debug"),
                ("pillion.dev/weight", "50"),
                ("pillion.dev/zone", "eu-1a"),
                ("pillion.dev/proxy-cpu-limit", "1.5"),
                ("pillion.dev/proxy-memory-request", "64Mi"),
                ("pillion.dev/join-token-secret", "pillion-join"),
            ],
        );
        assert_eq!(faults, [""; 0]);
        assert!(tuning.disabled && tuning.redirect_dns);
        assert_eq!(tuning.exclude_inbound_ports.as_deref(), Some("9090,9091-9099"));
        assert_eq!(tuning.drain_timeout, Some(Duration::from_secs(90)));
        assert_eq!((tuning.weight, tuning.zone.as_deref()), (Some(50), Some("eu-1a")));
        assert_eq!(tuning.resources[&("limits", "cpu")], "1.5");
    }

    #[test]
    fn every_fault_by_name() {
        let wrong = [
            ("pillion.dev/inject", "no"),
            ("pillion.dev/injekt", "enabled"),
            ("pillion.dev/exclude-inbound-ports", "0,80,9-8"),
            ("pillion.dev/exclude-outbound-ports", ""),
            ("pillion.dev/exclude-outbound-cidrs", "10.0.0.0/33,10.0.0.1/8"),
            ("pillion.dev/drain-timeout", "10"),
            ("pillion.dev/redirect-dns", "yes"),
            ("pillion.dev/log-level", "pillion=loud"),
            ("pillion.dev/weight", "0"),
            ("pillion.dev/zone", "a\nb"),
            ("pillion.dev/proxy-cpu-limit", "1Gi"),
            ("pillion.dev/proxy-memory-limit", "-1"),
            ("pillion.dev/labels", "app=x"),
        ];
        let (_, faults) = read(Place::Kubernetes, &wrong);
        assert_eq!(faults.len(), wrong.len(), "{faults:#?}");
        for ((name, _), fault) in wrong.iter().zip(&faults) {
            assert!(fault.starts_with(&format!("[{name:?}]: ")), "{fault}");
        }
        assert!(
            faults[4].contains("bits; \"10.0.0.1/8\" 10.0.0.1 is not the first address"),
            "{}",
            faults[4]
        );
        let (tuning, faults) = read(
            Place::Compose,
            &[("pillion.dev/labels", "app=x,version=v2"), ("pillion.dev/proxy-cpu-limit", "1")],
        );
        assert_eq!(tuning.labels.as_deref(), Some("app=x,version=v2"));
        assert_eq!(faults.len(), 1, "what Compose says in other words: {faults:?}");
        for wrong in ["app", "=x", "app=a b", "a b=x", "app=-x", "app=x,app=y"] {
            let (tuning, faults) = read(Place::Compose, &[("pillion.dev/labels", wrong)]);
            assert_eq!((tuning.labels, faults.len()), (None, 1), "{wrong}: {faults:?}");
        }
    }
}
