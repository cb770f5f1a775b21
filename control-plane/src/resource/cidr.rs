//! The block of IPv4 addresses out of which services get theirs, and which of them is the next.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use sha2::{Digest as _, Sha256};

/// `FIRST/BITS`: all addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    first: Ipv4Addr,
    bits: u8,
}

/// Blocks that applications cannot connect to, or that are others'.
const TAKEN: [(Cidr, &str); 4] = [
    (Cidr::new(Ipv4Addr::new(0, 0, 0, 0), 8), "this host"),
    (Cidr::new(Ipv4Addr::new(127, 0, 0, 0), 8), "loopback"),
    (Cidr::new(Ipv4Addr::new(169, 254, 0, 0), 16), "link-local addresses"),
    (Cidr::new(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
];

/// Addresses of one /24 that may be given: neither its first nor its last, which some programs take for the network's own
/// and for a broadcast.
const OF_EACH_24: u32 = 254;

impl Cidr {
    /// Where nothing else is said: of the class that is reserved (RFC 1112), so that no network uses it.
    pub const DEFAULT: Self = Self::new(Ipv4Addr::new(240, 240, 0, 0), 16);
    /// More would be a whole class of addresses.
    const FEWEST_BITS: u8 = 8;
    /// Fewer than 254 services are soon too few.
    const MOST_BITS: u8 = 24;

    const fn new(first: Ipv4Addr, bits: u8) -> Self {
        Self { first, bits }
    }

    /// Whether an address is in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.bits));
        u32::from(address) & mask == u32::from(self.first)
    }

    /// Whether a service may have this address.
    pub fn may_give(self, address: Ipv4Addr) -> bool {
        self.contains(address) && !matches!(address.octets()[3], 0 | 255)
    }

    /// How many services can have an address.
    pub fn capacity(self) -> u32 {
        OF_EACH_24 << (Self::MOST_BITS - self.bits)
    }

    /// An address that is not taken; `None`: all are.
    ///
    /// The search begins at a place that follows from `name`. So the address of a service that is gone does not go to the
    /// next one that comes, whose callers may still connect to what they looked up before. It looks at one address more
    /// than are taken at most.
    pub fn choose(self, name: &str, is_taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let digest = Sha256::digest(name.as_bytes());
        let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % self.capacity();
        (start..self.capacity()).chain(0..start).map(|index| self.at(index)).find(|it| !is_taken(*it))
    }

    /// Those that may be given, counted from 0.
    fn at(self, index: u32) -> Ipv4Addr {
        let (block, host) = (index / OF_EACH_24, index % OF_EACH_24 + 1);
        Ipv4Addr::from(u32::from(self.first) + (block << 8) + host)
    }

    fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.bits)
    }
}

/// Errors are what is wrong, in words that follow the field.
impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts =
            parts.and_then(|(first, bits)| Some((first.parse::<Ipv4Addr>().ok()?, bits.parse::<u8>().ok()?)));
        let Some((first, bits)) = parts else {
            return Err(format!("must be an IPv4 block such as \"{}\", is {text:?}", Self::DEFAULT));
        };
        if !(Self::FEWEST_BITS..=Self::MOST_BITS).contains(&bits) {
            let (fewest, most) = (Self::FEWEST_BITS, Self::MOST_BITS);
            return Err(format!("must be a block of /{fewest} to /{most}, is {text:?}"));
        }
        let network = Ipv4Addr::from(u32::from(first) & (u32::MAX << (32 - u32::from(bits))));
        let cidr = Self::new(network, bits);
        if network != first {
            return Err(format!("must begin with the block's first address, \"{cidr}\", is {text:?}"));
        }
        match TAKEN.iter().find(|(taken, _)| cidr.overlaps(*taken)) {
            Some((taken, what)) => Err(format!("must not overlap {taken} ({what}), is {text:?}")),
            None => Ok(cidr),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_that_cannot_be_services_are_refused() {
        for good in ["240.240.0.0/16", "10.0.0.0/8", "172.30.7.0/24", "240.0.0.0/8"] {
            assert_eq!(good.parse::<Cidr>().map(|cidr| cidr.to_string()), Ok(good.to_owned()));
        }
        for (bad, words) in [
            ("240.240.0.0", "must be an IPv4 block such as"),
            ("fd00::/16", "must be an IPv4 block"),
            ("240.240.0.0/x", "must be an IPv4 block"),
            ("10.0.0.0/7", "must be a block of /8 to /24"),
            ("10.0.0.0/25", "must be a block of /8 to /24"),
            ("10.1.0.0/8", "must begin with the block's first address, \"10.0.0.0/8\""),
            ("127.1.0.0/16", "must not overlap 127.0.0.0/8 (loopback)"),
            ("169.0.0.0/8", "must not overlap 169.254.0.0/16 (link-local addresses)"),
            ("239.0.0.0/8", "must not overlap 224.0.0.0/4 (multicast)"),
        ] {
            let refused = bad.parse::<Cidr>().expect_err(bad);
            assert!(refused.starts_with(words), "{bad}: {refused}");
        }
    }

    #[test]
    fn every_address_of_a_block_is_given_once_but_no_first_and_no_last() {
        let cidr: Cidr = "240.1.2.0/23".parse().expect("a block");
        let mut given = BTreeSet::new();
        while let Some(address) = cidr.choose(&format!("s{}", given.len()), |it| given.contains(&it)) {
            assert!(cidr.may_give(address), "{address}");
            assert!(given.insert(address), "{address} twice");
        }
        assert_eq!(given.len(), cidr.capacity() as usize);
        assert_eq!(given.len(), 508);
        for never in ["240.1.2.0", "240.1.2.255", "240.1.3.0", "240.1.3.255", "240.1.4.1", "240.1.1.1"] {
            assert!(!cidr.may_give(never.parse().expect("an address")), "{never}");
        }
    }

    #[test]
    fn the_same_name_gets_the_same_address_and_others_seldom_that_of_one_that_is_gone() {
        let nothing = |_| false;
        let first = Cidr::DEFAULT.choose("shop/payments", nothing);
        assert_eq!(first, Cidr::DEFAULT.choose("shop/payments", nothing));
        assert_ne!(first, Cidr::DEFAULT.choose("shop/orders", nothing));
    }
}
