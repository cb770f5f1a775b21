//! The rules for iptables and ip6tables: chains of our own, called first by the system's; each table is loaded in one step.

use std::fmt::Write as _;

use super::{
    listing::Listing,
    rules::{Chain, Hook, Match, Rule, UDP_IN, UDP_OUT, Verdict, chains},
    settings::Settings,
    tool::{Fault, run},
};

/// What holds the rules, for people.
pub(super) const HOLDER: &str = "iptables' chains PILLION_*";
/// Of the names of all chains of ours, also of other releases.
const PREFIX: &str = "PILLION_";

/// One of the two programs that there are of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// What holds, as text.
    async fn save(self) -> Result<Saved, Fault> {
        let program = if self == Self::Ipv6 { "ip6tables-save" } else { "iptables-save" };
        run(&[program], "").await.map(|text| Saved::parse(&text))
    }

    async fn restore(self, script: &str) -> Result<(), Fault> {
        let program = if self == Self::Ipv6 { "ip6tables-restore" } else { "iptables-restore" };
        // Other programs may hold the lock for a moment.
        run(&[program, "--noflush", "-w", "5"], script).await.map(drop)
    }

    /// Whether a fault with it is none, because there is no such traffic.
    fn is_absent(self) -> bool {
        self == Self::Ipv6
            && std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
                .map_or(true, |disabled| disabled.trim() != "0")
    }
}

/// Loads the rules in place of those that may be there; gives what there is to say.
pub(super) async fn install(settings: &Settings) -> Result<String, Fault> {
    let mut said = "redirected by iptables".to_owned();
    for family in Family::BOTH {
        let loaded = async { family.restore(&script(settings, family, &family.save().await?)).await };
        match loaded.await {
            Ok(()) => {}
            Err(fault) if family.is_absent() => {
                let _ = write!(
                    said,
                    ", {} only: there is no {} here ({fault})",
                    Family::Ipv4.name(),
                    family.name()
                );
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(said)
}

/// Removes the rules; gives the chains that there were, in words.
pub(super) async fn remove() -> Result<Vec<String>, Fault> {
    let mut removed = Vec::new();
    for family in Family::BOTH {
        let found = match family.save().await {
            Ok(found) => found,
            Err(_) if family.is_absent() => continue,
            Err(fault) => return Err(fault),
        };
        if found.is_empty() {
            continue;
        }
        family.restore(&found.removal()).await?;
        removed.push(format!("{HOLDER} ({})", family.name()));
    }
    Ok(removed)
}

/// How the rules that are there differ from what is wanted; `None`: there are none.
pub(super) async fn differences(settings: &Settings) -> Result<Option<Vec<String>>, Fault> {
    let (mut differences, mut any) = (Vec::new(), false);
    for family in Family::BOTH {
        let found = match family.save().await {
            Ok(found) => found,
            Err(_) if family.is_absent() => continue,
            Err(fault) => return Err(fault),
        };
        any |= !found.is_empty();
        let wanted = Saved::parse(&script(settings, family, &Saved::default()));
        let all = found.listing().differences(&wanted.listing());
        if !(found.is_empty() && family.is_absent()) {
            differences.extend(all.into_iter().map(|difference| format!("{}: {difference}", family.name())));
        }
    }
    Ok(any.then_some(differences))
}

/// Packets of UDP that have passed by: in and out, of both families.
pub(super) async fn udp_passed() -> Result<[u64; 2], Fault> {
    let mut passed = [0; 2];
    for family in Family::BOTH {
        let program = if family == Family::Ipv6 { "ip6tables-save" } else { "iptables-save" };
        let listed = match run(&[program, "-c", "-t", "filter"], "").await {
            Ok(listed) => listed,
            Err(_) if family.is_absent() => continue,
            Err(fault) => return Err(fault),
        };
        for (count, chain) in passed.iter_mut().zip([UDP_IN, UDP_OUT]) {
            *count += packets(&listed, chain);
        }
    }
    Ok(passed)
}

/// What the rule that counts UDP has seen: `[packets:bytes] -A PILLION_UDP_IN -p udp`.
fn packets(listed: &str, chain: &str) -> u64 {
    let rule = format!("] -A {PREFIX}{} -p udp", chain.to_uppercase());
    let counts = listed.lines().filter_map(|line| line.trim_end().strip_suffix(rule.as_str()));
    counts.filter_map(|count| count.strip_prefix('[')?.split(':').next()?.parse::<u64>().ok()).sum()
}

/// Both scripts, as they are where nothing is yet.
pub(super) fn dry_run(settings: &Settings) -> String {
    let nothing = Saved::default();
    format!(
        "# iptables-restore --noflush\n{}# ip6tables-restore --noflush\n{}",
        script(settings, Family::Ipv4, &nothing),
        script(settings, Family::Ipv6, &nothing)
    )
}

/// Of our chains, what a family's tables hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Saved {
    /// Table and name.
    chains: Vec<(String, String)>,
    /// Chain and the rest of the line.
    rules: Vec<(String, String)>,
    /// Rules of the system's chains that call ours.
    calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    table: String,
    /// The system's chain.
    chain: String,
    /// The rest of the line.
    rule: String,
    /// How many rules of that chain come before.
    before: usize,
}

impl Saved {
    /// Reads what iptables-save writes, and what iptables-restore is given.
    fn parse(text: &str) -> Self {
        let (mut saved, mut table) = (Self::default(), "");
        let mut seen: Vec<&str> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('*') {
                (table, seen) = (name, Vec::new());
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                if name.starts_with(PREFIX) {
                    saved.chains.push((table.into(), name.into()));
                }
            } else if let Some(rule) = line.strip_prefix("-A ").or_else(|| line.strip_prefix("-I ")) {
                let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
                // The place that it is to have, as in what is given.
                let rule = rule.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
                if chain.starts_with(PREFIX) {
                    saved.rules.push((chain.into(), rule.into()));
                } else {
                    let before = seen.iter().filter(|other| **other == chain).count();
                    seen.push(chain);
                    if rule.contains("-j PILLION_") || rule.contains("-g PILLION_") {
                        let (table, chain, rule) = (table.into(), chain.into(), rule.into());
                        saved.calls.push(Call { table, chain, rule, before });
                    }
                }
            }
        }
        saved
    }

    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.calls.is_empty()
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        for (_, name) in &self.chains {
            listing.chain(name);
        }
        for (chain, rule) in &self.rules {
            listing.chain(chain).push(rule.clone());
        }
        for Call { table, chain, rule, before } in &self.calls {
            let place = if *before == 0 { "first".into() } else { format!("after {before} others") };
            listing.chain(&format!("{chain} of table {table}")).push(format!("{rule} ({place})"));
        }
        listing
    }

    /// Lines that end all calls of ours in a table.
    fn end_calls(&self, table: &str, script: &mut String) {
        for call in self.calls.iter().filter(|call| call.table == table) {
            let _ = writeln!(script, "-D {} {}", call.chain, call.rule);
        }
    }

    fn removal(&self) -> String {
        let mut script = String::new();
        for table in ["nat", "filter"] {
            let ours: Vec<&str> = self.of(table).collect();
            let _ = writeln!(script, "*{table}");
            self.end_calls(table, &mut script);
            for what in ["-F", "-X"] {
                for name in &ours {
                    let _ = writeln!(script, "{what} {name}");
                }
            }
            script.push_str("COMMIT\n");
        }
        script
    }

    fn of(&self, table: &str) -> impl Iterator<Item = &str> {
        self.chains.iter().filter(move |(of, _)| of == table).map(|(_, name)| name.as_str())
    }
}

/// Loads the rules in place of what was found. They are written as iptables-save writes them, so that both can be compared.
fn script(settings: &Settings, family: Family, found: &Saved) -> String {
    let mut script = String::new();
    let chains = chains(settings);
    for table in ["nat", "filter"] {
        let chains: Vec<(String, &Chain, &str)> = chains
            .iter()
            .filter_map(|chain| {
                let (of, caller) = match chain.hook {
                    Hook::NatOutput => ("nat", "OUTPUT"),
                    Hook::NatPrerouting => ("nat", "PREROUTING"),
                    Hook::FilterInput => ("filter", "INPUT"),
                    Hook::FilterOutput => ("filter", "OUTPUT"),
                };
                let name = format!("{PREFIX}{}", chain.name.to_uppercase());
                (of == table).then_some((name, chain, caller))
            })
            .collect();
        let stale: Vec<&str> =
            found.of(table).filter(|name| chains.iter().all(|(wanted, ..)| wanted != name)).collect();
        let _ = writeln!(script, "*{table}");
        // To declare a chain empties it.
        for name in chains.iter().map(|(name, ..)| name.as_str()).chain(stale.iter().copied()) {
            let _ = writeln!(script, ":{name} - [0:0]");
        }
        found.end_calls(table, &mut script);
        for (name, chain, _) in &chains {
            let mut why = "";
            for rule in &chain.rules {
                if rule.is_ipv6().is_some_and(|ipv6| ipv6 != (family == Family::Ipv6)) {
                    continue;
                }
                if rule.why != why {
                    why = rule.why;
                    let _ = writeln!(script, "# {why}");
                }
                let _ = writeln!(script, "-A {name} {}", line(rule));
            }
        }
        for (at, (name, _, caller)) in chains.iter().enumerate() {
            let place = 1 + chains[..at].iter().filter(|(.., other)| other == caller).count();
            let _ = writeln!(script, "-I {caller} {place} -j {name}");
        }
        for name in stale {
            let _ = writeln!(script, "-X {name}");
        }
        script.push_str("COMMIT\n");
    }
    script
}

fn line(rule: &Rule) -> String {
    let mut words: Vec<String> =
        rule.matches.iter().map(match_words).filter(|words| !words.is_empty()).collect();
    words.push(match rule.verdict {
        Verdict::Leave => "-j RETURN".into(),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Drop => "-j DROP".into(),
        Verdict::Count => String::new(),
    });
    words.join(" ").trim_end().to_owned()
}

fn match_words(part: &Match) -> String {
    match part {
        // All addresses of the family are meant where nothing is said.
        Match::To(network) if network.bits == 0 => String::new(),
        Match::To(network) => format!("-d {network}"),
        Match::FromLoopback => "-i lo".into(),
        Match::ToLoopback => "-o lo".into(),
        Match::ToOthers => "-m addrtype ! --dst-type LOCAL".into(),
        Match::Tcp => "-p tcp".into(),
        Match::Udp => "-p udp".into(),
        Match::TcpPort(ports) => format!("-p tcp -m tcp --dport {}", ports.written(":")),
        Match::UdpPort(ports) => format!("-p udp -m udp --dport {}", ports.written(":")),
        Match::User(uid) => format!("-m owner --uid-owner {uid}"),
        Match::Invalid => "-m conntrack --ctstate INVALID".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::settings::{Raw, check};

    fn everything() -> Settings {
        check(Raw::everything()).expect("valid").0
    }

    #[test]
    fn every_setting_is_seen() {
        assert_eq!(dry_run(&everything()), include_str!("snapshots/everything.iptables"));
    }

    #[test]
    fn counts_are_read_from_a_listing() {
        let listed = "*filter\n[7:420] -A PILLION_UDP_IN -i lo -j RETURN\n[12:345] -A PILLION_UDP_IN -p udp\n\
                      [3:99] -A PILLION_UDP_OUT -p udp\nCOMMIT\n";
        assert_eq!([packets(listed, UDP_IN), packets(listed, UDP_OUT)], [12, 3]);
    }

    #[test]
    fn what_is_there_is_replaced() {
        let settings = everything();
        let fresh = script(&settings, Family::Ipv4, &Saved::default());
        let found = "*nat\n:OUTPUT ACCEPT [0:0]\n:PILLION_OUTBOUND - [0:0]\n:PILLION_OLD - [0:0]\n-A OUTPUT -j DOCKER\n\
             -A OUTPUT -p tcp -j PILLION_OUTBOUND\n-A PILLION_OLD -j RETURN\nCOMMIT\n";
        let found = Saved::parse(found);
        let again = script(&settings, Family::Ipv4, &found);
        for line in ["-D OUTPUT -p tcp -j PILLION_OUTBOUND", ":PILLION_OLD - [0:0]", "-X PILLION_OLD"] {
            assert!(again.lines().any(|other| other == line), "{line} is not in\n{again}");
        }
        let wanted = Saved::parse(&fresh).listing();
        assert!(Saved::parse(&fresh).listing().differences(&wanted).is_empty());
        let differences = found.listing().differences(&wanted).join("\n");
        for words in [
            "chain OUTPUT of table nat lacks `-j PILLION_OUTBOUND (first)`",
            "chain OUTPUT of table nat has `-p tcp -j PILLION_OUTBOUND (after 1 others)`, which is not asked for",
            "chain PILLION_INBOUND is missing",
            "chain PILLION_OLD is not asked for",
        ] {
            assert!(differences.contains(words), "{words} is not in\n{differences}");
        }
        assert_eq!(
            found.removal(),
            "*nat\n-D OUTPUT -p tcp -j PILLION_OUTBOUND\n-F PILLION_OUTBOUND\n-F PILLION_OLD\n-X PILLION_OUTBOUND\n\
             -X PILLION_OLD\nCOMMIT\n*filter\nCOMMIT\n"
        );
    }
}
