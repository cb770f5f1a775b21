//! What `pillion demo --check` claims, and whether the figures bear it out. Pure: figures in, a table out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::api::{EdgeView, WorkloadView};

/// The instance that fails on purpose.
pub const TROUBLED: &str = "payments-3";
/// Its well-behaved peers.
pub const WELL_BEHAVED: [&str; 2] = ["payments-1", "payments-2"];
/// Requests meant for version 2, of all to `payments`.
pub const CANARY_SHARE: f64 = 0.10;
/// Who calls whom in the sample shop.
pub const HOPS: [(&str, &str); 4] = [
    ("traffic.demo", "web.demo"),
    ("web.demo", "catalog.demo"),
    ("web.demo", "cart.demo"),
    ("cart.demo", "payments.demo"),
];

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// What each workload's identity must be.
    pub identities: BTreeMap<String, String>,
    /// What the control plane knows of them.
    pub workloads: Vec<WorkloadView>,
    /// What the control plane shows of who calls whom.
    pub edges: Vec<EdgeView>,
    /// TLS handshakes at each sidecar that is called.
    pub handshakes: BTreeMap<String, Handshakes>,
    /// Requests that reached each instance of `payments`, as its own sidecar counts them.
    pub payments: BTreeMap<String, Counts>,
    /// Requests by the version that the route chose, as the caller's sidecar counts them.
    pub chosen: BTreeMap<String, u64>,
    /// Requests on the hops on which nothing fails on purpose.
    pub hops: BTreeMap<String, Counts>,
    /// The troubled instance's breaker over time.
    pub breaker: Vec<BreakerSample>,
    /// How often that breaker opened.
    pub breaker_openings: u64,
    /// What the traffic generator saw.
    pub traffic: Counts,
}

/// Handshakes as the accepting side counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Both sides proved who they are.
    pub succeeded: u64,
    /// One did not.
    pub failed: u64,
}

/// Requests, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub requests: u64,
    /// Of these, 5xx and refusals.
    pub failures: u64,
}

/// A circuit breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Requests pass.
    Closed,
    /// None does.
    Open,
    /// A few may try.
    HalfOpen,
}

/// One look at the troubled instance.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSample {
    /// Since traffic began.
    pub at: Duration,
    /// As the caller's sidecar has it.
    pub state: Breaker,
    /// Requests that have reached the troubled instance so far.
    pub troubled: u64,
    /// Requests that have reached its peers so far, on average.
    pub peers: f64,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed.
    pub claim: String,
    /// What the figures say.
    pub measured: String,
    /// What they have to say.
    pub expected: String,
    /// Whether they do.
    pub holds: bool,
}

/// All claims, in the order in which they build on each other.
#[must_use]
pub fn judge(measured: &Measured) -> Vec<Claim> {
    vec![
        joined(measured),
        hops_are_mtls(measured),
        handshakes(measured),
        certificates_renewed(measured),
        balanced(measured),
        breaker_opened(measured),
        breaker_keeps_away(measured),
        breaker_lets_back_in(measured),
        canary(measured),
        no_failures_elsewhere(measured),
    ]
}

fn joined(measured: &Measured) -> Claim {
    let right = measured
        .workloads
        .iter()
        .filter(|w| w.connected && w.ready && measured.identities.get(&w.workload) == Some(&w.spiffe_id))
        .count();
    let wanted = measured.identities.len();
    Claim {
        claim: "every workload joined, under its own identity".into(),
        measured: format!("{right} of {}", measured.workloads.len()),
        expected: format!("{wanted} of {wanted}"),
        holds: wanted > 0 && right == wanted && measured.workloads.len() == wanted,
    }
}

fn hops_are_mtls(measured: &Measured) -> Claim {
    let plain: Vec<String> = measured
        .edges
        .iter()
        .filter(|edge| edge.mtls == Some(false))
        .map(|edge| format!("{} → {}", edge.from, edge.to))
        .collect();
    let which = if plain.is_empty() { String::new() } else { format!(": {}", plain.join(", ")) };
    let shown = |&(from, to): &(&str, &str)| {
        measured.edges.iter().any(|e| e.from == from && e.to == to && e.mtls == Some(true))
    };
    let found = HOPS.iter().filter(|hop| shown(hop)).count();
    Claim {
        claim: "every hop is mutual TLS".into(),
        measured: format!("{found} hops, {} in plaintext{which}", plain.len()),
        expected: format!("{} hops, 0 in plaintext", HOPS.len()),
        holds: found == HOPS.len() && plain.is_empty(),
    }
}

fn handshakes(measured: &Measured) -> Claim {
    let silent: Vec<&str> =
        measured.handshakes.iter().filter(|(_, h)| h.succeeded == 0).map(|(name, _)| name.as_str()).collect();
    let succeeded: u64 = measured.handshakes.values().map(|h| h.succeeded).sum();
    let failed: u64 = measured.handshakes.values().map(|h| h.failed).sum();
    let sidecars = measured.handshakes.len();
    let none_at = if silent.is_empty() { String::new() } else { format!(", none at {}", silent.join(", ")) };
    Claim {
        claim: "TLS handshakes, at every sidecar that is called".into(),
        measured: format!("{succeeded} at {sidecars}, {failed} failed{none_at}"),
        expected: "some at each, 0 failed".into(),
        holds: sidecars > 0 && silent.is_empty() && failed == 0,
    }
}

fn certificates_renewed(measured: &Measured) -> Claim {
    let renewals = measured.workloads.iter().map(|w| w.certificates_renewed);
    let least = renewals.clone().min().unwrap_or(0);
    Claim {
        claim: "certificates are renewed while in use".into(),
        measured: format!("{} renewals, at least {least} each", renewals.sum::<u64>()),
        expected: "at least 1 each".into(),
        holds: least >= 1,
    }
}

fn balanced(measured: &Measured) -> Claim {
    let counts = WELL_BEHAVED.map(|name| measured.payments.get(name).map_or(0, |c| c.requests));
    let all: u64 = counts.iter().sum();
    let share = counts[0] as f64 / all.max(1) as f64;
    Claim {
        claim: "requests are balanced over the healthy instances".into(),
        measured: format!("{} : {}", counts[0], counts[1]),
        expected: "each 25 % to 75 %, of 100 or more".into(),
        holds: all >= 100 && (0.25..=0.75).contains(&share),
    }
}

fn breaker_opened(measured: &Measured) -> Claim {
    Claim {
        claim: format!("{TROUBLED} fails, and its circuit breaker opens"),
        measured: format!("opened {}", times(measured.breaker_openings)),
        expected: "at least once".into(),
        holds: measured.breaker_openings >= 1
            && measured.breaker.iter().any(|sample| sample.state == Breaker::Open),
    }
}

fn breaker_keeps_away(measured: &Measured) -> Claim {
    let (mut seconds, mut troubled, mut peers) = (0.0, 0, 0.0);
    for pair in measured.breaker.windows(2) {
        // Only where it was open at both ends: what is in between was decided with the breaker open, most likely.
        if pair[0].state == Breaker::Open && pair[1].state == Breaker::Open {
            seconds += (pair[1].at - pair[0].at).as_secs_f64();
            troubled += pair[1].troubled - pair[0].troubled;
            peers += pair[1].peers - pair[0].peers;
        }
    }
    let share = troubled as f64 / f64::max(peers, 1.0);
    Claim {
        claim: "…and while it is open, requests go elsewhere".into(),
        measured: format!("{troubled} in {seconds:.1} s, its peers {peers:.0} each"),
        expected: "at most 1 in 5 of its peers'".into(),
        holds: peers >= 10.0 && share <= 0.2,
    }
}

fn breaker_lets_back_in(measured: &Measured) -> Claim {
    let opened = measured.breaker.iter().position(|sample| sample.state == Breaker::Open);
    let last = measured.breaker.last().map(|sample| sample.state);
    Claim {
        claim: "…and when it is well again, it is let back in".into(),
        measured: match last {
            Some(Breaker::Closed) => "closed at the end",
            Some(Breaker::Open) => "open at the end",
            Some(Breaker::HalfOpen) => "half-open at the end",
            None => "never seen",
        }
        .into(),
        expected: "opened, then closed at the end".into(),
        holds: opened.is_some() && last == Some(Breaker::Closed),
    }
}

fn canary(measured: &Measured) -> Claim {
    let chosen = |name: &str| measured.chosen.get(name).copied().unwrap_or(0);
    let (new, old) = (chosen("payments-v2.demo"), chosen("payments-v1.demo"));
    let all = new + old;
    let (least, most) = binomial_interval(all, CANARY_SHARE, 0.999);
    let percent = 100.0 * new as f64 / all.max(1) as f64;
    Claim {
        claim: format!("version 2 gets {:.0} % of payments' requests", 100.0 * CANARY_SHARE),
        measured: format!("{new} of {all} ({percent:.1} %)"),
        expected: format!("{least} to {most} (99.9 % of draws)"),
        holds: all >= 200 && (least..=most).contains(&new),
    }
}

fn no_failures_elsewhere(measured: &Measured) -> Claim {
    let mut failures = Vec::new();
    let peers = measured.payments.iter().filter(|(name, _)| *name != TROUBLED);
    let mut requests = measured.traffic.requests;
    let traffic = String::from("the whole path");
    for (name, counts) in measured.hops.iter().chain(peers).chain([(&traffic, &measured.traffic)]) {
        requests = requests.max(counts.requests);
        if counts.failures > 0 {
            failures.push(format!("{name} {}", counts.failures));
        }
    }
    Claim {
        claim: "no request fails where none should".into(),
        measured: match failures.is_empty() {
            true => format!("0 of {} user requests", measured.traffic.requests),
            false => failures.join(", "),
        },
        expected: "0".into(),
        holds: failures.is_empty() && requests > 0,
    }
}

fn times(count: u64) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        n => format!("{n} times"),
    }
}

/// The counts between which a binomially distributed count lies with at least this confidence, half of the rest on either
/// side.
#[must_use]
pub fn binomial_interval(trials: u64, probability: f64, confidence: f64) -> (u64, u64) {
    let tail = (1.0 - confidence) / 2.0;
    // Logarithms: (1 - p)^n is zero to a float long before n is large.
    let ratio = (probability / (1.0 - probability)).ln();
    let mut log_mass = trials as f64 * (1.0 - probability).ln();
    let mut below = 0.0;
    let mut least = None;
    for count in 0..=trials {
        below += log_mass.exp();
        if below > tail && least.is_none() {
            least = Some(count);
        }
        if below >= 1.0 - tail {
            return (least.unwrap_or(count), count);
        }
        log_mass += ((trials - count) as f64 / (count + 1) as f64).ln() + ratio;
    }
    (least.unwrap_or(0), trials)
}

/// The table as text, in columns.
#[must_use]
pub fn table(claims: &[Claim]) -> String {
    let width = |column: fn(&Claim) -> &String, title: &str| {
        claims.iter().map(|claim| column(claim).chars().count()).chain([title.len()]).max().unwrap_or(0)
    };
    let (claim, measured, expected) = (
        width(|c| &c.claim, "claim"),
        width(|c| &c.measured, "measured"),
        width(|c| &c.expected, "expected"),
    );
    let mut text = String::new();
    let _ = writeln!(text, "{:claim$}  {:measured$}  {:expected$}  ok", "claim", "measured", "expected");
    let _ = writeln!(text, "{:─<1$}", "", claim + measured + expected + 8);
    for row in claims {
        let ok = if row.holds { "yes" } else { "NO" };
        let _ = writeln!(
            text,
            "{:claim$}  {:measured$}  {:expected$}  {ok}",
            row.claim, row.measured, row.expected
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, failures: u64) -> Counts {
        Counts { requests, failures }
    }

    fn sample(at_ms: u64, state: Breaker, troubled: u64, peers: f64) -> BreakerSample {
        BreakerSample { at: Duration::from_millis(at_ms), state, troubled, peers }
    }

    /// Figures as a good run has them.
    fn good() -> Measured {
        let identity = |name: &str| (name.to_string(), format!("spiffe://mesh.local/ns/demo/sa/{name}"));
        Measured {
            identities: ["web-1", "cart-1"].map(identity).into(),
            workloads: ["web-1", "cart-1"]
                .map(|name| WorkloadView {
                    reason: String::new(),
                    workload: name.into(),
                    spiffe_id: identity(name).1,
                    connected: true,
                    ready: true,
                    certificates_renewed: 2,
                })
                .into(),
            edges: HOPS
                .map(|(from, to)| EdgeView {
                    from: from.into(),
                    to: to.into(),
                    backend: None,
                    mtls: Some(true),
                    repeats: None,
                })
                .into(),
            handshakes: [("web-1".into(), Handshakes { succeeded: 3, failed: 0 })].into(),
            payments: [
                ("payments-1".into(), counts(210, 0)),
                ("payments-2".into(), counts(190, 0)),
                ("payments-3".into(), counts(60, 30)),
            ]
            .into(),
            chosen: [("payments-v1.demo".into(), 540), ("payments-v2.demo".into(), 60)].into(),
            hops: [("web → catalog".into(), counts(800, 0))].into(),
            breaker: vec![
                sample(0, Breaker::Closed, 0, 0.0),
                sample(1000, Breaker::Open, 9, 9.0),
                sample(2000, Breaker::Open, 9, 22.0),
                sample(3000, Breaker::HalfOpen, 10, 35.0),
                sample(4000, Breaker::Closed, 15, 45.0),
            ],
            breaker_openings: 1,
            traffic: counts(800, 0),
        }
    }

    fn broken(claims: &[Claim]) -> Vec<usize> {
        claims.iter().enumerate().filter(|(_, claim)| !claim.holds).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_good_run_passes() {
        let claims = judge(&good());
        assert_eq!(broken(&claims), [] as [usize; 0], "{}", table(&claims));
    }

    #[test]
    fn nothing_measured_passes_nothing() {
        let claims = judge(&Measured::default());
        assert_eq!(broken(&claims).len(), claims.len(), "{}", table(&claims));
    }

    /// A way to spoil a good run.
    type Spoil = fn(&mut Measured);

    #[test]
    fn each_claim_can_fail() {
        let spoils: [(usize, Spoil); 15] = [
            (0, |m| m.workloads[0].connected = false),
            (0, |m| m.workloads[0].spiffe_id = "spiffe://mesh.local/ns/demo/sa/cart-1".into()),
            (1, |m| m.edges[2].mtls = Some(false)),
            (1, |m| drop(m.edges.pop())),
            (2, |m| m.handshakes.get_mut("web-1").unwrap().succeeded = 0),
            (2, |m| m.handshakes.get_mut("web-1").unwrap().failed = 1),
            (3, |m| m.workloads[1].certificates_renewed = 0),
            (4, |m| *m.payments.entry("payments-2".into()).or_default() = counts(50, 0)),
            (5, |m| m.breaker_openings = 0),
            (6, |m| m.breaker[2].troubled += 10),
            (7, |m| m.breaker.truncate(4)),
            (8, |m| *m.chosen.entry("payments-v2.demo".into()).or_default() = 120),
            (9, |m| *m.hops.entry("web → cart".into()).or_default() = counts(600, 1)),
            (9, |m| *m.payments.entry("payments-2".into()).or_default() = counts(190, 1)),
            (9, |m| m.traffic.failures = 1),
        ];
        for (number, (claim, spoil)) in spoils.into_iter().enumerate() {
            let mut measured = good();
            spoil(&mut measured);
            let claims = judge(&measured);
            assert!(broken(&claims).contains(&claim), "spoil {number}:\n{}", table(&claims));
        }
    }

    #[test]
    fn the_interval_is_that_of_the_tables() {
        // From adding up exact probabilities in another language.
        assert_eq!(binomial_interval(100, 0.1, 0.999), (2, 21));
        assert_eq!(binomial_interval(600, 0.1, 0.999), (37, 85));
        assert_eq!(binomial_interval(0, 0.1, 0.999), (0, 0));
        let (least, most) = binomial_interval(20_000, 0.1, 0.999);
        assert!((1850..1870).contains(&least) && (2130..2150).contains(&most), "{least} {most}");
    }

    #[test]
    fn columns_line_up() {
        let text = table(&judge(&good()));
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let column = lines[0].len() - 2;
        for row in &lines[2..] {
            assert_eq!(row[column..].iter().collect::<String>(), "yes", "{text}");
        }
    }
}
