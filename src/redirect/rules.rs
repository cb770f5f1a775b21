//! What is wanted, as chains of rules that every backend can write: who is left alone, who is redirected, what is dropped.

use std::net::IpAddr;

use pillion_api::network::Network;

use super::settings::{Ports, Settings};
use crate::net::self_test;

/// A chain, called at one hook of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// For the first packet of each connection that a process here opens.
    NatOutput,
    /// For the first packet of each connection that arrives.
    NatPrerouting,
    /// For each packet to a process here.
    FilterInput,
    /// For each packet of a process here.
    FilterOutput,
}

/// The first rule whose every match holds decides; past the last, traffic goes on untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
    /// For whoever reads the rules.
    pub(super) why: &'static str,
}

/// What must hold. In a rule they stand in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// The destination is of a network.
    To(Network),
    /// It arrives through the loopback interface.
    FromLoopback,
    /// It leaves through the loopback interface, as does what is sent to an address of this namespace.
    ToLoopback,
    /// The destination is no address of this namespace: the packet is passing through.
    ToOthers,
    /// It is TCP.
    Tcp,
    /// It is TCP to these ports.
    TcpPort(Ports),
    /// It is UDP.
    Udp,
    /// It is UDP to these ports.
    UdpPort(Ports),
    /// The sending process runs as this user.
    User(u32),
    /// Connection tracking cannot make sense of it.
    Invalid,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on untouched.
    Leave,
    /// It goes to this port here.
    Redirect(u16),
    /// It goes nowhere.
    Drop,
    /// It is counted, and goes on.
    Count,
}

impl Rule {
    /// Whether it is for IPv6 only, or IPv4 only; `None`: for both.
    pub(super) fn is_ipv6(&self) -> Option<bool> {
        self.matches.iter().find_map(|part| match part {
            Match::To(network) => Some(network.first.is_ipv6()),
            _ => None,
        })
    }
}

/// Every chain.
pub(super) fn chains(settings: &Settings) -> [Chain; 6] {
    let udp = |inside: &[Match]| {
        let inside = inside.iter().map(|inside| rule([*inside], Verdict::Leave, "what stays inside"));
        inside.chain([rule([Match::Udp], Verdict::Count, UDP)]).collect()
    };
    // What has been redirected is on its way to loopback by its address only.
    let [v4, v6] = LOOPBACK.map(Match::To);
    let invalid =
        || vec![rule([Match::Tcp, Match::Invalid], Verdict::Drop, "a stray packet ends no connection")];
    [
        Chain { name: "outbound", hook: Hook::NatOutput, rules: outbound(settings) },
        Chain { name: "inbound", hook: Hook::NatPrerouting, rules: inbound(settings) },
        Chain { name: "invalid_in", hook: Hook::FilterInput, rules: invalid() },
        Chain { name: "invalid_out", hook: Hook::FilterOutput, rules: invalid() },
        Chain { name: UDP_IN, hook: Hook::FilterInput, rules: udp(&[Match::FromLoopback]) },
        Chain { name: UDP_OUT, hook: Hook::FilterOutput, rules: udp(&[Match::ToLoopback, v4, v6]) },
    ]
}

/// What processes here open. UDP passes by, and is counted elsewhere, but for DNS where that is wanted.
fn outbound(settings: &Settings) -> Vec<Rule> {
    let to_sidecar = Verdict::Redirect(settings.outbound_port);
    let mut rules = Vec::new();
    for address in self_test::ADDRESSES {
        let port = Match::TcpPort(address.port().into());
        // Before all others: the sidecar itself uses it.
        rules.push(rule(
            [Match::To(Network::host(address.ip())), port],
            to_sidecar,
            "the sidecar's test of its redirection",
        ));
    }
    rules.push(rule([Match::User(settings.proxy_uid)], Verdict::Leave, "the sidecar itself"));
    for address in self_test::EXEMPT {
        let port = Match::TcpPort(address.port().into());
        rules.push(rule(
            [Match::To(Network::host(address.ip())), port],
            to_sidecar,
            "the sidecar's test that it is of that user",
        ));
    }
    if settings.redirect_dns {
        // Before loopback is left alone: many resolvers listen there.
        let (why, to_dns) = ("host names", Verdict::Redirect(settings.dns_port));
        rules.push(rule([Match::UdpPort(DNS.into())], to_dns, why));
        rules.push(rule([Match::TcpPort(DNS.into())], to_dns, why));
    }
    rules.push(rule([Match::ToLoopback], Verdict::Leave, "what stays inside, also by an address of its own"));
    for loopback in LOOPBACK {
        rules.push(rule([Match::To(loopback)], Verdict::Leave, "loopback"));
    }
    for ports in &settings.exclude_outbound_ports {
        rules.push(rule([Match::TcpPort(*ports)], Verdict::Leave, "excluded port"));
    }
    for network in &settings.exclude_outbound_cidrs {
        rules.push(rule([Match::To(*network)], Verdict::Leave, "excluded network"));
    }
    let networks: Vec<Option<Match>> =
        all_or(&settings.include_outbound_cidrs, |network| Match::To(*network));
    for network in networks {
        for port in ports_or_all(&settings.include_outbound_ports) {
            rules.push(rule(
                network.into_iter().chain([port]),
                to_sidecar,
                "everything else that is included",
            ));
        }
    }
    rules
}

/// What arrives from elsewhere.
fn inbound(settings: &Settings) -> Vec<Rule> {
    let mut rules = vec![
        rule([Match::FromLoopback], Verdict::Leave, "what stays inside"),
        rule([Match::ToOthers], Verdict::Leave, "what is only passing through"),
    ];
    let own = [
        (settings.inbound_port, "other sidecars connect to it themselves"),
        // Outsiders must not come to speak with the workload's identity, not even by a detour.
        (settings.outbound_port, "for this workload alone"),
        (settings.admin_port, "operators and probes"),
        (settings.dns_port, "for this workload alone"),
    ];
    for (port, why) in own {
        rules.push(rule([Match::TcpPort(port.into())], Verdict::Leave, why));
    }
    for ports in &settings.exclude_inbound_ports {
        rules.push(rule([Match::TcpPort(*ports)], Verdict::Leave, "excluded port"));
    }
    for port in ports_or_all(&settings.include_inbound_ports) {
        let to_sidecar = Verdict::Redirect(settings.inbound_port);
        rules.push(rule([port], to_sidecar, "everything else that is included"));
    }
    rules
}

/// The chains that count what passes by.
pub(super) const UDP_IN: &str = "udp_in";
pub(super) const UDP_OUT: &str = "udp_out";
/// Why there are these chains.
const UDP: &str = "UDP passes by the sidecar, counted";

/// Where names are looked up.
const DNS: u16 = 53;

/// Never leaves the namespace, whatever the interface.
const LOOPBACK: [Network; 2] = [
    Network { first: IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
    Network { first: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), bits: 128 },
];

fn rule(matches: impl IntoIterator<Item = Match>, verdict: Verdict, why: &'static str) -> Rule {
    Rule { matches: matches.into_iter().collect(), verdict, why }
}

/// One match for each item; with none, one for all.
fn all_or<T>(items: &[T], one: impl Fn(&T) -> Match) -> Vec<Option<Match>> {
    if items.is_empty() { vec![None] } else { items.iter().map(|item| Some(one(item))).collect() }
}

fn ports_or_all(ports: &[Ports]) -> impl Iterator<Item = Match> {
    all_or(ports, |ports| Match::TcpPort(*ports)).into_iter().map(|port| port.unwrap_or(Match::Tcp))
}
