//! A mesh as a company has it: services in namespaces and tiers, who calls whom how often and how well. Told by numbers alone,
//! so that it is the same in every run.

/// Of the tiers, from the entrances inwards, how many of a hundred services.
const TIERS: [usize; 6] = [3, 12, 22, 28, 22, 13];
const NAMESPACES: [(&str, &str); 8] = [
    ("storefront", "store"),
    ("orders", "order"),
    ("payments", "payment"),
    ("catalog", "catalog"),
    ("shipping", "shipping"),
    ("identity", "identity"),
    ("insights", "insight"),
    ("platform", "platform"),
];
const ROLES: [&str; 25] = [
    "gateway", "api", "web", "worker", "search", "cache", "ledger", "pricing", "index", "session", "profile",
    "email", "quotes", "rules", "audit", "export", "import", "router", "sync", "store", "events", "reports",
    "tasks", "limits", "images",
];
/// One service of so many is not well.
const ILL: u64 = 23;

/// One service, with one workload.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) namespace: &'static str,
    /// What of its requests fail, of 1000.
    pub(crate) failing: u64,
    /// What its application takes at the median, microseconds.
    pub(crate) takes_us: u64,
}

/// One service calls another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Requests per second.
    pub(crate) rps: u64,
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    pub(crate) services: Vec<Service>,
    pub(crate) calls: Vec<Call>,
}

impl Service {
    /// `<name>.<namespace>`.
    pub(crate) fn full(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    pub(crate) fn document(&self) -> String {
        let Self { name, namespace, .. } = self;
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace} }}
spec: {{ selector: {{ app: {name} }}, ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}] }}
"
        )
    }
}

impl Crowd {
    /// At most as many calls as there are pairs of tiers for.
    pub(crate) fn new(services: usize, calls: usize) -> Self {
        let tiers = tiers(services);
        let services: Vec<Service> = (0..services).map(|number| service(number, services)).collect();
        let mut crowd = Self { services, calls: Vec::new() };
        // Everybody behind the entrances has a caller, in the tier before.
        for (at, tier) in tiers.iter().enumerate().skip(1) {
            for to in tier.clone() {
                let before = &tiers[at - 1];
                crowd.call(before.start + (chance(to as u64, 1) as usize) % before.len(), to);
            }
        }
        let mut seed = 0;
        // Pairs come up again and again: after so many nothing new is to be expected.
        while crowd.calls.len() < calls && seed < 100 * calls as u64 {
            seed += 1;
            let from_tier = (chance(seed, 2) % (TIERS.len() as u64 - 1)) as usize;
            // Mostly to the next tier, at times past it.
            let to_tier =
                (from_tier + if chance(seed, 3).is_multiple_of(4) { 2 } else { 1 }).min(TIERS.len() - 1);
            let pick = |tier: &std::ops::Range<usize>, salt| {
                tier.start + (chance(seed, salt) % tier.len().max(1) as u64) as usize
            };
            let (from, to) = (pick(&tiers[from_tier], 4), pick(&tiers[to_tier], 5));
            if from < to && to < crowd.services.len() {
                crowd.call(from, to);
            }
        }
        crowd
    }

    fn call(&mut self, from: usize, to: usize) {
        if !self.calls.iter().any(|call| (call.from, call.to) == (from, to)) {
            let rps = 1 + chance(from as u64 * 7919 + to as u64, 6) % 30;
            self.calls.push(Call { from, to, rps });
        }
    }
}

fn tiers(services: usize) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    let mut so_far = 0;
    let tier = |share: &usize| {
        so_far += share;
        let end = (services * so_far / 100).max(start + 1).min(services);
        let range = start.min(end)..end;
        start = end;
        range
    };
    TIERS.iter().map(tier).collect()
}

fn service(number: usize, services: usize) -> Service {
    // Through the tiers, every namespace has some of each.
    let (namespace, short) = NAMESPACES[number % NAMESPACES.len()];
    let round = number / NAMESPACES.len();
    let again = if round < ROLES.len() { String::new() } else { format!("-{}", round / ROLES.len() + 1) };
    let ill = number * 100 > services * TIERS[0] && chance(number as u64, 7).is_multiple_of(ILL);
    Service {
        name: format!("{short}-{}{again}", ROLES[round % ROLES.len()]),
        namespace,
        failing: if !ill { 0 } else { 15 + chance(number as u64, 8) % 200 },
        takes_us: 800 << (chance(number as u64, 9) % 7),
    }
}

/// A number that looks like chance, and is the same every time.
pub(crate) fn chance(seed: u64, salt: u64) -> u64 {
    let mut mixed =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt.wrapping_mul(0xd1b5_4a32_d192_ed03));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) >> 8
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_has_as_many_services_and_calls_as_it_is_told_and_all_names_differ() {
        let crowd = Crowd::new(200, 1000);
        assert_eq!((crowd.services.len(), crowd.calls.len()), (200, 1000));
        let names: BTreeSet<String> = crowd.services.iter().map(Service::full).collect();
        assert_eq!(names.len(), 200);
        let called: BTreeSet<usize> = crowd.calls.iter().map(|call| call.to).collect();
        assert!(called.len() > 190, "nearly everybody is called: {}", called.len());
        assert!(crowd.calls.iter().all(|call| call.from < call.to), "there are no circles");
        let ill = crowd.services.iter().filter(|service| service.failing > 0).count();
        assert!((3..=20).contains(&ill), "{ill}");
    }

    #[test]
    fn small_ones_are_survived() {
        for services in 1..20 {
            let crowd = Crowd::new(services, 30);
            assert_eq!(crowd.services.len(), services);
            assert!(crowd.calls.iter().all(|call| call.from < services && call.to < services));
        }
    }
}
