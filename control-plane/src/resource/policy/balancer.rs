//! Which of a service's endpoints gets a request.

use pillion_api::model::{self, MAX_SLOTS, is_cookie_name, is_prime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DAY, HOUR, MILLISECOND, SECOND, check_number};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// The algorithms, of which the last two hash.
const TYPES: [&str; 6] = ["PeakEwma", "LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev"];
const KEYS: [&str; 4] = ["Header", "Cookie", "QueryParameter", "Source"];
const MODES: [&str; 2] = ["Off", "PreferZone"];
const MAX_KEYS: usize = 8;
const MAX_NAME: usize = 256;

/// Which endpoint gets a request, or a connection that is carried as bytes. All heed weights, readiness and breakers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// `PeakEwma`: of two picked at random the one with less latency and fewer requests under way. `LeastRequest`: the one with fewer
    /// requests (connections) under way. `RoundRobin`: one after the other. `Random`: any. `RingHash` and `Maglev`: by
    /// `hashOn`. Default: PeakEwma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Of PeakEwma: time constant of the latency average. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<String>,
    /// Of RingHash and Maglev, which need it: what the hash is taken of, the first that a request has. With none of
    /// them, the endpoint is picked at random.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hash_on: Vec<HashOn>,
    /// Of RingHash and Maglev: an endpoint that has more than this percentage of its fair share of the requests under
    /// way is passed over (consistent hashing with bounded loads); 100 to 1000. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded_load_percent: Option<u32>,
    /// Of RingHash: the ring's size. More points are more even, and take memory of each caller, 16 bytes each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHash>,
    /// Of Maglev: the table's size. More slots are more even, and take memory of each caller, 4 bytes each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Maglev>,
    /// An endpoint that is new, or ready again, gets its share of requests little by little. Not for RingHash and Maglev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Whether the caller's own zone is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

/// What a hash is taken of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashOn {
    /// `Header`, `Cookie`, `QueryParameter`, or `Source`: the calling workload by its name, which keeps to one endpoint with
    /// all that it calls. Of a connection carried as bytes nothing but `Source` is known.
    pub r#type: String,
    /// The header's, cookie's or query parameter's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a cookie: where a request has none, the caller's sidecar makes one and the response sets it for this long; `0s`: until the
    /// client ends. Absent: the cookie is the application's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// An endpoint of the usual weight has 128 points, and all together at least `minimumSize` and at most `maximumSize`. As long as neither
/// matters, nobody's keys move when another one comes or goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingHash {
    /// 1 to 1048576; matters for few endpoints, or light ones. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_size: Option<u32>,
    /// 1 to 1048576. Default: 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_size: Option<u32>,
}

/// A table of slots, of which each endpoint has its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maglev {
    /// A prime up to 1048576, best a hundred times the endpoints or more. Default: 65537.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
}

/// The share of a new endpoint grows evenly, from `minimumPercent` of what it will be to all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// For how long. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// What it begins with, 1 to 100. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_percent: Option<u32>,
}

/// Zones are what the sidecars say of their workloads (`--zone`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// `PreferZone`: requests stay in the caller's zone while enough of its endpoints are well; `Off`: zones do not matter. A caller
    /// without a zone, or whose zone has no endpoint, takes all alike. Default: Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The share of requests that stays in the zone is the healthy share of its endpoints (by weight, ready and with a
    /// closed breaker) times this, at most all; the rest goes to the other zones. 100 to 1000. Default: 140.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overprovisioning_percent: Option<u32>,
}

impl LoadBalancer {
    /// Whether it hashes.
    pub fn hashes(&self) -> bool {
        self.is("RingHash") || self.is("Maglev")
    }

    fn is(&self, r#type: &str) -> bool {
        self.r#type.as_deref() == Some(r#type)
    }

    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(r#type) = &self.r#type {
            check_word(faults, &at.field("type"), r#type, &TYPES);
        }
        duration::check(faults, &at.field("decay"), self.decay.as_ref(), 10 * MILLISECOND, HOUR);
        self.check_hash(faults, at);
        if let Some(slow_start) = &self.slow_start {
            let at = at.field("slowStart");
            if self.hashes() {
                // A share of the keys cannot be moved little by little and stay where it was.
                faults.add(&at, "is not for RingHash and Maglev");
            }
            duration::check(faults, &at.field("window"), slow_start.window.as_ref(), SECOND, DAY);
            check_number(faults, &at.field("minimumPercent"), slow_start.minimum_percent, 1, 100);
        }
        if let Some(locality) = &self.locality {
            let at = at.field("locality");
            if let Some(mode) = &locality.mode {
                check_word(faults, &at.field("mode"), mode, &MODES);
            }
            let percent = locality.overprovisioning_percent;
            check_number(faults, &at.field("overprovisioningPercent"), percent, 100, 1000);
        }
    }

    fn check_hash(&self, faults: &mut Faults, at: &Path) {
        let keys = at.field("hashOn");
        if self.hashes() {
            if self.hash_on.is_empty() {
                faults.add(&keys, "must say what the hash is taken of");
            }
        } else {
            for (field, given) in [
                ("hashOn", !self.hash_on.is_empty()),
                ("boundedLoadPercent", self.bounded_load_percent.is_some()),
            ] {
                if given {
                    faults.add(&at.field(field), "is for RingHash and Maglev");
                }
            }
        }
        faults.check_length(&keys, self.hash_on.len(), MAX_KEYS);
        for (index, key) in self.hash_on.iter().enumerate() {
            let at = keys.index(index);
            key.check(faults, &at);
            if let Some(before) = self.hash_on[..index].iter().position(HashOn::is_always_there) {
                faults.add(&at, format!("is never looked at: every request has hashOn[{before}]"));
            }
        }
        check_number(faults, &at.field("boundedLoadPercent"), self.bounded_load_percent, 100, 1000);
        if let Some(ring) = &self.ring_hash {
            let at = at.field("ringHash");
            if !self.is("RingHash") {
                faults.add(&at, "is for RingHash");
            }
            for (field, size) in [("minimumSize", ring.minimum_size), ("maximumSize", ring.maximum_size)] {
                check_number(faults, &at.field(field), size, 1, MAX_SLOTS.into());
            }
            let default = model::RingSize::default();
            let minimum = ring.minimum_size.unwrap_or(default.minimum);
            let maximum = ring.maximum_size.unwrap_or(default.maximum);
            if minimum > maximum {
                faults.add(
                    &at,
                    format!("minimumSize must not be more than maximumSize, is {minimum} to {maximum}"),
                );
            }
        }
        if let Some(maglev) = &self.maglev {
            let at = at.field("maglev");
            if !self.is("Maglev") {
                faults.add(&at, "is for Maglev");
            }
            if let Some(size) = maglev.table_size
                && (size > MAX_SLOTS || !is_prime(size))
            {
                faults.add(&at.field("tableSize"), format!("must be a prime up to {MAX_SLOTS}, is {size}"));
            }
        }
    }
}

impl HashOn {
    /// Whether nothing that comes after it is ever looked at.
    fn is_always_there(&self) -> bool {
        self.r#type == "Source" || self.r#type == "Cookie" && self.ttl.is_some()
    }

    fn check(&self, faults: &mut Faults, at: &Path) {
        check_word(faults, &at.field("type"), &self.r#type, &KEYS);
        let (is_source, is_cookie) = (self.r#type == "Source", self.r#type == "Cookie");
        let name = at.field("name");
        match self.name.as_deref() {
            None | Some("") if !is_source => faults.add(&name, "must be given"),
            Some(_) if is_source => faults.add(&name, "is not for Source"),
            Some(text) if text.len() > MAX_NAME => {
                faults.add(&name, format!("must have at most {MAX_NAME} bytes, has {}", text.len()));
            }
            Some(text)
                if self.r#type == "Header" && http::HeaderName::from_bytes(text.as_bytes()).is_err() =>
            {
                faults.add(&name, format!("must be a header's name, is {text:?}"));
            }
            Some(text) if is_cookie && !is_cookie_name(text) => {
                faults.add(&name, format!("must be a cookie's name, is {text:?}"));
            }
            None | Some(_) => {}
        }
        let ttl = at.field("ttl");
        if self.ttl.is_some() && !is_cookie {
            faults.add(&ttl, "is for Cookie");
        }
        duration::check(faults, &ttl, self.ttl.as_ref(), std::time::Duration::ZERO, 24 * DAY);
    }
}

fn check_word(faults: &mut Faults, at: &Path, word: &str, words: &[&str]) {
    if !words.contains(&word) {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let (last, others) = quoted.split_last().expect("there are some");
        faults.add(at, format!("must be {} or {last}, is {word:?}", others.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        let balancer: LoadBalancer = serde_saphyr::from_str(yaml).expect("of the right shape");
        let mut faults = Faults::default();
        balancer.check(&mut faults, &Path::root());
        faults.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_right_is_taken() {
        for yaml in [
            "{type: LeastRequest, slowStart: {window: 1m, minimumPercent: 5}}",
            "{type: RoundRobin, locality: {mode: PreferZone, overprovisioningPercent: 200}}",
            "{type: RingHash, hashOn: [{type: Header, name: x-user}, {type: Source}], boundedLoadPercent: 125}",
            "{type: RingHash, hashOn: [{type: QueryParameter, name: ü}], ringHash: {minimumSize: 1, maximumSize: 1}}",
            "{type: Maglev, hashOn: [{type: Cookie, name: sid, ttl: 0s}], maglev: {tableSize: 251}}",
        ] {
            assert_eq!(faults(yaml), [""; 0], "{yaml}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        for (yaml, expected) in [
            (
                "{type: Best, boundedLoadPercent: 99, hashOn: [{type: Body}]}",
                &[
                    "type: must be \"PeakEwma\", \"LeastRequest\", \"RoundRobin\", \"Random\", \"RingHash\" or \"Maglev\", \
                     is \"Best\"",
                    "hashOn: is for RingHash and Maglev",
                    "boundedLoadPercent: is for RingHash and Maglev",
                    "hashOn[0].type: must be \"Header\", \"Cookie\", \"QueryParameter\" or \"Source\", is \"Body\"",
                    "hashOn[0].name: must be given",
                    "boundedLoadPercent: must be between 100 and 1000, is 99",
                ][..],
            ),
            (
                "{type: RingHash, slowStart: {minimumPercent: 0}, maglev: {tableSize: 9}, ringHash: {minimumSize: 70000}}",
                &[
                    "hashOn: must say what the hash is taken of",
                    "ringHash: minimumSize must not be more than maximumSize, is 70000 to 65536",
                    "maglev: is for Maglev",
                    "maglev.tableSize: must be a prime up to 1048576, is 9",
                    "slowStart: is not for RingHash and Maglev",
                    "slowStart.minimumPercent: must be between 1 and 100, is 0",
                ],
            ),
            (
                "{type: Maglev, hashOn: [{type: Source, name: x}, {type: Header, name: a b, ttl: 1s}, {type: Cookie, name: a=b}]}",
                &[
                    "hashOn[0].name: is not for Source",
                    "hashOn[1].name: must be a header's name, is \"a b\"",
                    "hashOn[1].ttl: is for Cookie",
                    "hashOn[1]: is never looked at: every request has hashOn[0]",
                    "hashOn[2].name: must be a cookie's name, is \"a=b\"",
                    "hashOn[2]: is never looked at: every request has hashOn[0]",
                ],
            ),
            (
                "{locality: {mode: Nearest, overprovisioningPercent: 99}}",
                &[
                    "locality.mode: must be \"Off\" or \"PreferZone\", is \"Nearest\"",
                    "locality.overprovisioningPercent: must be between 100 and 1000, is 99",
                ],
            ),
        ] {
            assert_eq!(faults(yaml), expected, "{yaml}");
        }
    }
}
