//! Which of a service's endpoints gets a request.

use std::time::Duration;

use http::HeaderName;

use super::{Faults, milliseconds, or};
use crate::wire::{self, hash_on::Kind, load_balancer::Algorithm as Wire, locality::Mode};

/// An endpoint's weight where its workload says none: a percentage of a usual one.
pub const USUAL_WEIGHT: u32 = 100;
/// The greatest weight.
pub const MAX_WEIGHT: u32 = 1000;
/// The greatest ring, and the greatest table: what they take is memory of every caller.
pub const MAX_SLOTS: u32 = 1 << 20;

/// Which of a service's endpoints gets a request.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancer {
    /// How it is chosen.
    pub algorithm: Algorithm,
    /// Time constant of an endpoint's latency average.
    pub decay: Duration,
    /// `None`: a new endpoint has its whole share at once.
    pub slow_start: Option<SlowStart>,
    /// `None`: zones do not matter.
    pub locality: Option<Locality>,
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::PeakEwma,
            decay: Duration::from_secs(10),
            slow_start: None,
            locality: None,
        }
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Algorithm {
    /// The less loaded of two picked at random, by latency and requests under way.
    PeakEwma,
    /// The one of two picked at random with fewer requests under way.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// By a hash of the request: the next on a ring.
    RingHash(Hashing, RingSize),
    /// By a hash of the request: from a table of so many slots, a prime.
    Maglev(Hashing, u32),
}

impl Algorithm {
    /// As people write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PeakEwma => "PeakEwma",
            Self::LeastRequest => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::RingHash(..) => "RingHash",
            Self::Maglev(..) => "Maglev",
        }
    }

    /// What is hashed, if anything.
    pub fn hashing(&self) -> Option<&Hashing> {
        match self {
            Self::RingHash(hashing, _) | Self::Maglev(hashing, _) => Some(hashing),
            Self::PeakEwma | Self::LeastRequest | Self::RoundRobin | Self::Random => None,
        }
    }
}

/// What is hashed, and how far a hash binds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hashing {
    /// The first that a request has.
    pub on: Vec<HashOn>,
    /// An endpoint with so many times its fair share of the requests under way gets no more; 1 or more. `None`: no bound.
    pub bounded_load: Option<f64>,
}

/// What a hash is taken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// A header's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie {
        /// The cookie's.
        name: String,
        /// The sidecar makes it where it is absent, for so long; zero: for the client's session. `None`: it does not.
        ttl: Option<Duration>,
    },
    /// A query parameter's first value, decoded.
    QueryParameter(String),
    /// The calling workload.
    Source,
}

/// Between how many and how many points a ring has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize {
    /// At least.
    pub minimum: u32,
    /// At most.
    pub maximum: u32,
}

impl Default for RingSize {
    fn default() -> Self {
        Self { minimum: 1024, maximum: 65536 }
    }
}

/// Slots of a Maglev table where none are said: of the paper, and Envoy's.
pub const TABLE_SIZE: u32 = 65537;

/// How a new endpoint gets its share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// For how long it grows, evenly.
    pub window: Duration,
    /// What it begins with, 0 to 1.
    pub minimum: f64,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), minimum: 0.1 }
    }
}

/// How the caller's own zone is preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Locality {
    /// The zone's healthy share times this is the share of requests that stays in it; 1 or more.
    pub overprovisioning: f64,
}

impl Default for Locality {
    fn default() -> Self {
        Self { overprovisioning: 1.4 }
    }
}

impl Faults {
    pub(super) fn load_balancer(&mut self, balancer: wire::LoadBalancer) -> LoadBalancer {
        let default = LoadBalancer::default();
        let algorithm = match Wire::try_from(balancer.algorithm) {
            Ok(Wire::PeakEwma) => Algorithm::PeakEwma,
            Ok(Wire::LeastRequest) => Algorithm::LeastRequest,
            Ok(Wire::RoundRobin) => Algorithm::RoundRobin,
            Ok(Wire::Random) => Algorithm::Random,
            Ok(Wire::RingHash) => {
                let ring = RingSize::default();
                let ring = RingSize {
                    minimum: or(balancer.minimum_ring_size, ring.minimum),
                    maximum: or(balancer.maximum_ring_size, ring.maximum),
                };
                if ring.minimum > ring.maximum || ring.maximum > MAX_SLOTS {
                    let what = format_args!("{} to {} is no size", ring.minimum, ring.maximum);
                    self.say("policy.load_balancer.minimum_ring_size", what);
                }
                Algorithm::RingHash(self.hashing(&balancer), ring)
            }
            Ok(Wire::Maglev) => {
                let size = or(balancer.table_size, TABLE_SIZE);
                if size > MAX_SLOTS || !is_prime(size) {
                    let what = format_args!("{size} is no prime up to {MAX_SLOTS}");
                    self.say("policy.load_balancer.table_size", what);
                }
                Algorithm::Maglev(self.hashing(&balancer), size)
            }
            Err(_) => {
                let what = format_args!("{} is none known to this version", balancer.algorithm);
                self.say("policy.load_balancer.algorithm", what);
                Algorithm::PeakEwma
            }
        };
        LoadBalancer {
            algorithm,
            decay: milliseconds(balancer.decay_ms).unwrap_or(default.decay),
            slow_start: balancer.slow_start.map(|slow_start| self.slow_start(slow_start)),
            locality: balancer.locality.and_then(|locality| self.locality(locality)),
        }
    }

    fn hashing(&mut self, balancer: &wire::LoadBalancer) -> Hashing {
        let mut on = Vec::with_capacity(balancer.hash_on.len());
        for (i, hash_on) in balancer.hash_on.iter().enumerate() {
            let field = format!("policy.load_balancer.hash_on[{i}]");
            let name = hash_on.name.clone();
            match Kind::try_from(hash_on.kind) {
                Ok(Kind::Header) => on.extend(self.parse(&field, &name).map(HashOn::Header)),
                Ok(Kind::Cookie) if !is_cookie_name(&name) => {
                    self.say(&field, format_args!("{name:?} is no name of a cookie"));
                }
                Ok(Kind::Cookie) => on.push(HashOn::Cookie {
                    name,
                    ttl: hash_on.ttl_ms.map(|ms| Duration::from_millis(ms.into())),
                }),
                Ok(Kind::QueryParameter) => on.push(HashOn::QueryParameter(name)),
                Ok(Kind::Source) => on.push(HashOn::Source),
                Err(_) => self.say(&field, format_args!("{} is no kind known to this version", hash_on.kind)),
            }
        }
        let percent = balancer.bounded_load_percent;
        if (1..100).contains(&percent) {
            self.say("policy.load_balancer.bounded_load_percent", format_args!("{percent} is below 100"));
        }
        Hashing { on, bounded_load: (percent != 0).then_some(f64::from(percent) / 100.0) }
    }

    fn slow_start(&mut self, slow_start: wire::SlowStart) -> SlowStart {
        let default = SlowStart::default();
        let percent = slow_start.minimum_percent;
        if percent > 100 {
            self.say(
                "policy.load_balancer.slow_start.minimum_percent",
                format_args!("{percent} is above 100"),
            );
        }
        SlowStart {
            window: milliseconds(slow_start.window_ms).unwrap_or(default.window),
            minimum: if percent == 0 { default.minimum } else { f64::from(percent) / 100.0 },
        }
    }

    fn locality(&mut self, locality: wire::Locality) -> Option<Locality> {
        let percent = locality.overprovisioning_percent;
        let field = "policy.load_balancer.locality";
        if (1..100).contains(&percent) {
            self.say(&format!("{field}.overprovisioning_percent"), format_args!("{percent} is below 100"));
        }
        let default = Locality::default().overprovisioning;
        match Mode::try_from(locality.mode) {
            Ok(Mode::Off) => None,
            Ok(Mode::PreferZone) => Some(Locality {
                overprovisioning: if percent == 0 { default } else { f64::from(percent) / 100.0 },
            }),
            Err(_) => {
                let what = format_args!("{} is none known to this version", locality.mode);
                self.say(&format!("{field}.mode"), what);
                None
            }
        }
    }

    pub(super) fn weight(&mut self, field: &str, weight: u32) -> u32 {
        if weight > MAX_WEIGHT {
            self.say(field, format_args!("{weight} is above {MAX_WEIGHT}"));
        }
        or(weight, USUAL_WEIGHT)
    }
}

/// Whether a text may be a cookie's name (RFC 6265 4.1.1).
pub fn is_cookie_name(text: &str) -> bool {
    // A token, as the name of a header.
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

/// Whether a number is prime. For sizes of tables: slow for large ones.
pub fn is_prime(number: u32) -> bool {
    let divides = |divisor: u32| number.is_multiple_of(divisor);
    number > 1 && !(2..).take_while(|divisor| divisor * divisor <= number).any(divides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(balancer: wire::LoadBalancer) -> (LoadBalancer, Vec<String>) {
        let mut faults = Faults::default();
        (faults.load_balancer(balancer), faults.0)
    }

    #[test]
    fn what_is_absent_has_its_default() {
        assert_eq!(read(wire::LoadBalancer::default()), (LoadBalancer::default(), vec![]));
        let ring = wire::LoadBalancer { algorithm: Wire::RingHash.into(), ..Default::default() };
        let expected = Algorithm::RingHash(Hashing::default(), RingSize { minimum: 1024, maximum: 65536 });
        assert_eq!(read(ring).0.algorithm, expected);
        let slow = wire::LoadBalancer {
            slow_start: Some(wire::SlowStart::default()),
            locality: Some(wire::Locality { mode: Mode::PreferZone.into(), overprovisioning_percent: 0 }),
            ..Default::default()
        };
        let (slow, faults) = read(slow);
        assert_eq!((slow.slow_start, slow.locality), (Some(SlowStart::default()), Some(Locality::default())));
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn every_fault_is_named() {
        let hash_on = |kind: i32, name: &str| wire::HashOn { kind, name: name.into(), ttl_ms: None };
        let (_, faults) = read(wire::LoadBalancer {
            algorithm: Wire::RingHash.into(),
            hash_on: vec![hash_on(0, "a b"), hash_on(1, "a=b"), hash_on(9, "")],
            bounded_load_percent: 99,
            minimum_ring_size: 10,
            maximum_ring_size: 9,
            slow_start: Some(wire::SlowStart { window_ms: 0, minimum_percent: 101 }),
            locality: Some(wire::Locality { mode: 7, overprovisioning_percent: 99 }),
            ..Default::default()
        });
        assert_eq!(faults.len(), 8, "{faults:#?}");
        for (algorithm, table_size) in
            [(Wire::Maglev.into(), 65536), (Wire::Maglev.into(), MAX_SLOTS + 7), (77, 0)]
        {
            let (_, faults) = read(wire::LoadBalancer { algorithm, table_size, ..Default::default() });
            assert_eq!(faults.len(), 1, "{faults:#?}");
        }
    }

    #[test]
    fn primes() {
        let primes: Vec<u32> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(TABLE_SIZE) && !is_prime(TABLE_SIZE - 1));
    }
}
