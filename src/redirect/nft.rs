//! The rules for nftables: one table for IPv4 and IPv6, loaded in one transaction.

use std::fmt::Write as _;

use super::{
    listing::Listing,
    rules::{Chain, Hook, Match, Rule, UDP_IN, UDP_OUT, Verdict, chains},
    settings::Settings,
    tool::{Fault, run},
};

/// What holds the rules, for people.
pub(super) const HOLDER: &str = "nft's table inet pillion";
/// Only removes: `delete` fails where nothing is, so it is made first.
const REMOVE: &str = "add table inet pillion\ndelete table inet pillion\n";
/// As the listing of tables has it.
const TABLE: &str = "table inet pillion";
/// Before -100, where others translate addresses, such as Docker to its own DNS server.
const NAT_PRIORITY: &str = "-110";

/// Loads the rules in place of those that may be there: all of them at one moment, or none.
pub(super) async fn install(settings: &Settings) -> Result<(), Fault> {
    run(&["nft", "-f", "-"], &script(settings)).await.map(drop)
}

/// Removes the rules; gives whether there were any.
pub(super) async fn remove() -> Result<bool, Fault> {
    let there = is_there().await?;
    if there {
        run(&["nft", "-f", "-"], REMOVE).await?;
    }
    Ok(there)
}

/// How the rules that are there differ from what is wanted; `None`: there are none.
pub(super) async fn differences(settings: &Settings) -> Result<Option<Vec<String>>, Fault> {
    if !is_there().await? {
        return Ok(None);
    }
    // Without counts, and with priorities as numbers: as they are written here.
    let list = ["nft", "--stateless", "--numeric-priority", "list", "table", "inet", "pillion"];
    let found = run(&list, "").await?;
    Ok(Some(parse(&found).differences(&parse(&script(settings)))))
}

/// Packets of UDP that have passed by: in and out.
pub(super) async fn udp_passed() -> Result<[u64; 2], Fault> {
    let mut passed = [0; 2];
    for (count, chain) in passed.iter_mut().zip([UDP_IN, UDP_OUT]) {
        *count = packets(&run(&["nft", "list", "chain", "inet", "pillion", chain], "").await?);
    }
    Ok(passed)
}

/// What the counters of a listing have seen.
fn packets(listed: &str) -> u64 {
    let counts = listed.split("counter packets ").skip(1);
    counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

async fn is_there() -> Result<bool, Fault> {
    let tables = run(&["nft", "list", "tables"], "").await?;
    Ok(tables.lines().any(|line| line.trim() == TABLE))
}

/// The whole transaction. The rules are written as nft lists them, so that both can be compared.
pub(super) fn script(settings: &Settings) -> String {
    let mut text = format!("{REMOVE}{TABLE} {{\n");
    for Chain { name, hook, rules } in chains(settings) {
        let hook = match hook {
            Hook::NatOutput => format!("type nat hook output priority {NAT_PRIORITY}"),
            Hook::NatPrerouting => format!("type nat hook prerouting priority {NAT_PRIORITY}"),
            Hook::FilterInput => "type filter hook input priority 0".into(),
            Hook::FilterOutput => "type filter hook output priority 0".into(),
        };
        let _ = writeln!(text, "\tchain {name} {{\n\t\t{hook}; policy accept;");
        let mut why = "";
        for rule in &rules {
            if rule.why != why {
                why = rule.why;
                let _ = writeln!(text, "\t\t# {why}");
            }
            let _ = writeln!(text, "\t\t{}", line(rule));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

fn line(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(match_words).collect();
    words.push(match rule.verdict {
        Verdict::Leave => "return".into(),
        Verdict::Redirect(port) => format!("counter redirect to :{port}"),
        Verdict::Drop => "counter drop".into(),
        Verdict::Count => "counter".into(),
    });
    words.join(" ")
}

fn match_words(part: &Match) -> String {
    match part {
        Match::To(network) => {
            let (family, protocol) = if network.first.is_ipv6() { ("ip6", "ipv6") } else { ("ip", "ipv4") };
            match network.bits {
                0 => format!("meta nfproto {protocol}"),
                _ if network.is_host() => format!("{family} daddr {}", network.first),
                _ => format!("{family} daddr {network}"),
            }
        }
        Match::FromLoopback => "iifname \"lo\"".into(),
        Match::ToLoopback => "oifname \"lo\"".into(),
        Match::ToOthers => "fib daddr type != local".into(),
        Match::Tcp => "meta l4proto tcp".into(),
        Match::Udp => "meta l4proto udp".into(),
        Match::TcpPort(ports) => format!("tcp dport {}", ports.written("-")),
        Match::UdpPort(ports) => format!("udp dport {}", ports.written("-")),
        Match::User(uid) => format!("meta skuid {uid}"),
        Match::Invalid => "ct state invalid".into(),
    }
}

/// Reads what nft lists, and what it is given.
fn parse(text: &str) -> Listing {
    let (mut listing, mut chain) = (Listing::default(), None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
            listing.chain(name);
            chain = Some(name);
        } else if line == "}" {
            chain = None;
        } else if let Some(chain) = chain {
            // Without /etc/protocols, as in small images, nft knows no protocol's name.
            listing.chain(chain).push(
                line.replace("meta l4proto 6 ", "meta l4proto tcp ")
                    .replace("meta l4proto 17 ", "meta l4proto udp "),
            );
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::settings::{Raw, check};

    fn settings(raw: Raw) -> Settings {
        check(raw).expect("valid").0
    }

    #[test]
    fn by_default_everything_is_redirected_but_the_sidecar_and_loopback() {
        assert_eq!(script(&settings(Raw::default())), include_str!("snapshots/default.nft"));
    }

    #[test]
    fn every_setting_is_seen() {
        assert_eq!(script(&settings(Raw::everything())), include_str!("snapshots/everything.nft"));
    }

    #[test]
    fn counts_are_read_from_a_listing() {
        let listed = "table inet pillion {\n\tchain udp_in {\n\t\tiifname \"lo\" return\n\t\t\
                      meta l4proto udp counter packets 12 bytes 345\n\t}\n}\n";
        assert_eq!(packets(listed), 12);
        assert_eq!(packets(""), 0);
    }

    #[test]
    fn a_listing_equals_what_was_loaded() {
        let script = script(&settings(Raw::default()));
        let listed =
            script.replace(REMOVE, "").replace("meta l4proto tcp", "meta l4proto 6").replace("\t\t#", "#");
        let listed = listed.replace("meta l4proto udp", "meta l4proto 17");
        assert_eq!(parse(&listed), parse(&script));
        let missing = Listing::default().differences(&parse(&script));
        let chains = ["inbound", "invalid_in", "invalid_out", "outbound", "udp_in", "udp_out"];
        assert_eq!(missing, chains.map(|chain| format!("chain {chain} is missing")));
        let altered = listed.replace("skuid 15000", "skuid 0");
        assert_eq!(
            parse(&altered).differences(&parse(&script)),
            [
                "chain outbound lacks `meta skuid 15000 return`",
                "chain outbound has `meta skuid 0 return`, which is not asked for"
            ]
        );
    }
}
