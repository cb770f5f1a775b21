//! What `redirect` is told: flags and environment as text → [`Settings`] (typed, every fault reported at once).

use std::{fmt::Display, str::FromStr};

use clap::Args;
use pillion_api::network::Network;

/// As written. Flags win over the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct Raw {
    /// Change nothing; fail, with a list of all differences, unless the rules are there exactly as asked
    #[arg(long, conflicts_with_all = ["remove", "dry_run"])]
    check: bool,
    /// Remove the rules
    #[arg(long, conflicts_with = "dry_run")]
    remove: bool,
    /// Print the rules that would be loaded; needs no privileges
    #[arg(long)]
    dry_run: bool,
    /// What holds the rules: auto, nft or iptables; auto takes iptables where nft does not work [default: auto]
    #[arg(long, env = "PILLION_REDIRECT_BACKEND", value_name = "BACKEND")]
    backend: Option<String>,
    /// The user that the sidecar runs as, whose traffic is left alone [default: 15000]
    #[arg(long, env = "PILLION_PROXY_UID", value_name = "UID")]
    proxy_uid: Option<String>,
    /// The sidecar's inbound port [default: 15006]
    #[arg(long, env = "PILLION_REDIRECT_INBOUND_PORT", value_name = "PORT")]
    inbound_port: Option<String>,
    /// The sidecar's outbound port [default: 15001]
    #[arg(long, env = "PILLION_REDIRECT_OUTBOUND_PORT", value_name = "PORT")]
    outbound_port: Option<String>,
    /// The sidecar's admin port, never redirected [default: 15020]
    #[arg(long, env = "PILLION_REDIRECT_ADMIN_PORT", value_name = "PORT")]
    admin_port: Option<String>,
    /// The sidecar's DNS port [default: 15053]
    #[arg(long, env = "PILLION_REDIRECT_DNS_PORT", value_name = "PORT")]
    dns_port: Option<String>,
    /// Redirect port 53, UDP and TCP, to the sidecar's DNS port, whatever the server [default: false]
    #[arg(long, env = "PILLION_REDIRECT_DNS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    redirect_dns: Option<String>,
    /// Redirect connections that arrive at these ports only: PORT or FIRST-LAST, comma-separated [default: all]
    #[arg(long, env = "PILLION_REDIRECT_INCLUDE_INBOUND_PORTS", value_name = "PORTS")]
    include_inbound_ports: Option<String>,
    /// Leave connections alone that arrive at these ports
    #[arg(long, env = "PILLION_REDIRECT_EXCLUDE_INBOUND_PORTS", value_name = "PORTS")]
    exclude_inbound_ports: Option<String>,
    /// Redirect connections to these ports only, of the included networks [default: all]
    #[arg(long, env = "PILLION_REDIRECT_INCLUDE_OUTBOUND_PORTS", value_name = "PORTS")]
    include_outbound_ports: Option<String>,
    /// Leave connections to these ports alone
    #[arg(long, env = "PILLION_REDIRECT_EXCLUDE_OUTBOUND_PORTS", value_name = "PORTS")]
    exclude_outbound_ports: Option<String>,
    /// Redirect connections to these networks only: ADDRESS/BITS, comma-separated, IPv4 and IPv6 [default: all]
    #[arg(long, env = "PILLION_REDIRECT_INCLUDE_OUTBOUND_CIDRS", value_name = "CIDRS")]
    include_outbound_cidrs: Option<String>,
    /// Leave connections to these networks alone
    #[arg(long, env = "PILLION_REDIRECT_EXCLUDE_OUTBOUND_CIDRS", value_name = "CIDRS")]
    exclude_outbound_cidrs: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Load the rules.
    Install,
    /// Compare them with what is there.
    Check,
    /// Remove them.
    Remove,
    /// Print them.
    DryRun,
}

/// What holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// nftables, else iptables.
    Auto,
    /// nftables.
    Nft,
    /// iptables.
    Iptables,
}

/// Complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) backend: Backend,
    pub(super) proxy_uid: u32,
    pub(super) inbound_port: u16,
    pub(super) outbound_port: u16,
    pub(super) admin_port: u16,
    pub(super) dns_port: u16,
    pub(super) redirect_dns: bool,
    /// Empty: all.
    pub(super) include_inbound_ports: Vec<Ports>,
    pub(super) exclude_inbound_ports: Vec<Ports>,
    /// Empty: all.
    pub(super) include_outbound_ports: Vec<Ports>,
    pub(super) exclude_outbound_ports: Vec<Ports>,
    /// Empty: all.
    pub(super) include_outbound_cidrs: Vec<Network>,
    pub(super) exclude_outbound_cidrs: Vec<Network>,
}

/// Ports in a row, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    first: u16,
    last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl Ports {
    /// `8080`, or `8080-8090` with that between them.
    pub(super) fn written(self, between: &str) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}{between}{}", self.first, self.last)
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err("is neither PORT nor FIRST-LAST, from 1 to 65535".into()),
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "nft" => Ok(Self::Nft),
            "iptables" => Ok(Self::Iptables),
            _ => Err("is none of auto, nft, iptables".into()),
        }
    }
}

/// Parses every field and fills in defaults.
///
/// # Errors
/// All faults together.
pub(super) fn check(raw: Raw) -> Result<(Settings, Task), Vec<String>> {
    let task = match (raw.check, raw.remove, raw.dry_run) {
        (true, ..) => Task::Check,
        (_, true, _) => Task::Remove,
        (.., true) => Task::DryRun,
        _ => Task::Install,
    };
    let mut c = Checker(Vec::new());
    let settings = Settings {
        backend: c.value("--backend", raw.backend).unwrap_or(Backend::Auto),
        proxy_uid: c.value("--proxy-uid", raw.proxy_uid).unwrap_or(15000),
        inbound_port: c.port("--inbound-port", raw.inbound_port, 15006),
        outbound_port: c.port("--outbound-port", raw.outbound_port, 15001),
        admin_port: c.port("--admin-port", raw.admin_port, 15020),
        dns_port: c.port("--dns-port", raw.dns_port, 15053),
        redirect_dns: c.value("--redirect-dns", raw.redirect_dns).unwrap_or(false),
        include_inbound_ports: c.list("--include-inbound-ports", raw.include_inbound_ports),
        exclude_inbound_ports: c.list("--exclude-inbound-ports", raw.exclude_inbound_ports),
        include_outbound_ports: c.list("--include-outbound-ports", raw.include_outbound_ports),
        exclude_outbound_ports: c.list("--exclude-outbound-ports", raw.exclude_outbound_ports),
        include_outbound_cidrs: c.list("--include-outbound-cidrs", raw.include_outbound_cidrs),
        exclude_outbound_cidrs: c.list("--exclude-outbound-cidrs", raw.exclude_outbound_cidrs),
    };
    let ports = [
        ("--inbound-port", settings.inbound_port),
        ("--outbound-port", settings.outbound_port),
        ("--admin-port", settings.admin_port),
        ("--dns-port", settings.dns_port),
    ];
    for (index, (flag, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..index].iter().find(|(_, other)| other == port) {
            c.0.push(format!("{flag}: {port} is {other}, too"));
        }
    }
    if c.0.is_empty() { Ok((settings, task)) } else { Err(c.0) }
}

struct Checker(Vec<String>);

impl Checker {
    fn value<T: FromStr<Err: Display>>(&mut self, flag: &str, text: Option<String>) -> Option<T> {
        // An empty variable of the environment is one that is not set.
        let text = text.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
        text.parse().map_err(|error| self.0.push(format!("{flag}: {text:?}: {error}"))).ok()
    }

    fn port(&mut self, flag: &str, text: Option<String>, default: u16) -> u16 {
        self.value::<std::num::NonZeroU16>(flag, text).map_or(default, std::num::NonZeroU16::get)
    }

    fn list<T: FromStr<Err: Display>>(&mut self, flag: &str, text: Option<String>) -> Vec<T> {
        let text = text.unwrap_or_default();
        text.split(',').filter_map(|item| self.value(flag, Some(item.to_owned()))).collect()
    }
}

#[cfg(test)]
impl Raw {
    /// With every setting other than its default.
    pub(super) fn everything() -> Self {
        let text = |text: &str| Some(text.to_owned());
        Self {
            proxy_uid: text("1337"),
            inbound_port: text("25006"),
            outbound_port: text("25001"),
            admin_port: text("25020"),
            dns_port: text("25053"),
            redirect_dns: text("true"),
            include_inbound_ports: text("80,8000-8999"),
            exclude_inbound_ports: text("8500"),
            include_outbound_ports: text("80, 443"),
            exclude_outbound_ports: text("25,3306-3307"),
            include_outbound_cidrs: text("10.0.0.0/8,::/0"),
            exclude_outbound_cidrs: text("169.254.169.254/32,2001:db8::/32"),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let (settings, task) = check(Raw::default()).expect("valid");
        assert_eq!((settings.backend, task), (Backend::Auto, Task::Install));
        assert_eq!((settings.proxy_uid, settings.redirect_dns), (15000, false));
        assert_eq!(check(Raw { remove: true, ..Raw::default() }).expect("valid").1, Task::Remove);
        let empty = Raw { backend: Some(String::new()), dns_port: Some(" ".into()), ..Raw::default() };
        assert_eq!(check(empty).expect("valid").0, settings);
    }

    #[test]
    fn every_fault_is_reported() {
        let text = |text: &str| Some(text.to_owned());
        let raw = Raw {
            backend: text("ebpf"),
            proxy_uid: text("-1"),
            inbound_port: text("0"),
            outbound_port: text("15020"),
            redirect_dns: text("perhaps"),
            include_inbound_ports: text("9-8,0,1-2-3,65536"),
            exclude_outbound_cidrs: text("10.0.0.0,10.0.0.0/33,10.0.0.1/8,x/1,2001:db8::1/64"),
            ..Raw::default()
        };
        let faults = check(raw).expect_err("faults");
        assert_eq!(faults.len(), 4 + 4 + 5 + 1, "{faults:#?}");
        assert!(faults.contains(&"--admin-port: 15020 is --outbound-port, too".to_owned()), "{faults:#?}");
        let bits = "--exclude-outbound-cidrs: \"10.0.0.1/8\": 10.0.0.1 is not the first address of its network of 8 bits";
        assert!(faults.iter().any(|fault| fault == bits), "{faults:#?}");
    }
}
